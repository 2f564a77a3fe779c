# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=True, auto_pickle=False
"""
The hot path, compiled: everything that runs once per event.

``_framing_py`` is the specification: the same names in the same order, with the documentation.
What is here does the same to the byte, to the error and its message, and in the same order.

Rules that keep it safe:

* What is encoded is written to a ``Writer`` on the C stack of the call, so that calls may nest.
  What is decoded is read through a ``Cursor``, whose caller keeps the bytes alive. Every read
  compares what it needs with what is left, and adds nothing to a pointer before that.
* A reader's buffer is pinned by a memoryview, so that nobody can resize it. Whoever runs Python
  code while it reads there holds a reference to that view, and has moved the position ahead.
* An instance is touched through C only where Python itself has shown, with the first instance of
  its class, that this is the same. So ``__setattr__``, ``__getattribute__`` and classes with
  hidden C state keep their say.
* Objects own what their fields refer to. What only borrows says so.

Methods call each other without asking whether a subclass overrides them; only of a mailbox may
``deliver`` be overridden.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_FromDouble
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.set cimport PySet_Add
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from ._memory cimport PY_SSIZE_T_MAX, Cursor, Writer, finish, finish_pieces, get32, get64, keep
from ._memory cimport lahja_resize_bytes
from ._memory cimport put32, put64, reserve, start_writing, stop_writing, uchar, write, write_again

cimport cython

import copy
import os
import sys
from collections import deque
from collections.abc import Coroutine

from . import wire
from .common import BaseEvent, BroadcastConfig, already_bound
from .counting import TURN_SECONDS, no_time
from .exceptions import (
    DecodeError,
    EncodeError,
    FrameTooLarge,
    ProtocolError,
    TruncatedFrame,
)
from .frames import APART, CHUNK_SIZE, LONG
from .layouts import BINDING, check_fields, is_self_pickling, set_by_descriptor, slot_names
from .names import name_of

cdef extern from *:
    """
    /* object.__new__(cls), without the checks that Python made for this class before. */
    static CYTHON_INLINE PyObject *lahja_new(PyObject *cls, PyObject *no_arguments) {
        return PyBaseObject_Type.tp_new((PyTypeObject *)cls, no_arguments, NULL);
    }

    /* What awaits a _Step asks these slots: a result passes without an exception where it can. */
    static sendfunc lahja_step_send;

    static PyObject *lahja_step_next(PyObject *self) {
        PyObject *result = NULL;
        PyObject *error;
        switch (lahja_step_send(self, Py_None, &result)) {
        case PYGEN_NEXT:
            return result;
        case PYGEN_RETURN:
            if (PyTuple_Check(result) || PyExceptionInstance_Check(result)) {
                error = PyObject_CallOneArg(PyExc_StopIteration, result);
                if (error != NULL) {
                    PyErr_SetObject(PyExc_StopIteration, error);
                    Py_DECREF(error);
                }
            } else {
                PyErr_SetObject(PyExc_StopIteration, result);
            }
            Py_DECREF(result);
            return NULL;
        default:
            return NULL;
        }
    }

    static void lahja_install_step(PyObject *cls, sendfunc send) {
        PyTypeObject *type = (PyTypeObject *)cls;
        lahja_step_send = send;
        type->tp_iternext = lahja_step_next;
        type->tp_as_async->am_send = send;
        PyType_Modified(type);
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(object, object, PyObject **) except PYGEN_ERROR
    void lahja_install_step(object cls, sendfunc send)
    PySendResult PyIter_Send(object receiver, object value, PyObject **result) except PYGEN_ERROR
    PyObject *PyDict_GetItem(object state, object key)  # borrowed
    PyObject *PyThreadState_GetDict()  # borrowed
    object PyFrozenSet_New(PyObject *iterable)
    object lahja_new(object cls, object no_arguments)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1
    object PyObject_GenericGetAttr(object value, object name)
    object PyObject_GenericGetDict(object value, void *context)
    int PyObject_GenericSetAttr(object value, object name, object item) except -1
    bint PyUnicode_IS_ASCII(object text)

__all__ = [
    "IMPLEMENTATION",
    "EventIterator",
    "EventTable",
    "Inlet",
    "Mailbox",
    "Outlet",
    "PendingRequest",
    "Reader",
    "Shape",
    "Topic",
    "decode_value",
    "encode_value",
]

IMPLEMENTATION = "cython"

cdef Py_ssize_t _BUFFER_MINIMUM = 16 * 1024
cdef Py_ssize_t _BUFFER_MAXIMUM = 256 * 1024  # where no frame needs more
cdef Py_ssize_t _LOOKED_INTO = 1024  # bytes of a long frame that have to be there before it is
cdef Py_ssize_t _AT_ONCE = 1024 * 1024  # bytes of a value for which there is room from the start
cdef Py_ssize_t _MOST_UNTIMED = 16  # events that are handed over without a look at the clock

# Typed once, in ``wire``; read here when the module is imported.
cdef int _ANNOUNCE = wire.ANNOUNCE
cdef int _EVENT = wire.EVENT
cdef int _REQUEST = wire.REQUEST
cdef int _RESPONSE = wire.RESPONSE
cdef int _PLAIN = wire.PLAIN
cdef int _PICKLED = wire.PICKLED
cdef int _LAYOUT_FIELDS = wire.LAYOUT_FIELDS
cdef int _LAYOUT_MAPPING = wire.LAYOUT_MAPPING
cdef int _LAYOUT_WHOLE = wire.LAYOUT_WHOLE
cdef int _MAX_DEPTH = wire.MAX_DEPTH
cdef int64_t _MAX_PLAIN_CONTAINERS = wire.MAX_PLAIN_CONTAINERS
cdef uint64_t _MAX_LENGTH = wire.MAX_LENGTH
cdef Py_ssize_t _MAX_SHAPES = wire.MAX_SHAPES
cdef Py_ssize_t _MAX_FIELDS_SIZE = wire.MAX_FIELDS_SIZE
cdef Py_ssize_t _COMPRESS_MINIMUM = wire.COMPRESS_MINIMUM
cdef Py_ssize_t _LENGTH_SIZE = wire.LENGTH_SIZE
cdef Py_ssize_t _ID_SIZE = wire.ID_SIZE
cdef Py_ssize_t _APART = APART
cdef double _TURN = TURN_SECONDS
cdef Py_ssize_t _LONG = LONG
cdef Py_ssize_t _CHUNK_SIZE = CHUNK_SIZE

cdef Py_ssize_t _MOST_DEBT = 256  # broadcasts, or KiB, after which others get a turn
cdef Py_ssize_t _IDS_AT_A_TIME = 64  # of requests: asking the system takes a microsecond

cdef enum:
    HEADER_SIZE = 9  # of the frame of an event: length, kind, type id
    PREALLOCATED = 256  # elements for which a container is made at once
    COPIED = 4096  # bytes of a pickle that are sooner copied than shown in a view

cdef object _set_attribute = object.__setattr__
cdef object _get_attribute = object.__getattribute__
cdef object _new_object = object.__new__
cdef object _intern = sys.intern
cdef tuple _nothing_given = ()


# -- The codec of plain values ---------------------------------------------------------------


class _NotPlainError(Exception):
    """Report a value that is not plain, or too deep or too wide to be sent as one."""


def encode_value(object value):
    """Return the encoding of one plain value."""
    cdef Writer out
    start_writing(&out, _MAX_LENGTH, 0, True)
    try:
        _write(value, &out, 0)
        return finish(&out)
    except _NotPlainError as error:
        raise EncodeError(type(value).__name__, str(error)) from None
    finally:
        stop_writing(&out)


def decode_value(object data, object offset=0):
    """Return the plain value that begins at ``offset``, and the offset behind it."""
    cdef Py_buffer view
    cdef Cursor cursor
    cdef Py_ssize_t at = _offset(offset)
    if at < 0:
        raise ValueError(f"an offset is not negative, as {offset} is")
    _get_bytes(data, &view)
    try:
        if at > view.len:
            raise _cut_short()
        cursor.at = <const uchar *>view.buf + at
        cursor.end = <const uchar *>view.buf + view.len
        value = _read(&cursor, 0)
        return value, cursor.at - <const uchar *>view.buf
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t _offset(object offset) except? -1:
    try:
        return offset
    except OverflowError:
        return PY_SSIZE_T_MAX if offset > 0 else -1


cdef int _get_bytes(object data, Py_buffer *view) except -1:
    try:
        return PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except BufferError:  # a view with gaps
        return PyObject_GetBuffer(bytes(data), view, PyBUF_SIMPLE)


# What the functions that write return: 0, or 1 where the value is not plain. Who wants to know why
# gets a _NotPlainError instead. Python code does not run while they are at it, but garbage may be
# collected before CPython 3.12, so that whatever could be taken out of a container is held.


cdef int _write(object value, Writer *out, int depth) except -1:
    """Write the encoding of a value."""
    cdef Py_ssize_t size
    cdef const char *text
    cdef long long number
    cdef int overflow = 0
    cdef double real
    cdef uint64_t bits
    if type(value) is str:
        if PyUnicode_IS_ASCII(value):
            text = PyUnicode_AsUTF8AndSize(value, &size)
            if depth and _spend(out, size):
                return 1
            if size >= out.apart:
                return _write_bytes(out, 0, c"S", PyUnicode_AsUTF8String(value))
            return _write_sized(out, c"s", c"S", text, size)
        return _write_text(value, out, depth)
    if type(value) is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return _write_long(value, out)
        reserve(out, 9)
        if -0x80 <= number < 0x80:
            out.at[0] = c"b"
            out.at[1] = <uchar>number
            out.at += 2
        elif -0x8000_0000 <= number < <long long>0x8000_0000:
            out.at[0] = c"i"
            put32(out.at + 1, <uint32_t>number)
            out.at += 5
        else:
            out.at[0] = c"q"
            put64(out.at + 1, <uint64_t>number)
            out.at += 9
        return 0
    if type(value) is bytes:
        size = PyBytes_GET_SIZE(value)
        if depth and _spend(out, size):
            return 1
        return _write_bytes(out, c"y", c"Y", value)
    if type(value) is float:
        real = PyFloat_AS_DOUBLE(value)
        memcpy(&bits, &real, 8)
        reserve(out, 9)
        out.at[0] = c"d"
        put64(out.at + 1, bits)
        out.at += 9
        return 0
    if value is None or type(value) is bool:
        reserve(out, 1)
        out.at[0] = c"N" if value is None else c"T" if value is True else c"F"
        out.at += 1
        return 0
    return _write_container(value, out, depth)


cdef int _write_container(object value, Writer *out, int depth) except -1:
    cdef Py_ssize_t size, index
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef PyObject *item
    cdef uchar tag
    kind = type(value)
    if kind is tuple:
        tag = c"("
    elif kind is list:
        tag = c"["
    elif kind is dict:
        tag = c"{"
    elif kind is set:
        tag = c"<"
    elif kind is frozenset:
        tag = c">"
    else:
        if out.explain:
            raise _NotPlainError(f"a {kind.__qualname__} is not a plain value")
        return 1
    if depth == _MAX_DEPTH:
        if out.explain:
            raise _NotPlainError(f"it is nested more than {_MAX_DEPTH} deep")
        return 1
    size = len(value)
    out.room -= 1
    if _spend(out, size):
        return 1
    if _write_tag(out, tag, size):
        return 1
    depth += 1
    if kind is tuple:
        for index in range(size):
            if _write(<object>PyTuple_GET_ITEM(value, index), out, depth):
                return 1
        return 0
    if kind is list:
        for index in range(size):
            if index >= PyList_GET_SIZE(value):
                break
            element = <object>PyList_GET_ITEM(value, index)
            if _write(element, out, depth):
                return 1
        if PyList_GET_SIZE(value) != size:
            raise RuntimeError("list changed size during iteration")
        return 0
    index = 0
    if kind is dict:
        while PyDict_Next(value, &position, &key, &item):
            name, element = <object>key, <object>item
            if _write(name, out, depth) or _write(element, out, depth):
                return 1
            index += 1
        if index != size or len(<dict>value) != size:
            raise RuntimeError("dictionary changed size during iteration")
        return 0
    for element in value:
        if _write(element, out, depth):
            return 1
    return 0


cdef int _write_text(object value, Writer *out, int depth) except -1:
    """Write text that is not all ASCII."""
    cdef uchar short = c"s"
    cdef uchar tag = c"S"
    try:
        encoded = PyUnicode_AsUTF8String(value)
    except UnicodeEncodeError:
        encoded = value.encode("utf-8", "surrogatepass")
        short, tag = 0, c"U"
    if depth and _spend(out, PyBytes_GET_SIZE(encoded)):
        return 1
    return _write_bytes(out, short, tag, encoded)


cdef inline int _spend(Writer *out, Py_ssize_t size) except -1:
    """Count what a container holds: shared parts, which are written each time, must not explode."""
    out.room -= size >> out.shift
    if out.room >= 0:
        return 0
    if out.explain:
        raise _NotPlainError("its containers hold too much")
    return 1


cdef int _write_long(object value, Writer *out) except -1:
    """Write an integer of more than 64 bits."""
    cdef Py_ssize_t size = value.bit_length() // 8 + 1
    if <uint64_t>size > _MAX_LENGTH:
        return _write_tag(out, c"I", size)
    encoded = value.to_bytes(size, "little", signed=True)
    return _write_bytes(out, 0, c"I", encoded)


cdef inline int _write_bytes(Writer *out, uchar short, uchar tag, bytes data) except -1:
    """Write a tag, the size of some bytes, and the bytes, which are kept apart if they are many."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if size < out.apart:
        return _write_sized(out, short, tag, PyBytes_AS_STRING(data), size)
    if _write_tag(out, tag, size):
        return 1
    return keep(out, data)


cdef inline int _write_sized(
    Writer *out, uchar short, uchar tag, const char *data, Py_ssize_t size
) except -1:
    """Write a tag, the size of some bytes, and the bytes."""
    if short and size < 256:
        reserve(out, size + 2)
        out.at[0] = short
        out.at[1] = <uchar>size
        out.at += 2
    else:
        if _write_tag(out, tag, size):
            return 1
        reserve(out, size)
    memcpy(out.at, data, size)
    out.at += size
    return 0


cdef int _write_tag(Writer *out, uchar tag, Py_ssize_t size) except -1:
    """Write a tag and a size of four bytes."""
    if <uint64_t>size > _MAX_LENGTH:
        if out.explain:
            raise _NotPlainError(f"a part of {size} bytes or elements is too long")
        return 1
    reserve(out, 5)
    out.at[0] = tag
    put32(out.at + 1, <uint32_t>size)
    out.at += 5
    return 0


cdef object _cut_short():
    return DecodeError("a value is cut short")


cdef object _read(Cursor *data, int depth):
    """Return the value at a cursor, and move that behind it; any DecodeError means bad data."""
    cdef const uchar *at = data.at
    cdef Py_ssize_t left = data.end - at
    cdef uint64_t size
    cdef uint64_t bits
    cdef double real
    cdef int tag
    if not left:
        raise _cut_short()
    tag = at[0]
    at += 1
    left -= 1
    if tag == c"s" or tag == c"y":
        if left < 1:
            raise _cut_short()
        size = at[0]
        at += 1
        left -= 1
    elif tag == c"S" or tag == c"U" or tag == c"Y" or tag == c"I":
        if left < 4:
            raise _cut_short()
        size = get32(at)
        at += 4
        left -= 4
    elif tag == c"b":
        if left < 1:
            raise _cut_short()
        data.at = at + 1
        return <signed char>at[0]
    elif tag == c"i":
        if left < 4:
            raise _cut_short()
        data.at = at + 4
        return <int32_t>get32(at)
    elif tag == c"q":
        if left < 8:
            raise _cut_short()
        data.at = at + 8
        return <int64_t>get64(at)
    elif tag == c"d":
        if left < 8:
            raise _cut_short()
        data.at = at + 8
        bits = get64(at)
        memcpy(&real, &bits, 8)
        return PyFloat_FromDouble(real)
    elif tag == c"N":
        data.at = at
        return None
    elif tag == c"T":
        data.at = at
        return True
    elif tag == c"F":
        data.at = at
        return False
    else:
        data.at = at
        return _read_container(data, tag, depth)
    if size > <uint64_t>left:
        raise _cut_short()
    data.at = at + size
    if tag == c"s" or tag == c"S":
        return _read_text(at, size, NULL)
    if tag == c"y" or tag == c"Y":
        return PyBytes_FromStringAndSize(<char *>at, size)
    if tag == c"U":
        return _read_text(at, size, "surrogatepass")
    return int.from_bytes(PyBytes_FromStringAndSize(<char *>at, size), "little", signed=True)


cdef object _read_text(const uchar *at, Py_ssize_t size, const char *errors):
    try:
        return PyUnicode_DecodeUTF8(<char *>at, size, errors)
    except UnicodeDecodeError:
        raise DecodeError("a text is not UTF-8") from None


cdef object _read_container(Cursor *data, int tag, int depth):
    cdef Py_ssize_t count, index, _index
    cdef bint hashable = True
    if tag != c"(" and tag != c"[" and tag != c"{" and tag != c"<" and tag != c">":
        raise DecodeError(f"0x{tag:02x} is not the tag of a value")
    if depth == _MAX_DEPTH:
        raise DecodeError(f"a value is nested more than {_MAX_DEPTH} deep")
    if data.end - data.at < 4:
        raise _cut_short()
    count = <Py_ssize_t>min(<uint64_t>get32(data.at), <uint64_t>PY_SSIZE_T_MAX)
    data.at += 4
    depth += 1
    if tag == c"(" or tag == c"[":
        # Made at once only if small, so that a false count cannot cost more than the frame.
        if count > PREALLOCATED:
            elements = []
            for _index in range(count):
                elements.append(_read(data, depth))
            return elements if tag == c"[" else tuple(elements)
        if tag == c"[":
            elements = PyList_New(count)
            for index in range(count):
                element = _read(data, depth)
                Py_INCREF(element)
                PyList_SET_ITEM(elements, index, element)
            return elements
        return _read_tuple(data, count, depth)
    if tag == c"{":
        mapping = {}
        for _index in range(count):
            key = _read(data, depth)
            element = _read(data, depth)
            try:
                PyDict_SetItem(mapping, key, element)
            except TypeError:
                hashable = False  # what follows may be worse
        result = mapping
    else:
        result = PyFrozenSet_New(NULL) if tag == c">" else set()
        for _index in range(count):
            key = _read(data, depth)
            try:
                PySet_Add(result, key)
            except TypeError:
                hashable = False
    if not hashable:
        raise DecodeError("a set or dict has an element that cannot be hashed")
    return result


cdef tuple _read_tuple(Cursor *data, Py_ssize_t count, int depth):
    cdef Py_ssize_t index
    elements = PyTuple_New(count)
    for index in range(count):
        element = _read(data, depth)
        Py_INCREF(element)
        PyTuple_SET_ITEM(elements, index, element)
    return elements


# -- Sending ---------------------------------------------------------------------------------


cdef bint _exceeds(uint64_t size, object limit) except -1:
    """Return whether a size is over a limit, which may be a number of any size."""
    cdef int overflow = 0
    cdef long long number
    if type(limit) is not int:
        return size > limit
    number = PyLong_AsLongLongAndOverflow(limit, &overflow)
    if overflow:
        return overflow < 0
    return number < 0 or size > <uint64_t>number


cdef bint _is_used_to_large = False


cdef int _get_used_to_large() except -1:
    """
    Have the C library keep some memory instead of returning it each time that a value is freed.

    Where it is glibc: the largest block that was ever freed says what counts as large. Otherwise
    each value takes a page fault for every 4 KiB, which costs more than copying it.
    """
    global _is_used_to_large
    if not _is_used_to_large:
        _is_used_to_large = True
        PyBytes_FromStringAndSize(NULL, 4 * _AT_ONCE)  # which nobody touches
    return 0


cdef object _finished(Writer *out):
    """Return what was written as a frame."""
    return finish(out) if out.pieces == NULL else finish_pieces(out)


cdef inline Py_ssize_t _frame_size(object frame) except -1:
    """Return how many bytes a frame has."""
    return PyBytes_GET_SIZE(frame) if type(frame) is bytes else _pieces_size(frame)


cdef Py_ssize_t _pieces_size(object frame) except -1:
    cdef Py_ssize_t size = 0
    for piece in <tuple?>frame:
        size += len(<bytes?>piece)
    return size


cdef class Outlet:
    """Outlet(wake, high_water)\n--\n
    Gather the frames that wait to be written to one peer.
    """

    cdef public object name
    cdef public Py_ssize_t size
    cdef public Py_ssize_t threshold
    cdef public object wake
    cdef public Py_ssize_t high_water
    cdef public object limit
    cdef public bint compress
    cdef public bint accepts_pickle
    cdef public set announced
    cdef public Py_ssize_t events
    cdef public bint has_long
    cdef list _chunks  # complete ones; take() gives it away
    cdef PyObject *_open  # owned, the only reference: a bytes object that is filled; may be NULL
    cdef Py_ssize_t _filled  # how much of it
    cdef Py_ssize_t _capacity  # of it
    cdef Py_ssize_t _usual  # how long such a one was when it was last complete

    def __cinit__(self):
        self._open = NULL

    def __init__(self, wake, Py_ssize_t high_water):
        self.name = ""
        self.size = 0
        self.threshold = 0
        self.wake = wake
        self.high_water = high_water
        self.limit = wire.MAX_FRAME_SIZE
        self.compress = False
        self.accepts_pickle = True
        self.announced = set()
        self.events = 0
        self.has_long = False
        self._chunks = []
        self._usual = 0

    def __dealloc__(self):
        Py_XDECREF(self._open)

    cpdef put(self, frame):
        """Queue a whole frame."""
        if type(frame) is bytes:
            self._put_bytes(<bytes>frame)
        else:
            for piece in <tuple?>frame:
                self._put_bytes(<bytes?>piece)
        if self.size > self.threshold:
            self.wake()

    cpdef send(self, Shape shape, frame):
        """Queue an event, and before it what announces its shape, the first time."""
        self._announce(shape)
        self.put(frame)

    cdef int _send_data(self, Shape shape, const void *frame, Py_ssize_t size) except -1:
        """Do the same with a short frame that is no object."""
        self._announce(shape)
        self._gather(frame, size)
        if self.size > self.threshold:
            self.wake()
        return 0

    cdef int _announce(self, Shape shape) except -1:
        if shape.type_id not in self.announced:
            self._put_bytes(shape.announcement)
            self.announced.add(shape.type_id)
        self.events += 1
        return 0

    cdef int _put_bytes(self, bytes data) except -1:
        if len(data) < _LONG:
            return self._gather(PyBytes_AS_STRING(data), len(data))
        self._complete()
        self._chunks.append(data)
        self.size += len(data)
        if len(data) >= _APART:
            self.has_long = True
        return 0

    cdef int _gather(self, const void *data, Py_ssize_t size) except -1:
        if size > self._capacity - self._filled or self._open == NULL:
            self._make_room(size)
        memcpy(PyBytes_AS_STRING(<object>self._open) + self._filled, data, size)
        self._filled += size
        self.size += size
        return 0

    cdef int _make_room(self, Py_ssize_t size) except -1:
        cdef Py_ssize_t capacity
        if self._filled + size > _CHUNK_SIZE:
            self._complete()
        capacity = max(self._filled + size, 2 * self._capacity, self._usual)
        larger = PyBytes_FromStringAndSize(NULL, min(capacity, _CHUNK_SIZE))
        if self._open != NULL:
            memcpy(PyBytes_AS_STRING(larger), PyBytes_AS_STRING(<object>self._open), self._filled)
            Py_XDECREF(self._open)
        Py_INCREF(larger)
        self._open = <PyObject *>larger
        self._capacity = len(<bytes>larger)
        return 0

    cdef int _complete(self) except -1:
        """Let what was gathered be a chunk."""
        cdef PyObject *data = self._open
        cdef Py_ssize_t filled = self._filled
        if data == NULL:
            return 0
        self._open = NULL
        self._filled = self._capacity = 0
        self._usual = filled
        lahja_resize_bytes(&data, filled)
        chunk = <object>data
        Py_XDECREF(data)
        self._chunks.append(chunk)
        return 0

    def take(self):
        """Return what waits, in chunks of which only the long ones are single frames, or pieces."""
        cdef list chunks
        self._complete()
        chunks = self._chunks
        self._chunks = []
        return chunks


cdef class Shape:
    """Shape(type_id, name, layout, fields)\n--\n
    Be one set of fields of one event type, with the number it has on the wire.
    """

    cdef readonly bytes announcement
    cdef readonly tuple fields
    cdef readonly int layout
    cdef readonly object name
    cdef public Py_ssize_t reluctance
    cdef readonly object type_id

    def __init__(self, type_id, name, int layout, tuple fields not None):
        self.type_id = type_id
        self.name = name
        self.layout = layout
        self.fields = fields
        self.reluctance = 0
        body = bytes((_ANNOUNCE,)) + encode_value((type_id, name, layout, fields))
        self.announcement = len(body).to_bytes(_LENGTH_SIZE, "little") + body


cdef class Topic:
    """Topic(cls)\n--\n
    Be one event class at one endpoint: who wants it, here and elsewhere.
    """

    cdef readonly object cls
    cdef readonly object name
    cdef readonly bint self_pickling
    cdef readonly tuple slots
    cdef readonly dict shapes
    cdef public tuple outlets
    cdef public tuple consumers
    cdef public bint strict
    cdef public dict windows
    cdef public bint limited
    cdef public bint tapped
    cdef public tuple twins
    cdef public Py_ssize_t broadcasts
    cdef public Py_ssize_t sent
    cdef public Py_ssize_t received
    cdef public Py_ssize_t delivered
    cdef Shape _recent  # the shape of the last event that was looked up; it is in ``shapes``, too
    cdef tuple _names  # the names of that event's attributes, the very objects
    cdef bint _seen  # whether _has_own_dict() was asked
    cdef bint _has_own_dict  # what it said
    cdef bint _is_settable  # object.__setattr__ takes the class, so PyObject_GenericSetAttr may

    def __init__(self, cls):
        self.cls = cls
        self.name = name_of(cls)
        self.self_pickling = is_self_pickling(cls)
        self.slots = slot_names(cls)
        self.shapes = {}
        self.outlets = ()
        self.consumers = ()
        self.strict = False
        self.windows = {}
        self.limited = False
        self.twins = ()
        self.tapped = False
        self.broadcasts = 0
        self.sent = 0
        self.received = 0
        self.delivered = 0


cdef class PendingRequest:
    """PendingRequest(id, expected, topic, asked, locally, wake)\n--\n
    Be a request that waits for its response.
    """

    cdef public bytes id
    cdef public object expected
    cdef public Topic topic
    cdef public tuple asked
    cdef public bint locally
    cdef public object wake
    cdef public object response
    cdef public object error
    cdef public double since

    def __init__(
        self, bytes id not None, expected, Topic topic, tuple asked not None, bint locally, wake
    ):
        self.id = id
        self.expected = expected
        self.topic = topic
        self.asked = asked
        self.locally = locally
        self.wake = wake
        self.response = None
        self.error = None
        self.since = 0.0

    @property
    def names(self):
        """The names of the other endpoints that were asked, and are still connected."""
        return tuple(sorted([outlet.name for outlet in self.asked]))


cdef class EventTable:
    """EventTable(origin, allow_pickle, on_topic)\n--\n
    Know every event class of an endpoint, and carry its broadcasts.
    """

    cdef public object origin
    cdef public bint allow_pickle
    cdef public object on_topic
    cdef public dict topics
    cdef public dict by_name
    cdef public object compressor
    cdef public object limit
    cdef public Py_ssize_t debt
    cdef public bint congested
    cdef public object where
    cdef object _home
    cdef object _running  # what this thread had under ``running_key`` when ``where`` last agreed
    cdef Py_ssize_t _forks  # what ``_forks`` was then
    cdef public object running_key
    cdef public object owner
    cdef public object route
    cdef public object on_congested
    cdef public object targets
    cdef public dict outlets
    cdef public dict requests
    cdef uint64_t _next_id
    cdef bytes _ids  # random bytes, of which some were given away
    cdef Py_ssize_t _ids_used
    cdef public object route_request

    def __init__(self, origin, bint allow_pickle, on_topic):
        self.origin = origin
        self.allow_pickle = allow_pickle
        self.on_topic = on_topic
        self.topics = {}
        self.by_name = {}
        self.compressor = None
        self.limit = wire.MAX_FRAME_SIZE
        self.debt = 0
        self.congested = False
        self.where = _nowhere
        self.home = _NOWHERE
        self.running_key = None
        self.owner = _Nobody
        self.route = _not_routed
        self.route_request = _not_routed_request
        self.on_congested = _no_gates
        self.targets = _no_targets
        self.outlets = {}
        self.requests = {}
        self._next_id = 0
        self._ids = b""
        self._ids_used = 0

    @property
    def home(self):
        return self._home

    @home.setter
    def home(self, home):
        self._home = home
        self._running = None

    cpdef bint is_home(self) except -1:
        """Return whether the endpoint's event loop runs, in this thread."""
        cdef PyObject *state = NULL
        cdef PyObject *running = NULL
        if self.running_key is not None:
            state = PyThreadState_GetDict()
            if state != NULL:
                running = PyDict_GetItem(<object>state, self.running_key)
            if self._running is not None:
                if running == <PyObject *>self._running and self._forks == _forks:
                    return True
        if self.where() is not self._home:
            return False
        if running != NULL:
            self._running, self._forks = <object>running, _forks
        return True

    cpdef Topic topic(self, cls):
        """Return the topic of an event class."""
        cdef Topic topic = self.topics.get(cls)
        if topic is None:
            if not (isinstance(cls, type) and issubclass(cls, BaseEvent)):
                raise TypeError(f"an event type is a class derived from BaseEvent, not {cls!r}")
            check_fields(cls)
            topic = self.topics[cls] = Topic(cls)
            self.on_topic(topic)
        return topic

    def post(self, event, config=None):
        """Broadcast an event from the endpoint's own event loop, whatever that takes."""
        cdef Py_ssize_t receivers
        gates = _nothing_given
        if not self.is_home():
            gates = self.route(event, config)
        elif config is None:
            receivers = self._publish(event)
            if receivers < 0 or (not receivers and self.owner.require_subscriber):
                gates = self.route(event, None)
            elif not receivers:
                (<Topic>self.topics[type(event)]).broadcasts += 1
                self.debt += 1
            elif self.congested:
                gates = self.on_congested((<Topic>self.topics[type(event)]).outlets)
        else:
            outlets = self._post_to_one(event, config)
            if outlets is None:
                gates = self.route(event, config)
            elif self.congested:
                gates = self.on_congested(outlets)
        return self.settle(gates)

    cpdef settle(self, gates):
        """Return what a broadcaster is to wait for: None, these gates, or a turn of the others."""
        if not gates and self.debt <= _MOST_DEBT:
            return None
        self.debt = 0
        return gates

    cdef tuple _post_to_one(self, object event, object config):
        """Send an event, or a response, to one other endpoint; None where that is not its way."""
        cdef int kind
        cdef Topic topic
        if type(config) is not BroadcastConfig or config.internal:
            return None
        outlet = self.outlets.get(config.filter_endpoint)
        if outlet is None:
            return None
        topic = self.topic(type(event))
        if topic.tapped:
            return None
        request_id = config.filter_event_id
        if request_id is None:
            if topic.limited or outlet not in topic.outlets:
                return None
            kind, request_id = _EVENT, b""
        elif type(request_id) is bytes and len(<bytes>request_id) == _ID_SIZE:
            kind = _RESPONSE
        else:
            return None
        outlets = (outlet,)
        self._send_event(topic, event, kind, request_id, outlets, None)
        topic.broadcasts += 1
        topic.sent += 1
        self.debt += 1
        return outlets

    def ask(self, event, config, bint required, wake):
        """Send a request to everybody who wants it, or to whom ``targets`` says."""
        cdef Topic topic = self.topic(type(event))
        cdef tuple outlets = topic.outlets
        cdef tuple consumers = topic.consumers
        cdef PendingRequest request
        if topic.tapped:
            return self.route_request(event, config, required, wake)
        if config is not None or not (outlets or consumers):
            outlet = None
            if type(config) is BroadcastConfig and not config.internal:
                outlet = self.outlets.get(config.filter_endpoint)
            if outlet is not None and outlet in outlets:
                outlets, consumers = (outlet,), ()
            else:
                outlets, consumers = self.targets(topic, config, required)
        request = self.new_request(topic, event, outlets, bool(consumers), wake)
        if outlets:
            self._send_event(topic, event, _REQUEST, request.id, outlets, request)
            topic.sent += len(outlets)
        else:
            if _is_bound(topic, event):
                raise already_bound(event)
            _bind(topic, event, self.origin, request.id)
            self.requests[request.id] = request
        topic.broadcasts += 1
        topic.delivered += len(consumers)
        self.debt += 1
        for consumer in consumers:
            if type(consumer) is Mailbox:
                (<Mailbox>consumer).deliver(event, True)
            else:
                consumer.deliver(event, True)
        return request

    cpdef PendingRequest new_request(
        self, Topic topic, event, tuple outlets, bint locally, wake
    ):
        """Return a request that is about to be sent to some outlets, and taken here or not."""
        cdef Topic awaited
        expected = event.expected_response_type()
        if not isinstance(expected, type):
            raise TypeError(f"{topic.name} expects a response of {expected!r}, which is no class")
        awaited = self.topics.get(expected)
        if awaited is None and issubclass(expected, BaseEvent):
            awaited = self.topic(expected)
        return PendingRequest(self._new_id(), expected, awaited, outlets, locally, wake)

    cdef bytes _new_id(self):
        """Return an id that nobody can guess."""
        if self._ids_used == len(self._ids):
            self._ids = os.urandom(_IDS_AT_A_TIME * _ID_SIZE)
            self._ids_used = 0
        self._ids_used += _ID_SIZE
        return PyBytes_FromStringAndSize(
            PyBytes_AS_STRING(self._ids) + self._ids_used - _ID_SIZE, _ID_SIZE
        )

    def publish(self, event):
        """Broadcast an event to everybody who wants it."""
        return self._publish(event)

    cdef Py_ssize_t _publish(self, object event) except? -1:
        cdef Topic topic = self.topics.get(type(event))
        cdef tuple outlets, consumers
        if topic is None:
            topic = self.topic(type(event))
        if topic.limited:
            return -1
        outlets, consumers = topic.outlets, topic.consumers
        if not outlets:
            if _is_bound(topic, event):
                raise already_bound(event)
            if not consumers:
                return 0
            _bind(topic, event, self.origin, None)
        else:
            self._send_event(topic, event, _EVENT, b"", outlets, None)
            topic.sent += len(outlets)
        topic.broadcasts += 1
        topic.delivered += len(consumers)
        self.debt += 1
        for consumer in consumers:
            if type(consumer) is Mailbox:
                (<Mailbox>consumer).deliver(event, True)
            else:
                consumer.deliver(event, True)
        return len(outlets) + len(consumers)

    def prepare(
        self,
        Topic topic not None,
        event,
        int kind,
        bytes request_id not None,
        tuple outlets not None,
    ):
        """Encode and bind an event that is about to be sent to some outlets only."""
        shape, frame = self.encode(topic, event, kind, request_id, outlets)
        self.admit(outlets, shape, frame)
        _bind(topic, event, self.origin, request_id or None)
        return shape, frame

    cdef int _send_event(
        self, Topic topic, object event, int kind, bytes request_id, tuple outlets,
        PendingRequest request,
    ) except -1:
        """Prepare an event, and send it; a short one is never made an object."""
        cdef Writer out
        cdef Shape shape
        cdef Py_ssize_t size
        start_writing(&out, 0, 0, False)
        try:
            shape = self._encode(&out, topic, event, kind, request_id, outlets)
            size = out.at - out.begin
            if out.pieces != NULL or size >= _LONG or (
                size > _COMPRESS_MINIMUM and self.compressor is not None
            ):
                frame = _finished(&out)
                self._commit(topic, event, request_id, outlets, shape, _frame_size(frame), request)
                self.send(outlets, shape, frame)
                return 0
            self._commit(topic, event, request_id, outlets, shape, size, request)
            for outlet in outlets:
                if type(outlet) is Outlet:
                    (<Outlet>outlet)._send_data(shape, out.begin, size)
                    if (<Outlet>outlet).size > (<Outlet>outlet).high_water:
                        self.congested = True
                else:
                    outlet.send(shape, PyBytes_FromStringAndSize(<char *>out.begin, size))
                    if outlet.size > outlet.high_water:
                        self.congested = True
            self.debt += size >> 10
            return 0
        finally:
            stop_writing(&out)

    cdef int _commit(
        self, Topic topic, object event, bytes request_id, tuple outlets, Shape shape,
        Py_ssize_t size, PendingRequest request,
    ) except -1:
        """Do, between encoding an event and sending it, what must not be done if it fails."""
        self._admit_size(outlets, shape, size)
        _bind(topic, event, self.origin, request_id or None)
        if request is not None:
            self.requests[request_id] = request
        return 0

    cpdef admit(self, outlets, Shape shape, frame):
        """Make sure that every peer accepts a frame of this size."""
        self._admit_size(outlets, shape, _frame_size(frame))

    cdef int _admit_size(self, object outlets, Shape shape, Py_ssize_t size) except -1:
        size = max(size, len(shape.announcement)) - _LENGTH_SIZE
        if _exceeds(size, self.limit):
            for outlet in outlets:
                if size > outlet.limit:
                    raise EncodeError(
                        shape.name,
                        f"it takes {size} bytes, and {outlet.name!r} accepts {outlet.limit} "
                        "(its max_frame_size)",
                    )
        return 0

    cpdef send(self, outlets, Shape shape, frame):
        """Queue an encoded event for every one of the outlets, compressed where that helps."""
        cdef Outlet exact
        cdef Py_ssize_t size = _frame_size(frame)
        compressed = None
        if self.compressor is not None and size > _COMPRESS_MINIMUM:
            compressed = self.compressor(shape, frame)
        for outlet in outlets:
            if type(outlet) is Outlet:
                exact = outlet
                exact.send(shape, compressed if compressed and exact.compress else frame)
                if exact.size > exact.high_water:
                    self.congested = True
            else:
                outlet.send(shape, compressed if compressed and outlet.compress else frame)
                if outlet.size > outlet.high_water:
                    self.congested = True
        self.debt += size >> 10

    def bind(self, event, request_id):
        """Bind an event that was not broadcast yet."""
        _set_attribute(event, "_origin", self.origin)
        if request_id is not None:
            _set_attribute(event, "_id", request_id)

    def encode(
        self,
        Topic topic not None,
        event,
        int kind,
        bytes request_id not None,
        tuple outlets=None,
    ):
        """Return the frame of an event, and the shape under which it is sent."""
        cdef Writer out
        start_writing(&out, 0, 0, False)
        try:
            shape = self._encode(&out, topic, event, kind, request_id, outlets)
            return shape, _finished(&out)
        finally:
            stop_writing(&out)

    cdef Shape _encode(
        self, Writer *out, Topic topic, object event, int kind, bytes request_id, tuple outlets
    ):
        """Write the frame of an event, and return the shape under which it is sent."""
        cdef bint may_pickle = self.allow_pickle
        cdef Shape shape = topic._recent
        cdef tuple values = None
        cdef tuple names
        if outlets is None or outlets is topic.outlets:
            outlets = topic.outlets
            may_pickle = may_pickle and not topic.strict
        elif may_pickle:
            for outlet in outlets:
                if not outlet.accepts_pickle:
                    may_pickle = False
        state = _own_attributes(topic, event)
        if topic.slots:
            if "_origin" in state:
                raise already_bound(event)
            state = _with_slots(event, state, topic.slots)
        if shape is not None and type(state) is dict:
            values = _match(state, topic._names)
        if values is None:
            if "_origin" in state:
                raise already_bound(event)
            names = tuple(state)
            shape = topic.shapes.get(names)
            if shape is None:
                shape = self._new_shape(topic, names)
            elif type(state) is dict:
                topic._recent, topic._names = shape, names
            if shape.layout == _LAYOUT_FIELDS:
                values = tuple([state[name] for name in shape.fields])
            elif shape.layout == _LAYOUT_MAPPING:
                values = ({name: state[name] for name in names if name not in BINDING},)
        if may_pickle:
            start_writing(out, _MAX_PLAIN_CONTAINERS, 10, False)
        else:
            start_writing(out, max(0, min(self.limit, _MAX_LENGTH)), 0, True)
        out.apart = _APART
        out.at += HEADER_SIZE
        write(out, PyBytes_AS_STRING(request_id), len(request_id))
        if shape.layout == _LAYOUT_WHOLE:
            if not may_pickle:
                reason = "its class defines its own pickling"
                raise EncodeError(topic.name, _refusal(reason, self, outlets))
            payload = self._pickle(topic, event, ())
        elif self._write_values(out, topic, shape, values, outlets):
            payload = self._pickle(topic, values, shape.fields)
            if topic.cls.__qualname__.encode("utf-8", "surrogatepass") in payload:
                # The event may be part of its own state, which only pickling it whole keeps.
                try:
                    payload = self._pickle(topic, event, ())
                    shape = self._shape(topic, _LAYOUT_WHOLE, ())
                except EncodeError:
                    pass
        else:
            self._close(out, topic, shape, kind)
            return shape
        write_again(out, HEADER_SIZE + len(request_id))
        write(out, b"\x01", 1)
        if len(payload) < out.apart:
            write(out, PyBytes_AS_STRING(payload), len(payload))
        else:
            _get_used_to_large()
            keep(out, payload)
        self._close(out, topic, shape, kind)
        return shape

    cdef int _write_values(
        self, Writer *out, Topic topic, Shape shape, tuple values, tuple outlets
    ) except -1:
        """Write a plain payload; return 1 where it has to be pickled."""
        cdef Py_ssize_t index = 0
        write(out, b"\x00", 1)
        try:
            for index in range(PyTuple_GET_SIZE(values)):
                if _write(<object>PyTuple_GET_ITEM(values, index), out, 0):
                    return 1
        except _NotPlainError as error:
            field = shape.fields[index] if shape.fields else None
            raise EncodeError(topic.name, _refusal(str(error), self, outlets), field) from None
        return 0

    cdef int _close(self, Writer *out, Topic topic, Shape shape, int kind) except -1:
        """Write the header before what was written."""
        cdef Py_ssize_t size = out.at - out.begin - _LENGTH_SIZE + out.kept
        if <uint64_t>size > _MAX_LENGTH:
            raise EncodeError(topic.name, f"it takes {size} bytes, more than a frame can have")
        put32(out.begin, <uint32_t>size)
        out.begin[4] = <uchar>kind
        put32(out.begin + 5, shape.type_id)
        return 0

    cdef Shape _shape(self, Topic topic, int layout, tuple fields):
        key = fields if layout == _LAYOUT_FIELDS else layout
        cdef Shape shape = topic.shapes.get(key)
        if shape is None:
            shape = topic.shapes[key] = Shape(self._next_id, topic.name, layout, fields)
            self._next_id += 1
        return shape

    cdef Shape _new_shape(self, Topic topic, tuple names):
        """Return the shape of instances with these attributes, those of binding included."""
        if topic.self_pickling or not all([type(name) is str for name in names]):
            return self._shape(topic, _LAYOUT_WHOLE, ())
        fields = tuple([name for name in names if name not in BINDING])
        too_many = len(topic.shapes) >= _MAX_SHAPES and fields not in topic.shapes
        if too_many or sum(map(len, fields)) > _MAX_FIELDS_SIZE:
            return self._shape(topic, _LAYOUT_MAPPING, ())
        return self._shape(topic, _LAYOUT_FIELDS, fields)

    cdef bytes _pickle(self, Topic topic, object value, tuple fields):
        """Return the pickle of a value; errors name the field that is in the way."""
        try:
            return _pickled(value)
        except Exception as error:
            for name, part in zip(fields, value if fields else ()):
                try:
                    _pickled(part)
                except Exception as cause:
                    raise EncodeError(topic.name, _said(cause), name) from cause
            raise EncodeError(topic.name, _said(error)) from error


cdef object _dumps = None


cdef bytes _pickled(object value):
    """Return a value, pickled; pickle is imported here, because it takes a millisecond."""
    global _dumps
    if _dumps is None:
        from pickle import dumps

        _dumps = dumps
    return _dumps(value, -1)


_NOWHERE = object()


class _Nobody:
    """Be no endpoint."""

    require_subscriber = True


cdef Py_ssize_t _forks = 0  # that this process came from; an event loop runs in one process only


def _count_fork():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def _nowhere():
    return None


def _not_routed(event, config):
    raise RuntimeError("no endpoint uses this table")


def _not_routed_request(event, config, required, wake):
    raise RuntimeError("no endpoint uses this table")


def _no_gates(outlets):
    return ()


def _no_targets(topic, config, required):
    return (), ()


cdef object _own_attributes(Topic topic, object event):
    """Return the dictionary of an event, as the attribute ``__dict__`` gives it."""
    if topic._has_own_dict and type(event) is topic.cls:
        return PyObject_GenericGetDict(event, NULL)
    state = event.__dict__
    if not topic._seen and type(event) is topic.cls:
        topic._seen = True
        topic._has_own_dict = _has_own_dict(event)
    return state


cdef bint _is_bound(Topic topic, object event) except -1:
    """Return whether an event has an origin, if possible without having its dictionary made."""
    if topic._has_own_dict and type(event) is topic.cls:
        if getattr(event, "_origin", _NOWHERE) is _NOWHERE:
            return False
    return "_origin" in _own_attributes(topic, event)


cdef bint _has_own_dict(object event):
    """Return whether attributes are what is in the dictionary that the instance really has."""
    try:
        if type(event).__getattribute__ is not _get_attribute or hasattr(event, "__getattr__"):
            return False
        state = event.__dict__
        return type(state) is dict and PyObject_GenericGetDict(event, NULL) is state
    except Exception:
        return False


cdef int _bind(Topic topic, object event, object origin, object request_id) except -1:
    """Set the origin of an event, and its id, if it has one."""
    if topic._is_settable:
        PyObject_GenericSetAttr(event, "_origin", origin)
        if request_id is not None:
            PyObject_GenericSetAttr(event, "_id", request_id)
    else:
        _set_attribute(event, "_origin", origin)
        if request_id is not None:
            _set_attribute(event, "_id", request_id)
        topic._is_settable = type(event) is topic.cls
    return 0


cdef tuple _match(dict state, tuple names):
    """Return the values of a dictionary whose keys are these very names, in this order, or None."""
    cdef Py_ssize_t count = PyTuple_GET_SIZE(names)
    cdef Py_ssize_t index = 0
    cdef Py_ssize_t position = 0
    cdef PyObject *key
    cdef PyObject *item
    if len(state) != count:
        return None
    values = PyTuple_New(count)
    while PyDict_Next(state, &position, &key, &item):
        if index == count or key != <PyObject *>PyTuple_GET_ITEM(names, index):
            return None
        Py_INCREF(<object>item)
        PyTuple_SET_ITEM(values, index, <object>item)
        index += 1
    return values if index == count else None


cdef dict _with_slots(object event, object own, tuple slots):
    """Return all attributes of an instance, those that it keeps in slots behind the others."""
    cdef dict state = dict(own)
    for name in slots:
        try:
            state[name] = PyObject_GenericGetAttr(event, name)
        except AttributeError:
            pass  # a slot may be empty
    return state


cdef str _said(error):
    return f"{type(error).__name__}: {error}"


cdef str _refusal(str reason, EventTable table, tuple outlets):
    if not table.allow_pickle:
        return f"{reason}, and this endpoint has allow_pickle=False"
    names = ", ".join([repr(outlet.name) for outlet in outlets if not outlet.accepts_pickle])
    return f"{reason}, and {names} accepts no pickled values"


# -- Receiving -------------------------------------------------------------------------------


cdef class Mailbox:
    """Mailbox(remaining=-1, on_last=None)\n--\n
    Keep events until they are read.
    """

    cdef object _events
    cdef object _append  # the method of ``_events``
    cdef object _popleft  # the other one
    cdef public Py_ssize_t remaining
    cdef public object on_last
    cdef public object waker
    cdef public Py_ssize_t peak

    def __init__(self, Py_ssize_t remaining=-1, on_last=None):
        self.events = deque()
        self.remaining = remaining
        self.on_last = on_last
        self.waker = None
        self.peak = 0

    @property
    def events(self):
        return self._events

    @events.setter
    def events(self, events):
        self._append, self._popleft = events.append, events.popleft
        self._events = events

    cpdef deliver(self, event, bint local):
        """Keep an event, and wake whoever waits for one."""
        cdef Py_ssize_t waiting
        if self.remaining >= 0:
            if not self.remaining:
                return
            self.remaining -= 1
        self._append(event)
        waiting = len(self._events)
        if waiting > self.peak:
            self.peak = waiting
        waker = self.waker
        if waker is not None:
            self.waker = None
            waker()
        if not self.remaining and self.on_last is not None:
            self.on_last()


cdef class EventIterator:
    """EventIterator(mailbox, left)\n--\n
    Hand over the events of a mailbox, as an asynchronous iterator.
    """

    cdef public Mailbox mailbox
    cdef public Py_ssize_t left
    cdef public object on_read
    cdef public bint quick
    cdef public Py_ssize_t turns

    def __init__(self, Mailbox mailbox not None, Py_ssize_t left):
        self.mailbox = mailbox
        self.left = left
        self.on_read = None
        self.quick = True
        self.turns = 0

    def __aiter__(self):
        return self

    def __anext__(self):
        """Return the next event."""
        cdef _Step step = _Step.__new__(_Step)
        step.iterator = self
        return step

    async def go_on(self):
        """Return the next event where that takes more; raise StopAsyncIteration at the end."""
        raise NotImplementedError

    def close(self):
        """Take note that the last event was taken."""
        raise NotImplementedError

    def take(self):
        """Return the event that has waited longest, and count it."""
        return self._take()

    cdef object _take(self):
        event = self.mailbox._popleft()
        if self.on_read is not None:
            self.on_read(event)
        if self.left > 0:
            self.left -= 1
            if not self.left:
                self.close()
        return event


# A step is to an EventIterator what a coroutine is in plain Python, without a frame. It has slots
# of C where Cython would make an exception, with a traceback, of every event.
@cython.freelist(8)
cdef class _Step:
    """Be the way to the next event of an iterator; awaited once."""

    cdef EventIterator iterator  # None once it was awaited
    cdef object slowly  # the coroutine that goes on instead, where it must wait

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Go on; replaced by ``lahja_step_next``."""
        return self.send(None)

    def send(self, value):
        """Go on, and raise StopIteration with the event."""
        cdef PyObject *result
        cdef int outcome = _send(self, value, &result)
        given = <object>result
        Py_DECREF(given)
        if outcome == PYGEN_RETURN:
            raise StopIteration(given)
        return given

    def throw(self, *error):
        """Raise an exception where it waits."""
        if self.slowly is None:
            self.iterator = None
            return _throw(*error)
        return self.slowly.throw(*error)

    def close(self):
        """Give up."""
        self.iterator = None
        if self.slowly is not None:
            self.slowly.close()


Coroutine.register(_Step)


def _throw(error, value=None, traceback=None):
    if not isinstance(error, BaseException):
        error = value if isinstance(value, BaseException) else error()
    raise error


cdef PySendResult _send(object self, object value, PyObject **result) except PYGEN_ERROR:
    """Do what ``send`` does, without an exception for an event that is there."""
    cdef _Step step = <_Step>self
    cdef EventIterator iterator = step.iterator
    if iterator is not None:
        step.iterator = None
        if iterator.quick and iterator.turns and iterator.left and iterator.mailbox._events:
            iterator.turns -= 1
            event = iterator._take()
            Py_INCREF(event)
            result[0] = <PyObject *>event
            return PYGEN_RETURN
        step.slowly = iterator.go_on()
    elif step.slowly is None:
        raise RuntimeError("cannot reuse already awaited __anext__()")
    return PyIter_Send(step.slowly, value, result)


lahja_install_step(_Step, _send)


cdef class Inlet:
    """Inlet(type_id, name, layout, fields)\n--\n
    Be a shape that the peer announced, and what it is made into here.
    """

    cdef readonly object type_id
    cdef readonly object name
    cdef readonly int layout
    cdef readonly tuple fields
    cdef public Topic topic
    cdef object _cls  # the class for which the rest was found out
    cdef bint _is_known  # Python made an instance of it: C may do so, too
    cdef tuple _names  # the fields, interned as attribute names are
    cdef bytes _ways  # per field: whether it is set as an attribute, or put into the dictionary
    cdef bint _one_way  # whether all are set as attributes

    def __init__(self, type_id, name, int layout, tuple fields not None):
        self.type_id = type_id
        self.name = name
        self.layout = layout
        self.fields = fields
        self.topic = None
        self._cls = None
        self._is_known = False

    def build(self, cls, data, offset, origin, request_id, loads):
        """Return the event whose payload begins at ``offset``, bound."""
        cdef Py_buffer view
        cdef Py_ssize_t at
        try:
            at = _offset(offset)
            _get_bytes(data, &view)
        except Exception as error:
            raise DecodeError(_said(error)) from error
        try:
            return self._build(
                (), cls, <const uchar *>view.buf, at, view.len, data, 0, origin, request_id, loads
            )
        finally:
            PyBuffer_Release(&view)

    cdef object _build(
        self,
        tuple early,
        object cls,
        const uchar *data,
        Py_ssize_t offset,
        Py_ssize_t size,
        object owner,
        Py_ssize_t start,
        object origin,
        object request_id,
        object loads,
    ):
        """
        Do what build() does; the data are those of ``owner``, from ``start`` on.

        The first values are not in the data, but were read before.
        """
        cdef Cursor cursor
        cdef int form
        try:
            if offset < 0 or offset >= size:
                raise DecodeError("a payload is missing")
            form = data[offset]
            cursor.at = data + offset + 1
            cursor.end = data + size
            if form == _PLAIN and self.layout != _LAYOUT_WHOLE:
                values = self._read_values(&cursor, early)
            elif form == _PICKLED:
                if loads is None:
                    raise DecodeError("it is pickled, and this endpoint has allow_pickle=False")
                if size <= COPIED:
                    pickled = PyBytes_FromStringAndSize(<char *>cursor.at, cursor.end - cursor.at)
                else:
                    pickled = memoryview(owner)[start + offset + 1:start + size]
                values = loads(pickled)
                if self.layout == _LAYOUT_WHOLE:
                    if type(values) is not cls:
                        raise DecodeError(f"the pickle holds a {type(values).__qualname__}")
                    return _received(values, origin, request_id)
                if type(values) is not tuple or len(<tuple>values) != (
                    len(self.fields) if self.layout == _LAYOUT_FIELDS else 1
                ):
                    raise DecodeError("the pickle does not hold the announced fields")
            else:
                raise DecodeError(f"{form} is not a form of payload that its layout allows")
            if self._is_known and self._cls is cls:
                return self._assemble(cls, values, origin, request_id)
            return _received(self._assemble_first(cls, values), origin, request_id)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(_said(error)) from error

    cdef tuple _read_values(self, Cursor *cursor, tuple early):
        """Return the values that a plain payload holds, behind those that were read before."""
        cdef Py_ssize_t count = 1
        if self.layout == _LAYOUT_FIELDS:
            count = len(self.fields) - len(early)
            if count > cursor.end - cursor.at:
                while True:  # every value takes a byte at least: this ends with an error
                    _read(cursor, 0)
        values = _read_tuple(cursor, count, 0)
        if cursor.at != cursor.end:
            raise DecodeError(f"{cursor.end - cursor.at} bytes too many follow the fields")
        return early + values if early else values

    cdef object _assemble(self, object cls, tuple values, object origin, object request_id):
        """Return a bound event of the class that is known."""
        cdef tuple names = self._names
        cdef bytes ways = self._ways
        cdef bint one_way = self._one_way
        cdef Py_ssize_t index
        event = lahja_new(cls, _nothing_given)
        for index in range(PyTuple_GET_SIZE(names)):
            if one_way or PyBytes_AS_STRING(ways)[index]:
                PyObject_GenericSetAttr(
                    event,
                    <object>PyTuple_GET_ITEM(names, index),
                    <object>PyTuple_GET_ITEM(values, index),
                )
            else:
                PyDict_SetItem(
                    PyObject_GenericGetDict(event, NULL),
                    <object>PyTuple_GET_ITEM(names, index),
                    <object>PyTuple_GET_ITEM(values, index),
                )
        PyObject_GenericSetAttr(event, "_origin", origin)
        if request_id is not None:
            PyObject_GenericSetAttr(event, "_id", request_id)
        return event

    cdef object _assemble_first(self, object cls, tuple values):
        """Return an event of a class that is not known, and find out how to make the next one."""
        fields = self.fields
        if self.layout == _LAYOUT_MAPPING:
            mapping = values[0]
            if type(mapping) is not dict or not all(
                [type(name) is str and name not in BINDING for name in mapping]
            ):
                raise DecodeError("the fields are not a dict of names")
            fields, values = tuple(mapping), tuple(mapping.values())
        event = _new_object(cls)
        flags = set_by_descriptor(cls, fields)
        if self.layout == _LAYOUT_FIELDS:
            # Interned, as the names in code are: they are found by identity from then on.
            fields = tuple([_intern(name) if type(name) is str else name for name in fields])
            self._is_known = False
            self._cls = cls
            self._names = fields
            self._ways = bytes([
                bool(by_descriptor) or (type(name) is str and not _is_data_descriptor(cls, name))
                for name, by_descriptor in zip(fields, flags)
            ])
            self._one_way = 0 not in self._ways
        for name, value, by_descriptor in zip(fields, values, flags, strict=True):
            if by_descriptor:
                _set_attribute(event, name, value)
            else:
                event.__dict__[name] = value
        if self.layout == _LAYOUT_FIELDS:
            self._is_known = _has_own_dict(event)
        return event


cdef object _received(object event, object origin, object request_id):
    """Bind an event that another endpoint sent."""
    _set_attribute(event, "_origin", origin)
    if request_id is not None:
        _set_attribute(event, "_id", request_id)
    return event


cdef bint _is_data_descriptor(object cls, str name) except -1:
    """Return whether setting the attribute is left to something in the class."""
    for base in cls.__mro__:
        if name in base.__dict__:
            kind = type(base.__dict__[name])
            return hasattr(kind, "__set__") or hasattr(kind, "__delete__")
    return False


cdef inline uchar *_data(object view) except NULL:
    """Return where the bytes of a reader's buffer are, as long as somebody holds the view."""
    if type(view) is not memoryview:
        raise ValueError("the reader was not initialised")
    return <uchar *>PyMemoryView_GET_BUFFER(view).buf


cdef int _hand_over(Topic topic, object event) except -1:
    """Give a received event to the consumers of its topic."""
    topic.delivered += len(topic.consumers)
    for consumer in topic.consumers:
        if type(consumer) is Mailbox:
            (<Mailbox>consumer).deliver(event, False)
        else:
            consumer.deliver(event, False)
    return 0


# The bytes object is nobody else's as long as it is written to: no view of it may be left when it
# is given away, and each keeps this object.
cdef class _Landing:
    """Be where a long value is received: a bytes object that may be written to."""

    cdef PyObject *data  # owned; the only reference
    cdef Py_ssize_t capacity
    cdef Py_ssize_t views  # how many there are

    def __cinit__(self, Py_ssize_t capacity):
        cdef object data = PyBytes_FromStringAndSize(NULL, capacity)
        Py_INCREF(data)
        self.data = <PyObject *>data
        self.capacity = capacity
        self.views = 0

    def __dealloc__(self):
        Py_XDECREF(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, PyBytes_AS_STRING(<object>self.data), self.capacity, 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1


cdef bytes _give_away(_Landing landing):
    """Return the value that has landed."""
    cdef PyObject *data = landing.data
    if landing.views:
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object>data), landing.capacity)
    value = <bytes>data
    landing.data = NULL
    landing.capacity = 0
    Py_DECREF(value)
    return value


