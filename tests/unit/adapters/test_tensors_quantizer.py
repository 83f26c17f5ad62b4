"""A program in the engine's place: believed only when what it made is what was planned."""

import asyncio
import json
import os
import shutil
import stat
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.tensors_process import TensorProcesses
from registry.adapters.tensors_quantizer import Program, Quantizer
from registry.core.errors import OperationFailed, StorageFull
from registry.ports.tensors import Making, TensorJob
from registry.tensors.engine import find_engine
from tests.support.tiny_models import decoder
from tests.support.weighty import entry, gguf_of, model, parts
from tests.unit.adapters.test_tensors_process import Sink

pytestmark = pytest.mark.anyio
REAL = os.environ.get("LLAMA_QUANTIZE") or shutil.which("llama-quantize")
SOURCE = model("F16", layers=2)


def checkpoint() -> dict[str, bytes]:
    """A tiny model's files."""
    words = {f"w{number}": number for number in range(320)}
    tokenizer = {
        "model": {"type": "BPE", "vocab": words, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    contents = decoder("LlamaForCausalLM").contents()
    return {**contents, "tokenizer.json": json.dumps(tokenizer).encode()}


class World:
    """A store, and a workshop whose program is a script of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FileBlobStore(folder / "store")
        self.inner = TensorProcesses(folder, 2, 1 << 30)
        self.program = folder / "program"

    def script(self, body: str) -> None:
        """`source` and `made` are the paths, `kind` what is wanted; `wait()` waits for ever."""
        head = "import os, sys, time\nsource, made, kind, threads = sys.argv[1:]\n"
        text = f"#!{sys.executable} -IS\n{head}{textwrap.dedent(body)}"
        self.program.write_text(text)
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    def copies(self, data: bytes, before: str = "") -> None:
        """Let it make `data`."""
        (self.folder / "made").write_bytes(data)
        copy = f"open(made, 'wb').write(open({str(self.folder / 'made')!r}, 'rb').read())\n"
        self.script(before + "\n" + copy)

    @property
    def workshop(self) -> Quantizer:
        name = str(self.program) if self.program.exists() else str(REAL)
        return Quantizer(Program.find(name, self.folder, 2, 1 << 30), self.inner)

    @asynccontextmanager
    async def begin(
        self, target: str, files: dict[str, bytes] | None = None, *, own: bool = False
    ) -> AsyncIterator[Making]:
        files = files or {"m.gguf": SOURCE}
        kind = "gguf" if all(name.endswith(".gguf") for name in files) else "checkpoint"
        workshop = self.inner if own else self.workshop
        keys = {}
        for name, data in files.items():
            incoming = await self.store.create(len(data))
            await incoming.write(data)
            keys[name] = await incoming.publish(await incoming.seal())
        opened = [(name, await self.store.open(key)) for name, key in keys.items()]
        job = TensorJob(kind, opened, target)  # type: ignore[arg-type]
        try:
            async with workshop.begin(job) as making:
                yield making
        finally:
            for _, file in opened:
                await file.close()

    async def made(
        self, target: str, files: dict[str, bytes] | None = None, *, own: bool = False
    ) -> bytes:
        sink = Sink()
        async with self.begin(target, files, own=own) as making:
            assert await making.feed(sink) == making.size
            assert making.done == making.total
        return bytes(sink.data)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()
    left = {path.name for path in tmp_path.iterdir()} - {"store", "program", "made"}
    assert left == set()


async def test_what_the_program_made_comes_out(world: World) -> None:
    expected = await world.made("Q8_0", own=True)
    world.copies(expected)
    assert await world.made("Q8_0") == expected


async def test_it_gets_the_source_the_type_and_little_else(world: World) -> None:
    expected = await world.made("Q8_0", own=True)
    world.copies(
        expected,
        """
assert open(source, 'rb').read(4) == b'GGUF' and (kind, threads) == ('Q8_0', '2')
assert not {'HOME', 'PATH', 'USER'} & set(os.environ), os.environ
import resource
assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] < 1 << 30
assert os.nice(0) >= 10
""",
    )
    assert await world.made("Q8_0") == expected


async def test_a_checkpoint_is_converted_first(world: World) -> None:
    files = checkpoint()
    expected = await world.made("Q8_0", files, own=True)
    world.copies(expected)
    assert await world.made("Q8_0", files) == expected


async def test_16_bits_need_no_program(world: World) -> None:
    world.script("sys.exit(1)")
    assert await world.made("BF16") == await world.made("BF16", own=True)


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("sys.exit(3)", OperationFailed, "ended with status 3: it said nothing"),
        (
            "print('x: failed to quantize: no such key', file=sys.stderr)\n"
            "print('main: failed', file=sys.stderr)\nsys.exit(1)",
            OperationFailed,
            "ended with status 1: no such key",
        ),
        ("print('last words', file=sys.stderr)\nsys.exit(1)", OperationFailed, "1: last words"),
        ("os.kill(os.getpid(), 9)", OperationFailed, "was ended by signal 9"),
        (
            "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
            "with open(made, 'wb') as f:\n    while True: f.write(bytes(1 << 16))",
            OperationFailed,
            "was ended by signal 25",
        ),
        ("", OperationFailed, "ends at byte 0|is not|GGUF"),
        ("open(made, 'wb').write(b'GGUF' + bytes(99))", OperationFailed, "GGUF"),
        (
            "open(made, 'wb').write(open(source, 'rb').read())",
            OperationFailed,
            "was not quantized as planned",
        ),
    ],
)
async def test_a_program_that_does_wrong_is_told_of(
    world: World, script: str, error: type[Exception], words: str
) -> None:
    world.script(script)
    with pytest.raises(error, match=words) as caught:
        await world.made("Q8_0")
    assert str(world.folder) not in str(caught.value)


async def test_what_stands_behind_the_tensors_does_not_come_out(world: World) -> None:
    expected = await world.made("Q8_0", own=True)
    world.copies(expected + bytes(64))
    assert await world.made("Q8_0") == expected


async def test_other_metadata_than_planned_are_refused(world: World) -> None:
    pairs, tensors = parts("F16")
    other = gguf_of([*pairs, ("general.name", entry("x" * 99))], tensors)
    world.copies(await world.made("Q8_0", {"m.gguf": other}, own=True))
    with pytest.raises(OperationFailed, match="another size than planned"):
        await world.made("Q8_0")


async def test_progress_is_that_of_its_tensors(world: World) -> None:
    world.script("print('[   5/  10] blk.0', file=sys.stderr, flush=True)\ntime.sleep(60)")
    async with world.begin("Q8_0") as making:
        feeding = asyncio.create_task(making.feed(Sink()))
        while not making.done:
            await asyncio.sleep(0.01)
        assert making.done == making.total * 4 // 10
        feeding.cancel()
        await asyncio.wait({feeding})


async def test_it_ends_with_its_job(world: World) -> None:
    pid = world.folder / "made"
    world.script(f"open({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    async with world.begin("Q8_0") as making:
        feeding = asyncio.create_task(making.feed(Sink()))
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        feeding.cancel()
        await asyncio.wait({feeding})
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_disk_that_is_too_full_is_seen_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.script("sys.exit(1)")
    monkeypatch.setattr("registry.adapters.nameless.free_bytes", lambda folder: 1000)
    with pytest.raises(StorageFull):
        await world.made("Q8_0")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="QUANTIZER: there is no program 'nowhere'"):
        Program.find("nowhere", tmp_path, 1, 1)


@pytest.mark.skipif(not REAL, reason="no llama-quantize: name it in LLAMA_QUANTIZE")
@pytest.mark.skipif(find_engine().library is None, reason="no engine")
@pytest.mark.parametrize("target", ["Q8_0", "Q4_K_M", "Q3_K_S", "Q5_1", "Q6_K", "IQ4_XS"])
async def test_the_real_program_makes_the_same_bytes(world: World, target: str) -> None:
    files = checkpoint()
    assert await world.made(target, files) == await world.made(target, files, own=True)
