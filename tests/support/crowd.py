"""Clients that push, pull and list all the time, and remember what they were told.

What was acknowledged has to be there ever after, byte for byte; of what was refused or broke off
either the old or the new may be there, whole. A refusal is counted if it is one that a client can
live with (503 with `Retry-After`, 507); everything else is written down as wrong.
"""

import contextlib
import hashlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support import gguf
from tests.support.tally import Tally

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SIZES = (100, 3_000, 70_000, 300_000, 1_500_000)
_NAMES = 12  # of each client and kind
_TIMEOUT_S = 120.0  # a client of ours gives up; it must not come to that
_TRIES = 4
_BROKEN = (OSError, http.client.HTTPException)


class Refused(Exception):
    """Not now: 503, 507."""


class Wrong(Exception):
    """Something that must not happen."""


class Lost(Wrong):
    """Something acknowledged is not there, or not as it was."""


def digest_of(data: bytes) -> str:
    """Its digest, as the protocol writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Answer:
    """Of one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Crowd:
    """All clients of a place, and what they know in common."""

    def __init__(self, ports: Sequence[int], count: int, seed: int) -> None:
        self.ports = list(ports)
        self.tally = Tally()
        self.wrong: list[str] = []
        self.healed_at: float | None = None
        self.recovered_at: float | None = None
        self.lock = threading.Lock()
        self._going = threading.Event()
        self._over = False
        self.clients = [Client(self, number, seed + number) for number in range(count)]

    def __enter__(self) -> "Crowd":
        for client in self.clients:
            client.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._going.set()
        for client in self.clients:
            client.thread.join(2 * _TIMEOUT_S)

    def work(self) -> None:
        """Let the clients go on."""
        self._going.set()

    def rest(self) -> None:
        """Let them finish what they are at, and wait for it."""
        self._going.clear()
        for client in self.clients:
            assert client.idle.wait(2 * _TIMEOUT_S), "a request that does not end"

    def turn(self, client: "Client") -> bool:
        """Wait until the client may begin something; False at the end."""
        if not self._going.is_set():
            client.idle.set()
            self._going.wait()
            client.idle.clear()
        return not self._over

    def note(self, answer: Answer | None, took_s: float) -> None:
        """Count a request."""
        with self.lock:
            tally = self.tally
            tally.requests += 1
            tally.slowest_s = max(tally.slowest_s, took_s)
            if answer is None:
                tally.broken += 1
            elif answer.status >= 500:
                tally.refused[answer.status] += 1

    def acknowledged(self) -> None:
        """Count a push that was answered well."""
        with self.lock:
            self.tally.acknowledged += 1
            if self.healed_at is not None and self.recovered_at is None:
                self.recovered_at = time.monotonic()

    def heal(self) -> None:
        """The trouble is over: the next success is the recovery."""
        with self.lock:
            self.healed_at, self.recovered_at = time.monotonic(), None

    def recovery(self, patience_s: float) -> float:
        """How long it took, once it is there."""
        assert self.healed_at is not None
        while self.recovered_at is None and time.monotonic() < self.healed_at + patience_s:
            time.sleep(0.02)
        return (self.recovered_at or time.monotonic()) - self.healed_at

    def blame(self, deed: str, error: Exception) -> None:
        """Write down what must not happen."""
        with self.lock:
            self.wrong.append(f"{deed}: {type(error).__name__} {error}")
            self.tally.lost += isinstance(error, Lost)

    def check(self) -> None:
        """Read everything acknowledged, whole; only while they rest, and nothing is in trouble."""
        for client in self.clients:
            client.check()


