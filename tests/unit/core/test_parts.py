"""How blobs are cut into ranges."""

import pytest

from registry.core.parts import split, upload_parts

MB = 1_000_000


@pytest.mark.parametrize(
    ("size", "part", "expected"),
    [
        (0, 10, []),
        (1, 10, [(0, 1)]),
        (10, 10, [(0, 10)]),
        (11, 10, [(0, 10), (10, 11)]),
        (25, 10, [(0, 10), (10, 20), (20, 25)]),
    ],
)
def test_the_last_piece_is_shorter(size: int, part: int, expected: list[tuple[int, int]]) -> None:
    assert split(size, part) == expected


def test_pieces_begin_at_boundaries() -> None:
    eights = [(0, 8), (8, 16), (16, 32), (32, 40), (40, 45)]
    assert split(45, 11, lambda offset: offset // 8 * 8) == eights
    assert split(45, 3, lambda offset: offset // 40 * 40) == [(0, 40), (40, 45)]
    assert split(0, 3, lambda offset: 0) == []


@pytest.mark.parametrize(
    ("size", "count", "first", "last"),
    [
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (100 * MB - 1, 1, 100 * MB - 1, 100 * MB - 1),
        (100 * MB, 1, 100 * MB, 100 * MB),
        (100 * MB + 1, 2, 100 * MB, 1),
        (1600 * MB, 16, 100 * MB, 100 * MB),
        (1700 * MB + 5, 17, 106_250_000, 5),
        (40_000 * MB, 40, 1000 * MB, 1000 * MB),
    ],
)
def test_uploads_are_cut_as_ollama_cuts_them(size: int, count: int, first: int, last: int) -> None:
    lengths = [stop - start for start, stop in upload_parts(size)]
    assert len(lengths) == count
    assert sum(lengths) == size
    assert (lengths[:1], lengths[-1:]) == (([first], [last]) if count else ([], []))
