"""Build the compiled half of lahja's hot path; everything else is in pyproject.toml.

LAHJA_BUILD_EXTENSION=yes    the build fails if the extension cannot be built
LAHJA_BUILD_EXTENSION=no     no extension: a pure wheel
unset                        try; without a compiler or Cython, install plain Python

LAHJA_CYTHON_TRACE=1 builds for line coverage, and slowly.
"""

import os

from setuptools import Extension, setup

FLAG = os.environ.get("LAHJA_BUILD_EXTENSION", "")
TRACE = os.environ.get("LAHJA_CYTHON_TRACE") == "1"
# coverage's C tracer sees Cython's classic trace events, and not sys.monitoring's.
TRACE_MACROS = [
    ("CYTHON_TRACE", "1"),
    ("CYTHON_TRACE_NOGIL", "1"),
    ("CYTHON_USE_SYS_MONITORING", "0"),
]


def extensions() -> list[Extension]:
    if FLAG not in ("", "yes", "no"):
        raise SystemExit(f"LAHJA_BUILD_EXTENSION must be 'yes', 'no' or unset, not {FLAG!r}")
    if FLAG == "no":
        return []
    # Only a missing Cython may pass: an error in the .pyx must never give a wheel without it.
    try:
        from Cython.Build import cythonize
    except ImportError:
        if FLAG == "yes":
            raise
        return []
    framing = Extension(
        "lahja._framing",
        ["lahja/_framing.pyx"],
        extra_compile_args=["-O3", "-g0"],
        define_macros=TRACE_MACROS if TRACE else [],
    )
    built: list[Extension] = cythonize(
        [framing], compiler_directives={"linetrace": TRACE}, force=TRACE
    )
    # cythonize() makes new Extension objects, and does not copy this attribute to them.
    for extension in built:
        extension.optional = FLAG != "yes"
    return built


setup(ext_modules=extensions())
