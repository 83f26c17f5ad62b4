"""registry/core/convert/tokenizer: from files to the keys of a GGUF."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.convert.family import TokenizerNotes
from registry.core.convert.files import Folder
from registry.core.convert.tokenizer import options, vocabulary, wordpiece
from registry.core.convert.tokenizer.pretokenizers import KNOWN, pre_tokenizer
from registry.core.convert.tokenizer.vocabulary import (
    Token,
    TokenizerJson,
    TokenType,
    Vocabulary,
    in_line,
)
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Array
from tests.support.sentencepiece import model as sentencepiece_model

NOTES = TokenizerNotes()
MANY: list[Any] = [{}] * 1001
ENCODER = TokenizerNotes(embeds=True)
DATA = Path(__file__).parents[4] / "data"


def byte_level(**changes: Any) -> dict[str, Any]:
    values = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
        "added_tokens": [
            {"id": 3, "content": "<|end|>", "special": True},
            {"id": 4, "content": "<user>", "special": False},
        ],
        "pre_tokenizer": {"type": "ByteLevel"},
    }
    return {**values, **changes}


def bpe(vocab: Any, merges: Any = (), **changes: Any) -> dict[str, Any]:
    return byte_level(model={"type": "BPE", "vocab": vocab, "merges": list_or(merges)}, **changes)


def list_or(value: Any) -> Any:
    return [] if value == () else value


def folder(tokenizer: Any = None, **files: Any) -> Folder:
    contents = {name: json.dumps(value).encode() for name, value in named(files).items()}
    if tokenizer is not None:
        contents["tokenizer.json"] = json.dumps(tokenizer).encode()
    return Folder(contents)


def named(files: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.json": value for name, value in files.items()}


def keys(
    found: Folder, config: dict[str, Any] | None = None, notes: TokenizerNotes = NOTES
) -> dict[str, Any]:
    words = vocabulary(found, notes)
    options(found, config or {}, words, notes)
    return {
        key.removeprefix("tokenizer.ggml."): list(entry.value.values)
        if isinstance(entry.value, Array)
        else entry.value
        for key, entry in words.entries()
    }


def test_bpe_over_bytes_has_merges_types_and_the_name_of_its_expressions() -> None:
    found = keys(folder(byte_level()))
    assert found["model"] == "gpt2"
    assert found["pre"] == "gpt-2"
    assert found["tokens"] == ["a", "b", "ab", "<|end|>", "<user>"]
    assert found["token_type"] == [1, 1, 1, 3, 4]
    assert found["merges"] == ["a b"]
    assert found["scores"] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_merges_may_be_pairs_in_which_a_space_is_spelt_otherwise() -> None:
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", " b"]]}
    assert keys(folder(byte_level(model=model)))["merges"] == ["a Ġb"]


def test_a_sequence_of_steps_is_undone() -> None:
    steps = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]},
            {"type": "ByteLevel"},
            7,
        ],
    }
    assert keys(folder(byte_level(pre_tokenizer=steps)))["pre"] == "starcoder"


def test_a_pre_tokenizer_is_known_by_its_expressions() -> None:
    recorded = json.loads((DATA / "pre-tokenizers.json").read_text())["table"]
    assert {row["sha256"]: row["pre"] for row in recorded} == KNOWN
    for row in recorded:
        steps = [{"type": "Split", "pattern": {"Regex": one}} for one in row["split_regexes"] or []]
        document = TokenizerJson({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}})
        if steps:
            assert pre_tokenizer(document) == (row["pre"], "")


def test_one_that_is_unknown_is_written_as_default_with_a_warning() -> None:
    steps = {"type": "Split", "pattern": {"Regex": "x+"}}
    name, warning = pre_tokenizer(TokenizerJson({"pre_tokenizer": steps}))
    assert name == "default"
    assert "unknown to the engine" in warning
    assert pre_tokenizer(TokenizerJson({})) == ("default", "")
    assert pre_tokenizer(TokenizerJson({"pre_tokenizer": {"type": "Split", "pattern": 3}})) == (
        "default",
        "",
    )
    split = {"type": "Split", "pattern": {"Regex": "x+"}}
    both = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]}
    assert vocabulary(folder(byte_level(pre_tokenizer=both)), NOTES).warnings


def by_characters(**changes: Any) -> dict[str, Any]:
    values = {
        "model": {
            "type": "BPE", "byte_fallback": True, "unk_token": "<unk>",
            "vocab": {
                "<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "b": 5, "ab": 6,
                "▁ab": 7, "odd": 8,
            },
            "merges": [["a", "b"], ["▁", "ab"], ["▁a", "b"], ["b", "b"]],
        },
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 1, "content": "<s>", "special": True},
            {"id": 9, "content": "<new>", "special": False},
        ],
        "normalizer": {"type": "Prepend", "prepend": "▁"},
    }  # fmt: skip
    return {**values, **changes}


def test_scores_of_a_sentencepiece_bpe_are_the_ranks_of_its_merges() -> None:
    found = keys(folder(by_characters()))
    assert found["model"] == "llama"
    assert found["add_space_prefix"] is True
    assert found["token_type"] == [2, 3, 6, 1, 1, 1, 1, 1, 1, 4]
    assert found["scores"][6] == 0.0
    assert found["scores"][7] == -1.0
    assert found["scores"][8] < -4
    assert found["unknown_token_id"] == 0


@pytest.mark.parametrize(
    ("step", "prepends"),
    [
        ({"type": "Metaspace"}, True),
        ({"type": "Metaspace", "add_prefix_space": False}, False),
        ({"type": "Metaspace", "prepend_scheme": "first"}, True),
        ({"type": "Metaspace", "prepend_scheme": "always"}, True),
        ({"type": "Metaspace", "prepend_scheme": "never"}, False),
        ({"type": "Split"}, False),
        (None, False),
    ],
)
def test_a_space_in_front_is_told_by_a_step(step: Any, prepends: bool) -> None:
    tokenizer = by_characters(normalizer=None, pre_tokenizer=step)
    assert keys(folder(tokenizer))["add_space_prefix"] is prepends


def test_a_family_may_know_better() -> None:
    notes = TokenizerNotes(add_space_prefix=False, control=frozenset({"ab"}))
    found = keys(folder(by_characters()), notes=notes)
    assert found["add_space_prefix"] is False
    assert found["token_type"][6] == TokenType.CONTROL


def test_a_model_file_is_taken_before_a_description_of_it() -> None:
    data = sentencepiece_model([("<unk>", 0, 2), ("a", -7.5, 1)])
    added = {"added_tokens_decoder": {"2": {"content": "<x>", "special": True}, "3": 5}}
    contents = {
        "tokenizer.model": data,
        "tokenizer.json": json.dumps(by_characters(added_tokens=[])).encode(),
        "added_tokens.json": b'{"<y>": 3}',
        "tokenizer_config.json": json.dumps(added).encode(),
    }
    found = keys(Folder(contents))
    assert found["tokens"] == ["<unk>", "a", "<x>", "<y>"]
    assert found["token_type"] == [2, 1, 3, 4]
    assert found["scores"][1] == -7.5
    over_bytes = Folder({**contents, "tokenizer.json": json.dumps(byte_level()).encode()})
    assert keys(over_bytes)["model"] == "gpt2"


def test_a_model_file_alone_will_do() -> None:
    found = keys(Folder({"tokenizer.model": sentencepiece_model([("a", -7.5, 1)])}))
    assert found["tokens"] == ["a"]


@pytest.mark.parametrize("number", ['"3"', "-1", "1e9", "99999999", "true"])
def test_added_tokens_need_proper_ids(number: str) -> None:
    contents = {
        "tokenizer.model": sentencepiece_model([("a", 0, 1)]),
        "added_tokens.json": f'{{"<y>": {number}}}'.encode(),
    }
    with pytest.raises(CheckpointInvalid, match=r"added_tokens\.json: bad id"):
        vocabulary(Folder(contents), NOTES)


@pytest.mark.parametrize(
    "entry", [{"x": {"content": "a"}}, {"99999999999": {"content": "a"}}, {"1": {}}]
)
def test_an_added_tokens_decoder_needs_them_too(entry: Any) -> None:
    contents = {
        "tokenizer.model": sentencepiece_model([("a", 0, 1)]),
        "tokenizer_config.json": json.dumps({"added_tokens_decoder": entry}).encode(),
    }
    with pytest.raises(CheckpointInvalid, match=r"tokenizer_config\.json: bad entry"):
        vocabulary(Folder(contents), NOTES)


# WordPiece

WORDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "##b": 5, "##": 6}


def word_piece(**changes: Any) -> dict[str, Any]:
    values = {
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": WORDS},
        "added_tokens": [{"id": 2, "content": "[CLS]", "special": True}],
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
    }
    return {**values, **changes}


def test_pieces_that_begin_a_word_are_marked_and_the_others_not() -> None:
    names = {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]"}, "unk_token": "[UNK]"}
    found = keys(folder(word_piece(), tokenizer_config=names), {"type_vocab_size": 2}, ENCODER)
    assert found["model"] == "bert"
    assert found["tokens"] == ["▁[PAD]", "[UNK]", "[CLS]", "▁[SEP]", "▁a", "b", "▁##"]
    assert found["bos_token_id"] == found["cls_token_id"] == 2
    assert "scores" not in found
    assert "add_bos_token" not in found
    assert found["token_type_count"] == 2


@pytest.mark.parametrize(
    ("normalizer", "lowers", "strips"),
    [
        ({"type": "BertNormalizer", "lowercase": True}, True, True),
        ({"type": "BertNormalizer", "lowercase": False}, False, False),
        ({"type": "BertNormalizer", "lowercase": True, "strip_accents": False}, True, False),
        ({"type": "Lowercase"}, None, None),
    ],
)
def test_case_and_accents_are_told_to_the_engine(normalizer: Any, lowers: Any, strips: Any) -> None:
    found = keys(folder(word_piece(normalizer=normalizer)), notes=ENCODER)
    assert found.get("normalizer.lowercase") is lowers
    assert found.get("normalizer.strip_accents") is strips


def test_a_list_of_words_will_do() -> None:
    contents = {"vocab.txt": b"[PAD]\r\n[CLS]\na\n##b\n", "special_tokens_map.json": b'{"x": 1}'}
    found = keys(Folder(contents), notes=ENCODER)
    assert found["tokens"] == ["[PAD]", "[CLS]", "▁a", "b"]
    assert found["token_type"] == [3, 3, 1, 1]


def test_a_list_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "MAX_TOKENS", 2)
    with pytest.raises(CheckpointInvalid, match="more than 2 lines"):
        vocabulary(Folder({"vocab.txt": b"a\nb\nc\n"}), NOTES)


# Unigram


def unigrams(**changes: Any) -> dict[str, Any]:
    values = {
        "model": {
            "type": "Unigram",
            "unk_id": 1,
            "vocab": [["<s>", 0], ["<unk>", 0.0], ["▁a", -1.5]],
        },
        "added_tokens": [
            {"id": 0, "content": "<s>", "special": True},
            {"id": 1, "content": "<unk>", "special": True},
            {"id": 3, "content": "<mask>", "special": True},
        ],
    }
    return {**values, **changes}


def test_unigram_pieces_keep_their_scores() -> None:
    found = keys(folder(unigrams()))
    assert found["model"] == "t5"
    assert found["token_type"] == [3, 2, 1, 3]
    assert found["scores"] == [0.0, 0.0, -1.5, -1000.0]
    assert found["unknown_token_id"] == 1
    assert found["remove_extra_whitespaces"] is False


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}}},
        {"normalizer": {"type": "Strip"}},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
    ],
)
def test_white_space_that_is_taken_away_is_told(changes: Any) -> None:
    assert keys(folder(unigrams(**changes)))["remove_extra_whitespaces"] is True


def test_a_table_of_replacements_is_carried_over() -> None:
    steps = [
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\1\2").decode()},
        {"type": "Precompiled", "precompiled_charsmap": None},
        {"type": "Replace", "pattern": "x"},
    ]
    normalizer = {"type": "Sequence", "normalizers": steps}
    assert keys(folder(unigrams(normalizer=normalizer)))["precompiled_charsmap"] == [1, 2]


@pytest.mark.parametrize("text", ["!", 5])
def test_a_table_that_cannot_be_read_is_refused(text: Any) -> None:
    step = {"type": "Precompiled", "precompiled_charsmap": text}
    with pytest.raises(CheckpointInvalid, match="bad precompiled_charsmap"):
        vocabulary(folder(unigrams(normalizer=step)), NOTES)


@pytest.mark.parametrize(
    "vocab", [{"a": 0}, [["a"]], [["a", "b"]], [["a", True]], [[1, 2]], ["a"], [["a", 1e31]], None]
)
def test_unigram_pieces_must_be_pairs(vocab: Any) -> None:
    with pytest.raises(CheckpointInvalid, match="vocab"):
        vocabulary(folder(unigrams(model={"type": "Unigram", "vocab": vocab})), NOTES)


def test_xlm_robertas_own_file_is_the_last_resort() -> None:
    data = sentencepiece_model(
        [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("a", -1, 1)], unigram=True
    )
    found = keys(Folder({"sentencepiece.bpe.model": data}))
    assert found["tokens"] == ["<s>", "<pad>", "</s>", "<unk>", "a", "<mask>"]


# what tokenizer.json may do wrong


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (None, "unknown tokenizer format"),
        ({"model": {"type": "WordLevel"}}, "unknown tokenizer format"),
        (byte_level(model={"type": "BPE"}), "the model has no vocab"),
        (bpe({"a": -1}), "token a has no proper id"),
        (bpe({"a": 2_000_000}), "token a has no proper id"),
        (bpe({"a": "0"}), "token a has no proper id"),
        (bpe({"a": 0, "b": 0}), "tokens a and b have one id"),
        (bpe({}, added_tokens=[]), "no tokens"),
        (bpe({"a": 500_000}), "ids up to 500000"),
        (bpe({"a\ud800": 0}), "token 0 is no text or too long"),
        (bpe({"é" * 9000: 0}), "token 0 is no text or too long"),
        (bpe({"a": 0}, 5), "merges are no list"),
        (bpe({"a": 0}, ["ab"]), "merges must be pairs"),
        (bpe({"a": 0}, [["a"]]), "merges must be pairs"),
        (bpe({"a": 0}, [["a", 1]]), "merges must be pairs"),
        (byte_level(added_tokens=5), "bad added_tokens"),
        (byte_level(added_tokens=[{"id": 1}]), "bad entry in added_tokens"),
        (byte_level(added_tokens=[{"id": -1, "content": "x"}]), "bad entry in added_tokens"),
        (
            byte_level(pre_tokenizer={"type": "Sequence", "pretokenizers": MANY}),
            "more than 1000 steps",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_one_error(tokenizer: Any, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words):
        vocabulary(folder(tokenizer), NOTES)


def test_older_files_leave_out_the_kind() -> None:
    assert TokenizerJson({"model": {"vocab": {}, "merges": []}}).kind == "BPE"
    assert TokenizerJson({"model": {"vocab": []}}).kind == "Unigram"
    assert TokenizerJson({"model": 5}).kind == "WordPiece"
    assert TokenizerJson({"added_tokens": None}).added() == {}


def test_ids_that_nobody_has_are_named() -> None:
    found = in_line({0: Token("a"), 2: Token("ü")}, "f")
    assert [(token.text, int(token.type)) for token in found] == [("a", 1), ("[PAD1]", 5), ("ü", 1)]


def test_rows_without_a_token_are_named() -> None:
    found = Vocabulary("gpt2", [])
    found.pad(2)
    assert [token.text for token in found.tokens] == ["[PAD0]", "[PAD1]"]
    assert found.ids() == {"[PAD0]": 0, "[PAD1]": 1}


# special tokens


def test_special_ids_come_from_the_names_and_else_from_the_config() -> None:
    names = {"eos_token": {"content": "<|end|>"}, "pad_token": "absent", "bos_token": None}
    found = keys(
        folder(byte_level(), special_tokens_map={"unk_token": "a"}, tokenizer_config=names),
        {"eos_token_id": 0, "bos_token_id": 1, "pad_token_id": 99, "sep_token_id": "x"},
    )
    assert found["eos_token_id"] == 3
    assert found["bos_token_id"] == 1
    assert found["unknown_token_id"] == 0
    assert "padding_token_id" not in found
    assert "seperator_token_id" not in found


def test_several_ends_are_all_written_and_the_second_is_the_end_of_a_turn() -> None:
    found = keys(folder(byte_level(), generation_config={"eos_token_id": [3, 4, 0]}))
    assert found["eos_token_id"] == 3
    assert found["eos_token_ids"] == [3, 4, 0]
    assert found["eot_token_id"] == 4
    both = keys(folder(byte_level(), generation_config={"eos_token_id": [3, 3]}))
    assert both["eos_token_id"] == 3
    assert "eot_token_id" not in both
    one = keys(folder(byte_level(), generation_config={"eos_token_id": [3]}))
    assert "eos_token_ids" not in one


def template(*single: Any) -> dict[str, Any]:
    return {"type": "TemplateProcessing", "single": list(single)}


BEGIN = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
TEXT = {"Sequence": {"id": "A"}}


@pytest.mark.parametrize(
    ("processor", "config", "bos", "eos"),
    [
        (None, {}, None, None),
        (template(BEGIN, TEXT), {}, True, False),
        (template(BEGIN, TEXT, BEGIN), {}, True, True),
        (template(TEXT), {}, False, False),
        (template(BEGIN, TEXT), {"add_bos_token": False}, False, False),
        (None, {"add_bos_token": True, "add_eos_token": "x"}, True, None),
        ({"type": "ByteLevel"}, {}, False, False),
        ({"type": "RobertaProcessing", "cls": ["<|end|>", 3], "sep": ["a", 0]}, {}, True, False),
        ({"type": "BertProcessing", "cls": 5, "sep": []}, {}, False, False),
        (template({"SpecialToken": 5}, TEXT), {}, False, False),
        (template({"SpecialToken": {"id": 7}}, TEXT), {}, False, False),
        ({"type": "TemplateProcessing", "single": 5}, {}, False, False),
    ],
)
def test_what_is_put_around_a_text_is_told(processor: Any, config: Any, bos: Any, eos: Any) -> None:
    names = {"bos_token": "<|end|>", "eos_token": "<|end|>", **config}
    found = keys(folder(byte_level(post_processor=processor), tokenizer_config=names))
    assert found.get("add_bos_token") is bos
    assert found.get("add_eos_token") is eos


# chat templates


def chat(**files: Any) -> dict[str, Any]:
    found = vocabulary(folder(byte_level(), **files), NOTES)
    options(folder(byte_level(), **files), {}, found, NOTES)
    return {key: entry.value for key, entry in found.options if "chat" in key}


def test_a_chat_template_is_a_text_or_one_of_several() -> None:
    assert chat() == {}
    assert chat(tokenizer_config={"chat_template": ""}) == {}
    assert chat(tokenizer_config={"chat_template": "T"}) == {"tokenizer.chat_template": "T"}
    assert chat(chat_template={"chat_template": "P"}) == {"tokenizer.chat_template": "P"}
    several = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "U"}]
    found = chat(tokenizer_config={"chat_template": several})
    assert found["tokenizer.chat_template"] == "D"
    assert found["tokenizer.chat_template.tool_use"] == "U"
    assert found["tokenizer.chat_templates"].values == ("tool_use",)


def test_a_file_of_its_own_comes_first() -> None:
    contents = {
        "tokenizer.json": json.dumps(byte_level()).encode(),
        "tokenizer_config.json": b'{"chat_template": "old"}',
        "chat_template.jinja": b"new",
    }
    assert keys(Folder(contents))["tokenizer.chat_template"] == "new"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "chat_template must be a text or a list"),
        ([5], "chat_template needs names and texts"),
        ([{"name": "a"}], "chat_template needs names and texts"),
        ([{"name": "A B", "template": "x"}], "chat_template has a bad name"),
        ("x" * (1 << 20) + "x", "is longer than"),
    ],
)
def test_a_chat_template_that_is_none_is_refused(value: Any, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words):
        chat(tokenizer_config={"chat_template": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["BPE", "WordPiece", "Unigram", "X"]),
                "vocab": st.dictionaries(st.text(max_size=2), st.integers(-1, 5)) | JSON,
                "merges": st.lists(st.lists(st.text(max_size=2), min_size=2, max_size=2)) | JSON,
                "unk_id": JSON,
                "unk_token": JSON,
            },
        )
        | JSON,
        "added_tokens": st.lists(
            st.fixed_dictionaries(
                {"id": st.integers(-1, 9) | JSON, "content": st.text(max_size=2) | JSON}
            )
        )
        | JSON,
        "pre_tokenizer": st.sampled_from([{"type": "ByteLevel"}, {"type": "Metaspace"}]) | JSON,
        "normalizer": JSON,
        "post_processor": JSON,
        "decoder": JSON,
    },
)  # fmt: skip


@given(PARTS, JSON, JSON)
def test_any_tokenizer_is_read_or_is_one_error(
    tokenizer: Any, config: Any, generation: Any
) -> None:
    files = {"tokenizer_config": config, "generation_config": generation}
    present = {name: value for name, value in files.items() if isinstance(value, dict)}
    try:
        assert keys(folder(tokenizer, **present))["tokens"]
    except CheckpointInvalid as error:
        assert len(str(error)) < 1000
