"""A synthetic checkpoint converted by the child process, beside copying it with SHA-256.

    python bench/conversion.py --folder /fast/disk --gib 2.4

Both read the same files and hash what they write; neither syncs. The child's memory is what the
kernel counts as anonymous (`RssAnon`), looked at every 5 ms.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import registry

VOCABULARY, WIDTH, INNER, HEADS, KV = 32_000, 2048, 5632, 32, 4


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    kept = WIDTH // HEADS * KV
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        at = f"model.layers.{layer}."
        found |= {
            f"{at}input_layernorm.weight": (WIDTH,),
            f"{at}post_attention_layernorm.weight": (WIDTH,),
            f"{at}self_attn.q_proj.weight": (WIDTH, WIDTH),
            f"{at}self_attn.k_proj.weight": (kept, WIDTH),
            f"{at}self_attn.v_proj.weight": (kept, WIDTH),
            f"{at}self_attn.o_proj.weight": (WIDTH, WIDTH),
            f"{at}mlp.gate_proj.weight": (INNER, WIDTH),
            f"{at}mlp.up_proj.weight": (INNER, WIDTH),
            f"{at}mlp.down_proj.weight": (WIDTH, INNER),
        }
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def make(folder: Path, gib: float, dtype: str) -> int:
    """Write the checkpoint in two shards; its number of bytes."""
    width = 4 if dtype == "F32" else 2
    per_layer = sum(int(np.prod(s)) for n, s in shapes(1).items() if ".0." in n)
    layers = max(1, round((gib * 2**30 / width - 2 * VOCABULARY * WIDTH) / per_layer))
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "vocab_size": VOCABULARY,
    }  # fmt: skip
    tokens = {f"t{number}": number for number in range(VOCABULARY)}
    tokenizer = {
        "model": {"type": "BPE", "vocab": tokens, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = list(shapes(layers).items())
    random = np.random.default_rng(0)
    block = (random.standard_normal(1 << 22) * 0.02).astype("<f4")
    data = block.view("<u4") >> 16 if dtype == "BF16" else block
    raw = data.astype({"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[dtype]).tobytes()
    total = 0
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        total += write(folder / f"model-{number}.safetensors", dict(part), dtype, raw)
    return total


def write(path: Path, part: dict[str, tuple[int, ...]], dtype: str, raw: bytes) -> int:
    width = 4 if dtype == "F32" else 2
    header, offset = {}, 0
    for name, shape in part.items():
        end = offset + int(np.prod(shape)) * width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in range(offset, 0, -len(raw)):
            file.write(raw[:left])
    return path.stat().st_size


def copy(folder: Path) -> float:
    """Seconds to copy the weights and hash them on the way."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with (folder / "copy").open("wb", buffering=0) as out:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb", buffering=0) as file:
                while data := file.read(1 << 20):
                    digest.update(data)
                    out.write(data)
    (folder / "copy").unlink()
    return time.perf_counter() - started


def convert(folder: Path, target: str, threads: int) -> tuple[float, int, int]:
    """Seconds, peak of anonymous memory and bytes written of a conversion."""
    names = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")])
    inputs = [os.open(path, os.O_RDONLY) for path in names]
    status, child_status = os.pipe()
    job = {
        "kind": "checkpoint",
        "files": [
            (path.name, number, path.stat().st_size)
            for path, number in zip(names, inputs, strict=True)
        ],
        "target": target, "canonical": False, "options": {}, "threads": threads,
        "memory_bytes": 2 << 30, "engine": bool(target), "parent": os.getpid(),
        "status": child_status,
    }  # fmt: skip
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", "registry.tensors.child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[*inputs, child_status],
        env={"PYTHONPATH": str(Path(registry.__file__).parent.parent), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(child_status)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job).encode())
    process.stdin.close()
    peaks = [0]
    watching = threading.Thread(target=watch, args=(process, peaks), daemon=True)
    watching.start()
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(1 << 20))
    with (folder / "made").open("wb", buffering=0) as out:
        while count := os.readv(process.stdout.fileno(), [buffer]):
            digest.update(buffer[:count])
            out.write(buffer[:count])
            size += count
    code = process.wait()
    told = os.read(status, 1 << 20)[-400:] if code else b""
    for descriptor in (*inputs, status):
        os.close(descriptor)
    watching.join()
    (folder / "made").unlink()
    if code:
        raise SystemExit(f"the child failed: {told!r}")
    return time.perf_counter() - started, peaks[0], size


def watch(process: "subprocess.Popen[bytes]", peaks: list[int]) -> None:
    path = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            text = path.read_text()
        except OSError:
            return
        for line in text.splitlines():
            if line.startswith("RssAnon:"):
                peaks[0] = max(peaks[0], int(line.split()[1]) << 10)
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=2.4)
    parser.add_argument("--dtype", choices=["BF16", "F16", "F32"], default="BF16")
    parser.add_argument("--target", default="", help="quantize on the way, as Q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    folder = chosen.folder / "conversion-bench"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        total = make(folder, chosen.gib, chosen.dtype)
        print(f"{chosen.dtype} checkpoint of {total / 1e9:.2f} GB, {chosen.threads} threads")
        print(f"{'copy MB/s':>12} {'convert MB/s':>13} {'ratio':>6} {'peak MB':>8} {'made GB':>8}")
        for _ in range(chosen.rounds):
            plain = copy(folder)
            seconds, peak, size = convert(folder, chosen.target, chosen.threads)
            print(
                f"{total / plain / 1e6:12.0f} {total / seconds / 1e6:13.0f} "
                f"{plain / seconds:6.2f} {peak / 1e6:8.0f} {size / 1e9:8.2f}"
            )
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


if __name__ == "__main__":
    main()
