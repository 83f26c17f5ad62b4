"""registry/core/convert/model.py and the architectures: what a checkpoint is to become."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from registry.core.convert import mapping
from registry.core.convert.architectures import BY_ARCHITECTURE, FAMILIES
from registry.core.convert.plan import Conversion, Output, Turned
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Array
from tests.support.conversion import planned
from tests.support.tiny_models import Tiny, bert, decoder, fuse_experts, nomic_bert, safetensors

VOCABULARY = {
    chr(ord("A") + number // 26) + chr(ord("a") + number % 26): number for number in range(320)
}
TOKENIZER = {
    "model": {"type": "BPE", "vocab": VOCABULARY, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel"},
}
CLASSES = [name for name in FAMILIES if name.endswith("CausalLM")]
POOLING = json.dumps({"pooling_mode_mean_tokens": True}).encode()


def contents(tiny: Tiny, dtype: str = "F32") -> dict[str, bytes]:
    return {"tokenizer.json": json.dumps(TOKENIZER).encode(), **tiny.contents(dtype)}


def plan(tiny: Tiny, dtype: str = "F32") -> Conversion:
    return planned(contents(tiny, dtype))


def keys(tiny: Tiny) -> dict[str, Any]:
    return {
        key: list(entry.value.values) if isinstance(entry.value, Array) else entry.value
        for key, entry in plan(tiny).keys
    }


def tensors(tiny: Tiny, dtype: str = "F32") -> dict[str, Output]:
    return {tensor.name: tensor for tensor in plan(tiny, dtype).tensors}


def changed(tiny: Tiny, **config: Any) -> Tiny:
    merged = {**tiny.config, **config}
    return Tiny({k: v for k, v in merged.items() if v is not None}, tiny.weights, tiny.files)


def reweighted(tiny: Tiny, change: Callable[[dict[str, Any]], object]) -> Tiny:
    weights = dict(tiny.weights)
    change(weights)
    return Tiny(tiny.config, weights, tiny.files)


LLAMA = decoder("LlamaForCausalLM")
LFM2 = decoder("Lfm2ForCausalLM")


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("name", CLASSES)
def test_every_tensor_of_every_decoder_finds_its_place(name: str) -> None:
    tiny = decoder(name)
    made = plan(tiny)
    assert made.keys[0][1].value == FAMILIES[name].name
    assert made.parameter_count == sum(array.size for array in tiny.weights.values())
    names = [tensor.name for tensor in made.tensors]
    assert len(set(names)) == len(names)
    assert made.warnings == ()


def test_tensors_come_layer_by_layer_and_by_name() -> None:
    names = [
        tensor.name for tensor in plan(decoder("LlamaForCausalLM", num_hidden_layers=11)).tensors
    ]
    assert names[:4] == [
        "output.weight",
        "output_norm.weight",
        "token_embd.weight",
        "blk.0.attn_k.weight",
    ]
    layers = [int(name.split(".")[1]) for name in names[3:]]
    assert layers == sorted(layers)


def test_types_keep_every_bit_of_small_tensors_and_16_of_large_ones() -> None:
    found = tensors(LLAMA)
    assert found["blk.0.attn_q.weight"].type == "F16"
    assert found["blk.0.attn_norm.weight"].type == "F32"
    assert tensors(LLAMA, "BF16")["blk.0.attn_q.weight"].type == "BF16"
    assert tensors(LLAMA, "BF16")["output_norm.weight"].type == "F32"
    moe = tensors(decoder("Qwen2MoeForCausalLM"))
    assert moe["blk.0.ffn_gate_inp.weight"].type == "F32"
    assert moe["blk.0.ffn_gate_inp_shexp.weight"].shape == (64,)
    assert moe["blk.0.ffn_gate_exps.weight"].shape == (64, 32, 8)
    assert moe["blk.0.ffn_gate_exps.weight"].type == "F16"


def test_llamas_keys() -> None:
    found = keys(changed(LLAMA, head_dim=16))
    assert found["llama.vocab_size"] == 320
    assert found["llama.rope.dimension_count"] == 16
    assert found["llama.attention.key_length"] == 16
    assert found["general.file_type"] == 1
    assert "llama.attention.key_length" not in keys(LLAMA)
    assert list(found)[-2:] == ["general.quantization_version", "general.file_type"]


def test_llama3s_scaling_is_a_tensor_and_the_others_are_keys() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}
    found = tensors(changed(LLAMA, rope_scaling=scaling))["rope_freqs.weight"]
    assert (found.shape, found.type, len(found.values)) == ((8,), "F32", 8)
    linear = keys(changed(LLAMA, rope_scaling={"type": "linear", "factor": 2.0}))
    assert linear["llama.rope.scaling.type"] == "linear"
    assert linear["llama.rope.scaling.factor"] == 2.0
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    found_yarn = keys(changed(LLAMA, rope_scaling=yarn))
    assert found_yarn["llama.rope.scaling.original_context_length"] == 64
    assert found_yarn["llama.rope.scaling.yarn_beta_fast"] == 32.0
    assert "llama.rope.scaling.attn_factor" not in found_yarn
    short = keys(changed(LLAMA, rope_scaling={"rope_type": "yarn", "factor": 4.0}))
    assert "llama.rope.scaling.original_context_length" not in short


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"attention_factor": 1.0}, 1 / 1.1386),
        ({"attention_factor": 1.5}, 1.5 / 1.1386),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1 / 1.1386),
        ({"mscale": 0.707, "mscale_all_dim": 0.707}, 1 / 1.1386),
        ({"mscale": 1.0, "mscale_all_dim": 0.0}, None),
        ({"mscale": 1.0}, None),
    ],
)
def test_yarns_factor_is_told_less_what_the_engine_does_by_itself(
    settings: dict[str, Any], share: float | None
) -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **settings}
    found = keys(changed(LLAMA, rope_scaling=yarn)).get("llama.rope.scaling.attn_factor")
    assert found == (share if share is None else pytest.approx(share, rel=1e-4))


def test_a_tied_output_is_not_written_twice() -> None:
    assert "output.weight" in tensors(LLAMA)
    assert "output.weight" not in tensors(changed(LLAMA, tie_word_embeddings=True))
    without = reweighted(LLAMA, lambda weights: weights.pop("lm_head.weight"))
    assert "output.weight" not in tensors(without)
    with pytest.raises(CheckpointInvalid, match=r"tensor lm_head\.weight is missing"):
        plan(changed(without, tie_word_embeddings=False))


def test_rows_that_no_token_uses_are_named_or_cut() -> None:
    tokenizer = {**TOKENIZER, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}
    files = {"tokenizer.json": json.dumps(tokenizer).encode()}
    named = keys(Tiny(LLAMA.config, LLAMA.weights, files))
    assert len(named["tokenizer.ggml.tokens"]) == 320
    assert named["tokenizer.ggml.tokens"][-1] == "[PAD317]"
    gemma = decoder("Gemma3ForCausalLM")
    cut = Tiny(gemma.config, gemma.weights, files)
    assert tensors(cut)["token_embd.weight"].shape == (64, 2)
    assert tensors(cut)["token_embd.weight"].parts[0].stop == 2
    assert len(keys(cut)["tokenizer.ggml.tokens"]) == 2


def test_gemmas_norms_are_read_with_one_added_and_its_output_is_the_embedding() -> None:
    found = tensors(decoder("Gemma2ForCausalLM", tie_word_embeddings=None))
    assert all(len(found[name].parts[0].steps) == 1 for name in found if "norm" in name)
    assert "output.weight" not in found
    assert keys(decoder("Gemma2ForCausalLM"))["gemma2.attn_logit_softcapping"] == 50.0
    assert "gemma2.attn_logit_softcapping" not in keys(
        decoder("Gemma2ForCausalLM", attn_logit_softcapping=None)
    )


def test_gemma3_says_which_layers_slide_when_it_is_not_the_usual_pattern() -> None:
    pattern = "gemma3.attention.sliding_window_pattern"
    assert keys(decoder("Gemma3ForCausalLM"))[pattern] == [True, False]
    usual = decoder("Gemma3ForCausalLM", layer_types=None, sliding_window_pattern=6)
    assert pattern not in keys(usual)
    assert pattern not in keys(
        decoder("Gemma3ForCausalLM", layer_types=None, sliding_window_pattern=None)
    )
    every = decoder("Gemma3ForCausalLM", layer_types=None, sliding_window_pattern=1)
    assert keys(every)[pattern] == [False, False]


def test_gemma3_has_two_bases_in_every_spelling() -> None:
    plain = decoder("Gemma3ForCausalLM", rope_theta=None, rope_local_base_freq=None)
    assert keys(plain)["gemma3.rope.freq_base"] == 1_000_000.0
    assert keys(plain)["gemma3.rope.freq_base_swa"] == 10_000.0
    nested = {"full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_theta": 6.0}}
    found = keys(changed(plain, rope_parameters=nested))
    assert (found["gemma3.rope.freq_base"], found["gemma3.rope.freq_base_swa"]) == (5.0, 6.0)


@pytest.mark.parametrize("name", ["Gemma3", "Mistral3"])
def test_the_text_part_of_a_model_that_sees_is_converted_with_a_warning(name: str) -> None:
    tiny = decoder(f"{name.replace('Mistral3', 'Mistral')}ForCausalLM")
    weights = {f"language_model.{name}": array for name, array in tiny.weights.items()}
    weights["vision_tower.x"] = np.zeros((2, 2), np.float32)
    text = {key: value for key, value in tiny.config.items() if key != "architectures"}
    config = {"architectures": [f"{name}ForConditionalGeneration"], "text_config": text}
    made = plan(Tiny(config, weights, {}))
    assert [t.name for t in made.tensors] == [t.name for t in plan(tiny).tensors]
    assert "1 tensors vision_tower." in made.warnings[0]


def test_command_r_knows_longer_texts_than_it_has_positions() -> None:
    assert keys(decoder("CohereForCausalLM"))["command-r.context_length"] == 256
    longer = decoder("CohereForCausalLM", model_max_length=512)
    assert keys(longer)["command-r.context_length"] == 512


def test_lfm2_has_layers_of_two_kinds() -> None:
    told = keys(LFM2)
    assert told["lfm2.attention.head_count_kv"] == [0, 2, 0, 0]
    assert told["lfm2.feed_forward_length"] == 64
    made = tensors(LFM2)
    taps = made["blk.0.shortconv.conv.weight"]
    assert (taps.shape, taps.type) == ((3, 64), "F32")
    assert ("blk.1.attn_q.weight" in made, "blk.0.attn_q.weight" in made) == (True, False)


def test_lfm2s_older_configs_say_the_same_otherwise() -> None:
    older = changed(LFM2, layer_types=None, full_attn_idxs=[1], block_ff_dim=96)
    older = changed(older, intermediate_size=None, block_ffn_dim_multiplier=1.0)
    assert keys(older) == keys(LFM2)
    plain = changed(LFM2, block_auto_adjust_ff_dim=False, intermediate_size=64)
    assert keys(plain) == keys(LFM2)


def test_lfm2_may_attend_in_all_layers() -> None:
    only = {name: array for name, array in LFM2.weights.items() if ".layers." not in name}
    only |= {
        name.replace("layers.1.", "layers.0."): array
        for name, array in LFM2.weights.items()
        if ".layers.1." in name
    }
    tiny = Tiny({**LFM2.config, "num_hidden_layers": 1, "layer_types": ["full_attention"]}, only)
    assert keys(tiny)["lfm2.attention.head_count_kv"] == [2]


def test_phi3s_longrope_is_two_tensors_and_a_factor() -> None:
    scaling = {"type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
    tiny = decoder("Phi3ForCausalLM", rope_scaling=scaling, original_max_position_embeddings=64)
    assert tensors(tiny)["rope_factors_long.weight"].values == (2.0,) * 8
    found = keys(tiny)
    assert found["phi3.rope.scaling.attn_factor"] == pytest.approx((1 + 2 / 6) ** 0.5)
    assert found["phi3.attention.sliding_window"] == 0
    same = decoder("Phi3ForCausalLM", rope_scaling=scaling)
    assert keys(same)["phi3.rope.scaling.attn_factor"] == 1.0
    parted = decoder("Phi3ForCausalLM", rope_parameters={"partial_rotary_factor": 0.5})
    assert keys(parted)["phi3.rope.dimension_count"] == 8


def test_fused_experts_have_the_same_shapes() -> None:
    tiny = decoder("Qwen3MoeForCausalLM")
    one, other = tensors(tiny), tensors(fuse_experts(tiny))
    assert {name: t.shape for name, t in one.items()} == {
        name: t.shape for name, t in other.items()
    }


def test_an_encoder_says_how_its_vectors_become_one() -> None:
    tiny = bert(vocab_size=320)
    assert plan(tiny).warnings == ("no pooling is stated: the first token's vector is taken",)
    for name, number in (("mean_tokens", 1), ("cls_token", 2), ("lasttoken", 3)):
        file = json.dumps({f"pooling_mode_{name}": True}).encode()
        stated = Tiny(tiny.config, tiny.weights, {"1_Pooling/config.json": file})
        assert keys(stated)["bert.pooling_type"] == number
    with pytest.raises(CheckpointInvalid, match=r"1_Pooling/config\.json: this pooling"):
        plan(Tiny(tiny.config, tiny.weights, {"1_Pooling/config.json": b"{}"}))


GEMMA_EMBEDDING = decoder("Gemma3TextModel")


@pytest.mark.parametrize(
    ("tiny", "settings"),
    [
        (bert(vocab_size=320), {}),
        (GEMMA_EMBEDDING, {"activation_function": "torch.nn.modules.activation.Tanh"}),
        (GEMMA_EMBEDDING, {"bias": True}),
    ],
)
def test_a_layer_after_the_pooling_is_refused_where_it_would_be_lost(
    tiny: Tiny, settings: dict[str, Any]
) -> None:
    files = {"2_Dense/config.json": json.dumps(settings).encode()}
    with pytest.raises(CheckpointInvalid, match=r"2_Dense/config\.json: this layer after the pool"):
        plan(Tiny(tiny.config, tiny.weights, files))


def test_embedding_gemma_tells_the_sizes_of_its_layers_after_the_pooling() -> None:
    dense = {"2_Dense.linear.weight": zeros(96, 64), "3_Dense.linear.weight": zeros(64, 96)}
    tiny = Tiny(GEMMA_EMBEDDING.config, {**GEMMA_EMBEDDING.weights, **dense}, {})
    found = keys(tiny)
    at = "gemma-embedding.dense_"
    assert (found[f"{at}2_feat_in"], found[f"{at}2_feat_out"]) == (64, 96)
    assert (found[f"{at}3_feat_in"], found[f"{at}3_feat_out"]) == (96, 64)
    assert found["gemma-embedding.pooling_type"] == 2
    with pytest.raises(CheckpointInvalid, match="use_bidirectional_attention must be true"):
        plan(changed(tiny, use_bidirectional_attention=None))


def test_a_decoder_made_for_embeddings_says_so() -> None:
    file = json.dumps({"pooling_mode_lasttoken": True}).encode()
    tiny = decoder("Qwen3ForCausalLM", tie_word_embeddings=True)
    assert (
        keys(Tiny(tiny.config, tiny.weights, {"1_Pooling/config.json": file}))["qwen3.pooling_type"]
        == 3
    )
    assert "qwen3.pooling_type" not in keys(tiny)


def test_gpt_oss_has_its_pre_tokenizer_whatever_the_file_says() -> None:
    split = {"type": "Split", "pattern": {"Regex": "x+"}}
    steps = {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel"}]}
    file = json.dumps({**TOKENIZER, "pre_tokenizer": steps}).encode()
    for name, pre in (("GptOssForCausalLM", "gpt-4o"), ("LlamaForCausalLM", "default")):
        tiny = decoder(name)
        made = plan(Tiny(tiny.config, tiny.weights, {"tokenizer.json": file}))
        assert dict(made.keys)["tokenizer.ggml.pre"].value == pre
        assert bool(made.warnings) is (pre == "default")


def test_an_encoder_leaves_its_training_heads_and_old_names_behind() -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["bert.pooler.dense.weight"] = np.zeros((2, 2), np.float32)
        for name in ("weight", "bias"):
            old = {"weight": "gamma", "bias": "beta"}[name]
            weights[f"bert.embeddings.LayerNorm.{old}"] = weights.pop(
                f"embeddings.LayerNorm.{name}"
            )

    tiny = bert(vocab_size=320)
    assert set(tensors(reweighted(tiny, change))) == set(tensors(tiny))


def test_xlm_roberta_has_fewer_positions_than_rows() -> None:
    tiny = bert("XLMRobertaModel", vocab_size=320, pad_token_id=1)
    assert tensors(tiny)["position_embd.weight"].shape == (64, 126)
    assert keys(tiny)["bert.context_length"] == 126
    with pytest.raises(CheckpointInvalid, match="has only 128 rows"):
        plan(changed(tiny, pad_token_id=127))


def test_nomic_bert_is_read_in_its_original_spelling() -> None:
    tiny = nomic_bert(vocab_size=320)
    found = keys(tiny)
    assert found["nomic-bert.context_length"] == 2048
    assert found["nomic-bert.rope.freq_base"] == 1000
    assert keys(changed(tiny, rotary_emb_base=None))["nomic-bert.rope.freq_base"] == 1000.0
    with pytest.raises(CheckpointInvalid, match="activation_function is not supported"):
        plan(changed(tiny, activation_function="gelu"))


def test_each_architecture_has_one_family_for_its_adapters() -> None:
    assert BY_ARCHITECTURE["llama"].classes[:2] == ("LlamaForCausalLM", "MistralForCausalLM")
    assert BY_ARCHITECTURE["bert"].classes[0] == "BertModel"


AT = "model.layers.1."
FAULTS: dict[str, tuple[Tiny, str]] = {
    "class": (
        changed(LLAMA, architectures=["FooForCausalLM"]),
        'unsupported architecture "FooForCausalLM"',
    ),
    "no class": (changed(LLAMA, architectures=None), "unknown architecture"),
    "a key is missing": (
        changed(LLAMA, hidden_size=None),
        "config.json: hidden_size or n_embd is missing",
    ),
    "heads do not fit": (changed(LLAMA, num_attention_heads=5), "5 heads and 2 key-value heads"),
    "width does not fit": (
        changed(LLAMA, num_attention_heads=6),
        "hidden_size 64 does not fit 6 attention heads",
    ),
    "an odd head": (changed(LLAMA, head_dim=15), "does not fit"),
    "too many layers": (changed(LLAMA, num_hidden_layers=5000), "5000 layers"),
    "layers missing": (changed(LLAMA, num_hidden_layers=3), "layer 2 has no tensor for attn"),
    "layers too many": (changed(LLAMA, num_hidden_layers=1), "the model has 1 layers"),
    "unmapped": (
        reweighted(LLAMA, lambda w: w.update({"model.surprise.weight": zeros(2)})),
        "model.safetensors: unmapped tensor model.surprise.weight",
    ),
    "unmapped part": (
        reweighted(LLAMA, lambda w: w.update({f"{AT}self_attn.q_proj.scale": zeros(2)})),
        "unmapped tensor model.layers.1.self_attn.q_proj.scale",
    ),
    "missing": (
        reweighted(LLAMA, lambda w: w.pop("model.norm.weight")),
        "tensor norm is missing",
    ),
    "missing in one layer": (
        reweighted(LLAMA, lambda w: w.pop(f"{AT}mlp.up_proj.weight")),
        "layer 1 has no tensor for ffn_up",
    ),
    "there twice": (
        reweighted(LLAMA, lambda w: w.update({"norm.weight": zeros(64)})),
        "output_norm.weight has another source too",
    ),
    "wrong shape": (
        reweighted(LLAMA, lambda w: w.update({f"{AT}mlp.up_proj.weight": zeros(96, 65)})),
        "has the shape [96, 65], config.json implies 96×64",
    ),
    "wrong dimensions": (
        reweighted(LLAMA, lambda w: w.update({"model.embed_tokens.weight": zeros(320)})),
        "has the shape [320], config.json implies n×64",
    ),
    "empty": (
        reweighted(LLAMA, lambda w: w.update({"model.embed_tokens.weight": zeros(0, 64)})),
        "has the shape [0, 64]",
    ),
    "vocabulary larger": (
        changed(LLAMA, vocab_size=400),
        "vocab_size is 400, the embedding has 320",
    ),
    "output of another size": (
        reweighted(LLAMA, lambda w: w.update({"lm_head.weight": zeros(321, 64)})),
        "lm_head.weight has 321 rows, the embedding has 320",
    ),
    "more tokens than rows": (
        Tiny(
            {**decoder("LlamaForCausalLM", vocab_size=300).config},
            decoder("LlamaForCausalLM", vocab_size=300).weights,
        ),
        "the tokenizer has 320 tokens, the embedding 300 rows",
    ),
    "dynamic rope": (
        changed(LLAMA, rope_scaling={"type": "dynamic"}),
        "rope type dynamic is not supported",
    ),
    "dense layers among experts": (
        changed(decoder("Qwen3MoeForCausalLM"), mlp_only_layers=[0]),
        "layers without experts",
    ),
    "every other layer": (
        changed(decoder("Qwen2MoeForCausalLM"), decoder_sparse_step=2),
        "layers without experts",
    ),
    "shares as the engine has them not": (
        changed(decoder("Qwen3MoeForCausalLM"), norm_topk_prob=None),
        "norm_topk_prob false is not supported",
    ),
    "shares the other way": (
        changed(decoder("Qwen2MoeForCausalLM"), norm_topk_prob=True),
        "norm_topk_prob true is not supported",
    ),
    "an expert is missing": (
        reweighted(
            decoder("Qwen3MoeForCausalLM"), lambda w: w.pop(f"{AT}mlp.experts.3.up_proj.weight")
        ),
        "the experts are not numbered from 0 on|blk.1.ffn_up_exps.weight has 7 experts",
    ),
    "the last expert is missing": (
        reweighted(
            decoder("Qwen3MoeForCausalLM"), lambda w: w.pop(f"{AT}mlp.experts.7.up_proj.weight")
        ),
        "blk.1.ffn_up_exps.weight has 7 experts, config.json says 8",
    ),
    "phi's rope": (
        changed(decoder("Phi3ForCausalLM"), rope_scaling={"type": "linear"}),
        "rope type linear",
    ),
    "phi's factors": (
        changed(
            decoder("Phi3ForCausalLM"),
            rope_scaling={"type": "su", "long_factor": [1.0], "short_factor": []},
        ),
        "long_factor has 1 numbers",
    ),
    "ministral's scaling": (
        changed(LLAMA, rope_scaling={"type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 0.1}),
        "llama_4_scaling_beta is not supported",
    ),
    "other layers without rope": (
        decoder("SmolLM3ForCausalLM", no_rope_layers=[1, 0, 1, 0]),
        "no_rope_layers is not supported",
    ),
    "every third layer without rope": (
        decoder("SmolLM3ForCausalLM", no_rope_layer_interval=3),
        "no_rope_layer_interval is not supported",
    ),
    "positions that are no table": (
        bert(vocab_size=320, position_embedding_type="relative_key"),
        "position_embedding_type is not supported",
    ),
    "norms of queries": (
        decoder("CohereForCausalLM", use_qk_norm=True),
        "use_qk_norm is not supported",
    ),
    "other betas": (
        changed(LLAMA, rope_scaling={"type": "yarn", "factor": 2.0, "beta_fast": 16}),
        "beta_fast 16.0 is not supported",
    ),
    "yarn that shrinks": (
        changed(LLAMA, rope_scaling={"type": "yarn", "factor": 0.5}),
        "make no sense",
    ),
    "layers of another kind": (
        changed(LFM2, layer_types=["conv", "mamba", "conv", "conv"]),
        "layer_types is not supported",
    ),
    "kinds that are no list": (changed(LFM2, layer_types=7), "layer_types is not supported"),
    "a kind too few": (changed(LFM2, layer_types=["conv"] * 3), "layer_types is not supported"),
    "no kinds at all": (changed(LFM2, layer_types=None), "full_attn_idxs"),
    "convolutions with biases": (changed(LFM2, conv_bias=True), "conv_bias is not supported"),
    "a layer of the other kind": (
        changed(LFM2, layer_types=["conv", "conv", "conv", "conv"]),
        "its layer is of another kind|unmapped",
    ),
    "a convolution that is missing": (
        reweighted(LFM2, lambda w: w.pop("model.layers.2.conv.conv.weight")),
        "layer 2 has no tensor for shortconv",
    ),
    "another activation": (changed(LLAMA, hidden_act="relu"), "hidden_act relu is not supported"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_one_clear_error(name: str) -> None:
    tiny, words = FAULTS[name]
    with pytest.raises(CheckpointInvalid) as caught:
        plan(tiny)
    assert any(part in str(caught.value) for part in words.split("|")), str(caught.value)


def test_numbers_of_another_dtype_are_refused_where_they_are_needed() -> None:
    files = contents(LLAMA)
    weights: dict[str, Any] = {**LLAMA.weights, "model.norm.weight": np.zeros(64, np.float64)}
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float64)
    files["model.safetensors"] = safetensors(weights)
    with pytest.raises(CheckpointInvalid, match=r"norm\.weight is F64, which cannot be converted"):
        planned(files)


def test_experts_of_different_types_are_refused() -> None:
    tiny = decoder("Qwen3MoeForCausalLM")
    weights: dict[str, Any] = dict(tiny.weights)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    weights[name] = weights[name].astype("<f2")
    files = {**contents(tiny), "model.safetensors": safetensors(weights)}
    with pytest.raises(CheckpointInvalid, match=r"3\.up_proj.*has another shape or type"):
        planned(files)


def test_a_matrix_that_has_to_be_transposed_may_not_be_endless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = decoder("GptOssForCausalLM")
    made = tensors(tiny)["blk.0.ffn_gate_exps.weight"]
    assert made.shape == (64, 64, 8)
    assert [part.view for part in made.parts] == [Turned(expert) for expert in range(8)]
    monkeypatch.setattr(mapping, "_MAX_MATRIX", 1000)
    with pytest.raises(CheckpointInvalid, match="is too large to be transposed"):
        plan(tiny)


def test_mxfp4_experts_stay_packed() -> None:
    tiny = decoder("GptOssForCausalLM")
    weights: dict[str, Any] = dict(tiny.weights)
    for layer in range(2):
        at = f"model.layers.{layer}.mlp.experts."
        for name, rows in (("gate_up_proj", 128), ("down_proj", 64)):
            del weights[at + name]
            weights[f"{at}{name}_blocks"] = np.zeros((8, rows, 2, 16), np.uint8)
            weights[f"{at}{name}_scales"] = np.zeros((8, rows, 2), np.uint8)
    made = planned({**contents(tiny), "model.safetensors": safetensors(weights)})
    found = {tensor.name: tensor for tensor in made.tensors}
    assert {tensor.shape for tensor in found.values() if tensor.type == "MXFP4"} == {(64, 64, 8)}
    assert found["blk.0.ffn_up_exps.weight"].parts[0].start == 1
    assert dict(made.keys)["general.file_type"].value == 38


def test_fp8_is_noted_and_stored_as_bf16() -> None:
    weights: dict[str, Any] = dict(LLAMA.weights)
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = np.zeros((96, 64), np.uint8)
    weights[f"{name}_scale_inv"] = np.ones((1, 1), np.float32)
    files = {**contents(LLAMA), "model.safetensors": safetensors(weights, {name: "F8_E4M3"})}
    made = planned(files)
    assert dict(made.keys)["source_quantization"].value == "hf_fp8"
    assert {t.name: t.type for t in made.tensors}["blk.0.ffn_up.weight"] == "BF16"


def test_config_and_tokenizer_must_be_there_in_the_words_of_the_real_server() -> None:
    files = contents(LLAMA)
    with pytest.raises(CheckpointInvalid, match=r"^unknown tokenizer format$"):
        planned({name: data for name, data in files.items() if name != "tokenizer.json"})
    with pytest.raises(CheckpointInvalid, match=r"^open config\.json: no such file or directory$"):
        planned({name: data for name, data in files.items() if name != "config.json"})
