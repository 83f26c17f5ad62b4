"""SmolLM 3: Llama with layers that know no positions. Source: the engine's graph."""

from collections.abc import Iterator

from registry.core.convert.architectures import llama
from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes
from registry.core.convert.family import Family
from registry.core.convert.plan import KeyValue
from registry.core.errors import CheckpointInvalid

_EVERY = 4  # the engine leaves rope out of every fourth layer


def keys(config: Config) -> Iterator[KeyValue]:
    """Llama's keys; there is none for the layers without rope.

    Raises:
        CheckpointInvalid: they are others than the engine assumes.
    """
    layers = Sizes.of(config).layers
    usual = tuple(float((layer + 1) % _EVERY != 0) for layer in range(layers))
    if config.has("no_rope_layers") and config.numbers("no_rope_layers") != usual:
        raise CheckpointInvalid(f"{config.file}: no_rope_layers is not supported")
    if config.count("no_rope_layer_interval", default=_EVERY) != _EVERY:
        raise CheckpointInvalid(f"{config.file}: no_rope_layer_interval is not supported")
    yield from llama.keys(config)


FAMILY = Family(
    name="smollm3",
    classes=("SmolLM3ForCausalLM",),
    keys=keys,
    rules=llama.rules,
    constants=llama.frequencies,
)
