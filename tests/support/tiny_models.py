"""Tiny checkpoints of every architecture, with weights that make each part of the model matter.

Small random weights hide mistakes, since the residual stream drowns what layers do. These are hot:
a q/k permutation left out, a norm without its 1, a wrong base of rope change the answers visibly.

Source: spec inference-and-gguf 10.2, 10.3.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[Any]]
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "uint8": "U8",
}  # fmt: skip


def safetensors(
    tensors: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str] | None = None
) -> bytes:
    """A file; `uint16` is taken for BF16 unless `dtypes` names the tensor's dtype."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, offset = [], 0
    for name, array in tensors.items():
        dtype = (dtypes or {}).get(name) or _DTYPES[array.dtype.name]
        end = offset + array.nbytes
        header[name] = {
            "dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end],
        }  # fmt: skip
        parts.append(np.ascontiguousarray(array).tobytes())
        offset = end
    return with_header(header, b"".join(parts))


def with_header(header: Any, data: bytes = b"") -> bytes:
    """A file with this header, whatever it says."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def to_bf16(array: NDArray[Any]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(array: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (array.astype("<u4") << 16).view("<f4")


def exact(array: NDArray[np.float64]) -> NDArray[np.float32]:
    """Numbers that BF16 and F16 both hold: what is compared is then not the rounding."""
    return from_bf16(to_bf16(array)).astype("<f2").astype("<f4")


@dataclass
class Tiny:
    """A checkpoint in memory: config.json, weights as float32, the other files."""

    config: dict[str, Any]
    weights: Weights
    files: dict[str, bytes] = field(default_factory=dict)
    after: list[NDArray[np.float32]] = field(default_factory=list)  # layers after the pooling

    def contents(self, dtype: str = "F32") -> dict[str, bytes]:
        """Every file by name, the weights in one."""
        cast = {"F32": "<f4", "F16": "<f2"}
        made = {
            name: to_bf16(array) if dtype == "BF16" else array.astype(cast[dtype])
            for name, array in self.weights.items()
        }
        return {
            "config.json": json.dumps(self.config).encode(),
            "model.safetensors": safetensors(made),
            **self.files,
        }

    def write(self, folder: Path, dtype: str = "F32") -> Path:
        """The checkpoint as a folder."""
        for name, data in self.contents(dtype).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder


ROUTER = 8.0
"""So hot that rounding does not choose other experts."""


class Hot:
    """Draws hot weights."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, gain: float = 1.5) -> NDArray[np.float32]:
        return self.table(rows, columns, gain / math.sqrt(columns))

    def table(self, rows: int, columns: int, spread: float) -> NDArray[np.float32]:
        return exact(self._rng.standard_normal((rows, columns)) * spread)

    def norm(self, width: int, mean: float = 1.0) -> NDArray[np.float32]:
        return exact(mean + 0.2 * self._rng.standard_normal(width))

    def bias(self, width: int) -> NDArray[np.float32]:
        return self.norm(width, 0.0)


BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 320,
}
GEMMA = {
    "head_dim": 32, "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 32, "tie_word_embeddings": True,
}  # fmt: skip
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ENCODER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


