"""Blobs fetched from a library, kept within bounds, and never believed."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from registry.adapters.store_marker import ensure_marker
from registry.core.digest import Digest
from registry.core.errors import CannotRun, StorageFull, Unavailable
from registry.ports.workers import Weights
from registry.workers import cache as cache_module
from registry.workers.cache import BlobCache
from registry.workers.transfer import Source

pytestmark = pytest.mark.anyio

CREDENTIAL = "rgw_a.secret"
DATA = os.urandom(3 << 20)


def weights(data: bytes) -> Weights:
    return Weights(Digest.of(data), len(data))


class Library:
    """Serves blobs by range; notes who asked for what."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.breaks_after: list[int] = []  # bytes, of the next requests
        self.pause_s = 0.0
        self.location = ""
        self.url = ""

    def put(self, data: bytes, sent: bytes | None = None) -> Weights:
        found = weights(data)
        self.blobs[str(found.digest)] = data if sent is None else sent
        return found

    def source(self) -> Source:
        return Source(self.url, lambda: {"Authorization": f"Bearer {CREDENTIAL}"})


class _Handler(BaseHTTPRequestHandler):
    library: ClassVar[Library]

    def do_GET(self) -> None:
        digest = self.path.rpartition("/")[2]
        wanted, who = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        self.library.asked.append((self.path, wanted, who))
        if self.library.location:
            self.send_response(307)
            self.send_header("Location", self.library.location + self.path)
            self.end_headers()
            return
        data = self.library.blobs.get(digest)
        if data is None:
            self.send_error(404)
            return
        begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        stop = len(data)
        if self.library.breaks_after:
            stop = begin + self.library.breaks_after.pop(0)
        with contextlib.suppress(OSError):
            for start in range(begin, stop, 1 << 16):
                time.sleep(self.library.pause_s)
                self.wfile.write(data[start : min(stop, start + (1 << 16))])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving() -> Iterator[Library]:
    library = Library()
    handler = type("Handler", (_Handler,), {"library": library})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    library.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield library
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def library() -> Iterator[Library]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_PAUSE_S", 0.001)


def cache(
    folder: Path,
    library: Library,
    limit: int = 0,
    used: frozenset[Digest] = frozenset(),
    store: Path | None = None,
) -> BlobCache:
    made = BlobCache(folder, library.source(), lambda: used, limit_bytes=limit, store=store)
    made.prepare()
    return made


async def test_a_blob_is_fetched_once_and_found_again(tmp_path: Path, library: Library) -> None:
    blob = library.put(DATA)
    kept = cache(tmp_path, library)
    paths = await asyncio.gather(*(kept.path(blob) for _ in range(5)))
    assert {path.read_bytes() == DATA for path in paths} == {True}
    assert len(set(paths)) == 1
    assert kept.digests == {blob.digest}
    assert library.asked == [
        (f"/api/v1/link/blobs/{blob.digest}", "bytes=0-", f"Bearer {CREDENTIAL}")
    ]
    again = cache(tmp_path, library)  # as after a restart
    assert again.digests == {blob.digest}
    assert await again.path(blob) == paths[0]
    assert len(library.asked) == 1
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_a_fetch_that_breaks_goes_on_where_it_was(tmp_path: Path, library: Library) -> None:
    blob = library.put(DATA)
    library.breaks_after = [1 << 20, 1 << 20]
    path = await cache(tmp_path, library).path(blob)
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted, _ in library.asked] == [
        "bytes=0-",
        f"bytes={1 << 20}-",
        f"bytes={2 << 20}-",
    ]


async def test_a_part_of_an_earlier_run_goes_on_too(tmp_path: Path, library: Library) -> None:
    blob = library.put(DATA)
    kept = cache(tmp_path, library)
    (tmp_path / "incoming" / blob.digest.file_name).write_bytes(DATA[:1_000_000])
    assert (await kept.path(blob)).read_bytes() == DATA
    assert library.asked[0][1] == "bytes=1000000-"


