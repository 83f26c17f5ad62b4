"""registry/tensors/checkpoint.py: folders of files as sources."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from registry.core.errors import CheckpointInvalid
from registry.tensors.checkpoint import open_adapter, open_checkpoint
from tests.support.checkpoints import embedding_gemma
from tests.support.conversion import gguf, opened
from tests.support.gguf_source import read
from tests.support.tiny_models import decoder, safetensors, with_header
from tests.unit.core.convert.test_model import contents

FILES = contents(decoder("LlamaForCausalLM"))
WEIGHTS = decoder("LlamaForCausalLM").weights


def convert(files: Mapping[str, bytes]) -> tuple[bytes, list[str]]:
    warnings: list[str] = []
    with opened(files) as inputs:
        return gguf(open_checkpoint(inputs, {}, warnings.append)), warnings


def without(name: str, **more: bytes) -> dict[str, bytes]:
    return {key: data for key, data in {**FILES, **more}.items() if key != name}


def sharded(**index: Any) -> dict[str, bytes]:
    """The same weights in two files, with an index."""
    names = list(WEIGHTS)
    shards = {"model-1.safetensors": names[:7], "model-2.safetensors": names[7:]}
    files = without("model.safetensors")
    for file, held in shards.items():
        files[file] = safetensors({name: WEIGHTS[name].astype("<f4") for name in held})
    found = {name: file for file, held in shards.items() for name in held}
    table = json.dumps({"weight_map": {**found, **index}}).encode()
    return {**files, "model.safetensors.index.json": table}


def test_a_checkpoint_becomes_a_file_whose_header_is_accepted() -> None:
    made, warnings = convert(FILES)
    header = read(made)
    assert header.entries["general.architecture"].value == "llama"
    assert header.data_stop == len(made)
    assert warnings == []


def test_shards_make_the_same_file_whatever_lies_beside_them() -> None:
    more = {"README.md": b"#", "pytorch_model.bin": b"\x80\x02", "onnx/model.safetensors": b"junk"}
    assert convert({**sharded(), **more}) == convert(FILES)


def test_warnings_are_passed_on() -> None:
    tokenizer = json.loads(FILES["tokenizer.json"])
    split = {"type": "Split", "pattern": {"Regex": "x+"}}
    tokenizer["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split, {"type": "ByteLevel"}],
    }
    _, warnings = convert({**FILES, "tokenizer.json": json.dumps(tokenizer).encode()})
    assert "unknown to the engine" in warnings[0]


GOOD = FILES["model.safetensors"]
FAULTS: dict[str, tuple[dict[str, bytes], str]] = {
    "a way out": (
        {**FILES, "../config.json": b""},
        "the file name '../config.json' is not accepted",
    ),
    "pickles": (
        without("model.safetensors", **{"model.bin": b"x"}),
        "pickle files are not supported",
    ),
    "no weights": (without("model.safetensors"), "no .safetensors file beside config.json"),
    "empty": ({**FILES, "model.safetensors": b""}, "model.safetensors: not a safetensors file"),
    "cut in the header": (
        {**FILES, "model.safetensors": GOOD[:50]},
        "truncated, or not a safetensors",
    ),
    "cut in the data": ({**FILES, "model.safetensors": GOOD[:-1]}, "its data ends at byte"),
    "text": (
        {**FILES, "model.safetensors": b"hello world"},
        "truncated, or not a safetensors file",
    ),
    "a GGUF": (
        {**FILES, "model.safetensors": b"GGUF\x03\0\0\0" + bytes(99)},
        "this is a GGUF file",
    ),
    "a pickle": ({**FILES, "model.safetensors": b"PK\x03\x04" + bytes(99)}, "a pickle file"),
    "no tensors": (
        {**FILES, "model.safetensors": with_header({})},
        "tensor embed_tokens is missing",
    ),
    "one shard missing": (
        {key: data for key, data in sharded().items() if key != "model-2.safetensors"},
        "names model-2.safetensors, which is not among the files",
    ),
    "a promise not kept": (sharded(x="model-1.safetensors"), "which does not have it"),
    "a tensor twice": (
        {**sharded(), "model-1.safetensors": GOOD},
        "is in model-1.safetensors and in model-2",
    ),
    "config is none": ({**FILES, "config.json": b"[]"}, "config.json: no object"),
    "config too long": (
        {**FILES, "config.json": b" " * (9 << 20)},
        "config.json: 9437184 bytes are more",
    ),
    "tokenizer is none": ({**FILES, "tokenizer.json": b"\xff"}, "tokenizer.json: "),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_converted_is_one_clear_error(name: str) -> None:
    files, words = FAULTS[name]
    with pytest.raises(CheckpointInvalid) as caught:
        convert(files)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_weights_that_are_no_numbers_are_named_with_their_file() -> None:
    weights = {name: array.astype("<f4") for name, array in WEIGHTS.items()}
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    with pytest.raises(CheckpointInvalid) as caught:
        convert({**FILES, "model.safetensors": safetensors(weights)})
    assert "model.safetensors: tensor model.layers.1.mlp.up_proj.weight has" in str(caught.value)


def test_an_adapter_needs_its_two_files() -> None:
    options = {"values": {"general.architecture": "llama"}, "tensors": []}
    with (
        opened({"adapter_config.json": b"{}"}) as files,
        pytest.raises(CheckpointInvalid, match=r"no adapter_model\.safetensors"),
    ):
        open_adapter(files, options, lambda text: None)
    pair = {"adapter_config.json": b'{"lora_alpha": 1}', "model.safetensors": with_header({})}
    with opened(pair) as files, pytest.raises(CheckpointInvalid, match="num_hidden_layers"):
        open_adapter(files, options, lambda text: None)


def test_layers_after_the_pooling_are_read_from_their_folders() -> None:
    tiny = embedding_gemma()
    made, _ = convert(tiny.contents())
    shapes = {tensor.name: tensor.shape for tensor in read(made).tensors}
    assert (shapes["dense_2.weight"], shapes["dense_3.weight"]) == ((64, 96), (96, 64))
    files = tiny.contents()
    del files["3_Dense/model.safetensors"]
    with pytest.raises(CheckpointInvalid, match=r"no model\.safetensors beside 3_Dense/config"):
        convert(files)


def test_pieces_follow_the_plan_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = convert(FILES)
    monkeypatch.setattr("registry.tensors.transforms.CHUNK_ELEMENTS", 100)
    assert convert(FILES)[0] == whole
