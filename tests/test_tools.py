"""
The testing API: engines, drivers and runners.

Most tests run drivers in this process, on each event loop; what only shows there is done with real
processes.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import uvloop
from tools_helpers import (
    Answer,
    Boom,
    Greeting,
    Question,
    double,
    ignore_interrupts,
    note_pid,
    raise_awkwardly,
    raise_boom,
    server_and_client,
)

from lahja import (
    BindError,
    BroadcastConfig,
    ConnectionConfig,
    ConnectTimeout,
    EndpointAPI,
    LahjaError,
    NoSubscribers,
)
from lahja.tools import drivers as d
from lahja.tools import runner as runner_module
from lahja.tools import runners as runners_module
from lahja.tools.drivers.actions import AsyncAction, DidNotThrow, SyncAction
from lahja.tools.engine import AsyncioEngine, EngineAPI, TrioEngine
from lahja.tools.runner import (
    AsyncioRunner,
    BaseIsolatedProcessRunner,
    DriverFailed,
    IsolatedHeterogenousRunner,
    IsolatedHomogenousRunner,
    RunnerAPI,
    TrioRunner,
)

IN_ONE_PROCESS: dict[str, Callable[[], RunnerAPI]] = {
    "asyncio": AsyncioRunner,
    "uvloop": lambda: AsyncioRunner(loop_factory=uvloop.new_event_loop),
    "trio": TrioRunner,
}
START_METHODS = ("fork", "forkserver", "spawn")


@pytest.fixture(params=list(IN_ONE_PROCESS.values()), ids=list(IN_ONE_PROCESS))
def runner(request: pytest.FixtureRequest) -> RunnerAPI:
    """Return a runner that runs drivers in this process."""
    made: RunnerAPI = request.param()
    return made


@pytest.fixture
def engine(anyio_backend: tuple[str, dict[str, Any]]) -> EngineAPI:
    """Return the engine of the event loop that the test runs on."""
    return TrioEngine() if anyio_backend[0] == "trio" else AsyncioEngine()


# -- Names -------------------------------------------------------------------------------------


def test_driver_is_a_module_and_in_its_package_a_function() -> None:
    import lahja.tools.drivers.driver
    from lahja.tools.drivers.driver import driver

    assert d.driver is driver
    assert importlib.import_module("lahja.tools.drivers.driver").driver is driver
    assert getattr(lahja.tools.drivers.driver, "driver") is driver  # noqa: B009
    assert pickle.loads(pickle.dumps(driver)) is driver


def test_runner_and_runners_are_the_same() -> None:
    assert runners_module.__all__ == [name for name in runner_module.__all__ if "Trace" not in name]
    for name in runners_module.__all__:
        assert getattr(runners_module, name) is getattr(runner_module, name)


def test_trio_is_needed_by_nobody_but_its_users() -> None:
    program = """
import sys
sys.modules["trio"] = None  # as if it were not installed
import lahja.tools.engine, lahja.tools.runners
from lahja import BaseEvent, MissingExtra
from lahja.tools import drivers as d
lahja.tools.runners.AsyncioRunner()(d.driver(d.run_endpoint("me"), d.broadcast(BaseEvent())))
for make in (lahja.tools.engine.TrioEngine, lahja.tools.runners.TrioRunner):
    try:
        make()
    except MissingExtra as error:
        print(error.extra, error)
