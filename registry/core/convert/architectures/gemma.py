"""Gemma. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.config import Config
from registry.core.convert.decoder import (
    attention,
    decoder_keys,
    ends,
    gated,
    head_keys,
    norms,
    rope_keys,
)
from registry.core.convert.family import GELU, PLUS_ONE, Family, Rule, TokenizerNotes
from registry.core.convert.plan import KeyValue

TURNS = TokenizerNotes(
    add_space_prefix=False, control=frozenset({"<start_of_turn>", "<end_of_turn>"})
)


def keys(config: Config) -> Iterator[KeyValue]:
    """The common keys; a head is wider here than width / heads."""
    yield from decoder_keys(config)
    yield from head_keys(config)
    yield from rope_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """All norms are stored less 1; the embedding is the output too."""
    return (
        *ends(config, PLUS_ONE),
        *norms(config, PLUS_ONE),
        *attention(config),
        *gated(config),
    )


FAMILY = Family(
    name="gemma",
    classes=("GemmaForCausalLM",),
    keys=keys,
    rules=rules,
    activations=GELU,
    tied=True,
    tokenizer=TURNS,
)
