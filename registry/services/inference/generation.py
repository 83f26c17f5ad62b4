"""From a checked wish to the events of its answer.

What is wished for becomes a job and the spec of a model to load; the router finds a worker; the
worker's dialect decides how it is asked.

Source: spec ollama-api 14-17, inference-and-gguf 3, 11, 12.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from anyio import to_thread

from registry.core import media
from registry.core.conversation import check_media, images_of, media_of
from registry.core.digest import Digest
from registry.core.duration import LONGEST
from registry.core.errors import RequestInvalid, Unsupported
from registry.core.generation import Answer, AnswerEvent, End, Metrics, Reason, Vectors
from registry.core.gotext import quote
from registry.core.options import merged, unknown
from registry.core.sampling import Sampling
from registry.core.wishes import ChatWish, EmbeddingWish, EmbedWish, GenerateWish, Message
from registry.ports.workers import Dialect, Embedded, LoadSpec, Running
from registry.services.inference.chats import beyond_chat, chat
from registry.services.inference.completion import completion
from registry.services.inference.embedding import Inputs, comes_raw, embedded
from registry.services.inference.formats import schema_of
from registry.services.inference.inference import Admitted
from registry.services.inference.jobs import Job, Stage, Watch, conversation, thoughts
from registry.services.inference.loading import Demands, Mode
from registry.services.inference.passing import passed_on
from registry.services.inference.routing import Router
from registry.services.inference.traits import KnownTraits, Traits
from registry.services.inference.waiting import Errand
from registry.settings import Worker as WorkerSettings

_ALL = frozenset(Dialect)
_ONE_IMAGE = "this model only supports one image while more than one image requested"
_SMALL_SCHEMA = 2048
_NS = 1_000_000_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` in nanoseconds since the epoch; `ticks` for durations."""

    now: Callable[[], int] = time.time_ns
    ticks: Callable[[], int] = time.monotonic_ns


