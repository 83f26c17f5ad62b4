"""The official Python and JavaScript clients do every management call against started servers.

The JavaScript one needs node; its package is installed once into `.ci/js`, which is not committed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx2
import pytest
from ollama import Client, ResponseError

from tests.support.backends import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
GGUF = ROOT / "tests" / "golden" / "inputs" / "llama.gguf"
SCRIPT = Path(__file__).parent / "js" / "management.cjs"
MODULES = ROOT / ".ci" / "js"


@contextmanager
def started(data: Path) -> Iterator[str]:
    """`registry serve` on a free port; yields its host:port, read from the first line it prints."""
    environ = {key: text for key, text in os.environ.items() if not key.startswith("REGISTRY_")}
    with subprocess.Popen(
        [sys.executable, "-m", "registry", "serve", "--port", "0", "--data", str(data)],
        env={**environ, **BACKENDS.environ(data), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert " at http://" in line, f"the server did not start: {line!r}"
            # Read on, so that the pipe never fills.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield line.split(" at http://", 1)[1].split()[0]
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second instance: what the first one pushes to and pulls from."""
    with started(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    client = Client(host=f"http://{server}")
    yield client
    client.close()  # type: ignore[no-untyped-call]  # theirs


def names(client: Client) -> set[str | None]:
    return {model.model for model in client.list().models}


def test_the_python_client_does_every_management_call(client: Client, registry: str) -> None:
    assert names(client) == set()
    digest = client.create_blob(GGUF)
    steps = [
        step.status for step in client.create("py/tiny", files={"t.gguf": digest}, stream=True)
    ]
    assert steps[0] == "parsing GGUF"
    assert steps[-1] == "success"
    answer = client.create(
        "py/child",
        from_="py/tiny",
        system="You are Mario.",
        template="{{ .System }} {{ .Prompt }}",
        license=["MIT"],
        parameters={"temperature": 0.7, "stop": ["<|end|>"]},
        messages=[{"role": "user", "content": "hi"}],
    )
    assert answer.status == "success"

    shown = client.show("py/child")
    assert shown.template == "{{ .System }} {{ .Prompt }}"
    assert shown.license == "MIT"
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.parameters is not None
    assert shown.parameters.split() == ["stop", '"<|end|>"', "temperature", "0.7"]

    far = f"{registry}/py/child:v1"
    assert client.copy("py/child", far).status == "success"
    assert names(client) == {far, "py/child:latest", "py/tiny:latest"}
    before = next(model for model in client.list().models if model.model == far)
    pushed = [step.status for step in client.push(far, insecure=True, stream=True)]
    assert pushed[-1] == "success"
    assert client.delete(far).status == "success"
    assert far not in names(client)
    assert client.pull(far, insecure=True).status == "success"
    after = next(model for model in client.list().models if model.model == far)
    # Not the digest from before: a push sends the manifest without its final newline.
    kept = httpx2.get(f"http://{registry}/v2/py/child/manifests/v1").content
    assert (after.digest, after.size) == (hashlib.sha256(kept).hexdigest(), before.size)
    assert before.size is not None
    assert before.size > GGUF.stat().st_size

    assert list(client.ps().models) == []
    for name in (far, "py/child", "py/tiny"):
        client.delete(name)
    assert names(client) == set()


def test_the_python_client_gets_the_errors_it_knows(client: Client) -> None:
    for call in (client.show, client.delete):
        with pytest.raises(ResponseError, match="not found") as caught:
            call("py/none")
        assert caught.value.status_code == 404
    with pytest.raises(ResponseError, match="neither 'from' or 'files' was specified"):
        client.create("py/none")
    with pytest.raises(ResponseError, match="not found"):
        client.copy("py/none", "py/other")


@cache
def _lack_of_javascript() -> str:
    """Install the JavaScript client, once a run; why it is not here, or nothing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        return "no node here: the JavaScript client is not tried"
    modules = MODULES / "node_modules"
    if (modules / "ollama").is_dir():
        return ""
    if npm is None:
        return f"no npm here, and no package ollama in {modules}"
    MODULES.mkdir(parents=True, exist_ok=True)
    shutil.copy(SCRIPT.parent / "package.json", MODULES)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(MODULES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:  # it tries for minutes where it reaches nothing
        return "npm could not install the package ollama: no answer in 90 s"
    if done.returncode:
        return f"npm could not install the package ollama: {done.stderr[-300:]}"
    return ""


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Where the JavaScript client is installed; skips if it cannot be."""
    lack = _lack_of_javascript()
    if lack:
        pytest.skip(lack)
    return MODULES / "node_modules"


def test_the_javascript_client_does_every_management_call(
    node_modules: Path, server: str, registry: str
) -> None:
    done = subprocess.run(
        ["node", str(SCRIPT)],
        env={
            **os.environ,
            "NODE_PATH": str(node_modules),
            "SERVER": f"http://{server}",
            "REGISTRY": registry,
            "GGUF": str(GGUF),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all calls done\n")
