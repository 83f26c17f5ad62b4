"""An answer as a whole: its events joined, for requests that do not stream."""

from contextlib import aclosing
from dataclasses import dataclass, field

from registry.core.generation import Answer, Delta, End, Logprob, Metrics, Rendered
from registry.core.wishes import ToolCall


@dataclass(frozen=True, slots=True)
class Joined:
    """All of an answer. `rendered` is set, and `end` a default, where only that was asked for."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    end: End = field(default_factory=End)
    rendered: Rendered | None = None

    @property
    def metrics(self) -> Metrics:
        """What it took; zeros where nothing ran."""
        return self.end.metrics or Metrics()


async def joined(answer: Answer) -> Joined:
    """Await an answer to its end; it is closed in every case."""
    deltas: list[Delta] = []
    end, rendered = End(), None
    async with aclosing(answer):
        async for event in answer:
            match event:
                case Delta():
                    deltas.append(event)
                case End():
                    end = event
                case Rendered():
                    rendered = event
    return Joined(
        "".join(delta.content for delta in deltas),
        "".join(delta.thinking for delta in deltas),
        tuple(call for delta in deltas for call in delta.tool_calls),
        tuple(item for delta in deltas for item in delta.logprobs),
        end,
        rendered,
    )
