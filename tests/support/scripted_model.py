"""Small models for the real engine, made of numbers in milliseconds.

`scripted_model` answers, at temperature 0, with a fixed text: its layer adds nothing, so the output
matrix is a table "token → next token". `embedding_model` turns texts into vectors. `random_model`
is of any size, for speed. Needs numpy.

Source: spec inference-and-gguf 10.4.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from registry.core.gguf import Array, Entry, Kind, Tensor
from registry.core.gguf.values import Scalar
from registry.core.gguf.writer import Pair, layout, padded

Matrix = NDArray[np.float32] | NDArray[np.float16]
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_NORMAL, _CONTROL = 1, 3
_TYPES = {"float32": "F32", "float16": "F16"}


def gguf_file(pairs: Sequence[Pair], tensors: Mapping[str, Matrix]) -> bytes:
    """A whole file; shapes of matrices are row-major."""
    infos = [
        Tensor(name, _TYPES[matrix.dtype.name], tuple(reversed(matrix.shape)))
        for name, matrix in tensors.items()
    ]
    laid = layout(pairs, infos)
    parts = [laid.header]
    for matrix in tensors.values():
        data = np.ascontiguousarray(matrix).tobytes()
        parts += [data, bytes(padded(len(data), laid.alignment) - len(data))]
    return b"".join(parts)


def byte_alphabet() -> list[str]:
    """The characters that stand for the 256 bytes in byte-level BPE, by byte."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in visible else next(spare)) for byte in range(256)]


def scripted_model(
    script: Sequence[str],
    *,
    start: str = "\n",
    chat_template: str = CHATML,
    context: int = 8192,
    extra: Sequence[Pair] = (),
) -> bytes:
    """A model that answers a prompt ending in `start` with the pieces of `script`, then ends.

    A piece is a token of its own and may occur once; those of `SPECIALS` keep their meaning. Where
    the prompt ends in a piece of the script instead, the answer goes on from there.
    """
    return gguf_file(*scripted([[start, *script, SPECIALS[2]]], chat_template, context, extra))


def endless(script: Sequence[str], *, start: str = "\n", context: int = 1 << 17) -> bytes:
    """A model that says `script` over and over."""
    return gguf_file(*scripted([[start, *script, script[0]]], CHATML, context, ()))


