"""Command R: attention and network side by side. Source: the engine's graph."""

from collections.abc import Iterator

from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes, attention, ends, gated, rope_keys, size_keys
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue, f32
from registry.core.errors import CheckpointInvalid


def keys(config: Config) -> Iterator[KeyValue]:
    """Norms take the mean away here, and logits are scaled.

    Raises:
        CheckpointInvalid: norms of queries and keys, which the larger models have.
    """
    if config.flag("use_qk_norm", False):
        raise CheckpointInvalid(f"{config.file}: use_qk_norm is not supported")
    yield from size_keys(config, ("model_max_length", "max_position_embeddings"))
    yield f32("attention.layer_norm_epsilon", config.number("layer_norm_eps", default=1e-5))
    yield f32("logit_scale", config.number("logit_scale"))
    yield from rope_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """One norm in a layer. Rope turns neighbours already: no rows change places."""
    norm = Rule("layers.#.input_layernorm", "blk.#.attn_norm", (Sizes.of(config).width,))
    return (*ends(config), norm, *attention(config), *gated(config))


FAMILY = Family(name="command-r", classes=("CohereForCausalLM",), keys=keys, rules=rules, tied=True)
