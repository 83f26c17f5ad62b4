"""What a library and its workers tell one another, as JSON: specs, facts, errors, framed bytes.

An answer is one line of JSON, then frames: four bytes of length, big-endian, and so many bytes. A
length of 0 is a sign of life, `END` the last word; a body without it broke off.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

from registry.core.digest import Digest
from registry.core.errors import (
    CannotRun,
    DigestInvalid,
    NameInvalid,
    OperationFailed,
    RegistryError,
    RequestInvalid,
    StorageFull,
    Unavailable,
    Unsupported,
    WorkerFailed,
    WorkerLost,
)
from registry.core.names import ModelName
from registry.ports.workers import (
    Crash,
    Loaded,
    LoadSpec,
    RunnerOptions,
    Weights,
    WorkerFacts,
)

END: Final = b"\xff\xff\xff\xff"
ALIVE: Final = b"\0\0\0\0"
FRAME_BYTES = 1 << 20
CRASHES = 100
HEAD_BYTES = 16 << 20
"""The first line of an answer: facts of a worker with thousands of blobs."""

_OPTIONS: Final = TypeAdapter(RunnerOptions)
_OPTION_NAMES: Final = frozenset(item.name for item in fields(RunnerOptions))
_KINDS: Final[dict[str, type[RegistryError]]] = {
    kind.__name__: kind
    for kind in (
        CannotRun,
        OperationFailed,
        RequestInvalid,
        StorageFull,
        Unavailable,
        Unsupported,
        WorkerFailed,
        WorkerLost,
    )
}


def read_object(text: bytes) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        RequestInvalid: it is none.
    """
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise RequestInvalid("not valid JSON") from error
    if not isinstance(value, dict):
        raise RequestInvalid("not a JSON object")
    return value


# --- errors -------------------------------------------------------------------------------------


