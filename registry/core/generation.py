"""The answer of a model as typed events: what generate, chat and their compatible forms write out.

Source: spec ollama-api 14-19, inference-and-gguf 5.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import Enum

from registry.core.wishes import ToolCall


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was, or might have been, chosen. `bytes` are its UTF-8 bytes, when known."""

    token: str
    logprob: float
    bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Logprob:
    """The chosen token of one position and the likeliest ones there, likeliest first."""

    chosen: Choice
    top: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts are tokens, durations nanoseconds. Tokens taken from a prompt cache count as read."""

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class Reason(Enum):
    """Why an answer ended; the value is the API's `done_reason`."""

    STOP = "stop"
    LENGTH = "length"
    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer. A tool call comes whole, in one piece."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but content, perhaps not even that."""
        return not (self.thinking or self.tool_calls or self.logprobs)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not self.content and self.is_plain


@dataclass(frozen=True, slots=True)
class End:
    """The answer is complete: the last event, exactly once. `metrics` is None where nothing ran.

    `context` are the token ids of prompt and answer, for a later generate. `stopped_by` is the stop
    sequence that ended it, empty if none did. `made_tool_calls` says whether any came before.
    """

    reason: Reason = Reason.STOP
    metrics: Metrics | None = None
    context: tuple[int, ...] | None = None
    stopped_by: str = ""
    made_tool_calls: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """The only event where no more than the prompt was asked for (`_debug_render_only`)."""

    prompt: str
    images: int = 0


AnswerEvent = Delta | End | Rendered
Answer = AsyncGenerator[AnswerEvent, None]
"""Ends with `End` or `Rendered`; a failure is an exception out of the generator, never an event."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings in the order of their inputs, each a list of float32 values as Python floats."""

    vectors: list[list[float]]
    metrics: Metrics
