"""Qwen 3 with experts. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.architectures import qwen2, qwen2moe
from registry.core.convert.config import Config
from registry.core.convert.decoder import (
    attention,
    ends,
    expert_keys,
    experts,
    head_norms,
    norms,
)
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue


def keys(config: Config) -> Iterator[KeyValue]:
    """Qwen 3's keys and those of the experts."""
    yield from qwen2.keys(config)
    qwen2moe.check_experts(config, norm=True)
    yield from expert_keys(config, "moe_intermediate_size")


def rules(config: Config) -> tuple[Rule, ...]:
    """Experts, and norms over each head's query and key."""
    return (
        *ends(config),
        *norms(config),
        *attention(config),
        *head_norms(config),
        *experts(config, config.count("moe_intermediate_size")),
    )


FAMILY = Family(name="qwen3moe", classes=("Qwen3MoeForCausalLM",), keys=keys, rules=rules)
