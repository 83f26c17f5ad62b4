import json
import struct
from pathlib import Path
from typing import Any

import pytest

from registry.core import media
from registry.core.facts import Facts, Split, array_values, model_info, projector_info
from registry.core.ggml import TENSOR_TYPES
from registry.core.gguf import HeaderReader, Kind, Span
from registry.core.gojson import dumps
from tests.support.gguf import (
    ARCHITECTURE,
    SMALLEST,
    TensorSpec,
    array,
    array_head,
    field,
    gguf,
    pair,
)

GOLDEN = Path(__file__).parents[2] / "golden"
INPUTS = GOLDEN / "inputs"


def facts_of(data: bytes) -> Facts:
    reader = HeaderReader(len(data))
    while reader.need is not None:
        start, length = reader.need
        reader.feed(data[start : start + length])
    assert reader.header is not None
    return Facts.of(reader.header)


def facts_of_input(name: str) -> Facts:
    return facts_of((INPUTS / name).read_bytes())


def recorded_show(name: str) -> list[dict[str, Any]]:
    """The bodies of the /api/show answers of a case, the short form before the verbose one."""
    for file in sorted((GOLDEN / "cases").glob("*.json")):
        for case in json.loads(file.read_text(encoding="utf-8"))["cases"]:
            if case["name"] == name:
                steps = [step for step in case["steps"] if step.get("path") == "/api/show"]
                return [step["expect"]["body"] for step in steps]
    raise AssertionError(name)


def arrays_of(facts: Facts, data: bytes) -> dict[str, Any]:
    return {
        key: array_values(span, data[span.offset : span.offset + span.length])
        for key, span in facts.spans.items()
    }


# model_info


@pytest.mark.parametrize(
    ("case", "file"),
    [("show/all-value-types", "kinds.gguf"), ("show/bert", "bert-embed.gguf")],
)
def test_model_info_is_the_recorded_one(case: str, file: str) -> None:
    facts = facts_of_input(file)
    short, verbose = recorded_show(case)
    assert model_info(facts) == short["model_info"]
    assert model_info(facts, {}) == verbose["model_info"]
    tensors = [{"name": name, "type": kind, "shape": [*dims]} for name, kind, dims in facts.tensors]
    assert tensors == short["tensors"]


def test_projector_info_has_the_name_too() -> None:
    short, verbose = recorded_show("create/projector")
    facts = facts_of_input("clip-mlp.gguf")
    assert projector_info(facts) == short["projector_info"]
    assert projector_info(facts, {}) == verbose["projector_info"]


def test_numbers_print_as_recorded() -> None:
    data = dumps(model_info(facts_of_input("kinds.gguf")))
    for text in (
        b'"golden.f32":0.1,',
        b'"golden.f32_big":1e+21,',
        b'"golden.f32_small":1e-7,',
        b'"golden.f64":0.1,',
        b'"golden.u64":18446744073709551615,',
        b'"golden.i64":-9223372036854775808,',
        b'"llama.attention.layer_norm_rms_epsilon":0.000001,',
    ):
        assert text in data


def test_keys_are_sorted_and_the_count_is_ours() -> None:
    told = field("general.parameter_count", Kind.U64, 5)
    data = gguf(told, field("a", Kind.U8, 1), ARCHITECTURE, tensors=[TensorSpec("t", (3, 5))])
    assert list(model_info(facts_of(data)).items()) == [
        ("a", 1),
        ("general.architecture", "llama"),
        ("general.parameter_count", 15),
    ]


def test_arrays_are_null_or_empty_unless_verbose() -> None:
    data = gguf(
        ARCHITECTURE,
        array("long", Kind.F32, [0.1] * 1025),
        array("none", Kind.U32, []),
        array("short", Kind.F32, [0.1]),
    )
    facts = facts_of(data)
    info = model_info(facts)
    assert (info["long"], info["none"], info["short"]) == (None, [], None)
    info = model_info(facts, arrays_of(facts, data))
    assert (info["long"], info["none"], info["short"]) == ([0.1] * 1025, [], [0.1])
    assert model_info(facts, {})["long"] is None


def test_values_that_json_cannot_carry_are_null() -> None:
    infinite = struct.pack("<f", float("inf"))
    data = gguf(
        ARCHITECTURE,
        pair("inf", Kind.F32, infinite),
        field("nan", Kind.F64, float("nan")),
        array("some", Kind.F32, [0.5, float("nan")]),
        array("many", Kind.F64, [float("-inf")] * 1025),
        field("text", Kind.STRING, "x" * 1_048_577),
        field("bytes", Kind.STRING, b"a\xff"),
    )
    facts = facts_of(data)
    info = model_info(facts, arrays_of(facts, data))
    assert (info["inf"], info["nan"], info["text"]) == (None, None, None)
    assert info["some"] == [0.5, None]
    assert info["many"] == [None] * 1025
    assert info["bytes"] == "a\ufffd"
    assert Facts.from_json(facts.to_json()) == facts
    json.loads(dumps(info), parse_constant=pytest.fail)


