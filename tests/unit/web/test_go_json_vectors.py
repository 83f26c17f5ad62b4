"""What Go made of some 670 bodies, ordinary and hostile, against what ours makes of them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from registry.core import gojson
from registry.core.errors import RequestInvalid
from registry.core.gojson import Float32, JsonInvalid, Schema
from registry.core.wishes import Message
from registry.web import inference_schemas, openai_requests, schemas
from registry.web.anthropic_requests import MessagesRequest
from registry.web.responses_requests import ResponsesRequest

VECTORS: list[dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "data" / "go-json.json").read_text()
)
ACCEPTED_HERE = {("openai-complete", b'{"prompt":["a"]}')}
"""What the real server refuses: lists of prompts."""
SCHEMAS: dict[str, Schema] = {
    "create": schemas.CreateRequest.SCHEMA,
    "show": schemas.ShowRequest.SCHEMA,
    "copy": schemas.CopyRequest.SCHEMA,
    "delete": schemas.DeleteRequest.SCHEMA,
    "pull": schemas.PullRequest.SCHEMA,
    "push": schemas.PushRequest.SCHEMA,
    "generate": inference_schemas.GenerateRequest.SCHEMA,
    "chat": inference_schemas.ChatRequest.SCHEMA,
    "embed": inference_schemas.EmbedRequest.SCHEMA,
    "embeddings": inference_schemas.EmbeddingRequest.SCHEMA,
    "openai-chat": openai_requests.ChatCompletionRequest.SCHEMA,
    "openai-complete": openai_requests.CompletionRequest.SCHEMA,
    "openai-embed": openai_requests.EmbeddingsRequest.SCHEMA,
    "openai-responses": ResponsesRequest.SCHEMA,
    "anthropic": MessagesRequest.SCHEMA,
    "any": gojson.Any(),
    "float32": gojson.Slice(gojson.Float("float32")),
    "float64": gojson.Slice(gojson.Float()),
}
NATIVE = ["create", "show", "copy", "delete", "pull", "push", "generate", "chat", "embed"]
RENAMED = {"from": "origin", "_debug_render_only": "debug_render_only"}


def body(vector: dict[str, str]) -> bytes:
    if "base64" in vector:
        return base64.b64decode(vector["base64"])
    return vector["text"].encode()


def outcome(vector: dict[str, str]) -> str:
    try:
        gojson.decode(body(vector), SCHEMAS[vector["type"]])
    except RequestInvalid as error:
        return str(error)
    return ""


def squeezed(value: Any) -> Any:
    """`value` without what Go leaves out of its answers: empty fields, at any depth."""
    if isinstance(value, dict):
        kept = {key: squeezed(item) for key, item in value.items()}
        if isinstance(kept.get("type"), list) and len(kept["type"]) == 1:
            kept["type"] = kept["type"][0]  # a property of one type is written without the list
        return {key: item for key, item in kept.items() if item not in (None, "", 0, False, [], {})}
    if isinstance(value, list | tuple):
        return [squeezed(item) for item in value]
    if isinstance(value, Message):
        return squeezed(value.as_json())
    if isinstance(value, gojson.Raw):
        return squeezed(json.loads(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_body_is_accepted_or_refused_with_the_same_words(kind: str) -> None:
    vectors = [
        item for item in VECTORS if item["type"] == kind and (kind, body(item)) not in ACCEPTED_HERE
    ]
    told = [(body(item)[:200], item.get("error", "")) for item in vectors]
    ours = [(body(item)[:200], outcome(item)) for item in vectors]
    assert ours == told
    assert told


@pytest.mark.parametrize("kind", NATIVE)
def test_accepted_bodies_mean_the_same(kind: str) -> None:
    for vector in VECTORS:
        if vector["type"] != kind or "error" in vector:
            continue
        request = gojson.decode(body(vector), SCHEMAS[kind])
        theirs = squeezed(json.loads(vector["value"]))
        theirs.pop("keep_alive", None)  # written as text by Go; see test_inference_schemas.py
        if "name" in theirs and kind not in {"copy"}:
            theirs["model"] = theirs.get("model") or theirs["name"]
            theirs.pop("name")
        attributes = {key: getattr(request, RENAMED.get(key, key)) for key in theirs}
        assert squeezed(attributes) == theirs, body(vector)[:200]


@pytest.mark.parametrize("kind", ["float64", "any"])
def test_values_are_written_as_go_writes_them(kind: str) -> None:
    for vector in VECTORS:
        if vector["type"] == kind and "value" in vector:
            value = gojson.decode(body(vector), SCHEMAS[kind])
            assert gojson.dumps(value, sort=True).decode() == vector["value"]


def test_float32_values_are_written_as_go_writes_them() -> None:
    (vector,) = [item for item in VECTORS if item["type"] == "float32"]
    values = gojson.decode(body(vector), SCHEMAS["float32"])
    assert gojson.dumps([Float32(value) for value in values]).decode() == vector["value"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "cannot unmarshal array into Go value of type api.Show"),
        (b"[" * 10_001, "invalid character '[' exceeded max depth"),
        (b'{"a":' * 10_001, "invalid character '{' exceeded max depth"),
    ],
)
def test_nesting_ends_where_go_ends_it(text: bytes, error: str) -> None:
    with pytest.raises(JsonInvalid) as caught:
        gojson.decode(text, SCHEMAS["show"])
    assert error in str(caught.value)


def test_values_nested_as_deep_as_go_allows_can_be_read_and_written() -> None:
    text = b'{"options":' + b'{"a":' * 9_998 + b"1" + b"}" * 9_998 + b"}"
    request = gojson.decode(text, SCHEMAS["show"])
    assert gojson.dumps({"options": request.options}) == text


def test_tools_nested_in_tools_without_end_are_refused() -> None:
    deep = b'{"properties":{"a":' * 3_000 + b"null" + b"}}" * 3_000
    text = b'{"tools":[{"function":{"parameters":' + deep + b"}}]}"
    with pytest.raises(JsonInvalid, match="nested too deeply"):
        gojson.decode(text, SCHEMAS["chat"])
