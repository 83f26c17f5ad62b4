"""BPE out of tokenizer.json: over bytes, or over characters as SentencePiece has it.

Source: spec inference-and-gguf 9.4.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from registry.core.convert.tokenizer.pretokenizers import pre_tokenizer
from registry.core.convert.tokenizer.vocabulary import (
    MAX_TOKENS,
    Token,
    TokenizerJson,
    TokenType,
    Vocabulary,
    in_line,
    space_prefix,
)

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_SPACE = "\u2581"  # stands for a space in SentencePiece's vocabularies
_BYTE_SPACE = "\u0120"  # stands for one in vocabularies over bytes


def is_byte_level(document: TokenizerJson) -> bool:
    """Whether its BPE is over bytes: a step of the kind says so, in either direction."""
    steps = [
        *document.steps("pre_tokenizer", "pretokenizers"),
        *document.steps("decoder", "decoders"),
    ]
    return any(step.get("type") == "ByteLevel" for step in steps)


def byte_level(document: TokenizerJson) -> Vocabulary:
    """The vocabulary of a BPE over bytes. Scores mean nothing here; Ollama's files have them."""
    added = document.added()
    tokens = {number: Token(name) for number, name in document.vocab().items()} | added
    pre, warning = pre_tokenizer(document)
    listed = [
        Token(token.text, token.type, float(number))
        for number, token in enumerate(in_line(tokens, document.file))
    ]
    merges = [f"{left} {right}" for left, right in _merges(document, _BYTE_SPACE)]
    return Vocabulary("gpt2", listed, pre, merges, warnings=[warning] if warning else [])


def by_rank(document: TokenizerJson) -> Vocabulary:
    """The vocabulary of a SentencePiece BPE whose scores are lost: the merges' order gives them.

    The engine joins the two neighbours whose joint token has the highest score, a merge list those
    that stand first in it: minus the rank is a score. A token that no merge makes comes after all.
    """
    names = document.vocab()
    ranks = _ranks(document, names)
    unknown = document.model.get("unk_token")
    tokens: dict[int, Token] = {}
    for number, name in names.items():
        kind = TokenType.NORMAL
        if _BYTE.fullmatch(name):
            kind = TokenType.BYTE
        elif name == unknown:
            kind = TokenType.UNKNOWN
        tokens[number] = Token(name, kind, -float(ranks[number]))
    for number, token in document.added().items():
        if number not in tokens or tokens[number].type is TokenType.NORMAL:
            tokens[number] = token
    options = [space_prefix(_prepends(document))]
    return Vocabulary("llama", in_line(tokens, document.file), options=options)


def _ranks(document: TokenizerJson, names: Mapping[int, str]) -> dict[int, int]:
    """The rank of the first merge that makes each token, or one beyond all of them."""
    ids = document.model["vocab"]
    found: dict[int, int] = {}
    rank = -1
    for rank, (left, right) in enumerate(_merges(document, _SPACE)):
        number = ids.get(left + right)
        if number is not None:
            found.setdefault(number, rank)
    return {number: found.get(number, rank + 1 + number) for number in names}


def _prepends(document: TokenizerJson) -> bool:
    """Whether a text gets a space in front."""
    if any(step.get("type") == "Prepend" for step in document.steps("normalizer", "normalizers")):
        return True
    for step in document.steps("pre_tokenizer", "pretokenizers"):
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme")
            if scheme is None:
                return step.get("add_prefix_space") is not False
            return scheme in {"first", "always"}
    return False


def _merges(document: TokenizerJson, space: str) -> Iterator[tuple[str, str]]:
    """The pairs in order; a space inside a part becomes the sign that stands for it."""
    listed = document.model.get("merges") or []
    if not isinstance(listed, list) or len(listed) > MAX_TOKENS:
        raise document.wrong("merges are no list, or too many")
    return (_pair(entry, document, space) for entry in listed)


def _pair(entry: Any, document: TokenizerJson, space: str) -> tuple[str, str]:
    if isinstance(entry, str):
        left, _, right = entry.partition(" ")
    elif isinstance(entry, list) and len(entry) == 2 and _are_texts(entry):
        left, right = (part.replace(" ", space) for part in entry)
    else:
        left = right = ""
    if not left or not right:
        raise document.wrong("merges must be pairs of texts")
    return left, right


def _are_texts(entry: list[Any]) -> bool:
    return all(isinstance(part, str) for part in entry)
