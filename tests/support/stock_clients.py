"""Stock clients that push a model of one layer and pull it again, over TLS of a private authority.

`OLLAMA` names the real binary, else it is looked for in PATH; `PROXY_TEST_MIB` is the size of a
layer.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import httpx2

from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.proxies import started

SIZE = int(os.environ.get("PROXY_TEST_MIB", "40")) << 20
OLLAMA = os.environ.get("OLLAMA") or shutil.which("ollama")
SKOPEO = shutil.which("skopeo")
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"  # skopeo takes foreign layers in these alone


def some_bytes(seed: int, size: int = SIZE) -> bytes:
    dice = random.Random(seed)
    return b"".join(dice.randbytes(1 << 20) for _ in range(size >> 20))


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def model_of(layer: bytes, media_type: str) -> tuple[bytes, bytes]:
    """The config and the manifest of a model of one layer, as ollama would word them."""
    config = json.dumps({"model_format": "gguf", "rootfs": {"type": "layers"}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.license",
                "digest": digest_of(layer),
                "size": len(layer),
            }
        ],
    }
    return config, json.dumps(manifest, separators=(",", ":")).encode()


def push_blob(client: httpx2.Client, name: str, data: bytes) -> None:
    """By a session, in two chunks, at the addresses that the service gives."""
    begun = client.post(f"/v2/{name}/blobs/uploads/")
    assert begun.status_code == 202
    location = begun.headers["location"]
    middle = len(data) // 2
    for part in (data[:middle], data[middle:]):
        assert location.startswith(str(client.base_url)[:-1])
        answer = client.patch(location, content=part)
        assert answer.status_code == 202, answer.text
        location = answer.headers["location"]
    done = client.put(location, params={"digest": digest_of(data)})
    assert done.status_code == 201, done.text


def skopeo_round_trip(folder: Path, port: int, authority: Authority, layer: bytes) -> None:
    """Copy an image in and out, byte for byte."""
    assert SKOPEO is not None
    config, manifest = model_of(layer, OCI)
    source, back = folder / "image", folder / "back"
    source.mkdir()
    for data in (config, layer):
        (source / hashlib.sha256(data).hexdigest()).write_bytes(data)
    (source / "manifest.json").write_bytes(manifest)
    (source / "version").write_text("Directory Transport Version: 1.1\n")
    certificates = folder / "trust"
    certificates.mkdir()
    shutil.copy(authority.file, certificates / "ca.crt")
    image = f"docker://localhost:{port}/team/skopeo:v1"
    for line in (
        ["--dest-cert-dir", str(certificates), f"dir:{source}", image],
        ["--src-cert-dir", str(certificates), image, f"dir:{back}"],
    ):
        done = subprocess.run(
            [SKOPEO, "--insecure-policy", "copy", "--preserve-digests", *line],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert (back / hashlib.sha256(layer).hexdigest()).read_bytes() == layer
    assert (back / "manifest.json").read_bytes() == manifest


def ollama_round_trip(folder: Path, port: int, authority: Authority, layer: bytes) -> None:
    """Push a model, delete it, pull it."""
    ollama = OLLAMA
    assert ollama is not None
    config, manifest = model_of(layer, DOCKER)
    models = folder / "models"
    name = f"localhost:{port}/team/Llama-3.Q4:8b"
    entry = models / "manifests" / f"localhost:{port}" / "team" / "Llama-3.Q4" / "8b"
    entry.parent.mkdir(parents=True)
    entry.write_bytes(manifest)
    blobs = models / "blobs"
    blobs.mkdir()
    for data in (config, layer):
        (blobs / digest_of(data).replace(":", "-")).write_bytes(data)
    own = free_port()
    environ = {
        "HOME": str(folder),
        "OLLAMA_MODELS": str(models),
        "OLLAMA_HOST": f"127.0.0.1:{own}",
        "SSL_CERT_FILE": str(authority.file),
    }

    def run(*words: str) -> None:
        done = subprocess.run(
            [ollama, *words],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    with started([ollama, "serve"], own, folder / "ollama.log", **environ):
        run("push", name)
        run("rm", name)
        assert list(blobs.iterdir()) == []
        run("pull", name)
    assert (blobs / digest_of(layer).replace(":", "-")).read_bytes() == layer
    assert entry.read_bytes() == manifest
