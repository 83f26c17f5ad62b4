"""Mixtral: Llama with experts. Source: spec inference-and-gguf 9.2."""

from collections.abc import Iterator

from registry.core.convert.architectures import llama
from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes, ends, expert_keys, norms
from registry.core.convert.family import Family, Half, Rule
from registry.core.convert.plan import KeyValue

_AT = "layers.#.block_sparse_moe."
_NEW = "layers.#.mlp."  # since transformers 5


def keys(config: Config) -> Iterator[KeyValue]:
    """Llama's keys and those of the experts."""
    yield from llama.keys(config)
    yield from expert_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """w1 is the gate, w3 goes up, w2 comes down."""
    sizes = Sizes.of(config)
    count = config.count("num_local_experts", "num_experts")
    fused = (count, 2 * sizes.inner, sizes.width)
    both = f"{_NEW}experts.gate_up_proj"
    return (
        *ends(config),
        *norms(config),
        *llama.paired_attention(config),
        Rule(f"{_AT}gate", "blk.#.ffn_gate_inp", (count, sizes.width)),
        Rule(f"{_NEW}gate", "blk.#.ffn_gate_inp", (count, sizes.width)),
        Rule(f"{_AT}experts.#.w1", "blk.#.ffn_gate_exps", (sizes.inner, sizes.width)),
        Rule(f"{_AT}experts.#.w3", "blk.#.ffn_up_exps", (sizes.inner, sizes.width)),
        Rule(f"{_AT}experts.#.w2", "blk.#.ffn_down_exps", (sizes.width, sizes.inner)),
        Rule(both, "blk.#.ffn_gate_exps.weight", fused, pick=Half(0)),
        Rule(both, "blk.#.ffn_up_exps.weight", fused, pick=Half(1)),
        Rule(
            f"{_NEW}experts.down_proj",
            "blk.#.ffn_down_exps.weight",
            (count, sizes.width, sizes.inner),
        ),
    )


FAMILY = Family(
    name="llama",
    classes=("MixtralForCausalLM",),
    keys=keys,
    rules=rules,
    constants=llama.frequencies,
)
