"""What decoders have in common: the keys and tensors of Llama's line, which others vary.

Source: spec inference-and-gguf 9.1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from registry.core.convert.config import Config, Rope, rope
from registry.core.convert.family import Half, Rule
from registry.core.convert.plan import KeyValue, Step, f32, text, u32
from registry.core.errors import CheckpointInvalid

_MAX_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a decoder; `head` is that of one attention head."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head: int

    @classmethod
    def of(cls, config: Config) -> "Sizes":
        """Read them out of a config, in any of their spellings."""
        layers = config.count("num_hidden_layers", "n_layers", "n_layer")
        width = config.count("hidden_size", "n_embd")
        heads = config.count("num_attention_heads", "n_head")
        kv_heads = config.count("num_key_value_heads", "n_head_kv", default=heads)
        head = config.count("head_dim", default=max(1, width // heads))
        if layers > _MAX_LAYERS or heads % kv_heads:
            raise CheckpointInvalid(
                f"{config.file}: {layers} layers of {heads} heads and {kv_heads} key-value heads"
            )
        if head % 2 or (not config.has("head_dim") and width % heads):
            raise CheckpointInvalid(
                f"{config.file}: hidden_size {width} does not fit {heads} attention heads"
            )
        inner = config.count("intermediate_size", "n_inner", "block_ff_dim")
        return cls(layers, width, inner, heads, kv_heads, head)


CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx")


def size_keys(config: Config, context: tuple[str, ...] = CONTEXT) -> Iterator[KeyValue]:
    """The sizes of a decoder; `context` are the spellings of its longest text."""
    sizes = Sizes.of(config)
    yield u32("block_count", sizes.layers)
    yield u32("context_length", config.count(*context))
    yield u32("embedding_length", sizes.width)
    yield u32("feed_forward_length", sizes.inner)
    yield u32("attention.head_count", sizes.heads)
    yield u32("attention.head_count_kv", sizes.kv_heads)


def decoder_keys(config: Config) -> Iterator[KeyValue]:
    """The keys that nearly every decoder has, but for those about rope."""
    yield from size_keys(config)
    yield f32("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps"))


def head_keys(config: Config) -> Iterator[KeyValue]:
    """The size of a head, where the config states it: it may differ from width / heads."""
    if config.has("head_dim"):
        head = Sizes.of(config).head
        yield u32("attention.key_length", head)
        yield u32("attention.value_length", head)


def rope_keys(config: Config) -> Iterator[KeyValue]:
    """Base and scaling of rope. Llama3's scaling is a tensor, longrope's are two: no keys here."""
    found = rope(config)
    yield f32("rope.freq_base", found.theta)
    yield from scaling_keys(found)


_BETAS = (("beta_fast", 32.0), ("beta_slow", 1.0))
"""What the engine takes for yarn's betas: for these architectures it reads no keys about them."""


def scaling_keys(found: Rope) -> Iterator[KeyValue]:
    """The keys of linear and yarn scaling.

    Raises:
        CheckpointInvalid: a kind of scaling that the engine does not have.
    """
    settings = found.settings
    if found.kind == "linear":
        yield text("rope.scaling.type", "linear")
        yield f32("rope.scaling.factor", found.factor)
    elif found.kind == "yarn":
        yield from _yarn_keys(found)
    elif found.kind in {"dynamic", "proportional"}:
        raise CheckpointInvalid(f"{settings.file}: rope type {found.kind} is not supported")


def _yarn_keys(found: Rope) -> Iterator[KeyValue]:
    settings = found.settings
    if found.factor < 1:
        raise CheckpointInvalid(f"{settings.file}: the yarn rope settings make no sense")
    yield text("rope.scaling.type", "yarn")
    yield f32("rope.scaling.factor", found.factor)
    if settings.has("original_max_position_embeddings"):
        original = settings.count("original_max_position_embeddings")
        yield u32("rope.scaling.original_context_length", original)
    for name, usual in _BETAS:
        value = settings.number(name, default=usual)
        if value != usual:
            raise CheckpointInvalid(f"{settings.file}: {name} {value} is not supported")
        yield f32(f"rope.scaling.yarn_{name}", value)
    share = yarn_attention(found) / _yarn_growth(found, 1.0)
    if abs(share - 1) > 1e-6:
        yield f32("rope.scaling.attn_factor", share)


def yarn_attention(found: Rope) -> float:
    """What cosines and sines are multiplied with, in whichever way that is stated."""
    settings = found.settings
    if settings.has("attention_factor"):
        return settings.number("attention_factor")
    if settings.has("mscale") and settings.has("mscale_all_dim"):
        above, below = (settings.number(name) for name in ("mscale", "mscale_all_dim"))
        if above and below:
            return _yarn_growth(found, above) / _yarn_growth(found, below)
    return _yarn_growth(found, 1.0)


