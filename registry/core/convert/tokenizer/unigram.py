"""Unigram out of tokenizer.json, the tokenizer of XLM-RoBERTa and T5.

Source: spec inference-and-gguf 9.4.
"""

import base64
import binascii
from typing import Any

from registry.core.convert.plan import KeyValue, array, flag
from registry.core.convert.tokenizer.vocabulary import (
    MAX_TOKENS,
    Token,
    TokenizerJson,
    TokenType,
    Vocabulary,
    in_line,
    space_prefix,
)
from registry.core.gguf import Kind

_MAX_CHARSMAP = 4 << 20


def unigram(document: TokenizerJson) -> Vocabulary:
    """Pieces with their scores, and what the normalizer does to a text before."""
    listed = document.model.get("vocab")
    if not isinstance(listed, list) or len(listed) > MAX_TOKENS:
        raise document.wrong("the model has no vocab, or one that is too large")
    unknown = document.model.get("unk_id")
    tokens = {
        number: _token(entry, number == unknown, document) for number, entry in enumerate(listed)
    }
    for number, token in document.added().items():
        if number not in tokens or tokens[number].type is not TokenType.UNKNOWN:
            score = tokens[number].score if number in tokens else token.score
            tokens[number] = Token(token.text, token.type, score)
    vocabulary = Vocabulary("t5", in_line(tokens, document.file))
    vocabulary.options += _normalizer(document)
    return vocabulary


def _token(entry: Any, unknown: bool, document: TokenizerJson) -> Token:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise document.wrong("vocab must be pairs of a piece and its score")
    score = entry[1]
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e30:
        raise document.wrong("vocab must be pairs of a piece and its score")
    return Token(entry[0], TokenType.UNKNOWN if unknown else TokenType.NORMAL, float(score))


def _normalizer(document: TokenizerJson) -> list[KeyValue]:
    options: list[KeyValue] = []
    strips = False
    for step in document.steps("normalizer", "normalizers"):
        if step.get("type") == "Precompiled":
            options += charsmap(_decoded(step.get("precompiled_charsmap"), document))
        pattern = step.get("pattern")
        if step.get("type") == "Replace" and isinstance(pattern, dict):
            strips = strips or "{2,}" in str(pattern.get("Regex", ""))
        strips = strips or step.get("type") == "Strip"
    pre = [step.get("type") for step in document.steps("pre_tokenizer", "pretokenizers")]
    strips = strips or "WhitespaceSplit" in pre
    return [space_prefix(True), flag("tokenizer.ggml.remove_extra_whitespaces", strips), *options]


def _decoded(text: Any, document: TokenizerJson) -> bytes:
    if text is None:
        return b""
    if not isinstance(text, str) or len(text) > _MAX_CHARSMAP:
        raise document.wrong("bad precompiled_charsmap")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise document.wrong("bad precompiled_charsmap") from error


def charsmap(data: bytes) -> list[KeyValue]:
    """The key of a table of replacements, none if it is empty."""
    key = "tokenizer.ggml.precompiled_charsmap"
    return [array(key, Kind.U8, tuple(data))] if data else []
