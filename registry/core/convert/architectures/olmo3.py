"""OLMo 3: OLMo 2 with windows in some layers, whose rope is not stretched."""

from collections.abc import Iterator

from registry.core.convert.architectures import gemma3, olmo2, qwen2
from registry.core.convert.config import Config
from registry.core.convert.family import Family
from registry.core.convert.plan import KeyValue, u32


def keys(config: Config) -> Iterator[KeyValue]:
    """OLMo 2's keys, the window, and which layers have one."""
    yield from qwen2.keys(config)
    yield u32("attention.sliding_window", config.count("sliding_window"))
    yield gemma3.windows(config, every=4)


FAMILY = Family(name="olmo2", classes=("Olmo3ForCausalLM",), keys=keys, rules=olmo2.rules)