DEFAULTS: dict[str, dict[str, Any]] = {
    "MixtralForCausalLM": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "Qwen2MoeForCausalLM": {
        **EXPERTS, "norm_topk_prob": False, "shared_expert_intermediate_size": 48,
    },
    "Qwen3MoeForCausalLM": {**EXPERTS, "norm_topk_prob": True},
    "GemmaForCausalLM": GEMMA,
    "Gemma2ForCausalLM": {
        **GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "sliding_window": 16,
    },
    "Gemma3ForCausalLM": {
        **GEMMA, "sliding_window": 16, "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window_pattern": 2,
    },
    "Gemma3TextModel": {
        **GEMMA, "sliding_window": 16, "rope_theta": 1e6, "rope_local_base_freq": 10000.0,
        "layer_types": ["sliding_attention", "full_attention"], "sliding_window_pattern": 2,
        "use_bidirectional_attention": True,
    },
    "GptOssForCausalLM": {
        "head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 2,
        "intermediate_size": 64, "sliding_window": 16, "rope_theta": 150000.0,
    },
    "GraniteForCausalLM": {
        "attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.7,
        "logits_scaling": 2.0,
    },
    "SmolLM3ForCausalLM": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
    "Olmo3ForCausalLM": {
        "num_hidden_layers": 4, "sliding_window": 16,
        "layer_types": [*["sliding_attention"] * 3, "full_attention"],
    },
    "Lfm2ForCausalLM": {
        "norm_eps": 1e-3, "conv_L_cache": 3, "block_multiple_of": 32, "num_hidden_layers": 4,
        "layer_types": ["conv", "full_attention", "conv", "conv"], "tie_word_embeddings": True,
    },
    "CohereForCausalLM": {
        "logit_scale": 0.5, "layer_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
}  # fmt: skip


def decoder(architecture: str, **changes: Any) -> Tiny:
    """A decoder of a class, with the config's keys changed."""
    defaults = DEFAULTS.get(architecture, {})
    config = {"architectures": [architecture], **BASE, **defaults, **changes}
    return Tiny(config, _decoder_weights(config))


def _lfm2_weights(config: Mapping[str, Any]) -> Weights:
    hot = Hot(4)
    width, heads, kv = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    dim, inner = width // heads, 64  # two thirds of 96, a multiple of 32
    out: Weights = {
        "model.embed_tokens.weight": hot.table(config["vocab_size"], width, 0.5),
        "model.embedding_norm.weight": hot.norm(width),
    }
    for layer, kind in enumerate(config["layer_types"]):
        made: Weights = {
            "operator_norm": hot.norm(width),
            "ffn_norm": hot.norm(width),
            "feed_forward.w1": hot.matrix(inner, width),
            "feed_forward.w2": hot.matrix(width, inner),
            "feed_forward.w3": hot.matrix(inner, width),
        }
        if kind == "conv":
            taps = hot.matrix(width, config["conv_L_cache"], 2)
            made |= {
                "conv.conv": taps.reshape(width, 1, -1),
                "conv.in_proj": hot.matrix(3 * width, width),
                "conv.out_proj": hot.matrix(width, width),
            }
        else:
            made |= {
                "self_attn.q_proj": hot.matrix(heads * dim, width, 3),
                "self_attn.k_proj": hot.matrix(kv * dim, width, 3),
                "self_attn.v_proj": hot.matrix(kv * dim, width),
                "self_attn.out_proj": hot.matrix(width, heads * dim),
                "self_attn.q_layernorm": hot.norm(dim),
                "self_attn.k_layernorm": hot.norm(dim),
            }
        out |= {f"model.layers.{layer}.{name}.weight": array for name, array in made.items()}
    return out


def _decoder_weights(config: Mapping[str, Any]) -> Weights:
    kind = config["architectures"][0]
    if kind == "Lfm2ForCausalLM":
        return _lfm2_weights(config)
    hot = Hot(len(kind))
    gemma = kind.startswith("Gemma")
    width, vocab = config["hidden_size"], config["vocab_size"]
    mean = 0.0 if gemma else 1.0
    out: Weights = {
        "model.embed_tokens.weight": hot.table(vocab, width, 0.1 if gemma else 0.5),
        "model.norm.weight": hot.norm(width, mean),
    }
    if not config.get("tie_word_embeddings"):
        out["lm_head.weight"] = hot.matrix(vocab, width)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if kind == "CohereForCausalLM":
        norms = norms[:1]
    if kind.startswith("Olmo"):
        norms = ["post_attention_layernorm", "post_feedforward_layernorm"]
    if kind.startswith(("Gemma2", "Gemma3")):
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        out |= {f"{at}{name}.weight": hot.norm(width, mean) for name in norms}
        out |= {f"{at}self_attn.{name}": a for name, a in _attention(hot, config, kind).items()}
        out |= {f"{at}{name}": array for name, array in _network(hot, config, kind).items()}
    return out


def _attention(hot: Hot, config: Mapping[str, Any], kind: str) -> Weights:
    width, heads, kv = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    dim = config.get("head_dim") or width // heads
    out = {
        "q_proj.weight": hot.matrix(heads * dim, width, 3),
        "k_proj.weight": hot.matrix(kv * dim, width, 3),
        "v_proj.weight": hot.matrix(kv * dim, width),
        "o_proj.weight": hot.matrix(width, heads * dim),
    }
    if kind == "Phi3ForCausalLM":
        fused = [out.pop(f"{name}_proj.weight") for name in "qkv"]
        out["qkv_proj.weight"] = np.concatenate(fused)
    if kind.startswith("Qwen2") or kind == "GptOssForCausalLM" or config.get("attention_bias"):
        out |= {
            f"{name}_proj.bias": hot.bias(count * dim)
            for name, count in (("q", heads), ("k", kv), ("v", kv))
        }
    if kind == "GptOssForCausalLM":
        out |= {"o_proj.bias": hot.bias(width), "sinks": hot.norm(heads)}
    if kind.startswith(("Qwen3", "Gemma3")):
        mean = 0.0 if kind.startswith("Gemma") else 1.0
        out |= {f"{name}_norm.weight": hot.norm(dim, mean) for name in "qk"}
    if kind.startswith("Olmo"):
        out |= {
            f"{name}_norm.weight": hot.norm(count * dim)
            for name, count in (("q", heads), ("k", kv))
        }
    return out


def _network(hot: Hot, config: Mapping[str, Any], kind: str) -> Weights:
    width, inner = config["hidden_size"], config["intermediate_size"]
    if kind == "GptOssForCausalLM":
        return _gptoss_experts(hot, config)
    if kind == "MixtralForCausalLM":
        names = {"w1": (inner, width), "w2": (width, inner), "w3": (inner, width)}
        count = config["num_local_experts"]
        return {"block_sparse_moe.gate.weight": hot.matrix(count, width, ROUTER)} | {
            f"block_sparse_moe.experts.{expert}.{name}.weight": hot.matrix(*shape)
            for expert in range(count)
            for name, shape in names.items()
        }
    if "Moe" in kind:
        return _qwen_experts(hot, config)
    if kind == "Phi3ForCausalLM":
        return {
            "mlp.gate_up_proj.weight": hot.matrix(2 * inner, width),
            "mlp.down_proj.weight": hot.matrix(width, inner),
        }
    return gated(hot, "mlp", width, inner)


def gated(hot: Hot, at: str, width: int, inner: int) -> Weights:
    return {
        f"{at}.gate_proj.weight": hot.matrix(inner, width),
        f"{at}.up_proj.weight": hot.matrix(inner, width),
        f"{at}.down_proj.weight": hot.matrix(width, inner),
    }


def _qwen_experts(hot: Hot, config: Mapping[str, Any]) -> Weights:
    width, inner, count = (
        config[name] for name in ("hidden_size", "moe_intermediate_size", "num_experts")
    )
    out: Weights = {"mlp.gate.weight": hot.matrix(count, width, ROUTER)}
    for expert in range(count):
        out |= gated(hot, f"mlp.experts.{expert}", width, inner)
    if "shared_expert_intermediate_size" in config:
        out |= gated(hot, "mlp.shared_expert", width, config["shared_expert_intermediate_size"])
        out["mlp.shared_expert_gate.weight"] = hot.matrix(1, width)
    return out


def _gptoss_experts(hot: Hot, config: Mapping[str, Any]) -> Weights:
    width, inner, count = (
        config[name] for name in ("hidden_size", "intermediate_size", "num_local_experts")
    )
    at = "mlp.experts."
    return {
        "mlp.router.weight": hot.matrix(count, width, ROUTER),
        "mlp.router.bias": hot.bias(count),
        f"{at}gate_up_proj": np.stack([hot.matrix(2 * inner, width).T for _ in range(count)]),
        f"{at}gate_up_proj_bias": np.stack([hot.bias(2 * inner) for _ in range(count)]),
        f"{at}down_proj": np.stack([hot.matrix(width, inner).T for _ in range(count)]),
        f"{at}down_proj_bias": np.stack([hot.bias(width) for _ in range(count)]),
    }


def fuse_experts(tiny: Tiny) -> Tiny:
    """The same Qwen MoE with its experts in fused tensors, as transformers 5 stores them."""
    out = dict(tiny.weights)
    for layer in range(tiny.config["num_hidden_layers"]):
        at = f"model.layers.{layer}.mlp.experts."
        experts = range(tiny.config["num_experts"])
        both = [
            np.concatenate([out.pop(f"{at}{e}.{n}_proj.weight") for n in ("gate", "up")])
            for e in experts
        ]
        out[f"{at}gate_up_proj"] = np.stack(both)
        out[f"{at}down_proj"] = np.stack([out.pop(f"{at}{e}.down_proj.weight") for e in experts])
    return Tiny(tiny.config, out, tiny.files)


def bert(architecture: str = "BertModel", **changes: Any) -> Tiny:
    """BertModel, or XLMRobertaModel, which is Bert with other positions."""
    config = {"architectures": [architecture], "vocab_size": 64, **ENCODER, **changes}
    hot, width, inner = Hot(7), config["hidden_size"], config["intermediate_size"]
    at = "embeddings."
    out: Weights = {
        f"{at}word_embeddings.weight": hot.table(config["vocab_size"], width, 0.5),
        f"{at}position_embeddings.weight": hot.table(config["max_position_embeddings"], width, 0.5),
        f"{at}token_type_embeddings.weight": hot.table(config["type_vocab_size"], width, 0.5),
    } | _layer_norm(hot, f"{at}LayerNorm", width)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."
        for name, rows, columns, gain in (
            ("attention.self.query", width, width, 3),
            ("attention.self.key", width, width, 3),
            ("attention.self.value", width, width, 1.5),
            ("attention.output.dense", width, width, 1.5),
            ("intermediate.dense", inner, width, 1.5),
            ("output.dense", width, inner, 1.5),
        ):
            out[f"{at}{name}.weight"] = hot.matrix(rows, columns, gain)
            out[f"{at}{name}.bias"] = hot.bias(rows)
        out |= _layer_norm(hot, f"{at}attention.output.LayerNorm", width)
        out |= _layer_norm(hot, f"{at}output.LayerNorm", width)
    return Tiny(config, out)


def _layer_norm(hot: Hot, name: str, width: int) -> Weights:
    return {f"{name}.weight": hot.norm(width), f"{name}.bias": hot.bias(width)}


def nomic_bert(**changes: Any) -> Tiny:
    """NomicBertModel, its config in the spelling of the original files."""
    config = {
        "architectures": ["NomicBertModel"], "vocab_size": 64, "n_embd": 64, "n_head": 4,
        "n_inner": 96, "n_layer": 2, "n_positions": 8192, "max_trained_positions": 2048,
        "rotary_emb_base": 1000, "layer_norm_epsilon": 1e-12, "type_vocab_size": 2,
        "activation_function": "swiglu", **changes,
    }  # fmt: skip
    hot, width, inner = Hot(9), config["n_embd"], config["n_inner"]
    out: Weights = {
        "embeddings.word_embeddings.weight": hot.table(config["vocab_size"], width, 0.5),
        "embeddings.token_type_embeddings.weight": hot.table(2, width, 0.5),
    } | _layer_norm(hot, "emb_ln", width)
    for layer in range(config["n_layer"]):
        at = f"encoder.layers.{layer}."
        queries = [hot.matrix(width, width, gain) for gain in (3, 3, 1.5)]
        out |= {
            f"{at}attn.Wqkv.weight": np.concatenate(queries),
            f"{at}attn.out_proj.weight": hot.matrix(width, width),
            f"{at}mlp.fc11.weight": hot.matrix(inner, width),
            f"{at}mlp.fc12.weight": hot.matrix(inner, width),
            f"{at}mlp.fc2.weight": hot.matrix(width, inner),
        }
        out |= _layer_norm(hot, f"{at}norm1", width) | _layer_norm(hot, f"{at}norm2", width)
    return Tiny(config, out)
