"""What the catalog knows of its own upkeep: history, what waits to go, sums of bytes, quotas.

Part of the catalog's port: see `ports/catalog.py` for transactions, times and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from registry.core.digest import Digest
from registry.core.names import RepositoryName
from registry.core.records import Record, RecordName
from registry.core.retention import RetentionRule
from registry.ports.transfers import Upload


@dataclass(frozen=True, slots=True)
class TagEvent:
    """One change of a tag. `old` None: it was made; `new` None: it was deleted.

    `who` is empty where nobody had to sign in. `kept`: the manifest of `new`, or for a deletion
    that of `old`, is still here, so that the tag can be made to point at it again.
    """

    id: int
    name: str
    at: int
    old: Digest | None
    new: Digest | None
    who: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Condemned:
    """A manifest without a tag that can be brought back; it goes some time after `at`."""

    repository_id: int
    digest: Digest
    at: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How many, how many bytes together, and since when: the oldest's time, 0 if there is none."""

    count: int = 0
    size: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes of blobs that manifests refer to, each blob counted once.

    `unique` is what would be free if all of it were deleted; the rest is shared with others.
    """

    blobs: int = 0
    size: int = 0
    unique: int = 0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A blob whose bytes were found to be wrong, and when; some repositories that have it."""

    digest: Digest
    size: int
    suspect_at: int
    repositories: tuple[RepositoryName, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """What the repositories of a namespace may take together; `used` is never too little."""

    namespace: str
    size: int
    used: int


@dataclass(frozen=True, slots=True)
class KeptTag:
    """A tag for retention. `held`: a lease is on one of its blobs, somebody works with it."""

    name: str
    digest: Digest
    updated_at: int
    held: bool


class UpkeepReader(Protocol):
    """What a read function may ask about upkeep."""

    def recorded(self, name: RecordName) -> Record | None:
        """What a record has to hold; None if there has to be none.

        Of a tag that is no model, and of a manifest that is not about to go.
        """

    # history
    def history(self, repository_id: int, tag: str, before: int, limit: int) -> list[TagEvent]:
        """Changes of a tag (empty: of any) with an id below `before`, newest first."""

    def condemned(self, before: int, limit: int) -> list[Condemned]:
        """Manifests that wait to go since before then, oldest first."""

    def untagged(self, before: int, limit: int) -> list[tuple[int, Digest]]:
        """Manifests that came before then and have had no tag since: repository id and digest.

        Not those that an index lists, or that are about another one of the repository.
        """

    # sums
    def blob_tally(self) -> Tally:
        """All blobs."""

    def unused_tally(self) -> Tally:
        """Blobs that no manifest refers to, whether or not something else holds them."""

    def unreferenced_tally(self, used_before: int, now: int) -> Tally:
        """Those of them that `unreferenced` would give."""

    def upload_tally(self, expired_by: int | None = None) -> Tally:
        """Open upload sessions, or those that are expired at that time."""

    def fetch_tally(self, updated_before: int | None = None) -> Tally:
        """Unfinished fetches, or those that nobody has gone on with since then."""

    def condemned_tally(self, before: int | None = None) -> Tally:
        """Manifests that wait to go, or those that do since before then.

        The size is that of the blobs that would go with them.
        """

    def unknown(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those of the digests that are no blob's."""

    def untagged_tally(self, before: int) -> Tally:
        """Of `untagged`; the size is that of the blobs that would go with them."""

    def freed_tally(self) -> Tally:
        """Bytes about to be deleted; no sizes."""

    def namespaces(self, after: str, limit: int) -> list[str]:
        """Up to `limit` namespaces that have a repository, with a key above `after`, by key."""

    def namespace_shares(self, namespace: str) -> Shares:
        """What the repositories of a namespace take."""

    def repository_shares(self, repository_id: int) -> Shares:
        """What a repository takes, untagged manifests included."""

    def tag_shares(self, repository_id: int, tag: str) -> Shares:
        """What a tag takes."""

    def repositories_in(
        self, namespace: str, after: str, limit: int
    ) -> list[tuple[int, RepositoryName]]:
        """Up to `limit` repositories of a namespace with a key above `after`, by key: id, name."""

    # soundness
    def suspects(self, after: str, limit: int) -> list[Suspect]:
        """Blobs found to be wrong, with a digest text above `after`, by digest."""

    # rules
    def has_quotas(self) -> bool:
        """Whether there is any."""

    def quotas(self) -> list[Quota]:
        """All quotas, by namespace."""

    def check_room(self, name: RepositoryName, blobs: Sequence[tuple[Digest, int]]) -> None:
        """Let pass what fits into the quotas over a repository: digests and sizes to come.

        Blobs that its namespace has already need no room.

        Raises:
            QuotaExceeded: they do not fit.
        """

    def retention_rules(self) -> list[RetentionRule]:
        """All rules, by pattern."""

    def kept_tags(self, repository_id: int, now: int) -> list[KeptTag]:
        """Every tag of a repository, for retention."""


class UpkeepWriter(Protocol):
    """What a write function may do about upkeep besides."""

    def record(self, repository_id: int, reference: str) -> None:
        """Note that the record of a tag or manifest has to be looked after."""

    def record_all(self) -> None:
        """Note that of every tag and manifest that the models folder has no file for."""

    def condemn(self, repository_id: int, digest: Digest, now: int) -> None:
        """Keep a manifest that lost its tag, as one that goes later."""

    def spare(self, repository_id: int, digest: Digest) -> None:
        """It no longer waits to go."""

    def verified(self, digest: Digest, storage_key: str, now: int) -> bool:
        """The bytes under that key are those of the digest; False if they are not there any more.

        A blob that was suspect is so no longer.
        """

    def suspect(self, digest: Digest, storage_key: str, now: int) -> bool:
        """The bytes under that key are wrong; False if they are not there any more.

        Until the blob is put again, it counts as absent for whoever wants to push or lease it.
        """

    def put_quota(self, namespace: str, size: int) -> Quota:
        """Set a namespace's quota; what it uses is summed up."""

    def delete_quota(self, namespace: str) -> bool:
        """Remove it; False if there was none."""

    def reserve(self, upload: Upload, size: int) -> Upload:
        """Set `size` bytes in all aside for an open session; returns it as it is now.

        Raises:
            QuotaExceeded: they do not fit.
        """

    def put_retention_rule(self, rule: RetentionRule) -> None:
        """Add a rule, or overwrite the one of the same pattern."""

    def delete_retention_rule(self, pattern: str) -> bool:
        """Remove it; False if there was none."""
