"""Thinking told from the answer in a stream of text, by the tags around it.

The tags are those that the model's template writes around `.Thinking`. A tag may come in any number
of pieces: what could be the beginning of one is held back until it is told apart.

Source: spec inference-and-gguf 12.2, ollama-api 17.6.
"""

from dataclasses import dataclass
from enum import Enum

THINK_TAGS = ("<think>", "</think>")
"""What most models write, and what is looked for where only the engine knows the template."""


class _State(Enum):
    OPENING = 1  # nothing but white space, or the beginning of the tag, so far
    BEFORE_THINKING = 2
    THINKING = 3
    BEFORE_CONTENT = 4
    CONTENT = 5


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of text, told apart."""

    thinking: str = ""
    content: str = ""


class ThinkingParser:
    """White space after either tag is dropped; text without an opening tag is content, all of it.

    `begun` says that the prompt ended in the opening tag: the answer starts as thinking.
    """

    def __init__(self, opening: str, closing: str, *, begun: bool = False) -> None:
        self._opening = opening
        self._closing = closing
        self._state = _State.BEFORE_THINKING if begun else _State.OPENING
        self._held = ""

    @property
    def is_content(self) -> bool:
        """Whether all that follows is content."""
        return self._state is _State.CONTENT

    def feed(self, text: str) -> Told:
        """Take the next piece; what can be told by now."""
        if self._state is _State.CONTENT:
            return Told(content=text)
        text = self._held + text
        self._held = ""
        if self._state is _State.OPENING:
            bare = text.lstrip()
            if bare.startswith(self._opening):
                return self._skip(bare[len(self._opening) :])
            if self._opening.startswith(bare):  # nothing yet is also a beginning
                self._held = text
                return Told()
            self._state = _State.CONTENT
            return Told(content=text)
        if self._state is _State.BEFORE_CONTENT:
            return self._answer("", text)
        return self._skip(text) if self._state is _State.BEFORE_THINKING else self._think(text)

    def finish(self) -> Told:
        """What was held back when the text ended."""
        held, self._held = self._held, ""
        return Told(thinking=held) if self._state is _State.THINKING else Told(content=held)

    def _skip(self, text: str) -> Told:
        self._held = ""
        text = text.lstrip()
        self._state = _State.THINKING if text else _State.BEFORE_THINKING
        return self._think(text) if text else Told()

    def _think(self, text: str) -> Told:
        thinking, closing, rest = text.partition(self._closing)
        if closing:
            return self._answer(thinking, rest)
        kept = overlap(text, self._closing)
        self._held = text[len(text) - kept :]
        return Told(thinking=text[: len(text) - kept])

    def _answer(self, thinking: str, text: str) -> Told:
        text = text.lstrip()
        self._state = _State.CONTENT if text else _State.BEFORE_CONTENT
        return Told(thinking, text)


def overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` may begin `tag`, which is not complete there."""
    for length in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
