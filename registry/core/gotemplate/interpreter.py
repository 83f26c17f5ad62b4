"""Runs a parsed template over values, bounded in steps, depth and output.

Source: package documentation of `text/template`, "Actions", "Pipelines", "Variables".
"""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from registry.core.gotemplate.functions import functions, typescript
from registry.core.gotemplate.printing import TEXT_LIMIT, plain, text_of
from registry.core.gotemplate.tree import (
    Action,
    Break,
    Call,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Identifier,
    If,
    Nil,
    Node,
    Nodes,
    Number,
    Operand,
    Pipe,
    Range,
    Templates,
    Text,
    Variable,
    With,
)
from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value, failure, is_true
from registry.core.gotext import raw_bytes

STEP_LIMIT = 2_000_000
DEPTH_LIMIT = 120
_CHARACTERS_PER_STEP = 64
_INT_LIMIT = 1 << 63


class _Absent:
    """No value, as opposed to nil: nothing came down the pipe."""


_ABSENT: Any = _Absent()


def run(
    templates: Templates, values: Mapping[str, Value], today: date, steps: int = STEP_LIMIT
) -> str:
    """The text that the main template makes of `values`.

    A step is a node, a command or a round of a loop; long texts cost more. Two million take some
    seconds, so this does not belong on an event loop.

    Raises:
        OperationFailed: the values do not fit the template, or a limit is reached.
    """
    machine = _Machine(templates, today, steps)
    root = Map(values)
    machine.walk(templates.main, root, _Frame(root))
    return raw_bytes("".join(machine.output)).decode("utf-8", "replace")


class _Frame:
    """The variables of one template that is being run, innermost last."""

    def __init__(self, root: Value) -> None:
        self.variables: list[tuple[str, Value]] = [("$", root)]

    def find(self, name: str) -> int:
        """The innermost variable of that name; the parser has made sure that there is one."""
        return next(
            i for i in range(len(self.variables) - 1, -1, -1) if self.variables[i][0] == name
        )

    def assign(self, name: str, value: Value) -> None:
        self.variables[self.find(name)] = (name, value)


