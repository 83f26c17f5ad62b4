"""What is asked of a model, whichever API it came through.

Every API reads its requests into these; names and defaults are those of the Ollama API.

Source: spec ollama-api 14.1, 15, 16.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.core.gojson import Raw


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that a model made; `arguments` keep the order of their keys."""

    name: str = ""
    arguments: Mapping[str, Any] | None = None
    id: str = ""
    index: int = 0

    def as_json(self) -> dict[str, Any]:
        """As the API writes it."""
        arguments = None if self.arguments is None else dict(self.arguments)
        function = {"index": self.index, "name": self.name, "arguments": arguments}
        return {"id": self.id, "function": function} if self.id else {"function": function}


@dataclass(frozen=True, slots=True)
class Message:
    """A chat message; `role` is in lower case."""

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: tuple[bytes | None, ...] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_name: str = ""
    tool_call_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """As the API writes it, and the layer of messages keeps it."""
        optional = {
            "thinking": self.thinking,
            "images": [
                None if image is None else base64.b64encode(image).decode()
                for image in self.images or ()
            ],
            "tool_calls": [call.as_json() for call in self.tool_calls or ()],
            "tool_name": self.tool_name,
            "tool_call_id": self.tool_call_id,
        }
        given = {key: value for key, value in optional.items() if value}
        return {"role": self.role, "content": self.content, **given}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationWish:
    """What generate and chat have in common. `keep_alive` is in nanoseconds, None if not given."""

    model: str = ""
    stream: bool | None = None
    format: Raw | None = None
    keep_alive: int | None = None
    options: Mapping[str, Any] | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    debug_render_only: bool = False
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateWish(GenerationWish):
    """A text that goes on from a prompt. Images are bytes; None stands for a null in the list."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] | None = None
    raw: bool = False
    images: tuple[bytes | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWish(GenerationWish):
    """The next message of a conversation. Tools are the API's JSON objects."""

    messages: tuple[Message, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class EmbedWish:
    """Vectors of texts. `input` is the JSON value as sent; checked before it is used."""

    model: str = ""
    input: Any = None
    keep_alive: int | None = None
    truncate: bool | None = None
    dimensions: int = 0
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingWish:
    """The vector of one text, in the API's older form."""

    model: str = ""
    prompt: str = ""
    keep_alive: int | None = None
    options: Mapping[str, Any] | None = None
