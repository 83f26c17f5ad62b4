"""The composition root: Settings -> adapters -> services -> application. It knows all layers."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

from registry import logs
from registry.adapters import migrate
from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.models_folder import FolderOnDisk
from registry.adapters.own_process import is_gone, own_name
from registry.adapters.replica_http import ReplicaWire, own_address
from registry.adapters.scratch_file import ScratchFile
from registry.adapters.store_marker import ensure_marker
from registry.adapters.tensors_process import TensorProcesses
from registry.adapters.tensors_quantizer import Program, Quantizer
from registry.adapters.tensors_remote import Elsewhere
from registry.adapters.upstream_http import HttpUpstreams
from registry.adapters.worker_http import Site
from registry.adapters.workers_external import External
from registry.adapters.workers_ollama import OllamaWorker
from registry.adapters.workers_openai import OpenAIWorker
from registry.adapters.workers_remote import RemoteWorkers, Watch
from registry.core.errors import RegistryError
from registry.lifetime import lifetime
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog
from registry.ports.direct import Direct
from registry.ports.fleet import Enlisted
from registry.ports.folder import ModelsFolder
from registry.ports.tensors import TensorWorkshop
from registry.server import collector
from registry.server.run import run_server
from registry.services import Services
from registry.services.access.accounts import Accounts
from registry.services.access.audit import Audit
from registry.services.access.tokens import Tokens
from registry.services.building.conversions import Conversions
from registry.services.building.create import Create
from registry.services.inference.fleet import Fleet
from registry.services.inference.generation import Clocks, Generation
from registry.services.inference.inference import Inference
from registry.services.inference.muster import Muster, Startable, loader
from registry.services.inference.replicas import Replicas
from registry.services.inference.routing import Router
from registry.services.inference.usage import Ledger
from registry.services.inference.waiting import QueueLimits
from registry.services.inference.worker_keys import WorkerKeys
from registry.services.library.blobs import Blobs, Lives
from registry.services.library.housekeeping import Housekeeping, check_place
from registry.services.library.listing import Listing
from registry.services.library.manifests import Manifests
from registry.services.library.models import Models
from registry.services.sharing.efforts import Process
from registry.services.sharing.job_desk import JobDesk
from registry.services.sharing.sharing import Sharing
from registry.services.transfers.pull import Pull
from registry.services.transfers.push import Push
from registry.services.upkeep.adoption import Adoption
from registry.services.upkeep.chores import Chores
from registry.services.upkeep.upkeep import Upkeep
from registry.services.uploading.direct import DirectUploads
from registry.services.uploading.uploads import UploadLimits, Uploads
from registry.settings import Settings, unknown_names
from registry.settings import Worker as WorkerSettings
from registry.web import (
    api_v1,
    auth,
    compat,
    errors,
    health,
    inference,
    metrics,
    oci,
    ollama,
    openapi,
    pages,
    token,
    worker_link,
)
from registry.web.answers import rfc3339
from registry.web.blob_host import BlobHost
from registry.web.credentials import Auth
from registry.web.guard import Guard
from registry.web.hot import Hot, Proof
from registry.web.proxies import Forwarded
from registry.web.resources import not_found
from registry.web.urls import own_names
from registry.workers.engine import find_engine
from registry.workers.local import LOCAL, Library, local_node
from registry.workers.machine import cores

log = structlog.get_logger()
_NS = 1_000_000_000
_S3 = "registry.adapters.s3_storage"  # imported where it is used: the client library is large


Backing = tuple[Catalog, BlobStore, ModelsFolder, Direct | None]
"""What a library stands on; the last is what clients may do with the store by themselves."""


def build(
    settings: Settings, clock: Callable[[], int] | None = None, on: Backing | None = None
) -> Services:
    """Make the adapters and services of a settings; the schema must be up to date."""
    catalog, store, folder, direct = on or backing(settings, clock)
    clock = clock or catalog.now
    retention = settings.retention
    housekeeping = Housekeeping(catalog, store, folder, retention, clock)
    blobs = Blobs(catalog, store, Lives(retention.grace_s * _NS, retention.lease_s * _NS), clock)
    manifests = Manifests(catalog, store, housekeeping, clock)
    models = Models(catalog, store, manifests, housekeeping, clock)
    upstreams = HttpUpstreams(settings)
    sharing = Sharing(catalog, clock, process=Process(own_name(), is_gone))
    router, ledger = _router(settings.worker), Ledger(catalog, clock)
    router.meter.keep_books(ledger.record)
    links = _links(settings, router)
    workshop = Elsewhere(_workshop(settings), links.linked)
    conversions = Conversions(manifests, sharing, workshop, settings)
    inference = Inference(models)
    generation = Generation(router, settings.worker, Clocks(now=clock))
    pull = Pull(sharing, store, upstreams, manifests, settings)
    adoption = Adoption(manifests, folder, retention.leftover_s)
    uploads = Uploads(blobs, _upload_limits(settings))
    upkeep = Upkeep.of(manifests, uploads, adoption, upstreams, settings)
    return Services(
        settings=settings,
        clock=clock,
        catalog=catalog,
        store=store,
        housekeeping=housekeeping,
        adoption=adoption,
        blobs=blobs,
        uploads=uploads,
        upkeep=upkeep,
        chores=Chores(sharing, upkeep),
        direct=_direct(settings, blobs, direct),
        manifests=manifests,
        models=models,
        listing=Listing(catalog, rfc3339, partial(ScratchFile, Path(settings.data))),
        create=Create(manifests, models, conversions, pull.run),
        pull=pull,
        push=Push(catalog, store, upstreams, settings, clock),
        upstreams=upstreams,
        sharing=sharing,
        job_desk=JobDesk(sharing),
        inference=inference,
        generation=generation,
        router=router,
        fleet=Fleet(catalog, clock),
        muster=Muster(catalog, router, partial(_external, settings), loader(inference, generation)),
        ledger=ledger,
        accounts=Accounts(catalog, settings, clock),
        audit=Audit(catalog, retention, clock),
        tokens=Tokens(catalog, settings.credentials, clock),
        links=links,
        replicas=Replicas(catalog, router, _own_url(settings), clock),
        courier=ReplicaWire(),
        worker_keys=WorkerKeys(catalog, clock),
    )


def _router(wanted: WorkerSettings) -> Router:
    limits = QueueLimits(wanted.max_queue, wanted.max_queue_per_model, wanted.queue_s)
    return Router(limits, replicas_max=wanted.replicas_max)


def _links(settings: Settings, router: Router) -> RemoteWorkers:
    marker = ensure_marker(settings.data)
    return RemoteWorkers(Watch(router.add, router.remove, router.crashed, router.refresh, marker))


def _own_url(settings: Settings) -> str:
    """Where other replicas reach this process."""
    if settings.replica_url or not settings.port:
        return settings.replica_url
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.host in {"0.0.0.0", "::", ""}:  # noqa: S104  # compared with, not listened on
        url = resolve(settings.database_url, settings.sqlite_path)
        host = own_address(url.host or "localhost")
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{settings.port}"


def _external(settings: Settings, row: Enlisted, changed: Callable[[], None]) -> Startable:
    """The worker of an existing server."""
    library = settings.external_url
    if not library and settings.is_loopback:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        library = f"http://{host}:{settings.port}"
    external = External(
        row.name, Site.parse(row.url, row.key), row.slots, row.labels, row.models, library
    )
    kind = OllamaWorker if row.kind == "ollama" else OpenAIWorker
    return kind(external, changed)


def _workshop(settings: Settings) -> TensorWorkshop:
    wanted = settings.conversion
    threads, memory = wanted.threads or cores(), wanted.memory_bytes
    own = TensorProcesses(settings.data, threads, memory)
    if not wanted.quantizer:
        return own
    return Quantizer(Program.find(wanted.quantizer, settings.data, threads, memory), own)


def backing(settings: Settings, clock: Callable[[], int] | None = None) -> Backing:
    """The database and the store that a settings names; the clock is the database's by default."""
    catalog = open_catalog(settings.database_url, settings.sqlite_path, settings.database)
    if not settings.storage_url:
        return catalog, FileBlobStore(settings.data), FolderOnDisk(settings.data), None
    found: tuple[BlobStore, ModelsFolder, Direct] = import_module(_S3).open_storage(
        settings, clock or catalog.now
    )
    return catalog, *found