@pytest.mark.parametrize("size", [1_000_000, len(DATA), len(DATA) + 5])
async def test_a_part_that_was_spoilt_is_fetched_anew(
    tmp_path: Path, library: Library, size: int
) -> None:
    blob = library.put(DATA)
    kept = cache(tmp_path, library)
    (tmp_path / "incoming" / blob.digest.file_name).write_bytes(bytes(size))
    assert (await kept.path(blob)).read_bytes() == DATA
    assert library.asked[-1][1] == "bytes=0-"


async def test_other_bytes_than_those_of_the_digest_are_not_kept(
    tmp_path: Path, library: Library
) -> None:
    blob = library.put(DATA, sent=DATA[:-1] + b"?")
    kept = cache(tmp_path, library)
    with pytest.raises(CannotRun, match="the library sends other bytes"):
        await kept.path(blob)
    assert len(library.asked) == 2  # it might have been the network
    assert kept.digests == frozenset()
    assert list((tmp_path / "blobs").iterdir()) == []
    assert (tmp_path / "incoming" / blob.digest.file_name).stat().st_size == 0


async def test_a_library_that_never_sends_it_all_is_given_up(
    tmp_path: Path, library: Library
) -> None:
    blob = library.put(DATA)
    library.breaks_after = [0] * 9
    with pytest.raises(Unavailable, match="cannot be fetched: the connection broke off"):
        await cache(tmp_path, library).path(blob)
    assert len(library.asked) == 5


async def test_a_library_that_refuses_is_asked_once(tmp_path: Path, library: Library) -> None:
    with pytest.raises(Unavailable, match="cannot be fetched: the library answered 404"):
        await cache(tmp_path, library).path(weights(b"absent"))
    assert len(library.asked) == 1


async def test_nobody_there_is_told_in_words(tmp_path: Path) -> None:
    library = Library()
    library.url = "http://127.0.0.1:1"
    with pytest.raises(Unavailable, match="connection refused"):
        await cache(tmp_path, library).path(weights(b"x"))


async def test_a_redirect_is_followed_without_the_credential(
    tmp_path: Path, library: Library
) -> None:
    with serving() as elsewhere:
        blob = elsewhere.put(DATA)
        library.location = elsewhere.url
        assert (await cache(tmp_path, library).path(blob)).read_bytes() == DATA
        assert [who for _, _, who in elsewhere.asked] == [""]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1", "http://a:b@127.0.0.1"])
async def test_other_redirects_are_not_followed(
    tmp_path: Path, library: Library, location: str
) -> None:
    library.location = location
    with pytest.raises(Unavailable, match="a redirect that is not followed"):
        await cache(tmp_path, library).path(weights(b"x"))


async def test_redirects_have_an_end(tmp_path: Path, library: Library) -> None:
    library.location = library.url
    with pytest.raises(Unavailable, match="too many redirects"):
        await cache(tmp_path, library).path(weights(b"x"))


async def test_whoever_leaves_last_stops_the_fetch_and_its_part_stays(
    tmp_path: Path, library: Library
) -> None:
    blob = library.put(DATA)
    library.pause_s = 0.02
    kept = cache(tmp_path, library)
    asking = [asyncio.create_task(kept.path(blob)) for _ in range(2)]
    part = tmp_path / "incoming" / blob.digest.file_name
    while not (part.exists() and part.stat().st_size):
        await asyncio.sleep(0.01)
    asking[0].cancel()
    await asyncio.sleep(0.05)
    assert not asking[1].done()
    asking[1].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0.1)
    size = part.stat().st_size
    assert 0 < size < len(DATA)
    library.pause_s = 0.0
    assert (await kept.path(blob)).read_bytes() == DATA
    assert library.asked[-1][1] != "bytes=0-"


async def test_what_was_not_used_for_the_longest_makes_room(
    tmp_path: Path, library: Library
) -> None:
    one, two, three = (library.put(bytes([number]) * 1000) for number in (1, 2, 3))
    kept = cache(tmp_path, library, limit=2500)
    for blob in (one, two, one):
        await kept.path(blob)
    await kept.path(three)
    assert kept.digests == {one.digest, three.digest}
    assert sorted(file.name for file in (tmp_path / "blobs").iterdir()) == sorted(
        [one.digest.file_name, three.digest.file_name]
    )


