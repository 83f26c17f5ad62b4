"""Use cases, one per file: no HTTP, no SQL, no path. `Services` is what web and cli receive."""

from collections.abc import Callable
from dataclasses import dataclass

from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.ports.links import Courier, WorkerLinks
from registry.ports.upstream import Upstreams
from registry.services.access.accounts import Accounts
from registry.services.access.audit import Audit
from registry.services.access.tokens import Tokens
from registry.services.building.create import Create
from registry.services.inference.fleet import Fleet
from registry.services.inference.generation import Generation
from registry.services.inference.inference import Inference
from registry.services.inference.muster import Muster
from registry.services.inference.replicas import Replicas
from registry.services.inference.routing import Router
from registry.services.inference.usage import Ledger
from registry.services.inference.worker_keys import WorkerKeys
from registry.services.library.blobs import Blobs
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.listing import Listing
from registry.services.library.manifests import Manifests
from registry.services.library.models import Models
from registry.services.sharing.job_desk import JobDesk
from registry.services.sharing.sharing import Sharing
from registry.services.transfers.pull import Pull
from registry.services.transfers.push import Push
from registry.services.upkeep.adoption import Adoption
from registry.services.upkeep.chores import Chores
from registry.services.upkeep.upkeep import Upkeep
from registry.services.uploading.direct import DirectUploads
from registry.services.uploading.uploads import Uploads
from registry.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything the edges may call. `clock` gives nanoseconds since the epoch."""

    settings: Settings
    clock: Callable[[], int]
    catalog: Catalog
    store: BlobStore
    housekeeping: Housekeeping
    adoption: Adoption
    blobs: Blobs
    uploads: Uploads
    upkeep: Upkeep
    chores: Chores
    direct: DirectUploads | None  # where the store has an address of its own
    manifests: Manifests
    models: Models
    listing: Listing
    create: Create
    pull: Pull
    push: Push
    upstreams: Upstreams
    sharing: Sharing
    job_desk: JobDesk
    inference: Inference
    generation: Generation
    router: Router
    fleet: Fleet
    muster: Muster
    ledger: Ledger
    accounts: Accounts
    audit: Audit
    tokens: Tokens
    links: WorkerLinks
    replicas: Replicas
    courier: Courier
    worker_keys: WorkerKeys
