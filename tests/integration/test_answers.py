"""Answers of the real engine through a started server: models that follow a script."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.scripted_model import endless, scripted_model
from tests.support.server import running
from tests.support.talkers import GO, HELLO, TOOL, put, put_all

pytestmark = pytest.mark.engine

USER = {"role": "user", "content": "hi"}
SAID = "Hello there, friend."
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with (
        running(tmp_path_factory.mktemp("server") / "data") as server,
        httpx2.Client(base_url=server.url, timeout=60) as client,
    ):
        put_all(client)
        yield client


def ask(client: httpx2.Client, path: str, model: str, **body: Any) -> Any:
    """A whole answer."""
    answer = client.post(path, json={"model": model, "stream": False, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return answer.json()


def frames(client: httpx2.Client, path: str, model: str, **body: Any) -> list[Any]:
    """The frames of a streamed answer."""
    answer = client.post(path, json={"model": model, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_generate_comes_in_frames_with_fields_in_order(client: httpx2.Client) -> None:
    *pieces, end = frames(client, "/api/generate", "hello", prompt="hi")
    assert [piece["response"] for piece in pieces] == HELLO
    assert all(list(p) == ["model", "created_at", "response", "done"] for p in pieces)
    assert not any(piece["done"] for piece in pieces)
    assert list(end) == [
        "model", "created_at", "response", "done", "done_reason", "context", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    ]  # fmt: skip
    assert (end["model"], end["response"], end["done_reason"]) == ("hello", "", "stop")
    assert end["eval_count"] == len(HELLO) + 1
    assert len(end["context"]) == end["prompt_eval_count"] + end["eval_count"]


def test_a_chat_comes_in_frames_with_fields_in_order(client: httpx2.Client) -> None:
    *pieces, end = frames(client, "/api/chat", "hello", messages=[USER])
    assert [piece["message"]["content"] for piece in pieces] == HELLO
    assert list(end) == [
        "model", "created_at", "message", "done", "done_reason", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    ]  # fmt: skip
    assert end["message"] == {"role": "assistant", "content": ""}


def test_whole_answers_are_the_frames_joined(client: httpx2.Client) -> None:
    assert ask(client, "/api/generate", "hello", prompt="hi")["response"] == SAID
    whole = ask(client, "/api/chat", "hello", messages=[USER])
    assert whole["message"] == {"role": "assistant", "content": SAID}
    assert list(whole)[:5] == ["model", "created_at", "message", "done", "done_reason"]


@pytest.mark.parametrize(
    ("options", "said", "reason"),
    [
        ({"stop": [","]}, "Hello there", "stop"),
        ({"stop": ["no", "there, f"]}, "Hello ", "stop"),
        ({"num_predict": 2}, "Hello there", "length"),
        ({"num_predict": 100, "seed": 7, "top_k": 1, "temperature": 1.5}, SAID, "stop"),
    ],
)
def test_options_end_an_answer(
    client: httpx2.Client, options: dict[str, Any], said: str, reason: str
) -> None:
    for path, field in (("/api/generate", {"prompt": "x"}), ("/api/chat", {"messages": [USER]})):
        answer = ask(client, path, "hello", options=options, **field)
        text = answer["response"] if path == "/api/generate" else answer["message"]["content"]
        assert (text, answer["done_reason"]) == (said, reason)


def test_the_same_seed_gives_the_same_answer(client: httpx2.Client) -> None:
    options = {"seed": 42, "temperature": 5.0, "num_predict": 12, "top_k": 0, "top_p": 1.0}
    raw = {"prompt": "x", "raw": True}
    first, second = (ask(client, "/api/generate", "hello", options=options, **raw) for _ in "ab")
    other = ask(client, "/api/generate", "hello", options={**options, "seed": 43}, **raw)
    assert first["response"] == second["response"]
    assert other["response"] != first["response"]
    assert "context" not in first


def test_a_context_goes_on_where_it_ended(client: httpx2.Client) -> None:
    first = ask(client, "/api/generate", "hello", prompt="hi", options={"num_predict": 2})
    told = ask(
        client, "/api/generate", "hello", prompt="and?", context=first["context"],
        _debug_render_only=True,
    )  # fmt: skip
    assert told["_debug_info"]["rendered_template"] == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nHello there"
        "<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n"
    )
    second = ask(client, "/api/generate", "hello", prompt="and?", context=first["context"])
    assert second["response"] == SAID
    assert len(second["context"]) > len(first["context"])


def test_likely_tokens_come_along(client: httpx2.Client) -> None:
    wish = {"logprobs": True, "top_logprobs": 2, "options": {"num_predict": 2}}
    for path, field in (("/api/generate", {"prompt": "x"}), ("/api/chat", {"messages": [USER]})):
        whole = ask(client, path, "hello", **wish, **field)
        assert [item["token"] for item in whole["logprobs"]] == HELLO[:2]
        for item in whole["logprobs"]:
            assert bytes(item["bytes"]).decode() == item["token"]
            assert len(item["top_logprobs"]) == 2
            assert item["top_logprobs"][0]["token"] == item["token"]
    plain = ask(client, "/api/chat", "hello", messages=[USER], logprobs=True)
    assert all("top_logprobs" not in item for item in plain["logprobs"])


@pytest.mark.parametrize("kind", ["go", "jinja"])
def test_thoughts_are_told_apart(client: httpx2.Client, kind: str) -> None:
    model = f"{kind}-thought"
    message = ask(client, "/api/chat", model, messages=[USER])["message"]
    assert (message["thinking"].strip(), message["content"].strip()) == ("I see now", "Yes.")
    pieces = frames(client, "/api/chat", model, messages=[USER], think=True)
    assert "".join(p["message"].get("thinking", "") for p in pieces).strip() == "I see now"
    generated = ask(client, "/api/generate", model, prompt="hi")
    assert (generated["thinking"], generated["response"]) == ("I see now\n", "Yes.")
    off = ask(client, "/api/chat", model, messages=[USER], think=False)["message"]
    assert "thinking" not in off
    assert off["content"].endswith("Yes.")


@pytest.mark.parametrize("kind", ["go", "jinja"])
def test_tool_calls_come_whole(client: httpx2.Client, kind: str) -> None:
    model = f"{kind}-call"
    wish = {"messages": [USER], "tools": [TOOL]}
    message = ask(client, "/api/chat", model, **wish)["message"]
    assert message["content"] == "Let me see."
    (call,) = message["tool_calls"]
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}
    called = [p for p in frames(client, "/api/chat", model, **wish) if "tool_calls" in p["message"]]
    (frame,) = called
    assert frame["message"]["tool_calls"][0]["function"] == call["function"]
    result = {"role": "tool", "tool_name": "get_weather", "content": "22 degrees"}
    wish["messages"] = [USER, {**message}, result]
    told = ask(client, "/api/chat", model, _debug_render_only=True, **wish)
    prompt = told["_debug_info"]["rendered_template"]
    assert '{"name": "get_weather", "arguments": {"city":' in prompt
    assert "22 degrees" in prompt


def test_a_marker_that_is_a_special_token_is_not_swallowed(client: httpx2.Client) -> None:
    script = ["Well.", "<|im_start|>", '{"name": "get_weather", "arguments": {}}']
    template = GO.replace("<tool_call>", "<|im_start|>")
    put(client, "marked", scripted_model(script, chat_template=""), template=template)
    wish = {"messages": [USER], "tools": [TOOL], "think": False}
    message = ask(client, "/api/chat", "marked", **wish)["message"]
    assert message["content"] == "Well."
    assert message["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize("kind", ["go", "jinja"])
@pytest.mark.parametrize("form", ["json", SCHEMA])
def test_a_format_is_kept_to_after_the_thoughts(
    client: httpx2.Client, kind: str, form: Any
) -> None:
    message = ask(client, "/api/chat", f"{kind}-object", messages=[USER], format=form)["message"]
    assert json.loads(message["content"]) == {"a": 1}
    assert message["thinking"].strip() == "hm"
    answer = ask(client, "/api/generate", f"{kind}-object", prompt="x", format=form)
    assert (json.loads(answer["response"]), answer["thinking"]) == ({"a": 1}, "hm\n")


def test_a_format_forces_what_the_model_would_not_say(client: httpx2.Client) -> None:
    form = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
    answer = ask(
        client, "/api/generate", "hello", prompt="x",
        format={**form, "additionalProperties": False}, options={"num_predict": 50},
    )  # fmt: skip
    assert set(json.loads(answer["response"])) == {"b"}


def test_the_oldest_messages_make_room(client: httpx2.Client) -> None:
    turns = [{"role": "user", "content": "word " * 20}] * 40
    for model in ("hello", "go-call"):
        wish = {"messages": turns, "options": {"num_ctx": 200}}
        answer = ask(client, "/api/chat", model, **wish)
        assert answer["prompt_eval_count"] < 200
        refused = client.post("/api/chat", json={"model": model, **wish, "truncate": False})
        assert refused.status_code == 400
        assert "context" in refused.json()["error"]


def test_an_answer_goes_on_when_its_context_is_full(client: httpx2.Client) -> None:
    words = [f" word{number}" for number in range(40)]
    put(client, "talks", endless(words, context=256))
    wish = {"prompt": "x\n", "raw": True, "options": {"num_ctx": 256, "num_predict": 400}}
    assert ask(client, "/api/generate", "talks", **wish)["eval_count"] == 400
    ended = ask(client, "/api/generate", "talks", shift=False, **wish)
    assert (ended["eval_count"] < 256, ended["done_reason"]) == (True, "length")


def test_models_stay_as_long_as_told(client: httpx2.Client) -> None:
    def loaded() -> list[str]:
        return [item["name"] for item in client.get("/api/ps").json()["models"]]

    assert ask(client, "/api/generate", "hello")["done_reason"] == "load"
    assert "hello:latest" in loaded()
    assert ask(client, "/api/chat", "hello", messages=[], keep_alive=0)["done_reason"] == "unload"
    assert "hello:latest" not in loaded()
    ask(client, "/api/generate", "hello", prompt="hi", keep_alive=0)
    until = time.monotonic() + 5
    while "hello:latest" in loaded():
        assert time.monotonic() < until
        time.sleep(0.05)
    ask(client, "/api/generate", "hello", keep_alive=-1)
    (entry,) = [e for e in client.get("/api/ps").json()["models"] if e["name"] == "hello:latest"]
    assert int(entry["expires_at"][:4]) > 2300
    assert entry["context_length"] == 4096
    assert "worker" not in entry


def test_vectors_of_texts(client: httpx2.Client) -> None:
    both = ask(client, "/api/embed", "vectors", input=["hello world", "the cat sat"])
    one = ask(client, "/api/embed", "vectors", input="the cat sat")
    assert list(one) == [
        "model", "embeddings", "total_duration", "load_duration", "prompt_eval_count",
    ]  # fmt: skip
    assert both["embeddings"][1] == pytest.approx(one["embeddings"][0], abs=1e-5)
    assert sum(x * x for x in one["embeddings"][0]) == pytest.approx(1, abs=1e-5)
    long = "hello " * 500
    assert ask(client, "/api/embed", "vectors", input=long)["prompt_eval_count"] == 128
    refused = client.post("/api/embed", json={"model": "vectors", "input": long, "truncate": False})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "the input length exceeds the context length"},
    )
    short = ask(client, "/api/embed", "vectors", input="hello", dimensions=4)["embeddings"][0]
    assert len(short) == 4
    old = ask(client, "/api/embeddings", "vectors", prompt="the cat sat")
    assert old["embedding"] == pytest.approx(one["embeddings"][0], abs=1e-5)


def test_a_client_that_leaves_frees_the_model_at_once(client: httpx2.Client) -> None:
    wish = {"model": "hello", "prompt": "x", "raw": True}
    endless = {**wish, "format": "json", "options": {"num_predict": 30_000, "temperature": 2.0}}
    with client.stream("POST", "/api/generate", json=endless) as answer:
        next(answer.iter_lines())
    began = time.monotonic()
    ask(client, "/api/generate", "hello", prompt="hi")
    assert time.monotonic() - began < 1
