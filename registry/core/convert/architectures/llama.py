"""Llama, Mistral, and the text part of Mistral 3. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.config import Config, llama3_factors, rope
from registry.core.convert.decoder import (
    Sizes,
    attention,
    decoder_keys,
    ends,
    gated,
    head_keys,
    norms,
    rope_keys,
)
from registry.core.convert.family import SEEING, TEXT_PREFIXES, Family, Rule
from registry.core.convert.plan import KeyValue, Output, Pairs, u32
from registry.core.errors import CheckpointInvalid


def keys(config: Config) -> Iterator[KeyValue]:
    """Llama's keys; the size of the vocabulary follows from the embedding and is added later."""
    if rope(config).settings.has("llama_4_scaling_beta"):
        raise CheckpointInvalid(f"{config.file}: llama_4_scaling_beta is not supported")
    yield from decoder_keys(config)
    yield from head_keys(config)
    share = config.number("partial_rotary_factor", default=1.0)
    yield u32("rope.dimension_count", int(Sizes.of(config).head * share))
    yield from rope_keys(config)


def paired_attention(config: Config) -> tuple[Rule, ...]:
    """The engine rotates neighbouring elements of a head here, and only in this family."""
    turn = (Pairs(Sizes.of(config).head),)
    return attention(config, q=turn, k=turn)


def rules(config: Config) -> tuple[Rule, ...]:
    """Llama's tensors."""
    return (*ends(config), *norms(config), *paired_attention(config), *gated(config))


def frequencies(config: Config) -> tuple[Output, ...]:
    """The tensor that is llama3's scaling of rope."""
    found = rope(config)
    if found.kind != "llama3":
        return ()
    factors = llama3_factors(found, Sizes.of(config).head)
    return (Output("rope_freqs.weight", (len(factors),), "F32", values=factors),)


FAMILY = Family(
    name="llama",
    classes=("LlamaForCausalLM", "MistralForCausalLM", "Mistral3ForConditionalGeneration"),
    keys=keys,
    rules=rules,
    constants=frequencies,
    prefixes=TEXT_PREFIXES,
    dropped=SEEING,
)
