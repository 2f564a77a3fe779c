# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""Bytes in memory, for ``_framing``: where frames are written, and from where they are read."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    /* What is called _PyBytes_Resize is documented, and part of the stable ABI. */
    #define lahja_resize_bytes _PyBytes_Resize
    """
    int lahja_resize_bytes(PyObject **bytes, Py_ssize_t size) except -1
    const Py_ssize_t PY_SSIZE_T_MAX

ctypedef unsigned char uchar

cdef enum:
    SMALL = 1024  # bytes that are gathered on the C stack


cdef struct Writer:
    uchar *begin  # of what was written: in ``small``, or in the bytes object ``large``
    uchar *at  # where the next byte goes
    uchar *end  # behind the last byte for which there is room
    PyObject *large  # owned, the only reference; NULL as long as ``small`` is enough
    int64_t room  # what containers may still hold
    int shift  # by how many bits a size is shifted before it is counted
    bint explain  # whether somebody reads why a value is not plain
    Py_ssize_t apart  # the size from which on bytes are kept apart, and not copied
    Py_ssize_t kept  # how many bytes were
    PyObject *pieces  # owned: a list of these, each behind its place in the others; may be NULL
    uchar small[SMALL]


cdef struct Cursor:
    const uchar *at  # borrowed from whoever reads, who keeps it alive
    const uchar *end


cdef inline void start_writing(Writer *out, int64_t room, int shift, bint explain) noexcept:
    """Begin; whoever does so must call stop_writing() in the end, whatever happens."""
    out.begin = out.at = out.small
    out.end = out.small + SMALL
    out.large = NULL
    out.room = room
    out.shift = shift
    out.explain = explain
    out.apart = PY_SSIZE_T_MAX
    out.kept = 0
    out.pieces = NULL


cdef inline void stop_writing(Writer *out) noexcept:
    """Release what a writer owns."""
    Py_XDECREF(out.large)
    Py_XDECREF(out.pieces)
    out.large = out.pieces = NULL


cdef inline void write_again(Writer *out, Py_ssize_t used) noexcept:
    """Forget all but so many of the first bytes, and all that was kept apart."""
    out.at = out.begin + used
    out.kept = 0
    Py_XDECREF(out.pieces)
    out.pieces = NULL


cdef inline int grow(Writer *out, Py_ssize_t size) except -1:
    cdef Py_ssize_t used = out.at - out.begin
    cdef Py_ssize_t capacity
    if size > PY_SSIZE_T_MAX // 2 - used:
        raise MemoryError
    # In proportion to what is there: a long part behind a short one is not made any longer.
    capacity = (used + size) + used // 4 + SMALL
    if out.large == NULL:
        large = PyBytes_FromStringAndSize(NULL, capacity)
        memcpy(PyBytes_AS_STRING(large), out.begin, used)
        Py_INCREF(large)
        out.large = <PyObject *>large
    else:
        lahja_resize_bytes(&out.large, capacity)
    out.begin = <uchar *>PyBytes_AS_STRING(<object>out.large)
    out.at = out.begin + used
    out.end = out.begin + capacity
    return 0


cdef inline int reserve(Writer *out, Py_ssize_t size) except -1:
    """Make sure that so many bytes may be written."""
    if size > out.end - out.at:
        grow(out, size)
    return 0


cdef inline int write(Writer *out, const void *data, Py_ssize_t size) except -1:
    reserve(out, size)
    memcpy(out.at, data, size)
    out.at += size
    return 0


cdef inline int keep(Writer *out, bytes data) except -1:
    """Let bytes be the next ones without copying them."""
    cdef list pieces
    if out.pieces == NULL:
        pieces = []
        Py_INCREF(pieces)
        out.pieces = <PyObject *>pieces
    pieces = <list>out.pieces
    pieces.append((out.at - out.begin, data))
    out.kept += len(data)
    return 0


cdef inline tuple finish_pieces(Writer *out):
    """Return what was written, in pieces, where something was kept apart."""
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t end
    pieces = []
    for end, data in <list>out.pieces:
        pieces.append(PyBytes_FromStringAndSize(<char *>out.begin + start, end - start))
        pieces.append(data)
        start = end
    if start < out.at - out.begin:
        end = out.at - out.begin
        pieces.append(PyBytes_FromStringAndSize(<char *>out.begin + start, end - start))
    return tuple(pieces)


cdef inline bytes finish(Writer *out):
    """Return what was written; the writer keeps nothing."""
    cdef Py_ssize_t used = out.at - out.begin
    cdef PyObject *large = out.large
    if large == NULL:
        return PyBytes_FromStringAndSize(<char *>out.begin, used)
    out.large = NULL
    lahja_resize_bytes(&large, used)
    result = <bytes>large
    Py_XDECREF(large)
    return result


cdef inline void put32(uchar *at, uint32_t number) noexcept:
    at[0] = <uchar>number
    at[1] = <uchar>(number >> 8)
    at[2] = <uchar>(number >> 16)
    at[3] = <uchar>(number >> 24)


cdef inline void put64(uchar *at, uint64_t number) noexcept:
    put32(at, <uint32_t>number)
    put32(at + 4, <uint32_t>(number >> 32))


cdef inline uint32_t get32(const uchar *at) noexcept:
    return at[0] | (at[1] << 8) | (at[2] << 16) | (<uint32_t>at[3] << 24)


cdef inline uint64_t get64(const uchar *at) noexcept:
    return get32(at) | (<uint64_t>get32(at + 4) << 32)
