"""Promise 9 from outside: a killed server's database is lost, and everything pushed comes back."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.core.media import OCI_INDEX, OCI_MANIFEST
from tests.support.backends import BACKENDS
from tests.support.s3 import S3Server
from tests.support.server import Server, running

REPOSITORY = "team/a/b"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def call(
    server: Server, method: str, path: str, body: bytes | None = None, kind: str = ""
) -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body=body, headers={"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Content-Type", "")
    finally:
        connection.close()


def push(server: Server, reference: str, value: dict[str, object], kind: str) -> dict[str, object]:
    body = json.dumps(value, indent=3).encode()
    reference = reference or digest_of(body)
    path = f"/v2/{REPOSITORY}/manifests/{reference}"
    assert call(server, "PUT", path, body, kind)[0] == 201
    return {"mediaType": kind, "digest": digest_of(body), "size": len(body)}


def image(server: Server, reference: str, text: str, **more: object) -> dict[str, object]:
    data, algorithm = text.encode(), str(more.pop("algorithm", "sha256"))
    named = digest_of(data, algorithm)
    upload = f"/v2/{REPOSITORY}/blobs/uploads/?digest={named}"
    assert call(server, "POST", upload, data, "application/octet-stream")[0] == 201
    layer = {"mediaType": "application/x.layer", "digest": named, "size": len(data)}
    return push(
        server,
        reference,
        {"schemaVersion": 2, "config": layer, "layers": [layer], **more},
        OCI_MANIFEST,
    )


def contents(server: Server, references: list[str], subject: str) -> list[tuple[int, bytes, str]]:
    """What clients get: tags, each manifest, the referrers of one."""
    paths = ["tags/list", f"referrers/{subject}", *(f"manifests/{item}" for item in references)]
    return [call(server, "GET", f"/v2/{REPOSITORY}/{path}") for path in paths]


def fill(server: Server) -> tuple[list[str], str]:
    """Push a bit of everything; the references, and the subject of a signature."""
    child = image(server, "", "child")
    index = push(server, "v1", {"schemaVersion": 2, "manifests": [child]}, OCI_INDEX)
    more = [image(server, "", "signature", subject=index), image(server, "", "untagged")]
    image(server, "odd", "odd", algorithm="sha512")
    gone = image(server, "gone", "gone")
    path = f"/v2/{REPOSITORY}/manifests/{gone['digest']}"
    assert call(server, "DELETE", path)[0] == 202
    digests = [str(item["digest"]) for item in (child, index, *more, gone)]
    return ["v1", "odd", "gone", *digests], str(index["digest"])


def run(data: Path, environ: dict[str, str], *arguments: str) -> None:
    """Run a command over a data folder; it must succeed."""
    command = [sys.executable, "-m", "registry", *arguments, "--data", str(data)]
    env = {**os.environ, **BACKENDS.environ(data), **environ}
    done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_a_restored_library_can_be_made_anew_too(tmp_path: Path) -> None:
    """Records are not in a backup: a restore writes them from the rows."""
    data, copy, folder = tmp_path / "data", tmp_path / "copy", str(tmp_path / "backup")
    with running(data) as server:
        references, subject = fill(server)
        before = contents(server, references, subject)
    run(data, {}, "backup", folder, "--with-blobs")
    run(copy, {}, "restore", folder)
    BACKENDS.lose_database(copy)
    run(copy, {}, "doctor", "--rebuild")
    with running(copy) as server:
        assert contents(server, references, subject) == before


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_killed_servers_database_is_made_anew(
    tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    environ: dict[str, str] = {}
    if place == "s3":
        s3: S3Server = request.getfixturevalue("s3")
        environ = dict(s3.environ())
    data = tmp_path / "data"
    with running(data, **environ) as server:
        references, subject = fill(server)
        server.kill()
    with running(data, **environ) as server:  # writes what was due
        before = contents(server, references, subject)
    BACKENDS.lose_database(data)
    run(data, environ, "doctor", "--rebuild")
    with running(data, **environ) as server:
        assert contents(server, references, subject) == before
    assert [status for status, _, _ in before] == [200, 200, 200, 200, 404, *[200] * 4, 404]
