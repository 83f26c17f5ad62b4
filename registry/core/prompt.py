"""Messages and a Go template -> the text of the prompt.

Source: Ollama docs/template.md; `tests/data/go-template-golden.json` for what goes on around the
template: merging of neighbours, the loop of old templates, where the last turn is cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, TypeGuard

from registry.core.gotemplate.interpreter import STEP_LIMIT, run
from registry.core.gotemplate.tree import (
    Action,
    Branch,
    Command,
    Field,
    Node,
    Nodes,
    Operand,
    Pipe,
)
from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value, failure, from_json
from registry.core.template import GoTemplate

_RESPONSE = Action(Pipe((Command((Field(("Response",)),)),)))
_NESTING_LIMIT = 30
_MESSAGE_FIELDS = ("Role", "Content", "Thinking", "Images", "ToolCalls", "ToolName", "ToolCallID")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a prompt is made of. Messages and tools are the JSON objects of the API."""

    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] | None = None
    prompt: str = ""  # with `suffix`: text to be filled in between
    suffix: str = ""
    think: bool = False
    think_level: str = ""
    is_think_set: bool = False


@dataclass(slots=True)
class _Message:
    role: str
    content: str
    source: Mapping[str, Any]


def render(template: GoTemplate, turn: Turn, today: date, steps: int = STEP_LIMIT) -> str:
    """The prompt's text. `steps` bounds each run of the template, of which old ones take many.

    Raises:
        OperationFailed: the template does not fit the values, or a limit of the interpreter.
    """
    tree = template.tree
    if not template.mentions_output:
        tree = replace(tree, main=(*tree.main, _RESPONSE))
    common = {
        "Response": "",
        "Think": turn.think,
        "ThinkLevel": turn.think_level,
        "IsThinkSet": turn.is_think_set,
    }
    if turn.prompt and turn.suffix:
        return run(tree, {**common, "Prompt": turn.prompt, "Suffix": turn.suffix}, today, steps)
    messages = _merged(turn.messages)
    if "messages" in template.variables:
        system = "\n\n".join(
            _text(message, "content")
            for message in turn.messages
            if message.get("role") == "system"
        )
        values = {
            **common,
            "System": system,
            "Messages": _list([_message(message) for message in messages]),
            "Tools": _tools(turn.tools),
        }
        return run(tree, values, today, steps)
    *done, last = _rounds(messages)
    parts = [run(tree, {**common, **values}, today, steps) for values in done]
    parts.append(run(replace(tree, main=cut(tree.main)), {**common, **last}, today, steps))
    return "".join(parts)


def _merged(messages: Sequence[Mapping[str, Any]]) -> list[_Message]:
    """Neighbours of one role as one message, a blank line between them; not those of tools."""
    merged: list[_Message] = []
    for message in messages:
        role, content = _text(message, "role"), _text(message, "content")
        if merged and merged[-1].role == role != "tool":
            merged[-1].content += "\n\n" + content
        else:
            merged.append(_Message(role, content, message))
    return merged


def _rounds(messages: list[_Message]) -> list[dict[str, Value]]:
    """For templates of one round: system, user and assistant text of each; the last is open."""
    current = {"System": "", "Prompt": "", "Response": ""}
    rounds: list[dict[str, Value]] = []
    slots = {"system": "System", "user": "Prompt", "assistant": "Response"}
    for message in messages:
        slot = slots.get(message.role)
        if slot is None:
            continue
        later = {"System": ("Prompt", "Response"), "Prompt": ("Response",), "Response": ()}[slot]
        if any(current[name] for name in later):
            rounds.append(dict(current))
            current = {"System": "", "Prompt": "", "Response": ""}
        current[slot] = message.content
    return [*rounds, dict(current)]


def cut(nodes: Nodes) -> Nodes:
    """The nodes up to the first mention of `.Response`: what follows it ends a finished turn."""
    kept, _ = _cut(nodes)
    return kept


def _cut(nodes: Nodes) -> tuple[Nodes, bool]:
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Branch):
            body, found = _cut(node.body)
            otherwise = node.otherwise
            if found:
                otherwise = None
            elif otherwise is not None:
                otherwise, found = _cut(otherwise)
            kept.append(replace(node, body=body, otherwise=otherwise))
        elif isinstance(node, Action):
            pipe, found = _cut_pipe(node.pipe)
            if pipe is not None:
                kept.append(Action(pipe))
        else:
            kept.append(node)
            found = False
        if found:
            return tuple(kept), True
    return tuple(kept), False


