"""The parse tree of a Go template: immutable values, no positions, no behaviour.

Source: package documentation of `text/template` and `text/template/parse`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identifier:
    """A function's name."""

    name: str


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the cursor."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A.B`: the variable's name with its dollar, then fields of its value."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`, or fields of what a function returns."""

    node: "Identifier | Pipe"
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dot:
    """The cursor itself."""


@dataclass(frozen=True, slots=True)
class Nil:
    """The untyped nil."""


@dataclass(frozen=True, slots=True)
class Bool:
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Number:
    """A constant; which of Go's kinds it takes is decided where it is used."""

    text: str
    value: int | float | complex


@dataclass(frozen=True, slots=True)
class String:
    """A string constant; bytes that are not UTF-8 are lone surrogates (see `gotext.unquote`)."""

    quoted: str
    value: str


@dataclass(frozen=True, slots=True)
class Command:
    """A function and its arguments, or one operand."""

    args: tuple["Operand", ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands joined by `|`, with the variables they declare or assign (names with dollar)."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False


Operand = (
    Identifier | Field | Variable | Chain | Dot | Nil | Bool | Number | String | Pipe  # in brackets
)


@dataclass(frozen=True, slots=True)
class Text:
    """Literal text, trimmed as its neighbours ask."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """`{{ pipeline }}`."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """What `if`, `with` and `range` have in common. No `else` is None, an empty one is ()."""

    pipe: Pipe
    body: tuple["Node", ...]
    otherwise: tuple["Node", ...] | None


@dataclass(frozen=True, slots=True)
class If(Branch):
    """`{{ if }}`; an `else if` is an If alone in `otherwise`."""


@dataclass(frozen=True, slots=True)
class With(Branch):
    """`{{ with }}`."""


@dataclass(frozen=True, slots=True)
class Range(Branch):
    """`{{ range }}`."""


@dataclass(frozen=True, slots=True)
class Call:
    """`{{ template "name" pipeline }}`; `block` becomes one too."""

    name: str
    pipe: Pipe | None


@dataclass(frozen=True, slots=True)
class Break:
    """`{{ break }}`."""


@dataclass(frozen=True, slots=True)
class Continue:
    """`{{ continue }}`."""


Node = Text | Action | If | With | Range | Call | Break | Continue
Nodes = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Templates:
    """A parsed text: its own nodes, and the templates it defines by name.

    The main template's name is empty; a `define ""` replaces an empty main text.
    """

    main: Nodes
    defined: Mapping[str, Nodes]
