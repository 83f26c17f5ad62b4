"""Chats whose prompts the engine makes: it tells thoughts and tool calls apart by itself.

Source: spec ollama-api 17.3, 18.2; inference-and-gguf 12.1.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from registry.core.errors import PromptTooLong, RequestInvalid, WorkerLost
from registry.core.generation import AnswerEvent, Delta, Rendered
from registry.core.wishes import ChatWish, GenerateWish, Message
from registry.ports.workers import Dialect
from registry.services.inference.formats import ANY_OBJECT, ENGINE_KEY
from registry.services.inference.jobs import Job, Stage, closing
from registry.services.inference.prompts import chat_body, fitting, prompt_of
from registry.services.inference.telling import CallCollector, ended, shown


async def chat(job: Job, stage: Stage) -> AsyncGenerator[AnswerEvent, None]:
    """The events of a chat; the oldest messages are left out where the runner found it too long.

    Raises:
        PromptTooLong: and nothing may be left out.
        RequestInvalid: tools and a format at once, which engines do not take together.
    """
    if job.wish.debug_render_only:
        prompt = await prompt_of(job, stage)
        yield Rendered(prompt.text, len(prompt.images))
        return
    llama = stage.running.dialect is Dialect.LLAMA
    if llama and job.schema is not None and job.tools:
        raise RequestInvalid("format and tools cannot be combined for this model")
    began = False
    try:
        async with aclosing(_told(job, stage, job.messages)) as events:
            async for event in events:
                began = True
                yield event
    except PromptTooLong:
        if began or not job.truncates or not llama:
            raise
    else:
        return
    async with aclosing(_told(job, stage, await fitting(job, stage))) as events:
        async for event in events:
            yield event


async def _told(
    job: Job, stage: Stage, messages: Sequence[Message]
) -> AsyncGenerator[AnswerEvent, None]:
    calls = CallCollector()
    body = _body(job, messages, stage.running.dialect)
    async with closing(stage.running.chat(body)) as pieces:
        async for piece in pieces:
            calls.take(piece.tool_calls)
            made = calls.finish(cut_off=piece.stop.limit) if piece.stop else ()
            logprobs = shown(piece.logprobs, job.wish.top_logprobs)
            delta = Delta(piece.content, piece.reasoning, made, logprobs)
            if not delta.is_empty:
                yield delta
            if piece.stop is not None:
                metrics = stage.watch.metrics(piece.stop)
                yield ended(piece.stop, metrics, made_tool_calls=bool(made))
                return
    raise WorkerLost


def _body(job: Job, messages: Sequence[Message], dialect: Dialect) -> dict[str, Any]:
    body = chat_body(job, messages)
    if dialect is Dialect.OPENAI:
        body.pop("chat_template_kwargs", None)
        body |= {"reasoning_effort": job.think} if isinstance(job.think, str) else {}
        body |= job.sampling.openai_body()
    else:
        body |= job.sampling.body()
    if job.wish.logprobs:
        body |= {"logprobs": True, "top_logprobs": max(job.wish.top_logprobs, 1)}
    if job.schema is not None:
        body["response_format"] = _response_format(job.schema, dialect)
    return body


def _response_format(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    if dialect is Dialect.OPENAI:
        if schema == ANY_OBJECT:
            return {"type": "json_object"}
        schema = {key: value for key, value in schema.items() if key != ENGINE_KEY}
    return {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}


def beyond_chat(wish: GenerateWish | ChatWish) -> str:
    """What a server that only chats cannot do of a wish; empty if it can do all."""
    if not isinstance(wish, GenerateWish):
        return "_debug_render_only" if wish.debug_render_only else ""
    wanted = {
        "_debug_render_only": wish.debug_render_only,
        "raw": wish.raw,
        "context": bool(wish.context),
        "suffix": bool(wish.suffix),
        "template": bool(wish.template),
    }
    return next((name for name, given in wanted.items() if given), "")