# What is kept


@pytest.mark.parametrize("path", sorted(INPUTS.glob("*.gguf")), ids=lambda path: path.name)
def test_facts_survive_the_catalog(path: Path) -> None:
    facts = facts_of(path.read_bytes())
    again = Facts.from_json(facts.to_json())
    assert again == facts
    assert model_info(again) == model_info(facts)


def test_facts_with_arrays_of_all_kinds_survive_the_catalog() -> None:
    data = gguf(
        ARCHITECTURE,
        array("a", Kind.BOOL, [True, False]),
        array("b", Kind.STRING, ["é", ""]),
        array("c", Kind.STRING, ["x"] * 2000),
        field("d", Kind.F32, 0.1),
        field("e", Kind.U64, (1 << 64) - 1),
        tensors=[TensorSpec("t", (1, 2, 3, 4))],
    )
    facts = Facts.from_json(facts_of(data).to_json())
    assert facts == facts_of(data)
    assert facts.values["a"] == (True, False)
    assert facts.values["d"] == 0.1
    assert facts.spans == {"c": Span(Kind.STRING, 2000, facts.spans["c"].offset, 18_000)}


def test_the_smallest_file_has_few_facts() -> None:
    assert facts_of(SMALLEST) == Facts(0, "unknown", {"general.architecture": "test"}, ())
    facts = facts_of(SMALLEST)
    assert (facts.architecture, facts.kind, facts.chat_template) == ("test", "model", "")
    assert (facts.context_length, facts.embedding_length, facts.vision_blocks) == (0, 0, 0)
    assert (facts.has_pooling_type, facts.split, facts.projector_type) == (False, None, "")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (field("general.file_type", Kind.U32, 15), "Q4_K_M"),
        (field("general.file_type", Kind.U32, 0), "unknown"),
        (field("general.file_type", Kind.U64, 15), "unknown"),  # as the real server has it
        (field("general.file_type", Kind.STRING, "Q8_0"), "unknown"),
        (array("general.file_type", Kind.U32, [15]), "unknown"),
        (field("file_type", Kind.U32, 15), "unknown"),
    ],
)
def test_file_type_is_a_32_bit_number(entry: bytes, name: str) -> None:
    assert facts_of(gguf(ARCHITECTURE, entry)).file_type == name


def test_golden_models_have_their_facts() -> None:
    llama = facts_of_input("llama.gguf")
    assert (llama.architecture, llama.parameter_count, llama.file_type) == (
        "llama",
        18_496,
        "unknown",
    )
    assert (llama.context_length, llama.embedding_length) == (128, 32)
    assert facts_of_input("f16-256.gguf").file_type == "F16"
    assert facts_of_input("bert-embed.gguf").has_pooling_type
    assert facts_of_input("chatml.gguf").chat_template.startswith("{% for message in messages %}")


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        (field("llama.context_length", Kind.U64, 1 << 40), 1 << 40),
        (field("llama.context_length", Kind.I32, -1), 0),
        (field("llama.context_length", Kind.BOOL, True), 0),
        (field("llama.context_length", Kind.STRING, "8"), 0),
        (array("llama.context_length", Kind.U32, [8]), 0),
        (field("qwen2.context_length", Kind.U32, 8), 0),
    ],
)
def test_lengths_are_positive_integers_of_the_architecture(entry: bytes, length: int) -> None:
    assert facts_of(gguf(ARCHITECTURE, entry)).context_length == length


# Kinds of files


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("llama.gguf", "model"),
        ("lora.gguf", "adapter"),
        ("clip-mlp.gguf", "projector"),
        ("clip-notype.gguf", "projector"),
    ],
)
def test_golden_files_are_of_their_kind(name: str, kind: str) -> None:
    assert facts_of_input(name).kind == kind


CLIP = field("general.architecture", Kind.STRING, "clip")


