"""
The shape of the package: which part may know which, and what every part says about itself.

Imports point one way only. What is below the endpoints knows no event loop, socket or clock.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lahja

ROOT = Path(lahja.__file__).parent

# From the bottom to the top; a module may import from its own layer and from those below.
LAYERS: list[set[str]] = [
    {"exceptions", "wire", "constants", "version", "stats", "counting", "membership"},
    {"common", "typing", "frames"},
    {"names"},
    {"layouts", "pickling", "compression"},
    {"_codec_py"},
    {"_sending_py"},
    {"_receiving_py"},
    {"_framing_py"},
    {"framing"},
    {"flow", "protocol", "loops"},
    {"reports", "observers", "explaining"},
    {"routing"},
    {"streams", "handlers"},
    {"api"},
    {"sockets", "channels", "peering", "directory", "watching"},
    {"survey", "joining", "tracing"},
    {"base"},
    {"metrics"},
    {"asyncio", "asyncio.loop", "asyncio.endpoint"},
    {"trio", "trio.loop", "trio.endpoint"},
    {"", "__init__"},
]
BELOW_THE_IO = set().union(*LAYERS[:14])
FORBIDDEN_BELOW = {"asyncio", "trio", "uvloop", "anyio", "socket", "select", "time", "threading"}
PROGRAMS = ("tools", "cli", "__main__")  # built on the package, and known to nothing in it


def modules() -> Iterator[str]:
    """Yield the name of every module, without that of the package."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__") if name != "__init__" else ""


MODULES = [*modules()]
CORE = [name for name in MODULES if name.split(".")[0] not in PROGRAMS]


def path_of(name: str) -> Path:
    """Return the file of a module."""
    base = ROOT.joinpath(*name.split(".")) if name else ROOT
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@cache
def tree_of(name: str) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path_of(name).read_text())


def load(name: str) -> ModuleType:
    """Return a module."""
    return importlib.import_module(f"lahja.{name}" if name else "lahja")


def layer_of(name: str) -> int:
    """Return how far from the bottom a module is."""
    return next(level for level, names in enumerate(LAYERS) if name in names)


def is_for_types_only(node: ast.AST) -> bool:
    """Return whether it is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_of(name: str) -> Iterator[str]:
    """Yield what a module imports when it runs, one's own modules with a leading ``lahja.``."""
    package = name if path_of(name).name == "__init__.py" else name.rpartition(".")[0]
    nodes: list[ast.AST] = [tree_of(name)]
    while nodes:
        node = nodes.pop()
        if is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module or ""
                continue
            parts = ["lahja", *filter(None, package.split("."))]
            source = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                is_module = (ROOT / Path(*source.split(".")[1:]) / f"{alias.name}.py").exists()
                yield f"{source}.{alias.name}" if is_module else source
        nodes.extend(ast.iter_child_nodes(node))


# -- Layers ----------------------------------------------------------------------------------


def test_every_module_has_its_layer() -> None:
    named = set().union(*LAYERS) - {"__init__"}
    assert set(CORE) == named


@pytest.mark.parametrize("name", [name for name in CORE if name])
def test_imports_point_one_way_only(name: str) -> None:
    for imported in imports_of(name):
        if imported == "lahja" or imported.startswith("lahja."):
            other = imported.removeprefix("lahja").lstrip(".")
            if other == "_framing" and name == "framing":
                continue
            assert layer_of(other) <= layer_of(name), f"{name} imports {other}"
            assert other, f"{name} imports the whole package"


def test_neither_event_loop_knows_the_other() -> None:
    for one, other in (("asyncio", "trio"), ("trio", "asyncio")):
        for name in CORE:
            if name.split(".")[0] == one:
                roots = {imported.removeprefix("lahja.") for imported in imports_of(name)}
                assert not any(root.split(".")[0] == other for root in roots)


@pytest.mark.parametrize("name", sorted(BELOW_THE_IO))
def test_what_is_below_the_endpoints_knows_no_event_loop_socket_or_clock(name: str) -> None:
    outside = {
        imported.split(".")[0] for imported in imports_of(name) if not imported.startswith("lahja")
    }
    assert not outside & FORBIDDEN_BELOW


@pytest.mark.parametrize("name", CORE)
def test_nothing_but_the_programs_knows_the_programs(name: str) -> None:
    for imported in imports_of(name):
        assert not imported.startswith(tuple(f"lahja.{program}" for program in PROGRAMS))


@pytest.mark.parametrize("name", MODULES)
def test_only_one_module_imports_the_twins(name: str) -> None:
    parts = {"lahja._codec_py", "lahja._sending_py", "lahja._receiving_py"}
    twins = {"lahja._framing", "lahja._framing_py"}
    if name != "framing":
        assert not twins & set(imports_of(name))
    if not name.endswith("_py"):
        assert not parts & set(imports_of(name))


