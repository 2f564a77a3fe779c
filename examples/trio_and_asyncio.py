"""
Let a trio process and an asyncio process talk to each other, on one bus.

A thermometer runs on trio and broadcasts what it measures. A display runs on asyncio, shows that,
and asks the thermometer to be calibrated where it looks wrong. Both use the same API; neither can
tell which event loop the other one runs on.

    python examples/trio_and_asyncio.py [--seconds N]

It runs for three seconds, or for so many, or until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    ConnectionConfig,
    TrioEndpoint,
)


@dataclass(frozen=True)
class Measurement(BaseEvent):
    celsius: float


@dataclass(frozen=True)
class Calibrated(BaseEvent):
    before: float
    after: float


@dataclass(frozen=True)
class Calibrate(BaseRequestResponseEvent[Calibrated]):
    correction: float

    @staticmethod
    def expected_response_type() -> type[Calibrated]:
        return Calibrated


@dataclass(frozen=True)
class SwitchOff(BaseEvent):
    pass


# -- On trio -------------------------------------------------------------------------------------


def run_thermometer(config: ConnectionConfig) -> None:
    try:
        trio.run(thermometer, config)
    except* KeyboardInterrupt:
        pass  # a nursery has it in a group


async def thermometer(config: ConnectionConfig) -> None:
    offset = 4.5

    async with TrioEndpoint.serve(config) as endpoint:

        async def calibrate(request: Calibrate) -> None:
            nonlocal offset
            before, offset = offset, offset + request.correction
            await endpoint.broadcast(Calibrated(before, offset), request.broadcast_config())

        async def measure() -> None:
            await endpoint.wait_until_endpoint_subscribed_to("display", Measurement)
            while True:
                celsius = 20 + offset + math.sin(trio.current_time())
                await endpoint.broadcast(Measurement(celsius))
                await trio.sleep(0.2)

        endpoint.subscribe(Calibrate, calibrate)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure)
            await endpoint.wait_for(SwitchOff)
            nursery.cancel_scope.cancel()
        print("trio     the thermometer is off", flush=True)


# -- On asyncio ----------------------------------------------------------------------------------


async def display(thermometer: ConnectionConfig, seconds: float) -> None:
    async with AsyncioEndpoint("display").run() as endpoint:
        await endpoint.connect_to_endpoints(thermometer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), endpoint.stream(Measurement) as measurements:
                async for measurement in measurements:
                    origin, celsius = measurement.get_origin(), measurement.celsius
                    print(f"asyncio  {origin} measured {celsius:.1f} °C", flush=True)
                    if celsius > 22:
                        answer = await endpoint.request(Calibrate(correction=-3.0))
                        print(
                            f"asyncio  {answer.get_origin()} changed its offset "
                            f"from {answer.before} to {answer.after}",
                            flush=True,
                        )
        await endpoint.broadcast(SwitchOff())


def main() -> None:
    parser = argparse.ArgumentParser(description="Let trio and asyncio talk to each other.")
    parser.add_argument("--seconds", type=float, default=3, help="how long it runs (default: 3)")
    seconds = parser.parse_args().seconds

    with tempfile.TemporaryDirectory(prefix="lahja-") as directory:
        config = ConnectionConfig.from_name("thermometer", Path(directory))
        process = multiprocessing.Process(target=run_thermometer, args=(config,), daemon=True)
        process.start()
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(display(config, seconds))
            process.join()


if __name__ == "__main__":
    main()