def _cut_pipe(pipe: Pipe) -> tuple[Pipe | None, bool]:
    commands: list[Command] = []
    found = False
    for command in pipe.commands:
        args: list[Operand] = []
        for arg in () if found else command.args:
            if isinstance(arg, Pipe):
                inner, found = _cut_pipe(arg)
                args += [inner] if inner else []
            else:
                args.append(arg)
                found = isinstance(arg, Field) and "Response" in arg.names
            if found:
                break
        if not args:
            return None, found
        commands.append(Command(tuple(args)))
    return replace(pipe, commands=tuple(commands)), found


def _list(items: Sequence[Value]) -> Slice:
    return Slice(tuple(items), is_nil=not items)


# What a client sent may have any shape; what does not fit reads as absent.


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _object(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key)
    return value if isinstance(value, Mapping) else {}


def _objects(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, Mapping)] if _is_list(value) else []


def _texts(data: Mapping[str, Any], key: str) -> list[str]:
    value = data.get(key)
    return [item for item in value if isinstance(item, str)] if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)


def _message(message: _Message) -> Struct:
    source = message.source
    fields: dict[str, Value] = {
        "Role": message.role,
        "Content": message.content,
        "Thinking": _text(source, "thinking"),
        "Images": _list(_texts(source, "images")),
        "ToolCalls": _list([_call(call) for call in _objects(source, "tool_calls")]),
        "ToolName": _text(source, "tool_name"),
        "ToolCallID": _text(source, "tool_call_id"),
    }
    return Struct("message", fields, {name: name for name in _MESSAGE_FIELDS})


def _call(call: Mapping[str, Any]) -> Struct:
    function = _object(call, "function")
    index = function.get("index")
    fields = {
        "Index": index if isinstance(index, int) else 0,
        "Name": _text(function, "name"),
        "Arguments": replace(from_json(_object(function, "arguments")), style=Style.JSON),
    }
    called = Struct("called", fields, {name: name for name in fields})
    outer = {"ID": _text(call, "id"), "Function": called}
    return Struct("call", outer, {name: name for name in outer})


def _tools(tools: Sequence[Mapping[str, Any]] | None) -> Slice:
    items = tuple(_tool(tool) for tool in tools or ())
    return Slice(items, Style.JSON, is_nil=tools is None)


def _tool(tool: Mapping[str, Any]) -> Struct:
    function = _object(tool, "function")
    described = Struct(
        "function",
        {
            "Name": _text(function, "name"),
            "Description": _text(function, "description"),
            "Parameters": _parameters(_object(function, "parameters")),
        },
        {"Name": "name", "Description": "description", "Parameters": "parameters"},
    )
    return Struct(
        "tool",
        {
            "Type": _text(tool, "type"),
            "Items": from_json(tool.get("items")),
            "Function": described,
        },
        {"Type": "type", "Items": "items", "Function": "function"},
        frozenset({"Items"}),
    )


def _parameters(parameters: Mapping[str, Any]) -> Struct:
    return Struct(
        "parameters",
        {
            "Type": _text(parameters, "type"),
            "Defs": from_json(parameters.get("$defs")),
            "Items": from_json(parameters.get("items")),
            "Required": _list(_texts(parameters, "required")),
            "Properties": _properties(parameters, 0),
        },
        {
            "Type": "type",
            "Defs": "$defs",
            "Items": "items",
            "Required": "required",
            "Properties": "properties",
        },
        frozenset({"Defs", "Items", "Required"}),
    )


def _properties(data: Mapping[str, Any], depth: int) -> Map:
    properties = _object(data, "properties")
    return Map({name: _property(properties, name, depth) for name in properties}, Style.JSON)


_PROPERTY_NAMES = {
    "AnyOf": "anyOf",
    "Type": "type",
    "Items": "items",
    "Description": "description",
    "Enum": "enum",
    "Properties": "properties",
    "Required": "required",
}


def _property(properties: Mapping[str, Any], name: str, depth: int) -> Struct:
    if depth > _NESTING_LIMIT:
        raise failure(f"a property nested deeper than {_NESTING_LIMIT} levels")
    data = _object(properties, name)
    alternatives = [_property({"": item}, "", depth + 1) for item in _objects(data, "anyOf")]
    enum = data.get("enum")
    kind = data.get("type")
    fields: dict[str, Value] = {
        "AnyOf": _list(alternatives),
        "Type": Slice(
            (kind,) if isinstance(kind, str) else tuple(_texts(data, "type")), Style.TYPE
        ),
        "Items": from_json(data.get("items")),
        "Description": _text(data, "description"),
        "Enum": _list([from_json(item) for item in enum] if _is_list(enum) else []),
        "Properties": _properties(data, depth + 1),
        "Required": _list(_texts(data, "required")),
    }
    return Struct("property", fields, _PROPERTY_NAMES, frozenset(fields))
