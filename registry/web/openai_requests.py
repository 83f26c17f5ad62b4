"""JSON bodies of OpenAI's endpoints, and what they mean as requests of Ollama's API.

Source: spec ollama-api 19.2 and 19.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from registry.core import gojson
from registry.core.errors import RequestInvalid
from registry.core.gojson import (
    Custom,
    Field,
    Float,
    Int,
    JsonInvalid,
    Node,
    Ptr,
    Raw,
    RawMessage,
    Slice,
    Struct,
)
from registry.core.wishes import Message, ToolCall
from registry.web.inference_schemas import TOOL, ChatRequest, EmbedRequest, GenerateRequest
from registry.web.openai_content import go_type, part_message, think_from_effort
from registry.web.schemas import (
    FLAG,
    OPTIONAL_FLAG,
    SHOWN,
    TEXT,
    JsonRequest,
    fields,
    ordered_object,
)

EFFORT: Final = Struct("openai.Reasoning", dict, Field("effort", TEXT))
_ANY: Final = gojson.Any()
_MAX_PROMPTS = 128
_ARGUMENTS: Final = Custom("api.ToolCallFunctionArguments", ordered_object)
_FUNCTION: Final = Struct(
    'struct { Name string "json:\\"name\\""; Arguments string "json:\\"arguments\\"" }',
    dict,
    *fields("name", "arguments", of=TEXT),
)
_TOOL_CALL: Final = Struct(
    "openai.ToolCall",
    dict,
    *fields("id", "type", of=TEXT),
    Field("index", Int()),
    Field("function", _FUNCTION),
)


class OpenAiRequest(JsonRequest):
    """A body of one of OpenAI's endpoints; an empty one is told with Go's bare word."""

    __slots__ = ()
    MISSING: ClassVar[str] = "EOF"


def include_usage(options: Mapping[str, Any] | None) -> bool:
    """Whether `stream_options` ask for what the answer took."""
    return bool((options or {}).get("include_usage"))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message; `content` is text, a list of parts, or null beside tool calls."""

    role: str = ""
    content: Any = None
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] | None = None
    name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletionRequest(OpenAiRequest):
    """POST /v1/chat/completions."""

    model: str = ""
    messages: tuple[ChatMessage, ...] | None = None
    stream: bool = False
    stream_options: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: Any = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_p: float | None = None
    response_format: Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    reasoning: Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0
    debug_render_only: bool = False

    def as_chat(self) -> ChatRequest:
        """The same as a request of `/api/chat`.

        Raises:
            RequestInvalid: no messages, or content, images, tool calls or an effort that cannot be.
        """
        if not self.messages:
            raise RequestInvalid("[] is too short - 'messages'")
        messages = tuple(item for message in self.messages for item in self._native(message))
        effort = (self.reasoning or {}).get("effort", "")
        if self.reasoning is None:
            effort = self.reasoning_effort or ""
        return ChatRequest(
            model=self.model,
            messages=messages,
            stream=self.stream,
            format=self._format(),
            options=self._options(),
            tools=self.tools,
            think=think_from_effort(effort),
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs,
            debug_render_only=self.debug_render_only,
        )

    def _native(self, message: ChatMessage) -> list[Message]:
        """One message of Ollama's, or one for each part."""
        name = message.name if message.role.lower() == "tool" else ""
        if not name and message.role.lower() == "tool" and message.tool_call_id:
            name = self._called(message.tool_call_id)
        content = message.content
        if isinstance(content, list):
            return _parts(message, content, name)
        if not isinstance(content, str) and message.tool_calls is None:
            raise RequestInvalid(f"invalid message content type: {go_type(content)}")
        calls = _tool_calls(message) or None
        is_text = isinstance(content, str)
        return [
            Message(
                role=message.role.lower(),
                content=content if is_text else "",
                thinking=message.reasoning,
                tool_calls=calls,
                tool_name=name if is_text else "",
                tool_call_id=message.tool_call_id,
            )
        ]

    def _called(self, call_id: str) -> str:
        """The name of the tool whose latest call has that id."""
        for message in reversed(self.messages or ()):
            for call in message.tool_calls or ():
                if call.get("id") == call_id:
                    return str(call.get("function", {}).get("name", ""))
        return ""

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {} if self.stop is None else _stops(self.stop)
        limit = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        given = {
            "num_predict": limit,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "seed": self.seed,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "top_p": 1.0 if self.top_p is None else self.top_p,
        }
        return options | {key: value for key, value in given.items() if value is not None}

    def _format(self) -> Raw | None:
        told = self.response_format or {}
        kind = str(told.get("type", "")).strip().lower()
        if kind == "json_object":
            return Raw(b'"json"')
        schema = (told.get("json_schema") or {}).get("schema") if kind == "json_schema" else None
        return schema if isinstance(schema, Raw) else None


ChatCompletionRequest.SCHEMA = Struct(
    "openai.ChatCompletionRequest",
    ChatCompletionRequest,
    *fields("model", of=TEXT),
    Field(
        "messages",
        Slice(
            Struct(
                "openai.Message",
                ChatMessage,
                *fields("role", "reasoning", "name", "tool_call_id", of=TEXT),
                Field("content", _ANY),
                Field("tool_calls", Slice(_TOOL_CALL)),
            )
        ),
    ),
    Field("stream", FLAG),
    Field(
        "stream_options",
        Ptr(Struct("openai.StreamOptions", dict, Field("include_usage", FLAG))),
    ),
    *fields("max_tokens", "max_completion_tokens", "seed", of=Ptr(Int())),
    Field("stop", _ANY),
    *fields("temperature", "frequency_penalty", "presence_penalty", "top_p", of=Ptr(Float())),
    Field(
        "response_format",
        Ptr(
            Struct(
                "openai.ResponseFormat",
                dict,
                Field("type", TEXT),
                Field(
                    "json_schema",
                    Ptr(Struct("openai.JsonSchema", dict, Field("schema", RawMessage()))),
                ),
            )
        ),
    ),
    Field("tools", Slice(TOOL)),
    Field("reasoning", Ptr(EFFORT)),
    Field("reasoning_effort", Ptr(TEXT)),
    Field("logprobs", OPTIONAL_FLAG),
    Field("top_logprobs", Int()),
    Field("_debug_render_only", FLAG, "debug_render_only"),
)


