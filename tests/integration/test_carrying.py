"""Models carried to other programs and back: skopeo, a real Ollama, a second library of ours.

`skopeo` and `ollama` (or the program OLLAMA_BIN) are looked for; where one is missing its tests are
skipped.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import BACKENDS
from tests.support.place import Place
from tests.support.ports import free_port
from tests.support.server import Server, running

SKOPEO = shutil.which("skopeo")
OLLAMA = os.environ.get("OLLAMA_BIN") or shutil.which("ollama")
GGUF = Path(__file__).resolve().parents[1] / "golden" / "inputs" / "llama.gguf"


@dataclass
class Done:
    """What a command came to."""

    exit_code: int
    stderr: str


class Library(Place):
    """A library whose commands run as programs."""

    def run(self, command: str) -> Done:  # type: ignore[override]  # a program has no `Result`
        process = self._start(command)
        stderr = process.communicate()[1]
        return Done(process.returncode, stderr)

    def kill(self, command: str, after_s: float) -> None:
        """Start a command and end it in the midst."""
        process = self._start(command)
        try:
            process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def _start(self, command: str) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "registry", *command.split(), "--data", str(self.data)]
        environ = {key: text for key, text in os.environ.items() if not key.startswith("REGISTRY_")}
        pipe = subprocess.PIPE
        given = environ | self.environ
        return subprocess.Popen(line, env=given, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    place = Library(tmp_path / "old", monkeypatch)
    place.fill(GGUF.read_bytes())
    return place


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(tmp_path / "new", monkeypatch)


def skopeo(*arguments: str) -> bytes:
    assert SKOPEO is not None
    done = subprocess.run([SKOPEO, *arguments], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def ask(url: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=60) as answer:
        return json.load(answer)


def listed(url: str) -> dict[str, str]:
    models = ask(url, "/api/tags")["models"]
    return {model["name"]: f"sha256:{model['digest']}" for model in models}


@contextmanager
def ollama(models: Path, home: Path) -> Iterator[str]:
    """A real Ollama over a models folder."""
    assert OLLAMA is not None
    address = f"127.0.0.1:{free_port()}"
    home.mkdir(exist_ok=True)
    environ = {"OLLAMA_HOST": address, "OLLAMA_MODELS": str(models), "HOME": str(home)}
    process = subprocess.Popen(
        [OLLAMA, "serve"],
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            try:
                ask(f"http://{address}", "/api/version")
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
def test_skopeo_reads_an_archive_and_pushes_it_to_another_library(
    old: Library, tmp_path: Path
) -> None:
    archive = tmp_path / "a.tar"
    assert old.run(f"export --all --to {archive}").exit_code == 0
    body = skopeo("inspect", "--raw", f"oci-archive:{archive}:team/Other:Q4")
    before = old.models()
    assert f"sha256:{hashlib.sha256(body).hexdigest()}" == before["team/Other:Q4"]
    with running(tmp_path / "there") as server:
        for name in before:
            path = (name if "/" in name else f"library/{name}").lower()  # skopeo knows no other
            target = f"docker://{server.address}/{path}"
            skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{archive}:{name}", target)
        assert listed(server.url) == {name.lower(): digest for name, digest in before.items()}


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
def test_what_skopeo_wrote_is_imported(old: Library, new: Library, tmp_path: Path) -> None:
    assert old.run(f"export base --to {tmp_path / 'a.tar'}").exit_code == 0
    source, target = f"oci-archive:{tmp_path / 'a.tar'}", f"oci-archive:{tmp_path / 'b.tar'}"
    skopeo("copy", f"{source}:base:latest", f"{target}:team/mine:v1")
    done = new.run(f"import {tmp_path / 'b.tar'}")
    assert done.exit_code == 0, done.stderr
    assert new.models() == {"team/mine:v1": old.models()["base:latest"]}


@pytest.mark.skipif(OLLAMA is None, reason="ollama is not installed")
def test_a_real_ollama_serves_an_exported_folder(old: Library, tmp_path: Path) -> None:
    before = old.models()
    assert old.run(f"export --all --to {tmp_path / 'm'} --format ollama").exit_code == 0
    with ollama(tmp_path / "m", tmp_path / "home") as url:
        assert listed(url) == before
        assert ask(url, "/api/show", {"model": "team/other:q4"})["system"] == "Be brief."


@pytest.mark.skipif(OLLAMA is None, reason="ollama is not installed")
@pytest.mark.parametrize("mode", ["copy", "link"])
def test_the_folder_of_a_real_ollama_is_imported(
    old: Library, new: Library, tmp_path: Path, mode: str
) -> None:
    old.run(f"export base --to {tmp_path / 'm'} --format ollama")
    with ollama(tmp_path / "m", tmp_path / "home") as url:
        made = {"model": "made", "from": "base", "system": "Yes.", "stream": False}
        assert ask(url, "/api/create", made)["status"] == "success"
        there = listed(url)
    done = new.run(f"import {tmp_path / 'm'} --mode {mode}")
    assert done.exit_code == 0, done.stderr
    assert new.models() == there


@pytest.mark.folder("compares files of two stores")
@pytest.mark.skipif(OLLAMA is None, reason="ollama is not installed")
def test_a_running_ollama_pushes_its_models_here(
    old: Library, new: Library, tmp_path: Path
) -> None:
    old.run(f"export --all --to {tmp_path / 'm'} --format ollama")
    with ollama(tmp_path / "m", tmp_path / "home") as url, running(new.data) as server:
        refused = new.run(f"import {url}")
        assert (refused.exit_code, "--via" in refused.stderr) == (1, True)
        there = listed(url)
        done = new.run(f"import {url} --via {server.address} --insecure")
        assert done.exit_code == 0, done.stderr
        assert listed(url) == there
        assert set(listed(server.url)) == set(there)
    new.models()  # their bytes are what they are called; the manifests Ollama words anew
    assert _weights(new) == _weights(old)


def _weights(place: Place) -> set[str]:
    return {file.name for file in (place.data / "blobs").iterdir() if file.stat().st_size > 1000}


def test_another_library_is_imported(old: Library, new: Library) -> None:
    with running(old.data) as server:
        done = new.run(f"import {server.url}")
        assert done.exit_code == 0, done.stderr
        assert new.models() == listed(server.url)
        one = f"import registry://{server.address}/team/other:q4 --insecure"
        refused = new.run(one)
        assert (refused.exit_code, "--replace" in refused.stderr) == (1, True)
        assert new.run(f"{one} --as mine:v1").exit_code == 0
        models = new.models()
        assert models["mine:v1"] == models["team/Other:Q4"]
        assert len(models) == 3


def test_a_backup_is_taken_beside_a_server_and_pulled_from_after_a_restore(
    old: Library, new: Library, tmp_path: Path
) -> None:
    before = old.models()
    with running(old.data):
        assert old.run(f"backup {tmp_path / 'saved'} --with-blobs").exit_code == 0
        refused = old.run(f"restore {tmp_path / 'saved'} --force")
        assert (refused.exit_code, "stop the server" in refused.stderr) == (1, True)
    shutil.rmtree(old.data)
    BACKENDS.lose_database(old.data)
    assert old.run(f"restore {tmp_path / 'saved'}").exit_code == 0
    with running(old.data) as server:
        assert listed(server.url) == before
        _pull_all(server, new, before)


def _pull_all(server: Server, new: Library, models: dict[str, str]) -> None:
    with running(new.data, REGISTRY_UPSTREAM_ALLOW="127.0.0.1") as other:
        for name in models:
            path = name if "/" in name else f"library/{name}"
            body = {"model": f"{server.address}/{path}", "insecure": True, "stream": False}
            assert ask(other.url, "/api/pull", body)["status"] == "success"
        assert sorted(listed(other.url).values()) == sorted(models.values())


ROUNDS = 8


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_commands_that_are_killed_leave_all_or_nothing(
    old: Library, new: Library, tmp_path: Path
) -> None:
    """`kill -9` at any moment of an import, a backup, a restore: the same command then does it."""
    assert old.run(f"export --all --to {tmp_path / 'a.tar'}").exit_code == 0
    saved = tmp_path / "saved"
    commands = (
        f"import {tmp_path / 'a.tar'} --replace",
        f"backup {saved} --with-blobs",
        f"restore {saved} --force",
    )
    for command in commands:
        for number in range(ROUNDS):
            new.kill(command, 0.4 + number * 0.25)
        done = new.run(command)
        assert done.exit_code == 0, done.stderr
        assert new.models() == old.models()
    checked = new.run("doctor --deep")
    assert checked.exit_code == 0, checked.stderr
    assert (saved / "backup.json").is_file()
