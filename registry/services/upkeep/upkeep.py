"""What keeps a library in order, put together: see the services it names."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

from registry.core.digest import Digest
from registry.core.errors import RequestInvalid
from registry.core.names import RepositoryName
from registry.ports.upstream import Upstreams
from registry.services.library.history import History
from registry.services.library.manifests import Manifests
from registry.services.library.quotas import Quotas
from registry.services.transfers.download import Download, Workshop
from registry.services.upkeep.adoption import Adoption
from registry.services.upkeep.gc import Collection
from registry.services.upkeep.retention import RetentionRules
from registry.services.upkeep.scrub import Fetch, Scrub
from registry.services.upkeep.storage import Storage
from registry.services.uploading.uploads import Uploads
from registry.settings import Settings


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The use cases, and `repair_from`: how scrub gets blobs from the registry at a URL."""

    collection: Collection
    scrub: Scrub
    history: History
    storage: Storage
    quotas: Quotas
    retention: RetentionRules
    repair_from: Callable[[str], Fetch]

    @classmethod
    def of(
        cls,
        manifests: Manifests,
        uploads: Uploads,
        adoption: Adoption,
        upstreams: Upstreams,
        settings: Settings,
    ) -> Self:
        """Make them all."""
        catalog, store, clock = manifests.catalog, manifests.store, manifests.clock
        history = History(manifests)
        workshop = Workshop.of(catalog, store, settings, clock)
        return cls(
            Collection(manifests, uploads, history, adoption, settings.retention),
            Scrub(catalog, store, clock),
            history,
            Storage(catalog),
            Quotas(catalog),
            RetentionRules(manifests),
            lambda url: source(upstreams, workshop, url),
        )


def source(upstreams: Upstreams, workshop: Workshop, url: str) -> Fetch:
    """How blobs come from the registry at `http(s)://host[:port]`.

    Raises:
        RequestInvalid: it is no such URL.
    """
    try:
        parts = urlsplit(url.rstrip("/"))
    except ValueError as error:
        raise RequestInvalid("the URL of a registry is http(s)://HOST[:PORT]") from error
    if parts.scheme not in {"http", "https"} or not parts.netloc or "@" in parts.netloc:
        raise RequestInvalid("the URL of a registry is http(s)://HOST[:PORT]")
    if parts.path or parts.query or parts.fragment:
        raise RequestInvalid("the URL of a registry ends with its host or port")

    async def fetch(name: RepositoryName, digest: Digest, size: int) -> None:
        there = replace(name.model_name("latest"), host=parts.netloc)
        upstream = upstreams.open(there, insecure=parts.scheme == "http")
        await Download(workshop, upstream, digest, size, lambda tx: ()).run()

    return fetch
