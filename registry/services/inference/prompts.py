"""The text of a prompt: by the model's Go template here, or by the engine's Jinja; cut to fit.

Source: spec ollama-api 14.4, 17.3, 17.4; inference-and-gguf 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from anyio import to_thread

from registry.core.conversation import (
    IMAGE_TOKENS,
    as_openai,
    as_template,
    images_of,
    tagged,
    window,
)
from registry.core.errors import OperationFailed, PromptTooLong, RequestInvalid
from registry.core.prompt import Turn, render
from registry.core.template import GoTemplate
from registry.core.tools import for_engine
from registry.core.wishes import GenerateWish, Message
from registry.services.inference.jobs import Job, Stage
from registry.services.inference.loading import Mode, read_template

_STEPS_AT_ONCE = 5_000
"""What a template may take on the event loop: some ten milliseconds. Few take more."""
_TEXT_AT_ONCE = 1 << 17
_MESSAGES_AT_ONCE = 500
LONGEST_TOKEN = 64
"""Characters that a token stands for, but for rows of spaces: longer texts need no counting."""
_MARKS_BEGIN = ("<", "[")  # those of all tokenizers do
_MARKS_KEPT = 512
_TOKENS = 1 << 31
TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the "
    "prompt, adjust the context length in settings, or use a model with a longer context length"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a completion starts from: text, or token ids where a part had to be cut out."""

    text: str
    images: tuple[bytes, ...] = ()
    tokens: tuple[int, ...] = ()


async def prompt_of(job: Job, stage: Stage) -> Prompt:
    """The prompt of a job, nothing cut.

    Raises:
        OperationFailed: the template does not fit, or does not parse.
    """
    return await _whole(job, stage, job.messages)


async def shortened(job: Job, stage: Stage) -> Prompt:
    """The prompt made to fit: the oldest messages left out, then the middle of what remains.

    Raises:
        PromptTooLong: nothing may be cut, or nothing can.
    """
    if not job.truncates:
        raise PromptTooLong(TOO_LONG)
    direct = isinstance(job.wish, GenerateWish) and _is_direct(job.wish)
    messages = job.messages if direct else await fitting(job, stage)
    prompt = await _whole(job, stage, messages)
    if prompt.images:
        return prompt  # what images take is the engine's to know
    limit = job.spec.options.num_ctx - 1
    half = limit * LONGEST_TOKEN
    if len(prompt.text) > 2 * half:  # nothing of the middle could be kept
        prompt = replace(prompt, text=prompt.text[:half] + prompt.text[-half:])
    tokens = await stage.running.tokenize(prompt.text)
    if len(tokens) <= limit:
        return prompt
    if job.wish.shift is False:
        raise PromptTooLong(TOO_LONG)
    return replace(prompt, tokens=tuple(_cut(tokens, job.sampling.num_keep, limit)))


def _is_direct(wish: GenerateWish) -> bool:
    """Whether the prompt is not that of a conversation."""
    return wish.raw or bool(wish.suffix or wish.template)


async def _whole(job: Job, stage: Stage, messages: Sequence[Message]) -> Prompt:
    wish = job.wish
    if not isinstance(wish, GenerateWish):
        prompt = await _of_messages(job, stage, messages)
    elif wish.raw:
        prompt = Prompt(wish.prompt, tuple(images_of(messages)))
    elif _is_direct(wish):
        template = job.rendering.plain
        # a gap is filled by the model's own Go template also where chats are the engine's
        text = wish.template or (job.admitted.parts.template if wish.suffix else "")
        if text and text != template.text:
            template = await to_thread.run_sync(read_template, text)
        prompt = Prompt(await _direct(job, stage, wish, template), tuple(images_of(messages)))
    else:
        prompt = await _of_messages(job, stage, messages)
    text = prompt.text
    if isinstance(wish, GenerateWish) and wish.context:
        text = await _said_before(wish.context, stage) + text
    return replace(prompt, text=await _unmarked(job, stage, text))


async def _said_before(context: Sequence[int], stage: Stage) -> str:
    if not all(0 <= token < _TOKENS for token in context):  # engines would cut off higher bits
        raise RequestInvalid("a token is not in the model's vocabulary")
    return await stage.running.detokenize(context)


