"""The catalog: every name and every fact of the service, in SQL. The one truth that replicas share.

Work on it is a plain function of a transaction, handed to `read` or `write`:

    tag = await catalog.read(lambda tx: tx.find_model(name))
    await catalog.write(lambda tx: tx.put_tag(repository.id, "latest", digest, now))

The function runs synchronously, perhaps in another thread, perhaps more than once (a write that
lost a race is tried again), so it must not await, keep state or have effects outside `tx`. What it
returns is what `read` and `write` return; what it raises undoes the transaction and is raised.
Functions, not `async with`: a point read then costs no thread hop on SQLite, and one writer thread
can commit many callers' functions with one fsync (ADR 0002).

Times are integer nanoseconds since the epoch, UTC; sizes are bytes.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from registry.core.digest import Digest
from registry.core.names import ModelName, RepositoryName
from registry.core.records import RecordName
from registry.ports.accounts import AccountReader, AccountWriter
from registry.ports.fleet import FleetReader, FleetWriter
from registry.ports.jobs import JobReader, JobWriter
from registry.ports.transfers import TransferReader, TransferWriter
from registry.ports.upkeep import UpkeepReader, UpkeepWriter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: its row id and its name in the spelling it was first given."""

    id: int
    name: RepositoryName


FactsKind = Literal["header", "text"]
"""What a blob was read as: a GGUF's header, whose facts are kept; a text, kept as it is."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob whose bytes were verified and are in the store under `storage_key`.

    `suspect`: they were found to be wrong since; whoever puts the blob again makes it sound.
    """

    digest: Digest
    size: int
    storage_key: str
    created_at: int
    used_at: int
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """One descriptor of a manifest: what it points at. `blob` is False for a child manifest."""

    digest: Digest
    media_type: str
    size: int
    blob: bool = True


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest: its exact bytes and what was read out of them.

    `references` has the config first, then the layers (or an index's manifests) in order; those
    that need not be here (non-distributable layers) are left out. `card` is the JSON text of
    `core/card.py` for a manifest that is a model, else None: what tags and show answer from.
    """

    digest: Digest
    media_type: str
    body: bytes
    references: tuple[Reference, ...] = ()
    config: Digest | None = None
    subject: Digest | None = None
    artifact_type: str | None = None
    annotations: str | None = None  # JSON object, for the referrers list
    card: str | None = None


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a repository, with the spelling both were first given, and where it points."""

    repository: Repository
    name: str
    digest: Digest
    updated_at: int

    @property
    def model(self) -> ModelName:
        """The tag as a model name."""
        return self.repository.name.model_name(self.name)


@dataclass(frozen=True, slots=True)
class Model:
    """A tag together with its manifest's card: a row of `/api/tags`."""

    tag: Tag
    card: str


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model that came, changed or went: `name` as it was spelt, and what it is now, if it is."""

    name: ModelName
    model: Model | None


@dataclass(frozen=True, slots=True)
class Freed:
    """Bytes that nothing refers to any more: `key` is to be deleted from the store, then `forget`.

    Stays in the catalog until then, so that a crash in between leaves nothing behind.
    """

    digest: Digest
    storage_key: str


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The content of a small blob that the store may not have yet, or not for good."""

    id: int
    storage_key: str
    content: bytes


@dataclass(frozen=True, slots=True)
class FolderChange:
    """A file that is out of date: what it has to hold (a record: `recorded`); None if it goes."""

    id: int
    name: ModelName | RecordName
    body: bytes | None


class Reader(AccountReader, TransferReader, FleetReader, JobReader, UpkeepReader, Protocol):
    """What a read function may ask. Absent things are None or empty, never an error."""

    # names
    def repository(self, name: RepositoryName) -> Repository | None:
        """The repository of that name, any case."""

    def repositories(self, after: str, limit: int) -> list[RepositoryName]:
        """Up to `limit` repositories that hold a manifest, with a key above `after`, by key."""

    def tag(self, repository_id: int, name: str) -> Tag | None:
        """A tag, any case."""

    def tags(self, repository_id: int, after: str, limit: int) -> list[str]:
        """Up to `limit` tag names above `after`, in byte order of their spelling."""

    def find_model(self, name: ModelName) -> Tag | None:
        """The tag that `name` names, any case; None too if its manifest is no model."""

    def known_spelling(self, name: ModelName) -> ModelName:
        """`name` with each part spelt as in the first repository or tag that has it, any case."""

    def models(self) -> list[Model]:
        """Every model with a valid Ollama name; newest first, then by name."""

    def each_model(self, make: Callable[[str, str, int, str], T]) -> list[T]:
        """What `make` (no user of the transaction) makes of path, tag, time and card of each."""

    def hand_models(self, take: Callable[[str, str, int, str], None]) -> None:
        """The same in the list's order: newest second first, then by short name; page by page."""

    def count_models(self, most: int) -> int:
        """How many models there are, counted up to `most`."""

    def last_change(self) -> int:
        """The number of the newest change of a tag; 0 if there was none."""

    def model_changes(self, after: int) -> list[ModelChange]:
        """What changes after number `after` made of the models: each name once, as it is now."""

    # manifests
    def manifest(self, digest: Digest) -> Manifest | None:
        """A manifest by digest, whatever repository it is in."""

    def has_manifest(self, repository_id: int, digest: Digest) -> bool:
        """Whether the manifest was put into the repository and not deleted from it."""

    def referrers(self, repository_id: int, subject: Digest) -> list[Manifest]:
        """The repository's manifests whose subject is `subject`, oldest first."""

    def manifest_tags(self, digest: Digest) -> list[Tag]:
        """All tags, in any repository, that point to the manifest."""

    # blobs
    def blob(self, digest: Digest) -> Blob | None:
        """A blob, whatever refers to it; sha512 digests too, if the blob was given one."""

    def has_blob(self, repository_id: int, digest: Digest) -> bool:
        """Whether the repository has the blob: linked to it, or referred to by its manifests."""

    def kept_until(self, repository_id: int, digest: Digest) -> int | None:
        """Until when the repository's link keeps the blob, in nanoseconds; None without the blob.

        0: as long as its manifests do, which have spent the link.
        """

    def blob_repositories(self, digest: Digest, limit: int) -> list[RepositoryName]:
        """Up to `limit` repositories that have the blob, in no order."""

    def blob_in_use(self, repository_id: int, digest: Digest) -> bool:
        """Whether a manifest of the repository refers to the blob."""

    def has_facts(self, digest: Digest, kind: FactsKind) -> bool:
        """Whether a blob was read as one of that kind."""

    def facts(self, digest: Digest, kind: FactsKind) -> bytes | None:
        """What was read out of a blob as one of that kind, as `put_facts` got it."""

    # housekeeping
    def unreferenced(self, used_before: int, now: int, limit: int) -> list[Blob]:
        """Blobs that no manifest, link or lease holds and that were last used before then."""

    def freed(self, limit: int) -> list[Freed]:
        """Bytes to delete from the store."""

    def unwritten(self, limit: int, after: int = 0) -> list[Unwritten]:
        """Contents to write into the store, those with an id above `after`, by id."""

    def content(self, digest: Digest) -> bytes | None:
        """The bytes of a blob that the store may not have yet, None if it has them for good."""

    def folder_changes(self, limit: int, after: int = 0) -> list[FolderChange]:
        """Files to bring up to date, those with an id above `after`, oldest change first.

        A name comes once, at its newest.
        """

    def is_folder_change_due(self, name: ModelName | RecordName) -> bool:
        """Whether the tag file of that very spelling, or the record, is among them."""

    def blobs_after(self, digest: str, limit: int) -> list[Blob]:
        """Up to `limit` blobs with a digest text above `digest`, by digest."""

    def secret(self, name: str) -> bytes | None:
        """A secret shared by all replicas, such as the key of direct URLs."""


class Transaction(
    Reader, AccountWriter, TransferWriter, FleetWriter, JobWriter, UpkeepWriter, Protocol
):
    """What a write function may do besides. Everything becomes visible at once, or nothing."""

    def put_repository(self, name: RepositoryName) -> Repository:
        """Find the repository or make it; the first spelling is kept while it holds a manifest."""

    def put_tag(
        self, repository_id: int, name: str, digest: Digest, now: int, who: str = ""
    ) -> Tag:
        """Point a tag at a manifest of the repository; the first spelling of the tag is kept.

        Notes which files are out of date by it, and in the tag's history who made it.

        Raises:
            RepositoryUnknown: no repository has that id.
            ManifestUnknown: the manifest is not in the repository (any more).
        """

    def delete_tag(self, repository_id: int, name: str, who: str = "") -> Digest | None:
        """Remove a tag; return where it pointed, None if there was none. Records the change."""

    def put_manifest(
        self, repository_id: int, manifest: Manifest, now: int, *, links: bool = False
    ) -> None:
        """Add a manifest to the repository; known already is fine.

        The leases that this repository had on the blobs it refers to are spent by it. With `links`
        it gets the blobs that it does not have, whoever has them. Without a tag, `record` it.

        Raises:
            ManifestBlobUnknown: something it refers to is not in the repository (for a blob:
                neither linked, nor leased for it, nor referred to by its manifests); with `links`,
                a blob that is nowhere.
        """

    def delete_manifest(self, repository_id: int, digest: Digest) -> bool:
        """Remove a manifest and its tags from the repository; False if it was not there.

        The manifest itself goes when the last repository drops it.
        """

    def drop_untagged(self, repository_id: int, digest: Digest) -> None:
        """`delete_manifest`, but only if no tag of the repository, index or subject needs it.

        With it go, on the same condition, the manifests of an index and those it is the subject of.
        """

    def put_blob(self, digest: Digest, size: int, storage_key: str, now: int) -> Blob:
        """Record verified bytes; if the digest is known already, that row is kept and returned.

        But a suspect blob gets these bytes, and is sound again; its old ones are freed if they
        are under another key, as the new ones of a sound blob are. Either way it counts as used
        now. A digest that was freed and whose bytes are not deleted yet is taken back if the
        storage key is the same.
        """

    def touch_blob(self, digest: Digest, now: int) -> bool:
        """Count the blob as used now, which renews its grace; False if it is unknown."""

    def alias_blob(self, alias: Digest, digest: Digest) -> None:
        """Make a blob known under a second digest (sha512).

        Raises:
            BlobUnknown: no such blob (any more).
        """

    def link_blob(self, repository_id: int, digest: Digest, until: int) -> None:
        """Let the repository read and refer to a blob, and keep the blob until `until`, or longer.

        Raises:
            BlobUnknown: no such blob (any more).
        """

    def unlink_blob(self, repository_id: int, digest: Digest) -> bool:
        """Take the link away again; False if the repository did not have the blob."""

    def lease(self, digests: Sequence[Digest], holder: str, until: int) -> list[Digest]:
        """Keep blobs from being freed until `until` or `release`.

        Returns those that are unknown, or suspect: they have to come once more.
        """

    def release(self, holder: str) -> None:
        """Give up all leases of a holder."""

    def put_facts(self, digest: Digest, kind: FactsKind, facts: bytes) -> None:
        """Keep what was read out of a blob while the blob lives.

        Raises:
            BlobUnknown: no such blob (any more).
        """

    def expire(self, now: int, limit: int) -> int:
        """Remove links that ran out and that no manifest bears out, and leases that ran out.

        Up to `limit` of each; returns how many it were.
        """

    def free(self, digests: Sequence[Digest], now: int) -> list[Freed]:
        """Forget those of the blobs that no manifest, living link or living lease holds.

        Their bytes are to be deleted once this transaction is committed: see `Freed`.
        """

    def forget_freed(self, freed: Sequence[Freed]) -> None:
        """The bytes are deleted."""

    def put_content(self, blob: Blob, content: bytes) -> None:
        """Keep the bytes of a small blob until the store has them for good: see `Unwritten`."""

    def forget_contents(self, up_to_id: int) -> None:
        """The store has every content up to that id for good."""

    def forget_folder_changes(self, up_to_id: int) -> None:
        """The models folder is up to date with every change up to that id, for good."""

    def put_secret(self, name: str, value: bytes) -> bytes:
        """Keep a secret unless there is one; return the one that holds."""


class Catalog(Protocol):
    """A database that keeps the facts."""

    def read(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """Run a short read: indexed lookups, tens of rows. May run on the event loop's thread."""

    def scan(self, work: Callable[[Reader], T]) -> Awaitable[T]:
        """Run a long read, off the event loop."""

    def write(self, work: Callable[[Transaction], T]) -> Awaitable[T]:
        """Run a write; when it returns, the result is durable and every replica sees it.

        Raises:
            Unavailable: the database cannot be reached or is locked for too long.
            StorageFull: it cannot grow.
        """

    def version(self) -> int:
        """A number that differs after any committed write of any process; microseconds to get."""

    def now(self) -> int:
        """The time by a clock that all processes of this database have in common, in nanoseconds.

        Moments that are kept for others (until when a blob is spared, a token good) are by it.
        """

    async def job_change(self, timeout_s: float) -> None:
        """Wait until a job may have changed, or for so long. Changes may be missed: look anyway."""

    async def check(self) -> None:
        """Say whether the database answers. Raises what `write` would."""

    async def close(self) -> None:
        """Finish the writes that were handed over, then let go of the database."""
