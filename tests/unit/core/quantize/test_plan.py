"""Plans of quantization: those of llama.cpp, tensor by tensor, and the families' own rules."""

import json
from pathlib import Path

import pytest

from registry.core.gguf import Tensor
from registry.core.quantize import Hyper, in_file_order, plan, target

DATA = Path(__file__).parents[3] / "data" / "gguf-quant-plan-golden.json"
MODELS = json.loads(DATA.read_bytes())["models"]
CASES = [(model, name) for model, found in MODELS.items() for name in found["plan"]]


def hyper_of(model: str) -> Hyper:
    found = MODELS[model]
    architecture = found["architecture"]
    values = {f"{architecture}.{key}": value for key, value in found["keys"].items()}
    return Hyper.of({"general.architecture": architecture, **values})


@pytest.mark.parametrize(("model", "name"), CASES)
def test_every_tensor_gets_the_type_that_llama_cpp_gives_it(model: str, name: str) -> None:
    tensors = [Tensor(n, kind, tuple(shape)) for n, shape, kind in MODELS[model]["tensors"]]
    planned = plan(tensors[::-1], hyper_of(model), target(name))
    assert [tensor.name for tensor in planned] == [tensor.name for tensor in tensors]
    assert [tensor.type for tensor in planned] == MODELS[model]["plan"][name].split()


def types(architecture: str, name: str, *names: str, **hyper: int) -> list[str]:
    """The types of square tensors of these names, in that order."""
    tensors = [Tensor(n, "F16", (256, 256)) for n in names]
    planned = plan(tensors, Hyper(architecture, **hyper), target(name))
    found = {tensor.name: tensor.type for tensor in planned}
    return [found[n] for n in names]


@pytest.mark.parametrize(
    ("architecture", "tensor", "name", "kind"),
    [
        ("qwen35", "blk.3.nextn.eh_proj.weight", "Q4_K_M", "Q8_0"),
        ("qwen35", "blk.3.nextn.eh_proj.weight", "Q4_0", "Q4_0"),
        ("qwen35moe", "blk.3.nextn.eh_proj.weight", "Q4_K_S", "Q8_0"),
        ("llama", "blk.3.nextn.eh_proj.weight", "Q4_K_M", "Q4_K"),
        ("gemma3n", "per_layer_token_embd.weight", "Q4_K_M", "F16"),
        ("gemma3n", "token_embd.weight", "Q4_K_M", "Q6_K"),
        ("deepseek2", "blk.0.attn_kv_a_mqa.weight", "Q4_K_M", "Q8_0"),
        ("deepseek2", "blk.0.attn_q_b.weight", "Q3_K_M", "Q8_0"),
        ("deepseek2", "blk.0.attn_q_b.weight", "F16", "F16"),
        ("glm4", "token_embd.weight", "Q4_K_M", "F16"),
        ("glmocr", "output.weight", "Q4_K_S", "F16"),
        ("glm4", "output.weight", "Q8_0", "Q8_0"),
    ],
)
def test_families_keep_what_they_need_precise(
    architecture: str, tensor: str, name: str, kind: str
) -> None:
    assert types(architecture, name, tensor) == [kind]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Q3_K_M", ["Q5_K", "Q4_K", "Q3_K", "Q3_K", "Q4_K"]),
        ("Q3_K_L", ["Q4_K"] * 5),
        ("Q4_K_M", ["Q6_K", "Q5_K", "Q4_K", "Q4_K", "Q5_K"]),
        ("Q4_K_S", ["Q4_K"] * 5),
    ],
)
def test_falcon_has_exceptions_of_its_own(name: str, expected: list[str]) -> None:
    names = [f"blk.{layer}.ffn_down.weight" for layer in range(16)]
    found = types("falcon", name, *names, layers=16)
    assert [found[0], found[1], found[2], found[3], found[4]] == expected
    outputs = types("falcon", name, "blk.0.attn_output.weight")
    assert outputs == ["Q4_K" if name == "Q3_K_L" else target(name).base]


