"""Nomic-Bert: Bert with rope and a gate. Source: spec inference-and-gguf 9.5."""

from collections.abc import Iterator

from registry.core.convert.architectures import bert
from registry.core.convert.config import Config, rope
from registry.core.convert.decoder import Sizes
from registry.core.convert.family import Family, Rule, TokenizerNotes
from registry.core.convert.plan import KeyValue, f32
from registry.core.errors import CheckpointInvalid

_THETA = 1000.0


def keys(config: Config) -> Iterator[KeyValue]:
    """Bert's keys and the base of rope.

    Raises:
        CheckpointInvalid: a network the engine's graph does not have.
    """
    if config.text("activation_function", default="swiglu") not in {"swiglu", "silu"}:
        raise CheckpointInvalid(f"{config.file}: activation_function is not supported")
    epsilon = config.number("layer_norm_eps", "layer_norm_epsilon", default=1e-12)
    named = Config({**config.values, "layer_norm_eps": epsilon}, config.file)
    yield from bert.keys(named, _positions(config))
    told = config.has("rotary_emb_base", "rope_theta", "rope_parameters")
    yield f32("rope.freq_base", rope(config).theta if told else _THETA)


def _positions(config: Config) -> int:
    """The stated 8192 positions are meant for a scaling that the engine does not do."""
    stated = config.count("max_position_embeddings", "n_positions")
    return min(stated, config.count("max_trained_positions", default=2048))


def rules(config: Config) -> tuple[Rule, ...]:
    """fc11 goes up, fc12 is the gate."""
    sizes = Sizes.of(config)
    width, inner = sizes.width, sizes.inner
    at, to = "encoder.layers.#.", "blk.#."
    return (
        Rule("embeddings.word_embeddings", "token_embd", (None, width)),
        Rule("embeddings.token_type_embeddings", "token_types", (None, width)),
        Rule("emb_ln", "token_embd_norm", (width,)),
        Rule(f"{at}attn.Wqkv", f"{to}attn_qkv", (3 * width, width)),
        Rule(f"{at}attn.out_proj", f"{to}attn_output", (width, width)),
        Rule(f"{at}norm1", f"{to}attn_output_norm", (width,)),
        Rule(f"{at}mlp.fc11", f"{to}ffn_up", (inner, width)),
        Rule(f"{at}mlp.fc12", f"{to}ffn_gate", (inner, width)),
        Rule(f"{at}mlp.fc2", f"{to}ffn_down", (width, inner)),
        Rule(f"{at}norm2", f"{to}layer_output_norm", (width,)),
    )


FAMILY = Family(
    name="nomic-bert",
    classes=("NomicBertModel",),
    keys=keys,
    rules=rules,
    prefixes=("bert.",),
    ignored=bert.HEADS,
    tied=True,
    tokenizer=TokenizerNotes(embeds=True),
)
