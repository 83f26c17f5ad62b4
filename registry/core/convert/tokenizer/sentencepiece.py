"""SentencePiece models: the protobuf read without a library, as its few fields need no more.

Source: sentencepiece_model.proto (ModelProto 1 pieces, 2 trainer_spec, 3 normalizer_spec);
protobuf encoding; spec inference-and-gguf 9.4.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from registry.core.convert.documents import shown
from registry.core.convert.plan import KeyValue, flag
from registry.core.convert.tokenizer.unigram import charsmap
from registry.core.convert.tokenizer.vocabulary import (
    MAX_TOKENS,
    Token,
    TokenType,
    Vocabulary,
    in_line,
    space_prefix,
)
from registry.core.errors import CheckpointInvalid

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNIGRAM = 1
_XLM_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


@dataclass(frozen=True, slots=True)
class Model:
    """What a model file says, as far as it matters here."""

    pieces: tuple[Token, ...]
    is_unigram: bool
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    charsmap: bytes


def read_model(data: bytes, file: str) -> Model:
    """Read a SentencePiece model.

    Raises:
        CheckpointInvalid: it is none.
    """
    pieces: list[Token] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for field, value in _fields(memoryview(data)):
            if field == 1 and isinstance(value, memoryview):
                pieces.append(_piece(value))
            elif field == 2 and isinstance(value, memoryview):
                trainer = _last(value)
            elif field == 3 and isinstance(value, memoryview):
                normalizer = _last(value)
            if len(pieces) > MAX_TOKENS:
                raise CheckpointInvalid(f"{file}: more than {MAX_TOKENS} pieces")
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointInvalid(f"{file}: not a SentencePiece model") from error
    if not pieces:
        raise CheckpointInvalid(f"{file}: not a SentencePiece model")
    table = normalizer.get(2, b"")
    return Model(
        pieces=tuple(pieces),
        is_unigram=trainer.get(3, _UNIGRAM) == _UNIGRAM,
        add_space_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        charsmap=bytes(table) if isinstance(table, bytes) else b"",
    )


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message. Raises ValueError or IndexError."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            value = data[at : at + length]
            at += length
        elif kind in {_FIXED32, _FIXED64}:
            length = 4 if kind == _FIXED32 else 8
            value = data[at : at + length]
            at += length
        else:
            raise ValueError("a kind of field that is not used any more")
        if at > size:
            raise ValueError("cut off")
        yield tag >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number too long")


def _last(data: memoryview) -> dict[int, int | bytes]:
    """The fields of a message; of one given twice the last counts."""
    return {
        number: bytes(value) if isinstance(value, memoryview) else value
        for number, value in _fields(data)
    }


def _piece(data: memoryview) -> Token:
    found = _last(data)
    text, score, kind = found.get(1, b""), found.get(2, b"\0\0\0\0"), found.get(3, 1)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece of other kinds of fields")
    (number,) = struct.unpack("<f", score)
    if not isfinite(number):
        raise ValueError("a score that is no number")
    return Token(text.decode(), TokenType(kind), number)


def sentence_piece(model: Model, added: Mapping[int, Token], file: str) -> Vocabulary:
    """The vocabulary of a decoder's tokenizer.model; `added` are tokens by id from other files.

    Raises:
        CheckpointInvalid: an added token has the id of a different piece.
    """
    tokens = dict(enumerate(model.pieces))
    for number, token in added.items():
        piece = tokens.get(number)
        if piece is None:
            tokens[number] = token
        elif piece.text == token.text and piece.type is TokenType.NORMAL:
            tokens[number] = Token(piece.text, token.type, piece.score)
        elif piece.text != token.text and piece.type not in {
            TokenType.UNUSED,
            TokenType.USER_DEFINED,
        }:
            raise CheckpointInvalid(
                f"{file}: token {number} is {shown(piece.text)}, elsewhere {shown(token.text)}"
            )
        elif piece.text != token.text:
            tokens[number] = token
    vocabulary = Vocabulary("t5" if model.is_unigram else "llama", in_line(tokens, file))
    vocabulary.options = [space_prefix(model.add_space_prefix)]
    if model.is_unigram:
        vocabulary.options += _unigram_options(model)
    return vocabulary


def xlm_sentence_piece(model: Model, file: str) -> Vocabulary:
    """The vocabulary of XLM-RoBERTa, whose ids are not those of its model file.

    Four specials come first, the model's pieces from its fourth on follow, and a mask ends it.
    """
    specials = [
        Token(name, TokenType.UNKNOWN if name == "<unk>" else TokenType.CONTROL)
        for name in _XLM_SPECIALS
    ]
    tokens = [*specials, *model.pieces[3:], Token("<mask>", TokenType.CONTROL)]
    vocabulary = Vocabulary("t5", in_line(dict(enumerate(tokens)), file))
    vocabulary.options = [space_prefix(model.add_space_prefix), *_unigram_options(model)]
    return vocabulary


def _unigram_options(model: Model) -> list[KeyValue]:
    strips = flag("tokenizer.ggml.remove_extra_whitespaces", model.remove_extra_whitespaces)
    return [strips, *charsmap(model.charsmap)]
