import hashlib
import json
from pathlib import Path

import pytest

from registry.core.image import Draft, ImageConfig, file_type, model_type

STORE = json.loads(
    (Path(__file__).parents[2] / "golden/wire/store.json").read_text(encoding="utf-8")
)

TEST_MODEL = ImageConfig(
    model_format="gguf",
    model_family="test",
    model_families=("test",),
    model_type="0",
    file_type="unknown",
)
FULL = ImageConfig(
    model_format="gguf",
    model_family="llama",
    model_families=("llama", "llama"),
    model_type="8.0B",
    file_type="Q4_K_M",
    renderer="r",
    parser="p",
    requires="0.14.0",
    remote_host="https://ollama.com:443",
    remote_model="gpt-oss:120b",
    capabilities=("tools", "a<b"),
    context_length=131_072,
    embedding_length=4096,
    base_name="base",
    draft=Draft("gguf", "llama", "d.", "c"),
)


def test_the_config_of_the_test_model_has_the_recorded_digest() -> None:
    data = TEST_MODEL.to_bytes()
    assert data == (
        b'{"model_format":"gguf","model_family":"test","model_families":["test"],"model_type":"0",'
        b'"file_type":"unknown","architecture":"amd64","os":"linux"}\n'
    )
    assert hashlib.sha256(data).hexdigest() == (
        "99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c"
    )


def test_every_field_has_its_place() -> None:
    assert FULL.to_bytes() == (
        b'{"model_format":"gguf","model_family":"llama","model_families":["llama","llama"],'
        b'"model_type":"8.0B","file_type":"Q4_K_M","renderer":"r","parser":"p",'
        b'"requires":"0.14.0","remote_host":"https://ollama.com:443",'
        b'"remote_model":"gpt-oss:120b","capabilities":["tools","a\\u003cb"],'
        b'"context_length":131072,"embedding_length":4096,"base_name":"base",'
        b'"draft":{"model_format":"gguf","architecture":"llama","tensor_prefix":"d.","config":"c"},'
        b'"architecture":"amd64","os":"linux"}\n'
    )


def test_what_is_always_written_may_be_empty() -> None:
    assert ImageConfig().to_bytes() == (
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"",'
        b'"file_type":"","architecture":"amd64","os":"linux"}\n'
    )


def test_a_draft_that_says_nothing_is_written() -> None:
    assert b'"draft":{},' in ImageConfig(draft=Draft()).to_bytes()


@pytest.mark.parametrize("example", STORE["examples"], ids=lambda example: example["about"])
def test_recorded_configs_come_out_as_they_went_in(example: dict[str, str]) -> None:
    data = example["config"].encode()
    assert ImageConfig.parse(data).to_bytes() == data


@pytest.mark.parametrize("config", [TEST_MODEL, FULL, ImageConfig(), ImageConfig(draft=Draft())])
def test_what_was_written_can_be_read(config: ImageConfig) -> None:
    assert ImageConfig.parse(config.to_bytes()) == config


def test_old_configs_may_have_more_fields() -> None:
    data = (
        b'{"model_format":"gguf","rootfs":{"type":"layers","diff_ids":["sha256:1"]},"os":"linux"}'
    )
    assert ImageConfig.parse(data) == ImageConfig(model_format="gguf")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model_format":NaN}']
)
def test_bytes_that_are_no_object_say_nothing(data: bytes) -> None:
    assert ImageConfig.parse(data) == ImageConfig()


@pytest.mark.parametrize(
    "field",
    [
        '"model_format":1',
        '"model_families":"llama"',
        '"model_families":null',
        '"capabilities":{}',
        '"context_length":"8"',
        '"context_length":true',
        '"context_length":-1',
        '"embedding_length":1.5',
        '"draft":[]',
        '"os":null',
    ],
)
def test_fields_of_a_wrong_type_are_left_empty(field: str) -> None:
    assert ImageConfig.parse(f"{{{field}}}".encode()) == ImageConfig()


def test_lists_keep_their_strings() -> None:
    data = b'{"model_families":["a",1,"b"],"capabilities":[null,"tools"],"draft":{"config":1}}'
    assert ImageConfig.parse(data) == ImageConfig(
        model_families=("a", "b"), capabilities=("tools",), draft=Draft()
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (18_496, "18K"),
        (22_000, "22K"),
        (500_500, "500K"),
        (999_999, "1000K"),
        (10**6, "1M"),
        (134_515_008, "134.52M"),
        (999_999_999, "1000.00M"),
        (10**9, "1B"),
        (8 * 10**9, "8B"),
        (8_030_261_248, "8.0B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_parameter_counts_read_as_people_write_them(count: int, shown: str) -> None:
    assert model_type(count) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "unknown"),
        (1, "F16"),
        (4, "unknown"),
        (15, "Q4_K_M"),
        (33, "unknown"),
        (38, "MXFP4_MOE"),
        (40, "Q1_0"),
        (1024, "unknown"),
    ],
)
def test_file_types_have_names(number: int, shown: str) -> None:
    assert file_type(number) == shown
