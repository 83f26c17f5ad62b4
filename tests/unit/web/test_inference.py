"""The inference routes through the application's own error table."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from registry.core.errors import RegistryError
from registry.core.gguf import Kind
from registry.services.inference.generation import Clocks, Generation
from registry.services.inference.inference import Inference
from registry.services.inference.routing import Router
from registry.settings import Settings, Worker
from registry.web import compat, errors, inference
from tests.support.asgi import Answer, Caller
from tests.support.gguf import field, gguf
from tests.support.library import library

pytestmark = pytest.mark.anyio

UTF8 = "application/json; charset=utf-8"
PLAIN = "application/json"
NO_WORKER = "no inference worker is connected to this server"
EMBEDDER = gguf(
    field("general.architecture", Kind.STRING, "bert"), field("bert.pooling_type", Kind.U32, 1)
)
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Caller]:
    async with library(tmp_path / "data") as lib:
        await lib.base("Tiny")
        lib.clock.now += 10**9
        await lib.base("team/other:v1")
        lib.clock.now -= 10**10
        await lib.base("embedder", EMBEDDER)
        lib.clock.now += 10**10
        routes = [*inference.routes, *compat.routes]
        app = Starlette(routes=routes, exception_handlers={RegistryError: errors.answer})
        router = Router()
        app.state.services = SimpleNamespace(
            settings=Settings.load({}, data=tmp_path),
            router=router,
            clock=lib.clock,
            models=lib.models,
            listing=lib.listing,
            inference=Inference(lib.models),
            generation=Generation(router, Worker(), Clocks(now=lib.clock)),
        )
        yield Caller(app)


async def post(ask: Caller, path: str, body: Any) -> Answer:
    return await ask("POST", path, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "body", "result"),
    [
        ("/api/generate", {"keep_alive": 0}, {"response": ""}),
        ("/api/generate", {"keep_alive": "0s", "stream": False}, {"response": ""}),
        ("/api/chat", {"keep_alive": 0}, {"message": {"role": "assistant", "content": ""}}),
    ],
)
async def test_unloading_works_without_a_worker(
    ask: Caller, path: str, body: dict[str, Any], result: dict[str, Any]
) -> None:
    answer = await post(ask, path, {"model": "tiny", **body})
    assert (answer.status, answer.headers["content-type"]) == (200, UTF8)
    told = json.loads(answer.body)
    assert list(told) == ["model", "created_at", *result, "done", "done_reason"]
    assert told["created_at"].startswith("2023-11-14T22:13:21.0")
    assert told["created_at"].endswith("Z")
    assert told | {"created_at": ""} == {
        "model": "tiny",
        "created_at": "",
        **result,
        "done": True,
        "done_reason": "unload",
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "x"}),
        ("/api/generate", {}),
        ("/api/generate", {"prompt": "x", "keep_alive": 0}),
        ("/api/chat", {"messages": MESSAGES}),
        ("/api/chat", {"messages": []}),
        ("/api/embed", {"model": "embedder", "input": ["a", "b"]}),
        ("/api/embed", {"model": "embedder"}),
        ("/api/embeddings", {"model": "embedder", "prompt": "x"}),
    ],
)
async def test_the_rest_waits_for_a_worker(ask: Caller, path: str, body: dict[str, Any]) -> None:
    answer = await post(ask, path, {"model": "tiny", **body})
    assert answer.status == 503
    assert json.loads(answer.body) == {"error": NO_WORKER}
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"model": "embedder", "input": "x"}),
        ("/v1/responses", {"input": "x"}),
    ],
)
async def test_openai_clients_are_told_in_their_shape(
    ask: Caller, path: str, body: dict[str, Any]
) -> None:
    answer = await post(ask, path, {"model": "tiny", **body})
    assert (answer.status, answer.headers["content-type"]) == (503, PLAIN)
    assert int(answer.headers["retry-after"]) > 0
    assert answer.body == (
        b'{"error":{"message":"%b","type":"api_error","param":null,"code":null}}\n'
        % NO_WORKER.encode()
    )


async def test_anthropic_clients_are_told_in_their_shape(ask: Caller) -> None:
    body = {"model": "tiny", "max_tokens": 5, "messages": MESSAGES, "thinking": {"type": "enabled"}}
    answer = await post(ask, "/v1/messages", body)
    told = json.loads(answer.body)
    assert answer.status == 503
    assert told["error"] == {"type": "overloaded_error", "message": NO_WORKER}
    assert told["request_id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/generate", {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/chat", {"top_logprobs": -1}, 400, "top_logprobs must be between 0 and 20"),
        ("/api/embed", {"model": "no", "input": ["a", 1]}, 400, "invalid input type"),
        ("/api/embed", {"input": {}}, 404, "model '' not found"),
        ("/api/chat", {"model": "m:cloud"}, 403, "ollama cloud is disabled: remote model is una"),
        ("/api/embed", {"model": "tiny"}, 400, '"tiny" does not support embeddings'),
        ("/api/embeddings", {"model": "tiny"}, 400, '"tiny" does not support embeddings'),
        ("/api/chat", {"model": "tiny", "options": {"seed": ""}}, 500, 'option "seed" must be of'),
    ],
)
async def test_arguments_are_checked_in_the_recorded_order(
    ask: Caller, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    answer = await post(ask, path, body)
    assert (answer.status, answer.headers["content-type"]) == (status, UTF8)
    assert json.loads(answer.body)["error"].startswith(message)


async def test_errors_under_v1_come_early_or_late(ask: Caller) -> None:
    early = await ask("POST", "/v1/chat/completions")
    late = await post(ask, "/v1/chat/completions", {"model": "no", "messages": MESSAGES})
    assert (early.status, early.headers["content-type"]) == (400, UTF8)
    assert json.loads(early.body)["error"]["message"] == "EOF"
    assert not early.body.endswith(b"\n")
    assert (late.status, late.headers["content-type"]) == (404, PLAIN)
    assert "retry-after" not in late.headers
    assert late.body.endswith(b"}\n")


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("zstd", "failed to decompress zstd body"),
        ("gzip", "bodies encoded with 'gzip' are not taken"),
    ],
)
async def test_a_compressed_body_that_cannot_be_read_is_refused(
    ask: Caller, encoding: str, message: str
) -> None:
    answer = await ask("POST", "/v1/responses", b"(\xb5/\xfd", content_encoding=encoding)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["message"] == message


async def test_large_bodies_are_read_too(ask: Caller) -> None:
    answer = await post(ask, "/api/generate", {"model": "no", "prompt": "x" * 300_000})
    assert answer.status == 404


async def test_models_are_listed_for_openai_clients(ask: Caller) -> None:
    answer = await ask("GET", "/v1/models")
    assert answer.headers["content-type"] == PLAIN
    told = json.loads(answer.body)
    assert [(item["id"], item["owned_by"]) for item in told["data"][:2]] == [
        ("team/other:v1", "team"),
        ("Tiny:latest", "library"),
    ]
    assert told["data"][1] == {
        "id": "Tiny:latest",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "library",
    }


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("tiny", 200, {"id": "tiny", "owned_by": "library"}),
        ("TINY:latest", 200, {"id": "TINY:latest", "owned_by": "library"}),
        ("no", 404, "model 'no:latest' not found"),
        ("a b", 400, "invalid model name"),
        ("m:cloud", 403, "ollama cloud is disabled: remote model details are unavailable"),
    ],
)
async def test_one_model_is_told_under_the_name_asked_for(
    ask: Caller, name: str, status: int, told: dict[str, str] | str
) -> None:
    answer = await ask("GET", f"/v1/models/{name}")
    body = json.loads(answer.body)
    assert (answer.status, answer.headers["content-type"]) == (status, PLAIN)
    if isinstance(told, dict):
        assert body | told == body
    else:
        assert body["error"]["message"] == told


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 400, "model is required"),
        ({"model": b"tiny"}, 400, "file is required: http: no such file"),
        ({"model": b"tiny", "file": b""}, 400, "audio file is empty"),
        ({"model": b"no", "file": b"RIFF"}, 404, "model 'no' not found"),
        (
            {"model": b"tiny", "file": b"RIFF"},
            400,
            "registry.ollama.ai/library/Tiny:latest does not support audio",
        ),
    ],
)
async def test_recordings_are_checked(
    ask: Caller, fields: dict[str, bytes], status: int, message: str
) -> None:
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), data)
        for name, data in fields.items()
    ]
    answer = await ask(
        "POST",
        "/v1/audio/transcriptions",
        b"".join(parts) + b"--b--\r\n",
        content_type="multipart/form-data; boundary=b",
    )
    assert answer.status == status
    assert json.loads(answer.body)["error"]["message"] == message


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("GET", "/api/ps", b"", 200, {"models": []}),
        ("GET", "/api/status", b"", 200, {"cloud": {"disabled": False, "source": "none"}}),
        ("POST", "/api/me", b"", 503, {"error": "account unavailable"}),
        ("POST", "/api/signout", b"", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "/api/user/keys/x", b"", 401, {"error": "you are not currently signed in"}),
        (
            "POST",
            "/api/experimental/web_search",
            b" ",
            400,
            {"error": "missing request body"},
        ),
        (
            "POST",
            "/api/experimental/web_fetch",
            b"{}",
            403,
            {"error": "ollama cloud is disabled: web fetch is unavailable"},
        ),
        (
            "GET",
            "/api/experimental/model-recommendations",
            b"",
            200,
            {"recommendations": []},
        ),
    ],
)
async def test_what_a_server_without_the_hosted_service_answers(
    ask: Caller, method: str, path: str, body: bytes, status: int, told: dict[str, Any]
) -> None:
    answer = await ask(method, path, body)
    assert (answer.status, json.loads(answer.body)) == (status, told)
