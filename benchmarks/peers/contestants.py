"""Who takes part, by name: which module plays it, where, and what must turn out to have run."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONTENDERS", "QUICK", "Contender", "check_extension", "is_compiled_expected"]


@dataclass(frozen=True)
class Contender:
    """
    Be one who takes part.

    :param environment: the name of its virtual environment, in ``environments.toml``
    :param module: in :mod:`benchmarks.peers.contenders`
    :param backend: its event loop, or ``blocking``
    :param framing: of lahja: ``cython`` or ``python``
    :param snappy: whether it sees python-snappy
    """

    name: str
    environment: str
    module: str
    backend: str
    framing: str = ""
    snappy: bool = False

    @property
    def implementation(self) -> str:
        """What must say that it has run."""
        return self.framing or ("upstream" if self.environment == "upstream" else self.backend)

    @property
    def is_alone(self) -> bool:
        """Whether its first process starts the others."""
        return self.module.startswith("multiprocessing_")

    def variables(self, lahja: Path | None) -> dict[str, str]:
        """
        Return the environment variables of its processes.

        :param lahja: the folder of this package in which lahja is, for those who take it from there
        """
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        kept.pop("LAHJA_FRAMING", None)
        if self.framing and lahja is not None:
            kept |= {"LAHJA_FRAMING": self.framing, "PYTHONPATH": str(lahja)}
        return kept


def _lahja(name: str, backend: str, framing: str = "cython", snappy: bool = False) -> Contender:
    return Contender(name, "lahja", "lahja_itself", backend, framing, snappy)


def _upstream(name: str, backend: str, snappy: bool = False) -> Contender:
    return Contender(name, "upstream", "lahja_bus", backend, snappy=snappy)


CONTENDERS = {
    contender.name: contender
    for contender in (
        _lahja("lahja-asyncio", "asyncio"),
        _lahja("lahja-uvloop", "uvloop"),
        _lahja("lahja-trio", "trio"),
        _lahja("lahja-asyncio-python", "asyncio", "python"),
        _lahja("lahja-trio-python", "trio", "python"),
        _lahja("lahja-asyncio-snappy", "asyncio", snappy=True),
        _lahja("lahja-trio-snappy", "trio", snappy=True),
        _upstream("upstream-asyncio", "asyncio"),
        _upstream("upstream-trio", "trio"),
        _upstream("upstream-asyncio-snappy", "asyncio", snappy=True),
        _upstream("upstream-trio-snappy", "trio", snappy=True),
        Contender("pyzmq-asyncio", "pyzmq", "pyzmq_sockets", "asyncio"),
        Contender("pyzmq-blocking", "pyzmq", "pyzmq_sockets", "blocking"),
        Contender("pynng-asyncio", "pynng", "pynng_pairs", "asyncio"),
        Contender("pynng-trio", "pynng", "pynng_pairs", "trio"),
        Contender("zenoh", "zenoh", "zenoh_peers", "blocking"),
        Contender("pipe", "stdlib", "multiprocessing_pipe", "blocking"),
        Contender("queue", "stdlib", "multiprocessing_queue", "blocking"),
        Contender("socket", "stdlib", "raw_socket", "blocking"),
        Contender("socket-asyncio", "stdlib", "asyncio_socket", "asyncio"),
    )
}

QUICK = tuple(
    name
    for name, contender in CONTENDERS.items()
    if contender.environment in ("lahja", "stdlib") and not contender.snappy
)
"""The contenders that need no environment of their own, where lahja's extras are installed."""


def is_compiled_expected() -> bool:
    """Return whether results of the compiled implementation are wanted."""
    return os.environ.get("LAHJA_FRAMING") != "python"


def check_extension(lahja: Path) -> None:
    """
    Make sure that the compiled implementation is there and was built from its present source.

    :param lahja: the folder of the package
    :raise SystemExit: where it is not
    """
    advice = "python setup.py build_ext --inplace, or set LAHJA_FRAMING=python to do without"
    found = importlib.util.find_spec("lahja._framing")
    if found is None or found.origin is None:
        raise SystemExit(f"error: lahja's compiled module is not there: {advice}")
    built = Path(found.origin).stat().st_mtime
    for source in (*lahja.glob("*.pyx"), *lahja.glob("*.pxd")):
        if source.stat().st_mtime > built:
            raise SystemExit(f"error: {source.name} is newer than the compiled module: {advice}")
