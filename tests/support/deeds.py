"""What clients and the server do with a library, each in two steps: what comes before, and it.

Each is done many times in one library: `n` makes names and bytes different each time.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from anyio import to_thread

from registry.core.digest import Digest
from registry.core.names import ModelName
from registry.ports.catalog import FolderChange, Transaction
from tests.support.gguf import field, gguf
from tests.support.shaky import Client
from tests.support.upstream import ScriptedRegistry, manifest_of

_ARCHITECTURE = field("general.architecture", 8, "test")
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_JSON = "application/json"
_BYTES = {"content-type": "application/octet-stream"}
_PART = 8 << 20
"""The smallest that is sent to an object store by itself."""


@dataclass(frozen=True)
class Bench:
    """What a deed is done with."""

    client: Client
    other: ScriptedRegistry
    n: int

    @property
    def config(self) -> bytes:
        return b'{"n":%d}' % self.n

    @property
    def weights(self) -> bytes:
        return gguf(_ARCHITECTURE, field("general.name", 8, f"number {self.n} " + "x" * 5000))

    @property
    def manifest(self) -> bytes:
        return manifest_of([self.weights], self.config)

    @property
    def path(self) -> str:
        return f"team/m{self.n}"

    def note(self, model: str, body: bytes | None = None) -> None:
        """A model was acknowledged."""
        self.client.expected[model] = digest_of(body) if body is not None else ""


Step = Callable[[Bench], Awaitable[None]]


async def _nothing(bench: Bench) -> None:
    """Nothing comes before."""


@dataclass(frozen=True)
class Deed:
    """`act` is where calls fail; `before` is what it needs.

    `direct`: of an object store alone. `mends`: what comes before left something damaged.
    """

    name: str
    act: Step
    before: Step = _nothing
    direct: bool = False
    mends: bool = False


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


# ---- pushes


async def _put_manifest(bench: Bench, body: bytes | None = None, path: str = "") -> None:
    path, body = path or bench.path, body or bench.manifest
    target = f"/v2/{path}/manifests/v1"
    await bench.client.ask("PUT", target, body, content_type=_MANIFEST)
    bench.note(f"{path}:v1", body)


async def _put_blob(bench: Bench, data: bytes, path: str = "") -> None:
    """In one request."""
    target = f"/v2/{path or bench.path}/blobs/uploads/?digest={digest_of(data)}"
    await bench.client.ask("POST", target, data)


async def _push(bench: Bench, path: str = "") -> None:
    for data in (bench.weights, bench.config):
        await _put_blob(bench, data, path)
    await _put_manifest(bench, path=path)


async def _begin(bench: Bench) -> str:
    answer = await bench.client.ask("POST", f"/v2/{bench.path}/blobs/uploads/")
    return urlsplit(answer.headers["location"]).path


async def _patch(bench: Bench, session: str, start: int, data: bytes) -> None:
    span = f"{start}-{start + len(data) - 1}"
    await bench.client.ask("PATCH", session, data, content_range=span)


async def _finish(bench: Bench, session: str, data: bytes, rest: bytes = b"") -> None:
    await bench.client.ask("PUT", f"{session}?digest={digest_of(data)}", rest)


async def push_in_chunks(bench: Bench) -> None:
    data, half = bench.weights, len(bench.weights) // 2
    session = await _begin(bench)
    await _patch(bench, session, 0, data[:half])
    await _patch(bench, session, half, data[half:])
    await _finish(bench, session, data)
    await _put_blob(bench, bench.config)
    await _put_manifest(bench)


async def push_whole(bench: Bench) -> None:
    for data in (bench.weights, bench.config):
        target = f"/v2/{bench.path}/blobs/{digest_of(data)}"
        await bench.client.ask("HEAD", target, fine={404})
        session = await _begin(bench)
        await _finish(bench, session, data, data)
        await bench.client.ask("HEAD", target)
    await _put_manifest(bench)


async def push_in_place(bench: Bench) -> None:
    """Another manifest under a tag: the old one loses it."""
    body = manifest_of([bench.weights], bench.config + b" ")
    await _put_blob(bench, bench.config + b" ")
    await _put_manifest(bench, body)


async def begin_upload(bench: Bench) -> None:
    session = await _begin(bench)
    await _patch(bench, session, 0, bench.weights[:2000])
    bench.client.memory["session"] = session
    await bench.client.site.restart()


async def resume_upload(bench: Bench) -> None:
    session = bench.client.memory["session"]
    answer = await bench.client.ask("GET", session, then={404})
    if answer.status == 404:  # it was finished, or had no room
        await push_whole(bench)
        return
    begin = int(answer.headers["range"].partition("-")[2]) + 1
    if begin < len(bench.weights):
        await _patch(bench, session, begin, bench.weights[begin:])
    await _finish(bench, session, bench.weights)
    await _put_blob(bench, bench.config)
    await _put_manifest(bench)


async def cancel_upload(bench: Bench) -> None:
    await bench.client.ask("DELETE", bench.client.memory["session"], then={404})


async def mount(bench: Bench) -> None:
    path = f"other/m{bench.n}"
    for data in (bench.weights, bench.config):
        target = f"/v2/{path}/blobs/uploads/?mount={digest_of(data)}&from={bench.path}"
        answer = await bench.client.ask("POST", target)
        assert answer.status == 201
    await _put_manifest(bench, path=path)


async def set_quota(bench: Bench) -> None:
    """Room for what comes, and for a session whose client was never told of it."""
    room = 2 * len(bench.weights) + len(bench.config)
    ask = {"namespace": f"q{bench.n}", "bytes": room}
    await bench.client.ask("PUT", "/api/v1/quotas", ask, content_type=_JSON)


async def push_into_quota(bench: Bench) -> None:
    path = f"q{bench.n}/m"
    answer = await bench.client.ask(
        "POST", f"/v2/{path}/blobs/uploads/", x_content_length=str(len(bench.weights))
    )
    await _finish(bench, urlsplit(answer.headers["location"]).path, bench.weights, bench.weights)
    await _put_blob(bench, bench.config, path)
    await _put_manifest(bench, path=path)
    await bench.client.ask("DELETE", f"/api/v1/quotas?namespace=q{bench.n}", then={404})


async def push_parts(bench: Bench) -> None:
    """Two parts that the client sends to the object store itself."""
    data = bench.weights + bytes(_PART)
    session = await _begin(bench)
    for start, stop in ((0, _PART), (_PART, len(data))):
        answer = await bench.client.ask(
            "PATCH",
            session,
            x_redirect_uploads="1",
            content_range=f"{start}-{stop - 1}",
            content_length=str(stop - start),
        )
        assert answer.status == 307
        await _send(answer.headers["location"], data[start:stop])
    await bench.client.ask("PUT", f"{session}?digest={digest_of(data)}", x_redirect_uploads="1")
    await _put_blob(bench, bench.config)
    await _put_manifest(bench, manifest_of([data], bench.config))


async def push_direct(bench: Bench) -> None:
    """A blob that the client sends to the object store in one request."""
    data = bench.weights
    query = f"?digest={digest_of(data)}"
    answer = await bench.client.ask(
        "POST",
        f"/v2/{bench.path}/blobs/uploads/{query}",
        x_redirect_uploads="2",
        x_content_length=str(len(data)),
        content_length="0",
    )
    prefix = "x-signed-header-"
    given = {k[len(prefix) :]: v for k, v in answer.headers.items() if k.startswith(prefix)}
    await _send(answer.headers["x-direct-upload-url"], data, given)
    session = urlsplit(answer.headers["location"]).path
    await bench.client.ask("PUT", session + query, x_redirect_uploads="2")
    await _put_blob(bench, bench.config)
    await _put_manifest(bench)


async def _send(url: str, data: bytes, headers: Mapping[str, str] = _BYTES) -> None:
    """PUT to the object store."""

    def send() -> None:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.netloc, timeout=20)
        connection.request("PUT", f"{parts.path}?{parts.query}", data, dict(headers))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()

    await to_thread.run_sync(send)


# ---- names


async def copy(bench: Bench) -> None:
    ask = {"source": f"{bench.path}:v1", "destination": f"copied/m{bench.n}:v1"}
    await bench.client.ask("POST", "/api/copy", ask)
    bench.note(f"copied/m{bench.n}:v1", bench.manifest)


async def delete(bench: Bench) -> None:
    await bench.client.ask("DELETE", "/api/delete", {"model": f"{bench.path}:v1"}, then={404})
    bench.client.expected[f"{bench.path}:v1"] = None


async def delete_manifest(bench: Bench) -> None:
    target = f"/v2/{bench.path}/manifests/{digest_of(bench.manifest)}"
    await bench.client.ask("DELETE", target, then={404})
    bench.client.expected[f"{bench.path}:v1"] = None


async def create_from_model(bench: Bench) -> None:
    ask = {"model": f"made/m{bench.n}:v1", "from": f"{bench.path}:v1", "system": f"say {bench.n}"}
    await bench.client.ask("POST", "/api/create", ask)
    bench.note(f"made/m{bench.n}:v1")


async def create_from_gguf(bench: Bench) -> None:
    digest = digest_of(bench.weights)
    await bench.client.ask("HEAD", f"/api/blobs/{digest}", fine={404})
    await bench.client.ask("POST", f"/api/blobs/{digest}", bench.weights)
    ask = {"model": f"made/m{bench.n}:v1", "files": {"a.gguf": digest}, "template": f"{bench.n}"}
    await bench.client.ask("POST", "/api/create", ask)
    bench.note(f"made/m{bench.n}:v1")


async def pull(bench: Bench) -> None:
    body = bench.other.add(f"a/m{bench.n}:v1", [bench.weights], bench.config)
    name = f"{bench.other.host}/a/m{bench.n}:v1"
    await bench.client.ask("POST", "/api/pull", {"model": name, "insecure": True})
    bench.note(name, body)


async def copy_for_push(bench: Bench) -> None:
    await _push(bench)
    ask = {"source": f"{bench.path}:v1", "destination": f"{bench.other.host}/b/m{bench.n}:v1"}
    await bench.client.ask("POST", "/api/copy", ask)


async def push_elsewhere(bench: Bench) -> None:
    name = f"{bench.other.host}/b/m{bench.n}:v1"
    await bench.client.ask("POST", "/api/push", {"model": name, "insecure": True})
    assert bench.other.manifests[f"b/m{bench.n}:v1"] == bench.manifest
    for data in (bench.weights, bench.config):
        assert bench.other.blobs[digest_of(data)] == data


# ---- upkeep


async def leave_garbage(bench: Bench) -> None:
    """Blobs of no model, one of them of an upload under way; a model without a tag."""
    await _push(bench)
    await push_in_place(bench)
    await bench.client.ask("POST", f"/api/blobs/{digest_of(b'%d' % bench.n)}", b"%d" % bench.n)
    session = await _begin(bench)
    await _patch(bench, session, 0, bench.weights[:2000])
    bench.client.memory["session"] = session


async def collect(bench: Bench) -> None:
    ask = {"grace_s": 0, "untagged": True}
    await bench.client.ask("POST", "/api/v1/gc", ask, content_type=_JSON)
    answer = await bench.client.ask("GET", bench.client.memory["session"])
    assert answer.headers["range"] == "0-1999"


async def scrub(bench: Bench) -> None:
    await bench.client.ask("POST", "/api/v1/scrub", {}, content_type=_JSON)


async def damage(bench: Bench) -> None:
    """A blob is found to be wrong."""
    await _push(bench)
    digest = Digest.parse(digest_of(bench.weights))
    catalog = bench.client.site.services.catalog

    def work(tx: Transaction) -> None:
        blob = tx.blob(digest)
        assert blob is not None
        assert tx.suspect(digest, blob.storage_key, bench.client.site.now())

    await catalog.write(work)


async def rule(bench: Bench) -> None:
    """Two tags, of which the rule keeps one."""
    await _push(bench)
    ask = {"source": f"{bench.path}:v1", "destination": f"{bench.path}:v2"}
    await bench.client.ask("POST", "/api/copy", ask)
    bench.note(f"{bench.path}:v2", bench.manifest)
    rule = {"pattern": bench.path, "keep_last": 1}
    await bench.client.ask("PUT", "/api/v1/retention", rule, content_type=_JSON)


async def retain(bench: Bench) -> None:
    ask = {"dry_run": False}
    await bench.client.ask("POST", "/api/v1/retention", ask, content_type=_JSON)
    bench.client.expected[f"{bench.path}:v1"] = None
    target = f"/api/v1/retention?pattern={bench.path}"
    await bench.client.ask("DELETE", target, then={404})


async def bring_folder(bench: Bench) -> None:
    """A model that another program put into the folder."""
    site = bench.client.site

    def put() -> None:
        contents = (bench.weights, bench.config)
        site.store.put({site.store.new_key(Digest.of(data)): data for data in contents})
        name = ModelName.parse(f"{bench.path}:v1")
        site.models_folder.apply([FolderChange(0, name, bench.manifest)])

    await to_thread.run_sync(put)


async def adopt(bench: Bench) -> None:
    """What could not be read is left to the next look."""
    run = bench.client.site.services.adoption.run
    await bench.client.do(run)
    if bench.client.site.faults.fired:
        await bench.client.do(run)
    bench.note(f"{bench.path}:v1", bench.manifest)


async def sweep(bench: Bench) -> None:
    site = bench.client.site
    for duty in (site.services.uploads.sweep, site.services.housekeeping.sweep):
        await bench.client.do(duty)


DEEDS = (
    Deed("push in chunks", push_in_chunks),
    Deed("push whole", push_whole),
    Deed("push in place", push_in_place, _push),
    Deed("resume an upload", resume_upload, begin_upload),
    Deed("cancel an upload", cancel_upload, begin_upload),
    Deed("mount", mount, _push),
    Deed("push into a quota", push_into_quota, set_quota),
    Deed("push parts to the store", push_parts, direct=True),
    Deed("push whole to the store", push_direct, direct=True),
    Deed("copy", copy, _push),
    Deed("delete", delete, _push),
    Deed("delete a manifest", delete_manifest, _push),
    Deed("create from a model", create_from_model, _push),
    Deed("create from GGUF", create_from_gguf),
    Deed("pull", pull),
    Deed("push elsewhere", push_elsewhere, copy_for_push),
    Deed("collect", collect, leave_garbage),
    Deed("sweep", sweep, leave_garbage),
    Deed("scrub", scrub, _push),
    Deed("push what is damaged", push_whole, damage, mends=True),
    Deed("retain", retain, rule),
    Deed("adopt", adopt, bring_folder),
)
