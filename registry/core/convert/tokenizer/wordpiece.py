"""WordPiece, Bert's tokenizer. Source: spec inference-and-gguf 9.4."""

from collections.abc import Collection, Iterator

from registry.core.convert.plan import KeyValue, flag
from registry.core.convert.tokenizer.vocabulary import (
    MAX_TOKENS,
    Token,
    TokenizerJson,
    TokenType,
    Vocabulary,
    in_line,
)
from registry.core.errors import CheckpointInvalid

_START = "\u2581"
_INSIDE = "##"


def word_piece(document: TokenizerJson) -> Vocabulary:
    """The engine marks the pieces that begin a word, the file those that do not."""
    added = document.added()
    unknown = document.model.get("unk_token")
    tokens = {
        number: _token(name, name == unknown) for number, name in document.vocab().items()
    } | added
    vocabulary = _vocabulary(tokens, document.file)
    vocabulary.options += _normalizer(document)
    return vocabulary


def from_lines(lines: str, special: Collection[str], file: str) -> Vocabulary:
    """A vocabulary out of vocab.txt: one piece a line, the specials known from elsewhere.

    Raises:
        CheckpointInvalid: too many lines, or none.
    """
    names = lines.removesuffix("\n").split("\n")
    if len(names) > MAX_TOKENS:
        raise CheckpointInvalid(f"{file}: more than {MAX_TOKENS} lines")
    tokens = {}
    for number, line in enumerate(names):
        name = line.rstrip("\r")
        control = name in special
        tokens[number] = Token(name, TokenType.CONTROL, -1000.0) if control else _token(name, False)
    return _vocabulary(tokens, file)


def _vocabulary(tokens: dict[int, Token], file: str) -> Vocabulary:
    return Vocabulary("bert", in_line(tokens, file), scored=False)


def _token(name: str, unknown: bool) -> Token:
    if unknown:
        return Token(name, TokenType.UNKNOWN)
    if name.startswith(_INSIDE) and len(name) > len(_INSIDE):
        return Token(name.removeprefix(_INSIDE))
    return Token(_START + name)


def _normalizer(document: TokenizerJson) -> Iterator[KeyValue]:
    """Whether case and accents are taken away; of older engines the answer is always yes."""
    for step in document.steps("normalizer", "normalizers"):
        if step.get("type") == "BertNormalizer":
            lowers = step.get("lowercase") is not False
            strips = step.get("strip_accents")
            at = "tokenizer.ggml.normalizer."
            yield flag(f"{at}lowercase", lowers)
            yield flag(f"{at}strip_accents", strips if isinstance(strips, bool) else lowers)
