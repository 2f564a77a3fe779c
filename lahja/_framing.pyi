from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Protocol

from typing_extensions import disjoint_base

from .exceptions import DecodeError
from .frames import Frame

__all__ = [
    "IMPLEMENTATION",
    "EventIterator",
    "EventTable",
    "Inlet",
    "Mailbox",
    "Outlet",
    "PendingRequest",
    "Reader",
    "Shape",
    "Topic",
    "decode_value",
    "encode_value",
]

IMPLEMENTATION: Final = "cython"

class _Consumer(Protocol):
    def deliver(self, event: Any, local: bool) -> None: ...

def encode_value(value: object) -> bytes: ...
def decode_value(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[Any, int]: ...

@disjoint_base
class Outlet:
    name: str
    size: int
    threshold: int
    wake: Callable[[], None]
    high_water: int
    limit: int
    compress: bool
    accepts_pickle: bool
    announced: set[int]
    events: int
    has_long: bool

    def __init__(self, wake: Callable[[], None], high_water: int) -> None: ...
    def put(self, frame: Frame) -> None: ...
    def send(self, shape: Shape, frame: Frame) -> None: ...
    def take(self) -> list[bytes]: ...

@disjoint_base
class Shape:
    reluctance: int

    def __init__(self, type_id: int, name: str, layout: int, fields: tuple[str, ...]) -> None: ...
    @property
    def announcement(self) -> bytes: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    @property
    def layout(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def type_id(self) -> int: ...

@disjoint_base
class Topic:
    outlets: tuple[Outlet, ...]
    consumers: tuple[_Consumer, ...]
    strict: bool
    windows: dict[Outlet, Any]
    limited: bool
    twins: tuple[Topic, ...]
    tapped: bool
    broadcasts: int
    sent: int
    received: int
    delivered: int

    def __init__(self, cls: type) -> None: ...
    @property
    def cls(self) -> type: ...
    @property
    def name(self) -> str: ...
    @property
    def self_pickling(self) -> bool: ...
    @property
    def shapes(self) -> dict[tuple[str, ...] | int, Shape]: ...
    @property
    def slots(self) -> tuple[str, ...]: ...

@disjoint_base
class PendingRequest:
    id: bytes
    expected: type
    topic: Topic | None
    asked: tuple[Outlet, ...]
    locally: bool
    wake: Callable[[], None]
    response: Any
    error: Exception | None
    since: float

    def __init__(
        self,
        id: bytes,
        expected: type,
        topic: Topic | None,
        asked: tuple[Outlet, ...],
        locally: bool,
        wake: Callable[[], None],
    ) -> None: ...
    @property
    def names(self) -> tuple[str, ...]: ...

@disjoint_base
class EventTable:
    origin: str
    allow_pickle: bool
    on_topic: Callable[[Topic], None]
    topics: dict[type, Topic]
    by_name: dict[str, Topic]
    compressor: Callable[[Shape, Frame], bytes | None] | None
    limit: int
    debt: int
    congested: bool
    where: Callable[[], object]
    home: object
    running_key: str | None
    owner: Any
    route: Callable[[Any, Any], Sequence[Any]]
    route_request: Callable[[Any, Any, bool, Any], PendingRequest]
    on_congested: Callable[[tuple[Outlet, ...]], Sequence[Any]]
    targets: Callable[[Topic, Any, bool], tuple[Any, Any]]
    outlets: dict[str, Outlet]
    requests: dict[bytes, PendingRequest]

    def __init__(
        self, origin: str, allow_pickle: bool, on_topic: Callable[[Topic], None]
    ) -> None: ...
    def is_home(self) -> bool: ...
    def settle(self, gates: Sequence[Any]) -> Sequence[Any] | None: ...
    def new_request(
        self,
        topic: Topic,
        event: Any,
        outlets: tuple[Outlet, ...],
        locally: bool,
        wake: Callable[[], None],
    ) -> PendingRequest: ...
    def topic(self, cls: type) -> Topic: ...
    def post(self, event: Any, config: Any = None) -> Sequence[Any] | None: ...
    def publish(self, event: Any) -> int: ...
    def ask(
        self, event: Any, config: Any, required: bool, wake: Callable[[], None]
    ) -> PendingRequest: ...
    def prepare(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        outlets: tuple[Outlet, ...],
    ) -> tuple[Shape, Frame]: ...
    def admit(self, outlets: Iterable[Outlet], shape: Shape, frame: Frame) -> None: ...
    def send(self, outlets: Iterable[Outlet], shape: Shape, frame: Frame) -> None: ...
    def bind(self, event: Any, request_id: bytes | None) -> None: ...
    def encode(
        self,
        topic: Topic,
        event: Any,
        kind: int,
        request_id: bytes,
        outlets: tuple[Outlet, ...] | None = None,
    ) -> tuple[Shape, Frame]: ...

@disjoint_base
class Mailbox:
    events: deque[Any]
    remaining: int
    on_last: Callable[[], None] | None
    waker: Callable[[], None] | None
    peak: int

    def __init__(self, remaining: int = -1, on_last: Callable[[], None] | None = None) -> None: ...
    def deliver(self, event: Any, local: bool) -> None: ...

@disjoint_base
class EventIterator:
    mailbox: Mailbox
    left: int
    on_read: Callable[[Any], None] | None
    quick: bool
    turns: int

    def __init__(self, mailbox: Mailbox, left: int) -> None: ...
    def __aiter__(self) -> Any: ...
    def __anext__(self) -> Coroutine[Any, Any, Any]: ...
    async def go_on(self) -> Any: ...
    def close(self) -> None: ...
    def take(self) -> Any: ...

@disjoint_base
class Inlet:
    topic: Topic | None

    def __init__(self, type_id: int, name: str, layout: int, fields: tuple[str, ...]) -> None: ...
    @property
    def type_id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def layout(self) -> int: ...
    @property
    def fields(self) -> tuple[str, ...]: ...
    def build(
        self,
        cls: type,
        data: bytes | bytearray | memoryview,
        offset: int,
        origin: str,
        request_id: bytes | None,
        loads: Callable[[Any], Any] | None,
    ) -> Any: ...

@disjoint_base
class Reader:
    limit: int
    on_error: Callable[[Inlet, DecodeError], None]
    origin: str
    inlets: dict[int, Inlet] | None
    find_topic: Callable[[str], Topic | None]
    loads: Callable[[Any], Any] | None
    outlet: Outlet | None
    requests: dict[bytes, PendingRequest]
    on_response: Callable[[Inlet, bytes, Any, int], None]
    clock: Callable[[], float]
    has_more: bool
    received: int
    events: int

    def __init__(self, limit: int, on_error: Callable[[Inlet, DecodeError], None]) -> None: ...
    @property
    def pending(self) -> int: ...
    def get_buffer(self, sizehint: int = -1) -> memoryview: ...
    def buffer_updated(self, nbytes: int) -> None: ...
    def next_frame(self) -> memoryview | None: ...
    def dispatch(self, body: bytes | memoryview) -> bool: ...
    def end(self) -> None: ...
