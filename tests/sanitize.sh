#!/usr/bin/env bash
# Build the compiled module under AddressSanitizer and UndefinedBehaviorSanitizer, with gcc, in a
# temporary directory, and run the framing suite on it.
#
#   bash tests/sanitize.sh                       the framing suite and the fuzzers' corpus
#   bash tests/sanitize.sh tests/test_x.py ...   other tests; arguments go to pytest
#
# PYTHON is the interpreter to use, which must have what the tests need and Cython (default: python).
set -euo pipefail

cd "$(dirname "$0")/.."
source=$PWD
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/build"
cp -R lahja setup.py pyproject.toml "$work/build"
cp README.md LICENSE "$work/build" 2>/dev/null || true
cp -R tests "$work/build/tests"
cd "$work/build"
rm -f lahja/_framing*.so lahja/_framing.c

# CFLAGS come before setup.py's own -O3 -g0, so that those have to be replaced.
sed -i 's/"-O3", "-g0"/"-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"/' setup.py
grep -q fno-sanitize-recover setup.py
export LAHJA_BUILD_EXTENSION=yes
CC=gcc CFLAGS="-fsanitize=address,undefined" LDFLAGS="-fsanitize=address,undefined" \
    "$python" setup.py -q build_ext --inplace

preload="$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)"
run() {
    # Memory of Python's own allocator is invisible to the sanitizer, and leaks at exit are Python's.
    LD_PRELOAD=$preload LAHJA_FRAMING=cython PYTHONMALLOC=malloc PYTHONPATH=$work/build \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
        "$python" -P "$@"
}

# The control: an overrun in the same kind of module is found.
mkdir "$work/control"
cat >"$work/control/overrun.pyx" <<'PYX'
from libc.stdlib cimport malloc
def overrun(int n):
    cdef char *p = <char *>malloc(8)
    return p[n]
PYX
(
    cd "$work/control"
    "$python" -m cython -3 overrun.pyx
    gcc -shared -fPIC -O1 -g -fsanitize=address,undefined $("$python" -c '
import sysconfig; print("-I" + sysconfig.get_path("include"))') overrun.c \
        -o "overrun$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')"
    if PYTHONPATH="$work/control" run -c \
        'import sys; sys.path.insert(0, "."); import overrun; overrun.overrun(8)' 2>overrun.txt; then
        echo "error: the sanitizer did not find a planted overrun" >&2
        exit 1
    fi
    grep -q "heap-buffer-overflow" overrun.txt
)
echo "A planted overrun is found."

if [ $# -eq 0 ]; then
    for each in tests/test_framing*.py tests/test_fuzz_corpus.py tests/test_values.py; do
        # It measures by tracemalloc, which counts the sanitizers' own memory, too.
        [ "$each" = tests/test_framing_leaks.py ] || set -- "$@" "$each"
    done
fi
run -c '
import lahja.framing, os, sys
assert lahja.framing.IMPLEMENTATION == "cython", lahja.framing.IMPLEMENTATION
assert "build" in lahja._framing.__file__' || exit 1
run -m pytest -q -p no:cacheprovider "$@"
echo "Nothing was found in $source/lahja."
