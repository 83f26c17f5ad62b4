"""JSON bodies of the inference endpoints, decoded as the Ollama server decodes them.

Source: spec ollama-api 14.1, 15, 16, 17.2.
"""

from typing import Any, Final

from registry.core import gojson
from registry.core.duration import LONGEST, parse_duration
from registry.core.gojson import (
    Bytes,
    Custom,
    Field,
    Int,
    JsonInvalid,
    Node,
    Ptr,
    RawMessage,
    Schema,
    Slice,
    Struct,
)
from registry.core.gotext import quote
from registry.core.wishes import ChatWish, EmbeddingWish, EmbedWish, GenerateWish
from registry.web.schemas import (
    FLAG,
    MESSAGES,
    NO_OBJECT,
    OPTIONAL_FLAG,
    SHOWN,
    TEXT,
    VALUES,
    JsonRequest,
    fields,
)

_SECOND = 1_000_000_000
_LONGEST_S = LONGEST // _SECOND
_LEVELS = ("high", "medium", "low", "max")
_ANY: Final = gojson.Any()


def _duration(node: Node) -> int:
    """`keep_alive` in nanoseconds: a number of seconds or a Go duration; negative is for ever."""
    value = gojson.unmarshal(node, _ANY)
    if isinstance(value, str):
        told = parse_duration(value)
    elif isinstance(value, float):
        told = int(min(value, _LONGEST_S) * _SECOND)
    else:
        kinds = {bool: "bool", dict: "map[string]interface {}", list: "[]interface {}"}
        raise JsonInvalid(f"Unsupported type: '{kinds.get(type(value), '%!s(<nil>)')}'")
    return LONGEST if told < 0 else told


def _think(node: Node) -> bool | str:
    """`think`: a bool, or how much."""
    if isinstance(node, bool):
        return node
    levels = ", ".join(f'"{level}"' for level in _LEVELS)
    value: Any = None
    if node is not None and gojson.kind(node) == "string":
        value = node
        if value not in _LEVELS:
            raise JsonInvalid(
                f"invalid think value: {quote(value[:SHOWN])} (must be {levels}, true, or false)"
            )
        return str(value)
    raise JsonInvalid(f"think must be a boolean or string ({levels}, true, or false)")


def _property_types(node: Node) -> tuple[str, ...]:
    """The `type` of a tool's property: one name or several."""
    if node is None or gojson.kind(node) == "string":
        return (gojson.unmarshal(node, TEXT),)
    found: tuple[str, ...] = gojson.unmarshal(node, Slice(TEXT))
    return found


def _properties(node: Node) -> dict[str, Any]:
    """The properties of a tool's parameters, in the order given."""
    if not isinstance(node, tuple):
        raise JsonInvalid(NO_OBJECT)
    return {key: gojson.unmarshal(item, _PROPERTY) for key, item in node}


_PROPERTIES: Final = Ptr(Custom("api.ToolPropertiesMap", _properties))
_PROPERTY: Final[Schema] = Struct(
    "api.ToolProperty",
    dict,
    Field("anyOf", Slice(Custom("api.ToolProperty", lambda node: _property(node)))),
    Field("type", Custom("api.PropertyType", _property_types)),
    Field("items", _ANY),
    Field("description", TEXT),
    Field("enum", Slice(_ANY)),
    Field("properties", _PROPERTIES),
    Field("required", Slice(TEXT)),
)


def _property(node: Node) -> Any:
    return gojson.unmarshal(node, _PROPERTY)


TOOL_PARAMETERS: Final = Struct(
    "api.ToolFunctionParameters",
    dict,
    Field("type", TEXT),
    Field("$defs", _ANY),
    Field("items", _ANY),
    Field("required", Slice(TEXT)),
    Field("properties", _PROPERTIES),
)
TOOL: Final = Struct(
    "api.Tool",
    dict,
    Field("type", TEXT),
    Field("items", _ANY),
    Field(
        "function",
        Struct(
            "api.ToolFunction",
            dict,
            *fields("name", "description", of=TEXT),
            Field("parameters", TOOL_PARAMETERS),
        ),
    ),
)

KEEP_ALIVE: Final = Ptr(Custom("api.Duration", _duration))
THINK: Final = Ptr(Custom("api.ThinkValue", _think))
_SHARED: Final = (
    Field("model", TEXT),
    Field("stream", OPTIONAL_FLAG),
    Field("format", RawMessage()),
    Field("keep_alive", KEEP_ALIVE),
    Field("options", VALUES),
    Field("think", THINK),
    *fields("truncate", "shift", of=OPTIONAL_FLAG),
    Field("_debug_render_only", FLAG, "debug_render_only"),
    Field("logprobs", FLAG),
    Field("top_logprobs", Int()),
)


class GenerateRequest(GenerateWish, JsonRequest):
    """POST /api/generate."""

    __slots__ = ()


GenerateRequest.SCHEMA = Struct(
    "api.GenerateRequest",
    GenerateRequest,
    *_SHARED,
    *fields("prompt", "suffix", "system", "template", of=TEXT),
    Field("context", Slice(Int())),
    Field("raw", FLAG),
    Field("images", Slice(Bytes("api.ImageData"))),
)


class ChatRequest(ChatWish, JsonRequest):
    """POST /api/chat. Tools are as sent, less the fields that Ollama does not know."""

    __slots__ = ()


ChatRequest.SCHEMA = Struct(
    "api.ChatRequest",
    ChatRequest,
    *_SHARED,
    Field("messages", MESSAGES),
    Field("tools", Slice(TOOL, "api.Tools")),
)


class EmbedRequest(EmbedWish, JsonRequest):
    """POST /api/embed."""

    __slots__ = ()


EmbedRequest.SCHEMA = Struct(
    "api.EmbedRequest",
    EmbedRequest,
    Field("model", TEXT),
    Field("input", _ANY),
    Field("keep_alive", KEEP_ALIVE),
    Field("truncate", OPTIONAL_FLAG),
    Field("dimensions", Int()),
    Field("options", VALUES),
)


class EmbeddingRequest(EmbeddingWish, JsonRequest):
    """POST /api/embeddings."""

    __slots__ = ()


EmbeddingRequest.SCHEMA = Struct(
    "api.EmbeddingRequest",
    EmbeddingRequest,
    *fields("model", "prompt", of=TEXT),
    Field("keep_alive", KEEP_ALIVE),
    Field("options", VALUES),
)
