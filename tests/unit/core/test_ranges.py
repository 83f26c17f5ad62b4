import pytest

from registry.core.ranges import Span, Unsatisfiable, answered, chunk, requested, so_far


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        ("bytes=0-0", 10, Span(0, 1)),
        ("bytes=500-1499", 2048, Span(500, 1500)),
        ("bytes=500-", 2048, Span(500, 2048)),
        ("bytes=-500", 2048, Span(1548, 2048)),
        ("bytes=2000-5000", 2048, Span(2000, 2048)),
        ("bytes=-5000", 2048, Span(0, 2048)),
        ("bytes= 1-2 ", 10, Span(1, 3)),
        ("BYTES=1-2", 10, Span(1, 3)),
        ("bytes=0-9999999999999999999", 10, Span(0, 10)),
    ],
)
def test_a_single_range_names_a_part(header: str, size: int, span: Span) -> None:
    assert requested(header, size) == span


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes=",
        "bytes=-",
        "bytes",
        "bytes=0-1,5-6",
        "bytes=a-b",
        "bytes=+1-2",
        "bytes=-1-2",
        "bytes=1.0-2",
        "bytes=٣-٤",
        "items=0-5",
        "bytes=00000000000000000000-1",
        "bytes=" + "9" * 10_000 + "-",
    ],
)
def test_a_header_that_is_not_a_single_range_asks_for_all(header: str | None) -> None:
    assert requested(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=500-0", 2048),
        ("bytes=5000-10000", 2048),
        ("bytes=2048-", 2048),
        ("bytes=-0", 2048),
        ("bytes=0-", 0),
        ("bytes=-1", 0),
    ],
)
def test_a_range_without_a_byte_is_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        requested(header, size)


def test_a_span_writes_its_content_range() -> None:
    assert Span(500, 1500).of(2048) == "bytes 500-1499/2048"
    assert Span(0, 1).of(None) == "bytes 0-0/*"
    assert len(Span(500, 1500)) == 1000


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes 0-9/10", (Span(0, 10), 10)),
        (" bytes 5-9/* ", (Span(5, 10), None)),
        ("bytes 5-9/9", None),
        ("bytes 9-5/10", None),
        ("bytes */10", None),
        ("0-9/10", None),
        ("bytes 0-9", None),
    ],
)
def test_the_content_range_of_an_answer(
    header: str, wanted: tuple[Span, int | None] | None
) -> None:
    assert answered(header) == wanted


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("0-99999999", Span(0, 100_000_000)),
        ("bytes 0-9/*", Span(0, 10)),
        ("bytes 5-9/10", Span(5, 10)),
        ("bytes=5-9", Span(5, 10)),
        ("7-7", Span(7, 8)),
        ("9-5", None),
        ("-5", None),
        ("5-", None),
        ("bytes", None),
        ("0x1-0x5", None),
    ],
)
def test_the_content_range_of_a_chunk(header: str, wanted: Span | None) -> None:
    assert chunk(header) == wanted


def test_the_range_of_a_session() -> None:
    assert [so_far(0), so_far(1), so_far(200_000_000)] == ["0-0", "0-0", "0-199999999"]
