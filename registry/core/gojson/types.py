"""Reading, second half: a tree into Python values, by a description of the Go type it stands for.

The descriptions give the names that Go's error texts show. As in Go, a value of the wrong type does
not stop the reading: the first such error is raised at the end, unless a type with its own reading
(`Custom`) fails, whose error comes at once and wins.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any as AnyType
from typing import Final, TypeVar

from registry.core.gojson.encoding import Raw, dumps
from registry.core.gojson.leaves import base64_bytes, build
from registry.core.gojson.syntax import JsonInvalid, Node, Number, parse

T = TypeVar("T")
UNSET: Final = object()
"""The value before this one under the same key: none."""

_INT_RANGE = range(-(1 << 63), 1 << 63)
_SHOWN = 200
"""So many digits of a number an error shows; Go shows them all."""


class TypeFault(JsonInvalid):
    """A value of the wrong type, with what Go's text says of it; `path` is the field's."""

    def __init__(self, value: str, go: str, struct: str = "", path: Sequence[str] = ()) -> None:
        where = f"struct field {struct}.{'.'.join(path)}" if struct or path else "value"
        super().__init__(f"json: cannot unmarshal {value} into Go {where} of type {go}")
        self.value = value
        self.go = go
        self.path = tuple(path)


@dataclass(slots=True)
class Context:
    """Where the reading stands: the innermost struct's name, the field names down to here."""

    struct: str = ""
    path: list[str] = field(default_factory=list)
    fault: JsonInvalid | None = None

    def mismatch(self, node: Node, go: str) -> None:
        """Note that `node` is of the wrong type for `go`."""
        self.note(TypeFault(kind(node), go))

    def note(self, fault: JsonInvalid) -> None:
        """Keep `fault` if it is the first."""
        if self.fault is None:
            self.fault = self.placed(fault)

    def placed(self, fault: JsonInvalid) -> JsonInvalid:
        """`fault` with this place put before its own."""
        if not isinstance(fault, TypeFault) or not (self.struct or self.path):
            return fault
        return TypeFault(fault.value, fault.go, self.struct, (*self.path, *fault.path))


def kind(node: Node) -> str:
    """Go's word for the type of a JSON value."""
    if isinstance(node, bool):
        return "bool"
    if isinstance(node, Number):
        return "number"
    if isinstance(node, str):
        return "string"
    if node is None:
        return "null"
    return "object" if isinstance(node, tuple) else "array"


class Schema:
    """A Go type: its name in error texts, and how it reads a value."""

    go: str

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """The Python value of `node`; `before` is what an earlier double of the key gave.

        A value of the wrong type is noted in `context`, and what is returned then is of no use.
        """
        raise NotImplementedError


def decode(data: bytes, schema: Schema) -> AnyType:
    """Read the first JSON value of `data`.

    Raises:
        JsonMissing: there is none.
        JsonInvalid: broken syntax, a value of the wrong type, a type nested in itself too often.
    """
    try:
        return unmarshal(parse(data), schema)
    except RecursionError as error:  # of types that contain themselves, such as tool parameters
        raise JsonInvalid("request body is nested too deeply") from error


def unmarshal(node: Node, schema: Schema) -> AnyType:
    """Read a tree on its own, as a custom type does for the part it is given.

    Raises:
        JsonInvalid: a value of the wrong type.
    """
    context = Context()
    try:
        value = schema.read(node, context, UNSET)
    except JsonInvalid as fault:
        raise context.placed(fault) from fault
    if context.fault is not None:
        raise context.fault
    return value


@dataclass(frozen=True, slots=True)
class _Scalar(Schema):
    """A type of one kind of value; null leaves what was there."""

    go: str
    zero: AnyType
    convert: Callable[[Node], AnyType]  # UNSET for a wrong kind; ValueError for a bad number

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        if node is None:
            return self.zero if before is UNSET else before
        try:
            value = self.convert(node)
        except (ValueError, OverflowError):
            context.note(TypeFault(f"number {str(node)[:_SHOWN]}", self.go))
            return self.zero
        if value is UNSET:
            context.mismatch(node, self.go)
            return self.zero
        return value


def _string(node: Node) -> AnyType:
    return node if isinstance(node, str) and not isinstance(node, Number) else UNSET


def _bool(node: Node) -> AnyType:
    return node if isinstance(node, bool) else UNSET


def _int(node: Node) -> AnyType:
    if not isinstance(node, Number):
        return UNSET
    if len(node) > 20 or (value := int(node)) not in _INT_RANGE:
        raise OverflowError
    return value


def _float64(node: Node) -> AnyType:
    if not isinstance(node, Number):
        return UNSET
    value = float(node)
    if math.isinf(value):
        raise OverflowError
    return value


def _float32(node: Node) -> AnyType:
    value = _float64(node)
    return value if value is UNSET else struct.unpack("<f", struct.pack("<f", value))[0]


def String(go: str = "string") -> Schema:  # noqa: N802 - the descriptions read like types
    """A Go string, or a type defined as one."""
    return _Scalar(go, "", _string)


def Bool() -> Schema:  # noqa: N802
    """A Go bool."""
    return _Scalar("bool", False, _bool)


def Int(go: str = "int") -> Schema:  # noqa: N802
    """A Go int or int64: JSON numbers without fraction or exponent."""
    return _Scalar(go, 0, _int)


