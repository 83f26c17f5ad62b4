"""A library whose database and store may fail, its client, and what must hold whatever fails.

The client does what clients do: it asks again at once, or gives up and begins anew later. It looks
at each error: a status that says what to do, a sentence, no path.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
from sqlalchemy import NullPool, create_engine, func, literal, select, union_all
from starlette.types import ASGIApp

from registry.adapters.blobs_s3 import S3BlobStore
from registry.adapters.s3_direct import S3Direct
from registry.adapters.tables import metadata
from registry.app import application, build
from registry.core.errors import RegistryError
from registry.lifetime import close
from registry.ports.folder import ModelsFolder
from registry.services import Services
from registry.services.library.strays import Strays
from registry.services.upkeep.adoption import Adoption
from registry.settings import Settings
from tests.support.asgi import Answer, Caller
from tests.support.backends import BACKENDS, leftovers
from tests.support.faults import DATABASE, DISK, FULL, OBJECTS, Faults
from tests.support.faulty_catalog import FaultyCatalog
from tests.support.faulty_store import FaultyDirect, FaultyFolder, FaultyStore, Wire
from tests.support.s3 import KEYS

T = TypeVar("T")

DAY_NS = 86_400 * 10**9
PATIENCE_S = 30.0
SHORT_S = 0.05
CLEAR = {DATABASE: 503, OBJECTS: 503, DISK: 500, FULL: 507}
"""What a client may be told of a failure, and with which status."""
_LASTING = {"tag_event", "job", "secret", "audit", "repository", "spelling", "usage", "replica"}
"""Tables whose rows outlive a model that was deleted."""

_COUNTS = union_all(
    *(
        select(literal(name), func.count()).select_from(table)
        for name, table in metadata.tables.items()
        if name not in _LASTING
    )
)


class GaveUp(Exception):
    """The client was told of an error, and does not ask again."""


class Shaky:
    """The library over a folder, or the other backends; `restart` is a new process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.faults = Faults()
        self.ahead_ns = 0  # of the real time
        self.sweeping: asyncio.Task[None] | None = None
        given = {"redirect": {"push": "always"}, "worker": {"local": "off"}, **settings}
        self.settings = Settings.load({}, data=folder, **given)
        self.services: Services
        self.app: ASGIApp
        self.models_folder: ModelsFolder

    def now(self) -> int:
        """The library's clock."""
        return time.time_ns() + self.ahead_ns

    def start(self) -> None:
        """A process begins."""
        catalog = BACKENDS.catalog(self.folder)
        self.store = store = BACKENDS.store(self.folder)
        self.models_folder = BACKENDS.tags(store, self.folder)
        wire = Wire.of(store, self.faults)
        direct = None
        if isinstance(store, S3BlobStore):
            place = BACKENDS.place(self.folder)
            real = S3Direct(store.bucket, place, KEYS, time.time_ns, strict=True)
            direct = FaultyDirect(real, wire)
        backing = (
            FaultyCatalog(catalog, self.faults),
            FaultyStore(store, self.faults),
            FaultyFolder(self.models_folder, wire),
            direct,
        )
        self.services = build(self.settings, self.now, backing)
        self.app = application(self.services)

    async def stop(self) -> None:
        """It ends, as a server does that is told to."""
        await close(self.services)
        self.store.close()

    def caller(self) -> Caller:
        """Sends requests."""
        return Caller(self.app, {"host": "127.0.0.1:11434"})

    async def restart(self) -> None:
        """One process after the other; what was left due is written before anything is served."""
        await self.stop()
        self.start()
        await self.services.housekeeping.recover()

    async def settle(self) -> None:
        """What a server does in the background after a change; it may fail, and comes again."""
        if self.sweeping is not None:
            await self.sweeping
            self.sweeping = None
        keeping = self.services.housekeeping
        for duty in (lambda: keeping.settle([]), keeping.purge, keeping.finish):
            with suppress(RegistryError):
                await duty()

    async def sweep(self) -> None:
        """What a server does every few minutes."""
        await self.services.uploads.sweep()
        await self.services.housekeeping.sweep()

    async def sweep_meanwhile(self) -> None:
        """Let a sweep go on beside a call, which may have what the sweep waits for."""
        self.sweeping = asyncio.create_task(self.sweep())
        await asyncio.wait({self.sweeping}, timeout=SHORT_S)

    # ---- what must hold

    async def models(self) -> dict[str, str]:
        """Every tag that can be seen, and the digest of its manifest; each was read whole."""
        found = {}
        for path in (await self._json("/v2/_catalog?n=1000"))["repositories"]:
            for tag in (await self._json(f"/v2/{path}/tags/list"))["tags"]:
                found[f"{path}:{tag}"] = await self._read(path, tag)
        return found

    async def _json(self, path: str) -> Any:
        answer = await self.caller()("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return orjson.loads(answer.body)

    async def _read(self, path: str, tag: str) -> str:
        """Read a manifest and all of its blobs."""
        ask = self.caller()
        answer = await ask("GET", f"/v2/{path}/manifests/{tag}", accept="*/*")
        assert answer.status == 200, (path, tag, answer.status, answer.body)
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        assert answer.headers["docker-content-digest"] == digest
        manifest = orjson.loads(answer.body)
        for layer in [manifest["config"], *manifest["layers"]]:
            blob = await ask("GET", f"/v2/{path}/blobs/{layer['digest']}")
            assert blob.status == 200, (path, tag, layer, blob.status, blob.body)
            assert "sha256:" + hashlib.sha256(blob.body).hexdigest() == layer["digest"], layer
        return digest

    async def check_models_folder(self) -> None:
        """The files for a real Ollama say what the catalog says."""
        models = await self.services.catalog.scan(lambda tx: tx.models())
        listed = {model.tag.model.short: model.tag.digest.hex for model in models}
        files = {}
        for name in await self.models_folder.names():
            file = await self.models_folder.read(name)
            assert file is not None
            files[name.short] = hashlib.sha256(file.body).hexdigest()
        assert files == listed

    async def clean(self, keep: Collection[str] = ()) -> None:
        """Delete all models but those, and let days go by: what nothing needs is gone then."""
        for model in await self.models():
            if model not in keep:
                path, _, tag = model.rpartition(":")
                answer = await self.caller()("DELETE", f"/v2/{path}/manifests/{tag}")
                assert answer.status == 202, answer.body
        self.ahead_ns += 40 * DAY_NS
        services = self.services
        await services.uploads.sweep()
        async for _ in services.upkeep.history.dropping(self.now()):
            pass
        async for _ in services.housekeeping.sweeping(0):
            pass
        strays = Strays(services.catalog, services.store, pause_s=0)
        await Adoption(services.manifests, self.models_folder, 3_600, strays, young_s=0).run()
        await services.housekeeping.purge()
        await services.housekeeping.finish()

    def traces(self) -> dict[str, int]:
        """How many rows there are of what passes, objects or files, and bytes on their way."""
        engine = create_engine(BACKENDS.database(self.folder), poolclass=NullPool)
        with engine.connect() as connection:
            found = {name: count for name, count in connection.execute(_COUNTS) if count}
        if isinstance(self.store, S3BlobStore):
            bucket = self.store.bucket
            found["incoming"] = len(leftovers(bucket))
            found["stored"] = len(list(bucket.listed(bucket.path("blobs", ""))))
        else:
            found["incoming"] = len(list((self.folder / "incoming").iterdir()))
            found["stored"] = len(list((self.folder / "blobs").iterdir()))
        return found


async def _awaited(duty: Callable[[], Awaitable[object]]) -> None:
    await duty()


@dataclass
class Client:
    """Asks a library. `again`: what failed is asked for once more, as it was."""

    site: Shaky
    again: bool
    anew: bool = False  # everything is done for the second time
    memory: dict[str, str] = field(default_factory=dict)
    expected: dict[str, str | None] = field(default_factory=dict)
    """What was acknowledged: tags and their digests, empty where it does not matter; None: gone."""

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | object = b"",
        *,
        fine: Collection[int] = (),
        then: Collection[int] = (),
        **headers: str,
    ) -> Answer:
        """Send a request; statuses that are `fine`, and that `then`, at a second try, are so too.

        As where something is to be deleted that is gone by now.
        """
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        answer = await self._once(method, target, content, headers)
        accepted = {*fine, *then} if self.anew else {*fine}
        if answer.status not in accepted and self._failed(answer):
            if not self.again:
                raise GaveUp
            answer = await self._once(method, target, content, headers)
            accepted |= {*then}
        assert answer.status < 400 or answer.status in accepted, (
            f"{method} {target}: {answer.status} {answer.body!r}"
        )
        return answer

    async def _once(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        ask = self.site.caller()
        return await self._patiently(
            ask(method, target, body, leaves=False, breaks_off=False, **headers)
        )

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer, but not for ever, and not when this client is to go away."""
        task = asyncio.create_task(work)
        loop = asyncio.get_running_loop()
        self.site.faults.leave = partial(loop.call_soon_threadsafe, task.cancel)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        assert done, "no answer"
        if task.cancelled():
            raise GaveUp
        return task.result()

    def _failed(self, answer: Answer) -> bool:
        """Whether an answer tells of the failure; then it is one that a client can understand."""
        last = answer.body.rstrip(b"\n").rpartition(b"\n")[2]
        in_stream = answer.status < 400 and last.startswith(b'{"error"')
        if answer.status < 400 and not in_stream:
            return False
        told = answer.body.decode()
        assert self.site.faults.fired, (answer.status, told)
        if not told:  # of a HEAD
            assert answer.status in CLEAR.values()
            return True
        status = next((status for words, status in CLEAR.items() if words in told), None)
        assert status is not None, f"not clear: {answer.status} {told}"
        assert in_stream or answer.status == status, f"{answer.status} {told}"
        assert str(self.site.folder) not in told
        return True

    async def do(self, duty: Callable[[], Awaitable[object]]) -> None:
        """Something that the server does by itself, and again if it failed."""
        try:
            await self._patiently(_awaited(duty))
        except RegistryError as error:
            assert str(error) in CLEAR
            if not self.again:
                raise GaveUp from error
            await duty()