"""
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == 2 * [
        "trio TrioEngine needs an optional package: pip install 'lahja[trio]'"
    ]


def test_importing_the_engines_does_not_import_trio() -> None:
    program = "import sys, lahja.tools.runners, lahja.tools.drivers; print('trio' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout == b"False\n"


# -- Engines -----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_timeout_cancels_and_raises_the_builtin_error(engine: EngineAPI) -> None:
    seen = []

    async def forever(what: str) -> None:
        try:
            await engine.sleep(1000)
        finally:
            seen.append(what)

    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
        await engine.run_with_timeout(forever, "argument", timeout=0.01)
    assert seen == ["argument"]


@pytest.mark.anyio
async def test_timeout_returns_nothing_and_lets_other_errors_through(engine: EngineAPI) -> None:
    async def succeed() -> str:
        return "ignored"

    async def fail() -> None:
        raise TimeoutError("my own")

    run: Callable[..., Awaitable[Any]] = engine.run_with_timeout
    assert await run(succeed, timeout=1) is None
    assert await run(succeed, timeout=None) is None
    with pytest.raises(TimeoutError, match=r"^my own$"):
        await engine.run_with_timeout(fail, timeout=1)


@pytest.mark.anyio
async def test_sleep_sleeps(engine: EngineAPI) -> None:
    started = time.monotonic()
    await engine.sleep(0.02)
    assert time.monotonic() - started >= 0.015


@pytest.mark.anyio
async def test_first_failure_cancels_the_others_and_comes_out_as_itself(engine: EngineAPI) -> None:
    ended = []

    async def wait(engine: EngineAPI) -> None:
        try:
            await engine.sleep(1000)
        finally:
            ended.append("waiting")
            raise RuntimeError("a consequence")

    async def fail(engine: EngineAPI) -> None:
        await engine.sleep(0)
        raise Boom("mine")

    with pytest.raises(Boom, match="mine"):
        await engine.run_drivers(wait, fail, wait)
    assert ended == ["waiting", "waiting"]


@pytest.mark.anyio
async def test_a_group_that_a_driver_raises_itself_is_left_alone(engine: EngineAPI) -> None:
    own = ExceptionGroup("mine", [Boom("one"), Boom("two")])

    async def fail(engine: EngineAPI) -> None:
        raise own

    with pytest.raises(ExceptionGroup) as caught:
        await engine.run_drivers(fail)
    assert caught.value is own


@pytest.mark.anyio
async def test_drivers_can_be_cancelled_from_outside(engine: EngineAPI) -> None:
    async def wait(engine: EngineAPI) -> None:
        await engine.sleep(1000)

    with anyio.move_on_after(0.01) as scope:
        await engine.run_drivers(wait, wait)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_no_drivers_are_no_problem(engine: EngineAPI) -> None:
    await engine.run_drivers()


def test_a_driver_that_is_cancelled_by_what_it_awaits_has_failed() -> None:
    async def await_what_was_cancelled(engine: EngineAPI) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(asyncio.CancelledError):
        AsyncioRunner()(await_what_was_cancelled)


def test_engines_have_the_endpoint_class_of_their_event_loop(runner: RunnerAPI) -> None:
    classes = []

    async def drive(engine: EngineAPI) -> None:
        classes.append(engine.endpoint_class.__name__)

    runner(drive)
    assert classes == ["TrioEndpoint" if isinstance(runner, TrioRunner) else "AsyncioEndpoint"]


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_an_engine_of_ones_own(name: str, ipc_dir: Path) -> None:
    base: Any = {"asyncio": AsyncioEngine, "trio": TrioEngine}[name]
    run: Any = {"asyncio": AsyncioRunner, "trio": TrioRunner}[name]

    class MyEndpoint(base().endpoint_class):  # type: ignore[misc]
        require_subscriber = True

    class MyEngine(base):  # type: ignore[misc]
        endpoint_class = MyEndpoint

    runner = run(MyEngine())
    runner(d.driver(d.run_endpoint("me"), d.throws(d.broadcast(Greeting()), NoSubscribers)))


# -- Runners in one process --------------------------------------------------------------------


def test_drivers_run_together(runner: RunnerAPI, config: ConnectionConfig) -> None:
    runner(*server_and_client(config))


def test_drivers_can_be_run_again(config: ConnectionConfig) -> None:
    drivers = server_and_client(config)
    for make in (*IN_ONE_PROCESS.values(), AsyncioRunner):
        make()(*drivers)


def test_the_exception_of_a_driver_comes_out_with_a_note(
    runner: RunnerAPI, config: ConnectionConfig
) -> None:
    ended = []

    def leave(endpoint: EndpointAPI, greeting: Greeting) -> None:
        ended.append(greeting)

    server = d.driver(d.serve_endpoint(config), d.wait_for(Greeting, on_event=leave))
    client = d.driver(
        d.run_endpoint("client"), d.connect_to_endpoints(config), SyncAction(raise_boom)
    )
    with pytest.raises(Boom) as caught:
        runner(server, client)
    assert caught.value.__notes__ == ["in endpoint 'client', action 2: raise_boom()"]
    assert not ended
    assert not config.path.exists()


def test_an_action_that_takes_too_long_fails(runner: RunnerAPI) -> None:
    driver = d.driver(d.run_endpoint("me"), d.wait_for(Greeting), action_timeout=0.01)
    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s") as caught:
        runner(driver)
    assert caught.value.__notes__ == ["in endpoint 'me', action 1: wait_for(event_type=Greeting)"]


def test_a_runner_cannot_run_inside_of_an_event_loop() -> None:
    """It says so, without a warning about a coroutine that was never awaited."""

    async def within_asyncio() -> None:
        AsyncioRunner()(d.driver(d.run_endpoint("me")))

    async def within_trio() -> None:
        TrioRunner()(d.driver(d.run_endpoint("me")))

    with pytest.raises(RuntimeError, match="running event loop"):
        asyncio.run(within_asyncio())
    with pytest.raises(RuntimeError, match="from inside"):
        trio.run(within_trio)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_end_programs_pass(runner: RunnerAPI, error: type[BaseException]) -> None:
    def interrupt(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        raise error

    with pytest.raises(error):
        runner(d.driver(d.run_endpoint("me"), SyncAction(interrupt)))


# -- Initializers ------------------------------------------------------------------------------


@pytest.mark.parametrize("with_config", [False, True], ids=["name", "config"])
def test_run_endpoint_takes_a_name_or_a_config(runner: RunnerAPI, with_config: bool) -> None:
    seen = []

    def look(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        seen.append((endpoint.name, endpoint.is_running, endpoint.is_serving))

    name = ConnectionConfig("me", Path("nowhere")) if with_config else "me"
    runner(d.driver(d.run_endpoint(name), SyncAction(look)))
    assert seen == [("me", True, False)]


def test_serve_endpoint_serves(runner: RunnerAPI, config: ConnectionConfig) -> None:
    seen = []

    def look(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        seen.append((endpoint.name, endpoint.is_serving, config.path.exists()))

    runner(d.driver(d.serve_endpoint(config), SyncAction(look)))
    assert seen == [("server", True, True)]


def test_initializers_pass_options_to_the_endpoint(
    runner: RunnerAPI, config: ConnectionConfig
) -> None:
    action = d.throws(d.connect_to_endpoints(config), ConnectTimeout)
    runner(d.driver(d.run_endpoint("me", connect_timeout=0.01), action))
    with pytest.raises(ValueError, match="high_water"):
        runner(d.driver(d.serve_endpoint(config, high_water=-1)))


# -- Actions -----------------------------------------------------------------------------------


def test_callbacks_get_endpoint_and_event(runner: RunnerAPI, config: ConnectionConfig) -> None:
    """A function will do, and a coroutine function is awaited."""
    seen: list[Any] = []

    def on_event(endpoint: EndpointAPI, greeting: Greeting) -> None:
        seen.append((endpoint.name, greeting.text))

    async def on_event_later(endpoint: EndpointAPI, greeting: Greeting) -> None:
        await endpoint.wait_until_connected_to("client")
        seen.append((endpoint.name, greeting.text))

    async def on_response(endpoint: EndpointAPI, answer: Answer) -> None:
        await endpoint.wait_until_connected_to("server")
        seen.append((endpoint.name, answer.number))

    to_server = BroadcastConfig(filter_endpoint="server")
    got_one, sent_one = d.checkpoint("one event is through")
    runner(
        d.driver(
            d.serve_endpoint(config),
            d.wait_for(Greeting, on_event),
            got_one,
            d.serve_request(Question, double),
            d.wait_for(Greeting, on_event=on_event_later),
        ),
        d.driver(
            d.run_endpoint("client"),
            d.connect_to_endpoints(config),
            d.wait_any_then_broadcast(Greeting("one")),
            sent_one,
            d.wait_until_any_endpoint_subscribed_to(Question),
            d.request(Question(2), to_server, on_response),
            d.wait_any_then_broadcast(Greeting("two"), to_server),
        ),
    )
    assert seen == [("server", "one"), ("client", 4), ("server", "two")]


def test_configs_are_passed_on(runner: RunnerAPI) -> None:
    required = BroadcastConfig(require_subscriber=True)
    runner(
        d.driver(
            d.run_endpoint("me"),
            d.broadcast(Greeting()),
            d.throws(d.broadcast(Greeting(), required), NoSubscribers),
            d.throws(d.broadcast(Greeting(), config=required), NoSubscribers),
            d.throws(d.request(Question(1)), NoSubscribers),
            d.throws(
                d.request(Question(1), BroadcastConfig(filter_endpoint="nobody")), NoSubscribers
            ),
        )
    )


def test_wait_any_then_broadcast_waits(runner: RunnerAPI, config: ConnectionConfig) -> None:
    seen = []

    def on_event(endpoint: EndpointAPI, greeting: Greeting) -> None:
        seen.append(greeting.get_origin())

    there = d.checkpoint("connected")
    only_server = BroadcastConfig(filter_endpoint="server")
    runner(
        d.driver(
            d.serve_endpoint(config),
            d.wait_until_connected_to("client"),
            there[0],
            d.wait_for(Greeting, on_event),
        ),
        d.driver(
            d.run_endpoint("client"),
            d.connect_to_endpoints(config),
            there[1],
            d.wait_any_then_broadcast(Greeting(), only_server),
        ),
    )
    assert seen == ["client"]


def test_throws(runner: RunnerAPI) -> None:
    synchronous = d.throws(SyncAction(raise_boom), Boom)
    asynchronous = d.throws(d.request(Question(1)), LahjaError)
    assert isinstance(synchronous, SyncAction)
    assert isinstance(asynchronous, AsyncAction)
    runner(d.driver(d.run_endpoint("me"), synchronous, asynchronous))


@pytest.mark.parametrize("is_synchronous", [True, False], ids=["sync", "async"])
def test_throws_fails_where_nothing_or_something_else_is_thrown(
    runner: RunnerAPI, is_synchronous: bool
) -> None:
    nothing = SyncAction(lambda *_: None) if is_synchronous else d.broadcast(Greeting())
    with pytest.raises(DidNotThrow, match="did not raise Boom"):
        runner(d.driver(d.run_endpoint("me"), d.throws(nothing, Boom)))

    something = SyncAction(raise_boom) if is_synchronous else d.request(Question(1))
    with pytest.raises(Boom if is_synchronous else NoSubscribers):
        runner(d.driver(d.run_endpoint("me"), d.throws(something, OSError)))


def test_throws_does_not_take_the_time_limit_for_the_error(runner: RunnerAPI) -> None:
    action = d.throws(d.wait_for(Greeting), TimeoutError)
    with pytest.raises(TimeoutError):
        runner(d.driver(d.run_endpoint("me"), action, action_timeout=0.01))


def test_an_event_that_is_bound_already_is_not_unbound(runner: RunnerAPI) -> None:
    seen = []

    def subscribe(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        endpoint.subscribe(Greeting, lambda greeting: seen.append(greeting))

    event = Greeting()
    send = d.broadcast(event)
    fail = d.throws(d.broadcast(event), BindError)
    runner(d.driver(d.run_endpoint("me"), SyncAction(subscribe), send, send, fail))
    first, second = seen
    assert first is event
    assert second == event


def test_each_side_of_a_checkpoint_waits_for_the_other(runner: RunnerAPI) -> None:
    order: list[str] = []

    def note(text: str) -> SyncAction:
        return SyncAction(lambda *_: order.append(text))

    async def dawdle(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        await engine.sleep(0.02)

    first, second = d.checkpoint("first"), d.checkpoint("second")
    runner(
        d.driver(d.run_endpoint("a"), note("1"), first[0], second[0], note("4")),
        d.driver(d.run_endpoint("b"), AsyncAction(dawdle), note("2"), first[1], note("3")),
        d.driver(d.run_endpoint("c"), second[1]),
    )
    assert order == ["1", "2", "3", "4"]


def test_a_checkpoint_that_failed_can_be_used_again(runner: RunnerAPI) -> None:
    one, two = d.checkpoint("here")
    impatient = d.driver(d.run_endpoint("one"), one, action_timeout=0.01)
    with pytest.raises(TimeoutError) as caught:
        runner(impatient)
    assert "checkpoint(name='here'" in caught.value.__notes__[0]
    with pytest.raises(TimeoutError):
        runner(d.driver(d.run_endpoint("two"), two, action_timeout=0.01))
    runner(d.driver(d.run_endpoint("one"), one), d.driver(d.run_endpoint("two"), two))


def test_drivers_and_actions_say_what_they_do() -> None:
    action = d.serve_request(Question, double)
    assert repr(action) == "serve_request(request_type=Question, get_response=double)"
    assert repr(d.broadcast(Greeting())) == "broadcast(event=Greeting)"
    driver = d.driver(d.run_endpoint("me"), action, action)
    assert repr(driver) == "<driver of run_endpoint(name='me')>"


# -- Runners with a process for each driver ----------------------------------------------------


@pytest.mark.parametrize("start_method", START_METHODS)
def test_each_driver_has_its_process(start_method: str, config: ConnectionConfig) -> None:
    pids = multiprocessing.get_context("spawn").RawArray("q", 2)
    server, client = server_and_client(config)
    note = [d.driver(d.run_endpoint(f"{i}"), SyncAction(note_pid, to=pids, at=i)) for i in (0, 1)]
    runner = IsolatedHeterogenousRunner(AsyncioRunner(), TrioRunner(), start_method=start_method)
    runner(server, client, *note)
    assert len({os.getpid(), *pids}) == 3
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("make", [AsyncioRunner, TrioRunner], ids=["asyncio", "trio"])
def test_homogenous_runner(make: Callable[[], RunnerAPI], config: ConnectionConfig) -> None:
    IsolatedHomogenousRunner(make())(*server_and_client(config))


def test_heterogenous_runner_takes_turns() -> None:
    one, two = AsyncioRunner(), TrioRunner()
    runner = IsolatedHeterogenousRunner(one, two)
    assert [runner.get_runner() for _ in range(3)] == [one, two, one]
    with pytest.raises(ValueError, match="no runner"):
        IsolatedHeterogenousRunner()


def test_a_runner_of_ones_own() -> None:
    class MyRunner(BaseIsolatedProcessRunner):
        def __init__(self) -> None:
            self.made = 0  # and nothing of the base class, as with the old lahja

        def get_runner(self) -> RunnerAPI:
            self.made += 1
            return TrioRunner()

    runner = MyRunner()
    runner(d.driver(d.run_endpoint("me")), d.driver(d.run_endpoint("you")))
    assert runner.made == 2


@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_failure_comes_out_with_its_traceback(
    start_method: str, config: ConnectionConfig
) -> None:
    """The other driver is stopped, and tidies up."""
    waiting = d.driver(d.serve_endpoint(config), d.wait_for(Greeting), action_timeout=None)
    failing = d.driver(
        d.run_endpoint("client"), d.connect_to_endpoints(config), SyncAction(raise_boom)
    )
    runner = IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner(), start_method=start_method)
    started = time.monotonic()
    with pytest.raises(Boom, match="this driver is broken") as caught:
        runner(waiting, failing)
    assert time.monotonic() - started < 20
    assert caught.value.__notes__ == [
        "in endpoint 'client', action 2: raise_boom()",
        f"stopped before its end: driver 1, {waiting!r}",
    ]
    text = "".join(traceback.format_exception(caught.value))
    assert 'raise Boom("this driver is broken")' in text
    assert not config.path.exists()
    assert not multiprocessing.active_children()


def test_each_backend_tidies_up_when_it_is_stopped(ipc_dir: Path) -> None:
    configs = [ConnectionConfig.from_name(name, ipc_dir) for name in ("one", "two")]
    waiting = [d.driver(d.serve_endpoint(config), d.wait_for(Greeting)) for config in configs]
    failing = d.driver(
        d.run_endpoint("client"), d.connect_to_endpoints(*configs), SyncAction(raise_boom)
    )
    runner = IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner())
    with pytest.raises(Boom):
        runner(*waiting, failing)
    assert list(ipc_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("pickle", "CannotBePickled: too big"),
        ("unpickle", "CannotBeUnpickled: 1 and 2"),
        ("exit", "SystemExit: enough"),
        ("kill", "signal 9"),
    ],
)
def test_a_failure_that_cannot_be_raised_is_reported(which: str, reason: str) -> None:
    failing = d.driver(d.run_endpoint("me"), SyncAction(raise_awkwardly, which=which))
    waiting = d.driver(d.run_endpoint("you"), d.wait_for(Greeting), action_timeout=None)
    with pytest.raises(DriverFailed, match=reason) as caught:
        IsolatedHomogenousRunner(AsyncioRunner())(waiting, failing)
    assert caught.value.driver == f"driver 2, {failing!r}"
    assert not multiprocessing.active_children()


def test_a_runner_that_takes_too_long_is_stopped() -> None:
    waiting = d.driver(d.run_endpoint("me"), d.wait_for(Greeting), action_timeout=None)
    runner = IsolatedHomogenousRunner(TrioRunner(), timeout=0.3)
    with pytest.raises(TimeoutError, match=r"not done within 0\.3 s") as caught:
        runner(waiting)
    assert caught.value.__notes__ == [f"stopped before its end: driver 1, {waiting!r}"]
    assert not multiprocessing.active_children()


def test_a_process_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "_GRACE", 0.1)
    here, there = d.checkpoint("deaf")
    deaf = d.driver(
        d.run_endpoint("me"),
        SyncAction(ignore_interrupts),
        here,
        d.wait_for(Greeting),
        action_timeout=None,
    )
    failing = d.driver(d.run_endpoint("you"), there, SyncAction(raise_boom))
    with pytest.raises(Boom):
        IsolatedHomogenousRunner(AsyncioRunner())(deaf, failing)
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_to_a_process_is_refused(config: ConnectionConfig) -> None:
    fine = d.driver(d.serve_endpoint(config), d.wait_for(Greeting), action_timeout=None)
    local = d.driver(d.run_endpoint("me"), SyncAction(lambda *_: None))
    runner = IsolatedHomogenousRunner(AsyncioRunner(), start_method="spawn")
    with pytest.raises((AttributeError, pickle.PicklingError)) as caught:
        runner(fine, local)
    assert any("start_method='fork'" in note for note in caught.value.__notes__)
    assert not multiprocessing.active_children()
    IsolatedHomogenousRunner(AsyncioRunner(), start_method="fork")(local)
