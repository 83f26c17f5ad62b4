"""The HTTP protocol of our server: uvicorn's on httptools, with limits, zero copy and take-over.

What it adds, and nothing else is changed:

- The extensions of `extensions.py`. To be able to give a body away, the bytes behind the head of
  such a request are held back from the parser until the application either takes the body over or
  asks for it in the ordinary way. After a take-over a fresh parser begins behind the body.
- Limits: 16 KiB for a request's head and as much for its trailers, `body_idle_s` for a head to
  arrive and for silence within a body.
- Quick answers: what the application has ready (`quick_of`) leaves at once, without a task.
- Early answers: when the application answers before it has read the body, the client is let finish
  sending, within bounds. Closed at once, the connection would be reset, and the answer with it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.ports.blobs import Sink
from registry.server.exchange import Exchange
from registry.server.extensions import TAKE_OVER, ZERO_COPY, quick_of
from registry.server.farewells import Farewells
from registry.server.quick import QUICK_IN_A_ROW, Opening, is_plain
from registry.server.takeover import Chunked, Counted, Framing, Taken
from registry.server.zerocopy import FileSender
from registry.settings import Limits

HEAD_BYTES = 16 << 10
TAKE_FROM = 1 << 20  # a body this large, or of unknown length, is worth a take-over
_DRAIN_BYTES = 32 << 20
_END = b"\r\n\r\n"
_TOO_LONG = b"Request header fields too large"


class _HeadTooLarge(Exception):
    """Raised inside the parser, which then refuses the request."""


class LibraryProtocol(HttpToolsProtocol):
    """One connection. `with_limits` makes the class for a server."""

    limits = Limits.model_validate({})
    farewells = Farewells()
    drain_s = 2.0  # how long the rest of an unwanted body may take

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle_s = self.limits.body_idle_s
        self.sender: FileSender | None = None
        self.leave: Callable[[], None] | None = None  # whom to tell that the client went away
        self._quick = quick_of(self.app)
        self._quick_left = 0  # how many more may be answered of the bytes that came
        self._was_quick = self._is_known = False  # the latest request; any
        self._opening = Opening()
        self._in_head = True
        self._head_size = 0  # bytes of it that the parser was given
        self._head_begun = 0.0
        self._fields = 0  # the same without separators, also of a head that came behind a body
        self._barren = 0  # bytes since the last that was payload: extensions and trailers
        self._tail = b""  # its last three: the end of a head may lie across two reads
        self._held: bytes | None = None
        self._astray = False  # nobody knows any more where a request begins
        self._draining = self._refused = False
        self._drained = 0
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def with_limits(cls, limits: Limits) -> "type[LibraryProtocol]":
        """The protocol with these limits: in the class, because uvicorn makes the instances."""
        return type(cls.__name__, (cls,), {"limits": limits, "farewells": Farewells()})

    # ---- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it
        self._timer = self.loop.call_later(self.idle_s, self._tick)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()
        if self.sender is not None:
            self.sender.abort()
        if self.leave is not None:
            self.farewells.add(self.loop, self._say_farewell)

    def _say_farewell(self) -> None:
        if self.leave is not None:  # the answer was not completed meanwhile
            self.leave()

    def data_received(self, data: bytes) -> None:
        """Bytes came: give them to the parser, head by head."""
        self._heard = self.loop.time()
        self._quick_left = QUICK_IN_A_ROW
        if self._astray:
            self._drop(len(data))
            return
        while data and not self._refused and not self.transport.is_closing():
            stop = self._head_stop(data) if self._in_head else len(data)
            if self._in_head:
                self._head_begun = self._head_begun if self._head_size else self._heard
                self._head_size += stop
                if self._head_size > HEAD_BYTES:
                    self._refuse(431, _TOO_LONG)
                    return
            self._feed(data[:stop] if stop < len(data) else data)
            data = data[stop:]
            if self._is_worth_taking():
                self._hold(data)
                return
        if self._timer is None:
            self._watch()

    def _feed(self, data: bytes) -> None:
        self._barren += len(data)
        super().data_received(data)
        if self._in_head:
            self._barren = 0
        elif self._barren > HEAD_BYTES and not self._refused:
            self._refuse(431, _TOO_LONG)

    def _head_stop(self, data: bytes) -> int:
        """How much of `data` belongs to the head, as far as it can be seen."""
        known = len(self._tail)
        at = (self._tail + data).find(_END) if known else data.find(_END)
        if at < 0:
            self._tail = (self._tail + data)[-3:]
            return len(data)
        self._tail = b""
        return at + len(_END) - known

    # ---- from the parser

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head = True
        self._fields = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. Those behind the body are counted and dropped."""
        if self._in_head:
            self._count(len(name) + len(value))
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: the application's turn."""
        self._in_head = False
        self._head_size = self._barren = 0
        self._was_quick = self._may_be_quick() and self._answer_quickly()
        if self._was_quick:
            return
        self._unset_keepalive_if_required()  # a quick answer before it in the same bytes set it
        if self.scheme == "http":
            self.scope["extensions"] = {ZERO_COPY: {}}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._barren = 0
        if self._draining:
            self._drop(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._in_head = True
        self._head_size = 0
        self._draining = False
        if not self._was_quick:
            super().on_message_complete()

    def _count(self, size: int) -> None:
        self._fields += size
        if self._fields > HEAD_BYTES:
            raise _HeadTooLarge

    # ---- quick answers

    def _may_be_quick(self) -> bool:
        """Whether it is this request's turn, and nothing about it is out of the ordinary."""
        if self._quick is None or self._quick_left <= 0 or self.limit_concurrency is not None:
            return False
        cycle = self.cycle
        if self.pipeline or (cycle is not None and not cycle.response_complete):
            return False
        if self.flow.write_paused or self.transport.is_closing():
            return False
        return is_plain(self.parser, self.headers)

    def _answer_quickly(self) -> bool:
        """Write the answer if the application has one ready, as `Exchange` would."""
        url = httptools.parse_url(self.url)
        if self._quick is None or not url.path or b"%" in url.path or self.root_path:
            return False
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"] = url.path.decode("ascii"), url.path
        scope["query_string"] = url.query or b""
        answer = self._quick(scope)
        if answer is None:
            return False
        self._is_known = True
        self._quick_left -= 1
        head = b"%b%b\r\n" % (self._opening.of(self.server_state.default_headers), answer.lines)
        self.transport.writelines([head, answer.body] if answer.body else [head])
        self.on_response_complete()
        return True

    # ---- bodies

    def _is_worth_taking(self) -> bool:
        """Whether the parser stands behind a head whose body may be taken over."""
        if self._in_head or self._held is not None or self.pipeline or self.scheme != "http":
            return False
        cycle = self.cycle
        if not cycle.more_body or cycle.body or TAKE_OVER in self.scope["extensions"]:
            return False
        return self.scope["http_version"] == "1.1" and self._framing() is not None

    def _framing(self) -> Framing | None:
        for name, value in self.headers:
            if name == b"content-length":
                return Counted(int(value)) if int(value) > TAKE_FROM else None
            if name == b"transfer-encoding":
                return Chunked() if value.lower() == b"chunked" else None
        return None

    def _hold(self, rest: bytes) -> None:
        framing = self._framing()
        if framing is None:
            return
        self._held = rest
        self.flow.pause_reading()
        extensions = cast("dict[str, Any]", self.scope["extensions"])
        extensions[TAKE_OVER] = Offer(self, self.cycle, framing)

    def let_go(self) -> None:
        """Give the parser the bytes of the body that were held back."""
        rest, self._held = self._held, None
        if rest is None or self.transport.is_closing():
            return
        self._heard = self.loop.time()
        self.flow.resume_reading()
        self._watch()
        if rest:
            self.data_received(rest)

    @property
    def is_held(self) -> bool:
        """Whether a body is held back."""
        return self._held is not None

    def give_away(self) -> bytes:
        """Hand the held bytes over; from now on someone else reads the socket."""
        rest, self._held = self._held or b"", None
        self._astray = True
        return rest

    def take_back(self, cycle: RequestResponseCycle, rest: bytes) -> None:
        """The body was read to its end, and `rest` of what is behind it."""
        if self.transport.is_closing():
            return
        self._astray = False
        self._in_head = True
        self._head_size = 0
        self._tail = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        cycle.more_body = False
        cycle.message_event.set()
        self.flow.resume_reading()
        if rest:
            self.data_received(rest)

    # ---- early answers

    def begin_draining(self) -> None:
        """Throw away what comes of the body."""
        self._draining = True
        self._drained = 0
        self.let_go()
        self.flow.resume_reading()

    @property
    def will_drain(self) -> bool:
        """Whether the whole body is known to be small enough for that."""
        lengths = [value for name, value in self.scope["headers"] if name == b"content-length"]
        return bool(lengths) and lengths[0].isdigit() and int(lengths[0]) <= _DRAIN_BYTES

    @property
    def can_drain(self) -> bool:
        """Whether it is worth going on."""
        return self._drained < _DRAIN_BYTES and not self.transport.is_closing()

    def _drop(self, size: int) -> None:
        self._drained += size
        if self.cycle is not None:
            self.cycle.message_event.set()
        if self._refused and not self.can_drain:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """The parser's refusal."""
        self._refuse(400, msg.encode("ascii"))

    def _refuse(self, status: int, reason: bytes) -> None:
        """Answer a request that is none, if it is time for an answer, and end the connection."""
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        if not running or not (cycle.response_started or self._in_head):
            self.transport.write(
                b"HTTP/1.1 %d \r\nconnection: close\r\ncontent-type: text/plain\r\n"
                b"content-length: %d\r\n\r\n%s" % (status, len(reason), reason)
            )
        if running:
            cycle.disconnected = True
            cycle.message_event.set()
        self._refused = self._astray = True
        self._drained = 0
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(self.drain_s, self.transport.close)

    # ---- silence

    def _watch(self) -> None:
        """See to it that a head, or a body that is read here, goes on coming."""
        between_requests = self._in_head and not self._head_size
        if self._timer is None and not between_requests:
            self._timer = self.loop.call_later(self.idle_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._in_head:
            left_s = self._head_left_s()
        elif not self.cycle.more_body:
            left_s = None
        elif self._held is not None or self._astray or self.flow.read_paused:
            left_s = self.idle_s  # it is we who do not read
        else:
            left_s = self._heard + self.idle_s - self.loop.time()
        if left_s is None:
            return
        if left_s <= 0:
            self.transport.close()
        else:
            self._timer = self.loop.call_later(left_s + 0.01, self._tick)

    def _head_left_s(self) -> float | None:
        """How long a head may still take; an idle kept-alive connection is uvicorn's to close."""
        cycle = self.cycle
        if cycle is None and not self._is_known:
            return 0.0
        if not self._head_size or (cycle is not None and not cycle.response_complete):
            return None
        return self._head_begun + self.idle_s - self.loop.time()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, Exchange(app, self, cycle))


class Offer:
    """`BodyOffer` of `extensions.py`."""

    def __init__(
        self, protocol: LibraryProtocol, cycle: RequestResponseCycle, framing: Framing
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._framing = framing

    @property
    def open(self) -> bool:
        """Whether the body is still held back."""
        return self._protocol.is_held and self._protocol.cycle is self._cycle

    async def feed(self, sink: Sink, limit: int) -> int:
        """Read the body from the socket."""
        protocol, cycle = self._protocol, self._cycle
        begun = protocol.give_away()
        if cycle.waiting_for_100_continue:
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        sock = protocol.transport.get_extra_info("socket")
        try:
            size = await Taken(self._framing, sink, limit, protocol.idle_s).run(sock, begun)
        except BaseException:
            cycle.keep_alive = False
            raise
        protocol.take_back(cycle, self._framing.leftover)
        return size
