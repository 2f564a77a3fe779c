"""Trace context: carried where OpenTelemetry is active, and nowhere else, on every event loop."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from helpers import (
    Answer,
    Bus,
    Number,
    Question,
    Text,
    answer_questions,
    complaints,
    raw_frame,
    raw_observer,
    raw_peer,
    until,
)
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from process_helpers import BACKENDS, Worker, calling, endpoint_class, run_on

from lahja import ConnectionConfig, NoSubscribers, RequestTimeout, wire
from lahja.framing import encode_value
from lahja.names import name_of
from lahja.protocol import control_frame
from lahja.tracing import active_tracer, context_of, handling

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C


class Traces:
    """Keep the spans that end, and make others."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Let OpenTelemetry be active; the real provider could never be removed again."""
    traces = Traces()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traces.provider)
    yield traces
    traces.provider.shutdown()


REQUEST, PROCESS = "request helpers:Question", "process helpers:Question"


def current() -> int:
    """Return the id of the current trace; 0 where there is none."""
    found: int = trace.get_current_span().get_span_context().trace_id
    return found


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    found: int = span.context.trace_id
    return found


def is_child_of(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert parent.context is not None
    return span.parent is not None and span.parent.span_id == parent.context.span_id


# -- Active or not -------------------------------------------------------------------------------


def test_without_a_provider_it_is_not_active(monkeypatch: pytest.MonkeyPatch) -> None:
    assert active_tracer() is None
    monkeypatch.setattr(trace, "get_tracer_provider", trace.NoOpTracerProvider)
    assert active_tracer() is None
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert active_tracer() is None


def test_it_can_be_turned_off(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    assert active_tracer() is not None
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, lahja")
    assert active_tracer() is None


@pytest.mark.anyio
async def test_where_it_is_not_active_nothing_is_carried(bus: Bus) -> None:
    tracer = TracerProvider().get_tracer("test")
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: None}) as peer:
        with tracer.start_as_current_span("outer"):
            await server.broadcast(Number(1))
        assert await peer.read_kind(wire.EVENT)


@pytest.mark.anyio
async def test_where_no_span_is_current_nothing_is_carried(bus: Bus, traces: Traces) -> None:
    async with bus.serve("server") as server, raw_peer(server, "raw", {Number: None}) as peer:
        await server.broadcast(Number(1))
        assert await peer.read_kind(wire.EVENT)
    assert not traces.spans


# -- Requests ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_request_is_one_trace(bus: Bus, traces: Traces) -> None:
    async with bus.pair() as (server, client):

        async def respond(question: Question) -> None:
            with traces.tracer.start_as_current_span("inner"):
                await anyio.lowlevel.checkpoint()
                await server.broadcast(Answer(1), question.broadcast_config())

        server.subscribe(Question, respond)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        with traces.tracer.start_as_current_span("outer"):
            assert await client.request(Question(1)) == Answer(1)
            assert current() != 0
        assert current() == 0
        await until(lambda: traces.named(PROCESS))
    outer, request = traces.only("outer"), traces.only(REQUEST)
    process, inner = traces.only(PROCESS), traces.only("inner")
    assert is_child_of(request, outer)
    assert is_child_of(process, request)
    assert is_child_of(inner, process)
    assert {trace_of(each) for each in (request, process, inner)} == {trace_of(outer)}
    assert (request.kind, process.kind) == (trace.SpanKind.CLIENT, trace.SpanKind.SERVER)
    assert process.attributes is not None
    assert process.attributes["lahja.origin"] == "client"
    assert request.status.is_ok or request.status.is_unset


@pytest.mark.anyio
async def test_a_request_begins_a_trace_where_there_is_none(bus: Bus, traces: Traces) -> None:
    async with bus.run() as endpoint:
        answer_questions(endpoint)
        for value in range(2):
            await endpoint.request(Question(value))
        await until(lambda: len(traces.named(PROCESS)) == 2)
    requests = traces.named(REQUEST)
    assert len({trace_of(each) for each in requests}) == 2
    assert {trace_of(each) for each in traces.named(PROCESS)} == set(map(trace_of, requests))


@pytest.mark.anyio
async def test_requests_that_wait_for_their_turn_keep_their_traces_apart(
    bus: Bus, traces: Traces
) -> None:
    seen: dict[int, int] = {}

    async def respond(question: Question) -> None:
        await anyio.sleep(0.001)
        seen[question.value] = current()
        await server.broadcast(Answer(question.value), question.broadcast_config())

    async with bus.pair() as (server, client):
        server.subscribe(Question, respond)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        wanted: dict[int, int] = {}

        async def ask(value: int) -> None:
            with traces.tracer.start_as_current_span("outer"):
                wanted[value] = current()
                await client.request(Question(value))

        async with anyio.create_task_group() as tasks:
            for value in range(10):
                tasks.start_soon(ask, value)
    assert seen == wanted
    assert len(set(seen.values())) == 10


