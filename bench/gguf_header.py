"""Time and memory to read GGUF headers: honest ones of real size, and the worst that is accepted.

    python bench/gguf_header.py [--reference]

`--reference` reads the honest ones with the gguf package too (slow). Each case runs in a process of
its own; memory is the growth of its peak resident size over the file read from disk, data sparse.
Targets: a 256,000-token header under 0.2 s; any input within 1 s and 64 MB.
"""

import argparse
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from registry.core.facts import Facts
from registry.core.gguf import HeaderReader, Kind
from tests.support.gguf import ARCHITECTURE, array_head, field, pair, preamble, text


def vocabulary(tokens: int, merges: int, blocks: int) -> tuple[bytes, int]:
    """A header like a large language model's, and the size of its tensor data."""
    words = b"".join(text(f"tok{number}") for number in range(tokens))
    joins = b"".join(text(f"ab{number} cd{number}") for number in range(merges))
    fields = [
        ARCHITECTURE,
        pair("tokenizer.ggml.tokens", Kind.ARRAY, array_head(Kind.STRING, tokens) + words),
        pair("tokenizer.ggml.scores", Kind.ARRAY, array_head(Kind.F32, tokens) + bytes(4 * tokens)),
        pair(
            "tokenizer.ggml.token_type",
            Kind.ARRAY,
            array_head(Kind.I32, tokens) + bytes(4 * tokens),
        ),
        pair("tokenizer.ggml.merges", Kind.ARRAY, array_head(Kind.STRING, merges) + joins),
    ]
    names = [f"blk.{block}.part{part}.weight" for block in range(blocks) for part in range(9)]
    infos, length = tensor_list(names, (4096, 1024), 12, 4096 * 1024 // 256 * 144)
    return preamble(len(names), len(fields)) + b"".join(fields) + infos, length


def tensor_list(
    names: list[str], shape: tuple[int, ...], kind: int, size: int
) -> tuple[bytes, int]:
    dims = struct.pack(f"<I{len(shape)}QI", len(shape), *shape, kind)
    padded = -(-size // 32) * 32
    infos = [
        text(name) + dims + struct.pack("<Q", number * padded) for number, name in enumerate(names)
    ]
    return b"".join(infos), padded * len(names)


def most_tensors() -> tuple[bytes, int]:
    names = [f"{number:063}" for number in range(131_072)]
    infos, length = tensor_list(names, (300, 300, 1, 1), 24, 90_000)
    return preamble(len(names), 1) + ARCHITECTURE + infos, length


def most_keys() -> tuple[bytes, int]:
    keys = [field(f"{number:055}", Kind.F32, number / 7) for number in range(65_535)]
    return preamble(0, 65_536) + ARCHITECTURE + b"".join(keys), 0


def most_strings() -> tuple[bytes, int]:
    half = array_head(Kind.STRING, 4 << 20) + text("x" * 50) * (4 << 20)
    return preamble(0, 3) + ARCHITECTURE + pair("a", Kind.ARRAY, half) + pair(
        "b", Kind.ARRAY, half
    ), 0


def many_short_arrays() -> tuple[bytes, int]:
    arrays = [
        pair(f"{number}", Kind.ARRAY, array_head(Kind.STRING, 900) + bytes(7200))
        for number in range(9000)
    ]
    return preamble(0, 9001) + ARCHITECTURE + b"".join(arrays), 0


CASES: dict[str, Callable[[], tuple[bytes, int]]] = {
    "128,256 tokens, 280,147 merges, 288 tensors": lambda: vocabulary(128_256, 280_147, 32),
    "256,000 tokens, 480,000 merges, 540 tensors": lambda: vocabulary(256_000, 480_000, 60),
    "worst: 131,072 tensors": most_tensors,
    "worst: 65,536 keys": most_keys,
    "worst: 8 Mi strings, 464 MiB": most_strings,
    "worst: 8 M strings in short arrays": many_short_arrays,
}


def peak_kib() -> int:
    """Peak resident size of this process alone: Linux's ru_maxrss would begin with the parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line[:6] == "VmHWM:")


def measure(path: str, reader: str) -> None:
    before = peak_kib()
    start = time.perf_counter()
    if reader == "gguf":
        import gguf

        before = peak_kib()
        start = time.perf_counter()
        gguf.GGUFReader(path)
    else:
        read(path)
    seconds = time.perf_counter() - start
    grown = peak_kib() - before
    print(f"{seconds:.3f} s, {grown / 1024:.0f} MiB")


def read(path: str) -> None:
    with Path(path).open("rb", buffering=0) as file:
        header = HeaderReader(Path(path).stat().st_size)
        while header.need is not None:
            offset, length = header.need
            file.seek(offset)
            header.feed(file.read(length))
    assert header.header is not None
    Facts.of(header.header).to_json()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--reference", action="store_true")
    arguments.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.measure:
        measure(*chosen.measure)
        return
    for name, make in CASES.items():
        head, length = make()
        with tempfile.NamedTemporaryFile() as file:
            file.write(head)
            file.truncate(len(head) + 64 + length)
            file.flush()
            readers = ["ours"] + ["gguf"] * (chosen.reference and "worst" not in name)
            for reader in readers:
                command = [sys.executable, __file__, "--measure", file.name, reader]
                results = [
                    subprocess.run(
                        command, capture_output=True, text=True, check=True
                    ).stdout.strip()
                    for _ in range(1 if reader == "gguf" else 3)
                ]
                print(f"{name}, {len(head) >> 10} KiB, {reader}: {min(results)}", flush=True)


if __name__ == "__main__":
    main()