def error_json(error: RegistryError) -> dict[str, Any]:
    """An error as it travels: the nearest kind that the other side knows, and its words."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS), "")
    told: dict[str, Any] = {"kind": name or "OperationFailed", "message": str(error)}
    if isinstance(error, Unavailable):
        told["retry_after_s"] = error.retry_after_s
    return told


def error_of(told: Mapping[str, Any]) -> RegistryError:
    """The error that travelled."""
    kind, message = _KINDS.get(str(told.get("kind")), OperationFailed), str(told.get("message"))
    if kind is Unavailable:
        after = told.get("retry_after_s")
        return Unavailable(message, after if isinstance(after, int) else 5)
    return kind(message)


# --- specs and facts ----------------------------------------------------------------------------


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError(told)
    return told


def _weights_json(weights: Weights) -> list[Any]:
    return [str(weights.digest), weights.size]


def _weights(told: Any) -> Weights:
    digest, size = told
    return Weights(Digest.parse(str(digest)), int(size))


def spec_json(spec: LoadSpec) -> dict[str, Any]:
    """A spec as it travels."""
    return {
        "name": str(spec.name),
        "manifest": str(spec.manifest),
        "model": _weights_json(spec.model),
        "adapters": [_weights_json(item) for item in spec.adapters],
        "projectors": [_weights_json(item) for item in spec.projectors],
        "options": asdict(spec.options),
        "architecture": spec.architecture,
        "memory": spec.memory,
        "pinned": spec.pinned,
    }


def spec_of(told: Mapping[str, Any]) -> LoadSpec:
    """The spec that travelled.

    Raises:
        RequestInvalid: it is none.
    """
    try:
        if unknown := set(told["options"]) - _OPTION_NAMES:  # an older worker would run it wrongly
            raise ValueError(unknown)
        return LoadSpec(
            ModelName.checked(_text(told["name"])),
            Digest.parse(told["manifest"]),
            _weights(told["model"]),
            tuple(_weights(item) for item in told["adapters"]),
            tuple(_weights(item) for item in told["projectors"]),
            _OPTIONS.validate_python(told["options"]),
            str(told["architecture"]),
            int(told["memory"]),
            bool(told["pinned"]),
        )
    except (KeyError, TypeError, ValueError, NameInvalid, DigestInvalid, ValidationError) as error:
        raise RequestInvalid("not the description of a model") from error


def facts_json(facts: WorkerFacts, now_ns: int) -> dict[str, Any]:
    """Facts as they travel: times are told from now on, for clocks differ."""
    return {
        "engine": facts.engine,
        "version": facts.version,
        "memory_total": facts.memory_total,
        "memory_free": facts.memory_free,
        "labels": sorted(facts.labels),
        "loaded": [
            {
                **asdict(item),
                "expires_at": None if item.expires_at is None else item.expires_at - now_ns,
                "name": str(item.name),
                "manifest": str(item.manifest),
                "model": str(item.model),
            }
            for item in facts.loaded
        ],
        "cached": sorted(str(digest) for digest in facts.cached),
        "draining": facts.draining,
        "load_bytes_per_s": facts.load_bytes_per_s,
        "has_all": facts.has_all,
    }


def facts_of(told: Mapping[str, Any], now_ns: int) -> WorkerFacts:
    """The facts that travelled.

    Raises:
        RequestInvalid: they are none.
    """
    try:
        return WorkerFacts(
            engine=str(told["engine"])[:100],
            version=str(told["version"])[:100],
            memory_total=int(told["memory_total"]),
            memory_free=int(told["memory_free"]),
            labels=frozenset(str(item)[:100] for item in told["labels"]),
            loaded=tuple(_loaded(item, now_ns) for item in told["loaded"]),
            cached=frozenset(Digest.parse(item) for item in told["cached"]),
            draining=bool(told["draining"]),
            load_bytes_per_s=int(told["load_bytes_per_s"]),
            has_all=bool(told["has_all"]),
        )
    except (KeyError, TypeError, ValueError, NameInvalid, DigestInvalid) as error:
        raise RequestInvalid("not the facts of a worker") from error


def crash_json(crash: Crash) -> dict[str, Any]:
    """A crash as it travels."""
    return {"model": str(crash.model), "name": crash.name, "reason": crash.reason}


def crashes_of(told: Any) -> list[Crash]:
    """The crashes that travelled.

    Raises:
        RequestInvalid: they are none.
    """
    try:
        return [
            Crash(Digest.parse(item["model"]), str(item["name"])[:500], str(item["reason"])[:2000])
            for item in (told or ())[:CRASHES]
        ]
    except (KeyError, TypeError, DigestInvalid) as error:
        raise RequestInvalid("not the crashes of a worker") from error


def _loaded(told: Mapping[str, Any], now_ns: int) -> Loaded:
    left_ns = told["expires_at"]
    return Loaded(
        str(told["key"]),
        ModelName.checked(_text(told["name"])),
        Digest.parse(told["manifest"]),
        Digest.parse(told["model"]),
        size=int(told["size"]),
        size_vram=int(told["size_vram"]),
        num_ctx=int(told["num_ctx"]),
        slots=int(told["slots"]),
        busy=int(told["busy"]),
        waiting=int(told["waiting"]),
        loading=bool(told["loading"]),
        expires_at=None if left_ns is None else now_ns + int(left_ns),
    )


# --- answers ------------------------------------------------------------------------------------


def frame(chunk: bytes) -> bytes:
    """Bytes of an answer, as many frames as they need."""
    parts = []
    for start in range(0, len(chunk), FRAME_BYTES):
        part = chunk[start : start + FRAME_BYTES]
        parts.append(len(part).to_bytes(4, "big") + part)
    return b"".join(parts)


class Answered:
    """Reads an answer from the body it comes in: first `head`, then `chunks`."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._rest = bytearray()
        self.is_complete = False

    async def head(self) -> Mapping[str, Any]:
        """The line.

        Raises:
            RequestInvalid: it is none, or too long.
        """
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > HEAD_BYTES or not await self._more():
                raise RequestInvalid("an answer begins with a line of JSON")
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return read_object(line)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the frames; `is_complete` says whether the last word came.

        Raises:
            RequestInvalid: a frame that is too long.
        """
        while True:
            if len(self._rest) >= 4:
                mark = bytes(self._rest[:4])
                if mark == END:
                    self.is_complete = True
                    return
                length = int.from_bytes(mark, "big")
                if length > FRAME_BYTES:
                    raise RequestInvalid("a frame is too long")
                if len(self._rest) >= 4 + length:
                    chunk = bytes(self._rest[4 : 4 + length])
                    del self._rest[: 4 + length]
                    if chunk:
                        yield chunk
                    continue
            if not await self._more():
                return

    async def _more(self) -> bool:
        async for part in self._body:
            self._rest += part
            return True
        return False
