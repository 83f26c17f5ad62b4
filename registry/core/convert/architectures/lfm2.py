"""LFM 2: most layers mix neighbours by a short convolution, the others attend.

Source: the engine's graph; transformers, `Lfm2Config`.
"""

from collections.abc import Iterator
from dataclasses import replace

from registry.core.convert.config import Config
from registry.core.convert.decoder import CONTEXT, Sizes, rope_keys
from registry.core.convert.family import Family, Rule
from registry.core.convert.plan import KeyValue, array, f32, u32
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Kind

_KINDS = {"conv": False, "full_attention": True}


def _attends(config: Config) -> tuple[bool, ...]:
    """Of each layer, whether it attends.

    Raises:
        CheckpointInvalid: a layer of another kind, or not one for each.
    """
    layers = Sizes.of(config).layers
    told = config.values.get("layer_types")
    if told is None:
        chosen = {int(number) for number in config.numbers("full_attn_idxs")}
        return tuple(layer in chosen for layer in range(layers))
    if (
        not isinstance(told, list)
        or len(told) != layers
        or not _KINDS.keys() >= set(map(str, told))
    ):
        raise CheckpointInvalid(f"{config.file}: layer_types is not supported")
    return tuple(_KINDS[str(kind)] for kind in told)


def _inner(config: Config) -> int:
    """How wide the network is, which is worked out from what is stated."""
    inner = config.count("block_ff_dim", "intermediate_size")
    if not config.flag("block_auto_adjust_ff_dim", True):
        return inner
    multiple = config.count("block_multiple_of", default=256)
    wide = int(config.number("block_ffn_dim_multiplier", default=1.0) * (2 * inner // 3))
    return multiple * -(-wide // multiple)


def keys(config: Config) -> Iterator[KeyValue]:
    """A layer without key-value heads is one that does not attend.

    Raises:
        CheckpointInvalid: convolutions with biases, which the engine does not have.
    """
    if config.flag("conv_bias", False):
        raise CheckpointInvalid(f"{config.file}: conv_bias is not supported")
    sizes = Sizes.of(config)
    yield u32("block_count", sizes.layers)
    yield u32("context_length", config.count(*CONTEXT))
    yield u32("embedding_length", sizes.width)
    yield u32("feed_forward_length", _inner(config))
    yield u32("attention.head_count", sizes.heads)
    kept = [sizes.kv_heads if attends else 0 for attends in _attends(config)]
    yield array("attention.head_count_kv", Kind.U32, kept)
    yield f32("attention.layer_norm_rms_epsilon", config.number("norm_eps"))
    yield u32("shortconv.l_cache", config.count("conv_L_cache"))
    yield u32("vocab_size", config.count("vocab_size"))
    yield from rope_keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """The norm before the output is called after the embedding, here and there."""
    width, inner, at = Sizes.of(config).width, _inner(config), "layers.#."
    return (
        Rule("embed_tokens", "token_embd", (None, width)),
        Rule("embedding_norm", "token_embd_norm", (width,)),
        Rule("lm_head", "output", (None, width), optional=True),
        Rule(f"{at}operator_norm", "blk.#.attn_norm", (width,)),
        Rule(f"{at}ffn_norm", "blk.#.ffn_norm", (width,)),
        Rule(f"{at}feed_forward.w1", "blk.#.ffn_gate", (inner, width)),
        Rule(f"{at}feed_forward.w3", "blk.#.ffn_up", (inner, width)),
        Rule(f"{at}feed_forward.w2", "blk.#.ffn_down", (width, inner)),
        *_mixing(config),
    )


def _mixing(config: Config) -> Iterator[Rule]:
    """What layers of one kind have and those of the other have not."""
    sizes, attends = Sizes.of(config), _attends(config)
    width, head = sizes.width, sizes.head
    queries, kept = sizes.heads * head, sizes.kv_heads * head
    at, conv = "layers.#.self_attn.", "layers.#.conv."
    by_kind = {
        True: (
            Rule(f"{at}q_proj", "blk.#.attn_q", (queries, width)),
            Rule(f"{at}k_proj", "blk.#.attn_k", (kept, width)),
            Rule(f"{at}v_proj", "blk.#.attn_v", (kept, width)),
            Rule(f"{at}out_proj", "blk.#.attn_output", (width, queries)),
            Rule(f"{at}q_layernorm", "blk.#.attn_q_norm", (head,)),
            Rule(f"{at}k_layernorm", "blk.#.attn_k_norm", (head,)),
        ),
        False: (
            Rule(
                f"{conv}conv",
                "blk.#.shortconv.conv",
                (width, 1, config.count("conv_L_cache")),
                flat=True,
            ),
            Rule(f"{conv}in_proj", "blk.#.shortconv.in_proj", (3 * width, width)),
            Rule(f"{conv}out_proj", "blk.#.shortconv.out_proj", (width, width)),
        ),
    }
    for kind, found in by_kind.items():
        layers = frozenset(layer for layer, one in enumerate(attends) if one is kind)
        yield from (replace(rule, layers=layers) for rule in found)


FAMILY = Family(name="lfm2", classes=("Lfm2ForCausalLM",), keys=keys, rules=rules, tied=True)
"""A model of theirs may say `tie_embedding`; all of them are."""
