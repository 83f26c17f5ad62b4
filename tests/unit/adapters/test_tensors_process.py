"""The child process: whole files out, one clear error otherwise, nothing left running."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.tensors_process import Process, TensorProcesses
from registry.core.errors import OperationFailed, RegistryError, StorageFull, Unsupported
from registry.ports.blobs import Opened
from registry.ports.tensors import TensorJob
from registry.tensors.engine import find_engine
from tests.support.gguf_source import read
from tests.support.tiny_models import decoder, safetensors
from tests.support.weighty import gguf_of, model, parts, shards

pytestmark = pytest.mark.anyio
needs_engine = pytest.mark.skipif(find_engine().library is None, reason="no engine")


class Sink:
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._buffer = bytearray(1 << 16)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    async def borrow(self) -> memoryview:
        return memoryview(self._buffer)

    async def fill(self, size: int) -> None:
        self.data += self._buffer[:size]


class World:
    """A store, a workshop, and jobs on bytes."""

    def __init__(self, folder: Path, *, engine: bool = True, memory: int = 1 << 30) -> None:
        self.store = FileBlobStore(folder)
        self.workshop = TensorProcesses(folder, 2, memory, engine=engine)

    @contextlib.asynccontextmanager
    async def begin(self, *files: bytes, target: str = "") -> AsyncIterator[Process]:
        named = {f"m{number}.gguf": data for number, data in enumerate(files)}
        async with self.begin_named("gguf", named, target) as process:
            yield process

    @contextlib.asynccontextmanager
    async def begin_named(
        self, kind: Literal["gguf", "checkpoint"], files: Mapping[str, bytes], target: str = ""
    ) -> AsyncIterator[Process]:
        async with contextlib.AsyncExitStack() as stack:
            opened: list[tuple[str, Opened]] = []
            for name, data in files.items():
                incoming = await self.store.create(len(data))
                await incoming.write(data)
                key = await incoming.publish(await incoming.seal())
                await incoming.discard()
                blob = await stack.enter_async_context(await self.store.open(key))
                opened.append((name, blob))
            job = TensorJob(kind, opened, target)
            yield await stack.enter_async_context(self.workshop.begin(job))

    async def make(self, *files: bytes, target: str = "") -> bytes:
        async with self.begin(*files, target=target) as process:
            sink = Sink()
            assert await process.feed(sink) == process.size == len(sink.data)
            assert process.done == process.total
            return bytes(sink.data)


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return World(tmp_path)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_file_comes_through_unchanged(world: World) -> None:
    data = model(layers=12)
    assert await world.make(data) == data


@needs_engine
async def test_a_quantized_file_says_its_size_before_the_first_byte(world: World) -> None:
    async with world.begin(model(), target="Q4_K_M") as process:
        assert process.size > 0
        assert process.level == "F16"
        sink = Sink()
        await process.feed(sink)
    assert len(sink.data) == process.size
    assert read(bytes(sink.data)).entries["general.file_type"].value == 15


async def test_shards_are_joined(world: World) -> None:
    made = read(await world.make(*shards(3)))
    assert len(made.tensors) == len(parts()[1])


async def test_a_checkpoint_of_eight_bits_becomes_one_of_eight_bits(world: World) -> None:
    tiny = decoder("LlamaForCausalLM")
    name = "model.layers.0.mlp.up_proj.weight"
    weights = dict(tiny.weights)
    weights[name] = np.zeros((96, 64), np.uint8)
    weights[f"{name}_scale_inv"] = np.ones((1, 1), np.float32)
    words = {f"w{number}": number for number in range(320)}
    tokenizer = {
        "model": {"type": "BPE", "vocab": words, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    files = {
        **tiny.contents(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "model.safetensors": safetensors(weights, {name: "F8_E4M3"}),
    }
    async with world.begin_named("checkpoint", files) as process:
        sink = Sink()
        await process.feed(sink)
    header = read(bytes(sink.data))
    assert header.entries["source_quantization"].value == "hf_fp8"
    assert header.entries["general.file_type"].value == 7
    assert {tensor.name: tensor.type for tensor in header.tensors}["blk.0.ffn_up.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("data", "target", "error", "words"),
    [
        (model()[:200], "", OperationFailed, r"m0\.gguf: unexpected EOF"),
        (b"GGUF", "", OperationFailed, r"m0\.gguf: EOF"),
        (model(), "Q4_K_M", Unsupported, "^quantization Q4_K_M needs the engine: install the"),
        (model(file_type=7), "Q8_0", OperationFailed, "only supported for F16"),
    ],
)
async def test_what_is_wrong_with_a_job_is_told_before_its_plan(
    tmp_path: Path, data: bytes, target: str, error: type[RegistryError], words: str
) -> None:
    with pytest.raises(error, match=words):
        async with World(tmp_path, engine=False).begin(data, target=target):
            pytest.fail("it had a plan")


async def test_numbers_that_are_none_end_the_file(world: World) -> None:
    pairs, tensors = parts("F32")
    tensors["blk.1.ffn_down.weight"][1][0, 0] = np.inf
    with pytest.raises(OperationFailed, match=r'"blk\.1\.ffn_down\.weight" has values that are'):
        await world.make(gguf_of(pairs, tensors), target="Q8_0")


async def test_a_crash_inside_tells_nothing_of_the_inside(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.workshop = TensorProcesses(tmp_path, 0, 1 << 30)  # no threads: a mistake of ours
    with pytest.raises(OperationFailed) as caught:
        await world.make(model(), target="Q8_0")
    assert str(caught.value) == "the model cannot be converted: unexpected content"


async def test_a_kind_of_work_that_is_not_known_is_refused(world: World) -> None:
    with pytest.raises(Unsupported, match="'paint' is not known"):
        async with world.workshop.begin(TensorJob("paint", [])):  # type: ignore[arg-type]
            pytest.fail("it had a plan")


async def test_a_killed_process_is_one_clear_error(world: World) -> None:
    async with world.begin(model(layers=40), target="Q8_0") as process:
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(OperationFailed, match="may have run out of memory"):
            await process.feed(Sink())


async def test_leaving_ends_the_process(world: World) -> None:
    async with world.begin(model(layers=40), target="Q8_0") as process:
        assert is_alive(process.pid)
    assert not is_alive(process.pid)


async def test_a_cancelled_receiver_ends_the_process(world: World) -> None:
    class Stuck(Sink):
        async def borrow(self) -> memoryview:
            await asyncio.Event().wait()
            raise AssertionError

    pids: list[int] = []

    async def work() -> None:
        async with world.begin(model(layers=40)) as process:
            pids.append(process.pid)
            await process.feed(Stuck())

    task = asyncio.create_task(work())
    while not pids:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pids[0])


async def test_more_memory_than_allowed_is_told(tmp_path: Path) -> None:
    wide = np.zeros((1, 80 << 20), np.float32)
    data = gguf_of(parts()[0], {"wide.weight": ("F16", wide)})  # one row of 160 MiB
    with pytest.raises(OperationFailed, match="more memory than the 16 MiB that converting may"):
        await World(tmp_path, memory=16 << 20).make(data, target="BF16")


async def test_the_child_can_open_nothing_and_knows_nothing(world: World) -> None:
    async with world.begin(model(layers=200)) as process:
        base = Path(f"/proc/{process.pid}")
        environment = (base / "environ").read_bytes().split(b"\0")
        limits = (base / "limits").read_text()
        nice = (base / "stat").read_text().rpartition(")")[2].split()[16]
        names = {item.partition(b"=")[0] for item in environment if item}
    assert names <= {
        b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"LC_ALL", b"OPENBLAS_NUM_THREADS",
        b"OMP_NUM_THREADS", b"MALLOC_TRIM_THRESHOLD_", b"MALLOC_MMAP_THRESHOLD_",
        b"LD_LIBRARY_PATH", b"TZ",
    }  # fmt: skip
    found = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    for name in ("Max open files", "Max file size", "Max core file size"):
        assert found[name] == ["0", "0"]
    assert int(nice) >= 10


async def test_no_descriptor_is_left_open(world: World) -> None:
    await world.make(model())
    before = len(os.listdir("/proc/self/fd"))
    await world.make(model())
    with pytest.raises(OperationFailed):
        await world.make(b"GGUF")
    assert len(os.listdir("/proc/self/fd")) == before


class Remote:
    """A blob that is in no local file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def fileno(self) -> None:
        return None

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        yield self._data[start : stop // 2]
        yield self._data[stop // 2 : stop]


async def test_a_blob_that_is_elsewhere_and_does_not_fit_is_refused_at_once(world: World) -> None:
    remote = Remote(b"")
    remote.size = 1 << 60
    with pytest.raises(StorageFull):
        async with world.workshop.begin(TensorJob("gguf", [("m.gguf", remote)])):  # type: ignore[list-item]  # all it asks
            pass


async def test_a_blob_that_is_elsewhere_is_copied_out_of_sight(
    world: World, tmp_path: Path
) -> None:
    data = model()
    job = TensorJob("gguf", [("m.gguf", Remote(data))])  # type: ignore[list-item]  # all it asks
    async with world.workshop.begin(job) as process:
        sink = Sink()
        await process.feed(sink)
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
    assert sink.data == data
