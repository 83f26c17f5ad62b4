"""Bert. Source: spec inference-and-gguf 9.5."""

from collections.abc import Iterator

from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes
from registry.core.convert.family import GELU, Cut, Family, Rule, TokenizerNotes
from registry.core.convert.plan import KeyValue, f32, flag, u32
from registry.core.errors import CheckpointInvalid

HEADS = ("pooler.", "position_ids", "cls.", "lm_head.")
"""Parts of names of tensors that an encoder without its training heads does not need."""


def keys(config: Config, context: int | None = None) -> Iterator[KeyValue]:
    """An encoder's keys; `context` is the number of positions if the config says it otherwise.

    Raises:
        CheckpointInvalid: positions that are no table.
    """
    if config.text("position_embedding_type", default="absolute") != "absolute":
        raise CheckpointInvalid(f"{config.file}: position_embedding_type is not supported")
    sizes = Sizes.of(config)
    yield u32("block_count", sizes.layers)
    yield u32("context_length", context or config.count("max_position_embeddings"))
    yield u32("embedding_length", sizes.width)
    yield u32("feed_forward_length", sizes.inner)
    yield u32("attention.head_count", sizes.heads)
    yield f32("attention.layer_norm_epsilon", config.number("layer_norm_eps", default=1e-12))
    yield flag("attention.causal", False)


def rules(config: Config, positions: Cut = Cut()) -> tuple[Rule, ...]:  # noqa: B008 - frozen
    """Bert's tensors; `positions` says which rows of their table are used."""
    sizes = Sizes.of(config)
    width, inner = sizes.width, sizes.inner
    rows = config.count("max_position_embeddings")
    at, to = "encoder.layer.#.", "blk.#."
    return (
        Rule("embeddings.word_embeddings", "token_embd", (None, width)),
        Rule("embeddings.position_embeddings", "position_embd", (rows, width), pick=positions),
        Rule("embeddings.token_type_embeddings", "token_types", (None, width)),
        Rule("embeddings.LayerNorm", "token_embd_norm", (width,)),
        Rule(f"{at}attention.self.query", f"{to}attn_q", (width, width)),
        Rule(f"{at}attention.self.key", f"{to}attn_k", (width, width)),
        Rule(f"{at}attention.self.value", f"{to}attn_v", (width, width)),
        Rule(f"{at}attention.output.dense", f"{to}attn_output", (width, width)),
        Rule(f"{at}attention.output.LayerNorm", f"{to}attn_output_norm", (width,)),
        Rule(f"{at}intermediate.dense", f"{to}ffn_up", (inner, width)),
        Rule(f"{at}output.dense", f"{to}ffn_down", (width, inner)),
        Rule(f"{at}output.LayerNorm", f"{to}layer_output_norm", (width,)),
    )


FAMILY = Family(
    name="bert",
    classes=("BertModel", "BertForMaskedLM"),
    keys=keys,
    rules=rules,
    prefixes=("bert.",),
    ignored=HEADS,
    activations=GELU,
    tied=True,
    tokenizer=TokenizerNotes(embeds=True),
)
