"""Prompt templates: what the text of one tells about the model, without rendering it.

Two languages: Go templates travel as layers of a model, Jinja chat templates inside GGUF files.
Capabilities here are the words of `/api/show`: `tools`, `insert`, `thinking`.

Source: Ollama's behaviour at the version whose API is spoken, as recorded in `tests/golden` and
`tests/data/go-template-golden.json`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.parser import parse
from registry.core.gotemplate.tree import (
    Action,
    Branch,
    Call,
    Field,
    If,
    Node,
    Nodes,
    Operand,
    Pipe,
    Range,
    Templates,
    Text,
    Variable,
    With,
)
from registry.core.gotext import trim_space

DEFAULT = "{{ .Prompt }}"
"""The template of a model that brings none."""

_SHORT = 4096  # characters; a tree can take a hundred times its text
_ANY_OBJECT = "{"

_ROUND_TRIP_GO = ('eq .Role "tool"', "tool_response", "TOOL_RESULTS")
_TOOL_CALLS_JINJA = ("tool_calls", "assistant_tool_call")
_TOOL_RESULT_JINJA = (
    "tool_response",
    "tool_results",
    "role'] == 'tool'",
    'role\'] == "tool"',
    "role\"] == 'tool'",
    'role"] == "tool"',
    "message.role == 'tool'",
    'message.role == "tool"',
    "ipython",
)


@dataclass(frozen=True, slots=True)
class GoTemplate:
    """A Go template that parses, with what was learnt from it."""

    text: str
    tree: Templates
    mentions_output: bool  # of `.Messages` and `.Response` at least one occurs in it
    variables: frozenset[str]  # lower case, those of variables with their dollar
    thinking_tags: tuple[str, str]  # both empty if the template shows no thinking
    tool_marker: str  # printed before a tool call; `{` if nothing tells it from other JSON

    @classmethod
    def read(cls, text: str) -> "GoTemplate":
        """Parse and examine `text`.

        Raises:
            TemplateInvalid: it does not parse, or calls a template without giving it a value,
                which the Ollama server refuses to load.
        """
        tree = parse(text)
        names = {name.lower() for name in _names(tree)}
        mentions_output = bool(names & {"messages", "response"})
        if not mentions_output:
            names.add("response")  # appended when rendering
        tags, marker = _thinking_tags(tree.main), _marker(tree.main)
        return cls(text, tree, mentions_output, frozenset(names), tags, marker)

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Of `tools`, `insert`, `thinking` those that the template provides for."""
        found = {
            "tools": "tools" in self.variables,
            "insert": "suffix" in self.variables,
            "thinking": all(self.thinking_tags),
        }
        return tuple(name for name, present in found.items() if present)

    @property
    def renders_tool_results(self) -> bool:
        """Whether tools, the calls of them and their results all have a place in the prompt."""
        if not {"tools", "toolcalls"} <= self.variables:
            return False
        return any(sign in self.text for sign in _ROUND_TRIP_GO)


def check(text: str) -> None:
    """Refuse what the Ollama server refuses.

    Raises:
        TemplateInvalid: with the message that follows `template error: ` in its answer.
    """
    GoTemplate.read(text)


def variables(text: str) -> frozenset[str]:
    """Names that occur in a Go template: see `GoTemplate.variables`.

    Raises:
        TemplateInvalid: it does not parse.
    """
    return GoTemplate.read(text).variables


def capabilities(text: str) -> tuple[str, ...]:
    """Capabilities that a Go template shows; none if it does not parse (a pulled one may not)."""
    template = _read_or_none(text)
    return template.capabilities if template else ()


@lru_cache(maxsize=64)
def jinja_capabilities(text: str) -> tuple[str, ...]:
    """Capabilities that a Jinja chat template shows, told by words in it: `tools`, `thinking`."""
    found = ("tools",) if _jinja_has_tools(text) else ()
    return (*found, "thinking") if _jinja_has_thinking(text) else found


@lru_cache(maxsize=64)
def chosen_template(go_text: str | None, jinja_text: str | None) -> Literal["go", "jinja"] | None:
    """Which of a model's two templates makes its prompts, and is the one that `show` prints.

    The Go template, unless the Jinja text has more capabilities, or the same and tool results that
    the Go template lacks. A Go template that does not parse loses to any Jinja text.
    """
    if not jinja_text:
        return "go" if go_text else None
    if not go_text:
        return "jinja"
    go = _read_or_none(go_text)
    if go is None:
        return "jinja"
    ours, theirs = set(go.capabilities), set(jinja_capabilities(jinja_text))
    round_trip = _jinja_renders_tool_results(jinja_text)
    if len(theirs) > len(ours):
        prefers_jinja = round_trip or not go.renders_tool_results
    else:
        prefers_jinja = (
            theirs == ours and "tools" in ours and round_trip and not go.renders_tool_results
        )
    return "jinja" if prefers_jinja else "go"


