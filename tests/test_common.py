"""What users subclass and set, without any endpoint."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import pickle
import typing
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from helpers import Answer, Number, Question

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BindError,
    BroadcastConfig,
    ConnectionConfig,
    Subscription,
    TrioEndpoint,
    constants,
)
from lahja.base import EndpointAPI
from lahja.typing import RequestID

REQUEST_ID = RequestID(bytes(range(16)))


class Endpoint:
    """Have a name, and nothing else."""

    name = "me"


def bound(event: BaseEvent, request_id: RequestID | None = None) -> BaseEvent:
    """Return an event that was broadcast."""
    endpoint: Any = Endpoint()
    event.bind(endpoint, request_id)
    return event


# -- Where an endpoint is --------------------------------------------------------------------


def test_a_config_is_a_name_and_a_path(tmp_path: Path) -> None:
    assert ConnectionConfig.from_name("a") == ("a", Path("a.ipc"))
    assert ConnectionConfig.from_name("a", tmp_path) == ConnectionConfig("a", tmp_path / "a.ipc")
    text: Any = str(tmp_path)
    assert ConnectionConfig.from_name("a", text).path == tmp_path / "a.ipc"
    assert ConnectionConfig.from_name(name="a", base_path=tmp_path).name == "a"
    config = ConnectionConfig("a", tmp_path)
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_base_path_must_be_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path / "missing"):
        with pytest.raises(TypeError, match=r"base_path must be a directory"):
            ConnectionConfig.from_name("a", path)


# -- Where a broadcast goes ------------------------------------------------------------------


def test_a_broadcast_config_says_who_may_receive() -> None:
    assert BroadcastConfig().allowed_to_receive("anybody")
    assert BroadcastConfig("a").allowed_to_receive("a")
    assert not BroadcastConfig("a").allowed_to_receive("b")
    config = BroadcastConfig()
    assert (config.filter_endpoint, config.filter_event_id) == (None, None)
    assert (config.internal, config.require_subscriber) == (False, None)


def test_an_internal_event_goes_to_no_other_endpoint() -> None:
    with pytest.raises(ValueError, match=r"internal=True excludes filter_endpoint='a'"):
        BroadcastConfig(filter_endpoint="a", internal=True)


CONFIGS = [
    (BroadcastConfig(), "BroadcastConfig(internal=False)"),
    (BroadcastConfig(internal=True), "BroadcastConfig(internal=True)"),
    (BroadcastConfig("a"), "BroadcastConfig(filter_endpoint='a', internal=False)"),
    (
        BroadcastConfig(filter_event_id=REQUEST_ID),
        f"BroadcastConfig(filter_event_id={REQUEST_ID!r}, internal=False)",
    ),
    (
        BroadcastConfig(require_subscriber=True),
        "BroadcastConfig(internal=False, require_subscriber=True)",
    ),
]


@pytest.mark.parametrize(("config", "text"), CONFIGS)
def test_broadcast_configs_are_values(config: BroadcastConfig, text: str) -> None:
    assert repr(config) == text
    same = pickle.loads(pickle.dumps(config))
    assert same == config
    assert hash(same) == hash(config)
    assert sum(config == other for other, _ in CONFIGS) == 1
    assert config != text


# -- Events ----------------------------------------------------------------------------------


def test_an_event_is_bound_once() -> None:
    event = Number(1)
    assert not event.is_bound
    assert not Number.is_bound
    with pytest.raises(AttributeError, match=r"this Number has no origin: it was not broadcast"):
        event.get_origin()
    bound(event)
    assert event.is_bound
    assert not Number.is_bound
    assert event.get_origin() == "me"
    assert event._id is None
    with pytest.raises(BindError, match=r"this Number was broadcast by 'me' already: make a new"):
        bound(event)


def test_a_request_is_bound_with_its_id() -> None:
    question = bound(Question(1), REQUEST_ID)
    assert question.broadcast_config() == BroadcastConfig("me", REQUEST_ID)
    internal = BroadcastConfig(internal=True, filter_event_id=REQUEST_ID)
    assert question.broadcast_config(internal=True) == internal


def test_an_event_that_was_not_broadcast_has_nowhere_to_go_back_to() -> None:
    with pytest.raises(AttributeError):
        Number(1).broadcast_config()
    assert Number(1).broadcast_config(internal=True) == BroadcastConfig(internal=True)


def test_an_event_without_super_init_is_an_event() -> None:
    class Careless(BaseEvent):
        def __init__(self) -> None:
            pass

    class Careful(BaseEvent):
        def __init__(self) -> None:
            super().__init__()

    for kind in (Careless, Careful):
        assert vars(kind()) == {}
        assert bound(kind()).get_origin() == "me"


def test_a_request_must_say_what_it_expects() -> None:
    class Silent(BaseRequestResponseEvent[Answer]):
        pass

    with pytest.raises(TypeError, match=r"abstract"):
        Silent()  # type: ignore[abstract]
    assert Question.expected_response_type() is Answer
    assert issubclass(BaseRequestResponseEvent, BaseEvent)


# -- Subscriptions ---------------------------------------------------------------------------


def test_a_subscription_ends_once() -> None:
    ended: list[bool] = []
    subscription = Subscription(lambda: ended.append(True))
    subscription.unsubscribe()
    subscription.unsubscribe()
    assert ended == [True]


def test_a_subscription_that_could_not_end_may_be_ended_again() -> None:
    attempts: list[bool] = []

    def unsubscribe() -> None:
        attempts.append(True)
        if len(attempts) == 1:
            raise RuntimeError

    subscription = Subscription(unsubscribe)
    with pytest.raises(RuntimeError):
        subscription.unsubscribe()
    subscription.unsubscribe()
    subscription.unsubscribe()
    assert len(attempts) == 2


# -- Numbers of the old lahja ----------------------------------------------------------------


def test_the_constants_of_the_old_lahja_are_there() -> None:
    assert constants.ENDPOINT_CONNECT_TIMEOUT == 30
    assert constants.IPC_WAIT_SECONDS > 0
    assert constants.SIZE_MARKER_LENGTH == 4


def test_the_annotations_of_events_are_those_of_their_fields() -> None:
    @dataclasses.dataclass
    class Order(BaseEvent):
        number: int
        text: str = ""

    assert typing.get_type_hints(Order) == {"number": int, "text": str}
    assert typing.get_type_hints(BaseEvent) == {}
    assert typing.get_type_hints(BroadcastConfig.__init__)["filter_event_id"]


# -- Implementations of one's own --------------------------------------------------------------


def test_a_program_may_implement_what_the_old_lahja_had() -> None:
    new = {"join", "membership", "stats", "wait_until_all_of"}
    assert not new & EndpointAPI.__abstractmethods__
    body = {name: lambda self: None for name in EndpointAPI.__abstractmethods__}
    fake = type("Fake", (EndpointAPI,), body)()
    for name in ("stats", "membership"):
        with pytest.raises(NotImplementedError, match=rf"Fake does not implement {name}\(\)"):
            getattr(fake, name)()
    with pytest.raises(NotImplementedError, match=r"Fake does not implement join\(\)"):
        type(fake).join("a")
    with pytest.raises(NotImplementedError, match=r"not implement wait_until_all_of\(\)"):
        asyncio.run(fake.wait_until_all_of({"a"}))


def test_a_mock_of_an_endpoint_is_awaited_where_an_endpoint_is() -> None:
    mock = create_autospec(EndpointAPI)
    mock.wait_for.return_value = "event"

    async def wait() -> object:
        return await mock.wait_for(BaseEvent)

    assert asyncio.run(wait()) == "event"


@pytest.mark.parametrize("cls", [EndpointAPI, AsyncioEndpoint, TrioEndpoint])
def test_it_is_known_that_wait_for_is_awaited(cls: type[EndpointAPI]) -> None:
    can_tell = cls is EndpointAPI or hasattr(inspect, "markcoroutinefunction")
    assert inspect.iscoroutinefunction(cls.wait_for) is can_tell
