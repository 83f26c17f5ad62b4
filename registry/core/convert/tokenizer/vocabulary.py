"""A vocabulary as the GGUF holds it: tokens by id, with types and scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from registry.core.convert.documents import shown
from registry.core.convert.plan import KeyValue, array, flag, text
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Kind

MAX_TOKENS = 2_000_000
MAX_TOKEN = 8192
"""Characters of a token."""


class TokenType(IntEnum):
    """What a token is; the engine's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Token:
    """A token; the score orders merges where there is no list of them."""

    text: str
    type: TokenType = TokenType.NORMAL
    score: float = 0.0


@dataclass(slots=True)
class Vocabulary:
    """Tokens by id, `model` as the engine names the algorithm, and what else it wants to know."""

    model: str
    tokens: list[Token]
    pre: str = "default"
    merges: list[str] = field(default_factory=list)
    scored: bool = True
    options: list[KeyValue] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def ids(self) -> dict[str, int]:
        """The id of each token's text."""
        return {token.text: number for number, token in enumerate(self.tokens)}

    def pad(self, size: int) -> None:
        """Name the rows of an embedding that no token uses."""
        missing = range(size - len(self.tokens))
        self.tokens += [Token(f"[PAD{number}]", TokenType.UNUSED, -1.0) for number in missing]

    def entries(self) -> list[KeyValue]:
        """The keys of the GGUF."""
        at = "tokenizer.ggml."
        types = [int(token.type) for token in self.tokens]
        found = [
            text(f"{at}model", self.model),
            text(f"{at}pre", self.pre),
            array(f"{at}tokens", Kind.STRING, [token.text for token in self.tokens]),
            array(f"{at}token_type", Kind.I32, types),
        ]
        if self.scored:
            found.append(array(f"{at}scores", Kind.F32, [token.score for token in self.tokens]))
        if self.merges:
            found.append(array(f"{at}merges", Kind.STRING, self.merges))
        return [*found, *self.options]


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """A tokenizer.json, of which nothing is known to be as it should."""

    values: Mapping[str, Any]
    file: str = "tokenizer.json"

    def wrong(self, words: str) -> CheckpointInvalid:
        """The error of a file that cannot be read."""
        return CheckpointInvalid(f"{self.file}: {words}")

    @property
    def model(self) -> Mapping[str, Any]:
        """The object `model`."""
        found = self.values.get("model")
        return found if isinstance(found, dict) else {}

    @property
    def kind(self) -> str:
        """`BPE`, `WordPiece`, `Unigram`; older files leave it out where the others tell."""
        kind = self.model.get("type")
        if isinstance(kind, str):
            return kind
        if "merges" in self.model:
            return "BPE"
        return "Unigram" if isinstance(self.model.get("vocab"), list) else "WordPiece"

    def steps(self, name: str, inner: str) -> list[Mapping[str, Any]]:
        """The steps of the normalizer or another part, sequences undone."""
        found: list[Mapping[str, Any]] = []
        waiting = [self.values.get(name)]
        while waiting:
            step = waiting.pop(0)
            if not isinstance(step, dict):
                continue
            within = step.get(inner)
            if step.get("type") == "Sequence" and isinstance(within, list):
                waiting = [*within, *waiting]
            else:
                found.append(step)
            if len(found) > 1000:
                raise self.wrong(f"more than 1000 steps in {name}")
        return found

    def vocab(self) -> dict[int, str]:
        """The model's own tokens by id.

        Raises:
            CheckpointInvalid: not a table of names and numbers, or a number twice.
        """
        table = self.model.get("vocab")
        if not isinstance(table, dict) or len(table) > MAX_TOKENS:
            raise self.wrong("the model has no vocab, or one that is too large")
        found: dict[int, str] = {}
        for name, number in table.items():
            if type(number) is not int or not 0 <= number < MAX_TOKENS:
                raise self.wrong(f"token {shown(name)} has no proper id")
            if number in found:
                raise self.wrong(
                    f"tokens {shown(found[number])} and {shown(name)} have one id, {number}"
                )
            found[number] = name
        return found

    def added(self) -> dict[int, Token]:
        """The tokens added to the model's by id: control tokens if special, else the user's."""
        listed = self.values.get("added_tokens") or []
        if not isinstance(listed, list) or len(listed) > MAX_TOKENS:
            raise self.wrong("bad added_tokens")
        return dict(added_token(entry, entry.get("id"), self.file) for entry in _objects(listed))


def _objects(listed: list[Any]) -> list[Mapping[str, Any]]:
    return [entry for entry in listed if isinstance(entry, dict)]


def added_token(entry: Mapping[str, Any], number: object, file: str) -> tuple[int, Token]:
    """Id and token of an entry of `added_tokens`.

    Raises:
        CheckpointInvalid: it has no text or no proper id.
    """
    content = entry.get("content")
    if not isinstance(content, str) or type(number) is not int or not 0 <= number < MAX_TOKENS:
        raise CheckpointInvalid(f"{file}: bad entry in added_tokens")
    special = entry.get("special") is True
    kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
    return number, Token(content, kind, -1000.0)


def in_line(tokens: Mapping[int, Token], file: str) -> list[Token]:
    """Tokens by id as a list; ids that nobody has are named as unused.

    Raises:
        CheckpointInvalid: there are none, holes without end, or one that is no Unicode.
    """
    if not tokens:
        raise CheckpointInvalid(f"{file}: no tokens")
    size = max(tokens) + 1
    if size > 2 * len(tokens) + 65_536:
        raise CheckpointInvalid(f"{file}: {len(tokens)} tokens have ids up to {size - 1}")
    unused = (Token(f"[PAD{number}]", TokenType.UNUSED, -1.0) for number in range(size))
    listed = [tokens.get(number, filler) for number, filler in enumerate(unused)]
    for number, token in enumerate(listed):
        if len(token.text) > MAX_TOKEN or not _is_unicode(token.text):
            raise CheckpointInvalid(f"{file}: token {number} is no text or too long")
    return listed


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    return not any("\ud800" <= character <= "\udfff" for character in text)


def space_prefix(value: bool) -> KeyValue:
    """Whether a space is put before a text."""
    return flag("tokenizer.ggml.add_space_prefix", value)
