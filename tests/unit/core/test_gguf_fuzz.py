"""Files nobody would write: the reader takes or refuses each, in one way, quickly."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from registry.core.errors import GgufInvalid
from registry.core.facts import Facts, array_values, model_info
from registry.core.gguf import Header, HeaderReader, Kind
from registry.core.gojson import dumps
from tests.support.gguf import (
    ARCHITECTURE,
    TensorSpec,
    array,
    array_head,
    field,
    gguf,
    pair,
    preamble,
    scalar,
    tensor_info,
    text,
)

INPUTS = Path(__file__).parents[2] / "golden/inputs"
SEEDS = [(INPUTS / name).read_bytes()[:9000] for name in ("kinds.gguf", "lora.gguf")]
SEEDS.append(
    gguf(
        ARCHITECTURE,
        array("tokenizer.ggml.tokens", Kind.STRING, ["x"] * 1100),
        field("general.alignment", Kind.U32, 64),
        tensors=[TensorSpec("a", (32, 2), 8), TensorSpec("b", (1, 1, 1, 1))],
        alignment=64,
    )
)
NUMBERS = st.sampled_from([0, 1, 2, 3, 31, 63, 64, 255, 1024, 1025, 1 << 16, 1 << 31, 1 << 62]) | (
    st.integers(0, (1 << 64) - 1)
)
KINDS = st.integers(0, 13)


def outcome(data: bytes, step: int) -> Header | tuple[str, int | None, bool]:
    try:
        reader = HeaderReader(len(data))
        while reader.need is not None:
            start, length = reader.need
            reader.feed(data[start : start + min(length, step)])
    except GgufInvalid as error:
        return str(error), error.offset, error.not_gguf
    assert reader.header is not None
    return reader.header


def check(data: bytes, step: int) -> None:
    found = outcome(data, 1 << 30)
    assert repr(outcome(data, step)) == repr(found)  # repr: NaN differs from itself
    if not isinstance(found, Header):
        message, offset, _ = found
        assert message.isprintable()
        assert len(message) < 400
        assert offset is not None
        return
    facts = Facts.of(found)
    assert Facts.from_json(facts.to_json()) == facts
    arrays = {
        key: array_values(span, data[span.offset : span.offset + span.length])
        for key, span in facts.spans.items()
    }
    assert dumps(model_info(facts, arrays))
    assert facts.kind in {"model", "adapter", "projector"}


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), max_size=4),
    st.integers(0, 9000),
    st.integers(1, 300),
)
def test_damaged_files(seed: bytes, changes: list[tuple[int, int]], length: int, step: int) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    check(bytes(data), step)
    check(bytes(data[:length]), step)


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """A type and a value, mostly one that fits."""
    kind = draw(KINDS)
    if kind == Kind.ARRAY:
        inner = draw(KINDS)
        count = draw(NUMBERS)
        return pair(draw(st.binary(max_size=4)), kind, array_head(inner, count)) + draw(
            st.binary(max_size=64)
        )
    if kind == Kind.STRING:
        return pair(draw(st.text(max_size=4)), kind, text(draw(st.binary(max_size=9))))
    if kind in {Kind.U8, Kind.BOOL, 13}:
        return pair(draw(st.text(max_size=4)), kind, draw(st.binary(min_size=1, max_size=1)))
    return pair(draw(st.text(max_size=4)), kind, scalar(kind, 1))


@given(
    NUMBERS,
    NUMBERS,
    st.lists(values(), max_size=4),
    st.lists(
        st.builds(
            tensor_info,
            st.text(max_size=3),
            st.lists(NUMBERS, max_size=5),
            st.integers(0, 45),
            NUMBERS,
        ),
        max_size=3,
    ),
    st.integers(1, 100),
)
def test_files_made_up(
    tensor_count: int, key_count: int, fields: list[bytes], infos: list[bytes], step: int
) -> None:
    body = ARCHITECTURE + b"".join(fields) + b"".join(infos)
    check(preamble(tensor_count, key_count) + body, step)
    check(preamble(len(infos), len(fields) + 1) + body + bytes(4096), step)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes(data: bytes, step: int) -> None:
    check(data, step)
    check(b"GGUF\3\0\0\0" + data, step)