cdef class Reader:
    """Reader(limit, on_error)\n--\n
    Take frames out of the bytes that a peer sends.
    """

    cdef public object limit
    cdef public object on_error
    cdef public object origin
    cdef public dict inlets
    cdef public object find_topic
    cdef public object loads
    cdef public Outlet outlet
    cdef public dict requests
    cdef public object on_response
    cdef public object clock
    cdef public bint has_more
    cdef object _view  # a memoryview of the whole buffer, which nobody else gets, and so pins it
    cdef Py_ssize_t _start
    cdef Py_ssize_t _end
    cdef object _failure
    cdef bint _is_long
    cdef bint _looked_into
    cdef tuple _early
    cdef Py_ssize_t _apart
    cdef _Landing _landing
    cdef Py_ssize_t _landing_size
    cdef Py_ssize_t _landed
    cdef bint _was_early
    cdef Py_ssize_t _untimed
    cdef Py_ssize_t _look_at
    cdef double _turn_ends
    cdef public Py_ssize_t received
    cdef public Py_ssize_t events

    def __init__(self, limit, on_error):
        self.limit = limit
        self.on_error = on_error
        self.origin = ""
        self.inlets = None
        self.find_topic = _nothing
        from pickle import loads  # see _pickled()

        self.loads = loads
        self.outlet = None
        self.requests = {}
        self.on_response = _ignore_response
        self.clock = no_time
        self.has_more = False
        self._view = memoryview(bytearray(_BUFFER_MINIMUM))
        self._start = 0
        self._end = 0
        self._failure = None
        self._is_long = False
        self._looked_into = False
        self._early = ()
        self._apart = 0
        self._landing = None
        self._landing_size = 0
        self._landed = 0
        self._was_early = False
        self._untimed = 1
        self._look_at = 1
        self._turn_ends = -1.0
        self.received = 0
        self.events = 0

    @property
    def pending(self):
        """How many bytes wait for the rest of their frame."""
        return self._end - self._start + self._apart + self._landed

    def get_buffer(self, sizehint=-1):
        """Return where the next bytes belong; never empty."""
        cdef Py_ssize_t capacity = len(self._view)
        cdef Py_ssize_t pending = self._end - self._start
        cdef Py_ssize_t size
        cdef uint64_t needed
        view = self._view
        if self._landing is not None:
            return self._land(self._landing)
        if not pending:
            size = max(_BUFFER_MINIMUM, min(capacity, _BUFFER_MAXIMUM))
            if self._end == capacity and capacity < _BUFFER_MAXIMUM:
                size = min(2 * capacity, _BUFFER_MAXIMUM)  # more had come than it could hold
            if size != capacity:
                self._view = memoryview(bytearray(size))
            self._start = self._end = 0
            if self._was_early:  # another one may follow: less of it is copied then
                return self._view[:_BUFFER_MINIMUM]
        elif capacity - self._end < _BUFFER_MINIMUM:
            needed = <uint64_t>pending + <uint64_t>_BUFFER_MINIMUM
            if pending >= _LENGTH_SIZE:
                needed = <uint64_t>get32(_data(view) + self._start) + <uint64_t>_LENGTH_SIZE
                needed = max(needed - <uint64_t>self._apart, <uint64_t>pending + 1)
            if needed > <uint64_t>(capacity - self._start) or self._end == capacity:
                # Room for a frame grows as its bytes arrive, not because its header says so.
                needed = max(<uint64_t>_BUFFER_MINIMUM, min(needed, 4 * <uint64_t>pending))
                if needed > <uint64_t>capacity:
                    self._view = memoryview(bytearray(needed))
                memmove(_data(self._view), _data(view) + self._start, pending)
                self._start = 0
                self._end = pending
        return self._view[self._end:]

    cdef object _land(self, _Landing landing):
        """Return where the next bytes of an early value belong."""
        if self._landed == landing.capacity:
            # Its room, too, grows as its bytes arrive.
            self._landing = _Landing(min(self._landing_size, 4 * self._landed))
            memcpy(_bytes_of(self._landing), _bytes_of(landing), self._landed)
            landing = self._landing
        return memoryview(landing)[self._landed:]

    def buffer_updated(self, nbytes):
        """Take note that so many bytes were put into the buffer, and that a turn begins."""
        cdef Py_ssize_t count = _offset(nbytes)
        cdef _Landing landing = self._landing
        cdef Py_ssize_t room
        if landing is None:
            room = len(self._view) - self._end
        else:
            room = landing.capacity - self._landed
        if not 0 <= count <= room:
            raise ValueError(f"the buffer has no room for {nbytes} bytes")
        self.has_more = False
        self._untimed = 1
        self._look_at = self.events + 1
        self._turn_ends = -1.0
        self.received += count
        if landing is None:
            self._end += count
            return
        self._landed += count
        if self._landed == self._landing_size:
            self._early += (_give_away(landing),)
            self._apart += self._landed
            self._landing = None
            self._landed = 0
            self._looked_into = False

    def next_frame(self):
        """
        Return the body of the next frame that is not an event, or None if more bytes are needed.
        """
        cdef const uchar *data
        cdef Py_ssize_t pending, start, length
        cdef uint64_t size
        cdef int kind
        cdef tuple early
        if self._failure is not None:
            raise self._failure
        try:
            while True:
                pending = self._end - self._start
                if pending < _LENGTH_SIZE:
                    return None
                view = self._view
                data = _data(view)
                size = get32(data + self._start)
                if _exceeds(size, self.limit):
                    raise FrameTooLarge(size, self.limit)
                if not size:
                    raise ProtocolError("a frame is empty")
                if <uint64_t>(pending - _LENGTH_SIZE + self._apart) < size:
                    if size >= <uint64_t>_APART and pending >= _LOOKED_INTO:
                        if not self._looked_into:
                            self._look_into(size)
                    return None
                start = self._start + _LENGTH_SIZE
                length = size - self._apart
                self._start = start + length
                kind = data[start]
                if self._is_long:
                    early = self._take_early()
                    if not _EVENT <= kind <= _RESPONSE or self.inlets is None:
                        return _restored(early, view[start:start + length])
                    self._dispatch(early, data + start, length, view, start)
                elif not _EVENT <= kind <= _RESPONSE or self.inlets is None:
                    return view[start:start + length]
                else:
                    self._dispatch(_nothing_given, data + start, length, view, start)
                if self.events == self._look_at and self._end > self._start and self._is_time_up():
                    return None
        except ProtocolError as error:
            self._failure = error
            raise

    cdef bint _is_time_up(self) except -1:
        """Look at the clock; return whether what follows is left for the next turn."""
        cdef double now = self.clock()
        if self._turn_ends < 0:
            self._turn_ends = now + _TURN
        elif now >= self._turn_ends:
            self.has_more = True
        else:
            self._untimed = min(2 * self._untimed, _MOST_UNTIMED)
        self._look_at = self.events + self._untimed
        return self.has_more

    cdef tuple _take_early(self):
        """Return the early values of a frame that has ended."""
        early, self._early = self._early, _nothing_given
        self._was_early = self._is_long = bool(early)
        self._looked_into = False
        self._apart = 0
        return early

    cdef int _look_into(self, uint64_t left) except -1:
        """Let a value land, where a long one comes next in a frame of which so much is left."""
        cdef object view = self._view
        cdef const uchar *body = _data(view) + self._start + _LENGTH_SIZE
        cdef const uchar *first = body + _payload_offset(body[0])
        cdef uint64_t size = 0
        cdef Cursor cursor
        cdef Inlet inlet
        self._looked_into = self._is_long = True
        if not _EVENT <= body[0] <= _RESPONSE or self.inlets is None:
            return 0
        inlet = self.inlets.get(get32(body + 1))
        if inlet is None or inlet.layout != _LAYOUT_FIELDS or first[0] != _PLAIN:
            return 0
        if body[0] == _RESPONSE:
            if PyBytes_FromStringAndSize(<char *>body + 5, _ID_SIZE) not in self.requests:
                return 0
        elif self._wanted_topic(inlet) is None:
            return 0
        first += 1
        early = list(self._early)
        cursor.at = first
        cursor.end = _data(view) + self._end
        while True:
            if len(early) == len(inlet.fields) or cursor.end - cursor.at < 5:
                return 0
            if cursor.at[0] == c"Y":
                size = get32(cursor.at + 1)
                if size >= <uint64_t>_APART and size > <uint64_t>(cursor.end - cursor.at - 5):
                    break
            try:
                early.append(_read(&cursor, 0))
            except DecodeError:  # most likely there is more to come
                return 0
        cursor.at += 5
        if size > left - self._apart - (cursor.at - body):
            return 0  # it will not decode
        _get_used_to_large()
        self._landed = cursor.end - cursor.at
        landing = _Landing(min(<Py_ssize_t>size, max(_AT_ONCE, 4 * self._landed)))
        memcpy(_bytes_of(landing), cursor.at, self._landed)
        self._landing = landing
        self._landing_size = size
        self._early = tuple(early)
        self._apart += cursor.at - first
        self._end = first - _data(view)
        return 0

    cdef Topic _wanted_topic(self, Inlet inlet):
        """Return the topic whose consumers get such events; None where there are none."""
        cdef Topic topic = inlet.topic
        if topic is None or not topic.consumers:
            topic = inlet.topic = self.find_topic(inlet.name)
            if topic is None or not topic.consumers:
                return None
        return topic

    def dispatch(self, body):
        """Hand an event or request to its consumers, or a response to its request."""
        cdef Py_buffer view
        cdef int kind
        _get_bytes(body, &view)
        try:
            if not view.len:
                raise ProtocolError("a frame is empty")
            kind = (<uchar *>view.buf)[0]
            if not _EVENT <= kind <= _RESPONSE or self.inlets is None:
                return False
            self._dispatch(_nothing_given, <uchar *>view.buf, view.len, body, 0)
            return True
        finally:
            PyBuffer_Release(&view)

    cdef int _dispatch(
        self, tuple early, const uchar *body, Py_ssize_t size, object owner, Py_ssize_t start
    ) except -1:
        """Hand on what is in a body; its bytes are those of ``owner``, from ``start`` on."""
        cdef Py_ssize_t offset = _payload_offset(body[0])
        cdef Topic topic
        cdef Inlet inlet
        if size < offset:
            raise ProtocolError(f"a frame of {size} bytes is too short for {_said_of(body[0])}")
        inlet = self.inlets.get(get32(body + 1))
        if inlet is None:
            raise ProtocolError(f"{_said_of(body[0])} is of a type that was not announced")
        request_id = None
        if body[0] != _EVENT:
            request_id = PyBytes_FromStringAndSize(<char *>body + 5, _ID_SIZE)
            if body[0] == _RESPONSE:
                return self._respond(early, inlet, request_id, body, offset, size, owner, start)
        topic = self._wanted_topic(inlet)
        if topic is None:
            return 0  # it was sent before the peer knew that nobody wants it any more
        event = self._build(early, inlet, topic, body, offset, size, owner, start, request_id)
        if topic.twins:
            others = []
            for twin in topic.twins:
                own = copy.deepcopy(early)
                made = self._build(own, inlet, twin, body, offset, size, owner, start, request_id)
                others.append((twin, made))
        else:
            others = _nothing_given
        if event is not None:
            self.events += 1
            topic.received += 1
            _hand_over(topic, event)
        for twin, event in others:
            if event is not None:
                _hand_over(twin, event)
        return 0

    cdef int _respond(
        self, tuple early, Inlet inlet, bytes request_id, const uchar *body, Py_ssize_t offset,
        Py_ssize_t size, object owner, Py_ssize_t start
    ) except -1:
        cdef PendingRequest request = self.requests.get(request_id)
        cdef Topic topic = None
        cdef bint was_asked = False
        if request is not None:
            topic = request.topic
            for outlet in request.asked:
                was_asked = was_asked or outlet is self.outlet
        if was_asked and topic is not None and topic.name == inlet.name:
            try:
                event = inlet._build(
                    early, topic.cls, body, offset, size, owner, start, self.origin, request_id,
                    self.loads,
                )
            except DecodeError:
                pass
            else:
                self.requests.pop(request_id, None)
                self.events += 1
                topic.received += 1
                topic.delivered += 1
                request.response = event
                request.wake()
                return _hand_over(topic, event)
        whole = _restored(early, memoryview(owner)[start:start + size])
        self.on_response(inlet, request_id, whole, offset)
        return 0

    cdef object _build(
        self, tuple early, Inlet inlet, Topic topic, const uchar *body, Py_ssize_t offset,
        Py_ssize_t size, object owner, Py_ssize_t start, object request_id
    ):
        """Return the event, as an instance of the topic's class; None where it does not decode."""
        try:
            return inlet._build(
                early, topic.cls, body, offset, size, owner, start, self.origin, request_id,
                self.loads,
            )
        except DecodeError as error:
            self.on_error(inlet, error)
            return None

    def end(self):
        """Take note that the peer sends no more."""
        cdef Py_ssize_t pending = self.pending
        if pending and self._failure is None:
            missing = None
            if pending >= _LENGTH_SIZE:
                missing = <int64_t>get32(_data(self._view) + self._start)
                missing -= pending - _LENGTH_SIZE
            raise TruncatedFrame(missing)


cdef inline Py_ssize_t _payload_offset(int kind) noexcept:
    return 5 if kind == _EVENT else 5 + _ID_SIZE


cdef inline char *_bytes_of(_Landing landing) noexcept:
    return PyBytes_AS_STRING(<object>landing.data)


cdef object _restored(tuple early, body):
    """Return the body with the values that were taken out of it."""
    if not early:
        return body
    first = _payload_offset(body[0]) + 1
    values = [encode_value(value) for value in early]
    return memoryview(b"".join([body[:first], *values, body[first:]]))


cdef str _said_of(int kind):
    return "a response" if kind == _RESPONSE else "an event"


def _nothing(str name):
    return None


def _ignore_response(inlet, request_id, body, offset):
    pass
