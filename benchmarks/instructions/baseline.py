"""
What the counts are compared with: those that were committed for the same Python and compiler.

Another interpreter, processor or compiler gives other counts for the same source. So there is one
baseline for each combination, and a combination without a baseline is not compared with any.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TOLERANCE", "Baselines", "Combination", "Difference", "compare"]

TOLERANCE = 0.05
"""By how much of the baseline a count may grow."""


@dataclass(frozen=True)
class Combination:
    """
    Be what counts depend on, besides the source.

    :param python: the interpreter's name and minor version
    :param interpreter: what it was compiled with
    :param processor: the architecture
    :param compiler: what compiled the module
    :param cython: what made C of it
    """

    python: str
    interpreter: str
    processor: str
    compiler: str
    cython: str

    @classmethod
    def here(cls, module: Path) -> Combination:
        """
        Return the combination of this process and a compiled module.

        :raise SystemExit: where the module was built for the measurement of coverage
        """
        data = module.read_bytes()
        if b"PyThreadState_EnterTracing" in data:
            raise SystemExit(f"error: {module.name} was built with LAHJA_CYTHON_TRACE=1")
        arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
        options = re.findall(r"--(enable-optimizations|with-lto|with-pydebug)", arguments)
        return cls(
            python="{} {}.{}".format(platform.python_implementation(), *sys.version_info),
            interpreter=", ".join([platform.python_compiler(), *sorted(set(options))]),
            processor=platform.machine(),
            compiler=compiler_of(data),
            cython=_found(rb"_cython_(\d+_\d+)_", data).replace("_", "."),
        )

    def unlike(self, other: Combination) -> str:
        """Return what is different, in words."""
        return ", ".join(
            f"its {name} is {theirs!r} and not {ours!r}"
            for name, ours, theirs in (
                (each.name, getattr(self, each.name), getattr(other, each.name))
                for each in dataclasses.fields(self)
            )
            if ours != theirs
        )

    def __str__(self) -> str:
        module = f"{self.compiler}, Cython {self.cython}"
        return f"{self.python} ({self.interpreter}) on {self.processor}, module by {module}"


def compiler_of(module: bytes) -> str:
    """Return which compiler has left its name in what it made."""
    gcc = _found(rb"GCC: \([^)\0]*\) (\d+\.\d+)", module, "")
    clang = _found(rb"clang version (\d+\.\d+)", module, "")
    return f"clang {clang}" if clang else f"gcc {gcc}" if gcc else "unknown"


def _found(pattern: bytes, data: bytes, otherwise: str = "unknown") -> str:
    match = re.search(pattern, data)
    return match[1].decode() if match else otherwise


@dataclass(frozen=True)
class Difference:
    """
    Be a case whose count is not what it was.

    :param before: None where the baseline does not have it
    :param now: None where only the baseline has it
    """

    case: str
    before: int | None
    now: int | None

    @property
    def is_failure(self) -> bool:
        """Whether it must not stay so."""
        if self.before is None or self.now is None:
            return True
        return self.now > self.before * (1 + TOLERANCE)

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.case}: takes {self.now:,} instructions, and has no baseline"
        if self.now is None:
            return f"{self.case}: has a baseline, and is no case any more"
        change = self.now / self.before - 1
        return f"{self.case}: {self.before:,} → {self.now:,} instructions, {change:+.2%}"


def compare(baseline: Mapping[str, int], counts: Mapping[str, int]) -> list[Difference]:
    """Return what is too far from the baseline, up or down; the worst comes first."""

    def differences() -> Iterator[tuple[float, Difference]]:
        for case in {**counts, **baseline}:
            before, now = baseline.get(case), counts.get(case)
            if before is None or now is None:
                yield float("inf"), Difference(case, before, now)
            elif abs(now - before) > before * TOLERANCE:
                yield now / before, Difference(case, before, now)

    return [each for _, each in sorted(differences(), key=lambda pair: -pair[0])]


class Baselines:
    """Be the file in which the baselines are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Combination, dict[str, int]] = {}
        for each in json.loads(path.read_text()) if path.exists() else []:
            self.known[Combination(**each["combination"])] = each["counts"]

    def nearest(self, combination: Combination) -> Combination | None:
        """Return the combination with a baseline that differs in the least."""
        values = dataclasses.astuple(combination)

        def likeness(other: Combination) -> int:
            pairs = zip(values, dataclasses.astuple(other), strict=True)
            return sum(ours == theirs for ours, theirs in pairs)

        return max(self.known, key=likeness, default=None)

    def renew(self, combination: Combination, counts: dict[str, int]) -> None:
        """Write the baseline of a combination; all others stay as they are."""
        self.known[combination] = counts
        document = [
            {"combination": dataclasses.asdict(each), "counts": known}
            for each, known in sorted(self.known.items(), key=lambda item: str(item[0]))
        ]
        self.path.write_text(json.dumps(document, indent=1) + "\n")
