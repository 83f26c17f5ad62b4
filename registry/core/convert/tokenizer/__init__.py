"""Tokenizers: whichever of the known files a checkpoint has becomes the keys of a GGUF.

Source: spec inference-and-gguf 9.4.
"""

from collections.abc import Mapping
from typing import Any

from registry.core.convert.family import TokenizerNotes
from registry.core.convert.files import Folder
from registry.core.convert.plan import u32
from registry.core.convert.tokenizer import bpe, sentencepiece, unigram, wordpiece
from registry.core.convert.tokenizer.pretokenizers import DEFAULT
from registry.core.convert.tokenizer.specials import special_keys, template_keys
from registry.core.convert.tokenizer.vocabulary import (
    MAX_TOKENS,
    Token,
    TokenizerJson,
    TokenType,
    Vocabulary,
    added_token,
    space_prefix,
)
from registry.core.errors import CheckpointInvalid

__all__ = ["Vocabulary", "options", "vocabulary"]

_SENTENCE_PIECE = "tokenizer.model"
_XLM = "sentencepiece.bpe.model"
_SPECIALS = ("unk", "sep", "pad", "cls", "mask", "bos", "eos")


def vocabulary(folder: Folder, notes: TokenizerNotes) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Raises:
        CheckpointInvalid: there is none, or one that cannot be read.
    """
    found = _found(folder)
    if notes.add_space_prefix is not None and found.model == "llama":
        kept = [key for key in found.options if key[0] != "tokenizer.ggml.add_space_prefix"]
        found.options = [*kept, space_prefix(notes.add_space_prefix)]
    if notes.pre and found.pre == DEFAULT and found.model == "gpt2":
        found.pre, found.warnings = notes.pre, []
    for number, token in enumerate(found.tokens):
        if token.text in notes.control:
            found.tokens[number] = Token(token.text, TokenType.CONTROL, token.score)
    return found


def _found(folder: Folder) -> Vocabulary:
    values = folder.json("tokenizer.json")
    document = TokenizerJson(values) if values is not None else None
    if document is not None and document.kind == "BPE" and bpe.is_byte_level(document):
        return bpe.byte_level(document)
    if _SENTENCE_PIECE in folder:
        model = sentencepiece.read_model(folder.contents[_SENTENCE_PIECE], _SENTENCE_PIECE)
        return sentencepiece.sentence_piece(model, _added(folder, document), _SENTENCE_PIECE)
    if document is not None:
        return _of_document(document)
    if _XLM in folder:
        model = sentencepiece.read_model(folder.contents[_XLM], _XLM)
        return sentencepiece.xlm_sentence_piece(model, _XLM)
    lines = folder.text("vocab.txt")
    if lines is not None:
        return wordpiece.from_lines(lines, _special_names(folder), "vocab.txt")
    raise CheckpointInvalid("unknown tokenizer format")


def _of_document(document: TokenizerJson) -> Vocabulary:
    match document.kind:
        case "BPE":
            return bpe.by_rank(document)
        case "WordPiece":
            return wordpiece.word_piece(document)
        case "Unigram":
            return unigram.unigram(document)
    raise CheckpointInvalid("unknown tokenizer format")


def _added(folder: Folder, document: TokenizerJson | None) -> dict[int, Token]:
    """Added tokens by id from every file that may list them; the most telling last."""
    found: dict[int, Token] = {}
    for name, number in (folder.json("added_tokens.json") or {}).items():
        if type(number) is not int or not 0 <= number < MAX_TOKENS:
            raise CheckpointInvalid("added_tokens.json: bad id")
        found[number] = Token(name, TokenType.USER_DEFINED, -1000.0)
    listed = (folder.json("tokenizer_config.json") or {}).get("added_tokens_decoder")
    if isinstance(listed, dict):
        for text, entry in listed.items():
            number = int(text) if text.isdecimal() and len(text) < 10 else -1
            if isinstance(entry, dict):
                key, token = added_token(entry, number, "tokenizer_config.json")
                found[key] = token
    return found | (document.added() if document is not None else {})


def _special_names(folder: Folder) -> set[str]:
    names = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = folder.json(file) or {}
        names |= {
            value for key in _SPECIALS if isinstance(value := values.get(f"{key}_token"), str)
        }
    return names


def options(
    folder: Folder, config: Mapping[str, Any], found: Vocabulary, notes: TokenizerNotes
) -> None:
    """Add the keys about special tokens and chat templates to a vocabulary."""
    found.options += special_keys(folder, config, found, notes.embeds)
    if notes.embeds:
        types = config.get("type_vocab_size")
        if type(types) is int and 0 < types < 1 << 16:
            found.options.append(u32("tokenizer.ggml.token_type_count", types))
    found.options += template_keys(folder)
