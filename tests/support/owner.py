"""One of those who race: its names, what it does with them, and how they are checked."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from tests.support.gguf import field, gguf

LAYERS = [random.Random(seed).randbytes(seed * 3_000 + 1) for seed in range(24)]
WEIGHTS = [gguf(field("general.architecture", 8, "test"), field("pad", 8, "x" * size))
           for size in (10, 5_000, 90_000)]  # fmt: skip
TAG = "latest"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"

Entry = dict[str, object]


def digest_of(data: bytes) -> str:
    """Of bytes, as text."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Wrong(Exception):
    """Something is not as it has to be."""


class Answer(Protocol):
    """What a server said. `path`: of the `Location`."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def path(self) -> str: ...


class Asker(Protocol):
    """A client of the servers."""

    dice: random.Random

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request."""

    def post(self, path: str, value: object, method: str = "POST") -> Answer:
        """One with a JSON body."""


class Known(NamedTuple):
    """What a name points at."""

    digest: str
    is_model: bool


class Again(Exception):
    """What was to be referred to was collected in the meantime: there is no grace."""


class Owner:
    """Changes names of its own."""

    def __init__(self, number: int, counts: Counter[str]) -> None:
        self.names = [f"team/m{number}x{item}" for item in range(3)]
        self.tags: dict[str, Known] = {}  # acknowledged
        self.others: list[Owner] = []
        self._counts = counts
        self._turns = dict.fromkeys(self.names, 0)  # odd while a name is being changed

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        """Meanwhile a reader may find the name as it was, as it will be, or on its way."""
        self._turns[name] += 1
        try:
            yield
        finally:
            self._turns[name] += 1

    def change(self, client: Asker, name: str) -> None:
        """Do something with a name."""
        deeds = {self.push: 6, self.push_index: 2, self.create: 2, self.copy: 2, self.restore: 1}
        if name in self.tags:
            deeds[self.delete] = 6
        (deed,) = client.dice.choices(list(deeds), list(deeds.values()))
        try:
            deed(client, name)
        except Again:
            self._counts[f"{deed.__name__} again"] += 1
        else:
            self._counts[deed.__name__] += 1

    def expect(self, what: str, answer: Answer, *allowed: int) -> None:
        """It has one of these statuses."""
        if answer.status not in allowed:
            raise Wrong(f"{what}: {answer.status} {answer.body[:300]!r}")

    # ---- images, by the registry protocol

    def push(self, client: Asker, name: str) -> None:
        """A manifest of three layers that others have as well."""
        self._put(client, name, TAG, self._image(client, name), IMAGE)

    def push_index(self, client: Asker, name: str) -> None:
        """Two manifests without a tag, and an index of them."""
        children = []
        for _ in range(2):
            body = self._image(client, name)
            self._put(client, name, digest_of(body), body, IMAGE)
            children.append({"mediaType": IMAGE, "digest": digest_of(body), "size": len(body)})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        self._put(client, name, TAG, json.dumps(index).encode(), INDEX)

    def _image(self, client: Asker, name: str) -> bytes:
        parts = [self._layer(client, name, layer) for layer in client.dice.sample(LAYERS, 3)]
        body = {"schemaVersion": 2, "mediaType": IMAGE, "config": parts[0], "layers": parts[1:]}
        return json.dumps(body).encode()

    def _put(self, client: Asker, name: str, reference: str, body: bytes, kind: str) -> None:
        answer = client.ask("PUT", f"/v2/{name}/manifests/{reference}", body, Content_Type=kind)
        if b"BLOB_UNKNOWN" in answer.body:
            raise Again
        self.expect(f"put {name}", answer, 201)
        if reference == TAG:
            self.tags[name] = Known(digest_of(body), is_model=False)

    def _layer(self, client: Asker, name: str, layer: bytes) -> Entry:
        digest = digest_of(layer)
        while not self._is_there(client, name, digest):  # who is told so has a lease
            client.dice.choice([self._upload, self._send, self._mount])(client, name, layer)
            if client.dice.random() < 0.2:
                break
        return {"mediaType": _LAYER, "digest": digest, "size": len(layer)}

    def _is_there(self, client: Asker, name: str, digest: str) -> bool:
        answer = client.ask("HEAD", f"/v2/{name}/blobs/{digest}")
        self.expect("head", answer, 200, 404)
        return answer.status == 200

    def _upload(self, client: Asker, name: str, layer: bytes) -> None:
        """In one request."""
        path = f"/v2/{name}/blobs/uploads/?digest={digest_of(layer)}"
        self.expect("upload", client.ask("POST", path, layer), 201)

    def _send(self, client: Asker, name: str, layer: bytes) -> None:
        """In a session, whose requests come to this server or that."""
        begun = client.ask("POST", f"/v2/{name}/blobs/uploads/")
        self.expect("begin", begun, 202)
        self._go_on(client, begun.path, layer)

    def _mount(self, client: Asker, name: str, layer: bytes) -> None:
        """Out of another repository; in a session if that has it no more."""
        source = client.dice.choice(client.dice.choice(self.others).names)
        query = f"mount={digest_of(layer)}&from={source}"
        begun = client.ask("POST", f"/v2/{name}/blobs/uploads/?{query}")
        self.expect("mount", begun, 201, 202)
        if begun.status == 202:
            self._go_on(client, begun.path, layer)
        else:
            self._counts["mount"] += 1

    def _go_on(self, client: Asker, path: str, layer: bytes) -> None:
        half = len(layer) // 2
        for first, part in ((0, layer[:half]), (half, layer[half:])):
            if part:
                span = f"{first}-{first + len(part) - 1}"
                self.expect("chunk", client.ask("PATCH", path, part, Content_Range=span), 202)
        mark = "&" if "?" in path else "?"
        self.expect("end", client.ask("PUT", f"{path}{mark}digest={digest_of(layer)}"), 201)
        self._counts["session"] += 1

    # ---- models, by the Ollama API

    def create(self, client: Asker, name: str) -> None:
        """Of weights and a text that others have as well."""
        weights = client.dice.choice(WEIGHTS)
        blob = f"/api/blobs/{digest_of(weights)}"
        if client.ask("HEAD", blob).status == 404:
            self.expect("blob", client.ask("POST", blob, weights), 200, 201)
        wish = {"files": {"w.gguf": digest_of(weights)}, "system": client.dice.choice("abc") * 50}
        answer = client.post("/api/create", {"model": name, "stream": False} | wish)
        if b"blob unknown" in answer.body or b"no such file" in answer.body:
            raise Again
        self.expect("create", answer, 200)
        self._look(client, name, is_model=True)

    def copy(self, client: Asker, name: str) -> None:
        """A model of somebody's, who may be deleting it."""
        known = {key: tag for owner in self.others for key, tag in list(owner.tags.items())}
        models = [key for key, tag in known.items() if tag.is_model and key != name]
        if not models:
            raise Again
        ask = {"source": client.dice.choice(models), "destination": name}
        answer = client.post("/api/copy", ask)
        if answer.status == 404:
            raise Again
        self.expect("copy", answer, 200)
        self._look(client, name, is_model=True)

    def delete(self, client: Asker, name: str) -> None:
        """By whichever way there is."""
        digest, is_model = self.tags[name]
        if is_model and client.dice.random() < 0.7:
            self.expect("delete", client.post("/api/delete", {"model": name}, "DELETE"), 200)
        else:
            reference = client.dice.choice([TAG, digest])
            answer = client.ask("DELETE", f"/v2/{name}/manifests/{reference}")
            self.expect("delete", answer, 202)
        del self.tags[name]
        self.expect("deleted", client.ask("GET", f"/v2/{name}/manifests/{TAG}"), 404)

    def restore(self, client: Asker, name: str) -> None:
        """What it was before its last change, unless that is gone for good."""
        answer = client.post("/api/v1/history", {"model": name})
        if answer.status == 404:
            raise Again
        self.expect("restore", answer, 200)
        if json.loads(answer.body)["digest"] != self._look(client, name, is_model=False):
            raise Wrong(f"{name} was not restored")

    # ---- looking

    def _look(self, client: Asker, name: str, *, is_model: bool) -> str:
        """What an acknowledged change made of a name."""
        answer = client.ask("GET", f"/v2/{name}/manifests/{TAG}")
        self.expect(f"after a change of {name}", answer, 200)
        self.tags[name] = Known(digest_of(answer.body), is_model)
        return self.tags[name].digest

    def learn(self, client: Asker, name: str) -> None:
        """What became of a name whose last change nobody acknowledged."""
        answer = client.ask("GET", f"/v2/{name}/manifests/{TAG}")
        self.expect(f"learn {name}", answer, 200, 404)
        self.tags.pop(name, None)
        if answer.status == 200:
            self.tags[name] = Known(digest_of(answer.body), is_model=False)

    def check(self, client: Asker, name: str, *, settled: bool = False) -> None:
        """Everything is there that a name needs; `settled`: nobody changes it.

        Whatever was read while the name was being changed says nothing.
        """
        turn, known = self._turns[name], self.tags.get(name)
        try:
            self._read(client, name, known)
        except Wrong as wrong:
            if settled or (turn % 2 == 0 and turn == self._turns[name]):
                raise
            self._counts["read on its way"] += bool(wrong)

    def _read(self, client: Asker, name: str, known: Known | None) -> None:
        answer = client.ask("GET", f"/v2/{name}/manifests/{TAG}")
        found = digest_of(answer.body) if answer.status == 200 else None
        if found != (known and known.digest):
            raise Wrong(f"{name} is {found or answer.status}, not {known}")
        if found:
            self._read_parts(client, name, answer.body)
            self._counts["tag read"] += 1

    def _read_parts(self, client: Asker, name: str, body: bytes) -> None:
        manifest = json.loads(body)
        for child in manifest.get("manifests", []):
            data = self._part(client, f"/v2/{name}/manifests/{child['digest']}", child)
            self._read_parts(client, name, data)
        config = [manifest["config"]] if "config" in manifest else []
        for layer in config + manifest.get("layers", []):
            self._part(client, f"/v2/{name}/blobs/{layer['digest']}", layer)

    def _part(self, client: Asker, path: str, part: dict[str, str]) -> bytes:
        answer = client.ask("GET", path)
        if answer.status != 200 or digest_of(answer.body) != part["digest"]:
            raise Wrong(f"{path} is missed: {answer.status}, {answer.body[:300]!r}")
        self._counts["part read"] += 1
        return answer.body
