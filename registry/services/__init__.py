"""Use cases, one per file: no HTTP, no SQL, no path. `Services` is what web and cli receive."""

from collections.abc import Callable
from dataclasses import dataclass

from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.ports.links import Courier, WorkerLinks
from registry.services.accounts import Accounts
from registry.services.adoption import Adoption
from registry.services.audit import Audit
from registry.services.blobs import Blobs
from registry.services.create import Create
from registry.services.direct import DirectUploads
from registry.services.fleet import Fleet
from registry.services.generation import Generation
from registry.services.housekeeping import Housekeeping
from registry.services.inference import Inference
from registry.services.job_desk import JobDesk
from registry.services.listing import Listing
from registry.services.manifests import Manifests
from registry.services.models import Models
from registry.services.muster import Muster
from registry.services.pull import Pull
from registry.services.push import Push
from registry.services.replicas import Replicas
from registry.services.routing import Router
from registry.services.sharing import Sharing
from registry.services.tokens import Tokens
from registry.services.upkeep import Upkeep
from registry.services.uploads import Uploads
from registry.services.usage import Ledger
from registry.services.worker_keys import WorkerKeys
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
    direct: DirectUploads | None  # where the store has an address of its own
    manifests: Manifests
    models: Models
    listing: Listing
    create: Create
    pull: Pull
    push: Push
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
