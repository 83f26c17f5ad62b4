"""Another registry: where `pull` takes models from and `push` takes them to.

An `Upstream` is one repository there, for the length of one pull or push; a token that was got on
the way is kept for it. It need not be closed. Every method raises the `Upstream…` errors of
`core/errors.py`; those that a second try may cure are `UpstreamBusy` and `UpstreamUnreachable`. The
messages are fit for the caller: they name the request, never a credential or a query string.

Source: spec registry-protocol 1 and 2; OCI distribution-spec 1.1.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from registry.core.digest import Digest
from registry.core.names import ModelName


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """A manifest's exact bytes and what the registry calls them, which may be wrong or empty."""

    body: bytes
    media_type: str


class Stream(Protocol):
    """Bytes of a blob as they arrive."""

    @property
    def start(self) -> int:
        """The offset of the first byte: 0 from a registry that does not do ranges."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, none beyond the end asked for; ends early if the registry does.

        Raises:
            UpstreamBusy: the connection broke, or no byte came for the stall limit.
        """


class RemoteBlob(Protocol):
    """Where the bytes of one blob were found to be."""

    def read(self, start: int, stop: int) -> AbstractAsyncContextManager[Stream]:
        """Ask for the range `[start, stop)`; several may be open at once.

        Raises:
            UpstreamUnknown, UpstreamRefused: also when a signed address has expired.
        """


class Outgoing(Protocol):
    """A blob on its way out."""

    @property
    def digest(self) -> Digest:
        """Its name."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def origin(self) -> str:
        """`namespace/model` of a repository that may have it already; empty if none is known."""

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes `[start, stop)`; asked again from `start` when a part is sent again."""


class Upstream(Protocol):
    """One repository of another registry."""

    async def manifest(self, tag: str) -> RemoteManifest:
        """The manifest of a tag.

        Raises:
            UpstreamUnknown: there is none.
        """

    async def put_manifest(self, tag: str, manifest: RemoteManifest) -> None:
        """Store a manifest, whose blobs are all there, under a tag."""

    async def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes; -1 if it is there and the registry does not say.

        None if it is not there.
        """

    async def locate(self, digest: Digest) -> RemoteBlob:
        """Find out where the bytes of a blob can be read.

        Raises:
            UpstreamUnknown: the registry does not have it.
        """

    async def upload(self, blob: Outgoing) -> None:
        """Send a blob; tries again by itself. When it returns, the registry has it."""


class Upstreams(Protocol):
    """All other registries."""

    def open(self, name: ModelName, *, insecure: bool) -> Upstream:
        """The repository of a model; asks nothing yet.

        `insecure`: plain HTTP, or HTTPS without looking at the certificate if the registry
        speaks nothing else. Otherwise HTTPS with a certificate that this machine trusts.

        Raises:
            UpstreamFailed: the host of the name is no address.
        """

    async def close(self) -> None:
        """Drop all connections."""