async def _unmarked(job: Job, stage: Stage, text: str) -> str:
    """The text without the mark that the tokenizer will put before it anyway."""
    facts = job.admitted.parts.model
    if facts is None or not text.startswith(_MARKS_BEGIN):
        return text
    mark = facts.values.get("tokenizer.ggml.bos_token_id")
    adds = facts.values.get("tokenizer.ggml.add_bos_token")
    if adds is None:
        adds = facts.values.get("tokenizer.ggml.model") == "llama"
    if not adds or not isinstance(mark, int):
        return text
    digest = job.spec.model.digest
    if digest not in stage.marks:
        if len(stage.marks) >= _MARKS_KEPT:
            stage.marks.clear()
        stage.marks[digest] = await stage.running.detokenize([mark])
    return text.removeprefix(stage.marks[digest])


async def fitting(job: Job, stage: Stage) -> tuple[Message, ...]:
    """The longest end of the conversation that fits; the last message in any case.

    Fewer messages never take more tokens, so the beginning is found by halving.
    """
    messages = job.messages
    low, high = 0, len(messages) - 1  # `high` is taken if nothing fits
    while low < high:
        middle = (low + high) // 2
        if await _fits(job, stage, window(messages, middle)):
            high = middle
        else:
            low = middle + 1
    return window(messages, high)


async def _fits(job: Job, stage: Stage, messages: Sequence[Message]) -> bool:
    prompt = await _of_messages(job, stage, messages)
    if len(prompt.text) > job.spec.options.num_ctx * LONGEST_TOKEN:
        return False
    tokens = len(await stage.running.tokenize(prompt.text))
    if job.spec.projectors:
        tokens += IMAGE_TOKENS * len(prompt.images)
    return tokens < job.spec.options.num_ctx


def _cut(tokens: list[int], keep: int, limit: int) -> list[int]:
    """The first `keep` tokens and the last ones, with half of the remaining context left free."""
    keep = min(len(tokens) if keep < 0 else keep + 1, limit)  # one more: the beginning-of-text mark
    room = limit + 1 - max((limit + 1 - keep) // 2, 1)
    return tokens[:keep] + tokens[keep + len(tokens) - room :]


async def _of_messages(job: Job, stage: Stage, messages: Sequence[Message]) -> Prompt:
    images = tuple(images_of(messages))
    marked = tagged(messages)
    if job.rendering.mode is Mode.NATIVE and job.rendering.jinja:
        plain = [replace(message, images=None) if message.images else message for message in marked]
        return Prompt(await stage.running.apply_template(chat_body(job, plain)), images)
    return Prompt(await _rendered(job.rendering.plain, _turn(job, marked), stage.today), images)


async def _direct(job: Job, stage: Stage, wish: GenerateWish, template: GoTemplate) -> str:
    if wish.suffix:
        return await _rendered(template, Turn(prompt=wish.prompt, suffix=wish.suffix), stage.today)
    return await _rendered(template, _turn(job, tagged(job.messages)), stage.today)


def _turn(job: Job, messages: Sequence[Message]) -> Turn:
    return Turn(
        messages=as_template(messages),
        tools=job.tools or None,
        think=bool(job.think),
        think_level=_level(job.think),
        is_think_set=job.think is not None,
    )


async def _rendered(template: GoTemplate, turn: Turn, today: date) -> str:
    few = len(turn.messages) <= _MESSAGES_AT_ONCE
    if few and sum(len(message["content"]) for message in turn.messages) <= _TEXT_AT_ONCE:
        try:
            return render(template, turn, today, _STEPS_AT_ONCE)
        except OperationFailed:  # perhaps for no more than its length
            pass
    return await to_thread.run_sync(render, template, turn, today)


def chat_body(job: Job, messages: Sequence[Message]) -> dict[str, Any]:
    """What an engine's own template is given.

    Raises:
        RequestInvalid: a tool that no engine reads.
    """
    body: dict[str, Any] = {"messages": as_openai(messages)}
    if job.tools:
        body["tools"] = for_engine(job.tools)
    if job.think is not None:
        arguments: dict[str, Any] = {"enable_thinking": bool(job.think)}
        arguments |= {"reasoning_effort": job.think} if isinstance(job.think, str) else {}
        body["chat_template_kwargs"] = arguments
    return body


def _level(think: bool | str | None) -> str:
    if isinstance(think, str):
        return think
    return "medium" if think else ""
