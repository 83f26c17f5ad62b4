"""JSON bodies of POST /v1/messages, and what they mean as a request of `/api/chat`.

Source: spec ollama-api 19.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from registry.core import gojson
from registry.core.errors import RequestInvalid
from registry.core.gojson import (
    Bool,
    Custom,
    Field,
    Float,
    Int,
    JsonInvalid,
    Node,
    Ptr,
    RawMessage,
    Slice,
    Struct,
    base64_bytes,
)
from registry.core.gotext import quote
from registry.core.wishes import Message, ToolCall
from registry.web.inference_schemas import TOOL_PARAMETERS, ChatRequest
from registry.web.openai_requests import OpenAiRequest
from registry.web.schemas import FLAG, SHOWN, TEXT, fields, ordered_object

_ANY: Final = gojson.Any()
_Block = Mapping[str, Any]
_SOURCE: Final = Struct(
    "anthropic.ImageSource", dict, *fields("type", "media_type", "data", "url", of=TEXT)
)
_CITATION: Final = Struct(
    "anthropic.Citation",
    dict,
    *fields("type", "url", "title", "encrypted_index", "cited_text", of=TEXT),
)
_BLOCK: Final = Struct(
    "anthropic.ContentBlock",
    dict,
    *fields("type", "id", "name", "tool_use_id", "signature", of=TEXT),
    *fields("text", "thinking", of=Ptr(TEXT)),
    Field("citations", Slice(_CITATION)),
    Field("source", Ptr(_SOURCE)),
    Field("input", Custom("api.ToolCallFunctionArguments", ordered_object)),
    Field("content", _ANY),
    Field("is_error", FLAG),
)
_BLOCKS: Final = Slice(_BLOCK)
_MESSAGE: Final = Struct(
    'struct { Role string "json:\\"role\\""; Content json.RawMessage "json:\\"content\\"" }',
    dict,
    Field("role", TEXT),
    Field("content", Custom("json.RawMessage", lambda node: (node,))),
)


def _message(node: Node) -> Mapping[str, Any]:
    """A message; text in place of blocks is one block of text."""
    told = gojson.unmarshal(node, _MESSAGE)
    if "content" not in told:
        raise JsonInvalid("unexpected end of JSON input")
    content = told["content"][0]
    if content is None or gojson.kind(content) == "string":
        blocks: Any = ({"type": "text", "text": content or ""},)
    else:
        blocks = gojson.unmarshal(content, _BLOCKS)
    return {"role": told.get("role", ""), "content": blocks}


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesRequest(OpenAiRequest):
    """POST /v1/messages."""

    model: str = ""
    max_tokens: int = 0
    messages: tuple[Mapping[str, Any], ...] | None = None
    system: Any = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    thinking: Mapping[str, Any] | None = None
    output_config: Mapping[str, Any] | None = None

    def as_chat(self) -> ChatRequest:
        """The same as a request of `/api/chat`.

        Raises:
            RequestInvalid: something required is missing, or blocks or tools that cannot be.
        """
        if not self.model:
            raise RequestInvalid("model is required")
        if self.max_tokens <= 0:
            raise RequestInvalid("max_tokens is required and must be positive")
        if not self.messages:
            raise RequestInvalid("messages is required")
        system = _system(self.system)
        messages = [Message(role="system", content=system)] if system else []
        for message in self.messages:
            messages += _native(message["role"].lower(), message["content"] or ())
        told = {
            "num_predict": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "stop": list(self.stop_sequences or ()) or None,
        }
        return ChatRequest(
            model=self.model,
            messages=tuple(messages),
            stream=self.stream,
            options={key: value for key, value in told.items() if value is not None},
            tools=tuple(_tool(tool) for tool in self.tools or ()),
            think=self._think(),
        )

    def _think(self) -> bool | str | None:
        asked = (self.thinking or {}).get("type", "")
        if asked in {"enabled", "disabled"}:
            return bool(asked == "enabled")
        effort = str((self.output_config or {}).get("effort", "")).strip().lower()
        effort = "high" if effort == "xhigh" else effort
        return effort if effort in {"high", "medium", "low", "max"} else None


def _system(told: Any) -> str:
    if isinstance(told, str):
        return told
    blocks = told if isinstance(told, list) else []
    return "".join(
        block["text"]
        for block in blocks
        if isinstance(block, dict)
        and block.get("type") == "text"
        and isinstance(block.get("text"), str)
    )


def _native(role: str, blocks: tuple[_Block, ...]) -> list[Message]:
    """A message of Ollama's from the blocks, and one for each tool result."""
    text, thinking = "", ""
    images: list[bytes] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for block in blocks:
        kind = block.get("type", "")
        if kind == "text":
            text += block.get("text") or ""
        elif kind == "image":
            images.append(_image(block.get("source"), "invalid image source"))
        elif kind in {"tool_use", "server_tool_use"}:
            calls.append(_call(block, strict=kind == "tool_use"))
        elif kind in {"tool_result", "web_search_tool_result"}:
            results.append(_result(block))
        elif kind == "thinking":
            thinking = block.get("thinking") or thinking
    found: list[Message] = []
    if text or images or calls or thinking:
        told = tuple(images) or None, tuple(calls) or None
        found = [Message(role, text, thinking, told[0], told[1])]
    return results + found if role == "user" else found + results


