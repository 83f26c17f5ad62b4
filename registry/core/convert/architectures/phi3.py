"""Phi 3. Source: spec inference-and-gguf 9.2."""

import math
from collections.abc import Iterator

from registry.core.convert.config import Config, rope
from registry.core.convert.decoder import Sizes, decoder_keys, ends, norms
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue, Output, f32, u32
from registry.core.errors import CheckpointInvalid


def keys(config: Config) -> Iterator[KeyValue]:
    """The engine wants the original context and the window stated in every case."""
    yield from decoder_keys(config)
    yield u32("rope.dimension_count", _dimensions(config))
    found = rope(config)
    yield f32("rope.freq_base", found.theta)
    yield u32("rope.scaling.original_context_length", _original(config))
    yield u32("attention.sliding_window", config.count("sliding_window", default=0, least=0))
    if found.kind in {"longrope", "su"}:
        yield f32("rope.scaling.attn_factor", _attention_factor(config))
    elif found.kind != "default":
        raise CheckpointInvalid(f"{config.file}: rope type {found.kind} is not supported")


def _dimensions(config: Config) -> int:
    share = config.number("partial_rotary_factor", default=1.0)
    found = rope(config).settings
    if found.has("partial_rotary_factor"):
        share = found.number("partial_rotary_factor")
    return int(Sizes.of(config).head * share)


def _original(config: Config) -> int:
    found = rope(config).settings
    if found.has("original_max_position_embeddings"):
        return found.count("original_max_position_embeddings")
    context = config.count("max_position_embeddings")
    return config.count("original_max_position_embeddings", default=context)


def _attention_factor(config: Config) -> float:
    original = _original(config)
    scale = config.count("max_position_embeddings") / original
    if scale <= 1 or original < 2:
        return 1.0
    return math.sqrt(1 + math.log(scale) / math.log(original))


def rules(config: Config) -> tuple[Rule, ...]:
    """Query, key and value in one tensor, gate and up in another; the engine takes them so."""
    sizes = Sizes.of(config)
    queries, kept = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    at, width = "layers.#.", sizes.width
    return (
        *ends(config),
        *norms(config),
        Rule(f"{at}self_attn.qkv_proj", "blk.#.attn_qkv", (queries + 2 * kept, width)),
        Rule(f"{at}self_attn.o_proj", "blk.#.attn_output", (width, queries)),
        Rule(f"{at}mlp.gate_up_proj", "blk.#.ffn_up", (2 * sizes.inner, width)),
        Rule(f"{at}mlp.down_proj", "blk.#.ffn_down", (width, sizes.inner)),
    )


def factors(config: Config) -> tuple[Output, ...]:
    """Longrope's two lists of factors, for contexts beyond the original one and within it."""
    found = rope(config)
    if found.kind not in {"longrope", "su"}:
        return ()
    made = []
    for name in ("long", "short"):
        values = found.settings.numbers(f"{name}_factor")
        if len(values) != _dimensions(config) // 2:
            raise CheckpointInvalid(f"{config.file}: {name}_factor has {len(values)} numbers")
        made.append(Output(f"rope_factors_{name}.weight", (len(values),), "F32", values=values))
    return tuple(made)


FAMILY = Family(
    name="phi3", classes=("Phi3ForCausalLM",), keys=keys, rules=rules, constants=factors
)
