"""Converted checkpoints in the real engine, held to what numpy says the checkpoint answers.

Weights are hot (see tests/support/tiny_models.py), so that an error in any part shows; the last
tests put such errors in and must see them.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.core.convert.model import convert_model
from registry.core.convert.plan import AddOne, Output, Pairs
from registry.core.gguf import Array, Entry
from registry.tensors.checkpoint import (
    Converted,
    open_adapter,
    open_checkpoint,
    read_folder,
    read_headers,
)
from tests.support import reference
from tests.support.checkpoints import (
    BERT_TOKENS,
    BYTES,
    DECODERS,
    PIECES,
    SIZES,
    TEXTS,
    TOKENIZERS,
    encoders,
    over_bytes,
    over_pieces,
    padded_embedding,
    pooled,
    since_version_5,
    with_tokenizer,
)
from tests.support.conversion import opened, write
from tests.support.engine import Engine, agreement, needs_engine
from tests.support.tiny_models import (
    Tiny,
    Weights,
    bert,
    decoder,
    fuse_experts,
    safetensors,
)

pytestmark = [pytest.mark.engine, needs_engine]

POSITIONS = (8, 20, 40)
IDS = [int(number) for number in np.random.default_rng(5).integers(10, 200, 48)]
LEAST = 0.9999
TIE = 0.02  # tokens whose log-probabilities are so near may change places by rounding


def convert(tiny: Tiny, path: Path, dtype: str = "F32") -> Path:
    with opened(tiny.contents(dtype)) as files:
        return write(open_checkpoint(files, {}, lambda text: None), path)


def compare(model: Path, tiny: Tiny, **settings: Any) -> list[float]:
    """How far engine and reference agree at each position; -1 where the best token differs."""
    wanted = reference.log_probs(tiny, IDS, long="rope_scaling" in tiny.config)
    vocabulary = wanted.shape[1]
    found = []
    with Engine(model, **settings) as engine:
        printable = engine.tokenize("e")[-1]
        for position in POSITIONS:
            got = engine.log_probs(IDS[:position], vocabulary, printable)
            want = wanted[position - 1]
            same = want[got.argmax()] > want.max() - TIE
            found.append(agreement(got, want) if same else -1.0)
    return found


@pytest.mark.parametrize("name", DECODERS)
def test_a_converted_decoder_answers_as_its_checkpoint(name: str, tmp_path: Path) -> None:
    tiny = DECODERS[name]()
    assert min(compare(convert(tiny, tmp_path / "model.gguf"), tiny)) >= LEAST


@pytest.mark.parametrize(("dtype", "least"), [("BF16", 0.999), ("F16", LEAST)])
def test_16_bit_checkpoints_answer_the_same(dtype: str, least: float, tmp_path: Path) -> None:
    """With BF16 weights the engine rounds what they are multiplied with to 8 bits, too."""
    tiny = over_bytes("LlamaForCausalLM")
    assert min(compare(convert(tiny, tmp_path / "model.gguf", dtype), tiny)) >= least


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def packed(tiny: Tiny) -> tuple[Tiny, dict[str, bytes]]:
    """GPT-OSS with experts in MXFP4, as published; the checkpoint's floats are what they mean."""
    rng = np.random.default_rng(2)
    floats, stored = dict(tiny.weights), dict(tiny.weights)
    for name, array in tiny.weights.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        experts, columns, rows = array.shape  # each matrix is transposed in the float form
        nibbles = rng.integers(0, 16, (experts, rows, columns // 32, 32), np.uint8)
        scales = rng.integers(122, 124, (experts, rows, columns // 32), np.uint8)
        numbers = E2M1[nibbles] * 2.0 ** (scales[..., None].astype(np.float32) - 127)
        floats[name] = numbers.reshape(experts, rows, columns).transpose(0, 2, 1)
        del stored[name]
        stored[f"{name}_blocks"] = nibbles[..., ::2] | nibbles[..., 1::2] << 4
        stored[f"{name}_scales"] = scales
    meant = Tiny(tiny.config, floats, tiny.files)
    return meant, {**tiny.contents(), "model.safetensors": safetensors(stored)}


def test_mxfp4_experts_answer_as_the_numbers_they_stand_for(tmp_path: Path) -> None:
    """The engine rounds what it multiplies MXFP4 with to 8 bits."""
    tiny, files = packed(over_bytes("GptOssForCausalLM"))
    with opened(files) as inputs:
        model = write(open_checkpoint(inputs, {}, lambda text: None), tmp_path / "model.gguf")
    found = compare(model, tiny)
    assert min(found) >= 0.995


def test_a_padded_embedding_gets_names_for_its_rows_or_is_cut(tmp_path: Path) -> None:
    tiny = over_bytes("Qwen3ForCausalLM", tie_word_embeddings=True)
    padded = padded_embedding(tiny, SIZES[BYTES] + 17)
    assert min(compare(convert(padded, tmp_path / "named.gguf"), padded)) >= LEAST
    gemma = over_pieces("Gemma3ForCausalLM")
    cut = convert(padded_embedding(gemma, SIZES[PIECES] + 17), tmp_path / "cut.gguf")
    assert min(compare(cut, gemma)) >= LEAST


@pytest.mark.parametrize(
    "name", ["llama", "llama, llama3 rope", "llama, yarn", "gemma3", "phi3, long"]
)
def test_either_spelling_of_the_rope_settings_is_read(name: str, tmp_path: Path) -> None:
    tiny = DECODERS[name]()
    one = convert(tiny, tmp_path / "one.gguf")
    other = convert(since_version_5(tiny), tmp_path / "other.gguf")
    assert one.read_bytes() == other.read_bytes()


def test_fused_experts_are_the_same_model(tmp_path: Path) -> None:
    tiny = over_bytes("Qwen3MoeForCausalLM")
    one = convert(tiny, tmp_path / "one.gguf")
    other = convert(fuse_experts(tiny), tmp_path / "other.gguf")
    assert one.read_bytes() == other.read_bytes()


# encoders


@pytest.mark.parametrize("name", encoders())
def test_a_converted_encoder_embeds_as_its_checkpoint(name: str, tmp_path: Path) -> None:
    tiny, pooling = encoders()[name]
    with Engine(convert(tiny, tmp_path / "model.gguf"), embeds=True) as engine:
        for text in TEXTS:
            ids = engine.tokenize(text, special=True)
            assert engine.embedding(text) @ reference.embedding(tiny, ids, pooling) >= LEAST


# tokenizers

CASES = json.loads((TOKENIZERS / "cases.json").read_text())
KNOWN = {  # where the engine's own algorithm differs, whatever the file says
    "wordpiece": {
        "x" * 300: "no limit to a word's length", "안": "Hangul stays", "line": "U+0085",
        "हि": "fewer marks are taken off",
    },
    "wordpiece-cased": {"x" * 300: "no limit to a word's length", "line": "U+0085"},
    "unigram": {
        " ": "spaces at the ends are taken off", "\t": "likewise", "trailing": "likewise",
        "x" * 300: "one of several equally good ways", "ab ": "likewise", "▁": "a sign is a space",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES["ids"])
def test_difficult_texts_are_cut_as_the_original_tokenizer_does(name: str, tmp_path: Path) -> None:
    words = name.startswith("wordpiece")
    tiny = bert(vocab_size=1400) if words else decoder("LlamaForCausalLM", vocab_size=1400)
    source = TOKENIZERS / f"{name}.json"
    if source.exists():
        tiny = with_tokenizer(tiny, name, BERT_TOKENS if words else {})
    else:
        tiny.files["tokenizer.model"] = (TOKENIZERS / f"{name}.model").read_bytes()
    model = convert(tiny, tmp_path / "model.gguf")
    excused = tuple(KNOWN.get(name, {}))
    with Engine(model, embeds=words) as engine:
        wrong = [
            text
            for text, ids in zip(CASES["texts"], CASES["ids"][name], strict=True)
            if engine.tokenize(text) != ids and not (excused and text.startswith(excused))
        ]
    assert wrong == []


# adapters

MODULES = {
    "LlamaForCausalLM": (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ),
    "Phi3ForCausalLM": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "MixtralForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Qwen2MoeForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Qwen3MoeForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "GptOssForCausalLM": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "Lfm2ForCausalLM": ("q_proj", "k_proj", "v_proj", "out_proj", "w1", "w2", "w3"),
}
RANK, ALPHA = 4, 16.0


def adapted(tiny: Tiny, *, mlx: bool = False) -> tuple[Tiny, dict[str, bytes]]:
    """The checkpoint with an adapter merged into it, and the adapter's files."""
    rng = np.random.default_rng(11)
    modules = MODULES.get(tiny.config["architectures"][0], MODULES["LlamaForCausalLM"])
    merged = dict(tiny.weights)
    factors: Weights = {}
    for name, weight in tiny.weights.items():
        stem = name.removesuffix(".weight")
        if not stem.endswith(modules) or "expert" in stem:
            continue
        high, wide = weight.shape
        a = (rng.standard_normal((RANK, wide)) / wide**0.5).astype("<f4")
        b = (rng.standard_normal((high, RANK)) / 8).astype("<f4")
        merged[name] = weight + ALPHA / RANK * (b @ a)
        if mlx:
            factors |= {f"{stem}.lora_a": a.T, f"{stem}.lora_b": b.T}
        else:
            at = f"base_model.model.{stem}"
            factors |= {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b}
    settings = (
        {"fine_tune_type": "lora", "lora_parameters": {"rank": RANK, "scale": ALPHA / RANK}}
        if mlx
        else {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "modules_to_save": None}
    )
    files = {
        "adapter_config.json": json.dumps(settings).encode(),
        "adapter_model.safetensors": safetensors(factors),
    }
    return Tiny(tiny.config, merged, tiny.files), files


def convert_adapter(tiny: Tiny, adapter: Mapping[str, bytes], path: Path) -> Path:
    with opened(tiny.contents()) as files:
        base = open_checkpoint(files, {}, lambda text: None)
    options = {
        "values": {
            key: list(entry.value.values) if isinstance(entry.value, Array) else entry.value
            for key, entry in base.pairs
            if isinstance(entry, Entry) and not key.startswith("tokenizer.")
        },
        "tensors": [tensor.name for tensor in base.tensors],
    }
    with opened(adapter) as files:
        return write(open_adapter(files, options, lambda text: None), path)


ADAPTED = [
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2moe", "qwen3moe", "gemma", "gemma2",
    "gemma3", "phi3", "gpt-oss", "granite", "smollm3", "olmo2", "command-r", "lfm2",
]  # fmt: skip


@pytest.mark.parametrize("name", [*ADAPTED, "llama, mlx"])
def test_a_model_with_an_adapter_answers_as_the_merged_one(name: str, tmp_path: Path) -> None:
    tiny = DECODERS[name.removesuffix(", mlx")]()
    merged, files = adapted(tiny, mlx=name.endswith("mlx"))
    model = convert(tiny, tmp_path / "model.gguf")
    adapter = convert_adapter(tiny, files, tmp_path / "adapter.gguf")
    assert min(compare(model, merged, adapters=[adapter])) >= LEAST
    assert min(compare(model, tiny, adapters=[adapter])) < 0.99


# errors put in

Bend = Callable[[Output], Output]


def without(step: type[Pairs] | type[AddOne], only: str = "") -> Bend:
    def bend(output: Output) -> Output:
        if only not in output.name:
            return output
        parts = tuple(
            dataclasses.replace(part, steps=tuple(s for s in part.steps if not isinstance(s, step)))
            for part in output.parts
        )
        return dataclasses.replace(output, parts=parts)

    return bend


def exchanged(one: str, other: str) -> Bend:
    def bend(output: Output) -> Output:
        for old, new in ((one, other), (other, one)):
            if old in output.name:
                return dataclasses.replace(output, name=output.name.replace(old, new))
        return output

    return bend


def halves_for_turns(output: Output) -> Output:
    """gpt-oss: gate and up as the first and second half of the rows instead of in turn."""
    if "ffn_gate_exps.weight" not in output.name and "ffn_up_exps.weight" not in output.name:
        return output
    parts = []
    for part in output.parts:
        half = part.stop // 2
        first = part.start * half
        parts.append(dataclasses.replace(part, start=first, stop=first + half, step=1))
    return dataclasses.replace(output, parts=tuple(parts))


def convert_wrongly(tiny: Tiny, bend: Bend, path: Path) -> Path:
    with opened(tiny.contents()) as files:
        named = {file.name: file for file in files}
        folder = read_folder(named)
        made = convert_model(folder, read_headers(named, folder))
        bent = tuple(bend(output) for output in made.tensors)
        return write(Converted(dataclasses.replace(made, tensors=bent), named), path)


def nothing(output: Output) -> Output:
    return output


def with_config(tiny: Tiny, **changes: Any) -> Tiny:
    config = {**tiny.config, **changes}
    return Tiny({k: v for k, v in config.items() if v is not None}, tiny.weights, tiny.files)


def without_bias(weights: Weights) -> Weights:
    return {
        name: np.zeros_like(array) if name.endswith("k_proj.bias") else array
        for name, array in weights.items()
    }


def thirds_exchanged(tiny: Tiny) -> Tiny:
    """LFM 2: what gates before a convolution gates after it."""
    weights = dict(tiny.weights)
    for name, array in tiny.weights.items():
        if name.endswith("conv.in_proj.weight"):
            first, second, third = np.split(array, 3)
            weights[name] = np.concatenate([second, first, third])
    return Tiny(tiny.config, weights, tiny.files)


ERRORS: dict[str, tuple[str, Callable[[Tiny], Tiny], Bend]] = {
    "rows of q and k as stored": ("llama", lambda tiny: tiny, without(Pairs)),
    "rows of k as stored": ("llama", lambda tiny: tiny, without(Pairs, "attn_k")),
    "base of rope ignored": (
        "llama, llama3 rope", lambda tiny: with_config(tiny, rope_theta=None), nothing,
    ),
    "llama3's factors ignored": (
        "llama, llama3 rope", lambda tiny: with_config(tiny, rope_scaling=None), nothing,
    ),
    "norms without their 1": ("gemma2", lambda tiny: tiny, without(AddOne)),
    "one norm without its 1": ("gemma3", lambda tiny: tiny, without(AddOne, "attn_k_norm")),
    "k's bias dropped": (
        "qwen2", lambda tiny: Tiny(tiny.config, without_bias(tiny.weights), tiny.files), nothing,
    ),
    "gate and up exchanged": (
        "qwen3moe", lambda tiny: tiny, exchanged("ffn_gate_exps", "ffn_up_exps"),
    ),
    "gates of convolutions exchanged": ("lfm2", thirds_exchanged, nothing),
    "halves for turns": ("gpt-oss", lambda tiny: tiny, halves_for_turns),
    "the sliding window's base for all": (
        "gemma3", lambda tiny: with_config(tiny, rope_theta=10000.0), nothing,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_put_in_is_seen(name: str, tmp_path: Path) -> None:
    family, change, bend = ERRORS[name]
    tiny = DECODERS[family]()
    model = convert_wrongly(change(tiny), bend, tmp_path / "model.gguf")
    assert min(compare(model, tiny)) < LEAST


def test_up_and_gate_exchanged_are_seen_in_an_encoder(tmp_path: Path) -> None:
    tiny, pooling = encoders()["nomic-bert"]
    model = convert_wrongly(tiny, exchanged("ffn_gate", "ffn_up"), tmp_path / "model.gguf")
    with Engine(model, embeds=True) as engine:
        ids = engine.tokenize(TEXTS[1], special=True)
        assert engine.embedding(TEXTS[1]) @ reference.embedding(tiny, ids, pooling) < 0.99


def test_another_pooling_is_seen(tmp_path: Path) -> None:
    tiny, pooling = encoders()["bert, mean"]
    with Engine(convert(pooled(tiny, "cls_token"), tmp_path / "m.gguf"), embeds=True) as engine:
        other = reference.embedding(tiny, engine.tokenize(TEXTS[1], special=True), pooling)
        assert engine.embedding(TEXTS[1]) @ other < 0.99
