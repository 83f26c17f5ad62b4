"""JSON bodies of POST /v1/responses, and what they mean as a request of `/api/chat`.

Source: spec ollama-api 19.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    Map,
    Node,
    Ptr,
    Raw,
    RawMessage,
    Slice,
    Struct,
)
from registry.core.gotext import quote
from registry.core.wishes import Message, ToolCall
from registry.web.inference_schemas import TOOL_PARAMETERS, ChatRequest
from registry.web.openai_content import image_from_url, think_from_effort
from registry.web.openai_requests import OpenAiRequest
from registry.web.schemas import FLAG, SHOWN, TEXT, fields, ordered_object

_Item = Mapping[str, Any]
_ARGUMENTS: Final = Custom("api.ToolCallFunctionArguments", ordered_object)
_HEAD: Final = Struct(
    'struct { Type string "json:\\"type\\""; Role string "json:\\"role\\"" }',
    dict,
    *fields("type", "role", of=TEXT),
)

_PART_HEAD: Final = Struct('struct { Type string "json:\\"type\\"" }', dict, Field("type", TEXT))


def _part_schemas() -> dict[str, Struct]:
    keys = {
        "input_text": ("openai.ResponsesTextContent", ("type", "text")),
        "input_image": (
            "openai.ResponsesImageContent",
            ("type", "detail", "file_id", "image_url"),
        ),
        "output_text": ("openai.ResponsesOutputTextContent", ("type", "text")),
        "input_file": (
            "openai.ResponsesFileContent",
            ("type", "file_data", "file_id", "file_url", "filename"),
        ),
    }
    return {kind: Struct(go, dict, *fields(*names, of=TEXT)) for kind, (go, names) in keys.items()}


_PARTS: Final = _part_schemas()


def _part(node: Node) -> _Item:
    kind = gojson.unmarshal(node, _PART_HEAD).get("type", "")
    if kind not in _PARTS:
        raise JsonInvalid(f"unknown content type: {kind[:SHOWN]}")
    found: _Item = gojson.unmarshal(node, _PARTS[kind])
    return {**found, "type": kind}


def _text_or_list(what: str, one: Callable[[Node], Any]) -> Callable[[Node], Any]:
    """A reader of a text, or of a list whose items `one` reads; errors say which item of `what`."""

    def read(node: Node) -> Any:
        if node is None or gojson.kind(node) == "string":
            return node or ""
        if not isinstance(node, list):
            told = f"cannot unmarshal {gojson.kind(node)} into Go value"
            raise JsonInvalid(
                f"{what} must be a string or array: json: {told} of type []json.RawMessage"
            )
        found = []
        for index, item in enumerate(node):
            try:
                found.append(one(item))
            except JsonInvalid as error:
                raise JsonInvalid(f"{what}[{index}]: {error}") from error
        return tuple(found)

    return read


_RAW: Final = "json.RawMessage"
_ITEMS: Final = {
    "message": Struct(
        "struct {",
        dict,
        *fields("type", "role", of=TEXT),
        Field("content", Custom(_RAW, lambda node: (node,))),
    ),
    "function_call": Struct(
        "openai.ResponsesFunctionCall",
        dict,
        *fields("id", "type", "call_id", "name", "arguments", of=TEXT),
    ),
    "function_call_output": Struct(
        "struct {",
        dict,
        *fields("type", "call_id", of=TEXT),
        Field("output", Custom(_RAW, lambda node: (node,))),
    ),
    "reasoning": Struct(
        "openai.ResponsesReasoningInput",
        dict,
        *fields("id", "type", "encrypted_content", of=TEXT),
        Field(
            "summary",
            Slice(
                Struct("openai.ResponsesReasoningSummary", dict, *fields("type", "text", of=TEXT))
            ),
        ),
    ),
    "web_search_call": Struct(
        "openai.ResponsesWebSearchCall", dict, *fields("id", "type", "status", of=TEXT)
    ),
}
_CONTENT: Final = {
    "message": ("content", _text_or_list("content", _part)),
    "function_call_output": ("output", _text_or_list("output", _part)),
}


def _item(node: Node) -> _Item:
    head = gojson.unmarshal(node, _HEAD)
    kind = head.get("type") or ("message" if head.get("role") else "")
    if not kind:
        raise JsonInvalid("input item missing required 'type' field")
    if kind not in _ITEMS:
        raise JsonInvalid(f"unknown input item type: {quote(kind[:SHOWN])}")
    found = {**gojson.unmarshal(node, _ITEMS[kind]), "type": kind}
    if kind in _CONTENT:
        key, read = _CONTENT[kind]
        if key in found:
            found[key] = read(found[key][0])
    return found


@dataclass(frozen=True, slots=True)
class ResponsesRequest(OpenAiRequest):
    """POST /v1/responses. `input` is a text, or items with their parts checked."""

    model: str = ""
    input: str | tuple[_Item, ...] = ""
    instructions: str = ""
    max_output_tokens: int | None = None
    reasoning: Mapping[str, Any] | None = None
    temperature: float | None = None
    text: Mapping[str, Any] | None = None
    top_p: float | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    stream: bool | None = None
    truncation: str | None = None
    background: bool = False

    def as_chat(self) -> ChatRequest:
        """The same as a request of `/api/chat`.

        Raises:
            RequestInvalid: images, files, arguments, tools or an effort that cannot be.
        """
        told = {"num_predict": self.max_output_tokens, "top_p": self.top_p}
        options = {"temperature": 1.0 if self.temperature is None else self.temperature}
        return ChatRequest(
            model=self.model,
            messages=tuple(self._messages()),
            stream=bool(self.stream),
            format=self._format(),
            options=options | {key: value for key, value in told.items() if value is not None},
            tools=tuple(_tools(self.tools or ())),
            think=think_from_effort((self.reasoning or {}).get("effort", "")),
        )

    def _messages(self) -> list[Message]:
        found: list[Message] = []
        if self.instructions:
            found.append(Message(role="system", content=self.instructions))
        if isinstance(self.input, str):
            return [*found, Message(role="user", content=self.input)] if self.input else found
        thinking = ""
        for item in self.input:
            if item["type"] == "reasoning":
                thinking = item.get("encrypted_content", "")
            elif item["type"] in {"message", "function_call", "function_call_output"}:
                message = _message(item)
                if message.role == "assistant" and thinking:
                    message, thinking = replace(message, thinking=thinking), ""
                found.append(message)
        return [*found, Message(role="assistant", thinking=thinking)] if thinking else found

    def _format(self) -> Raw | None:
        told = (self.text or {}).get("format") or {}
        schema = told.get("schema") if told.get("type") == "json_schema" else None
        return schema if isinstance(schema, Raw) else None


def _message(item: _Item) -> Message:
    if item["type"] == "function_call":
        return Message(role="assistant", tool_calls=(_call(item),))
    if item["type"] == "message":
        text, images = _content(item.get("content", ""))
        return Message(role=item.get("role", "").lower(), content=text, images=images or None)
    text, images = _content(item.get("output", ""))
    call_id = item.get("call_id", "")
    return Message(role="tool", content=text, images=images or None, tool_call_id=call_id)


def _content(told: str | tuple[_Item, ...]) -> tuple[str, tuple[bytes, ...]]:
    """The joined text and the images of a message."""
    if isinstance(told, str):
        return told, ()
    text, images = "", []
    for part in told:
        if part["type"] == "input_file":
            raise RequestInvalid("file inputs are not currently supported")
        text += part.get("text", "")
        if part.get("image_url"):
            images.append(image_from_url(part["image_url"]))
    return text, tuple(images)


def _call(item: _Item) -> ToolCall:
    arguments: Mapping[str, Any] | None = {}
    if item.get("arguments"):
        try:
            arguments = gojson.decode(item["arguments"].encode(), _ARGUMENTS)
        except JsonInvalid as error:
            raise RequestInvalid(f"failed to parse function call arguments: {error}") from error
    return ToolCall(item.get("name", ""), arguments, item.get("call_id", ""))


def _tools(tools: tuple[Mapping[str, Any], ...], prefix: str = "") -> list[Mapping[str, Any]]:
    """Function tools; those of a namespace are named `<namespace>.<name>`."""
    found: list[Mapping[str, Any]] = []
    for tool in tools:
        name = str(tool.get("name", ""))
        if prefix and not name.startswith(prefix):
            name = prefix + name
        if tool.get("type") == "namespace":
            found += _tools(tool.get("tools") or (), f"{name}." if name else "")
            continue
        try:
            schema = gojson.dumps(tool.get("parameters"), sort=True)
            parameters = gojson.decode(schema, TOOL_PARAMETERS)
        except JsonInvalid as error:
            raise RequestInvalid(f"failed to unmarshal tool parameters: {error}") from error
        function = {"name": name, "description": tool.get("description") or ""}
        found.append(
            {"type": tool.get("type", ""), "function": {**function, "parameters": parameters}}
        )
    return found


def _tool(node: Node) -> Mapping[str, Any]:
    found: Mapping[str, Any] = gojson.unmarshal(node, _TOOL)
    return found


_TOOL: Final = Struct(
    "openai.ResponsesTool",
    dict,
    *fields("type", "name", of=TEXT),
    Field("description", Ptr(TEXT)),
    Field("strict", Ptr(Bool())),
    Field("parameters", Map(gojson.Any())),
    Field("tools", Slice(Custom("openai.ResponsesTool", _tool))),
)
_FORMAT: Final = Struct(
    "openai.ResponsesTextFormat",
    dict,
    *fields("type", "name", of=TEXT),
    Field("schema", RawMessage()),
    Field("strict", Ptr(Bool())),
)
_REASONING: Final = Struct(
    "openai.ResponsesReasoning",
    dict,
    *fields("effort", "generate_summary", "summary", of=TEXT),
)


def _request(  # what is read for its type alone is dropped here
    conversation: object = None, include: object = None, **told: Any
) -> ResponsesRequest:
    return ResponsesRequest(**told)


ResponsesRequest.SCHEMA = Struct(
    "openai.ResponsesRequest",
    _request,
    *fields("model", "instructions", of=TEXT),
    Field("background", FLAG),
    Field("conversation", RawMessage()),
    Field("include", Slice(TEXT)),
    Field("input", Custom("openai.ResponsesInput", _text_or_list("input", _item))),
    Field("max_output_tokens", Ptr(Int())),
    Field("reasoning", _REASONING),
    *fields("temperature", "top_p", of=Ptr(Float())),
    Field("text", Ptr(Struct("openai.ResponsesText", dict, Field("format", Ptr(_FORMAT))))),
    Field("truncation", Ptr(TEXT)),
    Field("tools", Slice(_TOOL)),
    Field("stream", Ptr(Bool())),
)
