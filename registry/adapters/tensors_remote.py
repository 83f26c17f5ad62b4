"""Work on tensors on a worker elsewhere, where this machine has no engine.

The order goes out as a call over the worker's link, with the blobs by their digests: the worker
fetches what it lacks, works as we would, and answers with the file, which is hashed as it arrives.

An answer begins with the plan; its body are records: one byte that says what follows (`DATA`,
`FAULT`), four bytes of length, and so many bytes.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Protocol

import orjson
import structlog

from registry.adapters.link_replies import LinkReply
from registry.adapters.worker_codec import error_json, error_of, read_object
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RegistryError, Unsupported, WorkerLost
from registry.ports.blobs import Sink
from registry.ports.tensors import Making, TensorJob, TensorWorkshop

DATA: Final = b"\0"
FAULT: Final = b"\1"
_HEAD: Final = 5
_FAULT_BYTES: Final = 64 << 10
_RECORD_BYTES: Final = 1 << 20
_LOST: Final = "the worker that did this went away; ask again"

log = structlog.get_logger()


class Maker(Protocol):
    """A worker that is linked."""

    @property
    def name(self) -> str:
        """Its name."""

    async def make(self, order: bytes, digests: Sequence[Digest]) -> LinkReply:
        """Send it an order about those blobs.

        Raises:
            RegistryError: it cannot do it, or is away.
        """


def order_of(job: TensorJob) -> bytes:
    """A job as it travels."""
    files = [
        [name, str(digest), opened.size]
        for (name, opened), digest in zip(job.files, job.digests, strict=True)
    ]
    told = {
        "kind": job.kind,
        "files": files,
        "target": job.target,
        "canonical": job.canonical,
        "options": dict(job.options),
    }
    return orjson.dumps(told)


def record(tag: bytes, data: bytes) -> bytes:
    """One record of an answer's body."""
    return tag + len(data).to_bytes(4, "big") + data


def fault_record(error: RegistryError) -> bytes:
    """The record that says why there is no more."""
    return record(FAULT, orjson.dumps(error_json(error))[:_FAULT_BYTES])


class Elsewhere:
    """A `TensorWorkshop` that works here, and on a worker what only an engine can do."""

    def __init__(self, own: TensorWorkshop, makers: Callable[[], Sequence[Maker]]) -> None:
        self._own = own
        self._makers = makers

    @asynccontextmanager
    async def begin(self, job: TensorJob) -> AsyncIterator[Making]:
        """See `TensorWorkshop`."""
        async with AsyncExitStack() as stack:
            try:
                making: Making = await stack.enter_async_context(self._own.begin(job))
            except Unsupported as error:
                making = await stack.enter_async_context(self._sent(job, error))
            yield making

    @asynccontextmanager
    async def _sent(self, job: TensorJob, refusal: Unsupported) -> AsyncIterator[Making]:
        """The job on the first worker that takes it."""
        for maker in self._makers() if job.digests else ():
            try:
                reply = await maker.make(order_of(job), job.digests)
            except RegistryError as error:
                log.info("a worker does not convert", worker=maker.name, reason=str(error))
                continue
            try:
                yield RemoteMaking(reply)
            finally:
                await reply.close()
            return
        raise refusal


class RemoteMaking:
    """A job under way on a worker. How far it is, is taken from what came of its result."""

    def __init__(self, reply: LinkReply) -> None:
        plan = reply.head.get("plan")
        told: Mapping[str, Any] = plan if isinstance(plan, dict) else {}
        self.size, self.total = _count(told.get("size")), _count(told.get("total"))
        self.level = str(told.get("level") or "")
        warnings = told.get("warnings")
        self.warnings = [str(item) for item in warnings] if isinstance(warnings, list) else []
        self.done = 0
        self._reply = reply

    async def feed(self, sink: Sink) -> int:
        """Send the file to `sink`; see `Making`."""
        received = 0
        try:
            async for data in _contents(self._reply.chunks()):
                received += len(data)
                if received > self.size:
                    break
                await sink.write(data)
                self.done = self.total * received // self.size
        except WorkerLost as error:
            raise OperationFailed(_LOST) from error
        if received != self.size:
            raise OperationFailed("the worker sent another size than it had planned")
        self.done = self.total
        return received


async def _contents(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[memoryview, None]:
    """The data of records.

    Raises:
        RegistryError: what the worker says went wrong.
    """
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        while len(rest) >= _HEAD:
            length = int.from_bytes(rest[1:_HEAD], "big")
            if length > _RECORD_BYTES:
                raise OperationFailed("the worker's answer cannot be read")
            if len(rest) < _HEAD + length:
                break
            data = bytes(rest[_HEAD : _HEAD + length])
            if rest[:1] != DATA:
                raise error_of(read_object(data))
            del rest[: _HEAD + length]
            yield memoryview(data)
    if rest:
        raise OperationFailed(_LOST)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
