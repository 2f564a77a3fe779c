# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: nonecheck=True, auto_pickle=False
"""
The hot path, compiled: everything that runs once per event.

``_framing_py`` is the specification: the same names in the same order, with the documentation.
What is here does the same to the byte, to the error and its message, and in the same order.

This file has what its parts share, and includes them: ``_codec.pyx``, ``_sending.pyx`` and
``_receiving.pyx``, each the twin of the module in plain Python that has its name. They are compiled
as one module, so that a call from one to another costs no more than a call of C.

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

cdef Py_ssize_t _AT_ONCE = 1024 * 1024  # bytes of a value for which there is room from the start

# Typed once, in ``wire``; read here when the module is imported.
cdef int _EVENT = wire.EVENT
cdef int _RESPONSE = wire.RESPONSE
cdef int _LAYOUT_FIELDS = wire.LAYOUT_FIELDS
cdef int _LAYOUT_MAPPING = wire.LAYOUT_MAPPING
cdef int _LAYOUT_WHOLE = wire.LAYOUT_WHOLE
cdef uint64_t _MAX_LENGTH = wire.MAX_LENGTH
cdef Py_ssize_t _LENGTH_SIZE = wire.LENGTH_SIZE
cdef Py_ssize_t _ID_SIZE = wire.ID_SIZE
cdef Py_ssize_t _APART = APART


cdef object _set_attribute = object.__setattr__
cdef tuple _nothing_given = ()

include "_codec.pyx"
include "_sending.pyx"
include "_receiving.pyx"
