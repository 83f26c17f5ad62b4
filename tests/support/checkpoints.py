"""Tiny checkpoints complete with tokenizers: one for each kind of decoder and encoder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tiny_models import Hot, Tiny, bert, decoder, nomic_bert, safetensors

TOKENIZERS = Path(__file__).resolve().parent.parent / "data" / "tokenizers"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + number / 10 for number in range(8)],
    "long_factor": [1.5 + number / 2 for number in range(8)],
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
BYTES, PIECES, WORDS, UNIGRAM = "qwen2", "characters-plain", "wordpiece", "unigram"


def tokenizer_size(name: str) -> int:
    values = json.loads((TOKENIZERS / f"{name}.json").read_text())
    return int(max(len(values["model"]["vocab"]), values["added_tokens"][-1]["id"] + 1))


SIZES = {name: tokenizer_size(name) for name in (BYTES, PIECES, WORDS, UNIGRAM)}


def with_tokenizer(tiny: Tiny, name: str, config: Mapping[str, Any]) -> Tiny:
    files = {
        "tokenizer.json": (TOKENIZERS / f"{name}.json").read_bytes(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return Tiny(tiny.config, tiny.weights, {**tiny.files, **files})


def over_bytes(architecture: str, **changes: Any) -> Tiny:
    tiny = decoder(architecture, **{"vocab_size": SIZES[BYTES], **changes})
    return with_tokenizer(tiny, BYTES, {"add_bos_token": False})


def over_pieces(architecture: str, **changes: Any) -> Tiny:
    tiny = decoder(architecture, **{"vocab_size": SIZES[PIECES], **changes})
    return with_tokenizer(tiny, PIECES, {"add_bos_token": False})


def since_version_5(tiny: Tiny) -> Tiny:
    """The config as transformers 5 writes it: no `rope_theta`, all of rope in one object."""
    config = dict(tiny.config)
    theta, scaling = config.pop("rope_theta"), config.pop("rope_scaling", None) or {}
    inner = {"rope_type": "default", **scaling, "rope_theta": theta}
    local = config.pop("rope_local_base_freq", None)
    if local is not None:
        inner = {
            "full_attention": inner,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        }
    config["rope_parameters"] = inner
    return Tiny(config, tiny.weights, tiny.files)


def padded_embedding(tiny: Tiny, rows: int) -> Tiny:
    """More rows than the tokenizer has tokens, as files have that are made for fast machines."""
    weights = dict(tiny.weights)
    table = weights["model.embed_tokens.weight"]
    filler = np.zeros((rows - len(table), table.shape[1]), np.float32)
    weights["model.embed_tokens.weight"] = np.concatenate([table, filler])
    return Tiny({**tiny.config, "vocab_size": rows}, weights, tiny.files)


DECODERS: dict[str, Callable[[], Tiny]] = {
    "llama": lambda: over_bytes("LlamaForCausalLM"),
    "llama, tied": lambda: over_bytes("LlamaForCausalLM", tie_word_embeddings=True),
    "llama, biases": lambda: over_bytes("LlamaForCausalLM", attention_bias=True),
    "llama, wide heads": lambda: over_bytes("LlamaForCausalLM", head_dim=32),
    "llama, one head for each query": lambda: over_bytes("LlamaForCausalLM", num_key_value_heads=4),
    "llama, llama3 rope": lambda: over_bytes(
        "LlamaForCausalLM", rope_theta=500000.0, rope_scaling=LLAMA3
    ),
    "llama, linear rope": lambda: over_bytes(
        "LlamaForCausalLM", rope_scaling={"type": "linear", "factor": 4.0}
    ),
    "llama, yarn": lambda: over_bytes("LlamaForCausalLM", rope_scaling=YARN),
    "llama, yarn with a factor": lambda: over_bytes(
        "LlamaForCausalLM", rope_scaling={**YARN, "attention_factor": 1.5}
    ),
    "mistral": lambda: over_pieces("MistralForCausalLM"),
    "mixtral": lambda: over_bytes("MixtralForCausalLM"),
    "qwen2": lambda: over_bytes("Qwen2ForCausalLM"),
    "qwen3": lambda: over_bytes("Qwen3ForCausalLM", tie_word_embeddings=True),
    "qwen2moe": lambda: over_bytes("Qwen2MoeForCausalLM"),
    "qwen3moe": lambda: over_bytes("Qwen3MoeForCausalLM"),
    "gemma": lambda: over_pieces("GemmaForCausalLM"),
    "gemma2": lambda: over_pieces("Gemma2ForCausalLM"),
    "gemma3": lambda: over_pieces("Gemma3ForCausalLM"),
    "gemma3, linear rope": lambda: over_pieces(
        "Gemma3ForCausalLM", rope_scaling={"rope_type": "linear", "factor": 8.0}
    ),
    "phi3": lambda: over_bytes("Phi3ForCausalLM"),
    "phi3, long": lambda: over_bytes(
        "Phi3ForCausalLM", original_max_position_embeddings=64, rope_scaling=LONG
    ),
    "gpt-oss": lambda: over_bytes("GptOssForCausalLM"),
    "granite": lambda: over_bytes("GraniteForCausalLM"),
    "smollm3": lambda: over_bytes("SmolLM3ForCausalLM"),
    "olmo2": lambda: over_bytes("Olmo2ForCausalLM"),
    "olmo3": lambda: over_bytes("Olmo3ForCausalLM"),
    "olmo3, yarn": lambda: over_bytes(
        "Olmo3ForCausalLM", rope_scaling={**YARN, "attention_factor": 1.2}
    ),
    "gpt-oss, yarn": lambda: over_bytes("GptOssForCausalLM", rope_scaling=YARN),
    "qwen2, yarn": lambda: over_bytes("Qwen2ForCausalLM", rope_scaling=YARN),
    "command-r": lambda: over_bytes("CohereForCausalLM"),
    "lfm2": lambda: over_bytes("Lfm2ForCausalLM"),
}


BERT_TOKENS = {
    f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")
}
XLM_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
BEGIN_END = {
    "bos_token": "<|begin|>", "eos_token": "<|end|>", "cls_token": "<|begin|>",
    "sep_token": "<|end|>", "add_bos_token": True, "add_eos_token": True,
}  # fmt: skip
TEXTS = ("hello world", "The quick brown fox jumps over the lazy dog, and more of it", "123")


def pooled(tiny: Tiny, pooling: str) -> Tiny:
    settings = json.dumps({f"pooling_mode_{pooling}": True}).encode()
    files = {**tiny.files, "1_Pooling/config.json": settings}
    return Tiny(tiny.config, tiny.weights, files, tiny.after)


def embedding_gemma() -> Tiny:
    tiny = over_pieces("Gemma3TextModel")
    after = [Hot(1).matrix(96, 64), Hot(2).matrix(64, 96)]
    files = dict(tiny.files)
    for folder, matrix in zip(("2_Dense", "3_Dense"), after, strict=True):
        settings = {"bias": False, "activation_function": "torch.nn.modules.linear.Identity"}
        files[f"{folder}/config.json"] = json.dumps(settings).encode()
        files[f"{folder}/model.safetensors"] = safetensors({"linear.weight": matrix})
    return Tiny(tiny.config, tiny.weights, files, after)


def encoders() -> dict[str, tuple[Tiny, str]]:
    words = with_tokenizer(bert(vocab_size=SIZES[WORDS]), WORDS, BERT_TOKENS)
    nomic = with_tokenizer(nomic_bert(vocab_size=SIZES[WORDS]), WORDS, BERT_TOKENS)
    roberta = bert("RobertaModel", vocab_size=tokenizer_size("gpt-2"), pad_token_id=1)
    xlm = bert("XLMRobertaModel", vocab_size=SIZES[UNIGRAM], pad_token_id=1, type_vocab_size=1)
    return {
        "bert, mean": (pooled(words, "mean_tokens"), "mean"),
        "bert, first token": (pooled(words, "cls_token"), "cls"),
        "bert, last token": (pooled(words, "lasttoken"), "last"),
        "nomic-bert": (pooled(nomic, "mean_tokens"), "mean"),
        "roberta": (pooled(with_tokenizer(roberta, "gpt-2", BEGIN_END), "mean_tokens"), "mean"),
        "embedding gemma": (pooled(embedding_gemma(), "mean_tokens"), "mean"),
        "qwen3 for embeddings": (
            pooled(over_bytes("Qwen3ForCausalLM", tie_word_embeddings=True), "lasttoken"),
            "last",
        ),
        "xlm-roberta": (pooled(with_tokenizer(xlm, UNIGRAM, XLM_TOKENS), "cls_token"), "cls"),
    }
