"""Work on tensors: one job makes one GGUF out of files of the store, quantized if it is wanted.

    async with workshop.begin(job) as making:
        incoming = await store.create(making.size)
        await incoming.receive(making)

Jobs run in processes of their own. Leaving the block ends the process, finished or not.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from registry.core.digest import Digest
from registry.ports.blobs import Opened, Sink

Kind = Literal["gguf", "checkpoint", "adapter", "quantized"]


@dataclass(frozen=True, slots=True)
class TensorJob:
    """What goes in and what is to come out.

    `files` are opened blobs with the names their sender gave them. Of kind `gguf` they are one
    file, or the shards of one model in order. `target` is a type of `core/quantize`, empty if the
    tensors stay as they are; `canonical` gives a file that is only copied the order of a quantized
    one. `options` are the kind's own, plain JSON. Of kind `quantized` are two files, the second
    made of the first by another program: it comes out if it is what was planned. `digests` are
    those of the files: by them another machine gets them.
    """

    kind: Kind
    files: Sequence[tuple[str, Opened]]
    target: str = ""
    canonical: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    digests: Sequence[Digest] = ()


class Making(Protocol):
    """A job under way; a `Body` whose bytes are the finished file."""

    @property
    def size(self) -> int:
        """Bytes of the file, known before the first of them."""

    @property
    def level(self) -> str:
        """What the tensors are stored as in the sources, for the most part."""

    @property
    def total(self) -> int:
        """Bytes to be read from all sources."""

    @property
    def done(self) -> int:
        """How many of those have been dealt with."""

    @property
    def warnings(self) -> Sequence[str]:
        """What is worth a remark about the sources, so far."""

    async def feed(self, sink: Sink) -> int:
        """Send the file to `sink`; return its length, which is `size`.

        Raises:
            RegistryError: the sources turned out to be wrong, or the process came to grief.
        """


class TensorWorkshop(Protocol):
    """Where jobs are done."""

    def begin(self, job: TensorJob) -> AbstractAsyncContextManager[Making]:
        """Start a job and wait for its plan.

        Raises:
            RegistryError: it cannot be done: the sources are wrong, or something is missing here.
        """