class _Machine:
    def __init__(self, templates: Templates, today: date, steps: int) -> None:
        self._templates = templates
        self._functions = functions(today)
        self.output: list[str] = []
        self._written = 0
        self._steps = steps
        self._depth = 0

    # Limits.

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise failure("too many steps")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise failure(f"nested deeper than {DEPTH_LIMIT} levels")

    def _bounded(self, value: Value) -> Value:
        """`value`, paid for by its length; texts that double in a loop end here."""
        if isinstance(value, str):
            self._spend(len(value) // _CHARACTERS_PER_STEP)
        elif isinstance(value, Slice):
            self._spend(len(value.items) // _CHARACTERS_PER_STEP)
        return value

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > TEXT_LIMIT:
            raise failure(f"an output of more than {TEXT_LIMIT} characters")
        self.output.append(text)

    # Nodes.

    def walk(self, nodes: Nodes, dot: Value, frame: _Frame) -> Break | Continue | None:
        """Run the nodes; says so when a `break` or `continue` ended them early."""
        self._deeper()
        for node in nodes:
            self._spend(1)
            if isinstance(node, Text):
                self._write(node.text)
            elif isinstance(node, Break | Continue):
                self._depth -= 1
                return node
            else:
                jump = self._node(node, dot, frame)
                if jump is not None:
                    self._depth -= 1
                    return jump
        self._depth -= 1
        return None

    def _node(self, node: Node, dot: Value, frame: _Frame) -> Break | Continue | None:
        keep = len(frame.variables)
        jump = None
        match node:
            case Action(pipe):
                value = self._pipe(pipe, dot, frame)
                if not pipe.variables:
                    self._write(self._bounded(text_of(value)))
                return None  # variables stay until the clause around them ends
            case Call(name, pipe):
                self._run_template(name, self._pipe(pipe, dot, frame) if pipe else None)
                return None
            case If(pipe, body, otherwise):
                chosen = body if is_true(self._pipe(pipe, dot, frame)) else otherwise
                jump = self.walk(chosen or (), dot, frame)
            case With(pipe, body, otherwise):
                value = self._pipe(pipe, dot, frame)
                holds = is_true(value)
                jump = self.walk(
                    (body if holds else otherwise) or (), value if holds else dot, frame
                )
            case _:
                assert isinstance(node, Range)  # nothing else is left
                self._range(node, dot, frame)
        del frame.variables[keep:]
        return jump

    def _run_template(self, name: str, dot: Value) -> None:
        nodes = self._templates.main if name == "" else self._templates.defined.get(name)
        if nodes is None:
            raise failure(f'template "{name}" not defined')
        self.walk(nodes, dot, _Frame(dot))

    def _range(self, node: Range, dot: Value, frame: _Frame) -> None:
        value = self._pipe(node.pipe, dot, frame)
        names = node.pipe.variables
        keep = len(frame.variables)
        looped = False
        for key, item in _pairs(value, len(names)):
            looped = True
            self._spend(1)
            pair = (key, item) if len(names) == 2 else (item,)
            if node.pipe.assigns:
                for name, part in zip(names, pair, strict=False):
                    frame.assign(name, part)
            elif names:
                frame.variables[keep - len(names) : keep] = zip(names, pair, strict=True)
            jump = self.walk(node.body, item, frame)
            del frame.variables[keep:]
            if isinstance(jump, Break):
                break
        if not looped and node.otherwise:
            self.walk(node.otherwise, dot, frame)

    # Pipelines.

    def _pipe(self, pipe: Pipe, dot: Value, frame: _Frame) -> Value:
        self._deeper()
        value: Value = _ABSENT
        for command in pipe.commands:
            self._spend(1)
            value = self._bounded(self._command(command, dot, frame, value))
        for name in pipe.variables:
            if pipe.assigns:
                frame.assign(name, value)
            else:
                frame.variables.append((name, value))
        self._depth -= 1
        return value

    def _command(self, command: Command, dot: Value, frame: _Frame, final: Value) -> Value:
        head, *rest = command.args
        if isinstance(head, Identifier):
            return self._apply(head.name, rest, dot, frame, final)
        if rest or final is not _ABSENT:
            raise failure("can't give argument to non-function")
        if isinstance(head, Nil):
            raise failure("nil is not a command")
        return self._operand(head, dot, frame)

    def _operand(self, node: Operand, dot: Value, frame: _Frame) -> Value:
        match node:
            case Field(names):
                return _fields(dot, names)
            case Variable(names):
                value = frame.variables[frame.find(names[0])][1]
                return _fields(value, names[1:])
            case Pipe():
                return self._pipe(node, dot, frame)
            case Chain(inner, names):
                return _fields(self._operand(inner, dot, frame), names)
            case Identifier(name):
                return self._apply(name, [], dot, frame, _ABSENT)
            case Dot():
                return dot
            case Number():
                return _constant(node)
            case Nil():
                return None
        return node.value

    def _apply(
        self, name: str, args: list[Operand], dot: Value, frame: _Frame, final: Value
    ) -> Value:
        if name in ("and", "or"):
            return self._shortcut(name, args, dot, frame, final)
        values = [self._operand(arg, dot, frame) for arg in args]
        if final is not _ABSENT:
            values.append(final)
        return self._functions[name](values)

    def _shortcut(
        self, name: str, args: list[Operand], dot: Value, frame: _Frame, final: Value
    ) -> Value:
        if not args and final is _ABSENT:
            raise failure(f"wrong number of args for {name}: want at least 1 got 0")
        value: Value = None
        for arg in args:
            value = self._operand(arg, dot, frame)
            if is_true(value) == (name == "or"):
                return value
        return value if final is _ABSENT else final


def _constant(number: Number) -> Value:
    value = number.value
    if isinstance(value, int) and value >= _INT_LIMIT:
        raise failure(f"{number.text} overflows int")
    return value


def _fields(value: Value, names: Iterable[str]) -> Value:
    for name in names:
        value = _field(value, name)
    return value


def _field(value: Value, name: str) -> Value:
    if value is None:
        raise failure(f"nil pointer evaluating interface {{}}.{name}")
    if isinstance(value, Map) and name in value.items:
        return value.items[name]
    if isinstance(value, Struct) and name in value.fields:
        return value.fields[name]
    if name == "String" and _is_stringer(value):
        return plain(value)
    if name == "ToTypeScriptType" and isinstance(value, Struct) and value.kind == "property":
        return typescript(value)
    if isinstance(value, Map):
        return None
    raise failure(f"can't evaluate field {name}")


def _is_stringer(value: Value) -> bool:
    if isinstance(value, Slice | Map):
        return value.style is not Style.GO
    return isinstance(value, Struct) and value.kind in ("tool", "function", "parameters")


def _pairs(value: Value, variables: int) -> Iterable[tuple[Value, Value]]:
    """Keys and items to loop over."""
    if value is None:
        return ()
    if isinstance(value, Slice):
        return enumerate(value.items)
    if isinstance(value, Map):
        return ((key, value.items[key]) for key in sorted(value.items))
    if isinstance(value, int) and not isinstance(value, bool):
        if variables > 1:
            raise failure(f"can't use {value} to iterate over more than one variable")
        return ((index, index) for index in range(value))
    raise failure("range can't iterate over this value")
