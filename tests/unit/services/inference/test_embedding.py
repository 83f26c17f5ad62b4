"""Vectors of texts: batches, what is too long, unit length, the older form."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from registry.core.errors import PromptTooLong, RequestInvalid, WorkerFailed
from registry.core.facts import Facts
from registry.core.wishes import EmbeddingWish, EmbedWish
from registry.ports.workers import Dialect, Embedded, LoadSpec, Running
from registry.services.inference.embedding import comes_raw
from tests.support.desk import Desk, desk, model_shelf
from tests.support.fake_worker import FakeRunning, FakeWorker, Script
from tests.support.library import Library

pytestmark = pytest.mark.anyio

UNIT = pytest.approx([0.6, 0.8])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lib(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with model_shelf(tmp_path_factory.mktemp("library") / "data") as made:
        yield made


class Picky(FakeWorker):
    """Its runner refuses texts longer than `holds`, whatever was said of its context."""

    def __init__(self, holds: int, vectors: list[list[float]] | None = None) -> None:
        super().__init__()
        self.holds = holds
        self.vectors = vectors

    async def acquire(self, spec: LoadSpec) -> Running:
        running = await super().acquire(spec)
        assert isinstance(running, FakeRunning)
        made = running.embed

        async def embed(texts: Sequence[str], *, normalize: bool = True) -> Embedded:
            found = await made(texts, normalize=normalize)
            if any(len(text) > self.holds for text in texts):
                raise PromptTooLong("the input length exceeds the context length")
            return found if self.vectors is None else Embedded(self.vectors, 1)

        running.embed = embed  # type: ignore[method-assign]
        return running


def sent(asked: Desk) -> list[list[str]]:
    return [body for what, body in asked.asked if what == "embed"]


async def test_many_texts_go_in_batches_and_keep_their_order(lib: Library) -> None:
    asked = desk(lib)
    texts = [f"text {number}" for number in range(150)]
    assert len(await asked.embed(EmbedWish(model="bert", input=texts))) == 150
    assert [len(batch) for batch in sent(asked)] == [64, 64, 22]
    assert [text for batch in sent(asked) for text in batch] == texts


async def test_long_texts_go_in_smaller_batches(lib: Library) -> None:
    asked = desk(lib)
    await asked.embed(EmbedWish(model="bert", input=["x" * 200_000, "", "y" * 200_000]))
    assert [len(batch) for batch in sent(asked)] == [2, 1]


@pytest.mark.parametrize("given", [None, "", []])
async def test_nothing_only_loads(lib: Library, given: Any) -> None:
    asked = desk(lib)
    assert await asked.embed(EmbedWish(model="bert", input=given)) == []
    assert asked.asked == []
    assert asked.worker.leases[-1].spec.options.embedding


async def test_an_empty_text_in_a_list_is_one(lib: Library) -> None:
    assert await desk(lib).embed(EmbedWish(model="bert", input=[""])) == [UNIT]


@pytest.mark.parametrize(
    ("dimensions", "vector"), [(0, [0.6, 0.8]), (1, [1.0]), (2, [0.6, 0.8]), (9, [0.6, 0.8])]
)
async def test_fewer_dimensions_are_brought_to_unit_length_again(
    lib: Library, dimensions: int, vector: list[float]
) -> None:
    wish = EmbedWish(model="bert", input="a", dimensions=dimensions)
    assert await desk(lib).embed(wish) == [pytest.approx(vector)]


async def test_a_text_with_too_many_tokens_is_cut(lib: Library) -> None:
    asked = desk(lib)
    await asked.embed(EmbedWish(model="bert", input=["x" * 15, "x" * 16, "y" * 50]))
    assert sent(asked) == [["x" * 15, "x" * 16, "y" * 19]]  # 20 tokens, one for the mark


async def test_or_refused(lib: Library) -> None:
    with pytest.raises(PromptTooLong, match="the input length exceeds the context length"):
        await desk(lib).embed(EmbedWish(model="bert", input="y" * 50, truncate=False))
    with pytest.raises(PromptTooLong):
        await desk(lib).embed(EmbeddingWish(model="bert", prompt="y" * 50))
    with pytest.raises(RequestInvalid, match="input after truncation exceeds maximum context"):
        odd = Desk(lib, _Marked(), None)
        await odd.embed(EmbedWish(model="bert", input="y" * 50))


class _Marked(FakeWorker):
    """Its tokenizer puts more around a text than the context holds."""

    async def acquire(self, spec: LoadSpec) -> Running:
        running = await super().acquire(spec)
        assert isinstance(running, FakeRunning)

        async def tokenize(text: str, *, special: bool = True) -> list[int]:
            return [1] * 20 if special else [2] * len(text)

        running.tokenize = tokenize  # type: ignore[method-assign]
        return running


async def test_what_the_runner_finds_too_long_is_cut_to_a_batch(lib: Library) -> None:
    asked = Desk(lib, Picky(10), None)
    options = {"num_batch": 8}
    wish = EmbedWish(model="bert", input=["short", "x" * 12], options=options)
    assert len(await asked.embed(wish)) == 2
    assert sent(asked) == [["short", "x" * 12], ["short"], ["x" * 12], ["x" * 7]]
    with pytest.raises(RequestInvalid, match="cannot be truncated further"):
        await asked.embed(EmbedWish(model="bert", input=["x" * 12]))
    with pytest.raises(PromptTooLong):
        await asked.embed(EmbedWish(model="bert", input=["x" * 12], truncate=False))


async def test_what_is_no_number_is_refused(lib: Library) -> None:
    for value in (float("nan"), float("inf")):
        odd = Desk(lib, Picky(100, [[1.0, value]]), None)
        with pytest.raises(RequestInvalid, match="embedding contains NaN or Inf values"):
            await odd.embed(EmbedWish(model="bert", input="a"))


async def test_a_vector_of_zeros_stays_one(lib: Library) -> None:
    odd = Desk(lib, Picky(100, [[0.0, 0.0]]), None)
    assert await odd.embed(EmbedWish(model="bert", input="a")) == [[0.0, 0.0]]


async def test_the_older_form_gives_vectors_as_they_are(lib: Library) -> None:
    asked = desk(lib)
    assert await asked.embed(EmbeddingWish(model="bert", prompt="abc")) == [[3.0, 0.0]]
    assert await asked.embed(EmbeddingWish(model="bert")) == []


@pytest.mark.parametrize(
    ("values", "raw"),
    [
        ({"general.architecture": "bert"}, False),
        ({"general.architecture": "bert", "bert.normalize_embeddings": False}, True),
        ({"general.architecture": "bert", "bert.normalize_embeddings": True}, False),
        ({"general.architecture": "bert", "tokenizer.ggml.model": "llama"}, True),
        ({"general.architecture": "nomic-bert"}, True),
        ({"general.architecture": "nomic-bert", "nomic-bert.normalize_embeddings": True}, False),
        ({"general.architecture": "gemma3"}, False),
    ],
)
def test_which_vectors_the_older_form_leaves_alone(values: dict[str, Any], raw: bool) -> None:
    assert comes_raw(Facts(0, "F32", values, ())) is raw


async def test_models_of_text_make_no_vectors(lib: Library) -> None:
    for wish in (EmbedWish(model="plain", input="a"), EmbeddingWish(model="plain", prompt="a")):
        with pytest.raises(RequestInvalid, match='"plain" does not support embeddings'):
            await desk(lib).embed(wish)


async def test_an_ollama_server_does_it_its_own_way(lib: Library) -> None:
    frame = {"embeddings": [[3.0, 4.0]], "prompt_eval_count": 2}
    worker = FakeWorker(script=Script(frames=[frame]), dialect=Dialect.OLLAMA)
    asked = Desk(lib, worker, None)
    assert await asked.embed(EmbedWish(model="bert", input="a" * 50)) == [UNIT]
    body = {"model": "bert:latest", "input": ["a" * 50], "truncate": True}
    assert asked.asked == [("/api/embed", body)]
    with pytest.raises(WorkerFailed, match="has no embeddings"):
        await asked.embed(EmbedWish(model="bert", input=["a", "b"]))
    assert await asked.embed(EmbedWish(model="bert", input=[])) == []


async def test_other_servers_count_for_themselves(lib: Library) -> None:
    asked = Desk(lib, FakeWorker(dialect=Dialect.OPENAI), None)
    await asked.embed(EmbedWish(model="bert", input="a" * 50))
    assert asked.asked == [("embed", ["a" * 50])]
