"""How much memory a runner will take, from what a GGUF's header tells.

An upper estimate: layers with a sliding window count as full ones, quantized weights as repacked.

Source: spec inference-and-gguf 5, "Memory estimate before loading".
"""

from collections.abc import Sequence

from registry.core.facts import Facts
from registry.core.gguf import Span

_MIB = 1 << 20
_FIXED = 64 * _MIB
_LEAST_COMPUTE = 32 * _MIB
_LONGEST_MODEL = 10_000  # layers
_REPACKED = 0.82  # of quantized weights, a second time, in memory of the process's own
_PLAIN = frozenset({"F32", "F16", "BF16", "F64"})
_CACHE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}


def estimate(
    facts: Facts, file_bytes: int, *, tokens: int, batch: int, cache_type: str = "f16"
) -> int:
    """Bytes for a model of `file_bytes`, mapped file included; `tokens` are those of all slots."""
    return int(
        _weights(facts, file_bytes)
        + _cache(facts, tokens) * _CACHE_BYTES.get(cache_type, 2.0)
        + _compute(facts, batch)
        + _FIXED
    )


def _weights(facts: Facts, file_bytes: int) -> float:
    quantized = any(tensor.type not in _PLAIN for tensor in facts.tensors if len(tensor.shape) > 1)
    return file_bytes * (1 + _REPACKED if quantized else 1)


def _cache(facts: Facts, tokens: int) -> int:
    """Values in the key and value cache."""
    layers = min(_number(facts, "block_count"), _LONGEST_MODEL)
    heads = _number(facts, "attention.head_count") or 1
    size = _number(facts, "embedding_length") // heads
    key = _number(facts, "attention.key_length") or size
    value = _number(facts, "attention.value_length") or size
    per_layer = facts.values.get(f"{facts.architecture}.attention.head_count_kv")
    if isinstance(per_layer, Sequence) and not isinstance(per_layer, str):
        total = sum(item for item in per_layer[:layers] if isinstance(item, int) and item > 0)
    else:
        total = layers * (_number(facts, "attention.head_count_kv") or heads)
    return total * (key + value) * tokens


def _compute(facts: Facts, batch: int) -> int:
    tokens = facts.values.get("tokenizer.ggml.tokens")
    vocabulary = tokens.count if isinstance(tokens, Span) else _number(facts, "vocab_size")
    return max(batch * (vocabulary + 8 * _number(facts, "embedding_length")) * 4, _LEAST_COMPUTE)


def _number(facts: Facts, name: str) -> int:
    value = facts.values.get(f"{facts.architecture}.{name}")
    return value if isinstance(value, int) and value > 0 else 0