def scripted(
    chains: Sequence[Sequence[str]], chat_template: str, context: int, extra: Sequence[Pair]
) -> tuple[list[Pair], dict[str, Matrix]]:
    """Keys and tensors of a model in which each piece of a chain is followed by the next."""
    tokens = _tokens(chains)
    ways = [[tokens.index(_spelled(piece)) for piece in chain] for chain in chains]
    followed = [before for way in ways for before in way[:-1]]
    if len(set(followed)) != len(followed):
        raise ValueError("each piece of a script must be a token of its own")
    embedding = _embedding(len(tokens))
    width = embedding.shape[1]
    output = np.zeros_like(embedding)
    for way in ways:
        for before, after in itertools.pairwise(way):
            output[after] += embedding[before]
    sizes = {"layers": 1, "width": width, "inner": 32, "heads": 4, "kv": 1, "context": context}
    layer: dict[str, Matrix] = {
        "attn_norm": np.ones(width, np.float32),
        "attn_q": np.zeros((width, width), np.float32),
        "attn_k": np.zeros((width // 4, width), np.float32),
        "attn_v": np.zeros((width // 4, width), np.float32),
        "attn_output": np.zeros((width, width), np.float32),
        "ffn_norm": np.ones(width, np.float32),
        "ffn_gate": np.zeros((32, width), np.float32),
        "ffn_up": np.zeros((32, width), np.float32),
        "ffn_down": np.zeros((width, 32), np.float32),
    }
    tensors: dict[str, Matrix] = {
        "token_embd.weight": embedding,
        "output.weight": output,
        "output_norm.weight": np.ones(width, np.float32),
        **{f"blk.0.{name}.weight": matrix for name, matrix in layer.items()},
    }
    pairs = [*_llama_pairs(sizes, len(tokens)), *_bpe_pairs(tokens), *extra]
    if chat_template:
        pairs.append(_pair("tokenizer.chat_template", Kind.STRING, chat_template))
    return pairs, tensors


def token_of(chains: Sequence[Sequence[str]], piece: str) -> int:
    """The number of a piece in a `scripted` model."""
    return _tokens(chains).index(_spelled(piece))


def _spelled(piece: str) -> str:
    alphabet = byte_alphabet()
    return piece if piece in SPECIALS else "".join(alphabet[byte] for byte in piece.encode())


def _tokens(chains: Sequence[Sequence[str]]) -> list[str]:
    tokens = [*byte_alphabet(), *SPECIALS]
    spelled = [_spelled(piece) for chain in chains for piece in chain]
    return tokens + [piece for piece in dict.fromkeys(spelled) if piece not in tokens]


def _embedding(count: int, width: int = 256) -> NDArray[np.float32]:
    """The same for a token whatever comes after it."""
    rng = np.random.default_rng(0)
    return rng.choice(np.array([-1, 1], np.float32), (count, width))


def random_model(
    width: int = 64,
    layers: int = 2,
    vocabulary: int = 512,
    *,
    inner: int = 0,
    heads: int = 4,
    context: int = 4096,
    dtype: type[np.float32 | np.float16] = np.float16,
    tied: bool = False,
    seed: int = 0,
) -> bytes:
    """A llama of any size whose weights are noise: it never says anything, at any speed.

    A `tied` one has no output matrix of its own.
    """
    rng = np.random.default_rng(seed)
    inner = inner or width * 4
    words = [f"w{number}" for number in range(vocabulary - 256 - len(SPECIALS))]
    tokens = [*byte_alphabet(), *SPECIALS, *words]

    def matrix(rows: int, columns: int) -> Matrix:
        values = rng.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5)
        return values.astype(np.float16) if dtype is np.float16 else values

    tensors: dict[str, Matrix] = {
        "token_embd.weight": matrix(vocabulary, width),
        "output_norm.weight": np.ones(width, np.float32),
    }
    if not tied:
        tensors["output.weight"] = matrix(vocabulary, width)
    for layer in range(layers):
        at = f"blk.{layer}."
        tensors |= {
            at + "attn_norm.weight": np.ones(width, np.float32),
            at + "attn_q.weight": matrix(width, width),
            at + "attn_k.weight": matrix(width, width),
            at + "attn_v.weight": matrix(width, width),
            at + "attn_output.weight": matrix(width, width),
            at + "ffn_norm.weight": np.ones(width, np.float32),
            at + "ffn_gate.weight": matrix(inner, width),
            at + "ffn_up.weight": matrix(inner, width),
            at + "ffn_down.weight": matrix(width, inner),
        }
    sizes = {
        "layers": layers, "width": width, "inner": inner, "heads": heads, "kv": heads,
        "context": context,
    }  # fmt: skip
    chat = _pair("tokenizer.chat_template", Kind.STRING, CHATML)
    return gguf_file([*_llama_pairs(sizes, vocabulary), *_bpe_pairs(tokens), chat], tensors)


def embedding_model(
    words: Sequence[str] = ("hello", "world", "cat", "dog", "sat", "the", "on", "mat"),
    *,
    width: int = 32,
    layers: int = 2,
    context: int = 128,
    pooling: int | None = 1,
) -> bytes:
    """A BERT over `words` and single letters; `pooling` 1 is the mean, 2 the first token."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokens += [f"\u2581{word}" for word in (*words, *letters, ".", ",")] + letters
    rng = np.random.default_rng(1)
    tensors: dict[str, Matrix] = {
        "token_embd.weight": _noise(rng, len(tokens), width),
        "position_embd.weight": _noise(rng, context, width) * np.float32(0.3),
        "token_types.weight": _noise(rng, 2, width),
        **_norm(rng, "token_embd_norm", width),
    }
    for layer in range(layers):
        at = f"blk.{layer}."
        for name, rows, columns in (
            ("attn_q", width, width), ("attn_k", width, width), ("attn_v", width, width),
            ("attn_output", width, width), ("ffn_up", 2 * width, width),
            ("ffn_down", width, 2 * width),
        ):  # fmt: skip
            tensors[f"{at}{name}.weight"] = _noise(rng, rows, columns)
            tensors[f"{at}{name}.bias"] = _noise(rng, 1, rows)[0] * np.float32(0.1)
        tensors |= _norm(rng, at + "attn_output_norm", width)
        tensors |= _norm(rng, at + "layer_output_norm", width)
    return gguf_file(_bert_pairs(tokens, width, layers, context, pooling), tensors)


def _noise(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    return rng.standard_normal((rows, columns), np.float32) * np.float32(1.5 / columns**0.5)


def _norm(rng: np.random.Generator, name: str, width: int) -> dict[str, Matrix]:
    near_one = 1 + np.float32(0.2) * rng.standard_normal(width, np.float32)
    return {f"{name}.weight": near_one, f"{name}.bias": _noise(rng, 1, width)[0]}


def _pair(key: str, kind: Kind, value: Scalar | Array) -> Pair:
    return key, Entry(kind, value)


def _numbers(prefix: str, kind: Kind, values: Mapping[str, Scalar]) -> list[Pair]:
    return [_pair(prefix + key, kind, value) for key, value in values.items()]


def _llama_pairs(sizes: Mapping[str, int], vocabulary: int) -> list[Pair]:
    return [
        _pair("general.architecture", Kind.STRING, "llama"),
        *_numbers(
            "llama.",
            Kind.U32,
            {
                "block_count": sizes["layers"],
                "context_length": sizes["context"],
                "embedding_length": sizes["width"],
                "feed_forward_length": sizes["inner"],
                "attention.head_count": sizes["heads"],
                "attention.head_count_kv": sizes["kv"],
                "rope.dimension_count": sizes["width"] // sizes["heads"],
                "vocab_size": vocabulary,
            },
        ),
        *_numbers(
            "llama.",
            Kind.F32,
            {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e4},
        ),
    ]


def _bpe_pairs(tokens: Sequence[str]) -> list[Pair]:
    types = tuple(_CONTROL if token in SPECIALS else _NORMAL for token in tokens)
    return [
        _pair("tokenizer.ggml.model", Kind.STRING, "gpt2"),
        _pair("tokenizer.ggml.pre", Kind.STRING, "qwen2"),
        _pair("tokenizer.ggml.tokens", Kind.ARRAY, Array(Kind.STRING, tuple(tokens))),
        _pair("tokenizer.ggml.token_type", Kind.ARRAY, Array(Kind.I32, types)),
        _pair("tokenizer.ggml.merges", Kind.ARRAY, Array(Kind.STRING, ("a b",))),
        _pair("tokenizer.ggml.eos_token_id", Kind.U32, tokens.index(SPECIALS[2])),
        _pair("tokenizer.ggml.add_bos_token", Kind.BOOL, False),
    ]


def _bert_pairs(
    tokens: Sequence[str], width: int, layers: int, context: int, pooling: int | None
) -> list[Pair]:
    special = {"unknown": 1, "seperator": 3, "padding": 0, "cls": 2, "bos": 2, "eos": 3}
    pairs = [
        _pair("general.architecture", Kind.STRING, "bert"),
        *_numbers(
            "bert.",
            Kind.U32,
            {
                "block_count": layers,
                "context_length": context,
                "embedding_length": width,
                "feed_forward_length": 2 * width,
                "attention.head_count": 4,
            },
        ),
        _pair("bert.attention.layer_norm_epsilon", Kind.F32, 1e-12),
        _pair("bert.attention.causal", Kind.BOOL, False),
        _pair("tokenizer.ggml.model", Kind.STRING, "bert"),
        _pair("tokenizer.ggml.pre", Kind.STRING, "default"),
        _pair("tokenizer.ggml.token_type_count", Kind.U32, 2),
        _pair("tokenizer.ggml.tokens", Kind.ARRAY, Array(Kind.STRING, tuple(tokens))),
        *[
            _pair(f"tokenizer.ggml.{name}_token_id", Kind.U32, number)
            for name, number in special.items()
        ],
    ]
    if pooling is not None:
        pairs.append(_pair("bert.pooling_type", Kind.U32, pooling))
    return pairs