def _direct(settings: Settings, blobs: Blobs, store: Direct | None) -> DirectUploads | None:
    if store is None:
        return None
    return DirectUploads(blobs, store, _upload_limits(settings), settings.direct_url_s)


def _upload_limits(settings: Settings) -> UploadLimits:
    limits = settings.limits
    return UploadLimits(idle_s=limits.upload_idle_s, blob_bytes=limits.blob_bytes)


def application(services: Services) -> ASGIApp:
    """The ASGI application over a bundle of services."""
    routes: list[Route] = [
        *token.routes,  # the registry protocol first: routes are tried in turn
        *oci.routes,
        *ollama.routes,
        *inference.routes,
        *compat.routes,
        *health.routes,
        *metrics.routes,
        *pages.routes,
        *api_v1.routes,
        *worker_link.routes,
        *openapi.routes,
    ]

    def known(path: str) -> bool:
        scope = {"type": "http", "path": path, "method": "GET", "root_path": ""}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    lost = not_found(known)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await lost(request)

    app = Starlette(
        routes=routes,
        exception_handlers={
            RegistryError: errors.answer,
            HTTPException: http_error,
            Exception: errors.crash,
        },
        lifespan=lambda app: lifetime(services),
    )
    app.router.redirect_slashes = False
    app.state.services = services
    app.state.auth = Auth(services)
    app.state.readiness = health.Readiness(services)
    hot = Hot(app, services.catalog.version, _proof(app) if services.settings.auth else None)
    settings = services.settings
    hosted = BlobHost(hot, settings) if settings.blob_base_url else hot
    names = own_names(settings)
    guarded = Guard(hosted, settings.origins, check_host=settings.is_loopback, names=names)
    write = logs.access_writer(settings.log_level, json=settings.log_json)
    logged = logs.AccessLog(guarded, write)
    if not settings.trusted_proxies:
        return logged
    return Forwarded(logged, settings.trusted_proxies, settings.accel_redirect)