def _read_or_none(text: str) -> GoTemplate | None:
    return _remembered(text) if len(text) <= _SHORT else _read(text)


@lru_cache(maxsize=32)
def _remembered(text: str) -> GoTemplate | None:
    """Models share few templates, and show and create look into one again and again."""
    return _read(text)


def _read(text: str) -> GoTemplate | None:
    try:
        return GoTemplate.read(text)
    except TemplateInvalid:
        return None


def _jinja_has_tools(text: str) -> bool:
    return "tools" in text or "tool_call" in text


def _jinja_has_thinking(text: str) -> bool:
    if "<think>" in text and "</think>" in text:
        return True
    # Some templates only cut earlier thinking out of the history; the engine still separates it.
    cuts = "content.split('</think>')" in text or 'content.split("</think>")' in text
    return cuts and "reasoning_content" not in text and "<SPECIAL_12>" not in text


def _jinja_renders_tool_results(text: str) -> bool:
    calls = any(sign in text for sign in _TOOL_CALLS_JINJA)
    return calls and any(sign in text for sign in _TOOL_RESULT_JINJA)


def _names(tree: Templates) -> Iterator[str]:
    for nodes in (tree.main, *tree.defined.values()):
        for node in _walk(nodes):
            match node:
                case Call(_, None):
                    raise TemplateInvalid("undefined template specified")
                case Action(pipe) | Call(_, Pipe() as pipe) | Branch(pipe):
                    yield from _pipe_names(pipe)


def _walk(nodes: Nodes) -> Iterator[Node]:
    """All nodes in the order of the text."""
    for node in nodes:
        yield node
        if isinstance(node, Branch):
            yield from _walk(node.body)
            yield from _walk(node.otherwise or ())


def _pipe_names(pipe: Pipe) -> Iterator[str]:
    for operand in _operands(pipe):
        if isinstance(operand, Field | Variable):
            yield from operand.names


def _operands(pipe: Pipe) -> Iterator[Operand]:
    """All operands, those in brackets too, but not what a field is taken of: `(index .A 0).B`."""
    for command in pipe.commands:
        for operand in command.args:
            if isinstance(operand, Pipe):
                yield from _operands(operand)
            else:
                yield operand


def _starts_with(pipe: Pipe, name: str) -> bool:
    return any(isinstance(o, Field) and o.names[0] == name for o in _operands(pipe))


def _thinking_tags(main: Nodes) -> tuple[str, str]:
    """The texts around `.Thinking` in the loop over `.Messages`.

    Each mention counts, the last one decides. Its surroundings are the list of nodes it stands in,
    or the list that holds the clause whose condition it is.
    """
    opening = closing = ""
    for first, last in _thinking_places(main, in_messages=False):
        if isinstance(first, Text):
            opening = trim_space(first.text)
        if isinstance(last, Text):
            closing = trim_space(last.text)
    return opening, closing


def _thinking_places(nodes: Nodes, in_messages: bool) -> Iterator[tuple[Node, Node]]:
    for node in nodes:
        inside = in_messages
        if isinstance(node, Range):
            inside = _starts_with(node.pipe, "Messages")
        if isinstance(node, Action | Branch | Call) and node.pipe is not None:
            mentions = sum(
                isinstance(o, Field) and o.names[0] == "Thinking" for o in _operands(node.pipe)
            )
            if mentions and inside:
                yield nodes[0], nodes[-1]
        if isinstance(node, Branch):
            yield from _thinking_places(node.body, inside)
            yield from _thinking_places(node.otherwise or (), inside)


def _marker(main: Nodes) -> str:
    """The text printed before the first tool call: what tells a call from other output."""
    clause = next((n for n in _walk(main) if isinstance(n, If) and _asks_tool_calls(n.pipe)), None)
    text = _first_text(clause.body) if clause else None
    if text is None:
        return _ANY_OBJECT
    return trim_space(text.replace("\r\n", "\n").partition("{")[0]) or _ANY_OBJECT


def _asks_tool_calls(pipe: Pipe) -> bool:
    return any(
        isinstance(operand, Field) and "ToolCalls" in operand.names
        for command in pipe.commands
        for operand in command.args
    )


def _first_text(nodes: Nodes) -> str | None:
    """The first text that is not blank; None when something is printed or called before it."""
    for node in nodes:
        if isinstance(node, Text):
            if trim_space(node.text):
                return node.text
        elif isinstance(node, If | With | Range):
            text = _first_text(node.body)
            return _first_text(node.otherwise or ()) if text is None else text
        elif isinstance(node, Action):
            return None
    return None
