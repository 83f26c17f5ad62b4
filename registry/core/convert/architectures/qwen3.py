"""Qwen 3. Source: spec inference-and-gguf 9.2."""

from registry.core.convert.architectures import qwen2
from registry.core.convert.config import Config
from registry.core.convert.decoder import head_norms
from registry.core.convert.family import Family, Rule


def rules(config: Config) -> tuple[Rule, ...]:
    """Qwen 2's, with norms over each head's query and key."""
    return (*qwen2.rules(config), *head_norms(config))


FAMILY = Family(name="qwen3", classes=("Qwen3ForCausalLM",), keys=qwen2.keys, rules=rules)
