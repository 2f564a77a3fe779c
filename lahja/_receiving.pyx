# The receiving side: a part of _framing.pyx, and the twin of _receiving_py.py.
#
# From a buffer that a socket fills to whoever subscribed.

cdef Py_ssize_t _BUFFER_MINIMUM = 16 * 1024
cdef Py_ssize_t _BUFFER_MAXIMUM = 256 * 1024  # where no frame needs more
cdef Py_ssize_t _LOOKED_INTO = 1024  # bytes of a long frame that have to be there before it is
cdef int _PLAIN = wire.PLAIN
cdef int _PICKLED = wire.PICKLED

cdef enum:
    COPIED = 4096  # bytes of a pickle that are sooner copied than shown in a view

cdef object _new_object = object.__new__
cdef object _intern = sys.intern


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
        """Take note that so many bytes were put into the buffer."""
        cdef Py_ssize_t count = _offset(nbytes)
        cdef _Landing landing = self._landing
        cdef Py_ssize_t room
        if landing is None:
            room = len(self._view) - self._end
        else:
            room = landing.capacity - self._landed
        if not 0 <= count <= room:
            raise ValueError(f"the buffer has no room for {nbytes} bytes")
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
        except ProtocolError as error:
            self._failure = error
            raise

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
