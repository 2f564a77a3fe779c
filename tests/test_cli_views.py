"""What the commands that observe make of what they see; hardly anything here runs an endpoint."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console
from test_stats import STATS

from lahja import AsyncioEndpoint, ConnectionConfig, EndpointStats, wire
from lahja.cli.graph import Topology, as_dot, as_mermaid, topology_of
from lahja.cli.ls import listing
from lahja.cli.observer import Observer, Sight
from lahja.cli.places import (
    NoDirectoryError,
    directory_and_types,
    directory_or_default,
    sockets_in,
)
from lahja.cli.rows import Row, row_of
from lahja.cli.tap import Tapped, patterns_of
from lahja.cli.top import screen
from lahja.cli.words import duration, moment, size
from lahja.framing import Inlet, encode_value

EVIL = 'a"]\n\\b;<script>\x1b[31m--> x'


class Seen:
    """Stand for an observer that has seen something."""

    def __init__(
        self, stats: EndpointStats | None, sight: Sight = Sight.ALIVE, name: str = "ann"
    ) -> None:
        self.name = name
        self.path = Path(f"/run/{name}.ipc")
        self.stats = stats
        self.sight = sight
        self.reason = "" if sight is Sight.ALIVE else "it has its reasons"
        self.pid = 4711


def seen(*args: Any) -> Observer:
    return cast(Observer, Seen(*args))


def stats(**changes: Any) -> EndpointStats:
    return dataclasses.replace(STATS, **changes)


def drawn(renderable: Any, width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(renderable)
    return console.export_text()


# -- Numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (47 * 3600 + 59, "47 h 0 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.00 µs"),
        (1.5e-6, "1.50 µs"),
        (0.00099999, "1.00 ms"),
        (0.0123, "12.3 ms"),
        (0.5, "500 ms"),
        (1.0, "1.00 s"),
        (120.0, "120 s"),
    ],
)
def test_moments(seconds: float | None, text: str) -> None:
    assert moment(seconds) == text


def test_sizes() -> None:
    assert (size(0), size(5), size(1_500_000)) == ("·", "5B", "1.50MB")


# -- Where to look -------------------------------------------------------------------------------


def test_only_sockets_count(ipc_dir: Path) -> None:
    (ipc_dir / "file.ipc").touch()
    (ipc_dir / "link").symlink_to(ipc_dir / "nowhere")
    assert sockets_in(ipc_dir) == []
    with pytest.raises(NoDirectoryError, match="No such file"):
        sockets_in(ipc_dir / "nowhere")


def test_the_default_is_asked_for_where_no_directory_is_named(
    ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja.cli.places.default_directory", lambda app: ipc_dir)
    assert directory_or_default(None, None) == ipc_dir
    assert directory_or_default(None, "trading") == ipc_dir
    assert directory_or_default(Path("/"), None) == Path("/")


def test_a_directory_is_told_from_names_of_types(
    ipc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ipc_dir)
    (ipc_dir / "here").mkdir()
    assert directory_and_types([]) == (None, [])
    assert directory_and_types(["Tick", "here"]) == (None, ["Tick", "here"])
    assert directory_and_types(["here", "Tick"]) == (Path("here"), ["Tick"])
    assert directory_and_types(["./nowhere"]) == (Path("nowhere"), [])
    assert directory_and_types(["."]) == (Path("."), [])


# -- Rows ----------------------------------------------------------------------------------------


def test_rates_are_those_between_two_looks() -> None:
    before = stats()
    later = stats(
        taken_at=STATS.taken_at + 2,
        types=(dataclasses.replace(STATS.types[0], sent=102, received=23),),
    )
    row = row_of(seen(later), before)
    assert (row.sent, row.received) == (50, 10)
    assert (row.name, row.sight, row.peers) == ("ann", "alive", 1)
    assert (row.queue_bytes, row.stalls, row.stalled) == (5, 7, {"bob": 8.5})
    assert (row.waiting, row.lost) == (2, 11)
    assert row.slowest == ("m:f", 0.25)
    assert (row.requests_in_flight, row.requests_failed) == (1, 4)
    json.dumps(dataclasses.asdict(row))


def test_there_is_no_rate_at_first_nor_after_a_restart() -> None:
    assert row_of(seen(stats()), None).sent is None
    restarted = stats(instance="11" * 16, taken_at=STATS.taken_at + 1)
    assert row_of(seen(restarted), stats()).sent is None
    gone = row_of(seen(stats(taken_at=STATS.taken_at + 1), Sight.DIED), stats())
    assert (gone.sent, gone.stalled) == (None, {})


def test_what_was_never_seen_has_a_row_too() -> None:
    row = row_of(seen(None, Sight.STALE), None)
    assert (row.name, row.sight, row.reason, row.pid) == (
        "ann",
        "stale",
        "it has its reasons",
        4711,
    )


def every_row() -> list[Row]:
    return [row_of(seen(stats(), sight, sight.value), stats()) for sight in Sight]


def test_every_sight_can_be_drawn() -> None:
    text = drawn(screen(Path("/run"), every_row()))
    for sight in Sight:
        assert f" 1 {sight.value}" in text
        if sight is not Sight.ALIVE:
            row = next(line for line in text.splitlines() if line.split()[:1] == [sight.value])
            assert row.split()[2] == sight.value
            assert "it has its reasons" in row
    listed = drawn(listing(Path("/run"), [seen(stats(), sight, sight.value) for sight in Sight]))
    assert "1 of 6 endpoints alive" in listed
    for width in (20, 40, 80, 300):
        drawn(screen(Path("/run"), every_row()), width)


def test_names_cannot_draw_on_the_screen() -> None:
    subscription = dataclasses.replace(STATS.subscriptions[0], name=EVIL)
    evil = stats(backend=EVIL, framing=EVIL, subscriptions=(subscription,))
    row = row_of(seen(evil), None)
    for text in (
        drawn(screen(Path("/run"), [row])),
        drawn(listing(Path("/run"), [seen(evil)])),
    ):
        assert "\x1b" not in text
    with_markup = dataclasses.replace(row, slowest=("[red]m:f[/red]", 1.0))
    assert "f[/red]" in drawn(screen(Path("/run"), [with_markup]))


# -- Graphs --------------------------------------------------------------------------------------


def test_a_topology_is_put_together_from_all_statistics() -> None:
    peer = dataclasses.replace(STATS.peers[0], name="cat", path="/elsewhere", pid=5)
    other = stats(name="bob", peers=(dataclasses.replace(STATS.peers[0], name="ann"), peer))
    topology = topology_of([seen(stats()), seen(other), seen(None, Sight.STALE, "old")])
    assert topology.endpoints == {
        "ann": "trio, pid 4711",
        "bob": "trio, pid 4711",
        "cat": "serves elsewhere, pid 5",
        "old": "stale",
    }
    assert topology.gone == {"old"}
    assert topology.connections == {("ann", "bob"), ("bob", "cat")}
    assert topology.senders == {("ann", "m:A"): 1, ("bob", "m:A"): 1}
    assert ("cat", "m:B") in topology.subscribers
    assert topology.types == ["m:A", "m:B"]
    assert "class e3 gone" in as_mermaid(topology)
    assert "rounded,dashed" in as_dot(topology)


def test_a_client_is_known_from_those_that_it_is_connected_to() -> None:
    topology = topology_of([seen(stats())])
    assert topology.endpoints["bob"] == "does not serve"


def test_names_stay_in_their_labels() -> None:
    topology = Topology({EVIL: EVIL}, set(), {(EVIL, EVIL)}, {(EVIL, EVIL): 5}, {(EVIL, EVIL)})
    mermaid = as_mermaid(topology)
    assert len(mermaid.splitlines()) == 6
    assert mermaid.count('"') == 6
    assert "<script" not in mermaid
    assert "#34;" in mermaid
    dot = as_dot(topology)
    assert len(dot.splitlines()) == 9
    assert '\\"' in dot
    assert "\x1b" not in dot
    assert as_dot(Topology()).startswith("digraph")
    assert as_mermaid(Topology()) == "graph LR"


# -- Events --------------------------------------------------------------------------------------


def tapped(
    payload: bytes,
    layout: int = wire.LAYOUT_FIELDS,
    fields: tuple[str, ...] = ("number", "text"),
    kind: int = wire.EVENT,
    to: tuple[int, int] = (2, 1),
    loads: Any = None,
) -> Tapped:
    identity = b"" if kind == wire.EVENT else bytes(16)
    body = memoryview(struct.pack("<BI", kind, 7) + identity + payload)
    return Tapped("ann", Inlet(7, "app.events:Outer.Tick", layout, fields), body, *to, loads)


PLAIN = b"\0" + encode_value(5) + encode_value("é\n")


def test_plain_events_are_shown_as_they_would_be_printed() -> None:
    event = tapped(PLAIN)
    assert str(event) == r"Outer.Tick(number=5, text='é\n')"
    assert event.as_text(5).plain.endswith(r"ann     Outer.Tick(number=5, text='é\n')  → 2+1")
    assert tapped(PLAIN, kind=wire.REQUEST).as_text(3).plain.split()[1:3] == ["ann", "?"]
    assert tapped(PLAIN, kind=wire.RESPONSE, to=(0, 0)).as_text(3).plain.endswith("  → nobody")


def test_events_as_json() -> None:
    event = tapped(PLAIN, kind=wire.REQUEST).as_dict()
    assert event.pop("time") > 0
    assert event == {
        "origin": "ann",
        "kind": "request",
        "type": "app.events:Outer.Tick",
        "fields": {"number": 5, "text": "é\n"},
        "note": None,
        "elsewhere": 2,
        "here": 1,
    }


def test_json_has_something_for_every_value() -> None:
    value = {
        "float": [1.5, float("inf"), float("nan")],
        "bytes": b"\0a",
        "tuple": (1, None, True),
        "set": {1},
        "frozen": frozenset((2,)),
        5: {"key": 1 << 80},
    }
    shown = tapped(b"\0" + encode_value(value), fields=("value",)).as_dict()["fields"]["value"]
    assert json.loads(json.dumps(shown, allow_nan=False)) == {
        "float": [1.5, "inf", "nan"],
        "bytes": r"b'\x00a'",
        "tuple": [1, None, True],
        "set": [1],
        "frozen": [2],
        "5": {"key": 1 << 80},
    }


def test_mappings_are_shown_by_their_names() -> None:
    payload = b"\0" + encode_value({"number": 1, "more": 2})
    assert str(tapped(payload, wire.LAYOUT_MAPPING, ())) == "Outer.Tick(number=1, more=2)"


def test_pickles_are_left_alone() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return pytest.fail, ("it went off",)

    payload = b"\1" + pickle.dumps((Bomb(), 1))
    size = len(payload) - 1
    assert str(tapped(payload)) == f"Outer.Tick(<pickled, {size} bytes>)"
    assert tapped(payload, wire.LAYOUT_WHOLE, ()).as_dict()["note"] == f"pickled, {size} bytes"


def test_pickles_are_loaded_where_that_is_wanted() -> None:
    payload = b"\1" + pickle.dumps((1, Decimal(2)))
    assert str(tapped(payload, loads=pickle.loads)) == "Outer.Tick(number=1, text=Decimal('2'))"
    whole = tapped(b"\1" + pickle.dumps(Decimal(3)), wire.LAYOUT_WHOLE, (), loads=pickle.loads)
    assert str(whole) == "Decimal('3')"
    assert whole.as_dict()["note"] == "Decimal('3')"


@pytest.mark.parametrize(
    ("payload", "note"),
    [
        (b"", "too long to be shown"),
        (b"\0", "announced fields"),
        (b"\0NNN", "announced fields"),
        (b"\0\xff", "0xff is not the tag of a value"),
        (b"\1garbage", "does not decode: UnpicklingError"),
        (b"\1" + pickle.dumps(5), "does not decode: TypeError"),
    ],
)
def test_what_does_not_decode_is_shown_as_such(payload: bytes, note: str) -> None:
    event = tapped(payload, loads=pickle.loads)
    assert event.fields is None
    assert note in str(event)
    assert note in event.as_dict()["note"]


def test_names_of_types_as_they_are_typed() -> None:
    assert patterns_of([]) == ["*"]
    assert patterns_of(["Tick", "app.events:Tick", "app.*", "*"]) == [
        "*:Tick",
        "*.Tick",
        "app.events:Tick",
        "app.*",
        "*:app.*",
        "*.app.*",
        "*",
    ]


# -- Endpoints of other users ----------------------------------------------------------------


@pytest.mark.parametrize(("me", "sight"), [(0, "alive"), (1000, "refused")])
def test_only_root_looks_at_endpoints_of_other_users_and_unpickles_nothing_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, me: int, sight: str
) -> None:
    async def look() -> Observer:
        async with AsyncioEndpoint.serve(ConnectionConfig.from_name("a", tmp_path)) as endpoint:
            monkeypatch.setattr("lahja.cli.observer.peer_user", lambda sock: 12345)
            monkeypatch.setattr("lahja.sockets.os.geteuid", lambda: me)
            observer = Observer(endpoint.ipc_path, "ls")
            await observer.open(10)
            observer.close()
            return observer

    observer = asyncio.run(look())
    assert observer.sight.value == sight
    assert not observer.is_trusted