def _proof(app: Starlette) -> Proof:
    """Credentials are looked at before routing, for answers that are kept ready."""

    async def proof(scope: Scope) -> bool:
        scope.setdefault("state", {})  # what is found out here need not be found out again
        return await auth.proves(Request({**scope, "app": app}))

    return proof


def prepare(settings: Settings) -> None:
    """Make the data folder and bring the schema up to date.

    Raises:
        RegistryError: the folder or the object store cannot be used, a program that the settings
            name is not there, or the schema is newer than this code.
    """
    Path(settings.data).mkdir(parents=True, exist_ok=True)
    _workshop(settings)
    if settings.storage_url:
        import_module(_S3).check(settings)
    migrate.upgrade(resolve(settings.database_url, settings.sqlite_path))


def serve(settings: Settings, ready: Callable[[int, str | None], None]) -> None:
    """Run the server until SIGTERM or SIGINT.

    `ready` is called once it listens, with the port and the one-time code with which the first
    administrator is made, if there is none yet.
    """
    logs.configure(settings.log_level, json=settings.log_json)
    for name in unknown_names(os.environ):
        log.warning("no such setting", variable=name)
    prepare(settings)
    code = asyncio.run(_setup_code(settings))

    def make() -> ASGIApp:
        services = build(settings)
        add_local_worker(services)
        made = application(services)
        collector.settle()
        return made

    run_server(make, settings, lambda port: ready(port, code))


def add_local_worker(services: Services) -> None:
    """Let this process run models too, if it is to and can; if it cannot, say why."""
    wanted = services.settings.worker
    if wanted.local == "off":
        return
    engine = find_engine(wanted.engine)
    if engine.problem:
        log.warning("models cannot be run on this server", reason=engine.problem)
        services.router.excuse(engine.problem)
        return
    router = services.router
    crashed = partial(router.crashed, LOCAL)
    library = Library(services.catalog, services.store, services.settings.data / "cache")
    router.add(local_node(wanted, engine, library, router.refresh, crashed))


async def _setup_code(settings: Settings) -> str | None:
    catalog = open_catalog(settings.database_url, settings.sqlite_path, settings.database)
    try:
        await check_place(catalog, in_folder=not settings.storage_url)
        return await Accounts(catalog, settings, catalog.now).ensure_setup_code()
    finally:
        await catalog.close()
