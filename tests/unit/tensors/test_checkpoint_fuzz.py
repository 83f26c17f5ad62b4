"""Checkpoints that somebody bent: a file comes out whose header is accepted, or one clear error."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.core.errors import RegistryError
from registry.tensors.checkpoint import open_checkpoint
from tests.support.conversion import gguf, opened
from tests.support.gguf_source import read
from tests.support.tiny_models import Tiny, bert, decoder, nomic_bert
from tests.unit.core.convert.test_model import contents

SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
LONG = {"type": "longrope", "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.0]}
MODELS: dict[str, Tiny] = {
    "llama": decoder("LlamaForCausalLM", **SMALL, rope_scaling=LLAMA3),
    "mixtral": decoder("MixtralForCausalLM", **SMALL),
    "qwen2moe": decoder("Qwen2MoeForCausalLM", **SMALL),
    "gemma3": decoder("Gemma3ForCausalLM", **SMALL),
    "phi3": decoder("Phi3ForCausalLM", **SMALL, rope_scaling=LONG),
    "gpt-oss": decoder("GptOssForCausalLM", **SMALL),
    "xlm": bert(
        "XLMRobertaModel", vocab_size=320, pad_token_id=1, hidden_size=8, intermediate_size=8
    ),
    "nomic": nomic_bert(vocab_size=320, n_embd=8, n_inner=8),
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.integers()
    | st.floats()
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def convert(files: Mapping[str, bytes]) -> None:
    """Convert, and look at what came out as the server does."""
    try:
        with opened(files) as inputs:
            made = gguf(open_checkpoint(inputs, {}, lambda text: None))
    except RegistryError as error:
        assert 0 < len(str(error)) < 1000
        return
    assert read(made).data_stop <= len(made)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_of_any_key_of_the_config(name: str, data: st.DataObject) -> None:
    tiny = MODELS[name]
    config: dict[str, Any] = dict(tiny.config)
    for _ in range(data.draw(st.integers(1, 2))):
        config[data.draw(st.sampled_from(sorted(config)))] = data.draw(VALUES)
    convert({**contents(tiny), "config.json": json.dumps(config).encode()})


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_bytes_anywhere(name: str, data: st.DataObject) -> None:
    files = contents(MODELS[name])
    file = data.draw(st.sampled_from(sorted(files)))
    old = files[file]
    start = data.draw(st.integers(0, min(len(old), 4000)) | st.integers(0, len(old)))
    stop = data.draw(st.integers(start, min(len(old), start + 8)) | st.just(len(old)))
    new = data.draw(st.binary(max_size=8))
    convert({**files, file: old[:start] + new + old[stop:]})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_shape_and_dtype_of_any_tensor(data: st.DataObject) -> None:
    files = contents(MODELS["gpt-oss"])
    old = files["model.safetensors"]
    length = int.from_bytes(old[:8], "little")
    header = json.loads(old[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
    header[name]["shape"] = data.draw(st.permutations(header[name]["shape"]) | st.just([1, 1]))
    header[name]["dtype"] = data.draw(st.sampled_from(["F32", "I32", "U32", "F16"]))
    raw = json.dumps(header).encode()
    made = len(raw).to_bytes(8, "little") + raw + old[8 + length :]
    convert({**files, "model.safetensors": made})