class Client:
    """One of them, with names of its own."""

    def __init__(self, crowd: Crowd, number: int, seed: int) -> None:
        self.crowd, self.number = crowd, number
        self.dice = random.Random(seed)
        self.thread = threading.Thread(target=self._run, name=f"client-{number}", daemon=True)
        self.idle = threading.Event()
        self.images: dict[str, set[str]] = {}  # tag -> the manifests that it may be now
        self.models: dict[str, set[str]] = {}  # model -> the system texts that it may have
        self._deeds = (
            self.push_chunked,
            self.push_whole,
            self.push_model,
            self.copy,
            self.pull,
            self.pull,
            self.look_up,
        )

    def _run(self) -> None:
        while self.crowd.turn(self):
            deed = self.dice.choice(self._deeds)
            try:
                deed()
            except (Refused, *_BROKEN):
                time.sleep(0.1)
            except (Wrong, KeyError, ValueError) as error:
                self.crowd.blame(deed.__name__, error)
                time.sleep(0.1)
            time.sleep(0.02)
        self.idle.set()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        expect: Sequence[int] = (200,),
    ) -> Answer:
        """One request, by a connection of its own and so to any replica."""
        began, answer = time.monotonic(), None
        try:
            answer = self._ask(method, path, body, headers or {})
        finally:
            self.crowd.note(answer, time.monotonic() - began)
        if answer.status in expect:
            return answer
        said = f"{method} {path}: {answer.status} {answer.body[:300]!r}"
        if answer.status == 503 and not answer.headers["Retry-After"]:
            raise Wrong(f"{said} without Retry-After")
        if answer.status in (503, 507):
            raise Refused(said)
        raise Wrong(said)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        with contextlib.closing(self._connect()) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            short = method != "HEAD" and int(answer.headers.get("Content-Length", len(data)))
            if short and short != len(data):
                raise http.client.IncompleteRead(data)
            return Answer(answer.status, answer.headers, data)

    def _connect(self) -> http.client.HTTPConnection:
        """To any replica, as a balancer does it: one that is not there is passed over."""
        for port in self.dice.sample(self.crowd.ports, len(self.crowd.ports)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
            with contextlib.suppress(ConnectionRefusedError):
                connection.connect()
                return connection
        raise ConnectionRefusedError

    # ---- pushes

    def push_chunked(self) -> None:
        """Over `/v2/`, the layer in pieces, going on where a piece was lost."""
        name = self._image("c")
        data = self._bytes()
        path = _path_of(self.ask("POST", f"/v2/{name}/blobs/uploads/", expect=(202,)))
        path = self._send(path, data)
        self.ask("PUT", f"{path}{_also(path)}digest={digest_of(data)}", expect=(201,))
        self._push_manifest(name, data)

    def _send(self, path: str, data: bytes) -> str:
        offset, failures = 0, 0
        while offset < len(data):
            piece = data[offset : offset + max(1, len(data) // 3)]
            span = {"Content-Range": f"{offset}-{offset + len(piece) - 1}"}
            try:
                given_up = (404,) if failures else ()  # where there was no room
                answer = self.ask("PATCH", path, piece, span, expect=(202, *given_up))
                if answer.status != 202:
                    raise Refused(path)
                path = _path_of(answer)
                offset += len(piece)
            except (Refused, *_BROKEN):
                failures += 1
                if failures > _TRIES:
                    raise
                time.sleep(0.3)
                path, offset = self._where(path)
        return path

    def _where(self, path: str) -> tuple[str, int]:
        """Where an upload stands."""
        answer = self.ask("GET", path, expect=(204, 404))
        if answer.status == 404:  # where there was no room, it was given up
            raise Refused(path)
        last = answer.headers["Range"]  # "0-0" is said of nothing, too; no piece is one byte long
        return _path_of(answer), 0 if last == "0-0" else int(last.rpartition("-")[2]) + 1

    def push_whole(self) -> None:
        """Over `/v2/`, the layer in one request."""
        name = self._image("s")
        data = self._bytes()
        self._post_blob(name, data)
        self._push_manifest(name, data)

    def _post_blob(self, name: str, data: bytes) -> None:
        path = f"/v2/{name}/blobs/uploads/?digest={digest_of(data)}"
        self.ask("POST", path, data, {"Content-Type": "application/octet-stream"}, expect=(201,))

    def _push_manifest(self, name: str, data: bytes) -> None:
        self._post_blob(name, b"{}")
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor("application/x.config", b"{}"),
                "layers": [_descriptor(_LAYER, data)],
            }
        ).encode()
        known = self.images.setdefault(name, {""})
        known.add(digest_of(body))
        self.ask("PUT", f"/v2/{name}/manifests/1", body, {"Content-Type": _MANIFEST}, expect=(201,))
        self.images[name] = {digest_of(body)}
        self.crowd.acknowledged()

    def push_model(self) -> None:
        """As Ollama's own tools do: the file first, then a create from it."""
        name, system = self._model("m"), f"system {self.dice.random()}"
        field = gguf.field("general.architecture", 8, "test")
        pad = gguf.field("pad", 8, str(self.dice.random()) * self.dice.choice((1, 3_000)))
        data = gguf.gguf(pad, field)
        self.ask("POST", f"/api/blobs/{digest_of(data)}", data, expect=(200, 201))
        wish = {"model": name, "files": {"m.gguf": digest_of(data)}, "system": system}
        known = self.models.setdefault(name, {""})
        known.add(system)
        self._post("/api/create", {**wish, "stream": False})
        self.models[name] = {system}
        self.crowd.acknowledged()

    def copy(self) -> None:
        """One of one's models under another name."""
        sure = self._sure(self.models)
        if not sure:
            return
        source, target = self.dice.choice(sure), self._model("k")
        if source == target:
            return
        known = self.models.setdefault(target, {""})
        known.update(self.models[source])
        self._post("/api/copy", {"source": source, "destination": target})
        self.models[target] = set(self.models[source])
        self.crowd.acknowledged()

    def _post(self, path: str, wish: dict[str, object]) -> Answer:
        return self.ask("POST", path, json.dumps(wish).encode())

    # ---- reads

    def pull(self) -> None:
        """Something that was acknowledged."""
        images, models = self._sure(self.images), self._sure(self.models)
        if images and self.dice.random() < 0.6:
            self.pull_image(self.dice.choice(images))
        elif models:
            self.pull_model(self.dice.choice(models))

    def pull_image(self, name: str) -> None:
        """A manifest that may be there, and all that it names."""
        found = self._pull(f"/v2/{name}/manifests/1", f"/v2/{name}/blobs")
        self._expect(name, digest_of(found[0]) if found else "", self.images[name])

    def pull_model(self, name: str) -> None:
        """The same of a model."""
        found = self._pull(f"/v2/library/{name}/manifests/latest", f"/v2/library/{name}/blobs")
        texts = [text.decode() for text in found if text.startswith(b"system ")]
        self._expect(name, texts[0] if texts else "", self.models[name])

    def _pull(self, path: str, blobs: str) -> list[bytes]:
        answer = self.ask("GET", path, expect=(200, 404))
        if answer.status == 404:
            return []
        parts = [answer.body]
        manifest = json.loads(answer.body)
        for part in [manifest["config"], *manifest["layers"]]:
            found = self.ask("GET", f"{blobs}/{part['digest']}", expect=(200, 404))
            if found.status == 404 or digest_of(found.body) != part["digest"]:
                raise Lost(f"{path}: {part['digest']}: {found.status}, {len(found.body)} bytes")
            parts.append(found.body)
        return parts

    def _expect(self, name: str, found: str, known: set[str]) -> None:
        if found not in known:
            raise Lost(f"{name}: {found or 'nothing'} instead of {known}")
        self.crowd.tally.read += 1

    def look_up(self) -> None:
        """The list has what was acknowledged."""
        sure = self._sure(self.models)
        models = json.loads(self.ask("GET", "/api/tags").body)["models"]
        names = {item["name"].removesuffix(":latest") for item in models}
        if missing := set(sure) - names:
            raise Lost(f"{missing}: not in the list of {len(names)}")

    def check(self) -> None:
        """Everything; then it is known what became of the rest, too."""
        for name in self.images:
            self._checked(self.pull_image, name)
        for name in self.models:
            self._checked(self.pull_model, name)
        self._checked(lambda _: self.look_up(), "")

    def _checked(self, look: Callable[[str], None], name: str) -> None:
        try:
            look(name)
        except (Refused, Wrong, *_BROKEN) as error:
            self.crowd.blame("check", error)

    # ---- names and bytes

    def _image(self, kind: str) -> str:
        return f"team/{kind}{self.number}x{self.dice.randrange(_NAMES)}"

    def _model(self, kind: str) -> str:
        return f"{kind}{self.number}x{self.dice.randrange(_NAMES)}"

    def _bytes(self) -> bytes:
        return self.dice.randbytes(self.dice.choice(_SIZES))

    def _sure(self, known: dict[str, set[str]]) -> list[str]:
        return [name for name, found in known.items() if "" not in found]


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def _path_of(answer: Answer) -> str:
    """The path of where an upload goes on, at whichever replica."""
    return "/" + answer.headers["Location"].partition("//")[2].partition("/")[2]


def _also(path: str) -> str:
    return "&" if "?" in path else "?"
