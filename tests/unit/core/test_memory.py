from typing import Any

import pytest

from registry.core.facts import Facts
from registry.core.gguf import Kind, Span, Tensor
from registry.core.memory import estimate

MIB = 1 << 20
FORTY = {
    "general.architecture": "llama",
    "llama.block_count": 40,
    "llama.embedding_length": 2048,
    "llama.attention.head_count": 32,
    "llama.attention.head_count_kv": 8,
}


def facts(values: dict[str, Any], *types: str) -> Facts:
    tensors = tuple(Tensor(f"t{at}", kind, (32, 32)) for at, kind in enumerate(types))
    return Facts(0, "F32", values, tensors)


def cache(values: dict[str, Any], **given: Any) -> float:
    """Bytes of the cache alone."""
    return estimate(facts(values), 0, tokens=2048, batch=1, **given) - 96 * MIB


def test_forty_layers_of_eight_heads_take_what_the_engine_reports() -> None:
    assert cache(FORTY) == 160 * MIB


@pytest.mark.parametrize(
    ("change", "mib"),
    [
        ({"llama.attention.head_count_kv": None}, 640),
        ({"llama.attention.key_length": 128, "llama.attention.value_length": 128}, 320),
        ({"llama.attention.head_count_kv": (8,) * 20 + (0,) * 20}, 80),
        ({"llama.attention.head_count_kv": Span(Kind.U32, 40, 0, 160)}, 640),
        ({"llama.attention.head_count": -5, "llama.attention.head_count_kv": "x"}, 640),
        ({"llama.block_count": 0}, 0),
    ],
)
def test_what_decides_about_the_cache(change: dict[str, Any], mib: int) -> None:
    assert cache({**FORTY, **change}) == mib * MIB


@pytest.mark.parametrize(
    ("cache_type", "mib"), [("f16", 160), ("f32", 320), ("q8_0", 85), ("q4_0", 45), ("odd", 160)]
)
def test_smaller_cache_types_take_less(cache_type: str, mib: int) -> None:
    assert cache(FORTY, cache_type=cache_type) == mib * MIB


def test_quantized_weights_count_almost_twice() -> None:
    plain = estimate(facts({}, "F32", "F16"), 1000 * MIB, tokens=1, batch=1)
    quantized = estimate(facts({}, "F32", "Q4_K"), 1000 * MIB, tokens=1, batch=1)
    assert plain == 1096 * MIB
    assert quantized == pytest.approx(1916 * MIB)


def test_a_large_vocabulary_needs_room_to_compute() -> None:
    tokens = Span(Kind.STRING, 256_000, 0, 10)
    large = estimate(facts({"tokenizer.ggml.tokens": tokens}), 0, tokens=0, batch=512)
    assert large == 512 * 256_000 * 4 + 64 * MIB
    told = estimate(facts({**FORTY, "llama.vocab_size": 256_000}), 0, tokens=0, batch=512)
    assert told == 512 * (256_000 + 8 * 2048) * 4 + 64 * MIB


def test_hostile_numbers_stay_numbers() -> None:
    values = {**FORTY, "llama.block_count": 1 << 60, "llama.attention.head_count_kv": 1 << 60}
    assert estimate(facts(values), 0, tokens=1 << 24, batch=1) > 0
