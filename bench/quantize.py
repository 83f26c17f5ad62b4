"""Quantizing a synthetic F16 model: speed beside ggml's kernels alone, memory, and progress.

    python bench/quantize.py --folder /fast/disk --gib 2 --types Q8_0 Q4_K_M

`kernels` are CPU seconds that ggml's own functions take for the same numbers and types, on as many
threads at once, from and to a core's cache, measured before and after. On a busy machine compare
CPU seconds: two threads of one core slow each other down in both. Memory
is what the kernel counts as anonymous (`RssAnon`) of the child; silence is the longest time without
progress.
"""

import argparse
import asyncio
import contextlib
import ctypes
import os
import resource
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.tensors_process import Process, TensorProcesses
from registry.core.ggml import TYPE_NUMBERS
from registry.core.gguf import Entry, Kind, Tensor
from registry.core.gguf.writer import Layout, layout, padded
from registry.core.quantize import Hyper, plan, target
from registry.ports.tensors import TensorJob
from registry.tensors.engine import find_engine

WIDTH, INNER, WORDS = 4096, 11_008, 32_000
HYPER = Hyper("llama", layers=0, heads=32, kv_heads=8)


@dataclass
class Run:
    """What one job took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak: int = 0
    silence_s: float = 0.0


def tensors(gib: float) -> tuple[list[Tensor], int]:
    """A llama's tensors, as many layers as fit, and how many those are."""
    layer = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH // 4),
        "attn_v": (WIDTH, WIDTH // 4),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (WIDTH, INNER),
        "ffn_up": (WIDTH, INNER),
        "ffn_down": (INNER, WIDTH),
    }
    found = [Tensor(name, "F16", (WIDTH, WORDS)) for name in ("output.weight", "token_embd.weight")]
    number = 0
    while number == 0 or 2 * sum(prod(tensor.shape) for tensor in found) < gib * (1 << 30):
        found += [Tensor(f"blk.{number}.{key}.weight", "F16", of) for key, of in layer.items()]
        number += 1
    return found, number


def laid_out(given: list[Tensor], layers: int) -> Layout:
    numbers = {
        "llama.block_count": layers,
        "llama.attention.head_count": HYPER.heads,
        "llama.attention.head_count_kv": HYPER.kv_heads,
        "general.file_type": 1,
    }
    pairs = [("general.architecture", Entry(Kind.STRING, "llama"))]
    pairs += [(key, Entry(Kind.U32, value)) for key, value in numbers.items()]
    return layout(list(pairs), given)


def content(laid: Layout) -> Iterator[bytes]:
    noise = np.random.default_rng(1).standard_normal(1 << 22, np.float32) * np.float32(0.02)
    block = noise.astype(np.float16).tobytes()
    yield laid.header
    for length in laid.lengths:
        size = padded(length, laid.alignment)
        for start in range(0, size, len(block)):
            yield block[: size - start]


@contextlib.asynccontextmanager
async def watched(process: Process, run: Run) -> AsyncIterator[None]:
    async def look() -> None:
        status = Path(f"/proc/{process.pid}/status")
        done, since = -1, time.perf_counter()
        while True:
            with contextlib.suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith("RssAnon:"):
                        run.peak = max(run.peak, int(line.split()[1]) << 10)
            if process.done != done:
                done, since = process.done, time.perf_counter()
            run.silence_s = max(run.silence_s, time.perf_counter() - since)
            await asyncio.sleep(0.01)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def quantized(
    store: FileBlobStore, workshop: TensorProcesses, key: str, wanted: str
) -> tuple[Run, int]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = Run()
    async with (
        await store.open(key) as opened,
        workshop.begin(TensorJob("gguf", [("m.gguf", opened)], wanted)) as process,
    ):
        incoming = await store.create(process.size)
        try:
            async with watched(process, run):
                await incoming.receive(process)
            await incoming.seal()
        finally:
            await incoming.discard()
        size = process.size
    run.wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    run.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return run, size


def kernel_seconds(library: ctypes.CDLL, wanted: list[Tensor], threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        both = [pool.submit(_kernel_seconds, library, wanted) for _ in range(threads)]
        return statistics.mean(each.result() for each in both)


def _kernel_seconds(library: ctypes.CDLL, wanted: list[Tensor]) -> float:
    # each time other numbers: with the same ones again a processor learns which way branches go
    numbers = np.random.default_rng(2).standard_normal((31, 1 << 16), np.float32) * np.float32(0.02)
    out = np.empty(1 << 18, np.uint8)
    seconds: dict[str, float] = {}
    for kind in sorted({tensor.type for tensor in wanted}):
        library.ggml_quantize_init(TYPE_NUMBERS[kind])
        times = []
        for block in numbers:
            began = time.thread_time()
            library.ggml_quantize_chunk(
                TYPE_NUMBERS[kind], block.ctypes.data, out.ctypes.data, 0, 16, WIDTH, None
            )
            times.append(time.thread_time() - began)
        seconds[kind] = statistics.median(times) / numbers.shape[1]
    return sum(seconds[tensor.type] * prod(tensor.shape) for tensor in wanted)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--types", nargs="*", default=["Q8_0", "Q4_K_M"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    ask = parser.parse_args()
    library = find_engine().library
    assert library is not None, "the engine is not installed"
    library.ggml_quantize_chunk.argtypes = [
        *[ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p],
        *[ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p],
    ]
    store = FileBlobStore(ask.folder / "quantize-bench")
    workshop = TensorProcesses(ask.folder, ask.threads, 2 << 30)
    given, layers = tensors(ask.gib)
    laid = laid_out(given, layers)
    incoming = await store.create(laid.size)
    for piece in content(laid):
        await incoming.write(piece)
    key = await incoming.publish(await incoming.seal())
    await incoming.close()
    hyper = Hyper("llama", layers, HYPER.heads, HYPER.kv_heads)
    for name in ask.types:
        wanted = plan(given, hyper, target(name))
        before = kernel_seconds(library, wanted, ask.threads)
        run, size = await quantized(store, workshop, key, name)
        kernels = (before + kernel_seconds(library, wanted, ask.threads)) / 2
        print(
            f"{name:7} {laid.size / 1e9:.2f} -> {size / 1e9:.2f} GB in {run.wall_s:6.1f} s, "
            f"{laid.size / run.wall_s / 1e6:5.0f} MB/s; CPU {run.cpu_s:6.1f} s, kernels "
            f"{kernels:6.1f} s ({kernels / run.cpu_s:.2f}); {run.peak / 1e6:.0f} MB; "
            f"silence {run.silence_s:.2f} s",
            flush=True,
        )
    store.remove(key)
    store.close()


if __name__ == "__main__":
    asyncio.run(main())
