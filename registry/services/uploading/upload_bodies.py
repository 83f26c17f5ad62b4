"""What is sent to an upload session."""

from dataclasses import dataclass

from registry.core.errors import UploadOutOfOrder
from registry.ports.blobs import Body, Sink
from registry.ports.transfers import Upload


@dataclass(frozen=True, slots=True)
class Chunk:
    """A body and where it belongs: `start` None means at the end. `length` None: not announced."""

    body: Body
    start: int | None = None
    length: int | None = None

    def is_replay(self, upload: Upload) -> bool:
        """Whether it is, by its range, the chunk that was accepted last: its answer was lost."""
        last = (upload.last_first, upload.last_length)
        return upload.last_length > 0 and (self.start, self.length) == last

    def check_order(self, upload: Upload) -> None:
        """Raise `UploadOutOfOrder` if it belongs elsewhere."""
        if self.start is not None and self.start != upload.offset:
            raise UploadOutOfOrder(upload.offset)


class Counted:
    """A body that tells how many of its bytes went by."""

    def __init__(self, body: Body) -> None:
        self.size = 0
        self._body = body
        self._sink: Sink | None = None

    async def feed(self, sink: Sink) -> int:
        """Send everything to `sink`."""
        self._sink = sink
        return await self._body.feed(self)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Pass it on."""
        assert self._sink is not None
        await self._sink.write(data)
        self.size += len(data)

    async def borrow(self) -> memoryview:
        """The sink's own buffer."""
        assert self._sink is not None
        return await self._sink.borrow()

    async def fill(self, size: int) -> None:
        """Pass it on."""
        assert self._sink is not None
        await self._sink.fill(size)
        self.size += size
