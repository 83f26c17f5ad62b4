"""A request as far as it is known before a worker is chosen.

Source: spec ollama-api 14-17.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from registry.core.conversation import (
    Stored,
    of_chat,
    of_generate,
    without_old_thoughts,
)
from registry.core.digest import Digest
from registry.core.generation import Metrics
from registry.core.sampling import Sampling
from registry.core.thinking import THINK_TAGS
from registry.core.wishes import ChatWish, GenerateWish, Message
from registry.ports.workers import LoadSpec, Running, Stop
from registry.services.inference.inference import Admitted
from registry.services.inference.loading import HARMONY, Rendering
from registry.services.inference.traits import Traits

_HINT_BYTES = 4096
_MS = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done. `schema` is that of a wished format, `think` what counts after defaults.

    `messages` are all of the conversation; a generate has one, too, made of its prompt. `began` is
    the reading of the stopwatch when the request came, in nanoseconds.
    """

    admitted: Admitted
    wish: GenerateWish | ChatWish
    spec: LoadSpec
    rendering: Rendering
    sampling: Sampling
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None
    think: bool | str | None
    began: int

    @property
    def only_loads(self) -> bool:
        """Whether there is nothing to answer: the model is made ready."""
        if isinstance(self.wish, ChatWish):
            return not self.wish.messages
        return not self.wish.prompt

    @property
    def truncates(self) -> bool:
        """Whether what is too long may be cut."""
        return self.wish.truncate is not False

    @property
    def tools(self) -> tuple[Mapping[str, Any], ...]:
        """The tools offered."""
        return (self.wish.tools or ()) if isinstance(self.wish, ChatWish) else ()

    @property
    def tool_names(self) -> list[str]:
        """Their names."""
        functions = (tool.get("function") for tool in self.tools)
        return [str(item.get("name") or "") for item in functions if isinstance(item, Mapping)]

    @property
    def tags(self) -> tuple[str, str] | None:
        """What stands around thoughts in text that the engine does not look into."""
        if not self.think:
            return None
        template = self.rendering.template
        if template is not None:
            return template.thinking_tags if all(template.thinking_tags) else None
        return THINK_TAGS if THINK_TAGS[1] in self.rendering.jinja else None

    @property
    def hint(self) -> str:
        """The same for all requests of a conversation: they share a beginning."""
        text = "".join(message.content[:_HINT_BYTES] for message in self.messages[:2])
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Watch:
    """A stopwatch: when the request came, when its model was ready, what time it is. All in ns."""

    began: int
    ready: int
    now: Callable[[], int]

    def metrics(self, stop: Stop) -> Metrics:
        """The numbers of an answer that has just ended."""
        timings = stop.timings
        return Metrics(
            total_duration=self.now() - self.began,
            load_duration=self.ready - self.began,
            prompt_eval_count=timings.prompt_tokens,
            prompt_eval_duration=int(timings.prompt_ms * _MS),
            eval_count=timings.tokens,
            eval_duration=int(timings.eval_ms * _MS),
        )


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a job is done. `marks`, which all share, is what tokenizers put before a text."""

    running: Running
    watch: Watch
    today: date
    marks: dict[Digest, str]


@asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """The items; a runner's answer that is not wanted any more is stopped at once."""
    try:
        yield items
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def thoughts(traits: Traits, family: str, think: bool | str | None) -> bool | str | None:
    """What `think` means for a model: those that can think do unless told otherwise."""
    if "thinking" not in traits.capabilities:
        return None if think else think  # asked of one that cannot, and let pass
    if think == "max" and family in HARMONY:
        return "high"  # the highest that this format knows
    return True if think is None else think


def conversation(
    admitted: Admitted, stored: Stored, wish: GenerateWish | ChatWish
) -> tuple[Message, ...]:
    """All messages, those of the model included."""
    if isinstance(wish, GenerateWish):
        return of_generate(wish, stored)
    messages = of_chat(wish, stored)
    family = admitted.parts.config.model_family
    old = family == "qwen3" or admitted.tag.model.model == "deepseek-r1"
    return without_old_thoughts(messages) if old else messages