def _call(block: _Block, *, strict: bool) -> ToolCall:
    for key in ("id", "name") if strict else ():
        if not block.get(key):
            raise RequestInvalid(f"tool_use block missing required '{key}' field")
    return ToolCall(block.get("name", ""), block.get("input", {}), block.get("id", ""))


def _result(block: _Block) -> Message:
    content = block.get("content")
    text, images = content if isinstance(content, str) else "", []
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict):
            continue
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            text += part["text"]
        elif part.get("type") == "image" and block.get("type") == "tool_result":
            images.append(_image(part.get("source"), "invalid tool_result image source"))
    call_id = block.get("tool_use_id", "")
    return Message(role="tool", content=text, images=tuple(images) or None, tool_call_id=call_id)


def _image(source: Any, absent: str) -> bytes:
    if not isinstance(source, dict):
        raise RequestInvalid(absent)
    kind, data = str(source.get("type", "")), source.get("data", "")
    if kind != "base64":
        raise RequestInvalid(
            f"invalid image source type: {kind[:SHOWN]}. Only base64 images are supported."
        )
    try:
        return base64_bytes(data if isinstance(data, str) else "")
    except JsonInvalid as error:
        raise RequestInvalid(f"invalid base64 image data: {error}") from error


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    name = tool.get("name", "")
    try:
        parameters = gojson.decode(tool.get("input_schema", b"null"), TOOL_PARAMETERS)
    except JsonInvalid as error:
        raise RequestInvalid(
            f"invalid input_schema for tool {quote(name[:SHOWN])}: {error}"
        ) from error
    function = {"name": name, "description": tool.get("description", ""), "parameters": parameters}
    return {"type": "function", "function": function}


def _request(  # what is read for its type alone is dropped here
    tool_choice: object = None, metadata: object = None, **told: Any
) -> MessagesRequest:
    return MessagesRequest(**told)


MessagesRequest.SCHEMA = Struct(
    "anthropic.MessagesRequest",
    _request,
    Field("model", TEXT),
    Field("max_tokens", Int()),
    Field("messages", Slice(Custom("anthropic.MessageParam", _message))),
    Field("system", _ANY),
    Field("stream", FLAG),
    *fields("temperature", "top_p", of=Ptr(Float())),
    Field("top_k", Ptr(Int())),
    Field("stop_sequences", Slice(TEXT)),
    Field(
        "tools",
        Slice(
            Struct(
                "anthropic.Tool",
                dict,
                *fields("type", "name", "description", of=TEXT),
                Field("input_schema", RawMessage()),
                Field("max_uses", Int()),
            )
        ),
    ),
    Field(
        "tool_choice",
        Ptr(
            Struct(
                "anthropic.ToolChoice",
                dict,
                *fields("type", "name", of=TEXT),
                Field("disable_parallel_tool_use", Bool()),
            )
        ),
    ),
    Field(
        "thinking",
        Ptr(
            Struct(
                "anthropic.ThinkingConfig",
                dict,
                Field("type", TEXT),
                Field("budget_tokens", Int()),
            )
        ),
    ),
    Field("metadata", Ptr(Struct("anthropic.Metadata", dict, Field("user_id", TEXT)))),
    Field("output_config", Ptr(Struct("anthropic.OutputConfig", dict, Field("effort", TEXT)))),
)
