"""An object store in memory that clients send to by themselves, behind its port."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from registry.core.digest import Digest
from registry.core.errors import Conflict, DigestMismatch, Unavailable, UploadUnknown
from registry.ports.direct import DirectPut, Landed, SentPart


@dataclass
class _Arrived:
    store: "MemoryStore"
    key: str
    sha256: Digest | None

    @property
    def size(self) -> int:
        return len(self.store.objects[self.key])

    async def digest(self, algorithm: str = "sha256") -> Digest:
        if algorithm == "sha256" and self.sha256 is not None:
            return self.sha256
        await self.store.read_back(self.key)
        return Digest.of(self.store.objects[self.key], algorithm)

    async def seal(self) -> Digest:
        return await self.digest()

    async def publish(self, digest: Digest) -> str:
        if digest != Digest.of(self.store.objects[self.key]):
            raise DigestMismatch(str(digest), "other")
        return self.key

    def confirm(self) -> None:
        assert self.key in self.store.objects


@dataclass
class MemoryStore:
    """`Direct`, and `send` for what a client does with its URLs."""

    address: str = "https://store.example.net"
    is_public: bool = True
    checks: bool = True
    vouches: bool = True  # tells checksums of whole objects afterwards
    loses_answers: bool = False
    broken: str = ""  # the method that fails
    objects: dict[str, bytes] = field(default_factory=dict)
    begun: dict[str, dict[int, bytes]] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    summed: set[str] = field(default_factory=set)
    _last: int = 0

    async def read_back(self, key: str) -> None:
        self._check("read_back")
        self.reads.append(key)

    def _check(self, step: str) -> None:
        if step == self.broken:
            raise Unavailable("the object store does not answer")

    async def read_url(self, storage_key: str, expires_s: int) -> str:
        return f"{self.address}/{storage_key}?expires={expires_s}"

    async def begin(self) -> str:
        key = f"begun.{self.new_key()}"
        self.begun[key] = {}
        return key

    async def part_url(self, key: str, number: int, size: int, expires_s: int) -> str:
        return f"{self.address}/{key}?number={number}&size={size}"

    def send(self, url: str, data: bytes) -> bool:
        """PUT to a URL; whether the store takes it."""
        parts = urlsplit(url)
        key, query = parts.path[1:], dict(parse_qsl(parts.query))
        if "sha256" in query:
            good = not self.checks or hashlib.sha256(data).hexdigest() == query["sha256"]
            if good:
                self.objects[key] = data
                self.summed |= {key} if self.vouches else set()
            return good
        sent = self.begun.get(key)
        if sent is None or len(data) != int(query["size"]):
            return False
        sent[int(query["number"])] = data
        return True

    async def parts(self, key: str) -> list[SentPart]:
        self._check("parts")
        return [
            SentPart(number, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())
            for number, data in sorted(self._of(key).items())
        ]

    def _of(self, key: str) -> dict[int, bytes]:
        if key not in self.begun:
            raise UploadUnknown("the store does not know the upload")
        return self.begun[key]

    async def complete(self, key: str, parts: Sequence[SentPart]) -> None:
        self._check("complete")
        if list(parts) != await self.parts(key):
            raise Conflict("a part was sent anew")
        sent = self.begun.pop(key)
        self.objects[_storage_key(key)] = b"".join(sent[number] for number in sorted(sent))
        if self.loses_answers:
            raise UploadUnknown("asked again, the store does not know the upload")

    async def checks_sums(self) -> bool:
        return self.checks

    def new_key(self) -> str:
        self._last += 1
        return f"key{self._last}"

    async def put_url(self, key: str, digest: Digest, size: int, expires_s: int) -> DirectPut:
        return DirectPut(f"{self.address}/{key}?sha256={digest.hex}", {"x-sum": digest.hex})

    async def landed(self, key: str) -> Landed | None:
        self._check("landed")
        key = _storage_key(key)
        data = self.objects.get(key)
        if data is None:
            return None
        return Landed(len(data), Digest.of(data) if key in self.summed else None)

    def arrived(self, key: str, landed: Landed) -> _Arrived:
        return _Arrived(self, _storage_key(key), landed.sha256)

    async def drop(self, key: str) -> None:
        self.dropped.append(key)
        self.begun.pop(key, None)
        self.objects.pop(_storage_key(key), None)


def _storage_key(key: str) -> str:
    return key.removeprefix("begun.")
