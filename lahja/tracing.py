"""
Trace context, carried with events and requests where OpenTelemetry is active.

It is active in an endpoint if the program has set a tracer provider (of the extra
``opentelemetry`` and its SDK) before the endpoint runs; the program need not say another word. A
request is a span of its own, and so is each handler that is called with it, in whatever process:
all in one trace. An event that is broadcast within a span is handled within the same trace; outside
of a span, it carries nothing. To leave lahja out, put ``lahja`` into the variable
``OTEL_PYTHON_DISABLED_INSTRUMENTATIONS``.

An event's fields stay as they are: what it carries is kept with its origin. A handler runs within
that context by itself; who reads a stream says so::

    async for request in endpoint.stream(Question):
        with tracing.handling(request):
            ...

Nothing of OpenTelemetry is loaded by this module, unless the program has loaded it before.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, Self

from .common import BaseEvent, BaseRequestResponseEvent
from .exceptions import MissingExtra
from .framing import EventTable, PendingRequest, encode_value
from .names import name_of
from .routing import Router
from .version import __version__

__all__ = ["Tracing", "active_tracer", "context_of", "handling"]

_LONGEST_CONTEXT = 8 * 1024
_NAME = "lahja"


class _TracedOrigin(str):
    """Be the name of the endpoint that an event came from, and the context that came with it."""

    __slots__ = ("carrier",)

    def __new__(cls, name: str, carrier: dict[str, str]) -> Self:
        origin = super().__new__(cls, name)
        origin.carrier = carrier
        return origin

    carrier: dict[str, str]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def active_tracer() -> Any | None:
    """Return OpenTelemetry's tracer for lahja, or None where the program keeps no traces."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if _NAME in [each.strip() for each in disabled.split(",")]:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return provider.get_tracer(_NAME, __version__)


def context_of(event: BaseEvent) -> Any | None:
    """
    Return the OpenTelemetry context that an event came with; None where it came with none.

    :raise MissingExtra: where OpenTelemetry is not installed
    """
    propagate = _opentelemetry("context_of").propagate
    origin = getattr(event, "_origin", None)
    return propagate.extract(origin.carrier) if isinstance(origin, _TracedOrigin) else None


@contextlib.contextmanager
def handling(event: BaseEvent) -> Iterator[None]:
    """
    Run what is in the context within the trace of an event; a request gets a span there.

    It does nothing where the event came with no context.

    :raise MissingExtra: where OpenTelemetry is not installed
    """
    api = _opentelemetry("handling")
    context = context_of(event)
    if context is None:
        yield
        return
    tracer = active_tracer()
    if tracer is not None and isinstance(event, BaseRequestResponseEvent):
        with api.trace.use_span(_span_of(api.trace, tracer, event, context), end_on_exit=True):
            yield
        return
    token = api.context.attach(context)
    try:
        yield
    finally:
        api.context.detach(token)


def _opentelemetry(feature: str) -> Any:
    try:
        import opentelemetry.context
        import opentelemetry.propagate
        import opentelemetry.trace
    except ModuleNotFoundError as error:
        raise MissingExtra(f"lahja.tracing.{feature}", "opentelemetry") from error
    return opentelemetry


def _span_of(trace: Any, tracer: Any, event: BaseEvent, context: Any) -> Any:
    """Begin a span for a request that is handled."""
    attributes = {
        "messaging.system": _NAME,
        "messaging.operation.type": "process",
        "lahja.origin": event.get_origin(),
    }
    return tracer.start_span(
        f"process {name_of(type(event))}", context, trace.SpanKind.SERVER, attributes
    )


