"""Create from checkpoints and adapters: what `services/building/weights.py` does with folders."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.names import ModelName
from tests.support.library import Library, library
from tests.support.tiny_models import decoder, safetensors
from tests.unit.core.convert.test_model import contents

pytestmark = pytest.mark.anyio

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FILES = {
    **contents(decoder("LlamaForCausalLM", hidden_size=256, head_dim=64), "BF16"),
    "tokenizer_config.json": json.dumps({"chat_template": CHATML}).encode(),
}
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(alpha: int) -> dict[str, bytes]:
    factors = {f"{Q}.lora_A.weight": (2, 256), f"{Q}.lora_B.weight": (256, 2)}
    weights = {name: np.ones(shape, np.float32) for name, shape in factors.items()}
    return {
        "adapter_config.json": json.dumps({"r": 2, "lora_alpha": alpha}).encode(),
        "adapter_model.safetensors": safetensors(weights),
    }


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


async def put(lib: Library, files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: await lib.put(data) for name, data in files.items()}


async def layers(lib: Library, name: str) -> list[tuple[str, str]]:
    """Kind and digest of each layer of a model."""
    tag = await lib.models.find(ModelName.parse(name))
    assert tag is not None
    parts = await lib.models.parts(tag)
    return [
        (layer.media_type.rsplit(".", 1)[-1], layer.digest.hex) for layer in parts.manifest.layers
    ]


async def test_a_checkpoint_becomes_a_model_with_its_template(lib: Library) -> None:
    texts = await lib.make("m", files=await put(lib, FILES))
    assert texts[:2] == ["converting model", "verifying conversion"]
    assert texts[2].startswith("creating new layer sha256:")
    assert texts[3] == "using autodetected template chatml"
    assert texts[-2:] == ["writing manifest", "success"]
    shown = await lib.show("m")
    assert shown["details"]["family"] == "llama"
    assert shown["details"]["quantization_level"] == "F16"
    assert shown["model_info"]["llama.embedding_length"] == 256


async def test_the_same_checkpoint_makes_the_same_bytes(lib: Library) -> None:
    files = await put(lib, FILES)
    await lib.make("one", files=files)
    texts = await lib.make("other", files={**files, "README.md": await lib.put(b"#")})
    assert texts[2].startswith("using existing layer")
    assert (await layers(lib, "one"))[0] == (await layers(lib, "other"))[0]


QUANTIZED = ["q8_0", *(pytest.param(name, marks=pytest.mark.engine) for name in ("q4_K_M", "q2_K"))]


@pytest.mark.parametrize("target", QUANTIZED)
async def test_one_pass_makes_the_bytes_of_two(lib: Library, target: str) -> None:
    files = await put(lib, FILES)
    await lib.make("whole", files=files)
    before = lib.files()
    await lib.make("straight", files=files, quantize=target)
    new = lib.files() - before
    await lib.make("later", origin="whole", quantize=target)
    assert (await layers(lib, "straight"))[0] == (await layers(lib, "later"))[0]
    assert len(new) <= 2  # the model and its config: no file in between


async def test_adapters_of_several_folders_become_a_layer_each(lib: Library) -> None:
    await lib.make("base", files=await put(lib, FILES))
    texts = await lib.make("one", origin="base", adapters=await put(lib, adapter(4)))
    assert texts[:2] == ["converting adapter", "verifying conversion"]
    assert [kind for kind, _ in await layers(lib, "one")].count("adapter") == 1
    both = {
        f"{folder}/{name}": data
        for folder, alpha in (("a", 4), ("b", 8))
        for name, data in adapter(alpha).items()
    }
    texts = await lib.make("two", origin="base", adapters=await put(lib, both))
    assert texts.count("converting adapter") == 2
    found = [digest for kind, digest in await layers(lib, "two") if kind == "adapter"]
    assert len(set(found)) == 2
    one = [digest for kind, digest in await layers(lib, "one") if kind == "adapter"]
    assert found[0] == one[0]


async def test_a_checkpoint_and_its_adapter_may_come_together(lib: Library) -> None:
    files, parts = await put(lib, FILES), await put(lib, adapter(4))
    await lib.make("m", files=files, adapters=parts)
    assert [kind for kind, _ in await layers(lib, "m")].count("adapter") == 1


WEIGHTS = FILES["model.safetensors"]
FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "pickles": (
        {"files": {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"}},
        RequestInvalid, "pickle files are not supported; convert to safetensors",
    ),
    "a way out": ({"files": {**FILES, "a\\..\\b": b"x"}}, OperationFailed, "is not accepted"),
    "not what it is called": (
        {"files": {**FILES, "model.safetensors": b"no such thing"}}, OperationFailed,
        "model.safetensors: truncated, or not a safetensors file",
    ),
    "truncated": (
        {"files": {**FILES, "model.safetensors": WEIGHTS[:-5]}}, OperationFailed, "ends at byte",
    ),
    "no architecture": (
        {"files": {**FILES, "config.json": b"{}"}}, OperationFailed, "unknown architecture",
    ),
    "an architecture of another kind": (
        {"files": {**FILES, "config.json": b'{"architectures": ["X"]}'}}, OperationFailed,
        'unsupported architecture "X"',
    ),
    "an unknown type": (
        {"files": FILES, "quantize": "q9"}, OperationFailed, "unsupported quantization type Q9",
    ),
    "no base": ({"files": {}, "adapters": adapter(4)}, RequestInvalid, "unknown type"),
    "an adapter without its config": (
        {"origin": "base", "adapters": {"adapter_model.safetensors": WEIGHTS}}, RequestInvalid,
        "open adapter_config.json: no such file or directory",
    ),
    "an adapter of another model": (
        {"origin": "test", "adapters": adapter(4)}, RequestInvalid, 'architecture "test"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_what_cannot_be_converted_is_refused_and_nothing_is_kept(
    lib: Library, name: str
) -> None:
    recipe, error, words = FAULTS[name]
    await lib.base("test")
    await lib.make("base", files=await put(lib, FILES))
    for key in ("files", "adapters"):
        if key in recipe:
            recipe = {**recipe, key: await put(lib, recipe[key])}
    before = lib.files()
    with pytest.raises(error) as caught:
        await lib.make("m", **recipe)
    assert words in str(caught.value)
    assert await lib.models.find(ModelName.parse("m")) is None
    assert lib.files() == before
