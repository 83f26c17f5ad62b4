"""`registry worker add …`, `registry model`, `registry usage`."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from registry.ports.fleet import HOUR_NS, Replica, Usage
from tests.support.api import Answer, serving
from tests.support.backends import BACKENDS
from tests.support.catalog_rows import put_model
from tests.unit.cli.test_admin import data, listed, run

__all__ = ["data"]


@pytest.fixture(autouse=True)
def library(data: Path) -> None:
    run("user add alice --no-password")
    asyncio.run(_fill(data))


async def _fill(data: Path) -> None:
    catalog = BACKENDS.catalog(data)
    hour = time.time_ns() // HOUR_NS * HOUR_NS
    rows = [
        Usage(hour, "ann", "m:1", "gpu", 1, 10, 20, 1500),
        Usage(hour, "bob", "m:1", "gpu", 1, 1, 2, 500),
        Usage(hour, "bob", "other", "gpu", 1, 0, 1, 0),
    ]
    await catalog.write(lambda tx: put_model(tx, "team/m", "latest", "m"))
    await catalog.write(lambda tx: tx.add_usage(rows))
    await catalog.close()


def test_a_worker_is_added_listed_drained_and_removed() -> None:
    said = run("worker add http://GPU-1:11434/api --kind ollama --label gpu --slots 4")
    assert said.stderr == "Worker gpu-1: ollama at http://GPU-1:11434.\n"
    worker = listed("worker list")[0]
    assert (worker["name"], worker["kind"], worker["labels"]) == ("gpu-1", "ollama", ["gpu"])
    assert worker["slots"] == 4
    assert run("worker drain gpu-1").exit_code == 0
    assert listed("worker list")[0]["drained"]
    assert run("worker resume gpu-1").exit_code == 0
    assert not listed("worker list")[0]["drained"]
    assert run("worker remove gpu-1").exit_code == 0
    assert listed("worker list") == []


def test_what_running_servers_see_of_workers_is_listed_too(data: Path) -> None:
    run("worker add http://h --kind ollama --name gpu")
    run("worker drain local")

    def state(name: str, *, reachable: bool = True, running: str = "") -> dict[str, Any]:
        models = [{"model": running, "slots": 1, "busy": 0}] if running else []
        return {"name": name, "engine": "e", "labels": ["x"], "reachable": reachable,
                "drained": False, "running": models}  # fmt: skip

    async def see() -> None:
        catalog = BACKENDS.catalog(data)
        for id_, states in (
            ("a", [state("local", running="m:1"), state("far", reachable=False)]),
            ("b", [state("local", running="n:1"), state("gone", reachable=False)]),
        ):
            row = Replica(id_, "", 1, time.time_ns(), json.dumps(states))
            await catalog.write(lambda tx, row=row: tx.put_replica(row))  # type: ignore[misc]  # mypy sees no default
        await catalog.close()

    asyncio.run(see())
    shown = {row["name"]: row for row in listed("worker list")}
    assert {name: row["state"] for name, row in shown.items()} == {
        "far": "away", "gone": "away", "gpu": "not seen", "local": "drained",
    }  # fmt: skip
    assert shown["local"]["running"] == ["m:1", "n:1"]
    assert (shown["far"]["kind"], shown["far"]["labels"]) == ("node", ["x"])
    run("worker resume local")
    assert listed("worker list")[-1]["state"] == "ready"


def test_a_key_comes_on_standard_input_and_is_not_shown() -> None:
    line = "worker add http://h --kind openai --name vllm --model team/m=* --key-stdin"
    done = run(line, "s3cret\n")
    assert done.exit_code == 0
    shown = run("worker list --json").stdout
    assert "s3cret" not in shown
    assert "registry.ollama.ai/team/m:latest=*" in shown


def test_a_model_is_placed_and_pinned() -> None:
    assert run("model place team/m --label gpu --label EU").stderr == (
        "team/m runs on workers with gpu, EU.\n"
    )
    assert run("model pin team/m").exit_code == 0
    assert listed("model placements") == [
        {"model": "team/m:latest", "labels": ["eu", "gpu"], "pinned": True}
    ]
    assert run("model unpin team/m").exit_code == 0
    assert run("model place team/m").stderr == "team/m runs everywhere.\n"
    assert listed("model placements") == []


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("worker add ftp://h --kind ollama", 1, "must begin with http"),
        ("worker add http://[ --kind ollama", 1, "cannot be read"),
        ("worker add http://h --kind other", 2, ""),
        ("worker add http://h --kind openai --model m", 2, "'m' is no OURS=THEIRS"),
        ("worker add http://h --kind ollama --model a=b", 1, "takes no map"),
        ("worker add http://h --kind ollama --label ä", 1, "labels are"),
        ("worker add http://h --kind ollama --slots 9999", 1, "slots"),
        ("worker remove none", 1, "there is no worker 'none'"),
        ("worker drain none", 1, "there is no worker 'none'"),
        ("model pin none", 1, "model 'none:latest' not found"),
        ("model place none --label gpu", 1, "model 'none:latest' not found"),
        ("model pin a//b", 1, "invalid model name"),
    ],
)
def test_what_cannot_be_is_told(command: str, code: int, said: str) -> None:
    done = run(command)
    assert done.exit_code == code
    assert said in done.stderr


def test_usage_is_added_up() -> None:
    assert listed("usage --hours 2") == [
        {"model": "m:1", "requests": 2, "prompt_tokens": 11, "tokens": 22, "seconds": 2.0},
        {"model": "other", "requests": 1, "prompt_tokens": 0, "tokens": 1, "seconds": 0.0},
    ]
    assert [row["account"] for row in listed("usage --hours 2 --by account")] == ["ann", "bob"]
    assert listed("usage --hours 2 --by worker")[0]["tokens"] == 23
    assert len(listed("usage --hours 2 --by hour")) == 1
    assert "other" in run("usage --hours 2").stdout


@pytest.mark.parametrize(
    ("capabilities", "path"), [(["completion"], "/api/generate"), (["embedding"], "/api/embed")]
)
def test_a_model_is_loaded_ahead(capabilities: list[str], path: str) -> None:
    with serving() as api:
        api.answers["POST /api/show"] = Answer({"capabilities": capabilities})
        api.answers[f"POST {path}"] = Answer({"done": True})
        done = run(f"model warm m --server {api.url}")
        assert (done.exit_code, done.stderr) == (0, "m is loaded.\n")
        assert api.last(path).json["model"] == "m"
        api.answers[f"POST {path}"] = Answer({"error": "no memory"}, status=500)
        assert run(f"model warm m --server {api.url}").exit_code == 1