def _prompts(node: Node) -> tuple[str, ...]:
    """One prompt, or several; token ids are another tokenizer's, and not taken."""
    if not isinstance(node, list):
        return (gojson.unmarshal(node, TEXT) or "",)
    if not 0 < len(node) <= _MAX_PROMPTS:
        raise JsonInvalid(f"prompt must be a string or a list of 1 to {_MAX_PROMPTS} strings")
    if any(gojson.kind(item) != "string" for item in node):
        raise JsonInvalid("prompt must be a string or a list of strings; token ids are not taken")
    return tuple(gojson.unmarshal(item, TEXT) for item in node)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest(OpenAiRequest):
    """POST /v1/completions."""

    model: str = ""
    prompts: tuple[str, ...] = ("",)
    frequency_penalty: float = 0.0
    max_tokens: int | None = None
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: Any = None
    stream: bool = False
    stream_options: Mapping[str, Any] | None = None
    temperature: float | None = None
    top_p: float = 0.0
    suffix: str = ""
    logprobs: int | None = None
    debug_render_only: bool = False

    def as_generates(self) -> list[GenerateRequest]:
        """The same as requests of `/api/generate`, one for each prompt.

        Raises:
            RequestInvalid: an item of `stop` that is no text.
        """
        for item in self.stop if isinstance(self.stop, list) else ():
            if not isinstance(item, str):
                raise RequestInvalid(f"invalid type for 'stop' field: {go_type(item)}")
        options: dict[str, Any] = {} if self.stop is None else _stops(self.stop)
        given = {
            "num_predict": self.max_tokens,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "seed": self.seed,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "top_p": self.top_p or 1.0,
        }
        likely = max(self.logprobs or 0, 0)
        first = GenerateRequest(
            model=self.model,
            suffix=self.suffix,
            stream=self.stream,
            options=options | {key: value for key, value in given.items() if value is not None},
            logprobs=likely > 0,
            top_logprobs=likely,
            debug_render_only=self.debug_render_only,
        )
        return [replace(first, prompt=prompt) for prompt in self.prompts]


CompletionRequest.SCHEMA = Struct(
    "openai.CompletionRequest",
    CompletionRequest,
    *fields("model", "suffix", of=TEXT),
    Field("prompt", Custom("string", _prompts), "prompts"),
    *fields("frequency_penalty", "presence_penalty", "top_p", of=Float("float32")),
    *fields("max_tokens", "seed", "logprobs", of=Ptr(Int())),
    Field("stop", _ANY),
    Field("stream", FLAG),
    Field(
        "stream_options",
        Ptr(Struct("openai.StreamOptions", dict, Field("include_usage", FLAG))),
    ),
    Field("temperature", Ptr(Float("float32"))),
    Field("_debug_render_only", FLAG, "debug_render_only"),
)


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest(OpenAiRequest):
    """POST /v1/embeddings."""

    model: str = ""
    input: Any = None
    dimensions: int = 0
    encoding_format: str = ""

    def as_embed(self) -> EmbedRequest:
        """The same as a request of `/api/embed`.

        Raises:
            RequestInvalid: no input, or an encoding that does not exist.
        """
        if self.encoding_format and self.encoding_format.lower() not in {"float", "base64"}:
            raise RequestInvalid(
                f"Invalid value for 'encoding_format' = {self.encoding_format[:SHOWN]}. "
                "Supported values: ['float', 'base64']."
            )
        given = [""] if self.input == "" else self.input
        if given is None or given == []:
            raise RequestInvalid("invalid input")
        return EmbedRequest(model=self.model, input=given, dimensions=self.dimensions)


EmbeddingsRequest.SCHEMA = Struct(
    "openai.EmbedRequest",
    EmbeddingsRequest,
    *fields("model", "encoding_format", of=TEXT),
    Field("input", _ANY),
    Field("dimensions", Int()),
)


def _stops(stop: Any) -> dict[str, Any]:
    if isinstance(stop, str):
        return {"stop": [stop]}
    if isinstance(stop, list):
        return {"stop": [item for item in stop if isinstance(item, str)]}
    return {}


def _tool_calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    calls = []
    for call in message.tool_calls or ():
        function = call.get("function", {})
        try:
            arguments = gojson.decode(function.get("arguments", "").encode(), _ARGUMENTS)
        except JsonInvalid as error:
            raise RequestInvalid("invalid tool call arguments") from error
        calls.append(ToolCall(function.get("name", ""), arguments, call.get("id", "")))
    return tuple(calls)


def _parts(message: ChatMessage, content: list[Any], name: str) -> list[Message]:
    """A message for each part; tool calls go to the last."""
    role = message.role.lower()
    found = [part_message(role, part) for part in content]
    if found and message.tool_calls:
        last = found[-1]
        found[-1] = Message(
            role=role,
            content=last.content,
            images=last.images,
            thinking=message.reasoning,
            tool_calls=_tool_calls(message),
            tool_name=name,
            tool_call_id=message.tool_call_id,
        )
    return found