@pytest.mark.anyio
async def test_failures_are_in_the_trace(bus: Bus, traces: Traces) -> None:
    def fail(question: Question) -> None:
        raise ZeroDivisionError("no")

    async def fail_later(question: Question) -> None:
        raise ZeroDivisionError("no")

    async with bus.run() as endpoint:
        with pytest.raises(NoSubscribers):
            await endpoint.request(Question(1))
        for handler in (fail, fail_later):
            subscription = endpoint.subscribe(Question, handler)
            with pytest.raises(RequestTimeout):
                await endpoint.request(Question(1), timeout=0.05)
            subscription.unsubscribe()
        assert not endpoint._tracing._spans  # type: ignore[union-attr]
    errors = [span.status.description or "" for span in traces.named(REQUEST)]
    assert "none would receive" in errors[0]
    assert "no response to" in errors[1]
    for process in traces.named(PROCESS):
        assert process.status.status_code is trace.StatusCode.ERROR
        assert process.events[0].name == "exception"
    assert len(traces.named(PROCESS)) == 2


@pytest.mark.anyio
async def test_a_cancelled_request_ends_its_span(bus: Bus, traces: Traces) -> None:
    async with bus.run() as endpoint:
        endpoint.subscribe(Question, lambda question: None)
        with anyio.move_on_after(0.01):
            await endpoint.request(Question(1))
    assert traces.only(REQUEST).status.is_unset


# -- Events --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_events_are_handled_within_the_trace_that_they_came_from(
    bus: Bus, traces: Traces
) -> None:
    seen: list[tuple[str, int]] = []

    def note(who: str) -> Callable[[Number], None]:
        return lambda event: seen.append((who, current()))

    async def later(event: Number) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(("later", current()))

    async with bus.pair() as (server, client):
        server.subscribe(Number, note("there"))
        server.subscribe(Number, later)
        client.subscribe(Number, note("here"))
        await client.wait_until_endpoint_subscribed_to("server", Number)
        with traces.tracer.start_as_current_span("outer"):
            wanted = current()
            await client.broadcast(Number(1))
        await until(lambda: len(seen) == 3)
        assert dict(seen) == dict.fromkeys(("there", "later", "here"), wanted)
        await client.broadcast(Number(2))
        await until(lambda: len(seen) == 6)
        assert dict(seen[3:]) == dict.fromkeys(("there", "later", "here"), 0)
    assert len(traces.spans) == 1  # no span for each event


@pytest.mark.anyio
async def test_who_reads_a_stream_says_that_it_handles_an_event(bus: Bus, traces: Traces) -> None:
    async with bus.pair() as (server, client):
        numbers, questions = server.stream(Number), server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)

        async def ask() -> None:
            with traces.tracer.start_as_current_span("outer"):
                await client.broadcast(Number(1))
                await client.request(Question(1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            number, question = await anext(numbers), await anext(questions)
            assert current() == 0
            with handling(number):
                assert current() != 0
            with handling(question):
                await server.broadcast(Answer(1), question.broadcast_config())
        assert current() == 0
        found = context_of(number)
        assert trace.get_current_span(found).get_span_context().trace_id == trace_of(
            traces.only("outer")
        )
    assert is_child_of(traces.only(PROCESS), traces.only(REQUEST))


@pytest.mark.anyio
async def test_an_event_without_a_trace_is_handled_as_it_is(bus: Bus, traces: Traces) -> None:
    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        await endpoint.broadcast(Number(1))
        number = await anext(stream)
        assert context_of(number) is None
        with handling(number):
            assert current() == 0
    assert context_of(Number(2)) is None
    assert not traces.spans


@pytest.mark.anyio
async def test_events_stay_what_they_are(bus: Bus, traces: Traces) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        local = client.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        with traces.tracer.start_as_current_span("outer"):
            await client.broadcast(Number(1))
        for received in (await anext(stream), await anext(local)):
            assert received == Number(1)
            assert list(vars(received)) == ["value", "_origin"]
            assert received.get_origin() == "client"
            assert type(received.get_origin()) is str
            assert received.broadcast_config().filter_endpoint == "client"
            again = pickle.loads(pickle.dumps(received))
            assert type(vars(again)["_origin"]) is str
        await client.broadcast(Number(2))
        assert type(vars(await anext(stream))["_origin"]) is str
        assert type(vars(await anext(local))["_origin"]) is str


@pytest.mark.anyio
async def test_baggage_travels_too_but_not_without_bound(bus: Bus, traces: Traces) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Number)
        await client.wait_until_endpoint_subscribed_to("server", Number)
        with traces.tracer.start_as_current_span("outer"):
            token = context.attach(baggage.set_baggage("user", "ann"))
            await client.broadcast(Number(1))
            context.detach(token)
            many = context.get_current()
            for number in range(100):
                many = baggage.set_baggage(f"key{number}", "x" * 100, many)
            token = context.attach(many)
            await client.broadcast(Number(2))
            context.detach(token)
        assert baggage.get_baggage("user", context_of(await anext(stream))) == "ann"
        assert (await anext(stream)).value == 2


@pytest.mark.anyio
async def test_where_the_frame_would_be_too_long_it_goes_without(bus: Bus, traces: Traces) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Text: None}, max_frame_size=1024) as peer,
    ):
        with traces.tracer.start_as_current_span("outer"):
            await server.broadcast(Text("x" * 900))
            await server.broadcast(Text("x" * 995))
        traced = await peer.read_kind(wire.TRACED)
        assert len(traced) <= 1024
        assert len(await peer.read_kind(wire.EVENT)) <= 1024