@pytest.mark.parametrize(
    ("fields", "media_type"),
    [
        ((ARCHITECTURE,), media.MODEL),
        ((ARCHITECTURE, field("general.type", Kind.STRING, "adapter")), media.ADAPTER),
        ((ARCHITECTURE, field("general.type", Kind.STRING, "projector")), media.PROJECTOR),
        ((ARCHITECTURE, field("general.type", Kind.STRING, "mmproj")), media.PROJECTOR),
        ((ARCHITECTURE, field("llama.vision.block_count", Kind.U32, 2)), media.PROJECTOR),
        (
            (
                ARCHITECTURE,
                field("llama.block_count", Kind.U32, 0),
                field("llama.vision.block_count", Kind.U32, 2),
            ),
            media.PROJECTOR,
        ),
        (
            (
                ARCHITECTURE,
                field("llama.block_count", Kind.U32, 2),
                field("llama.vision.block_count", Kind.U32, 2),
            ),
            media.MODEL,
        ),
        ((CLIP,), media.MODEL),
        ((CLIP, field("clip.has_vision_encoder", Kind.BOOL, True)), media.PROJECTOR),
        ((CLIP, field("clip.has_audio_encoder", Kind.BOOL, True)), media.PROJECTOR),
        ((CLIP, field("clip.has_vision_encoder", Kind.BOOL, False)), media.MODEL),
        (
            (
                CLIP,
                field("clip.has_vision_encoder", Kind.BOOL, True),
                field("clip.block_count", Kind.U32, 1),
            ),
            media.MODEL,
        ),
        ((ARCHITECTURE, field("clip.has_vision_encoder", Kind.BOOL, True)), media.MODEL),
    ],
)
def test_kinds_follow_the_metadata(fields: tuple[bytes, ...], media_type: str) -> None:
    assert facts_of(gguf(*fields)).media_type == media_type


@pytest.mark.parametrize(
    ("name", "embedded"),
    [("v.blk.0.w", True), ("a.x", True), ("mm.0", True), ("mtp.1", True), ("s.x", True)]
    + [("blk.0.v.weight", False), ("output.weight", False), ("mmx", False)],
)
def test_embedded_parts_show_in_tensor_names(name: str, embedded: bool) -> None:
    data = gguf(ARCHITECTURE, tensors=[TensorSpec("token_embd.weight"), TensorSpec(name)])
    assert facts_of(data).has_embedded_parts is embedded


@pytest.mark.parametrize(
    ("fields", "split"),
    [
        ((field("split.count", Kind.U16, 2), field("split.no", Kind.U16, 1)), Split(1, 2)),
        ((field("split.count", Kind.U16, 2),), Split(None, 2)),
        ((field("llama.split.count", Kind.I64, 3), field("split.no", Kind.U16, 0)), Split(0, 3)),
        ((field("split.count", Kind.U16, 1),), None),
        ((field("split.count", Kind.I32, -2),), None),
        ((field("split.count", Kind.U32, 1 << 16),), None),
        ((field("split.count", Kind.BOOL, True),), None),
    ],
)
def test_parts_of_split_models_are_known(fields: tuple[bytes, ...], split: Split | None) -> None:
    assert facts_of(gguf(ARCHITECTURE, *fields)).split == split


def test_later_parts_have_an_unknown_architecture() -> None:
    facts = facts_of(gguf(field("split.no", Kind.U16, 1), field("split.count", Kind.U16, 2)))
    assert (facts.architecture, facts.split) == ("unknown", Split(1, 2))
    assert facts_of_input("split/llama-00002-of-00002.gguf").split == Split(1, 2)


@pytest.mark.parametrize(
    ("fields", "kind", "hears"),
    [
        ((), "", False),
        ((field("clip.projector_type", Kind.STRING, "mlp"),), "mlp", False),
        ((field("clip.vision.projector_type", Kind.STRING, "x"),), "x", False),
        ((field("clip.has_audio_encoder", Kind.BOOL, True),), "", True),
        ((field("clip.has_audio_encoder", Kind.BOOL, False),), "", False),
        ((field("any.has_audio_encoder", Kind.BOOL, True),), "", True),
        (
            (
                field("clip.has_audio_encoder", Kind.BOOL, True),
                field("clip.vision.projector_type", Kind.STRING, "gemma3nv"),
            ),
            "gemma3nv",
            False,
        ),
    ],
)
def test_projectors_tell_what_they_are(fields: tuple[bytes, ...], kind: str, hears: bool) -> None:
    facts = facts_of(gguf(CLIP, *fields))
    assert (facts.projector_type, facts.projector_hears) == (kind, hears)


def test_encoders_are_counted() -> None:
    facts = facts_of(gguf(ARCHITECTURE, field("llama.audio.block_count", Kind.U32, 4)))
    assert (facts.audio_blocks, facts.vision_blocks) == (4, 0)


def test_parameters_are_the_sum_of_all_elements() -> None:
    tensors = [TensorSpec(f"t{number}", (256, 2), number) for number in TENSOR_TYPES]
    facts = facts_of(gguf(ARCHITECTURE, tensors=tensors))
    assert facts.parameter_count == 512 * len(TENSOR_TYPES)
    assert [tensor.type for tensor in facts.tensors] == [k.name for k in TENSOR_TYPES.values()]


def test_an_array_of_an_empty_kind_is_fetched_from_nothing() -> None:
    data = gguf(ARCHITECTURE, pair("k", Kind.ARRAY, array_head(Kind.F32, 0)))
    assert facts_of(data).values["k"] == ()


def test_kept_facts_are_read() -> None:
    facts = Facts(7, "F16", {"general.architecture": "llama"}, ())
    assert Facts.from_json(facts.to_json()) == facts