@pytest.mark.parametrize(
    ("name", "hyper", "value", "down", "output"),
    [
        ("IQ4_NL", {}, "IQ4_NL", ["Q5_K", "IQ4_NL", "IQ4_NL"], "IQ4_NL"),
        ("IQ4_XS", {"heads": 8, "kv_heads": 2}, "Q5_K", ["Q5_K", "IQ4_XS", "IQ4_XS"], "IQ4_XS"),
        ("IQ3_S", {}, "IQ3_S", ["IQ3_S"] * 3, "IQ3_S"),
        ("IQ3_S", {"heads": 8, "kv_heads": 2}, "Q4_K", ["IQ3_S"] * 3, "IQ3_S"),
        ("IQ3_M", {}, "Q4_K", ["Q4_K", "IQ3_S", "IQ3_S"], "Q4_K"),
        ("IQ3_M", {"experts": 8}, "Q8_0", ["Q4_K", "IQ3_S", "Q4_K"], "Q5_K"),
    ],
)
def test_types_by_tables_of_numbers_have_rules_too(
    name: str, hyper: dict[str, int], value: str, down: list[str], output: str
) -> None:
    """Compared as whole files with llama.cpp's own quantizer, outside of these tests."""
    downs = [f"blk.{layer}.ffn_down.weight" for layer in (0, 1, 3)]
    names = ["blk.0.attn_v.weight", *downs, "blk.0.attn_output.weight"]
    if not hyper.get("experts"):  # layers are then counted, not read
        names += [f"blk.{layer}.ffn_down.weight" for layer in (2, 4)]
    found = types("llama", name, *names, layers=8, **hyper)
    assert found[0] == value
    assert found[1:4] == down
    assert found[4] == output


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("blk.0.attn_norm.weight", "F32", (256, 256)),
        Tensor("blk.0.attn_k.bias", "F32", (256, 256)),
        Tensor("blk.0.attn_k.weight", "F32", (256,)),
        Tensor("blk.0.attn_k.weight", "F32", (256, 1, 1)),
        Tensor("position_embd.weight", "F16", (256, 256)),
        Tensor("v.blk.0.attn_k.weight", "F16", (256, 256)),
        Tensor("mtp.fc.weight", "F16", (256, 256)),
        Tensor("blk.0.ffn_gate_tid2eid.weight", "I32", (256, 256)),
        Tensor("blk.0.table.weight", "I32", (256, 256)),
        Tensor("blk.0.table.weight", "F64", (256, 256)),
    ],
)
@pytest.mark.parametrize("name", ["Q4_K_M", "BF16"])
def test_some_tensors_stay_as_they_are(tensor: Tensor, name: str) -> None:
    assert plan([tensor], Hyper("llama"), target(name)) == [tensor]


def test_rows_that_fill_no_block_become_sixteen_bits() -> None:
    tensor = Tensor("blk.0.attn_k.weight", "F32", (48, 4))
    for name in ("Q4_K_M", "Q8_0", "Q4_0", "IQ4_XS"):
        assert plan([tensor], Hyper("llama"), target(name))[0].type == "F16"


def test_tensors_of_no_layer_come_first_and_layers_by_number() -> None:
    names = ["blk.10.a", "blk.9.b", "v.blk.0.c", "blk.9.a", "token_embd.weight"]
    ordered = in_file_order([Tensor(name, "F32", (1,)) for name in names])
    assert [tensor.name for tensor in ordered] == [
        "token_embd.weight", "v.blk.0.c", "blk.9.a", "blk.9.b", "blk.10.a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "hyper"),
    [
        ({}, Hyper("")),
        ({"general.architecture": 5}, Hyper("")),
        ({"general.architecture": "x", "x.block_count": "many"}, Hyper("x")),
        ({"general.architecture": "x", "x.block_count": -1}, Hyper("x")),
        (
            {
                "general.architecture": "x",
                "x.attention.head_count": (8, 4),
                "x.attention.head_count_kv": (),
            },
            Hyper("x", heads=8, kv_heads=8),
        ),
    ],
)
def test_what_a_file_does_not_say_well_counts_as_nothing(
    values: dict[str, object], hyper: Hyper
) -> None:
    assert Hyper.of(values) == hyper  # type: ignore[arg-type]  # any JSON a file may hold


def test_heads_share_nothing_where_there_are_none() -> None:
    assert Hyper("x").sharing == 0
