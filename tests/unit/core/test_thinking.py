"""Thoughts are told from answers, wherever the text is cut into pieces."""

from collections.abc import Sequence

import pytest

from registry.core.thinking import THINK_TAGS, ThinkingParser, Told, overlap

CASES = [
    ("", "", ""),
    ("hello", "", "hello"),
    ("  hello ", "", "  hello "),
    ("<think>a</think>b", "a", "b"),
    ("<think>a</think>", "a", ""),
    ("<think>a", "a", ""),
    ("<think>", "", ""),
    (" \n<think> \n a b \n</think> \n c \n", "a b \n", "c \n"),
    ("<think></think>b", "", "b"),
    ("<think> </think> b", "", "b"),
    ("<think>a</thin b</think>c", "a</thin b", "c"),
    ("<think>a<</</think>c", "a<</", "c"),
    ("<think>a</thin", "a</thin", ""),
    ("<thin", "", "<thin"),
    ("<thin king", "", "<thin king"),
    ("x <think>a</think>", "", "x <think>a</think>"),
    ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
    ("<think>a</think></think>b", "a", "</think>b"),
    ("<think><think>a</think>b", "<think>a", "b"),
    ("   ", "", "   "),
]


def told(parser: ThinkingParser, pieces: Sequence[str]) -> Told:
    parts = [parser.feed(piece) for piece in pieces] + [parser.finish()]
    return Told("".join(p.thinking for p in parts), "".join(p.content for p in parts))


@pytest.mark.parametrize(("text", "thinking", "content"), CASES)
def test_any_two_cuts_tell_the_same(text: str, thinking: str, content: str) -> None:
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            pieces = [text[:first], text[first:second], text[second:]]
            assert told(ThinkingParser(*THINK_TAGS), pieces) == Told(thinking, content)
    assert told(ThinkingParser(*THINK_TAGS), list(text)) == Told(thinking, content)


@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ("a</think>b", "a", "b"),
        (" \n a</think> b", "a", "b"),
        ("</think>b", "", "b"),
        ("a", "a", ""),
        ("", "", ""),
    ],
)
def test_a_prompt_that_opened_the_tag_starts_in_thought(
    text: str, thinking: str, content: str
) -> None:
    for pieces in ([text], list(text)):
        assert told(ThinkingParser(*THINK_TAGS, begun=True), pieces) == Told(thinking, content)


def test_nothing_is_held_back_longer_than_it_must() -> None:
    parser = ThinkingParser(*THINK_TAGS)
    steps = [
        ("<", Told()),
        ("think>a", Told("a")),
        ("b<", Told("b")),
        ("c", Told("<c")),
        ("</think>", Told()),
        (" ", Told()),
        ("d", Told(content="d")),
        ("<think>", Told(content="<think>")),
    ]
    for piece, expected in steps:
        assert parser.feed(piece) == expected


def test_it_says_when_only_content_can_follow() -> None:
    parser = ThinkingParser(*THINK_TAGS)
    seen = []
    for piece in ("<think>a", "</think>", " ", "b"):
        parser.feed(piece)
        seen.append(parser.is_content)
    assert seen == [False, False, False, True]


def test_other_tags_serve_as_well() -> None:
    parser = ThinkingParser("<|channel>thought\n", "<channel|>")
    assert told(parser, list("<|channel>thought\nx<channel|>y")) == Told("x", "y")


@pytest.mark.parametrize(
    ("text", "tag", "expected"),
    [("", "<a>", 0), ("x", "<a>", 0), ("x<", "<a>", 1), ("x<a", "<a>", 2), ("<<", "<<<", 2)],
)
def test_the_overlap_is_the_longest_beginning(text: str, tag: str, expected: int) -> None:
    assert overlap(text, tag) == expected
