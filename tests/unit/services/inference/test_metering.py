"""What a lease used is read from what the runner says; the lease is otherwise as it was."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import generate_latest

from registry.core.errors import Unavailable
from registry.core.names import ModelName
from registry.ports.workers import Dialect, Running
from registry.services.inference.metering import Meter, Use
from tests.support.fake_worker import FakeWorker, Script, spec_of

pytestmark = pytest.mark.anyio
FRAMES = [
    {"response": "a", "done": False},
    {"done": True, "prompt_eval_count": 7, "eval_count": 3, "total_duration": "x"},
]


async def leased(meter: Meter, script: Script | None = None) -> tuple[Running, Use]:
    worker = FakeWorker(script=script, dialect=Dialect.OLLAMA)
    use = Use(ModelName.parse("tiny"), "fake", "ann", 1.0)
    return meter.metered(await worker.acquire(spec_of()), use), use


async def drain(items: AsyncIterator[Any]) -> int:
    return len([item async for item in items])


@pytest.mark.parametrize(
    ("frames", "counted"),
    [
        (FRAMES, (7, 3)),
        ([{"embeddings": [[1.0]], "prompt_eval_count": 4}], (4, 0)),
        ([{"embedding": [1.0]}], (0, 0)),
        ([{"done": True, "prompt_eval_count": "many", "eval_count": -1}], (0, 0)),
    ],
)
async def test_frames_of_an_ollama_server_are_counted(
    frames: list[dict[str, Any]], counted: tuple[int, int]
) -> None:
    running, use = await leased(Meter(), Script(frames=frames))
    assert await drain(running.native("/api/generate", {})) == len(frames)
    assert (use.prompt_tokens, use.tokens) == counted
    assert use.complete
    assert use.first_s is not None
    assert use.first_s > 1.0


async def test_pieces_and_vectors_are_counted() -> None:
    running, use = await leased(Meter())
    assert (running.worker, running.dialect, running.load_ns) == ("fake", Dialect.OLLAMA, 1_000_000)
    assert await drain(running.complete({})) == 3
    assert await drain(running.chat({})) == 3
    assert (use.prompt_tokens, use.tokens) == (10, 4)
    await running.embed(["two words"])
    assert use.prompt_tokens == 12
    assert await running.tokenize("a") == [1, 97]
    assert await running.detokenize([97]) == "a"
    assert await running.apply_template({"messages": []}) == ""
    await running.release(None)


async def test_an_answer_that_is_left_is_closed_and_broken() -> None:
    meter = Meter()
    running, use = await leased(meter)
    pieces = running.complete({})
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]  # as whoever leaves does
    assert use.asked
    assert not use.complete
    meter.done(use, 0.5)
    text = generate_latest(meter.registry).decode()
    assert 'registry_inference_requests_total{outcome="broken",worker="fake"} 1.0' in text
    assert 'registry_inference_running{worker="fake"} 0.0' in text


async def test_a_lease_that_only_loads_is_done() -> None:
    meter = Meter()
    _, use = await leased(meter)
    meter.done(use, 0.5)
    text = generate_latest(meter.registry).decode()
    assert 'outcome="done"' in text
    assert "registry_inference_tokens_total" not in text.replace("# ", "").split("HELP")[0]


def test_loads_losses_and_refusals_are_counted() -> None:
    meter = Meter()
    meter.loaded("gpu", 0)
    meter.loaded("gpu", 2_000_000_000)
    meter.lost("gpu")
    meter.refused(Unavailable("no"))
    meter.waited(0.02)
    text = generate_latest(meter.registry).decode()
    assert 'registry_inference_load_seconds_sum{worker="gpu"} 2.0' in text
    assert 'registry_inference_load_seconds_count{worker="gpu"} 1.0' in text
    assert 'registry_inference_lost_total{worker="gpu"} 1.0' in text
    assert 'registry_inference_refused_total{error="Unavailable"} 1.0' in text
    assert 'registry_inference_wait_seconds_bucket{le="0.05"} 1.0' in text


def test_more_models_than_a_scrape_can_show_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.services.inference.metering._MODELS", 1)
    meter = Meter()
    for name in ("a", "b", "c", "a"):
        use = Use(ModelName.parse(name), "gpu", "", 0.0, tokens=1)
        meter.metered(None, use)  # type: ignore[arg-type]  # never used
        meter.done(use, 0.1)
    text = generate_latest(meter.registry).decode()
    assert 'tokens_total{kind="answer",model="a:latest"} 2.0' in text
    assert 'tokens_total{kind="answer",model="other"} 2.0' in text
