import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from registry.adapters.worker_codec import (
    ALIVE,
    CRASHES,
    END,
    FRAME_BYTES,
    HEAD_BYTES,
    Answered,
    crash_json,
    crashes_of,
    error_json,
    error_of,
    facts_json,
    facts_of,
    frame,
    read_object,
    spec_json,
    spec_of,
)
from registry.core.digest import Digest
from registry.core.errors import (
    BlobUnknown,
    CannotRun,
    OperationFailed,
    PromptTooLong,
    RegistryError,
    RequestInvalid,
    Unavailable,
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

pytestmark = pytest.mark.anyio

NAME = ModelName.parse("team/m:q4")
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
SPEC = LoadSpec(
    NAME,
    ONE,
    Weights(TWO, 7),
    (Weights(ONE, 1),),
    (Weights(ONE, 2),),
    RunnerOptions(num_ctx=9, use_mmap=False, chat_template="{{ x }}|y", parallel=2),
    "llama",
    99,
    True,
)
FACTS = WorkerFacts(
    "xllamacpp",
    "1",
    10,
    5,
    frozenset({"gpu", "fast"}),
    (Loaded(SPEC.key, NAME, ONE, TWO, 3, 2, 9, 2, 1, 4, True, None),),
    frozenset({ONE, TWO}),
    draining=True,
    load_bytes_per_s=8,
    has_all=True,
)


def sent(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_crashes_arrive_and_not_more_than_some() -> None:
    crash = Crash(ONE, "m:q4", "GGML_ASSERT")
    assert crashes_of(sent([crash_json(crash)] * 200)) == [crash] * CRASHES
    assert crashes_of(None) == []
    unlike: list[Any] = [[{}], [5], [{"model": "x", "name": "", "reason": ""}], {"a": 1}, 5]
    for bad in unlike:
        with pytest.raises(RequestInvalid, match="not the crashes of a worker"):
            crashes_of(bad)


def test_specs_and_facts_arrive_as_they_were_sent() -> None:
    assert spec_of(sent(spec_json(SPEC))) == SPEC
    assert spec_of(sent(spec_json(SPEC))).key == SPEC.key
    assert facts_of(sent(facts_json(FACTS, 0)), 0) == FACTS


@pytest.mark.parametrize(
    "change",
    [
        {"name": 5},
        {"name": "a b"},
        {"manifest": "sha256:x"},
        {"model": ["sha256:x", 1]},
        {"model": None},
        {"options": {"num_ctx": "many"}},
        {"options": {"unheard": 1}},
        {"memory": "much"},
    ],
)
def test_what_is_no_spec_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match="not the description of a model"):
        spec_of(sent(spec_json(SPEC)) | change)
    with pytest.raises(RequestInvalid):
        spec_of({})


def test_times_are_told_from_now_on_for_clocks_differ() -> None:
    loaded = replace(FACTS.loaded[0], expires_at=1_000)
    found = facts_of(sent(facts_json(replace(FACTS, loaded=(loaded,)), 400)), 90_000)
    assert found.loaded[0].expires_at == 90_600


@pytest.mark.parametrize(
    "change", [{"loaded": [{}]}, {"cached": ["x"]}, {"memory_free": "some"}, {"labels": None}]
)
def test_what_are_no_facts_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid, match="not the facts of a worker"):
        facts_of(sent(facts_json(FACTS, 0)) | change, 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CannotRun("no"), CannotRun),
        (WorkerLost("gone"), WorkerLost),
        (RequestInvalid("bad"), RequestInvalid),
        (PromptTooLong("long"), RequestInvalid),
        (BlobUnknown("sha256:1"), OperationFailed),
    ],
)
def test_errors_arrive_as_the_nearest_kind(error: RegistryError, kind: type[RegistryError]) -> None:
    found = error_of(sent(error_json(error)))
    assert (type(found), str(found)) == (kind, str(error))


def test_unavailable_keeps_its_time() -> None:
    found = error_of(sent(error_json(Unavailable("busy", 7))))
    assert isinstance(found, Unavailable)
    assert found.retry_after_s == 7
    assert isinstance(error_of({"kind": "Nonsense"}), OperationFailed)
    late = error_of({"kind": "Unavailable", "message": "x", "retry_after_s": "soon"})
    assert isinstance(late, Unavailable)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"5"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(RequestInvalid):
        read_object(text)


async def parts(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(pieces: Sequence[bytes]) -> tuple[Any, bytes, bool]:
    answer = Answered(parts(pieces))
    head = await answer.head()
    body = b"".join([chunk async for chunk in answer.chunks()])
    return head, body, answer.is_complete


BODY = b'{"status":200}\n' + frame(b"Hello") + ALIVE + frame(b", world") + END


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
async def test_an_answer_is_read_whatever_its_pieces(step: int) -> None:
    pieces = [BODY[start : start + step] for start in range(0, len(BODY), step)]
    assert await read(pieces) == ({"status": 200}, b"Hello, world", True)


@pytest.mark.parametrize("length", [len(BODY) - 1, len(BODY) - 4, 20])
async def test_an_answer_without_its_last_word_broke_off(length: int) -> None:
    assert (await read([BODY[:length]]))[2] is False


async def test_large_pieces_go_in_several_frames() -> None:
    big = bytes(FRAME_BYTES + 5)
    assert (await read([b"{}\n", frame(big), END]))[1] == big


@pytest.mark.parametrize(
    "pieces", [[], [b"{}"], [b"x\n"], [b"[1]\n"], [b"x" * (HEAD_BYTES + 1), b"\n"]]
)
async def test_an_answer_begins_with_a_line(pieces: list[bytes]) -> None:
    with pytest.raises(RequestInvalid):
        await read(pieces)


async def test_a_frame_has_a_limit() -> None:
    with pytest.raises(RequestInvalid, match="too long"):
        await read([b"{}\n", (FRAME_BYTES + 1).to_bytes(4, "big")])
