"""A model that sees: it tells light pictures from dark ones, in milliseconds, in the real engine.

The projector is one of LLaVA's kind without a layer of its own: each patch becomes the mean of its
pixels, told in two numbers that no token has. The text model's only layer carries these from
wherever they stand to the end of the prompt, where they outweigh what a script would say. Numbers
are chosen, none is trained.

Source: llama.cpp, tools/mtmd/clip.cpp, `PROJECTOR_TYPE_MLP`.
"""

import base64
import struct
import zlib
from collections.abc import Callable

import numpy as np

from registry.core.gguf import Array, Kind
from tests.support.scripted_model import (
    CHATML,
    Matrix,
    _numbers,
    _pair,
    gguf_file,
    scripted,
    token_of,
)

LIGHT, DARK, BLIND = "light", "dark", "nothing"
_WIDTH, _EDGE, _PATCH = 256, 28, 14
_SIGHT = 240
"""From here on numbers are kept free of tokens."""


def seeing_model(chat_template: str = CHATML) -> tuple[bytes, bytes]:
    """The text model, which answers a prompt that ends in a new line, and its projector."""
    return _text_model(chat_template), _projector()


def _text_model(chat_template: str) -> bytes:
    chains = [["\n", BLIND, "<|im_end|>"], [LIGHT, "<|im_end|>"], [DARK, "<|im_end|>"]]
    pairs, tensors = scripted(chains, chat_template, 8192, ())
    embedding, output = tensors["token_embd.weight"], tensors["output.weight"]
    embedding[:, _SIGHT:] = 0
    output[:, _SIGHT:] = 0
    for place, word in enumerate((LIGHT, DARK)):
        row = token_of(chains, word)
        output[row] += embedding[token_of(chains, "\n")] * 0.9
        output[row, _SIGHT + place] = 10
        tensors["blk.0.attn_v.weight"][place, _SIGHT + place] = 1
        tensors["blk.0.attn_output.weight"][_SIGHT + place, place] = 50
    return gguf_file(pairs, tensors)


def _projector() -> bytes:
    inner = 8
    patches: Matrix = np.zeros((inner, 3, _PATCH, _PATCH), np.float32)
    patches[0] = 1 / (3 * _PATCH * _PATCH)  # the mean of a patch, from -1 to 1
    patches[1] = -patches[0]
    up: Matrix = np.eye(inner, dtype=np.float32) * 10  # far from zero, GELU is a rectifier
    down: Matrix = np.zeros((_WIDTH, inner), np.float32)
    down[_SIGHT, 0] = down[_SIGHT + 1, 1] = 1
    count = (_EDGE // _PATCH) ** 2
    square: Matrix = np.zeros((inner, inner), np.float32)
    ones: Matrix = np.ones(inner, np.float32)
    layer = {f"attn_{name}.weight": square for name in "qkv"}
    layer |= {f"{name}.weight": square for name in ("attn_out", "ffn_up", "ffn_down")}
    layer |= {"ln1.weight": ones, "ln2.weight": ones}
    tensors: dict[str, Matrix] = {
        "v.patch_embd.weight": patches,
        "v.position_embd.weight": np.zeros((count, inner), np.float32),
        **{f"v.blk.0.{name}": matrix for name, matrix in layer.items()},
        "mm.0.weight": up,
        "mm.0.bias": np.zeros(inner, np.float32),
        "mm.2.weight": down,
        "mm.2.bias": np.zeros(_WIDTH, np.float32),
    }
    half = Array(Kind.F32, (0.5, 0.5, 0.5))
    pairs = [
        _pair("general.architecture", Kind.STRING, "clip"),
        _pair("clip.projector_type", Kind.STRING, "mlp"),
        _pair("clip.has_vision_encoder", Kind.BOOL, True),
        _pair("clip.use_gelu", Kind.BOOL, True),
        *_numbers(
            "clip.vision.",
            Kind.U32,
            {
                "image_size": _EDGE,
                "patch_size": _PATCH,
                "embedding_length": inner,
                "feed_forward_length": inner,
                "block_count": 1,
                "attention.head_count": 1,
                "projection_dim": _WIDTH,
            },
        ),
        _pair("clip.vision.attention.layer_norm_epsilon", Kind.F32, 1e-5),
        _pair("clip.vision.image_mean", Kind.ARRAY, half),
        _pair("clip.vision.image_std", Kind.ARRAY, half),
    ]
    return gguf_file(pairs, tensors)


def png(shade: int, edge: int = 20) -> bytes:
    """A square of one shade of grey, 0 to 255."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([shade]) * edge) * edge
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


def bmp(shade: int, edge: int = 20) -> bytes:
    """The same as a Windows bitmap."""
    data = bytes([shade]) * (3 * edge * edge)  # rows of 60 bytes need no padding
    head = struct.pack("<IiiHHIIiiII", 40, edge, edge, 1, 24, 0, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + head + data


def gif(shade: int, edge: int = 20) -> bytes:
    """The same as a GIF of one frame: every pixel a code of its own, the table cleared in time."""
    bits, value, out = 0, 0, bytearray()
    for code in [c for _ in range(edge * edge) for c in (4, 0)] + [5]:
        value |= code << bits
        bits += 3
        while bits >= 8:
            out.append(value & 255)
            value, bits = value >> 8, bits - 8
    out.append(value & 255)
    blocks = b"".join(
        bytes([len(out[at : at + 255])]) + bytes(out[at : at + 255])
        for at in range(0, len(out), 255)
    )
    colours = bytes([shade] * 3) * 4
    size = struct.pack("<HH", edge, edge)
    return (
        b"GIF89a" + size + b"\x81\0\0" + colours + b"," + b"\0" * 4 + size + b"\0\x02"
        + blocks + b"\0;"
    )  # fmt: skip


JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////"
    "////////////////////////////////wAALCAAUABQBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcI"
    "CQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcY"
    "GRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKj"
    "pKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/ALlF"
    "FFFFFFFFf/9k="
)
"""A light square."""
WEBP = base64.b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoCAAIADMDOJaQAA3AA/utaAAA=")
PICTURES: dict[str, Callable[[int], bytes]] = {"png": png, "bmp": bmp, "gif": gif}
