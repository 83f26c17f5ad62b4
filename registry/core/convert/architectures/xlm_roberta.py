"""RoBERTa and XLM-RoBERTa (bge-m3, e5). Source: spec inference-and-gguf 9.5."""

from collections.abc import Iterator

from registry.core.convert.architectures import bert
from registry.core.convert.config import Config
from registry.core.convert.family import GELU, Cut, Family, Rule, TokenizerNotes
from registry.core.convert.plan import KeyValue


def _unused(config: Config) -> int:
    """Positions are counted from the padding token's id + 1 on; the rows before it are unused."""
    return config.count("pad_token_id", default=1, least=0) + 1


def keys(config: Config) -> Iterator[KeyValue]:
    """Bert's keys, with fewer positions than the table has rows."""
    positions = config.count("max_position_embeddings") - _unused(config)
    yield from bert.keys(config, max(positions, 1))


def rules(config: Config) -> tuple[Rule, ...]:
    """Bert's tensors, without the unused positions."""
    return bert.rules(config, Cut(_unused(config)))


FAMILY = Family(
    name="bert",
    classes=("XLMRobertaModel", "XLMRobertaForMaskedLM", "RobertaModel", "RobertaForMaskedLM"),
    keys=keys,
    rules=rules,
    prefixes=("roberta.",),
    ignored=bert.HEADS,
    activations=GELU,
    tied=True,
    tokenizer=TokenizerNotes(embeds=True),
)
