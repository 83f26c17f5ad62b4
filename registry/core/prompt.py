"""Messages and a Go template -> the text of the prompt.

Source: Ollama docs/template.md; `tests/data/go-template-golden.json` for what goes on around the
template: merging of neighbours, the loop of old templates, where the last turn is cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from registry.core.gotemplate.interpreter import run
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
from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value, from_json
from registry.core.template import GoTemplate

_RESPONSE = Action(Pipe((Command((Field(("Response",)),)),)))
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


def render(template: GoTemplate, turn: Turn, today: date) -> str:
    """The prompt's text.

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
        return run(tree, {**common, "Prompt": turn.prompt, "Suffix": turn.suffix}, today)
    messages = _merged(turn.messages)
    if "messages" in template.variables:
        system = "\n\n".join(
            str(message.get("content", ""))
            for message in turn.messages
            if message.get("role") == "system"
        )
        values = {
            **common,
            "System": system,
            "Messages": _list([_message(message) for message in messages]),
            "Tools": _tools(turn.tools),
        }
        return run(tree, values, today)
    *done, last = _rounds(messages)
    parts = [run(tree, {**common, **values}, today) for values in done]
    parts.append(run(replace(tree, main=cut(tree.main)), {**common, **last}, today))
    return "".join(parts)


def _merged(messages: Sequence[Mapping[str, Any]]) -> list[_Message]:
    """Neighbours of one role as one message, a blank line between them; not those of tools."""
    merged: list[_Message] = []
    for message in messages:
        role, content = str(message.get("role", "")), str(message.get("content", ""))
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


def _list(items: Sequence[Value] | None) -> Slice:
    return Slice(tuple(items or ()), is_nil=not items)


def _message(message: _Message) -> Struct:
    source = message.source
    fields: dict[str, Value] = {
        "Role": message.role,
        "Content": message.content,
        "Thinking": str(source.get("thinking") or ""),
        "Images": _list(source.get("images")),
        "ToolCalls": _list([_call(call) for call in source.get("tool_calls") or ()]),
        "ToolName": str(source.get("tool_name") or ""),
        "ToolCallID": str(source.get("tool_call_id") or ""),
    }
    return Struct("message", fields, {name: name for name in _MESSAGE_FIELDS})


def _call(call: Mapping[str, Any]) -> Struct:
    function = call.get("function") or {}
    arguments = function.get("arguments") or {}
    fields = {
        "Index": int(function.get("index") or 0),
        "Name": str(function.get("name") or ""),
        "Arguments": replace(from_json(dict(arguments)), style=Style.JSON),
    }
    called = Struct("called", fields, {name: name for name in fields})
    outer = {"ID": str(call.get("id") or ""), "Function": called}
    return Struct("call", outer, {name: name for name in outer})


def _tools(tools: Sequence[Mapping[str, Any]] | None) -> Slice:
    items = tuple(_tool(tool) for tool in tools or ())
    return Slice(items, Style.JSON, is_nil=tools is None)


def _tool(tool: Mapping[str, Any]) -> Struct:
    function = tool.get("function") or {}
    described = Struct(
        "function",
        {
            "Name": str(function.get("name") or ""),
            "Description": str(function.get("description") or ""),
            "Parameters": _parameters(function.get("parameters") or {}),
        },
        {"Name": "name", "Description": "description", "Parameters": "parameters"},
    )
    return Struct(
        "tool",
        {
            "Type": str(tool.get("type") or ""),
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
            "Type": str(parameters.get("type") or ""),
            "Defs": from_json(parameters.get("$defs")),
            "Items": from_json(parameters.get("items")),
            "Required": _list(parameters.get("required")),
            "Properties": _properties(parameters.get("properties") or {}, Style.JSON),
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


def _properties(properties: Mapping[str, Any], style: Style) -> Map:
    return Map({name: _property(item) for name, item in properties.items()}, style)


_PROPERTY_NAMES = {
    "AnyOf": "anyOf",
    "Type": "type",
    "Items": "items",
    "Description": "description",
    "Enum": "enum",
    "Properties": "properties",
    "Required": "required",
}


def _property(data: Mapping[str, Any]) -> Struct:
    kinds = data.get("type") or ()
    fields: dict[str, Value] = {
        "AnyOf": _list([_property(item) for item in data.get("anyOf") or ()]),
        "Type": Slice((kinds,) if isinstance(kinds, str) else tuple(kinds), Style.TYPE),
        "Items": from_json(data.get("items")),
        "Description": str(data.get("description") or ""),
        "Enum": _list([from_json(item) for item in data.get("enum") or ()]),
        "Properties": _properties(data.get("properties") or {}, Style.JSON),
        "Required": _list(data.get("required")),
    }
    return Struct("property", fields, _PROPERTY_NAMES, frozenset(fields))
