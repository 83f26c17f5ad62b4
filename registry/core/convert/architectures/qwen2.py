"""Qwen 2 and 2.5. Source: spec inference-and-gguf 9.2."""

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
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue


def keys(config: Config) -> Iterator[KeyValue]:
    """Nothing but the common keys."""
    yield from decoder_keys(config)
    yield from head_keys(config)
    yield from rope_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """Query, key and value have biases."""
    return (*ends(config), *norms(config), *attention(config), *gated(config))


FAMILY = Family(name="qwen2", classes=("Qwen2ForCausalLM",), keys=keys, rules=rules)
