"""registry/core/convert/lora.py."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from registry.core.convert.files import Folder
from registry.core.convert.lora import Base, convert_adapter
from registry.core.convert.plan import Conversion, Pairs, Turned
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Array
from tests.support.conversion import planned, stored
from tests.support.tiny_models import Tiny, decoder, safetensors
from tests.unit.core.convert.test_model import contents

PEFT: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none"}
AT = "base_model.model.model.layers.0."


def base_of(tiny: Tiny) -> Base:
    made = planned(contents(tiny))
    values = {key: entry.value for key, entry in made.keys if not isinstance(entry.value, Array)}
    return Base(values, frozenset(tensor.name for tensor in made.tensors))


LLAMA = base_of(decoder("LlamaForCausalLM"))
Shapes = dict[str, tuple[int, ...]]
Q: Shapes = {
    f"{AT}self_attn.q_proj.lora_A.weight": (4, 64),
    f"{AT}self_attn.q_proj.lora_B.weight": (64, 4),
}


def convert(
    shapes: Mapping[str, tuple[int, ...]],
    settings: Mapping[str, Any] = PEFT,
    base: Base = LLAMA,
    kind: str = "<f4",
) -> Conversion:
    weights = {name: np.ones(shape, kind) for name, shape in shapes.items()}
    folder = Folder({"adapter_config.json": json.dumps(settings).encode()})
    return convert_adapter(
        folder, stored({"adapter_model.safetensors": safetensors(weights)}), base
    )


def test_an_adapter_has_the_names_and_rows_of_its_bases_gguf() -> None:
    made = convert(Q)
    a, b = made.tensors
    assert (a.name, a.shape, a.type) == ("blk.0.attn_q.weight.lora_a", (64, 4), "F32")
    assert (b.name, b.shape, b.type) == ("blk.0.attn_q.weight.lora_b", (4, 64), "F32")
    assert a.parts[0].steps == ()
    assert b.parts[0].steps == (Pairs(16),)
    keys = {key: entry.value for key, entry in made.keys}
    assert keys["general.architecture"] == "llama"
    assert keys["general.type"] == "adapter"
    assert keys["adapter.lora.alpha"] == 16
    assert convert(Q, kind="<f2").tensors[0].type == "F16"


def test_the_output_and_names_of_saved_adapters_are_known() -> None:
    made = convert(
        {
            "base_model.model.lm_head.lora_A.default.weight": (4, 64),
            "base_model.model.lm_head.lora_B.default.weight": (320, 4),
        }
    )
    assert made.tensors[0].name == "output.weight.lora_a"


def test_mlx_has_its_factors_the_other_way_and_says_the_scale() -> None:
    shapes = {
        f"model.layers.1.mlp.up_proj.lora_{one}": (64, 4) if one == "a" else (4, 96) for one in "ab"
    }
    settings = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 10.0}}
    made = convert(shapes, settings)
    assert made.tensors[0].shape == (64, 4)
    assert made.tensors[1].shape == (4, 96)
    assert made.tensors[0].parts[0].view == Turned(0)
    assert dict(made.keys)["adapter.lora.alpha"].value == 40.0
    settings["lora_parameters"] = {"rank": 4, "alpha": 7.0}
    assert dict(convert(shapes, settings).keys)["adapter.lora.alpha"].value == 7.0


def test_a_scale_by_the_root_of_the_rank_is_brought_to_the_engines() -> None:
    made = convert(Q, {**PEFT, "use_rslora": True})
    assert dict(made.keys)["adapter.lora.alpha"].value == 32.0


MIXTRAL = base_of(decoder("MixtralForCausalLM"))
UP: Shapes = {f"{AT}mlp.up_proj.lora_A.weight": (4, 64), f"{AT}mlp.up_proj.lora_B.weight": (96, 4)}
TIED = base_of(decoder("LlamaForCausalLM", tie_word_embeddings=True))
HEAD: Shapes = {
    "base_model.model.lm_head.lora_A.weight": (4, 64),
    "base_model.model.lm_head.lora_B.weight": (320, 4),
}
EXPERT = f"{AT}mlp.experts.0.up_proj.lora_A.weight"
K: Shapes = {
    f"{AT}self_attn.k_proj.lora_A.weight": (2, 64),
    f"{AT}self_attn.k_proj.lora_B.weight": (32, 2),
}

FAULTS: dict[str, tuple[Shapes, dict[str, Any], Base, str]] = {
    "no tensors": ({}, PEFT, LLAMA, "the adapter has no tensors"),
    "no rank": (Q, {}, LLAMA, "adapter_config.json: lora_alpha is missing"),
    "dora": (Q, {**PEFT, "use_dora": True}, LLAMA, "use_dora is not supported"),
    "another kind": (Q, {**PEFT, "peft_type": "IA3"}, LLAMA, "IA3 adapters are not supported"),
    "whole modules": (Q, {**PEFT, "modules_to_save": ["lm_head"]}, LLAMA, "modules_to_save is not"),
    "ranks by module": (
        Q,
        {**PEFT, "rank_pattern": {"q": 2}},
        LLAMA,
        "rank_pattern is not supported",
    ),
    "one factor": (dict(list(Q.items())[:1]), PEFT, LLAMA, "attn_q.weight has one factor only"),
    "magnitudes": (
        {f"{AT}self_attn.q_proj.lora_magnitude_vector": (64,)},
        PEFT,
        LLAMA,
        "unmapped tensor base_model",
    ),
    "embedding": (
        {"base_model.model.model.embed_tokens.lora_embedding_A": (4, 320)},
        PEFT,
        LLAMA,
        "unmapped",
    ),
    "a norm": ({f"{AT}input_layernorm.lora_A.weight": (4, 64)}, PEFT, LLAMA, "unmapped tensor"),
    "an expert": (
        {EXPERT: (4, 64)},
        PEFT,
        base_of(decoder("Qwen3MoeForCausalLM")),
        "unmapped tensor",
    ),
    "no matrix": (
        {f"{AT}self_attn.q_proj.lora_A.weight": (4,)},
        PEFT,
        LLAMA,
        "is no matrix of numbers",
    ),
    "both spellings": (
        {**Q, f"{AT}self_attn.q_proj.lora_A.default.weight": (4, 64)},
        PEFT,
        LLAMA,
        "is there twice",
    ),
    "another width": (
        {**Q, f"{AT}self_attn.q_proj.lora_A.weight": (4, 65)},
        PEFT,
        LLAMA,
        "attn_q.weight is 64×64 in the base model, the adapter's factors are 64×4 and 4×65",
    ),
    "factors that do not meet": (
        {**Q, f"{AT}self_attn.q_proj.lora_A.weight": (5, 64)},
        PEFT,
        LLAMA,
        "are 64×4 and 5×64",
    ),
    "two ranks": ({**Q, **K}, PEFT, LLAMA, "modules of different ranks"),
    "a base without it": (UP, PEFT, MIXTRAL, "the base model has no tensor blk.0.ffn_up.weight"),
    "a tied base": (HEAD, PEFT, TIED, "the base model has no tensor output.weight"),
    "another base": (
        Q,
        PEFT,
        Base({"general.architecture": "falcon"}, frozenset()),
        'architecture "falcon"',
    ),
    "an encoder": (
        Q,
        PEFT,
        Base({"general.architecture": "bert"}, frozenset()),
        'architecture "bert"',
    ),
    "no base": (Q, PEFT, Base({}, frozenset()), 'unsupported architecture "unknown"'),
    "a base that tells nothing": (
        Q,
        PEFT,
        Base({"general.architecture": "llama"}, frozenset()),
        "the base model: num_hidden_layers",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_adapter_that_does_not_fit_is_one_clear_error(name: str) -> None:
    shapes, settings, base, words = FAULTS[name]
    with pytest.raises(CheckpointInvalid, match=re.escape(words)):
        convert(shapes, settings, base)


def test_the_adapters_config_must_be_there() -> None:
    with pytest.raises(CheckpointInvalid, match=r"open adapter_config\.json: no such file"):
        convert_adapter(Folder({}), {}, LLAMA)


def test_a_base_of_layers_of_two_kinds_says_which_attend() -> None:
    made = planned(contents(decoder("Lfm2ForCausalLM")))
    values = {
        key: list(entry.value.values) if isinstance(entry.value, Array) else entry.value
        for key, entry in made.keys
    }
    base = Base(values, frozenset(tensor.name for tensor in made.tensors))
    at = "base_model.model.model.layers.1."
    shapes = {
        f"{at}self_attn.k_proj.lora_A.weight": (4, 64),
        f"{at}self_attn.k_proj.lora_B.weight": (32, 4),
        f"{at}feed_forward.w1.lora_A.weight": (4, 64),
        f"{at}feed_forward.w1.lora_B.weight": (64, 4),
    }
    names = {tensor.name for tensor in convert(shapes, base=base).tensors}
    assert "blk.1.attn_k.weight.lora_a" in names
    assert "blk.1.ffn_gate.weight.lora_b" in names