class Tracing:
    """
    Carry the trace context of one endpoint's events and requests.

    :param tracer: what :func:`active_tracer` returned
    :param route: broadcasts an event in plain Python, and returns the gates that hold it back
    """

    def __init__(
        self, router: Router, tracer: Any, route: Callable[[Any, Any], Sequence[Any]]
    ) -> None:
        self._api = _opentelemetry("Tracing")
        self._router = router
        self._table: EventTable = router.table
        self._tracer = tracer
        self._route = route
        self._spans: dict[bytes, Any] = {}  # of requests that wait, by their ids
        router.traced_origin = _TracedOrigin

    # -- Sending -----------------------------------------------------------------------------

    def post(self, event: Any, config: Any = None) -> Sequence[Any] | None:
        """Do what ``post`` of the table does, with the current context if there is one."""
        if not self._api.trace.get_current_span().get_span_context().is_valid:
            return self._table.post(event, config)
        with self._carrying():
            gates = self._route(event, config)
        return self._table.settle(gates)

    def ask(
        self, event: Any, config: Any, required: bool, wake: Callable[[], None]
    ) -> PendingRequest:
        """Do what ``ask`` of the table does, within a span, which :meth:`asked` ends."""
        trace = self._api.trace
        attributes = {"messaging.system": _NAME, "messaging.operation.type": "send"}
        span = self._tracer.start_span(
            f"request {name_of(type(event))}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        try:
            with trace.use_span(span, record_exception=False), self._carrying():
                pending = self._router.request(event, config, required, wake)
        except BaseException as error:
            self._end(span, error)
            raise
        self._spans[pending.id] = span
        return pending

    def asked(self, event: Any, error: BaseException | None) -> None:
        """End the span of a request, which has ended."""
        span = self._spans.pop(event._id, None)
        if span is not None:
            self._end(span, error)

    def _end(self, span: Any, error: BaseException | None) -> None:
        if span is None:
            return
        if isinstance(error, Exception):
            span.record_exception(error)
            span.set_status(self._api.trace.Status(self._api.trace.StatusCode.ERROR, str(error)))
        span.end()

    @contextlib.contextmanager
    def _carrying(self) -> Iterator[None]:
        """Let what is broadcast carry the current context, to others and to oneself."""
        carrier: dict[str, str] = {}
        self._api.propagate.inject(carrier)
        encoded = encode_value(carrier)
        if len(encoded) > _LONGEST_CONTEXT:  # baggage that nobody should carry
            yield
            return
        table, name = self._table, self._table.origin
        self._router.trace_context = encoded
        table.origin = _TracedOrigin(name, carrier)
        try:
            yield
        finally:
            self._router.trace_context = None
            table.origin = name

    # -- Handling ----------------------------------------------------------------------------

    def call(self, function: Callable[[Any], Any], event: Any) -> Any:
        """Call a handler within the context that its event came with."""
        origin = event._origin
        if type(origin) is not _TracedOrigin:
            return function(event)
        api = self._api
        context, span = api.propagate.extract(origin.carrier), None
        if isinstance(event, BaseRequestResponseEvent):
            span = _span_of(api.trace, self._tracer, event, context)
            context = api.trace.set_span_in_context(span, context)
        token = api.context.attach(context)
        try:
            result = function(event)
        except BaseException as error:
            self._end(span, error)
            raise
        finally:
            api.context.detach(token)
        if result is not None and inspect.isawaitable(result):
            return _Within(self._finishing(context, span, result), result)
        self._end(span, None)
        return result

    async def _finishing(self, context: Any, span: Any, awaitable: Awaitable[Any]) -> Any:
        """Wait for what a handler left to be awaited, in a task that has a context of its own."""
        token = self._api.context.attach(context)
        error: BaseException | None = None
        try:
            return await awaitable
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._api.context.detach(token)
            self._end(span, error)


class _Within(Coroutine[Any, Any, Any]):
    """Be a coroutine that awaits something; closed unstarted, it closes that, too."""

    def __init__(self, outer: Coroutine[Any, Any, Any], inner: Awaitable[Any]) -> None:
        self._outer = outer
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._outer.__await__()

    def send(self, value: Any) -> Any:
        return self._outer.send(value)

    def throw(self, *error: Any) -> Any:
        return self._outer.throw(*error)

    def close(self) -> None:
        self._outer.close()
        if isinstance(self._inner, Coroutine):
            self._inner.close()