@pytest.mark.anyio
async def test_held_and_compressed_events_carry_it_too(bus: Bus, traces: Traces) -> None:
    async with bus.pair() as (server, client):
        stream = server.stream(Text, max_queue=1)
        await client.wait_until_endpoint_subscribed_to("server", Text)
        with traces.tracer.start_as_current_span("outer"):
            wanted = current()
            for _ in range(3):
                client.broadcast_nowait(Text("x" * 10_000))
        for _ in range(3):
            found = context_of(await anext(stream))
            assert trace.get_current_span(found).get_span_context().trace_id == wanted


@pytest.mark.anyio
async def test_an_observer_sees_the_event_and_not_its_context(bus: Bus, traces: Traces) -> None:
    async with (
        bus.serve("server") as server,
        raw_peer(server, "raw", {Number: None}),
        raw_observer(server, "observer", "*") as observer,
    ):
        with traces.tracer.start_as_current_span("outer"):
            await server.broadcast(Number(1))
        body = await observer.read_kind(wire.TAPPED)
        assert body[13] == wire.EVENT


@pytest.mark.anyio
async def test_handlers_of_before_and_after_the_start_are_called_alike(
    bus: Bus, traces: Traces
) -> None:
    seen: list[int] = []
    endpoint = bus.endpoint_class("alone")
    endpoint.subscribe(Number, lambda event: seen.append(current()))
    async with endpoint.run():
        endpoint.subscribe(Number, lambda event: seen.append(current()))
        with traces.tracer.start_as_current_span("outer"):
            wanted = current()
            await endpoint.broadcast(Number(1))
        await until(lambda: len(seen) == 2)
        assert seen == [wanted, wanted]
        names = [row.name for row in endpoint.stats().subscriptions]
        assert all(name.endswith("<lambda>") for name in names)


async def never(event: Number) -> None:
    raise AssertionError


class Later:
    """Be awaitable and no coroutine: there is nothing to close."""

    def __await__(self) -> Iterator[None]:
        raise AssertionError


@pytest.mark.anyio
@pytest.mark.parametrize("never", [never, lambda event: Later()], ids=["coroutine", "awaitable"])
async def test_a_handler_that_is_stopped_before_it_began_leaves_nothing(
    bus: Bus, traces: Traces, never: Callable[[Number], Any]
) -> None:
    async with bus.run() as endpoint:
        subscription = endpoint.subscribe(Number, never)
        handler = next(iter(endpoint._handlers))
        handler._scheduler = _Lazy(endpoint)  # type: ignore[assignment]
        with traces.tracer.start_as_current_span("outer"):
            await endpoint.broadcast(Number(1))
        await until(lambda: handler._unstarted is not None)
        subscription.unsubscribe()
        assert handler._unstarted is None


class _Ask:
    """Yield a question to whoever drives the coroutine, and be its answer."""

    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "question")


@pytest.mark.anyio
async def test_what_a_handler_leaves_is_a_coroutine_within_the_trace(
    bus: Bus, traces: Traces
) -> None:
    seen: list[int] = []

    async def ask(event: Number) -> Any:
        seen.append(current())
        return await _Ask()

    async with bus.run() as endpoint:
        stream = endpoint.stream(Number)
        with traces.tracer.start_as_current_span("outer"):
            wanted = current()
            await endpoint.broadcast(Number(1))
        number = await anext(stream)
        assert endpoint._tracing is not None
        call = endpoint._tracing.call
        answered, failed = call(ask, number), call(ask, number)
        assert not seen
        assert answered.send(None) == "question"
        with pytest.raises(StopIteration) as stopped:
            answered.send("answer")
        assert stopped.value.value == "answer"
        assert current() == 0
        assert failed.send(None) == "question"
        with pytest.raises(ZeroDivisionError):
            failed.throw(ZeroDivisionError())
        assert current() == 0
        assert seen == [wanted, wanted]


