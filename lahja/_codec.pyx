# The codec of plain values: a part of _framing.pyx, and the twin of _codec_py.py.

cdef int _MAX_DEPTH = wire.MAX_DEPTH

cdef enum:
    PREALLOCATED = 256  # elements for which a container is made at once


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
