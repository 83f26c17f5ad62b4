"""Blobs of the sizes at which the ollama client cuts its parts, sent as it does and read in parts.

The bytes are zeros, which cost the sender nothing; the server hashes and stores each of them.
"""

import hashlib
import http.client
import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.server import Server, running

PART = 100_000_000  # the least the client sends at once
PARTS = 16
SIZES = [0, 1, PART - 1, PART, PART + 1, 250_000_000, 1_700_000_000]
AGENT = {"User-Agent": "ollama/0.33.0 (amd64 linux) Go/go1.26"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.folder("for an object store test_s3_direct.py does it"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("server") / "data") as made:
        yield made


@pytest.fixture(scope="module")
def zeros() -> Iterator[memoryview]:
    with mmap.mmap(-1, PART * 2) as area, memoryview(area) as view:
        yield view


def ask(
    server: Server, method: str, url: str, body: memoryview | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, int]:
    """Status, headers, and how many zeros the body has."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    named = AGENT | {name.replace("_", "-"): text for name, text in headers.items()}
    if body is None and method != "GET":
        named["Content-Length"] = "0"
    with closing(connection):
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        count = sum(piece.count(0) for piece in iter(lambda: answer.read(1 << 20), b""))
        return answer.status, answer.headers, count


def digest_of(size: int, zeros: memoryview) -> str:
    hasher = hashlib.sha256()
    for start in range(0, size, len(zeros)):
        hasher.update(zeros[: min(len(zeros), size - start)])
    return f"sha256:{hasher.hexdigest()}"


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_is_pushed_in_parts_and_pulled_in_parts(
    server: Server, zeros: memoryview, size: int
) -> None:
    digest = digest_of(size, zeros)
    part = max(PART, -(-size // PARTS))
    status, headers, _ = ask(server, "POST", "/v2/team/big/blobs/uploads/")
    assert status == 202
    for start in range(0, size, part):
        stop = min(start + part, size)
        span = {"Content_Range": f"{start}-{stop - 1}", "X_Redirect_Uploads": "1"}
        place = headers["Location"]
        status, headers, _ = ask(server, "PATCH", place, zeros[: stop - start], **span)
        assert (status, headers["Range"]) == (202, f"0-{stop - 1}")
    status, headers, _ = ask(server, "PUT", f"{headers['Location']}?digest={digest}")
    assert (status, headers["Docker-Content-Digest"]) == (201, digest)
    kept = server.data / "blobs" / digest.replace(":", "-")
    assert kept.stat().st_size == size
    url = f"/v2/team/big/blobs/{digest}"
    status, headers, _ = ask(server, "HEAD", url)
    assert (status, int(headers["Content-Length"])) == (200, size)

    def pull(start: int) -> int:
        stop = min(start + part, size)
        status, _, count = ask(server, "GET", url, Range=f"bytes={start}-{stop - 1}")
        assert status == 206
        return count

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(pull, range(0, size, part))) == size
    delete(kept)


def delete(kept: Path) -> None:
    """Give the space back: the next size needs it too."""
    with kept.open("r+b") as file:
        file.truncate(0)
