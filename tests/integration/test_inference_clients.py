"""The official Ollama clients, Python and JavaScript, make every inference call."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from ollama import AsyncClient, Client, ResponseError
from pydantic import BaseModel

from tests.integration.test_clients import node_modules as node_modules
from tests.support.server import running
from tests.support.talkers import TOOL, put_all

pytestmark = pytest.mark.engine

SCRIPT = Path(__file__).parent / "js" / "inference.cjs"
HI = [{"role": "user", "content": "hi"}]
SAID = "Hello there, friend."


class Answer(BaseModel):
    """What the model is to fill in."""

    a: int


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("server") / "data") as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            put_all(client)
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(host=url)
    yield client
    client.close()  # type: ignore[no-untyped-call]  # theirs


def get_weather(city: str) -> str:
    """The weather.

    Args:
        city: Where.
    """
    return f"{city}: 22 degrees"


def test_generate(client: Client) -> None:
    whole = client.generate("hello", "hi", options={"seed": 1})
    assert (whole.response, whole.done_reason, whole.done) == (SAID, "stop", True)
    assert whole.eval_count == 6
    assert whole.context
    pieces = list(client.generate("hello", "hi", stream=True, keep_alive="1m"))
    assert "".join(piece.response or "" for piece in pieces) == SAID
    again = client.generate("hello", "more", context=list(whole.context), raw=False)
    assert again.response == SAID
    assert client.generate("hello", "hi\n", raw=True).response == SAID
    likely = client.generate("hello", "hi", logprobs=True, top_logprobs=1).logprobs
    assert likely is not None
    assert likely[0].token == "Hello"
    assert client.generate("hello").done_reason == "load"
    assert client.generate("hello", keep_alive=0).done_reason == "unload"


def test_chat(client: Client) -> None:
    assert client.chat("hello", HI).message.content == SAID
    pieces = list(client.chat("hello", HI, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == SAID
    assert pieces[-1].done


@pytest.mark.parametrize("kind", ["go", "jinja"])
def test_thinking_and_formats(client: Client, kind: str) -> None:
    thought = client.chat(f"{kind}-thought", HI, think=True).message
    assert (thought.thinking or "").strip() == "I see now"
    schema = Answer.model_json_schema()
    said = client.chat(f"{kind}-object", HI, format=schema).message
    assert Answer.model_validate_json(said.content or "") == Answer(a=1)
    told = client.generate(f"{kind}-object", "x", format="json")
    assert Answer.model_validate_json(told.response or "") == Answer(a=1)


@pytest.mark.parametrize("kind", ["go", "jinja"])
def test_tools(client: Client, kind: str) -> None:
    model = f"{kind}-call"
    asked = client.chat(model, HI, tools=[get_weather])
    (call,) = asked.message.tool_calls or ()
    assert call.function.name == "get_weather"
    result = get_weather(**call.function.arguments)
    answer = {"role": "tool", "tool_name": call.function.name, "content": result}
    told = client.chat(model, [*HI, asked.message, answer], tools=[TOOL], stream=True)
    assert any(piece.message.tool_calls for piece in told)


def test_embeddings(client: Client) -> None:
    both = client.embed("vectors", ["hello", "world"], dimensions=8, truncate=True)
    assert [len(vector) for vector in both.embeddings] == [8, 8]
    assert both.prompt_eval_count == 6
    assert len(client.embeddings("vectors", "hello").embedding) == 32


def test_running_models(client: Client) -> None:
    client.generate("hello", keep_alive=-1)
    loaded = {model.model: model for model in client.ps().models}
    entry = loaded["hello:latest"]
    assert entry.context_length == 4096
    assert entry.size is not None
    assert entry.size > 0
    assert entry.expires_at is not None
    assert entry.expires_at.year > 2300


def test_errors(client: Client) -> None:
    for call, status, message in (
        (lambda: client.generate("none", "x"), 404, "model 'none' not found"),
        (lambda: client.chat("hello", HI, think=True), 400, "does not support thinking"),
        (lambda: client.chat("hello", HI, tools=[TOOL]), 400, "does not support tools"),
        (lambda: client.embed("hello", "x"), 400, "does not support embeddings"),
        (lambda: client.chat("vectors", HI), 400, "does not support chat"),
        (lambda: client.generate("hello", "x", format={"type": "no"}), 400, "Invalid type"),
        (lambda: client.generate("hello", "x", images=[b"\x89PNG"]), 400, "support vision"),
        (lambda: list(client.chat("none", HI, stream=True)), 404, "not found"),
    ):
        with pytest.raises(ResponseError, match=message) as caught:
            call()
        assert caught.value.status_code == status


def test_many_at_once(url: str) -> None:
    async def all_of_them() -> list[str | None]:
        client = AsyncClient(host=url)
        answers = await asyncio.gather(*(client.generate("hello", "hi") for _ in range(20)))
        streamed = [piece.response async for piece in await client.generate("hello", stream=True)]
        await client.close()  # type: ignore[no-untyped-call]  # theirs
        return [answer.response for answer in answers] + streamed

    assert asyncio.run(all_of_them()) == [SAID] * 20 + [""]


def test_the_javascript_client(node_modules: Path, url: str) -> None:
    done = subprocess.run(
        ["node", str(SCRIPT)],
        env={**os.environ, "NODE_PATH": str(node_modules), "SERVER": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all calls done\n")