def run_python(program: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a program in a process of its own, in which lahja is found as it is here."""
    completed = subprocess.run(
        [sys.executable, "-c", program],
        env={**(environment or {}), "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr


def test_importing_lahja_loads_neither_trio_nor_anything_optional() -> None:
    run_python(
        "import sys, lahja\n"
        "optional = {'trio', 'uvloop', 'anyio', 'typer', 'rich', 'Cython', 'inotify_simple'}\n"
        "optional |= {'lahja.tools', 'lahja.metrics', 'opentelemetry', 'prometheus_client'}\n"
        "assert not optional & set(sys.modules), optional & set(sys.modules)\n"
        "assert 'TrioEndpoint' in lahja.__all__\n"
        "assert lahja.TrioEndpoint is sys.modules['lahja.trio'].TrioEndpoint\n"
    )


def test_what_takes_long_to_import_is_loaded_when_it_is_needed() -> None:
    run_python(
        "import sys, asyncio\n"
        "before = set(sys.modules)\n"
        "import lahja\n"
        "slow = {'lahja.stats', 'lahja.survey', 'pathlib', 'urllib.parse'}\n"
        "slow |= {'lahja.typing', 'dataclasses', 'snappy', 'cramjam', 'tempfile', 'uuid'}\n"
        "slow |= {'inspect', 'pickle', 'multiprocessing', 'random', 'json', 'importlib.metadata'}\n"
        "slow -= before\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "assert {*lahja.__all__, '__version__'} <= {*dir(lahja)}\n"
        "assert lahja.EndpointStats is sys.modules['lahja.stats'].EndpointStats\n"
        "assert isinstance(lahja.AsyncioEndpoint('a').stats(), lahja.EndpointStats)\n"
        "star = {}\n"
        "exec('from lahja import *', star)\n"
        "assert {*lahja.__all__} <= {*star}\n"
    )


def test_snappy_is_imported_by_the_first_endpoint() -> None:
    run_python(
        "import sys, types, lahja\n"
        "assert 'snappy' not in sys.modules\n"
        "snappy = sys.modules['snappy'] = types.ModuleType('snappy')\n"
        "snappy.compress = snappy.uncompress = None\n"
        "options = lahja.AsyncioEndpoint('a')._router.hello.options\n"
        "assert options['compression'] == ('snappy',), options\n"
        "assert lahja.AsyncioEndpoint.has_snappy_support is True\n"
    )


def test_lahja_works_without_what_is_optional() -> None:
    run_python(
        "import sys\n"
        "for name in ('trio', 'snappy', 'uvloop', 'anyio', 'typer', 'rich', 'inotify_simple',\n"
        "             'opentelemetry', 'prometheus_client'):\n"
        "    sys.modules[name] = None\n"
        "import lahja, lahja.metrics, lahja.tracing\n"
        "assert not lahja.AsyncioEndpoint.has_snappy_support\n"
        "assert 'TrioEndpoint' not in lahja.__all__\n"
        "for use in (lambda: lahja.TrioEndpoint, lambda: __import__('lahja.trio')):\n"
        "    try:\n"
        "        use()\n"
        "    except lahja.MissingExtra as error:\n"
        "        assert \"pip install 'lahja[trio]'\" in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n",
        os.environ,
    )


def test_what_is_loaded_on_first_use_is_listed_and_is_always_the_same() -> None:
    assert {*lahja.__all__, "__version__"} <= {*dir(lahja)}
    assert [*dir(lahja)] == sorted({*dir(lahja)})
    assert lahja.EndpointStats is load("stats").EndpointStats
    assert lahja.TrioEndpoint is load("trio").TrioEndpoint


def test_what_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'lahja' has no attribute 'no_such_name'"):
        lahja.no_such_name  # noqa: B018


# -- What every module says ------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    text = ast.get_docstring(tree_of(name))
    assert text
    assert text[0].isupper() or text.startswith(("lahja", "``"))


def defined_in(name: str) -> set[str]:
    """Return the public names that a module defines itself, or declares as its own."""
    found: set[str] = set()
    nodes: list[ast.AST] = [*tree_of(name).body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, (ast.If, ast.Try)) and not is_for_types_only(node):
            nodes.extend(ast.iter_child_nodes(node))
    return {each for each in found if not each.startswith("_")}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_all_is_honest(name: str) -> None:
    module = load(name)
    assert isinstance(module.__all__, list)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None
    if name in CORE:
        missing = defined_in(name) - set(module.__all__)
        assert not {each for each in missing if not is_type_variable(module, each)}


def is_type_variable(module: ModuleType, name: str) -> bool:
    """Return whether a name of a module is a type variable."""
    return type(getattr(module, name, None)).__name__ == "TypeVar"


def is_of_a_class(member: Any) -> bool:
    """Return whether a member of a class is a method or a property, compiled or not."""
    if isinstance(member, (property, cached_property, classmethod, staticmethod)):
        return True
    return inspect.isroutine(member) and callable(member)


def documented() -> Iterator[Any]:
    """Yield every public class and function, and the public methods of each class."""
    for name in MODULES:
        module = load(name)
        for public in getattr(module, "__all__", ()):
            thing = getattr(module, public)
            # The compiled twin is no module of its own here: it is what `framing` has chosen.
            is_own = getattr(thing, "__module__", None) == module.__name__ or name == "framing"
            if not (is_own and (inspect.isclass(thing) or inspect.isroutine(thing))):
                continue
            yield pytest.param(thing, id=f"{name}.{public}")
            for key, member in vars(thing).items() if inspect.isclass(thing) else ():
                if not key.startswith("_") and is_of_a_class(member):
                    yield pytest.param((thing, key), id=f"{name}.{public}.{key}")


# What stands at the beginning of a sentence that tells somebody to do something.
NO_VERBS = {"A", "An", "The", "This", "It", "Returns", "Return's", "Is", "Are", "To", "That"}


@pytest.mark.parametrize("thing", [*documented()])
def test_every_public_name_has_a_docstring_of_one_imperative_sentence_first(thing: Any) -> None:
    if isinstance(thing, tuple):
        cls, key = thing
        text = inspect.getdoc(getattr(cls, key))  # inherited, where it is not its own
        is_property = isinstance(inspect.getattr_static(cls, key), (property, cached_property))
    else:
        text, is_property = inspect.getdoc(thing), False
    assert text, f"{thing} has no docstring"
    first = text.strip().split("\n\n")[0]
    assert first.endswith((".", ":", "::"))
    word = first.split()[0]
    assert word[0].isupper()
    if not is_property:
        assert word not in NO_VERBS
        assert not word.endswith(("ing", "ed")) or word in {"Bring", "Need", "Feed"}


def variables() -> Iterator[Any]:
    """Yield every public name that stands for a value, and is not somebody else's."""
    for name in MODULES:
        module = load(name)
        for public in getattr(module, "__all__", ()):
            thing = getattr(module, public)
            if not (inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)):
                own = public in assigned_in(name)
                if own or not is_imported(name, public):
                    yield pytest.param(name, public, id=f"{name}.{public}")


