"""An answer to a prompt that is text: generate, and chats of models with a Go template.

Source: spec ollama-api 14, 17.5, 17.6, 18.2; inference-and-gguf 2.2, 12.
"""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from registry.core.errors import PromptTooLong, WorkerLost
from registry.core.generation import AnswerEvent, Delta, End, Metrics, Rendered
from registry.core.wishes import GenerateWish
from registry.ports.workers import Piece, Stop, Timings
from registry.services.inference.jobs import Job, Stage, closing
from registry.services.inference.prompts import Prompt, prompt_of, shortened
from registry.services.inference.telling import Teller, ended

_REPEATS = 30
"""One thing said more often than this, one piece after the other, is no answer any more."""


async def completion(job: Job, stage: Stage) -> AsyncGenerator[AnswerEvent, None]:
    """The events of an answer. The prompt is cut only where the runner found it too long.

    Raises:
        PromptTooLong: and nothing may be cut.
    """
    prompt = await prompt_of(job, stage)
    if job.wish.debug_render_only:
        yield Rendered(prompt.text, len(prompt.images))
        return
    began = False
    try:
        async with aclosing(_Completion(job, stage, prompt).events()) as events:
            async for event in events:
                began = True
                yield event
    except PromptTooLong:
        if began:
            raise
    else:
        return
    cut = await shortened(job, stage)
    async with aclosing(_Completion(job, stage, cut).events()) as events:
        async for event in events:
            yield event


class _Completion:
    """One answer to one prompt, in one request or, if a format has to wait for thoughts, in two."""

    def __init__(self, job: Job, stage: Stage, prompt: Prompt) -> None:
        self._job = job
        self._stage = stage
        self._prompt = prompt
        tags = job.tags
        begun = tags is not None and prompt.text.rstrip().endswith(tags[0])
        self._teller = Teller(job, begun=begun)
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._earlier = Metrics()
        self._last = ""
        self._repeats = 0

    async def events(self) -> AsyncGenerator[AnswerEvent, None]:
        """The answer."""
        if self._job.schema is not None and self._teller.thinks:
            async with aclosing(self._thoughts()) as events:
                async for event in events:
                    yield event
                    if isinstance(event, End):
                        return
        body = self._body(self._job.schema)
        async with closing(self._stage.running.complete(body)) as pieces:
            async for piece in pieces:
                delta = self._teller.take(piece)
                if not delta.is_empty:
                    yield delta
                stop = self._stop(piece)
                if stop is not None:
                    break
            else:
                raise WorkerLost
        for event in await self._ended(stop):
            yield event

    async def _thoughts(self) -> AsyncGenerator[AnswerEvent, None]:
        """What is thought, without the format; the prompt then goes on from there."""
        since = self._stage.watch.now()
        async with closing(self._stage.running.complete(self._body(None))) as pieces:
            async for piece in pieces:
                stop = self._stop(piece)
                told = self._teller.tell(piece)
                if told.thinking:
                    yield Delta(thinking=told.thinking)
                if not self._teller.thinks:
                    break
                if stop is not None:  # it never came to an answer
                    for event in await self._ended(stop):
                        yield event
                    return
            else:
                raise WorkerLost
        text = "".join(self._text)
        said = text[: len(text) - len(told.content)]
        await self._go_on_after(said)
        self._earlier = Metrics(
            eval_count=len(self._tokens), eval_duration=self._stage.watch.now() - since
        )
        self._tokens.clear()

    async def _go_on_after(self, said: str) -> None:
        prompt = self._prompt
        start = prompt.text
        if prompt.tokens:
            start = await self._stage.running.detokenize(prompt.tokens)
        self._prompt = replace(prompt, text=start + said, tokens=())

    async def _ended(self, stop: Stop) -> list[AnswerEvent]:
        """What was held back, and the end."""
        rest = self._teller.rest()
        metrics = self._stage.watch.metrics(stop)
        metrics = replace(
            metrics,
            eval_count=metrics.eval_count + self._earlier.eval_count,
            eval_duration=metrics.eval_duration + self._earlier.eval_duration,
        )
        end = ended(stop, metrics, made_tool_calls=self._teller.made_tool_calls)
        end = replace(end, context=await self._context())
        return [end] if rest.is_empty else [rest, end]

    async def _context(self) -> tuple[int, ...] | None:
        """The tokens of prompt and answer: what a later generate may begin with."""
        wish = self._job.wish
        if not isinstance(wish, GenerateWish) or wish.raw:
            return None
        prompt = self._prompt
        before = prompt.tokens or await self._stage.running.tokenize(prompt.text)
        return (*before, *self._tokens)

    def _stop(self, piece: Piece) -> Stop | None:
        """Take a piece down; the answer's end, or the one of a model that only repeats itself."""
        self._text.append(piece.content)
        self._tokens += piece.tokens
        bare = piece.content.strip()
        self._repeats = self._repeats + 1 if bare == self._last else 0
        self._last = bare
        if piece.stop is None and self._repeats > _REPEATS:
            return Stop(limit=True, timings=Timings(tokens=len(self._tokens)))
        return piece.stop

    def _body(self, schema: Any) -> dict[str, Any]:
        wish, prompt = self._job.wish, self._prompt
        text: Any = list(prompt.tokens) or prompt.text
        if prompt.images:
            data = [base64.b64encode(image).decode() for image in prompt.images]
            text = {"prompt_string": prompt.text, "multimodal_data": data}
        body = {"prompt": text, **self._job.sampling.body()}
        body |= {"json_schema": schema} if schema is not None else {}
        marks = [*(self._job.tags or ()), *self._teller.marks]
        body |= {"preserved_tokens": marks} if marks else {}
        body |= {"n_probs": max(wish.top_logprobs, 1)} if wish.logprobs else {}
        return body
