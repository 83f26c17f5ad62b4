"""Pieces of a runner as the events of an answer: thoughts and tool calls told apart, an end.

Source: spec inference-and-gguf 5, 12.2; ollama-api 17.5, 17.6, 18.2.
"""

import secrets
import string
from dataclasses import replace

import orjson

from registry.core.errors import OperationFailed
from registry.core.generation import Delta, End, Logprob, Metrics, Reason
from registry.core.thinking import ThinkingParser, Told
from registry.core.toolcalls import Parsed, ToolCallParser
from registry.core.wishes import ToolCall
from registry.ports.workers import Piece, Stop, ToolPiece
from registry.services.inference.jobs import Job

_ID_CHARACTERS = string.ascii_letters + string.digits
_ID_LENGTH = 8


def call_id() -> str:
    """An id for a tool call."""
    return "call_" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


class Teller:
    """Tells a runner's text apart by what the model's template shows.

    `begun` says that the prompt ended in the opening tag. `marks` are texts that tell a tool call,
    which the engine must not swallow.
    """

    def __init__(self, job: Job, *, begun: bool) -> None:
        tags = job.tags
        self._thinking = ThinkingParser(*tags, begun=begun) if tags else None
        self._tools: ToolCallParser | None = None
        self.marks: list[str] = []
        if job.tools and job.rendering.template is not None:
            marker = job.rendering.template.tool_marker
            self._tools = ToolCallParser(marker, job.tool_names, call_id)
            self.marks = _marks(marker)
        self._top = job.wish.top_logprobs
        self.made_tool_calls = False

    @property
    def thinks(self) -> bool:
        """Whether thoughts are told apart and may still come."""
        return self._thinking is not None and not self._thinking.is_content

    def tell(self, piece: Piece) -> Told:
        """Thoughts and the rest of a piece, tool calls not yet looked for."""
        return self._thinking.feed(piece.content) if self._thinking else Told("", piece.content)

    def take(self, piece: Piece) -> Delta:
        """What a piece adds; it may be nothing yet."""
        if self._thinking is None and self._tools is None:
            return Delta(piece.content, logprobs=shown(piece.logprobs, self._top))
        told = self.tell(piece)
        parsed = self._tools.feed(told.content) if self._tools else Parsed(told.content)
        self.made_tool_calls |= bool(parsed.calls)
        logprobs = shown(piece.logprobs, self._top)
        return Delta(parsed.content, told.thinking, parsed.calls, logprobs)

    def rest(self) -> Delta:
        """What was held back when the text ended."""
        told = self._thinking.finish() if self._thinking else Told()
        if self._tools is None:
            return Delta(told.content, told.thinking)
        parsed = self._tools.feed(told.content)
        self.made_tool_calls |= bool(parsed.calls)
        rest = self._tools.finish()
        return Delta(parsed.content + rest.content, told.thinking, parsed.calls)


def _marks(marker: str) -> list[str]:
    """What must be printed though it may be a special token: the marker, or how it begins."""
    if marker in {"{", "["}:
        return []
    closing = {"<": ">", "[": "]"}.get(marker[:1])
    end = marker.find(closing) if closing else -1
    return [marker[: end + 1] if end > 0 else marker]


class CallCollector:
    """Tool calls of an engine that tells them apart itself, in pieces: put together by index."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolPiece] = {}

    def take(self, pieces: tuple[ToolPiece, ...]) -> None:
        """Add what has come."""
        for piece in pieces:
            had = self._calls.get(piece.index, ToolPiece(piece.index))
            self._calls[piece.index] = replace(
                had,
                id=had.id or piece.id,
                name=had.name + piece.name,
                arguments=had.arguments + piece.arguments,
            )

    def finish(self, *, cut_off: bool) -> tuple[ToolCall, ...]:
        """All calls, whole. One that the token limit broke off is left out.

        Raises:
            OperationFailed: arguments that are no JSON object.
        """
        calls: list[ToolCall] = []
        for index in sorted(self._calls):
            piece = self._calls[index]
            try:
                arguments = orjson.loads(piece.arguments) if piece.arguments.strip() else {}
            except ValueError as error:
                if cut_off:
                    continue
                raise _invalid(piece) from error
            if not isinstance(arguments, dict):
                raise _invalid(piece)
            calls.append(ToolCall(piece.name, arguments, piece.id or call_id(), index))
        return tuple(calls)


def _invalid(piece: ToolPiece) -> OperationFailed:
    return OperationFailed(f"the model's call of the tool {piece.name[:80]!r} is not valid JSON")


def ended(stop: Stop, metrics: Metrics, *, made_tool_calls: bool = False) -> End:
    """The last event."""
    return End(
        reason=Reason.LENGTH if stop.limit else Reason.STOP,
        metrics=metrics,
        stopped_by=stop.stopped_by,
        made_tool_calls=made_tool_calls,
    )


def shown(logprobs: tuple[Logprob, ...], top: int) -> tuple[Logprob, ...]:
    """As many alternatives as were asked for."""
    return logprobs and tuple(replace(item, top=item.top[:top]) for item in logprobs)
