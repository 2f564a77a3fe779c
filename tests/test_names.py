"""Names of event types: what a class is called, and which class a name means here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from lahja import names
from lahja.common import BaseEvent
from lahja.names import find_class, main_module_name, name_of


class Event(BaseEvent):
    class Inner(BaseEvent):
        pass


class NoEvent:
    pass


HERE = Event.__module__
alias = Event


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module that is imported for the time of the test."""
    made = ModuleType("made_for_a_test")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.fixture(autouse=True)
def forget_names() -> Iterator[None]:
    """Let no class be found only because it was named before."""
    before = dict(names._named.items())  # not of the mapping: a class may be collected meanwhile
    names._named.clear()
    yield
    names._named.update(before)


# -- What a class is called ------------------------------------------------------------------


def test_a_class_goes_by_its_module_and_qualified_name() -> None:
    assert name_of(Event) == f"{HERE}:Event"
    assert name_of(Event.Inner) == f"{HERE}:Event.Inner"


def test_a_class_within_a_function_has_a_name_of_its_own() -> None:
    class Local(BaseEvent):
        pass

    name = name_of(Local)
    assert name.endswith(":test_a_class_within_a_function_has_a_name_of_its_own.<locals>.Local")
    assert find_class(name) is Local


@pytest.mark.parametrize("module_name", ["__main__", "__mp_main__"])
def test_the_main_module_has_one_name(
    module_name: str, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", module)
    kind = type("Kind", (BaseEvent,), {"__module__": module_name})
    assert name_of(kind) == "__main__:Kind"
    module.__spec__ = importlib.util.spec_from_loader("package.program", None)
    assert main_module_name() == "package.program"
    assert name_of(kind) == "package.program:Kind"


@pytest.mark.parametrize("spec", [None, "text"], ids=["none", "odd"])
def test_a_main_module_without_a_spec_is_called_main(
    spec: Any, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    module.__spec__ = spec
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert main_module_name() == "__main__"
    monkeypatch.delitem(sys.modules, "__main__")
    assert main_module_name() == "__main__"


# -- Which class a name means ----------------------------------------------------------------


@pytest.mark.parametrize("kind", [Event, Event.Inner, BaseEvent])
def test_a_class_is_found_by_its_name(kind: type[BaseEvent]) -> None:
    name = f"{kind.__module__}:{kind.__qualname__}"
    assert find_class(name) is kind


@pytest.mark.parametrize("way", ["script", "-m"])
def test_a_class_of_the_main_module_is_found_by_its_name(
    way: str, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", module)
    if way == "-m":
        module.__spec__ = importlib.util.spec_from_loader("package.program", None)
    kind: Any = type("Kind", (BaseEvent,), {"__module__": "__main__"})
    module.Kind = kind  # type: ignore[attr-defined]
    name = "__main__:Kind" if way == "script" else "package.program:Kind"
    assert find_class(name) is kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "no_such_module:Event",
        f"{HERE}:NoSuchEvent",
        f"{HERE}:Event.NoSuchEvent",
        f"{HERE}:NoEvent",
        f"{HERE}:alias",  # it goes by its real name alone
        f"{HERE}:HERE",
        f"{HERE}:HERE.anything",
        f"{HERE}:forget_names.anything",
        f"{HERE}:",
        f"{HERE}",
        f"{HERE}:sys.modules",
        "sys:modules",
        "builtins:object",
        "os:path.join",
        "lahja:BaseEvent",  # not where it is defined
    ],
)
def test_what_is_no_event_class_of_that_name_is_not_found(name: str) -> None:
    assert find_class(name) is None


def test_a_class_that_is_gone_is_not_found() -> None:
    kind = type("Kind", (BaseEvent,), {"__module__": HERE})
    name = name_of(kind)
    assert find_class(name) is kind
    names._named.clear()
    assert find_class(name) is None


def test_a_class_that_was_made_anew_is_the_newest(module: ModuleType) -> None:
    first, second = (type("Kind", (BaseEvent,), {"__module__": module.__name__}) for _ in range(2))
    for kind in (first, second):
        name = name_of(kind)
        assert find_class(name) is kind


# -- Looking up runs nothing -----------------------------------------------------------------


def test_looking_up_imports_no_module() -> None:
    before = set(sys.modules)
    assert "antigravity" not in before
    for name in ("antigravity:Event", "xml.sax:Event", "antigravity.sub:Event.Inner"):
        assert find_class(name) is None
    assert set(sys.modules) == before


def test_looking_up_does_not_load_a_lazy_module(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("this")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "this", lazy)
    loader.exec_module(lazy)
    assert find_class("this:s") is None
    assert type(lazy) is not ModuleType  # what it becomes as soon as it is loaded


def test_looking_up_runs_no_attribute_lookup(module: ModuleType) -> None:
    asked: list[str] = []

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            asked.append(name)
            return super().__getattribute__(name)

    class Curious(metaclass=Meta):
        pass

    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            asked.append(name)
            return super().__getattribute__(name)

    def lookup(name: str) -> None:
        asked.append(name)
        raise AttributeError(name)

    module.Curious, module.proxy = Curious, Proxy()  # type: ignore[attr-defined]
    module.__getattr__ = lookup  # type: ignore[method-assign]
    asked.clear()
    for path in ("Curious", "Curious.Inner", "proxy", "proxy.Inner", "missing", "missing.Inner"):
        assert find_class(f"{module.__name__}:{path}") is None
    assert not asked
