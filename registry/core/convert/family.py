"""What an architecture module says: its keys and, as a table, what becomes of stored tensors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from registry.core.convert.config import Config
from registry.core.convert.plan import AddOne, KeyValue, Output, Step


@dataclass(frozen=True, slots=True)
class Whole:
    """All rows of a tensor."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows from `first` on, `count` of them, or all that follow if that is None."""

    first: int = 0
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Half:
    """Of each matrix, the first half of the rows (0) or the second (1)."""

    which: int


@dataclass(frozen=True, slots=True)
class Alternate:
    """Of each matrix, the even rows (0) or the odd ones (1)."""

    which: int


SILU = frozenset({"silu", "swish"})
GELU = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"})

Pick = Whole | Cut | Half | Alternate


@dataclass(frozen=True, slots=True)
class Rule:
    """One stored tensor, or one for each layer (and expert), becomes one of the GGUF.

    `source` and `target` have `#` for a number; the second of a source is the expert's, and experts
    are stacked. Names without `.weight` or `.bias` stand for both. `shape` is that of a weight as
    stored, row-major, and a bias has as many values as a weight has rows; None is any number.
    """

    source: str
    target: str
    shape: tuple[int | None, ...]
    steps: tuple[Step, ...] = ()
    pick: Pick = field(default_factory=Whole)
    turned: bool = False
    packed: bool = False  # stored as MXFP4: `source` + `_blocks` and `_scales`
    flat: bool = False  # matrices of one row become vectors
    optional: bool = False  # the checkpoint may be without it, in all layers
    layers: frozenset[int] | None = None  # those that have it; None: all

    @property
    def stacks(self) -> bool:
        """Whether there is one stored tensor for each expert."""
        return self.source.count("#") > 1


@dataclass(frozen=True, slots=True)
class TokenizerNotes:
    """What a family's tokenizers need beside what their files say."""

    add_space_prefix: bool | None = None
    control: frozenset[str] = frozenset()  # tokens that are control tokens though not marked so
    pre: str = ""  # the pre-tokenizer, where the file's expressions are not known
    embeds: bool = False  # an encoder: pooling is read, and special ids have other names


@dataclass(frozen=True, slots=True)
class Family:
    """An architecture of the engine and the model classes that become it.

    `keys` come without the architecture's name in front.
    `prefixes` are taken off the front of tensor names, the first that fits. Tensors whose names
    contain one of `ignored` are left out, as the model does not need them; those that begin with
    one of `dropped` (say, a vision tower) are left out with a warning. `constants` are tensors made
    of settings.
    """

    name: str
    classes: tuple[str, ...]
    keys: Callable[[Config], Iterable[KeyValue]]
    rules: Callable[[Config], Iterable[Rule]]
    constants: Callable[[Config], tuple[Output, ...]] = field(default=lambda config: ())
    prefixes: tuple[str, ...] = ("model.",)
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)
    dropped: tuple[str, ...] = ()
    activations: frozenset[str] = SILU  # of the network, in the config's words
    tied: bool = False  # what `tie_word_embeddings` means when it is not there
    cuts_padding: bool = False  # rows of the embedding beyond the tokenizer are cut, not named
    has_dense: bool = False  # layers after the pooling belong to the model
    tokenizer: TokenizerNotes = field(default_factory=TokenizerNotes)


PLUS_ONE = (AddOne(),)

TEXT_PREFIXES = ("language_model.model.", "model.language_model.", "language_model.", "model.")
"""Before the names of the language model's tensors, in models that see and in those that do not."""

SEEING = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
"""Before the names of the others."""
