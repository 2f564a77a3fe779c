"""
``lahja tap``: the events that are broadcast, as they come.

Their fields are decoded by what the endpoints announce, so that no module of the application is
imported. What is pickled is shown as such, unless it is asked for: unpickling imports modules, and
runs what is in the pickle.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.text import Text

from .. import wire
from ..exceptions import DecodeError
from ..framing import Inlet, decode_value
from ..pickling import loads_from
from ..protocol import one_line
from .observer import Observer, Sight
from .places import Lookout
from .running import Console, print_line

__all__ = ["Tapped", "patterns_of", "show_events"]

_PATIENCE = 2.0
_LOOK_SECONDS = 1.0  # after which there may be new endpoints
_WORDS = {wire.EVENT: "event", wire.REQUEST: "request", wire.RESPONSE: "response"}
_MARKS = {wire.EVENT: " ", wire.REQUEST: "?", wire.RESPONSE: "!"}

Loads = Callable[[Any], Any]


def patterns_of(types: list[str]) -> list[str]:
    """Return the patterns that the words on a command line stand for: whole names, or classes."""
    if not types:
        return ["*"]
    found = []
    for name in types:
        if ":" in name or set(name) & set("*?["):
            found.append(name)
        if ":" not in name and name != "*":
            found += [f"*:{name}", f"*.{name}"]  # a class of that name, nested ones included
    return found


class Tapped:
    """
    Be one event that was shown.

    :param body: of its frame
    :param loads: what unpickles; None to leave pickles alone
    """

    def __init__(
        self,
        origin: str,
        inlet: Inlet,
        body: memoryview,
        elsewhere: int,
        here: int,
        loads: Loads | None,
    ) -> None:
        self.time = time.time()
        self.origin = origin
        self.kind: int = body[0]
        self.type = inlet.name
        self.elsewhere = elsewhere
        self.here = here
        self.fields: dict[str, Any] | None = None
        self.whole: Any = None  # the event itself, where it had to be unpickled whole
        self.note = ""  # why there are no fields
        payload = body[wire.payload_offset(self.kind) :]
        try:
            self._read(inlet, payload, loads)
        except Exception as error:  # whatever a pickle raises
            self.note = f"does not decode: {type(error).__name__}: {error}"

    def _read(self, inlet: Inlet, payload: memoryview, loads: Loads | None) -> None:
        if not payload:
            self.note = "too long to be shown, or nobody else gets it and it is not plain"
            return
        values: Any
        if payload[0] == wire.PLAIN:
            values = []
            at = 1
            while at < len(payload):
                value, at = decode_value(payload, at)
                values.append(value)
        elif loads is None:
            self.note = f"pickled, {len(payload) - 1} bytes"
            return
        else:
            values = loads(payload[1:])
        if inlet.layout == wire.LAYOUT_WHOLE:
            self.whole = values
        elif inlet.layout == wire.LAYOUT_MAPPING:
            (self.fields,) = values
        elif len(values) != len(inlet.fields):
            raise DecodeError("it does not hold the announced fields")
        else:
            self.fields = dict(zip(inlet.fields, values, strict=True))

    def __str__(self) -> str:
        """Return the event as it would be printed."""
        if self.whole is not None:
            return one_line(repr(self.whole))
        name = one_line(self.type.rpartition(":")[2].rpartition("<locals>.")[2])
        if self.fields is None:
            return f"{name}(<{one_line(self.note)}>)"
        shown = (f"{one_line(key)}={value!r}" for key, value in self.fields.items())
        return one_line(f"{name}({', '.join(shown)})")

    def as_text(self, width: int) -> Text:
        """Return the line for people; names are at least so wide."""
        moment = time.localtime(self.time)
        milliseconds = int(self.time % 1 * 1000)
        text = Text.assemble(
            (f"{time.strftime('%H:%M:%S', moment)}.{milliseconds:03} ", "dim"),
            (f"{self.origin:<{width}} ", "bold"),
            (f"{_MARKS[self.kind]} ", "cyan"),
            str(self),
        )
        if self.elsewhere or self.here:
            return text.append(f"  → {self.elsewhere}+{self.here}", "dim")
        return text.append("  → nobody", "yellow")

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold of it."""
        return {
            "time": self.time,
            "origin": self.origin,
            "kind": _WORDS[self.kind],
            "type": self.type,
            "fields": None if self.fields is None else _jsonable(self.fields),
            "note": self.note or (repr(self.whole) if self.whole is not None else None),
            "elsewhere": self.elsewhere,
            "here": self.here,
        }


def _jsonable(value: Any) -> Any:
    """Return the nearest that JSON has: what it does not know becomes a text."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else repr(value)
    if type(value) in (list, tuple, set, frozenset):
        return [_jsonable(each) for each in value]
    if type(value) is dict:
        return {k if type(k) is str else repr(k): _jsonable(v) for k, v in value.items()}
    return repr(value)


async def show_events(
    directory: Path,
    types: list[str],
    as_json: bool,
    count: int | None,
    unpickle: bool,
    console: Console,
) -> int:
    """Show the events that are broadcast in a directory; return the exit code."""
    left = math.inf if count is None else count
    finished = asyncio.Event()
    failure: list[Exception] = []
    width = 0

    def show(text: Text | None, data: dict[str, Any]) -> None:
        try:
            if as_json:
                print_line(json.dumps(data))
            elif text is not None:
                console.print(text, soft_wrap=True)
        except OSError as error:  # nobody reads it any more; this is no place to raise it
            failure.append(error)
            finished.set()

    def on_tapped(
        observer: Observer, inlet: Inlet, body: memoryview, elsewhere: int, here: int
    ) -> None:
        nonlocal left, width
        if left <= 0 or failure:
            return
        left -= 1
        loads = None
        peer = observer.connection.peer if observer.connection is not None else None
        if unpickle and observer.is_trusted and peer is not None:
            loads = loads_from(peer.options.get("main", "__main__"))
        width = max(width, *(len(each.name) for each in lookout.observers))
        tapped = Tapped(observer.name, inlet, body, elsewhere, here, loads)
        show(None if as_json else tapped.as_text(width), tapped.as_dict() if as_json else {})
        if left <= 0:
            finished.set()

    def on_missed(observer: Observer, lost: int) -> None:
        if left > 0 and not failure:
            text = Text(f"… {lost:,} events of {observer.name} came too fast to be shown", "yellow")
            show(text, {"origin": observer.name, "lost": lost})

    if unpickle:
        sys.path.insert(0, os.getcwd())
    lookout = Lookout(directory, "tap", _PATIENCE, patterns_of(types), on_tapped, on_missed)
    told: dict[Observer, Sight] = {}
    try:
        while not finished.is_set():
            await lookout.look()
            _tell(lookout.observers, told)
            await _wait_for(finished, _LOOK_SECONDS)
    finally:
        lookout.close()
    if failure:
        raise failure[0]
    return 0


def _tell(observers: list[Observer], told: dict[Observer, Sight]) -> None:
    """Say of whom nothing is shown, once for each reason."""
    for observer in observers:
        if told.get(observer) is not observer.sight:
            told[observer] = observer.sight
            if observer.sight is not Sight.ALIVE:
                text = f"lahja: {observer.name} is {observer.sight.value}: {observer.reason}"
                print(text, file=sys.stderr)


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
