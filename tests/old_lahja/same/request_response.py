"""A request to another process, answered by its handler, and by a stream."""

import asyncio
import multiprocessing
import tempfile
from multiprocessing.synchronize import Event
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig


class Sum(BaseEvent):
    def __init__(self, value: int) -> None:
        self.value = value


class Add(BaseRequestResponseEvent[Sum]):
    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    @staticmethod
    def expected_response_type() -> type[Sum]:
        return Sum


class Multiply(Add):
    pass


class Stop(BaseEvent):
    pass


def run_calculator(config: ConnectionConfig, ready: Event) -> None:
    asyncio.run(calculate(config, ready))


async def calculate(config: ConnectionConfig, ready: Event) -> None:
    async with AsyncioEndpoint.serve(config) as endpoint:
        ready.set()

        async def add(request: Add) -> None:
            await endpoint.broadcast(Sum(sum(request.numbers)), request.broadcast_config())

        async def multiply() -> None:
            async for request in endpoint.stream(Multiply):
                one, other = request.numbers
                endpoint.broadcast_nowait(Sum(one * other), request.broadcast_config())

        endpoint.subscribe(Add, add)
        task = asyncio.ensure_future(multiply())
        await endpoint.wait_for(Stop)
        task.cancel()


async def main(config: ConnectionConfig) -> None:
    async with AsyncioEndpoint("main").run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        for request_type in (Add, Multiply, Stop):
            await endpoint.wait_until_endpoint_subscribed_to("calculator", request_type)
        print(await value_of(endpoint, Add(1, 2, 3)))
        print(await value_of(endpoint, Multiply(6, 7)))
        print(await asyncio.gather(*(value_of(endpoint, Add(i, i)) for i in range(10))))
        await endpoint.broadcast(Stop())


async def value_of(endpoint: AsyncioEndpoint, request: Add) -> int:
    response = await endpoint.request(request)
    assert response.get_origin() == "calculator"
    return response.value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        config = ConnectionConfig.from_name("calculator", Path(directory))
        ready = multiprocessing.Event()
        process = multiprocessing.Process(target=run_calculator, args=(config, ready))
        process.start()
        ready.wait()
        asyncio.run(main(config))
        process.join()
