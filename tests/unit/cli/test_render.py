"""Sizes, times, tables and progress, as a reader sees them."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from registry.cli.client import Report
from registry.cli.render import (
    Board,
    age_text,
    clock_text,
    first_steps,
    moment,
    printable,
    size_text,
    table,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (1500, "1.5 KB"),
        (58_464, "58 KB"),
        (876_928, "876 KB"),
        (2_019_393_189, "2.0 GB"),
        (12 * 10**12, "12 TB"),
    ],
)
def test_sizes_read_as_in_the_stock_listing(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (timedelta(0), "Less than a second ago"),
        (timedelta(seconds=1.5), "1 second ago"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(seconds=119), "About a minute ago"),
        (timedelta(minutes=59), "59 minutes ago"),
        (timedelta(minutes=61), "About an hour ago"),
        (timedelta(hours=47), "47 hours ago"),
        (timedelta(hours=49), "2 days ago"),
        (timedelta(days=15), "2 weeks ago"),
        (timedelta(days=61), "2 months ago"),
        (timedelta(days=800), "2 years ago"),
        (timedelta(minutes=-5), "5 minutes from now"),
    ],
)
def test_ages_read_as_in_the_stock_listing(delta: timedelta, text: str) -> None:
    assert age_text(NOW - delta, NOW) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-05-01T12:00:00Z", NOW),
        ("2026-05-01T14:00:00.123456789+02:00", NOW + timedelta(microseconds=123_456)),
        ("2026-05-01T12:00:00", NOW),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times_of_the_api_are_read(text: object, found: datetime | None) -> None:
    assert moment(text) == found


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0s"), (42, "42s"), (187, "3m07s"), (7500, "2h05m")]
)
def test_the_time_left_is_short(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\nc\td\udc80") == "a\N{REPLACEMENT CHARACTER}[31mb\nc\td\ufffd"


def test_tables_align_and_never_cut() -> None:
    rows = [("NAME", "ID"), ("a" * 200, "1"), ("b\nc", "")]
    lines = table(rows, indent=2).splitlines()
    assert lines[0] == f"  NAME{' ' * 196}    ID"
    assert lines[1] == f"  {'a' * 200}    1"
    assert lines[2] == "  b c"


@pytest.mark.parametrize(
    ("url", "expected", "unexpected"),
    [
        (
            "http://127.0.0.1:11434",
            [
                "registry create team/demo",
                "OLLAMA_HOST=127.0.0.1:11434 ollama create",
                "ollama push 127.0.0.1:11434/team/demo --insecure",
                "ollama pull 127.0.0.1:11434/team/demo --insecure",
            ],
            "REGISTRY_SERVER",
        ),
        (
            "https://models.example",
            [
                "export REGISTRY_SERVER=https://models.example\n",
                "OLLAMA_HOST=https://models.example ollama create",
                "ollama pull models.example/team/demo\n",
            ],
            "pull models.example/team/demo --insecure",
        ),
    ],
)
def test_first_steps_name_this_server(url: str, expected: list[str], unexpected: str) -> None:
    text = first_steps(url)
    assert [part for part in expected if part not in text] == []
    assert unexpected not in text


def transfer(letter: str, completed: int, total: int = 1000) -> Report:
    return Report(f"pulling {letter * 12}", f"sha256:{letter * 64}", total, completed)


PULL = [
    Report("pulling manifest"),
    transfer("a", 500),
    transfer("b", 0, 2000),
    transfer("a", 1000),
    transfer("a", 1000),
    transfer("b", 2000, 2000),
    Report("verifying sha256 digest"),
    Report("verifying sha256 digest"),
    Report("success"),
]


def test_without_a_terminal_each_status_is_one_plain_line() -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=40)) as board:
        for report in PULL:
            board.show(report)
    assert out.getvalue().splitlines() == [
        "pulling manifest",
        f"pulling {'a' * 12}  1 KB",
        f"pulling {'b' * 12}  2 KB",
        "verifying sha256 digest",
        "success",
    ]


def test_a_line_longer_than_the_console_is_not_broken() -> None:
    out = io.StringIO()
    with Board(Console(file=out, width=40)) as board:
        board.show(Report("using existing layer sha256:" + "a" * 64))
    assert out.getvalue() == f"using existing layer sha256:{'a' * 64}\n"


def _terminal(reports: list[Report], error: bool = False) -> str:
    """What is left on a terminal: the drawing without its escape sequences."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, color_system=None, _environ={}
    )
    board = Board(console)
    try:
        with board:
            for report in reports:
                board.show(report)
            if error:
                raise RuntimeError
    except RuntimeError:
        pass
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_on_a_terminal_what_is_done_is_ticked_off() -> None:
    shown = _terminal(PULL)
    for text in ("pulling manifest", f"pulling {'a' * 12}  1 KB", f"pulling {'b' * 12}  2 KB"):
        assert shown.count(f"✓ {text}\n") == 1
    assert "✓ success" in shown
    assert "✗" not in shown


def test_a_running_transfer_shows_percent_and_amount() -> None:
    shown = _terminal([transfer("a", 250, 4_000_000_000), transfer("a", 10**9, 4_000_000_000)])
    assert "25%" in shown
    assert "1 GB/4 GB" in shown


def test_what_did_not_finish_is_crossed_out() -> None:
    shown = _terminal([Report("pulling manifest"), transfer("a", 250)], error=True)
    assert "✓ pulling manifest" in shown
    assert f"✗ pulling {'a' * 12}  250 B/1 KB" in shown
    assert "✗ verifying" in _terminal([Report("verifying")], error=True)


def test_a_status_with_markup_or_escapes_is_text() -> None:
    shown = _terminal([Report("[bold]x[/bold] \x1b]0;title\x07")])
    assert "✓ [bold]x[/bold] \N{REPLACEMENT CHARACTER}]0;title" in shown
