"""What a conversion comes to: the keys and tensors of a GGUF, and what bytes tensors are made of.

A tensor is a sequence of parts, each some rows of one stored tensor. How the stored bytes are to be
read as rows is a `View`; what is done to each piece of rows then is a `Step`. Every step works on a
piece of whole rows, so that memory does not grow with the tensor; the one exception is `Turned`,
which needs one matrix at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from registry.core.convert.safetensors import Stored
from registry.core.gguf import Array, Entry, Kind

KeyValue = tuple[str, Entry]


@dataclass(frozen=True, slots=True)
class Plain:
    """Rows as they are stored."""


@dataclass(frozen=True, slots=True)
class Turned:
    """Each matrix of the last two dimensions transposed; `matrix` is the one wanted."""

    matrix: int


@dataclass(frozen=True, slots=True)
class Scaled:
    """FP8 with one scale for each block of `block` (rows, columns); read as BF16."""

    scales: Stored
    block: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Packed4:
    """MXFP4 as gpt-oss has it: `blocks` (…, rows, groups, 16) and one scale byte for each group."""

    scales: Stored


View = Plain | Turned | Scaled | Packed4


@dataclass(frozen=True, slots=True)
class AddOne:
    """1 is added to each value: gemma's norms are stored as the difference to 1."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Within each head of `size` rows, row j of the first half comes before row j of the second.

    Checkpoints rotate element i with element i + size/2, the engine's llama rotates neighbours.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Every `step`-th column, from `start` on."""

    start: int
    step: int


Step = AddOne | Pairs | Columns


@dataclass(frozen=True, slots=True)
class Part:
    """The rows `start, start + step, …` below `stop` of a stored tensor, after `view`."""

    stored: Stored
    start: int
    stop: int
    step: int = 1
    view: View = field(default_factory=Plain)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor of the GGUF: its dimensions fastest first, its type as in `core/ggml.py`.

    Either `parts` make it up, or it consists of `values`.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    parts: tuple[Part, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversion:
    """A GGUF as it will be; `warnings` are sentences for whoever asked for it."""

    keys: tuple[KeyValue, ...]
    tensors: tuple[Output, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def parameter_count(self) -> int:
        """Values of all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors)


def u32(name: str, value: int) -> KeyValue:
    """A key with a whole number."""
    return name, Entry(Kind.U32, value)


def f32(name: str, value: float) -> KeyValue:
    """A key with a number."""
    return name, Entry(Kind.F32, value)


def flag(name: str, value: bool) -> KeyValue:
    """A key with a truth value."""
    return name, Entry(Kind.BOOL, value)


def text(name: str, value: str) -> KeyValue:
    """A key with a text."""
    return name, Entry(Kind.STRING, value)


def array(name: str, kind: Kind, values: Sequence[int | float | bool | str]) -> KeyValue:
    """A key with an array of one kind."""
    return name, Entry(Kind.ARRAY, Array(kind, tuple(values)))
