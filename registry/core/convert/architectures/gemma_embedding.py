"""EmbeddingGemma: Gemma 3 that looks both ways, with two layers after the pooling.

Source: the engine's graph; shown by numbers.
"""

from collections.abc import Iterator

from registry.core.convert.architectures import gemma, gemma3
from registry.core.convert.config import Config
from registry.core.convert.decoder import Sizes
from registry.core.convert.family import GELU, TEXT_PREFIXES, Family, Rule, TokenizerNotes
from registry.core.convert.plan import KeyValue
from registry.core.errors import CheckpointInvalid


def keys(config: Config) -> Iterator[KeyValue]:
    """Gemma 3's keys. The engine knows by the architecture that attention goes both ways.

    Raises:
        CheckpointInvalid: a model without its output matrix that is no embedding model.
    """
    if not config.flag("use_bidirectional_attention", False):
        raise CheckpointInvalid(f"{config.file}: use_bidirectional_attention must be true")
    yield from gemma3.keys(config)


def rules(config: Config) -> tuple[Rule, ...]:
    """Gemma 3's tensors, and those of the folders beside."""
    width = Sizes.of(gemma3.completed(config)).width
    return (
        *gemma3.rules(config),
        Rule("2_Dense.linear", "dense_2", (None, width), optional=True),
        Rule("3_Dense.linear", "dense_3", (width, None), optional=True),
    )


FAMILY = Family(
    name="gemma-embedding",
    classes=("Gemma3TextModel",),
    keys=keys,
    rules=rules,
    prefixes=TEXT_PREFIXES,
    activations=GELU,
    tied=True,
    cuts_padding=True,
    has_dense=True,
    tokenizer=TokenizerNotes(add_space_prefix=False, control=gemma.TURNS.control, embeds=True),
)
