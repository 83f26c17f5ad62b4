"""Real clients sign in: the ollama client with its own key, skopeo with password and API key.

Needs `ollama` (in PATH, or named by OLLAMA) and `skopeo`; where one is missing, it is skipped.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from registry.app import build
from registry.core.access import Group, Right, Visibility
from registry.core.digest import Digest
from registry.services.access.accounts import Accounts
from registry.services.access.keys import ApiKeyWish
from tests.support.backends import BACKENDS
from tests.support.ports import free_port
from tests.support.secured import model
from tests.support.server import Server, running

T = TypeVar("T")

OLLAMA = os.environ.get("OLLAMA") or shutil.which("ollama")
SKOPEO = shutil.which("skopeo")
GGUF = Path(__file__).resolve().parents[1] / "golden" / "inputs" / "llama.gguf"
PASSWORD = "correct horse battery"

needs_ollama = pytest.mark.skipif(not OLLAMA, reason="no ollama here")
needs_skopeo = pytest.mark.skipif(not SKOPEO, reason="no skopeo here")


@dataclass
class Place:
    """A started server with authentication on."""

    server: Server

    def accounts(self, work: Callable[[Accounts], Awaitable[T]]) -> T:
        """Administer, from another process than the server's."""

        async def run() -> T:
            services = build(BACKENDS.settings(self.server.data, auth=True))
            try:
                return await work(services.accounts)
            finally:
                await services.accounts.close()
                await services.audit.close()
                await services.catalog.close()

        return asyncio.run(run())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("server") / "data", REGISTRY_AUTH="true") as server:
        made = Place(server)

        async def people(accounts: Accounts) -> None:
            for name in ("alice", "bob"):
                await accounts.create_user(name, PASSWORD)
            await accounts.grant("user:alice", "team/*", Right.READ | Right.WRITE | Right.DELETE)
            await accounts.grant("user:bob", "team/*", Right.READ)

        made.accounts(people)
        yield made


