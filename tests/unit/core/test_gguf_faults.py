"""The header reader: files it refuses, and in which words."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from registry.core.errors import GgufInvalid
from registry.core.gguf import Kind
from tests.support.gguf import (
    ARCHITECTURE,
    array_head,
    field,
    gguf,
    pair,
    preamble,
    tensor_info,
    text,
)
from tests.support.gguf_source import Sparse, read

TESTS = Path(__file__).parents[2]
INPUTS = TESTS / "golden/inputs"
BAD = json.loads((TESTS / "data/gguf-bad-inputs.json").read_text())["files"]
CASES = json.loads((TESTS / "golden/cases/07-malformed.json").read_text())["cases"]
NOT_GGUF = "supplied file was not in GGUF format"


def refusal(source: bytes | Sparse) -> GgufInvalid:
    with pytest.raises(GgufInvalid) as caught:
        read(source)
    return caught.value


def content(spec: dict[str, Any]) -> bytes:
    parts = spec["hex"] + spec.get("repeat", "") * spec.get("times", 0) + spec.get("tail", "")
    return bytes.fromhex(parts) + bytes(spec["pad"])


# Refusals that were recorded from the real server


def recorded() -> list[Any]:
    found = []
    for case in CASES:
        if "needs" in case:
            continue
        step = next(step for step in case["steps"] if step.get("json", {}).get("stream") is False)
        found.append(
            pytest.param(
                case["setup"][0]["file"],
                step["expect"]["body"]["error"],
                step["expect"]["status"] == 400,
                id=case["name"],
            )
        )
    return found


@pytest.mark.parametrize(("name", "message", "not_gguf"), recorded())
def test_recorded_refusals_come_out_word_for_word(name: str, message: str, not_gguf: bool) -> None:
    error = refusal((INPUTS / name).read_bytes())
    assert (str(error), error.not_gguf) == (message, not_gguf)


@pytest.mark.parametrize(
    ("name", "message", "not_gguf"),
    [
        ("bad-magic", NOT_GGUF, True),
        ("huge-tensor-count", "failed to read tensor name: EOF", False),
        (
            "truncated-data",
            'tensor "token_embd.weight" offset+size (42880) exceeds file size (40000)',
            False,
        ),
        (
            "truncated-last-byte",
            'tensor "blk.0.ffn_up.weight" offset+size (80000) exceeds file size (79999)',
            False,
        ),
        ("truncated-kv", "unexpected EOF", False),
        ("zero-alignment", "invalid GGUF alignment: 0", False),
        # these three the real server hands to its converter, which fails without a reason
        ("header-only", "GGUF key general.architecture is missing (at byte 24)", False),
        ("no-architecture", "GGUF key general.architecture is missing (at byte 62)", False),
        ("version-99", "GGUF version 99 is not supported, only 2 and 3 (at byte 4)", False),
    ],
)
def test_other_broken_files_are_refused(name: str, message: str, not_gguf: bool) -> None:
    error = refusal((INPUTS / f"malformed/{name}.gguf").read_bytes())
    assert (str(error), error.not_gguf) == (message, not_gguf)


def test_unknown_architectures_are_taken() -> None:
    header = read((INPUTS / "malformed/unknown-architecture.gguf").read_bytes())
    assert header.entries["general.architecture"].value == "nosucharch"


# The 49 bad files


@pytest.mark.parametrize("spec", BAD, ids=lambda spec: spec["name"])
def test_bad_files_are_refused(spec: dict[str, Any]) -> None:
    if spec["expect"] == "reject" or "no architecture" in spec["why"]:
        assert refusal(content(spec)).offset is not None
    else:
        assert read(content(spec)).entries["general.architecture"].kind is Kind.STRING


def test_every_bad_file_has_a_sentence_of_its_own() -> None:
    messages = {}
    for spec in BAD:
        if spec["expect"] == "reject":
            messages[spec["name"]] = str(refusal(content(spec)))
    # the real server's answer to a file that is too short for the magic is recorded
    assert messages.pop("3bytes") == messages["empty"] == NOT_GGUF
    # one rule broken twice: the place, or the number found, tells them apart
    assert len(set(messages.values())) == len(messages)


# One fault each, in our words


def kv(*fields: bytes) -> bytes:
    return preamble(0, len(fields) + 1) + ARCHITECTURE + b"".join(fields)


def tensors(*infos: bytes) -> bytes:
    return preamble(len(infos), 1) + ARCHITECTURE + b"".join(infos) + bytes(1 << 12)


AT = len(kv())  # where the first field after the architecture begins
FAULTS = {
    "zip": (b"PK\3\4" + bytes(60), f"{NOT_GGUF}: it is a ZIP archive"),
    "html": (b"\n<!DOCTYPE html><p>", f"{NOT_GGUF}: it is an HTML page"),
    "safetensors": (
        struct.pack("<Q", 2) + b'{"a":1}  ',
        f"{NOT_GGUF}: it is a safetensors file",
    ),
    "not quite safetensors": (struct.pack("<Q", 1 << 40) + b'{"a":1}', NOT_GGUF),
    "big-endian magic": (b"FUGG" + bytes(60), NOT_GGUF),
    "half a version": (b"GGUF\3", "unexpected EOF"),
    "no counts": (preamble(0, 0)[:8], "EOF"),
    "half the counts": (preamble(0, 0)[:20], "unexpected EOF"),
    "no key": (preamble(0, 1), "EOF"),
    "half a key's length": (preamble(0, 1) + b"\1", "unexpected EOF"),
    "a key's text missing": (preamble(0, 1) + text("abc")[:8], "EOF"),
    "half a key": (preamble(0, 1) + text("abc")[:-1], "unexpected EOF"),
    "no type": (preamble(0, 1) + text("abc"), "EOF"),
    "no value": (preamble(0, 1) + pair("abc", Kind.U8, b""), "EOF"),
    "a string missing": (preamble(0, 1) + pair("abc", Kind.STRING, text("x")[:8]), "EOF"),
    "half an array's head": (kv(pair("a", Kind.ARRAY, b"\4\0\0\0")), "EOF"),
    "two of three numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 3) + bytes(8))),
        "EOF",
    ),
    "two and a half of three numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 3) + bytes(10))),
        "unexpected EOF",
    ),
    "two of 2000 numbers": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U32, 2000) + bytes(8))),
        "EOF",
    ),
    "a string array cut between strings": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 1999)),
        "EOF",
    ),
    "a string array cut inside a length": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 1999 + b"\1")),
        "unexpected EOF",
    ),
    "a string array cut after a length": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + (text("x") * 2000)[:-1])),
        "EOF",
    ),
    "a string array cut inside a string": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 1 << 20) + (text("xyz") * 2000)[:-1])),
        "unexpected EOF",
    ),
    "a short string array cut": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 3) + text("x"))),
        "EOF",
    ),
    "a huge string in a long array": (
        kv(
            pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + text("x") * 9),
            struct.pack("<Q", 1 << 63) + bytes(1 << 17),
        ),
        f"GGUF string length {1 << 63} exceeds maximum 16777216",
    ),
    "strings whose lengths add up to more than 64 bits": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.STRING, 2000) + b"\xff" * (1 << 17))),
        f"GGUF string length {(1 << 64) - 1} exceeds maximum 16777216",
    ),
    "a string of 16 MiB and a byte": (
        kv(pair("a", Kind.STRING, struct.pack("<Q", (16 << 20) + 1))),
        f'GGUF string length 16777217 exceeds maximum 16777216 (value of "a", at byte {AT + 13})',
    ),
    "a key of 64 KiB": (
        kv(field("x" * 65_536, Kind.U8, 1)),
        f"GGUF key of 65536 bytes exceeds maximum 65535 (at byte {AT})",
    ),
    "a key of 64 KiB, cut": (kv(field("x" * 65_536, Kind.U8, 1))[:-9], "unexpected EOF"),
    "keys of 4 MiB": (
        kv(*(field(f"{i:03}" + "x" * 65_000, Kind.U8, 1) for i in range(70))),
        f"GGUF keys take more than 4194304 bytes (at byte {AT + 64 * (8 + 65_003 + 5)})",
    ),
    "a key twice": (
        kv(field("a\n" + "x" * 90, Kind.U8, 1), field("a\n" + "x" * 90, Kind.U8, 1)),
        f'GGUF key "a\\n{"x" * 75}..." appears twice (at byte {AT + 105})',
    ),
    "an array of 16 Mi elements and one": (
        kv(pair("a", Kind.ARRAY, array_head(Kind.U8, (16 << 20) + 1))),
        f'GGUF array "a" has 16777217 elements, more than 16777216 (at byte {AT + 13})',
    ),
    "vocabularies of more than 8 Mi strings": (
        kv(
            pair(
                "tokenizer.ggml.tokens",
                Kind.ARRAY,
                array_head(Kind.STRING, (8 << 20) + 1) + bytes(8),
            )
        ),
        'GGUF arrays up to "tokenizer.ggml.tokens" have 8388609 strings, more than 8388608'
        f" (at byte {AT + 33})",
    ),
    "an alignment of 4": (
        kv(field("general.alignment", Kind.U32, 4)),
        f"invalid GGUF alignment: 4 (at byte {AT})",
    ),
    "an alignment of 128 Ki": (
        kv(field("general.alignment", Kind.U32, 1 << 17)),
        f"invalid GGUF alignment: 131072 (at byte {AT})",
    ),
    "an alignment of 64 bits": (
        kv(field("general.alignment", Kind.U64, 32)),
        f"GGUF alignment is not a 32-bit number (at byte {AT})",
    ),
    "an architecture too long to be kept": (
        gguf(field("general.architecture", Kind.STRING, "x" * (1 << 20) + "x")),
        "GGUF key general.architecture is not a string (at byte 24)",
    ),
    "no tensor name": (preamble(1, 1) + ARCHITECTURE, "failed to read tensor name: EOF"),
    "half a tensor name": (
        preamble(1, 1) + ARCHITECTURE + text("abc")[:-1],
        "failed to read tensor name: unexpected EOF",
    ),
    "half a long tensor name": (
        preamble(1, 1) + ARCHITECTURE + text("x" * 70)[:-1],
        "failed to read tensor name: unexpected EOF",
    ),
    "a huge tensor name": (
        preamble(1, 1) + ARCHITECTURE + struct.pack("<Q", 1 << 62),
        f"failed to read tensor name: GGUF string length {1 << 62} exceeds maximum 16777216",
    ),
    "no tensor dimensions": (
        preamble(1, 1) + ARCHITECTURE + text("abc"),
        "failed to read tensor dimensions: EOF",
    ),
    "one of two dimensions": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-20],
        "failed to read tensor shape: EOF",
    ),
    "no tensor kind": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-12],
        "failed to read tensor kind: EOF",
    ),
    "half a tensor offset": (
        preamble(1, 1) + ARCHITECTURE + tensor_info("abc", (1, 1))[:-1],
        "failed to read tensor offset: unexpected EOF",
    ),
    "a tensor without name": (
        tensors(tensor_info("")),
        f"a tensor's name is empty (at byte {AT})",
    ),
    "a tensor name of 64 bytes": (
        tensors(tensor_info("x" * 64)),
        f"a tensor's name has 64 bytes, more than 63 (at byte {AT})",
    ),
    "a tensor name that is no UTF-8": (
        tensors(tensor_info(b"\xff")),
        f"a tensor's name is not UTF-8 (at byte {AT})",
    ),
    "a tensor without dimensions": (
        tensors(tensor_info('a"\\', ())),
        f'tensor "a\\"\\\\" has no dimensions (at byte {AT})',
    ),
    "a tensor too wide": (
        tensors(tensor_info("t", (1 << 40,))),
        f'tensor "t" has a dimension of 1099511627776 (at byte {AT})',
    ),
    "a tensor too large": (
        tensors(tensor_info("t", (1 << 30, (1 << 30) + 1))),
        f'tensor "t" has {(1 << 30) * ((1 << 30) + 1)} elements, more than {1 << 60}'
        f" (at byte {AT})",
    ),
    "a tensor that exists in memory only": (
        tensors(tensor_info("t", (256,), 15)),
        f'tensor "t" has unknown type 15 (at byte {AT})',
    ),
    "a gap between tensors": (
        tensors(tensor_info("t"), tensor_info("u", offset=160)),
        f'tensor "u" begins at 160 of the data, not at 128 (at byte {160 + 160})',
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_sentence(name: str) -> None:
    data, message = FAULTS[name]
    error = refusal(data)
    assert str(error) == message
    assert error.not_gguf == message.startswith(NOT_GGUF)


def test_a_header_over_512_mib_is_refused() -> None:
    pieces, at = {0: preamble(0, 9) + ARCHITECTURE}, len(preamble(0, 9) + ARCHITECTURE)
    for index in range(8):
        head = pair(f"k{index}", Kind.ARRAY, array_head(Kind.U64, 16 << 20))
        pieces[at] = head
        at += len(head) + (128 << 20)
    assert str(refusal(Sparse(at + (1 << 20), pieces))) == (
        "GGUF header is longer than 536870912 bytes"
    )


def test_every_prefix_of_a_header_is_refused() -> None:
    data = (INPUTS / "clip-mlp.gguf").read_bytes()
    for length in range(read(data).data_start):
        message = str(refusal(data[:length]))
        assert message == NOT_GGUF or message.endswith("EOF") or "exceeds file size" in message


def test_there_are_49_bad_files() -> None:
    assert len(BAD) == 49
