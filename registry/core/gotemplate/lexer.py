"""Text of a Go template -> tokens, one at a time, so that the first fault met is the one reported.

A fault is a token too (`Kind.ERROR`, the message is its text): the parser knows what to add.
Lines count from 1 and are those where a token starts. Each character is looked at a bounded number
of times.

Source: package documentation of `text/template` ("Text and spaces", "Actions"); the wording of the
faults is that of Go 1.26.
"""

import re
from enum import Enum, auto
from typing import NamedTuple

from registry.core.gotext import code_point, quote

_SPACES = " \t\r\n"
_RIGHT = re.compile(r"(?:[ \t\r\n]-)?\}\}")
_SPACE_RUN = re.compile(r"[ \t\r\n]+")
_DIGITS = "[0-9_]*"
_NUMBER = re.compile(
    r"[+-]?(?:"
    rf"0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?{_DIGITS})?"
    r"|0[oO][0-7_]*(?:\.[0-7_]*)?"
    r"|0[bB][01_]*(?:\.[01_]*)?"
    rf"|{_DIGITS}(?:\.{_DIGITS})?(?:[eE][+-]?{_DIGITS})?"
    r")i?"
)
# A backslash takes the next character with it, but neither may be the end of the line.
_QUOTED = re.compile(r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"')
_CHARACTER = re.compile(r"'[^'\\\n]*(?:\\[^\n][^'\\\n]*)*'")
_RAW = re.compile(r"`[^`]*`")


class Kind(Enum):
    """What a token is."""

    ERROR = auto()
    EOF = auto()
    TEXT = auto()
    LEFT = auto()
    RIGHT = auto()
    SPACE = auto()
    BOOL = auto()
    CHAR = auto()  # punctuation that has no meaning of its own, such as a comma
    CHARACTER = auto()  # a character constant
    COMPLEX = auto()
    ASSIGN = auto()
    DECLARE = auto()
    FIELD = auto()
    IDENTIFIER = auto()
    OPEN = auto()
    CLOSE = auto()
    NUMBER = auto()
    PIPE = auto()
    RAW = auto()
    STRING = auto()
    VARIABLE = auto()
    DOT = auto()
    NIL = auto()
    BLOCK = auto()
    BREAK = auto()
    CONTINUE = auto()
    DEFINE = auto()
    ELSE = auto()
    END = auto()
    IF = auto()
    RANGE = auto()
    TEMPLATE = auto()
    WITH = auto()


KEYWORDS = {
    "block": Kind.BLOCK,
    "break": Kind.BREAK,
    "continue": Kind.CONTINUE,
    "define": Kind.DEFINE,
    "else": Kind.ELSE,
    "end": Kind.END,
    "if": Kind.IF,
    "range": Kind.RANGE,
    "nil": Kind.NIL,
    "template": Kind.TEMPLATE,
    "with": Kind.WITH,
}
_SHOWN_AS_KEYWORD = frozenset(KEYWORDS.values()) | {Kind.DOT}
_AFTER_POINT = ("", *"0123456789")  # what makes of a dot the start of a number
_LITERALS = {
    '"': (_QUOTED, Kind.STRING, "unterminated quoted string"),
    "`": (_RAW, Kind.RAW, "unterminated raw quoted string"),
    "'": (_CHARACTER, Kind.CHARACTER, "unterminated character constant"),
}


class Token(NamedTuple):
    """One token; `text` is the source text, or the message of an ERROR."""

    kind: Kind
    text: str
    line: int

    def shown(self) -> str:
        """The token as messages show it; those of ERROR and EOF have words of their own."""
        if self.kind in _SHOWN_AS_KEYWORD:
            return f"<{self.text}>"
        if len(self.text.encode("utf-8", "surrogatepass")) > 10:
            return quote(self.text[:10]) + "..."
        return quote(self.text)


def _is_word(char: str) -> bool:
    """Letters and decimal digits of any script, and the underscore; not the empty end."""
    return char.isalpha() or char.isdecimal() or char == "_"


class Lexer:
    """Reads one text; `next` after the last token gives EOF again, after an ERROR nothing sane."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0  # how far newlines have been counted
        self._inside = False
        self._open = 0

    def next(self) -> Token:
        """The next token; comments and trimmed space are passed over."""
        return self._next_inside() if self._inside else self._next_outside()

    def _take(self, kind: Kind, stop: int) -> Token:
        token = Token(kind, self._text[self._at : stop], self._line_at(self._at))
        self._at = stop
        return token

    def _line_at(self, position: int) -> int:
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line

    def _error(self, message: str) -> Token:
        return Token(Kind.ERROR, message, self._line_at(self._at))

    def _next_outside(self) -> Token:
        text = self._text
        while True:
            left = text.find("{{", self._at)
            if left < 0:
                return self._take(Kind.TEXT if self._at < len(text) else Kind.EOF, len(text))
            after = left + 2
            trims = text[after : after + 1] == "-" and text[after + 1 : after + 2] in _SPACES
            trims = trims and after + 1 < len(text)
            if left > self._at:
                token = self._text_before(left, trims)
                if token.text:
                    return token
            if trims:
                after += 2
            if not text.startswith("/*", after):
                return self._open_action(after)
            fault = self._skip_comment(after)
            if fault:
                return fault

    def _text_before(self, left: int, trims: bool) -> Token:
        token = self._take(Kind.TEXT, left)
        return token._replace(text=token.text.rstrip(_SPACES)) if trims else token

    def _open_action(self, after: int) -> Token:
        token = self._take(Kind.LEFT, self._at + 2)
        self._at = after
        self._inside = True
        self._open = 0
        return token

    def _skip_comment(self, start: int) -> Token | None:
        self._at = start
        stop = self._text.find("*/", start + 2)
        if stop < 0:
            return self._error("unclosed comment")
        right = _RIGHT.match(self._text, stop + 2)
        if right is None:
            return self._error("comment ends before closing delimiter")
        self._pass_right(right)
        return None

    def _pass_right(self, right: re.Match[str]) -> None:
        self._at = right.end()
        if len(right[0]) > 2:
            space = _SPACE_RUN.match(self._text, self._at)
            self._at = space.end() if space else self._at

    def _next_inside(self) -> Token:
        right = _RIGHT.match(self._text, self._at)
        if right is not None:
            return self._close_action(right)
        if self._at >= len(self._text):
            return self._error("unclosed action")
        char = self._text[self._at]
        if char in _SPACES:
            return self._space()
        if char in _LITERALS:
            pattern, kind, message = _LITERALS[char]
            literal = pattern.match(self._text, self._at)
            return self._take(kind, literal.end()) if literal else self._error(message)
        if char == "$":
            return self._name(Kind.VARIABLE, Kind.VARIABLE)
        if char == "." and self._text[self._at + 1 : self._at + 2] not in _AFTER_POINT:
            return self._name(Kind.FIELD, Kind.DOT)
        if char in ".+-0123456789":
            return self._number()
        return self._word() if _is_word(char) else self._punctuation(char)

    def _close_action(self, right: re.Match[str]) -> Token:
        if self._open:
            return self._error("unclosed left paren")
        self._at = right.end() - 2  # past a trim marker
        token = self._take(Kind.RIGHT, right.end())
        self._pass_right(right)
        self._inside = False
        return token

    def _space(self) -> Token:
        run = _SPACE_RUN.match(self._text, self._at)
        stop = run.end() if run else self._at
        if stop - self._at > 1 and self._text.startswith("-}}", stop):
            stop -= 1  # the last one belongs to the trim marker
        return self._take(Kind.SPACE, stop)

    def _name(self, kind: Kind, alone: Kind) -> Token:
        start = self._at + 1
        if self._ends_word(start):
            return self._take(alone, start)
        stop = self._word_end(start)
        if not self._ends_word(stop):
            return self._error(f"bad character {code_point(self._text[stop])}")
        return self._take(kind, stop)

    def _word_end(self, at: int) -> int:
        while at < len(self._text) and _is_word(self._text[at]):
            at += 1
        return at

    def _ends_word(self, at: int) -> bool:
        """Whether a name may end here: `$x+2` is kept free for a day when it means something."""
        if at >= len(self._text) or self._text[at] in " \t\r\n.,|:)(":
            return True
        return self._text.startswith("}}", at)

    def _number(self) -> Token:
        stop, good = self._scan_number(self._at)
        if not good:
            return self._bad_number(stop)
        if self._text[stop : stop + 1] not in ("+", "-"):
            return self._take(Kind.NUMBER, stop)
        stop, good = self._scan_number(stop)
        if not good or self._text[stop - 1] != "i":
            return self._bad_number(stop)
        return self._take(Kind.COMPLEX, stop)

    def _scan_number(self, at: int) -> tuple[int, bool]:
        match = _NUMBER.match(self._text, at)
        stop = match.end() if match else at
        if _is_word(self._text[stop : stop + 1]):
            return stop + 1, False
        return stop, True

    def _bad_number(self, stop: int) -> Token:
        return self._error(f"bad number syntax: {quote(self._text[self._at : stop])}")

    def _word(self) -> Token:
        stop = self._word_end(self._at)
        if not self._ends_word(stop):
            return self._error(f"bad character {code_point(self._text[stop])}")
        word = self._text[self._at : stop]
        kind = Kind.BOOL if word in ("true", "false") else Kind.IDENTIFIER
        return self._take(KEYWORDS.get(word, kind), stop)

    def _punctuation(self, char: str) -> Token:
        stop = self._at + 1
        if char == ":":
            if self._text[stop : stop + 1] != "=":
                return self._error("expected :=")
            return self._take(Kind.DECLARE, stop + 1)
        if char == "(":
            self._open += 1
        if char == ")":
            if not self._open:
                return self._error("unexpected right paren")
            self._open -= 1
        kind = {"=": Kind.ASSIGN, "|": Kind.PIPE, "(": Kind.OPEN, ")": Kind.CLOSE}.get(char)
        if kind is None and not " " < char <= "~":
            return self._error(f"unrecognized character in action: {code_point(char)}")
        return self._take(kind or Kind.CHAR, stop)
