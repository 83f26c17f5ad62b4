"""Accelerators, as a child process with the engine tells of them."""

import os
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from registry.core.errors import CannotRun
from registry.workers import devices, machine
from registry.workers.devices import Device, accelerators
from registry.workers.engine import Engine, find_engine
from registry.workers.machine import Memory
from tests.support.nodes import Shelf, node
from tests.support.scripted_model import scripted_model

pytestmark = pytest.mark.anyio
GPU = Device("CUDA0", 8 << 30, 6 << 30)


def told(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """The child runs this instead."""
    monkeypatch.setattr(devices, "COMMAND", (sys.executable, "-c", program))


async def test_what_the_engine_tells_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, "print('{\"devices\": [{\"name\": \"CUDA0\", \"total\": 8589934592, "
                      "\"free\": 6442450944}]}')")  # fmt: skip
    assert await accelerators(Engine("xllamacpp"), os.environ) == (GPU,)
    assert await accelerators(Engine("llama-server", program="/x"), os.environ) == ()
    assert await accelerators(Engine("xllamacpp", problem="none"), os.environ) == ()


@pytest.mark.parametrize(
    "program",
    ["", "print('x')", "print('{}')", "print('{\"devices\": [{}]}')", "import os; os.abort()",
     "import time; time.sleep(60)"],
)  # fmt: skip
async def test_one_that_does_not_tell_has_none(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(devices, "_ASK_S", 1.0)
    told(monkeypatch, program)
    assert await accelerators(Engine("xllamacpp"), os.environ) == ()


async def test_what_the_child_said_last_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, "print('first', file=__import__('sys').stderr); import no_such_library")
    with capture_logs() as logs:
        assert await accelerators(Engine("xllamacpp"), os.environ) == ()
    assert logs[0]["reason"] == "ModuleNotFoundError: No module named 'no_such_library'"


@pytest.mark.engine
async def test_the_real_engine_is_asked_in_a_process_of_its_own() -> None:
    found = await accelerators(find_engine("xllamacpp"), {**os.environ})
    assert all(device.memory_total > 0 for device in found)  # none where there is no GPU
    assert "xllamacpp" not in sys.modules


@pytest.mark.engine
async def test_memory_of_accelerators_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(1 << 20, 1 << 20))
    model = scripted_model(["Hi"])
    shelf = Shelf(tmp_path)
    spec = shelf.put("m", model)
    async with node(shelf) as worker:
        worker._starter._devices = ()
        with pytest.raises(CannotRun, match="requires more system memory"):
            await worker.acquire(spec)
    async with node(shelf) as worker:
        worker._starter._devices = (GPU,)
        assert worker.facts().memory_total == 0  # nobody is refused before it is known
        await (await worker.acquire(spec)).release(60)
        assert worker.facts().memory_total > 5 << 30
