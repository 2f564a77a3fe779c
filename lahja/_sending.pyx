# The sending side: a part of _framing.pyx, and the twin of _sending_py.py.
#
# From an event to the outgoing queues of the peers that want it.

cdef Py_ssize_t _MOST_DEBT = 256  # broadcasts, or KiB, after which others get a turn
cdef Py_ssize_t _IDS_AT_A_TIME = 64  # of requests: asking the system takes a microsecond

cdef int _ANNOUNCE = wire.ANNOUNCE
cdef int _REQUEST = wire.REQUEST
cdef int64_t _MAX_PLAIN_CONTAINERS = wire.MAX_PLAIN_CONTAINERS
cdef Py_ssize_t _MAX_SHAPES = wire.MAX_SHAPES
cdef Py_ssize_t _MAX_FIELDS_SIZE = wire.MAX_FIELDS_SIZE
cdef Py_ssize_t _COMPRESS_MINIMUM = wire.COMPRESS_MINIMUM
cdef Py_ssize_t _LONG = LONG
cdef Py_ssize_t _CHUNK_SIZE = CHUNK_SIZE

cdef enum:
    HEADER_SIZE = 9  # of the frame of an event: length, kind, type id

cdef object _get_attribute = object.__getattribute__


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
