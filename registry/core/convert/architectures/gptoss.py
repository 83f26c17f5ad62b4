"""GPT-OSS, its experts as floats or, as published, MXFP4.

Source: spec inference-and-gguf 9.2, 9.3.
"""

from collections.abc import Iterator

from registry.core.convert.config import Config
from registry.core.convert.decoder import (
    Sizes,
    attention,
    decoder_keys,
    ends,
    expert_keys,
    head_keys,
    rope_keys,
)
from registry.core.convert.family import Alternate, Family, Rule, TokenizerNotes
from registry.core.convert.plan import Columns, KeyValue, u32


def keys(config: Config) -> Iterator[KeyValue]:
    """An expert is as wide as the config's feed-forward network."""
    yield from decoder_keys(config)
    yield from head_keys(config)
    yield u32("attention.sliding_window", config.count("sliding_window"))
    yield from expert_keys(config, "intermediate_size")
    yield from rope_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """Gate and up lie in one tensor, row by row in turn; each query head has a sink."""
    sizes = Sizes.of(config)
    width = sizes.width
    at = "layers.#."
    return (
        *ends(config),
        Rule(f"{at}input_layernorm", "blk.#.attn_norm", (width,)),
        Rule(f"{at}post_attention_layernorm", "blk.#.post_attention_norm", (width,)),
        *attention(config),
        Rule(f"{at}self_attn.sinks", "blk.#.attn_sinks.weight", (sizes.heads,)),
        *_experts(config, sizes),
    )


def _experts(config: Config, sizes: Sizes) -> Iterator[Rule]:
    count = config.count("num_local_experts", "num_experts")
    width, inner = sizes.width, sizes.inner
    at = "layers.#.mlp."
    yield Rule(f"{at}router", "blk.#.ffn_gate_inp", (count, width))
    for number, name in enumerate(("gate", "up")):
        both, target = f"{at}experts.gate_up_proj", f"blk.#.ffn_{name}_exps"
        pick = Alternate(number)
        floats, packed = (count, width, 2 * inner), (count, 2 * inner, width)
        yield Rule(both, f"{target}.weight", floats, pick=pick, turned=True)
        yield Rule(both, f"{target}.weight", packed, pick=pick, packed=True)
        yield Rule(f"{both}_bias", f"{target}.bias", (count, 2 * inner), (Columns(number, 2),))
    down, target = f"{at}experts.down_proj", "blk.#.ffn_down_exps"
    yield Rule(down, f"{target}.weight", (count, inner, width), turned=True)
    yield Rule(down, f"{target}.weight", (count, width, inner), packed=True)
    yield Rule(f"{down}_bias", f"{target}.bias", (count, width))


FAMILY = Family(
    name="gpt-oss",
    classes=("GptOssForCausalLM",),
    keys=keys,
    rules=rules,
    tokenizer=TokenizerNotes(pre="gpt-4o"),
)
