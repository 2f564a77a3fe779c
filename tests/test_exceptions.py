"""Every exception: its place in the tree, its data, and its text."""

from __future__ import annotations

import copy
import pickle
import re
import sys

import pytest

import lahja
from lahja import exceptions
from lahja.exceptions import (
    ConnectTimeout,
    DecodeError,
    EncodeError,
    FrameTooLarge,
    LahjaError,
    MissingExtra,
    RequestTimeout,
    StreamOverflow,
    TruncatedFrame,
    UnsupportedPlatform,
    WaitTimeout,
)

ALL: list[type[Exception]] = [getattr(exceptions, name) for name in exceptions.__all__]

EXAMPLES: list[tuple[LahjaError, str]] = [
    (
        ConnectTimeout("a", "/tmp/a.ipc", 30.0, "nobody is there"),
        "no connection to endpoint 'a' at /tmp/a.ipc within 30 s: nobody is there",
    ),
    (EncodeError("m:A", "it is too large"), "cannot send m:A: it is too large"),
    (EncodeError("m:A", "why not", "x"), "cannot send m:A, field 'x': why not"),
    (
        MissingExtra("TrioEndpoint", "trio"),
        "TrioEndpoint needs an optional package: pip install 'lahja[trio]'",
    ),
    (FrameTooLarge(5, 4), "a frame of 5 bytes is over the limit of 4"),
    (TruncatedFrame(None), "the connection ended in the middle of a frame's length"),
    (
        TruncatedFrame(3),
        "the connection ended in a frame of which 3 bytes were still to come",
    ),
    (
        RequestTimeout("m:A", 0.5, ("a", "b")),
        "no response to m:A within 0.5 s (sent to: a, b)",
    ),
    (RequestTimeout("m:A", 2, ()), "no response to m:A within 2 s (sent to: nobody)"),
    (
        WaitTimeout(2, ("a", "b")),
        "not everybody was ready within 2 s: not connected: 'a', 'b'",
    ),
    (
        WaitTimeout(1, (), (("b", ("m:A",)),)),
        "not everybody was ready within 1 s: 'b' is connected, but not subscribed to m:A",
    ),
    (
        WaitTimeout(0.5, ("a",), (("b", ("m:A",)), ("c", ("m:A", "m:B")))),
        "not everybody was ready within 0.5 s: not connected: 'a'; 'b' is connected, but not "
        "subscribed to m:A; 'c' is connected, but not subscribed to m:A, m:B",
    ),
    (StreamOverflow("m:A", 3), "the stream of m:A was full: 3 events were waiting"),
    (DecodeError("it is broken"), "it is broken"),
    (
        UnsupportedPlatform("serve at a.ipc"),
        "cannot serve at a.ipc: endpoints talk to each other through Unix sockets, which Python "
        f"does not have on this system ({sys.platform})",
    ),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_exception_is_a_lahja_error_and_is_in_the_tree_of_the_docstring(
    error: type[Exception],
) -> None:
    assert issubclass(error, LahjaError)
    assert re.search(rf"[ ─]{error.__name__}\b", exceptions.__doc__ or "")


def test_the_tree_of_the_docstring_is_the_real_one() -> None:
    tree = [
        (match[1].count("│") + match[1].count(" ") // 20, match[2])
        for match in re.finditer(r"^ *([│ ]*[├└]─) (\w+)", exceptions.__doc__ or "", re.MULTILINE)
    ]
    assert {name for _, name in tree} == set(exceptions.__all__) - {"LahjaError"}
    base: type[Exception] = LahjaError
    for depth, name in tree:
        cls = getattr(exceptions, name)
        assert cls.__mro__[1] is (base if depth else LahjaError)
        base = base if depth else cls


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (exceptions.ConnectTimeout, TimeoutError),
        (exceptions.RequestTimeout, TimeoutError),
        (exceptions.WaitTimeout, TimeoutError),
        (exceptions.MissingExtra, ImportError),
        (exceptions.NoSuchAttribute, AttributeError),
        (exceptions.UnsupportedPlatform, NotImplementedError),
    ],
)
def test_what_python_calls_the_same_may_be_caught_as_that(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_text_says_what_happened_and_survives_pickling(error: LahjaError, text: str) -> None:
    assert str(error) == text
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == text
        assert vars(other) == vars(error)
        assert other.args == error.args
        assert repr(other) == repr(error)


def test_a_timeout_does_not_look_like_an_error_of_the_system() -> None:
    errors: tuple[OSError, ...] = (
        ConnectTimeout("a", "/tmp/a.ipc", 30.0, "why"),
        RequestTimeout("m:A", 2, ()),
        WaitTimeout(2, ("a",)),
    )
    for error in errors:
        assert (error.errno, error.strerror, error.filename) == (None, None, None)


def test_what_is_raised_to_callers_may_be_imported_from_the_package() -> None:
    internal = {"DecodeError", "FrameTooLarge", "ProtocolError", "TruncatedFrame"}
    assert set(exceptions.__all__) - internal <= set(lahja.__all__)
