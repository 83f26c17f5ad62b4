"""Tool calls are told from answers, wherever the text is cut into pieces."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from registry.core.toolcalls import Parsed, ToolCallParser
from registry.core.wishes import ToolCall

NAMES = ("get", "get_weather", "say_hello", "add")
PARIS = {"city": "Paris"}
WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
Calls = list[tuple[str, Any]]


def numbered() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def parsed(
    marker: str, pieces: Sequence[str], names: Sequence[str] = NAMES
) -> tuple[str, tuple[ToolCall, ...]]:
    parser = ToolCallParser(marker, names, numbered())
    parts = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    calls = tuple(call for part in parts for call in part.calls)
    return "".join(part.content for part in parts), calls


CASES: list[tuple[str, str, str, Calls]] = [
    ("<tool_call>", "hello", "hello", []),
    ("<tool_call>", f"<tool_call>{WEATHER}</tool_call>", "", [("get_weather", PARIS)]),
    ("<tool_call>", f"Sure. <tool_call>{WEATHER}", "Sure. ", [("get_weather", PARIS)]),
    (
        "<tool_call>",
        f"<tool_call>\n{WEATHER}\n</tool_call>\n<tool_call>\n"
        '{"name": "add", "parameters": {"a": 1, "b": 2.5}}\n</tool_call>',
        "",
        [("get_weather", PARIS), ("add", {"a": 1, "b": 2.5})],
    ),
    ("<tool_call>", "a <tool_ b <tool", "a <tool_ b <tool", []),
    ("<tool_call>", "a <tool_call>no call", "a <tool_call>no call", []),
    ("<tool_call>", '<tool_call>{"name": "nobody"}', '<tool_call>{"name": "nobody"}', []),
    ("<tool_call>", '<tool_call>{"name": "say_hello"}', "", [("say_hello", {})]),
    (
        "<tool_call>",
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}',
        "",
        [("add", {"a": 1})],
    ),
    ("<tool_call>", '<tool_call>{"name": "add", "arguments": "no"}', "", [("add", {})]),
    ("<tool_call>", '<tool_call>{"get_weather": {"city": "Paris"}}', "", [("get_weather", PARIS)]),
    (
        "<tool_call>",
        '<tool_call>{"tool_calls": [{"name": "get", "arguments": {"x": "}{\\"]"}}, '
        '{"function": {"name": "add", "arguments": {}}}]}',
        "",
        [("get", {"x": '}{"]'}), ("add", {})],
    ),
    (
        "[TOOL_CALLS]",
        f"[TOOL_CALLS] [{WEATHER}, {WEATHER}]",
        "",
        [("get_weather", PARIS), ("get_weather", PARIS)],
    ),
    (
        "[TOOL_CALLS]",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get{"a": 1}',
        "",
        [("get_weather", PARIS), ("get", {"a": 1})],
    ),
    ("<f", '<function=get_weather>{"city": "Paris"}</function>', "", [("get_weather", PARIS)]),
    ("<f", '<f get {"city": "Paris"', '<f get {"city": "Paris"', []),
    ("<f", "<f {'python': 1} " + WEATHER, "", [("get_weather", PARIS)]),
    ("<f", "<f } ] \\ " + WEATHER, "", [("get_weather", PARIS)]),
    ("<f", '<f {"other": [1, "get", null]} ' + WEATHER, "", [("get_weather", PARIS)]),
    ("{", WEATHER, "", [("get_weather", PARIS)]),
    ("{", "\n " + WEATHER + "\n", "\n ", [("get_weather", PARIS)]),
    ("{", "I say " + WEATHER, "I say " + WEATHER, []),
    ("{", '{"answer": 42} and more', '{"answer": 42} and more', []),
    ("{", '{"answer": "}\\"}"} more', '{"answer": "}\\"}"} more', []),
    ("{", '{"answer": ', '{"answer": ', []),
    ("{", f"{WEATHER}; {WEATHER}", "", [("get_weather", PARIS), ("get_weather", PARIS)]),
    ("[", f"[{WEATHER}]", "", [("get_weather", PARIS)]),
    ("[", '[1, "]", [2]] end', '[1, "]", [2]] end', []),
    ("[", "[]", "[]", []),
    ("[", "see [1]", "see [1]", []),
]


@pytest.mark.parametrize(("marker", "text", "content", "calls"), CASES)
def test_any_two_cuts_tell_the_same(marker: str, text: str, content: str, calls: Calls) -> None:
    expected = tuple(
        ToolCall(name, arguments, f"call_{index}", index)
        for index, (name, arguments) in enumerate(calls)
    )
    cuts = [(a, b) for a in range(len(text) + 1) for b in range(a, len(text) + 1)]
    for first, second in cuts[:: 1 + len(cuts) // 500]:
        pieces = [text[:first], text[first:second], text[second:]]
        assert parsed(marker, pieces) == (content, expected)
    assert parsed(marker, list(text)) == (content, expected)


def test_a_call_is_told_as_soon_as_it_is_complete() -> None:
    parser = ToolCallParser("<t>", NAMES, numbered())
    assert parser.feed("well <") == Parsed("well ")
    assert parser.feed("t>" + WEATHER[:-1]) == Parsed()
    assert parser.feed("}") == Parsed(calls=(ToolCall("get_weather", PARIS, "call_0", 0),))
    assert parser.finish() == Parsed()


def test_what_follows_content_without_calls_is_passed_at_once() -> None:
    parser = ToolCallParser("{", NAMES, numbered())
    assert parser.feed("No.") == Parsed("No.")
    assert parser.feed(WEATHER) == Parsed(WEATHER)


def test_arguments_keep_the_order_of_their_keys() -> None:
    _, (call,) = parsed("<t>", ['<t>{"name": "add", "arguments": {"b": 1, "a": 2, "c": 3}}'])
    assert list(call.arguments or {}) == ["b", "a", "c"]


def test_without_tools_nothing_is_a_call() -> None:
    assert parsed("<t>", ["<t>" + WEATHER + ' get {"a": 1}'], names=()) == (
        "<t>" + WEATHER + ' get {"a": 1}',
        (),
    )


def test_a_call_without_end_becomes_content_and_costs_no_more_than_its_length() -> None:
    parser = ToolCallParser("<t>", NAMES, numbered())
    piece = '{"a": [' * 1000
    told = [parser.feed("<t>").content, *(parser.feed(piece).content for _ in range(200))]
    assert "".join(told) + parser.finish().content == "<t>" + piece * 200


def test_deep_nesting_is_searched_only_so_far() -> None:
    text = '{"a": ' * 30 + WEATHER + "}" * 30
    assert parsed("<t>", ["<t>" + text]) == ("<t>" + text, ())