class Generation:
    """Use cases that run a model which has been admitted."""

    def __init__(self, router: Router, settings: WorkerSettings, clocks: Clocks) -> None:
        self._router = router
        self._settings = settings
        self._clocks = clocks
        self._traits = KnownTraits(settings.go_template)
        self._marks: dict[Digest, str] = {}

    async def answer(self, admitted: Admitted, wish: GenerateWish | ChatWish) -> Answer:
        """The events of an answer; nothing is asked of a worker before the first is drawn.

        Raises:
            Unavailable: there is no worker, or none that has time.
            RequestInvalid, OperationFailed: the wish cannot be fulfilled, in whose words ever.
            WorkerFailed: the worker could not, or went away in mid-answer.
        """
        if admitted.ask.unload:
            await self._unload(admitted)
            yield End(Reason.UNLOAD)
            return
        job = await self._job(admitted, wish)

        def use(running: Running) -> AsyncGenerator[AnswerEvent, None]:
            return self._events(job, running)

        keep_alive = self._keep_alive(wish.keep_alive)
        errand = Errand(job.hint, self._dialects(job), admitted.account)
        async with aclosing(self._router.stream(job.spec, keep_alive, use, errand)) as events:
            async for event in events:
                yield event

    async def vectors(self, admitted: Admitted, wish: EmbedWish) -> Vectors:
        """The embeddings of an embed's inputs, of unit length.

        Raises:
            RequestInvalid: the model makes none, a text is too long, or a value is no number.
            Unavailable, WorkerFailed: see `answer`.
        """
        texts = [wish.input] if isinstance(wish.input, str) else list(wish.input or ())
        if texts == [""] and isinstance(wish.input, str):
            texts = []
        began = self._clocks.ticks()
        spec = await self._embedder(admitted, wish.options)
        inputs = Inputs(texts, spec, wish.truncate is not False, wish.dimensions)
        found, load_ns = await self._embed(admitted, inputs, wish.keep_alive)
        if not texts:
            return Vectors([], Metrics())
        made = [vector for batch in found for vector in batch.vectors]
        metrics = Metrics(
            total_duration=self._clocks.ticks() - began,
            load_duration=load_ns,
            prompt_eval_count=sum(batch.prompt_tokens for batch in found),
        )
        return Vectors(made, metrics)

    async def vector(self, admitted: Admitted, wish: EmbeddingWish) -> Vectors:
        """The embedding of one prompt as the older endpoint gives it: none for no prompt.

        Raises:
            RequestInvalid, Unavailable, WorkerFailed: see `vectors`.
        """
        spec = await self._embedder(admitted, wish.options)
        facts = admitted.parts.model
        raw = facts is not None and comes_raw(facts)
        texts = [wish.prompt] if wish.prompt else []
        inputs = Inputs(texts, spec, truncate=False, raw=raw, unit=False)
        found, _ = await self._embed(admitted, inputs, wish.keep_alive)
        return Vectors([vector for batch in found for vector in batch.vectors], Metrics())

    # --- a job --------------------------------------------------------------------------------

    async def _job(self, admitted: Admitted, wish: GenerateWish | ChatWish) -> Job:
        parts = admitted.parts
        began = self._clocks.ticks()
        traits = await self._traits.of(admitted)
        options = self._options(admitted, traits, wish.options)
        demands = Demands(options, traits.rendering.mode, wish.shift is not False)
        spec = traits.spec(admitted, demands, self._settings)
        messages = conversation(admitted, traits.stored, wish)
        if "mllama" in (parts.config.model_families or ()) and _has_two_images(messages):
            raise RequestInvalid(_ONE_IMAGE)
        missing = sorted(media_of(messages) - traits.capabilities)
        if missing:
            raise RequestInvalid(f"{admitted.tag.model} does not support " + "\n".join(missing))
        schema = None
        if wish.format is not None and len(wish.format) < _SMALL_SCHEMA:
            schema = schema_of(wish.format)
        elif wish.format is not None:
            schema = await to_thread.run_sync(schema_of, wish.format)
        return Job(
            admitted=admitted,
            wish=wish,
            spec=spec,
            rendering=traits.rendering,
            sampling=Sampling.of(options, spec.options.num_ctx),
            messages=messages,
            schema=schema,
            think=thoughts(traits, parts.config.model_family, wish.think),
            began=began,
        )

    def _options(
        self, admitted: Admitted, traits: Traits, sent: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        options = merged(traits.parameters, sent)
        strange = unknown(options)
        if strange:
            log.info("unknown options", model=admitted.tag.model.short, options=strange[:20])
        return options

    def _keep_alive(self, wished: int | None) -> float | None:
        """Seconds; None for ever."""
        if wished is None:
            return self._settings.keep_alive_s
        return None if wished >= LONGEST else wished / _NS

    async def _unload(self, admitted: Admitted) -> None:
        for layer in admitted.parts.manifest.layers:
            if layer.media_type == media.MODEL:
                await self._router.unload(layer.digest)

    def _dialects(self, job: Job) -> frozenset[Dialect]:
        """The workers that can be asked.

        Raises:
            RequestInvalid: none, for a model whose prompts only an Ollama server can make, or for
                images that our own engine does not read.
        """
        renderer = job.rendering.renderer
        if renderer and not job.rendering.jinja:
            here = {worker.dialect for worker in self._router.workers()}
            if here and Dialect.OLLAMA not in here:
                raise RequestInvalid(f"renderer {quote(renderer)} is not supported")
            return frozenset({Dialect.OLLAMA})
        try:
            check_media(job.messages)
        except RequestInvalid:
            if {worker.dialect for worker in self._router.workers()} <= {Dialect.LLAMA}:
                raise
            return _ALL - {Dialect.LLAMA}  # those of others may be able to
        if beyond_chat(job.wish):
            here = {worker.dialect for worker in self._router.workers()}
            return _ALL if here == {Dialect.OPENAI} else _ALL - {Dialect.OPENAI}
        return _ALL

    def _events(self, job: Job, running: Running) -> AsyncGenerator[AnswerEvent, None]:
        """The answer by one lease; asked again with another if that one is lost at once."""
        if job.only_loads:
            return _loaded()
        ticks = self._clocks.ticks
        today = datetime.fromtimestamp(self._clocks.now() / _NS).astimezone().date()
        stage = Stage(running, Watch(job.began, ticks(), ticks), today, self._marks)
        return _way(job, running)(job, stage)

    # --- embeddings ---------------------------------------------------------------------------

    async def _embedder(self, admitted: Admitted, sent: Mapping[str, Any] | None) -> LoadSpec:
        traits = await self._traits.of(admitted)
        if "embedding" not in traits.capabilities:
            raise RequestInvalid(f"{quote(admitted.ask.model[:700])} does not support embeddings")
        options = self._options(admitted, traits, sent)
        return traits.spec(admitted, Demands(options), self._settings)

    async def _embed(
        self, admitted: Admitted, inputs: Inputs, wished: int | None
    ) -> tuple[list[Embedded], int]:
        """The vectors batch by batch, and how long it took until the model was ready, in ns."""
        began = self._clocks.ticks()
        load_ns = 0

        async def use(running: Running) -> AsyncGenerator[list[Embedded], None]:
            nonlocal load_ns
            load_ns = self._clocks.ticks() - began
            async with aclosing(embedded(inputs, running)) as batches:
                yield [batch async for batch in batches]  # all at once: a lost one is asked again

        errand = Errand(account=admitted.account)
        keep_alive = self._keep_alive(wished)
        async with aclosing(self._router.stream(inputs.spec, keep_alive, use, errand)) as found:
            return await anext(found), load_ns


async def _loaded() -> AsyncGenerator[AnswerEvent, None]:
    yield End(Reason.LOAD)


def _way(job: Job, running: Running) -> Callable[[Job, Stage], AsyncGenerator[AnswerEvent, None]]:
    """How a worker is asked.

    Raises:
        Unsupported: this one cannot do that.
    """
    if running.dialect is Dialect.OLLAMA:
        return passed_on
    if running.dialect is Dialect.OPENAI:
        if beyond := beyond_chat(job.wish):
            raise Unsupported(f"the worker of this model only chats: it does not know {beyond}")
        return chat
    is_chat = isinstance(job.wish, ChatWish)
    return chat if is_chat and job.rendering.mode is Mode.NATIVE else completion


def _has_two_images(messages: Sequence[Message]) -> bool:
    return any(len(images_of((message,))) > 1 for message in messages)
