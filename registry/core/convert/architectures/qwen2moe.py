"""Qwen 2 with experts, of which one is shared. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.architectures import qwen2
from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes, attention, ends, expert_keys, experts, norms
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue, u32
from registry.core.errors import CheckpointInvalid


def keys(config: Config) -> Iterator[KeyValue]:
    """Qwen 2's keys and those of the experts."""
    yield from qwen2.keys(config)
    check_experts(config, norm=False)
    yield from expert_keys(config, "moe_intermediate_size")
    shared = config.count("shared_expert_intermediate_size")
    yield u32("expert_shared_feed_forward_length", shared)


def check_experts(config: Config, *, norm: bool) -> None:
    """The engine's graph has experts in every layer, and makes their shares 1 together or not.

    Raises:
        CheckpointInvalid: the config says otherwise.
    """
    told = config.flag("norm_topk_prob", False)
    if told is not norm:
        raise CheckpointInvalid(
            f"{config.file}: norm_topk_prob {str(told).lower()} is not supported"
        )
    dense = config.values.get("mlp_only_layers")
    if dense or config.count("decoder_sparse_step", default=1) != 1:
        raise CheckpointInvalid(f"{config.file}: layers without experts are not supported")


def rules(config: Config) -> tuple[Rule, ...]:
    """Experts, the shared expert, and its gate: a matrix of one row that becomes a vector."""
    width = Sizes.of(config).width
    shared = config.count("shared_expert_intermediate_size")
    at = "layers.#.mlp.shared_expert"
    return (
        *ends(config),
        *norms(config),
        *attention(config),
        *experts(config, config.count("moe_intermediate_size")),
        Rule(f"{at}.gate_proj", "blk.#.ffn_gate_shexp", (shared, width)),
        Rule(f"{at}.up_proj", "blk.#.ffn_up_shexp", (shared, width)),
        Rule(f"{at}.down_proj", "blk.#.ffn_down_shexp", (width, shared)),
        Rule(f"{at}_gate", "blk.#.ffn_gate_inp_shexp", (1, width), flat=True),
    )


FAMILY = Family(name="qwen2moe", classes=("Qwen2MoeForCausalLM",), keys=keys, rules=rules)
