"""Vectors of texts: cut to fit, asked for in batches, brought to unit length.

Source: spec ollama-api 16; inference-and-gguf 2.1, 2.2.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from registry.core.errors import PromptTooLong, RequestInvalid, WorkerFailed
from registry.core.facts import Facts
from registry.ports.workers import Dialect, Embedded, LoadSpec, Running
from registry.services.inference.jobs import closing
from registry.services.inference.prompts import LONGEST_TOKEN
from registry.services.inference.vectors import checked, normalized

BATCH = 64
_BATCH_LENGTH = 1 << 18
_MARKS = 4  # tokens that no byte of the text stands for, at most
_TOO_LONG = "the input length exceeds the context length"
_NO_ROOM = "input after truncation exceeds maximum context length"
_NO_MORE = "input exceeds maximum context length and cannot be truncated further"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts to embed, all of one request. `dimensions` is 0 for all that there are.

    With `raw` the runner leaves the vectors as they are; with `unit` they are brought to length 1.
    """

    texts: Sequence[str]
    spec: LoadSpec
    truncate: bool = True
    dimensions: int = 0
    raw: bool = False
    unit: bool = True

    @property
    def limit(self) -> int:
        """Tokens of one text, marks included."""
        return self.spec.options.num_ctx


async def embedded(inputs: Inputs, running: Running) -> AsyncGenerator[Embedded, None]:
    """The vectors of the texts in order, a batch at a time.

    Raises:
        RequestInvalid: a text is too long and may not, or cannot, be cut; a value is no number.
    """
    async with aclosing(_made(inputs, running)) as batches:
        async for batch in batches:  # shaped one by one: others have their turn between them
            shaped = (
                normalized(batch.vectors, inputs.dimensions)
                if inputs.unit
                else checked(batch.vectors)
            )
            yield replace(batch, vectors=shaped)


async def _made(inputs: Inputs, running: Running) -> AsyncGenerator[Embedded, None]:
    """The vectors as the runner makes them."""
    if running.dialect is Dialect.OLLAMA and not inputs.raw and inputs.texts:
        yield await _passed_on(inputs, running)
        return
    for batch in _batches(inputs.texts):
        texts = [await _fitted(text, inputs, running) for text in batch]
        try:
            yield await running.embed(texts, normalize=not inputs.raw)
        except PromptTooLong:
            for text in texts:
                yield await _cut_again(text, inputs, running)


def _batches(texts: Sequence[str]) -> list[list[str]]:
    """At most 64 texts each, and not too many long ones: an answer comes when all are done."""
    batches: list[list[str]] = []
    room = 0
    for text in texts:
        if not batches or len(batches[-1]) >= BATCH or len(text) > room:
            batches.append([])
            room = _BATCH_LENGTH
        batches[-1].append(text)
        room -= len(text)
    return batches


async def _fitted(text: str, inputs: Inputs, running: Running) -> str:
    """The text, cut where it has more tokens than fit; one that is short needs no counting."""
    if len(text.encode("utf-8", "replace")) + _MARKS <= inputs.limit:
        return text
    if running.dialect is not Dialect.LLAMA:
        return text  # its server counts for itself
    return await _cut(text, inputs, running, inputs.limit)


async def _cut(text: str, inputs: Inputs, running: Running, limit: int) -> str:
    marks = len(await running.tokenize("", special=True))
    room = limit - marks
    if room <= 0:
        raise RequestInvalid(_NO_ROOM)
    if inputs.truncate:
        text = text[: room * LONGEST_TOKEN]  # all that can be kept
    tokens = await running.tokenize(text, special=False)
    if len(tokens) <= room:
        return text
    if not inputs.truncate:
        raise PromptTooLong(_TOO_LONG, len(tokens), limit)
    return await running.detokenize(tokens[:room])


async def _cut_again(text: str, inputs: Inputs, running: Running) -> Embedded:
    """A text that is too long for the runner though it has room for so many tokens."""
    try:
        return await running.embed([text], normalize=not inputs.raw)
    except PromptTooLong as error:
        if not inputs.truncate or running.dialect is not Dialect.LLAMA:
            raise
        shorter = await _cut(text, inputs, running, inputs.spec.options.num_batch)
        if shorter == text:
            raise RequestInvalid(_NO_MORE) from error
        return await running.embed([shorter], normalize=not inputs.raw)


async def _passed_on(inputs: Inputs, running: Running) -> Embedded:
    body: dict[str, Any] = {
        "model": inputs.spec.name.short,
        "input": list(inputs.texts),
        "truncate": inputs.truncate,
    }
    async with closing(running.native("/api/embed", body)) as frames:
        async for frame in frames:
            vectors = frame.get("embeddings")
            count = frame.get("prompt_eval_count", 0)
            if isinstance(vectors, list) and len(vectors) == len(inputs.texts):
                return Embedded(vectors, count if isinstance(count, int) else 0)
    raise WorkerFailed("the worker's answer has no embeddings")


def comes_raw(facts: Facts) -> bool:
    """Whether the older endpoint gives a model's vectors as they are, not of unit length."""
    told = facts.values.get(f"{facts.architecture}.normalize_embeddings")
    if facts.architecture == "bert":
        return facts.values.get("tokenizer.ggml.model", "bert") != "bert" or told is False
    return facts.architecture in {"nomic-bert", "nomic-bert-moe"} and told is not True
