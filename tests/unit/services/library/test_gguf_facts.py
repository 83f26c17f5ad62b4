from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.errors import GgufInvalid
from registry.core.facts import Facts, Item, model_info
from registry.core.gguf import Kind
from registry.services.library import gguf_facts
from registry.services.library.gguf_facts import read_arrays, read_facts
from tests.support.gguf import ARCHITECTURE, SMALLEST, array, gguf

pytestmark = pytest.mark.anyio
INPUTS = Path(__file__).parents[3] / "golden/inputs"


class OpenedBytes:
    """A blob in memory that notes what was read of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.reads: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self._data)

    def fileno(self) -> int | None:
        return None

    async def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= self.size
        self.reads.append((start, stop))
        return self._data[start:stop]

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        yield self._data[start:stop]

    async def close(self) -> None:
        return

    async def __aenter__(self) -> "OpenedBytes":
        return self

    async def __aexit__(self, *exc: object) -> None:
        return


async def test_reads_the_facts_of_a_blob() -> None:
    assert await read_facts(OpenedBytes(SMALLEST)) == Facts(
        0, "unknown", {"general.architecture": "test"}, ()
    )


@pytest.mark.parametrize("data", [b"", b"GGUF", b"hello, world"])
async def test_refuses_what_is_no_gguf(data: bytes) -> None:
    with pytest.raises(GgufInvalid):
        await read_facts(OpenedBytes(data))


async def test_a_long_header_takes_several_reads_and_the_data_none() -> None:
    words = [f"{number:x}" for number in range(200_000)]
    head = gguf(ARCHITECTURE, array("tokenizer.ggml.tokens", Kind.STRING, words))
    opened = OpenedBytes(head + bytes(20 << 20))
    await read_facts(opened)
    assert len(opened.reads) == 2
    assert opened.reads[-1][1] < len(head) + (2 << 20)


async def test_a_verbose_answer_has_every_array() -> None:
    numbers = list(range(2000))
    words = ["token" * 1000] * 2000
    data = gguf(ARCHITECTURE, array("n", Kind.I64, numbers), array("w", Kind.STRING, words))
    opened = OpenedBytes(data)
    facts = await read_facts(opened)
    info = model_info(facts, await read_arrays(opened, facts))
    assert (info["n"], info["w"]) == (numbers, words)
    assert max(stop - start for start, stop in opened.reads) <= 8 << 20


async def test_arrays_too_large_for_an_answer_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = gguf(ARCHITECTURE, *(array(name, Kind.U8, [1] * 2000) for name in "abc"))
    opened = OpenedBytes(data)
    facts = await read_facts(opened)
    monkeypatch.setattr(gguf_facts, "MAX_VERBOSE_BYTES", 4500)
    assert list(await read_arrays(opened, facts)) == ["a", "b"]
    monkeypatch.setattr(gguf_facts, "MAX_VERBOSE_ELEMENTS", 2500)
    found: dict[str, list[Item]] = await read_arrays(opened, facts)
    assert found == {"a": [1] * 2000}


async def test_golden_models_have_facts() -> None:
    opened = OpenedBytes((INPUTS / "kinds.gguf").read_bytes())
    facts = await read_facts(opened)
    assert facts.parameter_count == 19_520
    assert await read_arrays(opened, facts) == {}