class _Lazy:
    """Be the event loop of an endpoint, which starts no task."""

    def __init__(self, endpoint: Any) -> None:
        self.call_soon = endpoint._loop.call_soon
        self.is_stray = endpoint._loop.is_stray

    def start_soon(self, function: Any, *args: Any) -> None:
        pass


# -- From others ---------------------------------------------------------------------------------


def traced(carrier: object, inner: bytes, size: int | None = None) -> bytes:
    encoded = encode_value(carrier)
    length = len(encoded) if size is None else size
    return raw_frame(wire.TRACED, length.to_bytes(2, "little") + encoded + inner)


async def announced_event(peer: Any, value: int) -> bytes:
    """Announce a number, and return the body of an event that has one."""
    type_id: int = await peer.announce(Number(value))
    return bytes((wire.EVENT,)) + type_id.to_bytes(4, "little") + b"\0" + encode_value(value)


@pytest.mark.anyio
async def test_a_context_from_elsewhere_is_understood(bus: Bus, traces: Traces) -> None:
    seen: list[int] = []
    async with bus.serve("server") as server, raw_peer(server) as peer:
        server.subscribe(Number, lambda event: seen.append(current()))
        inner = await announced_event(peer, 1)
        await peer.send(traced({"traceparent": PARENT}, inner))
        await peer.send(traced({"traceparent": "nonsense", "x": "y"}, inner))
        await peer.send(traced({}, inner))
        await until(lambda: len(seen) == 3)
    assert seen == [TRACE_ID, 0, 0]


@pytest.mark.anyio
async def test_who_keeps_no_traces_ignores_the_context(bus: Bus) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        numbers = server.stream(Number)
        await peer.send(traced({"traceparent": PARENT}, await announced_event(peer, 1)))
        number = await anext(numbers)
        assert number.value == 1
        assert type(vars(number)["_origin"]) is str


BAD = {
    "no event": (traced({}, b""), "a TRACED frame holds no event"),
    "a goodbye": (traced({}, control_frame(wire.GOODBYE)[4:]), "a TRACED frame holds no event"),
    "another one": (traced({}, traced({}, b"")[4:]), "a TRACED frame holds no event"),
    "nothing": (raw_frame(wire.TRACED), "is cut short"),
    "less than its size": (traced({}, b"", 500), "is cut short"),
    "a context of a number": (traced({"a": 5}, b""), "is not a dict of texts"),
    "a context that is none": (traced([], b""), "is not a dict of texts"),
    "garbage": (raw_frame(wire.TRACED, b"\1\0\xff"), "0xff is not the tag of a value"),
    "an event of an unknown type": (
        traced({}, bytes((wire.EVENT, 9, 0, 0, 0))),
        "of a type that was not announced",
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("frame", "line"), BAD.values(), ids=BAD)
async def test_a_frame_that_is_no_trace_ends_the_connection(
    bus: Bus, caplog: pytest.LogCaptureFixture, frame: bytes, line: str
) -> None:
    async with bus.serve("server") as server, raw_peer(server) as peer:
        await peer.send(frame)
        await peer.closed()
    (complaint,) = complaints(caplog)
    assert line in complaint


# -- Two processes -------------------------------------------------------------------------------


def serve_traced(backend: str, directory: str) -> None:
    """Respond to one question, and print the spans of this process."""
    traces = Traces()
    trace.set_tracer_provider(traces.provider)
    run_on(backend, _serve_traced, backend, Path(directory))
    print(json.dumps([(span.name, trace_of(span)) for span in traces.spans]))


async def _serve_traced(backend: str, directory: Path) -> None:
    config = ConnectionConfig.from_name("server", directory)
    async with endpoint_class(backend).serve(config) as server:
        asked = anyio.Event()

        async def respond(question: Question) -> None:
            await server.broadcast(Answer(question.value), question.broadcast_config())
            asked.set()

        server.subscribe(Question, respond)
        print("ready", flush=True)
        await asked.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("backend", BACKENDS)
async def test_a_request_is_one_trace_across_processes(
    bus: Bus, backend: str, traces: Traces
) -> None:
    with Worker(*calling(serve_traced, backend, str(bus.directory))) as worker:
        assert worker.read_line() == "ready"
        async with bus.connect("client", "server") as client:
            await client.wait_until_endpoint_subscribed_to("server", Question)
            assert (await client.request(Question(7))).value == 7
        await worker.ended()
        assert json.loads(worker.read_line()) == [[PROCESS, trace_of(traces.only(REQUEST))]]


def test_names_are_those_of_the_helpers() -> None:
    assert f"process {name_of(Question)}" == PROCESS
