# What .ci/run is made of: steps and their summary, interpreters, environments, checks of archives.
# shellcheck shell=bash

work=$(mktemp -d)
current=
summary=
# No command may hang for ever, where coreutils can see to that. SIGINT: pytest then says where.
timeout=$(command -v timeout || true)

step() { # TITLE COMMAND...
    current=$1
    started=$SECONDS
    shift
    printf '\n==> %s\n' "$current"
    "$@"
    summary+=$(printf '%5d s  ok      %s' $((SECONDS - started)) "$current")$'\n'
    current=
}

finish() {
    status=$?
    if [ -n "$current" ]; then
        summary+=$(printf '%5d s  FAILED  %s' $((SECONDS - started)) "$current")$'\n'
    fi
    printf '\n==> Summary, after %d s\n%s' "$SECONDS" "$summary"
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

fail() { # MESSAGE
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Prints "<sortable version> <path>" for each interpreter that can do what this script needs.
interpreters() {
    local folder candidate
    local probe='
import os, sys, sysconfig
import ensurepip, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if (
    sys.implementation.name == "cpython"
    and sys.version_info >= (3, 11)
    and sys.prefix == sys.base_prefix
    and os.path.exists(header)
):
    print("%02d.%02d.%02d" % sys.version_info[:3], sys.executable)'
    {
        tr ':' '\n' <<<"$PATH"
        printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin
    } | while read -r folder; do
        for candidate in "$folder"/python3 "$folder"/python3.[0-9][0-9]; do
            "$candidate" -c "$probe" </dev/null 2>/dev/null || true
        done
    done
}

oldest_and_newest() {
    local found
    # Of each minor version its latest: early ones of 3.11 have bugs that only a test would meet.
    found=$(interpreters | sort -u -k 1,1 |
        awk '{ last[substr($1, 1, 5)] = $0 } END { for (minor in last) print last[minor] }' | sort)
    [ -n "$found" ] || fail "no CPython 3.11 or newer with venv and headers on this machine"
    sed -n -e '1p' -e '$p' <<<"$found" | cut -d ' ' -f 2 | uniq
}

version() { # PYTHON
    "$1" -c 'import platform; print(platform.python_version())'
}

fresh() { # PYTHON NAME: a clean checkout $work/NAME, and an empty environment $work/NAME-env
    git clone --quiet "$source" "$work/$2"
    "$1" -m venv "$work/$2-env"
}

in_env() { # NAME FOLDER COMMAND...
    local env=$work/$1-env folder=$2
    shift 2
    (
        cd "$folder"
        export PATH="$env/bin:$PATH" VIRTUAL_ENV="$env"
        ${timeout:+"$timeout" --signal=INT --kill-after=30 900} "$@" </dev/null
    )
}

assert_framing() { # NAME FOLDER IMPLEMENTATION: says what the tests run on, and that it is right
    in_env "$1" "$2" python -P -c '
import platform, sys, lahja.framing
have = lahja.framing.IMPLEMENTATION
print(f"Python {platform.python_version()}, framing {have}, {lahja.framing.__file__}", flush=True)
sys.exit(None if have == sys.argv[1] else f"error: expected framing {sys.argv[1]}")' "$3"
}

archive_names() { # FILE: the names in an sdist or a wheel
    "$newest" -c '
import sys, tarfile, zipfile
path = sys.argv[1]
opened = zipfile.ZipFile(path) if path.endswith(".whl") else tarfile.open(path)
print(*(opened.namelist() if path.endswith(".whl") else opened.getnames()), sep="\n")' "$1"
}

assert_contents() { # FILE UNWANTED WANTED...: extended regular expressions, matched against names
    local file=$1 unwanted=$2 names wanted
    shift 2
    names=$(archive_names "$file")
    if grep -E -- "$unwanted" <<<"$names"; then
        fail "these must not be in $(basename "$file")"
    fi
    for wanted in "$@"; do
        grep -Eq -- "$wanted" <<<"$names" || fail "$(basename "$file") has nothing like $wanted"
    done
}