async def test_what_a_runner_has_open_stays(tmp_path: Path, library: Library) -> None:
    one, two = library.put(b"1" * 1000), library.put(b"2" * 1000)
    kept = cache(tmp_path, library, limit=1500, used=frozenset({one.digest}))
    await kept.path(one)
    with pytest.raises(Unavailable, match="no room for 1000 bytes"):
        await kept.path(two)
    assert kept.digests == {one.digest}


async def test_room_is_reserved_before_a_fetch_begins(tmp_path: Path, library: Library) -> None:
    one, two = library.put(b"1" * 1000), library.put(b"2" * 1000)
    library.pause_s = 0.1
    kept = cache(tmp_path, library, limit=1500)
    first = asyncio.create_task(kept.path(one))
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable):
        await kept.path(two)
    await first


async def test_what_is_larger_than_the_cache_never_runs(tmp_path: Path, library: Library) -> None:
    blob = library.put(b"1" * 1000)
    with pytest.raises(CannotRun, match="more than the cache of the worker holds"):
        await cache(tmp_path, library, limit=999).path(blob)


async def test_a_disk_that_is_full_is_told_at_once(tmp_path: Path, library: Library) -> None:
    blob = library.put(DATA)
    kept = cache(tmp_path, library)
    part = tmp_path / "incoming" / blob.digest.file_name
    part.symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="cannot be written"):
        await kept.path(blob)


async def test_blobs_of_the_longer_digest_are_checked_by_it(
    tmp_path: Path, library: Library
) -> None:
    blob = Weights(Digest.of(DATA, "sha512"), len(DATA))
    library.blobs[str(blob.digest)] = DATA
    assert (await cache(tmp_path, library).path(blob)).read_bytes() == DATA
    assert cache(tmp_path, library).digests == {blob.digest}
    other = Weights(Digest.of(b"other", "sha512"), len(DATA))
    library.blobs[str(other.digest)] = DATA
    with pytest.raises(CannotRun):
        await cache(tmp_path, library).path(other)


def test_parts_that_were_given_up_go_at_the_next_start(tmp_path: Path, library: Library) -> None:
    cache(tmp_path, library)
    old, new = tmp_path / "incoming" / "old", tmp_path / "incoming" / "new"
    for part in (old, new):
        part.write_text("")
    os.utime(old, (0, 0))
    (tmp_path / "blobs" / "no-blob").write_text("")
    assert cache(tmp_path, library).digests == frozenset()
    assert [part.name for part in (tmp_path / "incoming").iterdir()] == ["new"]


async def test_a_cache_file_of_the_wrong_size_is_fetched_again(
    tmp_path: Path, library: Library
) -> None:
    blob = library.put(DATA)
    kept = cache(tmp_path, library)
    path = await kept.path(blob)
    path.write_bytes(b"short")
    assert (await kept.path(blob)).read_bytes() == DATA


async def test_the_librarys_own_folder_is_read_where_it_lies(
    tmp_path: Path, library: Library
) -> None:
    store, blob = tmp_path / "library", weights(DATA)
    (store / "blobs").mkdir(parents=True)
    (store / "blobs" / blob.digest.file_name).write_bytes(DATA)
    name = ensure_marker(store)
    kept = cache(tmp_path / "worker", library, store=store)
    assert not kept.believe("")
    assert not kept.believe("another")
    with pytest.raises(Unavailable):
        await kept.path(blob)
    assert kept.believe(name)
    assert await kept.path(blob) == store / "blobs" / blob.digest.file_name
    library.put(b"elsewhere")
    assert (await kept.path(weights(b"elsewhere"))).read_bytes() == b"elsewhere"


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path: Path, library: Library) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFull, match="cannot be used: not a directory"):
        cache(tmp_path / "file" / "cache", library)