def _yarn_growth(found: Rope, weight: float) -> float:
    """What the engine multiplies with by itself, for a weight of 1."""
    return 0.1 * abs(weight) * math.log(found.factor) + 1


def expert_keys(config: Config, inner: str | None = None) -> Iterator[KeyValue]:
    """How many experts there are, how many of them work on a token, and their width."""
    yield u32("expert_count", config.count("num_local_experts", "num_experts"))
    yield u32("expert_used_count", config.count("num_experts_per_tok", "experts_per_token"))
    if inner is not None:
        yield u32("expert_feed_forward_length", config.count(inner))


def ends(config: Config, norm: tuple[Step, ...] = ()) -> tuple[Rule, ...]:
    """What stands before and after the layers."""
    width = Sizes.of(config).width
    return (
        Rule("embed_tokens", "token_embd", (None, width)),
        Rule("norm", "output_norm", (width,), norm),
        Rule("lm_head", "output", (None, width), optional=True),
    )


def attention(
    config: Config, q: tuple[Step, ...] = (), k: tuple[Step, ...] = ()
) -> tuple[Rule, ...]:
    """Query, key, value and output; biases as they come."""
    sizes = Sizes.of(config)
    queries, keys = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    at = "layers.#.self_attn."
    return (
        Rule(f"{at}q_proj", "blk.#.attn_q", (queries, sizes.width), q),
        Rule(f"{at}k_proj", "blk.#.attn_k", (keys, sizes.width), k),
        Rule(f"{at}v_proj", "blk.#.attn_v", (keys, sizes.width)),
        Rule(f"{at}o_proj", "blk.#.attn_output", (sizes.width, queries)),
    )


def head_norms(config: Config, norm: tuple[Step, ...] = ()) -> tuple[Rule, ...]:
    """Norms over each head's query and key."""
    head = Sizes.of(config).head
    return tuple(
        Rule(f"layers.#.self_attn.{one}_norm", f"blk.#.attn_{one}_norm", (head,), norm)
        for one in ("q", "k")
    )


def norms(config: Config, norm: tuple[Step, ...] = ()) -> tuple[Rule, ...]:
    """The norm before attention and the one after it, which is the one before the feed-forward."""
    width = Sizes.of(config).width
    return (
        Rule("layers.#.input_layernorm", "blk.#.attn_norm", (width,), norm),
        Rule("layers.#.post_attention_layernorm", "blk.#.ffn_norm", (width,), norm),
    )


def sandwich_norms(config: Config, norm: tuple[Step, ...] = ()) -> tuple[Rule, ...]:
    """Gemma 2 and 3: a norm before and after both attention and feed-forward."""
    width = Sizes.of(config).width
    named = (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    )
    return tuple(
        Rule(f"layers.#.{source}", f"blk.#.{target}", (width,), norm) for source, target in named
    )


def gated(config: Config) -> tuple[Rule, ...]:
    """The feed-forward network with a gate."""
    sizes = Sizes.of(config)
    return (
        Rule("layers.#.mlp.gate_proj", "blk.#.ffn_gate", (sizes.inner, sizes.width)),
        Rule("layers.#.mlp.up_proj", "blk.#.ffn_up", (sizes.inner, sizes.width)),
        Rule("layers.#.mlp.down_proj", "blk.#.ffn_down", (sizes.width, sizes.inner)),
    )


def experts(config: Config, inner: int) -> tuple[Rule, ...]:
    """The router and one gated network for each expert, `inner` wide; fused files too."""
    width = Sizes.of(config).width
    count = config.count("num_local_experts", "num_experts")
    at, fused = "layers.#.mlp.experts.", (count, 2 * inner, width)
    both = "layers.#.mlp.experts.gate_up_proj"
    return (
        Rule("layers.#.mlp.gate", "blk.#.ffn_gate_inp", (count, width)),
        Rule(f"{at}#.gate_proj", "blk.#.ffn_gate_exps", (inner, width)),
        Rule(f"{at}#.up_proj", "blk.#.ffn_up_exps", (inner, width)),
        Rule(f"{at}#.down_proj", "blk.#.ffn_down_exps", (width, inner)),
        Rule(both, "blk.#.ffn_gate_exps.weight", fused, pick=Half(0)),
        Rule(both, "blk.#.ffn_up_exps.weight", fused, pick=Half(1)),
        Rule(f"{at}down_proj", "blk.#.ffn_down_exps.weight", (count, width, inner)),
    )
