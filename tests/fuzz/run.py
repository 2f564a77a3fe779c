"""
Run the fuzzers: ``python tests/fuzz/run.py --seconds 60``.

With atheris installed, mutation is guided by coverage: of the compiled module, if clang can build
it (into a temporary directory), and of the Python code. Without atheris, the corpus is mutated at
random, which finds less. Prints how many inputs were tried; ends with 1 where one of them failed,
and with the input in a file.

``--keep FOLDER`` adds what the fuzzers learn to a corpus elsewhere; ``--update`` takes a choice of
such a folder's inputs into the corpus of the repository.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HARNESSES = ("fuzz_reader", "fuzz_connection")
MOST_FILES = 90  # in the corpus, of each harness
LONGEST = 1000  # bytes of an input in the corpus
COVERAGE = "inline-8bit-counters,pc-table,trace-cmp"  # what atheris has the callbacks for

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def fuzz(script: str, one_input: Callable[[bytes], None]) -> None:
    """Be the main program of a harness: atheris has instrumented what it imported."""
    import atheris  # type: ignore[import-untyped]

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


def build(folder: Path) -> bool:
    """Copy the package, and compile it so that libFuzzer sees its branches."""
    shutil.copytree(ROOT / "lahja", folder / "lahja", ignore=shutil.ignore_patterns("*.so", "*.c"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder)
    environment = {**os.environ, "LAHJA_BUILD_EXTENSION": "yes"}
    if shutil.which("clang"):
        environment |= {"CC": "clang", "CFLAGS": f"-fsanitize-coverage={COVERAGE}"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if built.returncode:
        print(built.stdout, built.stderr)
    return built.returncode == 0


def guided(name: str, seconds: int, folder: Path, corpus: Path, keep: Path) -> tuple[int, bool]:
    """Run one harness under atheris; return the number of executions, and whether all is well."""
    starter = (
        "import atheris, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "with atheris.instrument_imports(include=['lahja']):\n"
        f"    import {name} as harness\n"
        "from pathlib import Path\n"
        "for number, data in enumerate(harness.seeds()):\n"
        "    (Path(sys.argv[1]) / f'seed-{number:03}').write_bytes(data)\n"
        "from run import fuzz\n"
        "fuzz(sys.argv[0], harness.one_input)\n"
    )
    paths = [str(folder), str(HERE), str(HERE.parent)]
    command = [
        sys.executable, "-c", starter, name, str(keep), str(corpus),
        f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048",
        "-print_final_stats=1", f"-artifact_prefix={keep.parent}/{name}-",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if shutil.which("clang"):
        # libFuzzer as a library of its own, in which the compiled module finds its callbacks.
        environment["LD_PRELOAD"] = sysconfig.get_path("platlib") + "/ubsan_with_fuzzer.so"
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    counted = re.findall(r"stat::number_of_executed_units:\s*(\d+)", ran.stderr)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", ran.stderr)
    if covered:
        print(f"{name}: {covered[-1][0]} edges, {covered[-1][1]} features", flush=True)
    if ran.returncode:
        print(ran.stdout[-5000:], ran.stderr[-8000:])
    return int(counted[-1]) if counted else 0, ran.returncode == 0


def mutated(rng: random.Random, inputs: list[bytes]) -> bytes:
    """Return an input that is made of others."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        how = rng.randrange(5)
        if how == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif how == 1 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 5))
        elif how == 3:
            del data[at : at + rng.randrange(1, 9)]
        else:
            other = rng.choice(inputs)
            data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data[:4096])


def unguided(name: str, seconds: int, corpus: Path, keep: Path) -> tuple[int, bool]:
    """Run one harness with random mutations; return the same as :func:`guided`."""
    sys.path[:0] = [str(ROOT), str(HERE), str(HERE.parent)]
    harness = importlib.import_module(name)
    inputs = harness.seeds() + [path.read_bytes() for path in sorted(corpus.iterdir())]
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        data = mutated(rng, inputs)
        count += 1
        try:
            harness.one_input(data)
        except BaseException:
            path = keep.parent / f"{name}-crash"
            path.write_bytes(data)
            print(f"seed {seed}, execution {count}, input in {path}: {data!r}")
            traceback.print_exc()
            return count, False
    return count, True


def update(name: str, learned: Path) -> None:
    """Choose a small part of what was learned for the repository's corpus."""
    corpus = HERE / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    found = sorted((p.read_bytes() for p in learned.iterdir()), key=len) if learned.is_dir() else []
    found = [data for data in found if len(data) <= LONGEST]
    for path in corpus.iterdir():
        path.unlink()
    for number, data in enumerate(found[:: len(found) // MOST_FILES + 1]):
        (corpus / f"{number:03}").write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description="fuzz lahja")
    parser.add_argument("--seconds", type=int, default=60, help="for both fuzzers together")
    parser.add_argument("--keep", type=Path, help="where what is learned is kept")
    parser.add_argument("--only", choices=HARNESSES, help="run one of the fuzzers")
    parser.add_argument("--update", action="store_true", help="renew the corpus, and fuzz nothing")
    options = parser.parse_args()
    total, fine = 0, True
    with tempfile.TemporaryDirectory(prefix="lahja-fuzz") as temporary:
        folder = Path(temporary)
        learned = (options.keep or folder / "learned").resolve()
        names = (options.only,) if options.only else HARNESSES
        if options.update:
            for name in names:
                update(name, learned / name)
            return 0
        if HAS_ATHERIS and not build(folder / "build"):
            return 1
        for name in names:
            (learned / name).mkdir(parents=True, exist_ok=True)
            seconds = max(1, options.seconds // len(names))
            corpus = HERE / "corpus" / name
            if HAS_ATHERIS:
                count, is_fine = guided(name, seconds, folder / "build", corpus, learned / name)
            else:
                count, is_fine = unguided(name, seconds, corpus, learned / name)
            how = "guided by coverage" if HAS_ATHERIS else "at random"
            print(f"{name}: {count} executions {how}, {'no failure' if is_fine else 'FAILED'}")
            total, fine = total + count, fine and is_fine
            if not is_fine and options.keep is None:
                for path in learned.glob(f"{name}-*"):
                    shutil.copy(path, tempfile.gettempdir())
                    print(f"the input is in {tempfile.gettempdir()}/{path.name}")
    print(f"{total} executions in all")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