def assigned_in(name: str) -> dict[str, str]:
    """Return the variables of a module, each with the docstring that follows it, if one does."""
    found: dict[str, str] = {}
    body = tree_of(name).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = str(following.value.value)
        found |= {target.id: text for target in targets if isinstance(target, ast.Name)}
    return found


def is_imported(name: str, public: str) -> bool:
    """Return whether a module has a name from another one."""
    nodes = [node for node in ast.walk(tree_of(name)) if isinstance(node, ast.ImportFrom)]
    return any(public in (alias.asname or alias.name for alias in node.names) for node in nodes)


@pytest.mark.parametrize(("name", "public"), [*variables()])
def test_every_public_variable_has_a_docstring(name: str, public: str) -> None:
    # `framing` takes its names from the twin that it has chosen, which documents them.
    text = assigned_in("_framing_py" if name == "framing" else name)[public]
    assert text.strip(), f"{public} has no docstring"
    assert text.split("\n\n")[0].rstrip().endswith(".")


# -- The two endpoints -----------------------------------------------------------------------


def lines_of(name: str) -> list[str]:
    """Return the lines of a module that say something, without what surrounds them."""
    stripped = (line.strip() for line in path_of(name).read_text().splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["asyncio.endpoint", "asyncio.loop", "trio.endpoint", "trio.loop"])
def test_the_endpoints_are_short(name: str) -> None:
    assert len(path_of(name).read_text().splitlines()) < 300


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_read_in_one_sitting(name: str) -> None:
    assert len(path_of(name).read_text().splitlines()) < 1000


@pytest.mark.parametrize("part", ["endpoint", "loop"])
def test_the_endpoints_share_no_logic(part: str) -> None:
    here, there = lines_of(f"asyncio.{part}"), lines_of(f"trio.{part}")

    def runs(lines: list[str]) -> set[tuple[str, ...]]:
        return {tuple(lines[start : start + 6]) for start in range(len(lines) - 5)}

    assert not runs(here) & runs(there)


def public(thing: object) -> set[str]:
    """Return the names that an object, or a class, has for others."""
    return {name for name in dir(thing) if not name.startswith("_")}


def test_nothing_is_public_at_endpoints_but_what_is_documented() -> None:
    contract = public(lahja.EndpointAPI)
    contract |= {"ipc_path", "is_stopped", "is_server_stopped", "wait_started", "wait_stopped"}
    contract |= {"has_snappy_support", "logger", "require_subscriber"}
    of_asyncio = {"event_loop", "check_event_loop"}
    of_trio = {"TResponse", "TStreamEvent", "TSubscribeEvent"}
    assert public(lahja.AsyncioEndpoint("a")) == contract | of_asyncio
    assert public(lahja.TrioEndpoint("a")) == contract | of_trio


def test_the_event_loops_have_the_same_methods() -> None:
    shared = public(load("loops").EventLoop)
    assert public(load("asyncio.loop").AsyncioLoop) == shared | {"wait_ended"}
    assert public(load("trio.loop").TrioLoop) == shared | {"live_in"}