def Float(go: str = "float64") -> Schema:  # noqa: N802
    """A Go float64, or float32 (then rounded to one)."""
    return _Scalar(go, 0.0, _float32 if go == "float32" else _float64)


def _uint8(node: Node) -> AnyType:
    value = _int(node)
    if value is not UNSET and not 0 <= value < 256:
        raise OverflowError
    return value


_UINT8 = _Scalar("uint8", 0, _uint8)


@dataclass(frozen=True, slots=True)
class Any(Schema):
    """A Go `interface {}`: numbers as floats, objects as dicts, arrays as lists."""

    go: str = "interface {}"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""

        def number(text: Number) -> float | None:
            value = float(text)
            if math.isinf(value):
                context.note(TypeFault(f"number {text[:_SHOWN]}", "float64"))
            return value

        return build(node, number)


@dataclass(frozen=True, slots=True)
class Ptr(Schema):
    """A pointer: null is None, which also stands for a missing key."""

    to: Schema

    @property
    def go(self) -> str:  # type: ignore[override]  # derived from what it points to
        """The name of a pointer type."""
        return f"*{self.to.go}"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        if node is None:
            return None
        return self.to.read(node, context, UNSET if before is None else before)


@dataclass(frozen=True, slots=True)
class Slice(Schema):
    """A Go slice, as a tuple; null is None."""

    of: Schema
    name: str = ""

    @property
    def go(self) -> str:  # type: ignore[override]  # derived from the elements
        """The defined name, or that of the slice type."""
        return self.name or f"[]{self.of.go}"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        if node is None:
            return None
        if not isinstance(node, list):
            context.mismatch(node, self.go)
            return None
        read = self.of.read
        return tuple([read(item, context, UNSET) for item in node])


@dataclass(frozen=True, slots=True)
class Map(Schema):
    """A Go `map[string]T`, as a dict in the order of the text; null is None."""

    of: Schema

    @property
    def go(self) -> str:  # type: ignore[override]  # derived from the values
        """The name of the map type."""
        return f"map[string]{self.of.go}"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        if node is None:
            return None
        if not isinstance(node, tuple):
            context.mismatch(node, self.go)
            return None
        found = dict(before) if isinstance(before, dict) else {}
        for key, item in node:
            found[key] = self.of.read(item, context, UNSET)
        return found


@dataclass(frozen=True, slots=True)
class Bytes(Schema):
    """A Go byte slice, written as base64; null is None."""

    go: str = "[]uint8"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        if node is None:
            return None
        if isinstance(node, str) and not isinstance(node, Number):
            try:
                return base64_bytes(node)
            except JsonInvalid as fault:
                context.note(fault)
        elif isinstance(node, list):  # Go reads a list of numbers as bytes too
            return bytes([_UINT8.read(item, context, UNSET) for item in node])
        else:
            context.mismatch(node, self.go)
        return None


@dataclass(frozen=True, slots=True)
class RawMessage(Schema):
    """A Go `json.RawMessage`: the value as JSON text, white space and escapes normalised."""

    go: str = "json.RawMessage"

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        return Raw(dumps(build(node, lambda number: Raw(number.encode()))))


@dataclass(frozen=True, slots=True)
class Custom(Schema):
    """A Go type with its own UnmarshalJSON; `hook` gets null too and may raise `JsonInvalid`."""

    go: str
    hook: Callable[[Node], AnyType]

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        return self.hook(node)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct: its JSON key, its type, the name of the Python attribute."""

    key: str
    type: Schema
    attribute: str = ""


class Struct(Schema):
    """A Go struct, read into a dataclass; keys match exactly or else ignoring case."""

    def __init__(self, go: str, build: Callable[..., AnyType], *fields: Field) -> None:
        """Describe the struct `go` (with its package, as in `api.ShowRequest`).

        `build` is called with the attributes that the text gave; its defaults do the rest. Of
        doubles the last is taken whole, where Go would fill both into one struct.
        """
        self.go = go
        self._name = "" if go.startswith("struct {") else go.rpartition(".")[2]
        self._build = build
        self._fields = fields
        self._by_key: Mapping[str, Field] = {item.key: item for item in fields}
        self._by_fold = {_fold(item.key): item for item in reversed(fields)}

    def read(self, node: Node, context: Context, before: AnyType) -> AnyType:
        """See `Schema`."""
        values: dict[str, AnyType] = {}
        if isinstance(node, tuple):
            self._fill(node, context, values)
        elif node is not None:
            context.mismatch(node, self.go)
        elif before is not UNSET:
            return before
        return self._build(**values)

    def _fill(
        self, pairs: tuple[tuple[str, Node], ...], context: Context, values: dict[str, AnyType]
    ) -> None:
        outer = context.struct
        for key, item in pairs:
            known = self._by_key.get(key) or self._by_fold.get(_fold(key))
            if known is None:
                continue
            context.struct = self._name
            context.path.append(known.key)
            name = _attribute(known)
            values[name] = known.type.read(item, context, values.get(name, UNSET))
            context.path.pop()
            context.struct = outer


def _attribute(item: Field) -> str:
    return item.attribute or item.key


def _fold(key: str) -> str:
    """Go's folding as far as ASCII names can tell: the long s and the Kelvin sign are letters."""
    return key.replace("\u017f", "s").lower()
