"""JSON bodies of the management endpoints as dataclasses, decoded as the Ollama server does it.

Field names, order of errors and error texts are those of its Go types; what a request means is not
looked at here. `model` is the old alias `name` where only that is given. `stream` is None when the
body does not say: the endpoints' default is true. Lists and objects that are missing are None.

Source: spec ollama-api 2.1, 6.1, 7, 10, 11, 13.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

from registry.core import gojson
from registry.core.errors import RequestInvalid
from registry.core.gojson import (
    Bool,
    Bytes,
    Custom,
    Field,
    Int,
    JsonInvalid,
    Map,
    Node,
    Ptr,
    Slice,
    String,
    Struct,
)
from registry.core.wishes import Message, ToolCall

TEXT: Final = String()
FLAG: Final = Bool()
OPTIONAL_FLAG: Final = Ptr(FLAG)
TEXTS: Final = Map(TEXT)
VALUES: Final = Map(gojson.Any())
SHOWN: Final = 200
"""So many characters of a wrong value an error quotes; the real server quotes all."""
NO_OBJECT: Final = "Value looks like object, but can't find closing '}' symbol"
"""What the real server says to any other value where it keeps the order of an object's keys."""


class JsonRequest:
    """A request body. Subclasses are dataclasses whose `SCHEMA` builds them."""

    __slots__ = ()
    SCHEMA: ClassVar[Struct]
    MISSING: ClassVar[str] = "missing request body"

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Decode a body.

        Raises:
            RequestInvalid: no body, broken JSON, a value of the wrong type.
        """
        try:
            request = gojson.decode(body, cls.SCHEMA)
        except gojson.JsonMissing as error:
            raise RequestInvalid(cls.MISSING) from error
        assert isinstance(request, cls)
        return request


def fields(*keys: str, of: gojson.Schema) -> tuple[Field, ...]:
    """Fields of one type whose attributes are named like their keys."""
    return tuple(Field(key, of) for key in keys)


def _aliased(build: Callable[..., Any]) -> Callable[..., Any]:
    """A builder that takes the old `name` where `model` is missing or empty."""

    def made(model: str = "", name: str = "", **others: Any) -> Any:
        return build(model=model or name, **others)

    return made


def ordered_object(node: Node) -> dict[str, Any] | None:
    """A type of Ollama's that keeps the order of keys: tool arguments, tool properties."""
    if node is None:
        return None
    if not isinstance(node, tuple):
        raise JsonInvalid(NO_OBJECT)
    values: dict[str, Any] = gojson.unmarshal(node, VALUES)
    return values


def _tool_call(function: ToolCall | None = None, id: str = "") -> ToolCall:  # noqa: A002
    call = function or _function()
    return ToolCall(call.name, call.arguments, id, call.index)


def _function(
    index: int = 0, name: str = "", arguments: Mapping[str, Any] | None = MappingProxyType({})
) -> ToolCall:
    return ToolCall(name, arguments, index=index)


FUNCTION: Final = Struct(
    "api.ToolCallFunction",
    _function,
    Field("index", Int()),
    Field("name", TEXT),
    Field("arguments", Custom("api.ToolCallFunctionArguments", ordered_object)),
)
TOOL_CALL: Final = Struct(
    "api.ToolCall", _tool_call, Field("id", TEXT), Field("function", FUNCTION)
)
_MESSAGE: Final = Struct(
    "api.Alias",
    Message,
    *fields("role", "content", "thinking", of=TEXT),
    Field("images", Slice(Bytes("api.ImageData"))),
    Field("tool_calls", Slice(TOOL_CALL)),
    *fields("tool_name", "tool_call_id", of=TEXT),
)


def _message(node: Node) -> Message:
    message: Message = gojson.unmarshal(node, _MESSAGE)
    return replace(message, role=message.role.lower())


MESSAGES: Final = Slice(Custom("api.Message", _message))


@dataclass(frozen=True, slots=True)
class CreateRequest(JsonRequest):
    """POST /api/create. `messages` are as the API writes them; `license` is the JSON value."""

    model: str = ""
    stream: bool | None = None
    quantize: str = ""
    draft_quantize: str = ""
    origin: str = ""  # `from`
    remote_host: str = ""
    files: Mapping[str, str] | None = None
    draft_files: Mapping[str, str] | None = None
    adapters: Mapping[str, str] | None = None
    template: str = ""
    license: Any = None
    system: str = ""
    parameters: Mapping[str, Any] | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: Mapping[str, Any] | None = None
    quantization: str = ""  # old name of `quantize`


def _create(messages: tuple[Message, ...] | None = None, **others: Any) -> CreateRequest:
    return CreateRequest(messages=tuple(item.as_json() for item in messages or ()), **others)


CreateRequest.SCHEMA = Struct(
    "api.CreateRequest",
    _aliased(_create),
    *fields("model", "name", "quantize", "draft_quantize", of=TEXT),
    Field("from", TEXT, "origin"),
    Field("stream", OPTIONAL_FLAG),
    *fields("remote_host", "template", "system", "renderer", "parser", "requires", of=TEXT),
    *fields("files", "draft_files", "adapters", of=TEXTS),
    Field("license", gojson.Any()),
    *fields("parameters", "info", of=VALUES),
    Field("messages", MESSAGES),
    Field("quantization", TEXT),
)


@dataclass(frozen=True, slots=True)
class ShowRequest(JsonRequest):
    """POST /api/show."""

    model: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: Mapping[str, Any] | None = None


ShowRequest.SCHEMA = Struct(
    "api.ShowRequest",
    _aliased(ShowRequest),
    *fields("model", "name", "system", "template", of=TEXT),
    Field("verbose", FLAG),
    Field("options", VALUES),
)


@dataclass(frozen=True, slots=True)
class CopyRequest(JsonRequest):
    """POST /api/copy."""

    source: str = ""
    destination: str = ""


CopyRequest.SCHEMA = Struct(
    "api.CopyRequest", CopyRequest, *fields("source", "destination", of=TEXT)
)


@dataclass(frozen=True, slots=True)
class DeleteRequest(JsonRequest):
    """DELETE /api/delete."""

    model: str = ""


DeleteRequest.SCHEMA = Struct(
    "api.DeleteRequest", _aliased(DeleteRequest), *fields("model", "name", of=TEXT)
)


@dataclass(frozen=True, slots=True)
class _TransferRequest(JsonRequest):
    model: str = ""
    insecure: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    stream: bool | None = None


_TRANSFER_FIELDS: Final = (
    *fields("model", "name", "username", "password", of=TEXT),
    Field("insecure", FLAG),
    Field("stream", OPTIONAL_FLAG),
)


@dataclass(frozen=True, slots=True)
class PullRequest(_TransferRequest):
    """POST /api/pull. The server ignores user name and password."""


@dataclass(frozen=True, slots=True)
class PushRequest(_TransferRequest):
    """POST /api/push. The server ignores user name and password."""


PullRequest.SCHEMA = Struct("api.PullRequest", _aliased(PullRequest), *_TRANSFER_FIELDS)
PushRequest.SCHEMA = Struct("api.PushRequest", _aliased(PushRequest), *_TRANSFER_FIELDS)
