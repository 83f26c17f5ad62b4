"""Each option where it can be seen: in what the real engine says, and in what is loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from registry.core.parameters import PARAMETERS
from tests.support.scripted_model import endless, scripted_model
from tests.support.server import Server, running
from tests.support.talkers import put

pytestmark = pytest.mark.engine
WORDS = [" one", " two", " three", " four"]
HOT = {"temperature": 5000.0, "top_p": 1.0, "top_k": 0, "seed": 3, "num_predict": 12}
"""With these alone the model says anything."""
ROUND = "".join(WORDS) * 3
SEEN: list[tuple[dict[str, Any], str]] = [
    ({"num_predict": 2}, " one two"),
    ({"num_predict": 2.9}, " one two"),
    ({"num_predict": 12, "stop": ["three", "nobody says this"]}, " one two "),
    ({"num_predict": 12, "stop": []}, ROUND),
    ({"num_predict": 12, "temperature": 0}, ROUND),
    ({**HOT, "top_k": 1}, ROUND),
    ({**HOT, "top_p": 0.001}, ROUND),
    ({**HOT, "min_p": 1.0}, ROUND),
]
UNSEEN = {
    "typical_p": 0.5, "num_keep": 5, "num_batch": 64, "num_gpu": 0, "main_gpu": 0,
    "use_mmap": False, "num_thread": 1, "draft_num_predict": 3,
}  # fmt: skip
"""They change how it is said, not what; `test_launch.py` and `test_sampling.py` have them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("options") / "data") as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            put(client, "round", endless(WORDS, context=1024), parameters={"temperature": 0})
            put(client, "once", scripted_model(["Yes", "."], context=1024))
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


def said(client: httpx2.Client, options: dict[str, Any], model: str = "round") -> str:
    body = {"model": model, "prompt": "x\n", "raw": True, "stream": False, "options": options}
    answer = client.post("/api/generate", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["response"])


@pytest.mark.parametrize(("options", "text"), SEEN)
def test_an_option_shows_in_what_is_said(
    client: httpx2.Client, options: dict[str, Any], text: str
) -> None:
    assert said(client, options) == text


def test_heat_and_seeds(client: httpx2.Client) -> None:
    first = said(client, HOT)
    assert first != ROUND
    assert said(client, HOT) == first
    assert said(client, {**HOT, "seed": 4}) != first
    assert said(client, {**HOT, "seed": -1}) != said(client, {**HOT, "seed": -1})


@pytest.mark.parametrize(
    "penalty",
    [
        {"repeat_penalty": 1e6, "temperature": 1.0, "top_p": 1.0, "seed": 1},
        {"presence_penalty": 1e6},
        {"frequency_penalty": 1e6},
    ],
)
def test_what_was_said_already_is_punished_as_far_back_as_told(
    client: httpx2.Client, penalty: dict[str, float]
) -> None:
    options = {"num_predict": 8, **penalty}
    twice = "".join(WORDS) * 2
    assert said(client, options) != twice
    assert said(client, {**options, "repeat_last_n": -1}) != twice
    assert said(client, {**options, "repeat_last_n": 0}) == twice
    assert said(client, {**options, "repeat_last_n": 3}) == twice


def test_the_size_of_the_context_is_what_is_loaded(client: httpx2.Client) -> None:
    for wished, loaded in ((512, 512), (100_000, 1024), (1, 4)):
        said(client, {"num_ctx": wished, "num_predict": 1})
        sizes = {item["context_length"] for item in client.get("/api/ps").json()["models"]}
        assert loaded in sizes, sizes


@pytest.mark.parametrize("name", sorted(UNSEEN))
def test_an_option_that_shows_nowhere_is_taken(client: httpx2.Client, name: str) -> None:
    assert said(client, {name: UNSEEN[name]}, "once").startswith("Yes")


def test_more_threads_than_cores_are_not_started(server: Server, client: httpx2.Client) -> None:
    said(client, {"num_thread": 900, "num_ctx": 128}, "once")
    runners = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    for pid in runners.read_text().split():
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) < 100


def test_an_unknown_option_is_passed_over_and_told_of(
    server: Server, client: httpx2.Client
) -> None:
    assert said(client, {"mirostat": 2, "numa": True, "num_predict": 1}) == " one"
    assert "unknown options" in server.log.read_text()


def test_every_option_has_its_row() -> None:
    rows = {name for options, _ in SEEN for name in options} | set(UNSEEN)
    others = {"seed", "repeat_penalty", "presence_penalty", "frequency_penalty", "repeat_last_n"}
    assert rows | others | {"num_ctx"} == set(PARAMETERS), json.dumps(sorted(PARAMETERS))