@dataclass
class Ollama:
    """A real `ollama serve` with a home of its own, where it made its key."""

    home: Path
    port: int

    @property
    def environ(self) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OLLAMA", "REGISTRY"))}
        return env | {
            "HOME": str(self.home),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.home / "models"),
        }

    @property
    def key(self) -> str:
        return (self.home / ".ollama" / "id_ed25519.pub").read_text().strip()

    def run(self, *words: str, **environ: str) -> tuple[int, str]:
        assert OLLAMA is not None
        done = subprocess.run(
            [OLLAMA, *words], env=self.environ | environ, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    def create(self, name: str) -> None:
        """Put a small model into its store."""
        config, layer = b'{"model_format":"gguf"}', GGUF.read_bytes()
        folder = self.home / "models" / "blobs"
        folder.mkdir(parents=True, exist_ok=True)
        for data in (config, layer):
            (folder / Digest.of(data).file_name).write_bytes(data)
        path, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
        file = self.home / "models" / "manifests" / path / (tag or "latest")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(model(config, layer))


@contextlib.contextmanager
def ollama(home: Path) -> Iterator[Ollama]:
    assert OLLAMA is not None
    home.mkdir(parents=True, exist_ok=True)
    made = Ollama(home, free_port())
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([OLLAMA, "serve"], env=made.environ, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{made.port}/", timeout=2):
                    break
            except OSError:
                assert time.monotonic() < deadline, "ollama did not start"
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def add_key(place: Place, name: str, key: str, rights: Right = Right.ALL) -> str:
    """Attach a key to somebody; its fingerprint."""

    async def work(accounts: Accounts) -> str:
        account = await accounts.named(name)
        return (await accounts.add_public_key(account.id, key, rights=rights)).fingerprint

    return place.accounts(work)


def remove_key(place: Place, fingerprint: str) -> None:
    async def work(accounts: Accounts) -> None:
        await accounts.remove_public_key(fingerprint)

    place.accounts(work)


@needs_ollama
def test_an_ollama_client_pushes_and_pulls_with_its_own_key(place: Place, tmp_path: Path) -> None:
    name = f"{place.server.address}/team/Tiny-3.Q4:8b"
    with ollama(tmp_path / "home") as client:
        client.create(name)
        code, said = client.run("push", "--insecure", name)
        assert code != 0
        fingerprint = re.search(r"SHA256:[A-Za-z0-9+/]{43}", said)
        link = re.search(rf"http://{re.escape(place.server.address)}/ui/enrol/([0-9A-Z-]+)", said)
        assert fingerprint, said
        assert link, said
        assert "is not registered" in said

        async def confirm(accounts: Accounts) -> str:
            alice = await accounts.named("alice")
            assert link is not None
            return (await accounts.confirm_enrolment(link[1], alice.id)).fingerprint

        assert place.accounts(confirm) == fingerprint[0]
        code, said = client.run("push", "--insecure", name)
        assert code == 0, said
        assert client.run("rm", name)[0] == 0
        code, said = client.run("pull", "--insecure", name)
        assert code == 0, said

        # the same key, but for reading only
        add_key(place, "alice", client.key, Right.READ)
        assert client.run("pull", "--insecure", name)[0] == 0
        client.run("cp", name, f"{place.server.address}/team/other")
        code, said = client.run("push", "--insecure", f"{place.server.address}/team/other")
        assert code != 0
        assert "has no right to" in said, said

        # and revoked
        remove_key(place, fingerprint[0])
        client.run("rm", name)
        code, said = client.run("pull", "--insecure", name)
        assert code != 0
        assert "is not registered" in said, said


@needs_ollama
def test_a_key_without_rights_is_told_whose_it_is(place: Place, tmp_path: Path) -> None:
    name = f"{place.server.address}/alice/mine"
    with ollama(tmp_path / "home") as client:
        add_key(place, "bob", client.key)
        client.create(name)
        code, said = client.run("push", "--insecure", name)
        assert code != 0
        assert "of bob has no right to" in said, said
        code, said = client.run("pull", "--insecure", f"{place.server.address}/alice/none")
        assert code != 0
        assert "has no right to" in said, said
        code, said = client.run("pull", "--insecure", f"{place.server.address}/team/none")
        assert "file does not exist" in said, said


@needs_ollama
def test_what_is_public_is_pulled_with_any_key_or_none(place: Place, tmp_path: Path) -> None:
    name = f"{place.server.address}/alice/open"

    async def publish(accounts: Accounts) -> None:
        await accounts.set_policy("alice/open", Visibility.PUBLIC)

    with ollama(tmp_path / "home") as client:
        fingerprint = add_key(place, "alice", client.key)
        client.create(name)
        assert client.run("push", "--insecure", name)[0] == 0
        place.accounts(publish)
        remove_key(place, fingerprint)
        client.run("rm", name)
        code, said = client.run("pull", "--insecure", name)
        assert code == 0, said
        code, said = client.run("push", "--insecure", name)
        assert code != 0
        assert "is not registered" in said, said


@needs_ollama
def test_the_command_line_signs_in_to_this_service(place: Place, tmp_path: Path) -> None:
    """`OLLAMA_HOST` is our server; the command line signs with the key in its home."""
    here = {"OLLAMA_HOST": place.server.url, "OLLAMA_AUTH": "1"}
    with ollama(tmp_path / "home") as client:
        pass  # it has made its key
    _, said = client.run("signin", **here)
    link = re.search(r"/ui/enrol/([0-9A-Z-]+)", said)
    assert link, said
    code, said = client.run("list", **here)
    assert code != 0

    async def confirm(accounts: Accounts) -> None:
        assert link is not None
        await accounts.confirm_enrolment(link[1], (await accounts.named("alice")).id)

    place.accounts(confirm)
    _, said = client.run("signin", **here)
    assert "alice" in said, said
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(f"FROM {GGUF}\nSYSTEM hello\n")
    code, said = client.run("create", "alice/made", "-f", str(modelfile), **here)
    assert code == 0, said
    code, said = client.run("create", "bob/made", "-f", str(modelfile), **here)
    assert code != 0
    code, said = client.run("list", **here)
    assert "alice/made:latest" in said, said
    assert client.run("show", "alice/made", **here)[0] == 0
    assert client.run("cp", "alice/made", "alice/second", **here)[0] == 0
    assert client.run("rm", "alice/second", **here)[0] == 0
    _, said = client.run("signout", **here)
    assert client.run("list", **here)[0] != 0, said


@needs_skopeo
def test_skopeo_signs_in_with_password_and_api_key(place: Place, tmp_path: Path) -> None:
    address = place.server.address
    store = tmp_path / "image"

    async def make_key(accounts: Accounts) -> tuple[str, str]:
        alice = await accounts.named("alice")
        made = [
            await accounts.create_api_key(alice.id, ApiKeyWish("ci", groups))
            for groups in (Group.READ | Group.WRITE, Group.READ)
        ]
        return made[0].text, made[1].text

    key, read_key = place.accounts(make_key)
    auth = tmp_path / "auth.json"

    def skopeo(*words: str) -> tuple[int, str]:
        assert SKOPEO is not None
        done = subprocess.run(
            [SKOPEO, *words],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"REGISTRY_AUTH_FILE": str(auth)},
        )
        return done.returncode, done.stdout + done.stderr

    make_image(store)
    to = f"docker://{address}/team/image:1"
    code, said = skopeo("copy", "--dest-tls-verify=false", f"dir:{store}", to)
    assert code != 0
    for name, secret, works in (
        ("alice", "wrong password", False),
        ("alice", PASSWORD, True),
        ("alice", key, True),
    ):
        code, said = skopeo("login", "--tls-verify=false", "-u", name, "-p", secret, address)
        assert (code == 0) is works, said
    exact = ("--preserve-digests", "--dest-tls-verify=false")
    code, said = skopeo("copy", *exact, f"dir:{store}", to)
    assert code == 0, said
    back = tmp_path / "back"
    code, said = skopeo("copy", "--src-tls-verify=false", to, f"dir:{back}")
    assert code == 0, said
    assert (back / "manifest.json").read_bytes() == (store / "manifest.json").read_bytes()
    code, said = skopeo("list-tags", "--tls-verify=false", f"docker://{address}/team/image")
    assert json.loads(said)["Tags"] == ["1"]
    skopeo("logout", address)
    code, said = skopeo("inspect", "--tls-verify=false", to)
    assert code != 0
    login = ("login", "--tls-verify=false", "-u", "alice", "-p", read_key, address)
    assert skopeo(*login)[0] == 0
    assert skopeo("inspect", "--raw", "--tls-verify=false", to)[0] == 0
    other = to.replace("image:1", "other:1")
    code, said = skopeo("copy", "--dest-tls-verify=false", f"dir:{store}", other)
    assert code != 0, said


def make_image(folder: Path) -> None:
    """An image of one layer in skopeo's `dir` form."""
    folder.mkdir()
    config, layer = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}', b"x" * 5000
    kind = "application/vnd.oci.image."
    entries = []
    for media, data in ((kind + "config.v1+json", config), (kind + "layer.v1.tar", layer)):
        digest = Digest.of(data)
        (folder / digest.hex).write_bytes(data)
        entries.append({"mediaType": media, "digest": str(digest), "size": len(data)})
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": entries[0],
        "layers": entries[1:],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
