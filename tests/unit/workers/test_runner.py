"""Runners as processes: whom they outlive, and a program in the engine's place."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from registry.core.errors import CannotRun
from registry.ports.workers import RunnerOptions
from registry.workers.engine import Engine
from registry.workers.launch import Files, Place, runner_environment, runner_settings
from tests.support import llama_server
from tests.support.nodes import Shelf, node, said
from tests.support.scripted_model import random_model, scripted_model

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[3]


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def start(settings: dict[str, object]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "registry.workers.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=runner_environment(os.environ, str(ROOT), dedicated=False),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**settings, "parent": os.getpid()}).encode() + b"\n")
    process.stdin.flush()
    return process


def settings(folder: Path, model: bytes) -> dict[str, object]:
    path = folder / "model"
    path.write_bytes(model)
    place = Place(str(folder / "r.sock"), "key", 1)
    return runner_settings(Files(str(path)), RunnerOptions(num_ctx=64), place)


@pytest.mark.engine
def test_a_runner_ends_when_its_input_is_closed(tmp_path: Path) -> None:
    with start(settings(tmp_path, random_model())) as process:
        assert process.stdin is not None and process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"address": str(tmp_path / "r.sock")}
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.engine
def test_a_runner_that_cannot_load_says_so_in_one_line(tmp_path: Path) -> None:
    with start(settings(tmp_path, b"garbage")) as process:
        assert process.stdout is not None
        assert "error" in json.loads(process.stdout.readline())
        assert process.wait(5) == 1


@pytest.mark.engine
@pytest.mark.skipif(sys.platform != "linux", reason="the signal on a parent's death is Linux's")
def test_no_runner_outlives_a_worker_that_is_killed(tmp_path: Path) -> None:
    program = f"""
        import asyncio, pathlib
        from tests.support.nodes import Shelf, node
        from tests.support.scripted_model import random_model

        async def main():
            shelf = Shelf(pathlib.Path({str(tmp_path)!r}))
            async with node(shelf) as worker:
                await worker.acquire(shelf.put("m", random_model()))
                (held,) = worker._held.values()
                print(held.child.pid, flush=True)
                await asyncio.sleep(60)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, b"")
        pid = int(next(line for line in lines if line.strip().isdigit()))
        assert not gone(pid, 0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
    assert gone(pid)


@pytest.mark.engine
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_the_servers_own_loop_reaches_runners_too(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    async with node(shelf) as worker:
        running = await worker.acquire(shelf.put("m", scripted_model(["Hel", "lo"])))
        assert await said(running) == "Hello"


@pytest.mark.engine
async def test_sockets_are_private_and_memory_is_taken_from_runners_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    async with node(shelf) as worker:
        await worker.acquire(shelf.put("m", random_model()))
        (held,) = worker._held.values()
        assert held.wire is not None
        folder = Path(str(held.wire.address)).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(held.wire.address)) < 100
        assert held.child is not None
        score = Path(f"/proc/{held.child.pid}/oom_score_adj").read_text()
        assert int(score) > int(Path("/proc/self/oom_score_adj").read_text())
    assert not folder.exists()


# --- a program in the engine's place


@pytest.fixture
def program(tmp_path: Path) -> Engine:
    path = tmp_path / "llama-server"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{llama_server.__file__}" "$@"\n')
    path.chmod(0o755)
    return Engine("llama-server", program=str(path))


async def test_a_llama_server_can_take_the_engines_place(tmp_path: Path, program: Engine) -> None:
    shelf = Shelf(tmp_path)
    async with node(shelf, program) as worker:
        running = await worker.acquire(shelf.put("m", b"any bytes"))
        assert await said(running) == "sha256-" + running_digest(shelf)[:3]
        assert worker.facts().loaded[0].size == 3 << 20
        (held,) = worker._held.values()
        assert held.child is not None
        pid = held.child.pid
    assert await asyncio.to_thread(gone, pid)


def running_digest(shelf: Shelf) -> str:
    (digest,) = shelf.paths
    return digest.hex


async def test_a_program_that_ends_is_told_in_its_words(
    tmp_path: Path, program: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_TEST", "refuse")
    shelf = Shelf(tmp_path)
    async with node(shelf, program) as worker:
        with pytest.raises(CannotRun, match="error loading model: not today"):
            await worker.acquire(shelf.put("m", b"any bytes"))


async def test_a_load_without_memory_is_tried_once_more_with_all_of_it(
    tmp_path: Path, program: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path)
    async with node(shelf, program) as worker:
        await (await worker.acquire(shelf.put("one", b"one"))).release(60)
        monkeypatch.setitem(worker._starter._environment, "OMP_TEST", str(tmp_path / "flag"))
        await (await worker.acquire(shelf.put("two", b"two"))).release(60)
        assert [item.name.model for item in worker.facts().loaded] == ["two"]
        (tmp_path / "flag").unlink()
        await worker.unload(shelf.put("two", b"two").model.digest)
        with pytest.raises(CannotRun, match="failed to allocate buffer of size 99"):
            await worker.acquire(shelf.put("three", b"three"))  # nothing to let go of


@pytest.mark.parametrize(
    ("name", "text"),
    [("ILL", "instructions that this processor does not have"), ("KILL", "for want of memory")],
)
async def test_a_program_that_is_killed_by_the_system_is_told_in_words(
    tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / "llama-server"
    path.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    path.chmod(0o755)
    shelf = Shelf(tmp_path)
    async with node(shelf, Engine("llama-server", program=str(path))) as worker:
        with pytest.raises(CannotRun, match=text):
            await worker.acquire(shelf.put("m", b"any bytes"))


async def test_a_program_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_bytes(b"\x00not a program")
    path.chmod(0o755)
    shelf = Shelf(tmp_path)
    async with node(shelf, Engine("llama-server", program=str(path))) as worker:
        with pytest.raises(CannotRun):
            await worker.acquire(shelf.put("m", b"any bytes"))


async def test_a_load_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\necho loading >&2\nsleep 60\n")
    path.chmod(0o755)
    shelf = Shelf(tmp_path)
    engine = Engine("llama-server", program=str(path))
    async with node(shelf, engine, load_timeout="200ms") as worker:
        with pytest.raises(CannotRun, match="timed out waiting for the model to load"):
            await worker.acquire(shelf.put("m", b"any bytes"))
        assert worker.facts().loaded == ()
