"""registry/core/convert/tokenizer/sentencepiece.py."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.convert.tokenizer import sentencepiece as module
from registry.core.convert.tokenizer.sentencepiece import (
    read_model,
    sentence_piece,
    xlm_sentence_piece,
)
from registry.core.convert.tokenizer.vocabulary import Token, TokenType
from registry.core.errors import CheckpointInvalid
from tests.support.sentencepiece import block, flag, model, number, piece

FILE = "tokenizer.model"
PIECES = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("<0x0A>", 0.0, 6),
    ("▁a", -1.5, 1),
    ("b", -2.0, 1),
]


def test_pieces_scores_and_types_are_read_as_stored() -> None:
    found = read_model(model(PIECES, prefix=False, charsmap=b"map"), FILE)
    assert [(p.text, p.score, int(p.type)) for p in found.pieces] == PIECES
    assert not found.is_unigram
    assert not found.add_space_prefix
    assert found.remove_extra_whitespaces
    assert found.charsmap == b"map"


def test_what_is_not_said_has_the_formats_defaults() -> None:
    found = read_model(block(1, block(1, b"x")), FILE)
    assert found.pieces == (Token("x", TokenType.NORMAL, 0.0),)
    assert (found.is_unigram, found.add_space_prefix, found.charsmap) == (True, True, b"")
    assert read_model(piece("x") + flag(1, 5) + block(3, flag(2, 7)), FILE).charsmap == b""


def test_unknown_fields_are_stepped_over() -> None:
    extra = (
        flag(9, 300)
        + number(8 << 3 | 1)
        + bytes(8)
        + number(7 << 3 | 5)
        + bytes(4)
        + block(6, b"?")
    )
    assert len(read_model(extra + piece("x"), FILE).pieces) == 1


BAD = {
    "empty": b"",
    "no piece": block(2, b""),
    "cut off": piece("abc")[:-3],
    "a group": number(1 << 3 | 3),
    "a number without end": b"\x80" * 20,
    "a length beyond the file": number(1 << 3 | 2) + number(1 << 40),
    "no UTF-8": piece(b"\xff"),
    "a kind that is none": piece("x", 0.0, 77),
    "a score that is no number": piece("x", float("nan")),
    "fields of other kinds": block(1, flag(1, 3)),
    "JSON": b'{"a": 1}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(CheckpointInvalid, match=r"tokenizer\.model: not a SentencePiece model"):
        read_model(BAD[name], FILE)


def test_pieces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOKENS", 2)
    with pytest.raises(CheckpointInvalid, match="more than 2 pieces"):
        read_model(piece("a") * 3, FILE)


def test_added_tokens_follow_the_pieces_or_tell_more_about_them() -> None:
    added = {
        5: Token("b", TokenType.CONTROL, -1000.0),
        2: Token("</s>", TokenType.USER_DEFINED, -1000.0),
        7: Token("<pad>", TokenType.USER_DEFINED, -1000.0),
    }
    found = sentence_piece(read_model(model(PIECES), FILE), added, FILE)
    assert found.model == "llama"
    assert [token.text for token in found.tokens[5:]] == ["b", "[PAD6]", "<pad>"]
    assert found.tokens[5] == Token("b", TokenType.CONTROL, -2.0)
    assert found.tokens[2].type is TokenType.CONTROL
    assert found.tokens[6].type is TokenType.UNUSED


def test_an_unused_piece_may_be_renamed_and_no_other() -> None:
    pieces = [*PIECES, ("<unused0>", 0.0, 5)]
    token = Token("<image>", TokenType.CONTROL, -1000.0)
    found = sentence_piece(read_model(model(pieces), FILE), {6: token}, FILE)
    assert found.tokens[6] == token
    with pytest.raises(CheckpointInvalid, match="token 5 is b, elsewhere <image>"):
        sentence_piece(read_model(model(pieces), FILE), {5: token}, FILE)


def test_a_unigram_model_keeps_what_it_does_to_texts() -> None:
    data = model(PIECES, unigram=True, strips=False, charsmap=b"\1\2")
    found = sentence_piece(read_model(data, FILE), {}, FILE)
    assert found.model == "t5"
    options = {key: entry.value for key, entry in found.options}
    assert options["tokenizer.ggml.remove_extra_whitespaces"] is False
    assert options["tokenizer.ggml.precompiled_charsmap"].values == (1, 2)  # type: ignore[union-attr]


def test_xlm_roberta_has_its_own_specials_first() -> None:
    found = xlm_sentence_piece(read_model(model(PIECES, unigram=True), FILE), FILE)
    assert [token.text for token in found.tokens] == [
        "<s>", "<pad>", "</s>", "<unk>", "<0x0A>", "▁a", "b", "<mask>",
    ]  # fmt: skip
    assert found.tokens[3].type is TokenType.UNKNOWN
    assert found.tokens[0].type is TokenType.CONTROL


@given(st.binary(max_size=100))
def test_any_bytes_are_a_model_or_one_error(data: bytes) -> None:
    with contextlib.suppress(CheckpointInvalid):
        assert read_model(data, FILE).pieces


@given(st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_a_broken_model_is_a_model_or_one_error(place: int, bits: bytes) -> None:
    data = bytearray(model(PIECES))
    data[place : place + len(bits)] = bits
    with contextlib.suppress(CheckpointInvalid):
        assert all(abs(p.score) < float("inf") for p in read_model(bytes(data), FILE).pieces)
