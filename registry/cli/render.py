"""What the commands show: sizes and times in words, tables, progress, first steps.

Results go to standard output, progress and errors to standard error. Where that is no terminal, the
text is plain and each change of status is one line. Text that comes from models or servers is shown
on a terminal only after `printable`, since it may hold escape sequences.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from registry.cli.client import DEFAULT_SERVER, Report

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_GAP = "    "


def printable(text: str) -> str:
    """`text` without characters that move the cursor or turn the writing; lines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def size_text(size: int) -> str:
    """A size as the stock command line writes it: decimal units, one digit below ten."""
    for unit, name in _UNITS:
        if size >= unit:
            value = size / unit
            whole = value >= 10 or size % unit == 0
            return f"{size // unit} {name}" if whole else f"{value:.1f} {name}"
    return f"{size} B"


def age_text(then: datetime, now: datetime) -> str:
    """How long ago `then` was, or how long it is until then, in one unit."""
    seconds = (now - then).total_seconds()
    return f"{_duration(-seconds)} from now" if seconds < 0 else f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    hours = round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds < 2 else f"{int(seconds)} seconds"
    if seconds < 3600:
        return "About a minute" if seconds < 120 else f"{int(seconds / 60)} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in ((14, 24, "days"), (60, 168, "weeks"), (730, 720, "months")):
        if hours < limit * 24:
            return f"{hours // unit} {name}"
    return f"{hours // 8760} years"


def moment(text: object) -> datetime | None:
    """A time of the API (RFC 3339, up to nanoseconds), or None if it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def table(rows: Iterable[Sequence[str]], indent: int = 0) -> str:
    """Rows in columns four spaces apart, never cut: names are there to be copied."""
    lines = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths: dict[int, int] = {}
    for line in lines:
        for position, cell in enumerate(line):
            widths[position] = max(widths.get(position, 0), len(cell))
    return "".join(
        " " * indent
        + _GAP.join(cell.ljust(widths[position]) for position, cell in enumerate(line)).rstrip()
        + "\n"
        for line in lines
    )


def write(text: str) -> None:
    """Write a result exactly to a pipe or file, harmlessly to a terminal; its last line ended."""
    if sys.stdout.isatty():
        text = printable(text)
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def complain(text: str) -> None:
    """Write one error to standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text("Error: ", style="bold red"), Text(printable(text)), sep="")


def remark(text: str) -> None:
    """Write something that is neither result nor error to standard error."""
    sys.stderr.write(f"{printable(text)}\n")


def first_steps(url: str) -> str:
    """The commands that put a model in the library at `url` and take it out, ready to copy."""
    address = url.split("://", 1)[1].partition("/")[0]
    plain = url.startswith("http:")
    insecure = " --insecure" if plain else ""
    chosen = "" if url == DEFAULT_SERVER else f"  export REGISTRY_SERVER={url}\n"
    other = "other.example:11434/team/demo"
    return f"""\
Type next, in another terminal:
{chosen}\
  registry create team/demo --gguf model.gguf
  registry cp team/demo {other} && registry push {other} --insecure
  registry pull all-minilm

or with the stock ollama, whose own models are pushed here and pulled from here:
  OLLAMA_HOST={address if plain else url} ollama create team/demo -f Modelfile
  ollama push {address}/team/demo{insecure}
  ollama pull {address}/team/demo{insecure}
"""


def _of_bytes(task: Task) -> bool:
    """Whether a task counts bytes; otherwise it is a step: a spinner and its text only."""
    return bool(task.fields.get("bytes"))


class _Bar(BarColumn):
    """A bar; nothing for a step."""

    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        """The bar of what is there."""
        return super().render(task) if _of_bytes(task) else Text("")


class _Percent(ProgressColumn):
    """Whole percent."""

    def render(self, task: Task) -> Text:
        """`42%`; 100 only when all is there."""
        return Text(f"{int(task.percentage):>3}%" if task.total else "")


class _Amount(ProgressColumn):
    """Bytes of the whole."""

    def render(self, task: Task) -> Text:
        """`12 MB/1.2 GB`, or what there is so far."""
        return Text(_amount(task) if _of_bytes(task) else "")


class _Rate(ProgressColumn):
    """Bytes a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        """`87 MB/s`; empty until known."""
        known = _of_bytes(task) and task.speed
        return Text(f"{size_text(int(task.speed or 0))}/s" if known else "", style="cyan")


class _Remaining(ProgressColumn):
    """Time to the end at this rate."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """`3m12s`; empty until known."""
        left = task.time_remaining if _of_bytes(task) else None
        return Text("" if left is None or task.finished else clock_text(left), style="cyan")


def _amount(task: Task) -> str:
    done = size_text(int(task.completed))
    return f"{done}/{size_text(int(task.total))}" if task.total else done


def clock_text(seconds: float) -> str:
    """A duration to read at a glance: `42s`, `3m07s`, `2h05m`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minute}m{second:02}s" if minute else f"{second}s"


class Board:
    """Progress on standard error: one bar for each digest, one line for each other status.

    A context manager. On a terminal, what runs is drawn and what is finished stays above it, ticked
    off. Elsewhere each status is written once, when it first appears.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._marks = ("ok", "--") if self._console.options.ascii_only else ("✓", "✗")
        self._bars: dict[str, TaskID] = {}
        self._finished: set[str] = set()
        self._status = ""
        self._step: TaskID | None = None
        self._tasks = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            _Bar(bar_width=24),
            _Percent(),
            _Amount(),
            _Rate(),
            _Remaining(),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._tasks.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Stop drawing; what did not finish is left on the screen, crossed out."""
        if not self._live:
            return
        self._end_step(failed=kind is not None)
        for task in self._tasks.tasks:
            self._print(task.description, _amount(task), failed=True)
        self._tasks.stop()

    def show(self, report: Report) -> None:
        """Take in one report of a stream."""
        if report.digest:
            self._show_transfer(report)
        elif report.status and report.status != self._status:
            self._end_step()
            self._status = report.status
            if self._live:
                self._step = self._tasks.add_task(printable(report.status), total=None)
            else:
                self._print(report.status)

    def _show_transfer(self, report: Report) -> None:
        key = f"{report.digest} {report.status}"
        if key in self._finished:
            return
        if not self._live:
            self._finish(key, report)
            return
        self._end_step()
        task, total = self._bars.get(key), report.total or None
        if task is None:
            # Begun with `completed`: bytes that were here before this call are no part of its rate.
            self._bars[key] = self._tasks.add_task(
                printable(report.status), total=total, completed=report.completed, bytes=True
            )
        else:
            self._tasks.update(task, total=total, completed=report.completed)
        if total and report.completed >= total:
            self._tasks.remove_task(self._bars.pop(key))
            self._finish(key, report)

    def _finish(self, key: str, report: Report) -> None:
        self._finished.add(key)
        self._print(report.status, size_text(report.total) if report.total else "")

    def _end_step(self, *, failed: bool = False) -> None:
        if self._step is not None:
            self._tasks.remove_task(self._step)
            self._step = None
            self._print(self._status, failed=failed)

    def _print(self, text: str, amount: str = "", *, failed: bool = False) -> None:
        line = Text()
        if self._live:
            line.append(f"{self._marks[failed]} ", style="red" if failed else "green")
        line.append(printable(f"{text}  {amount}" if amount else text))
        self._console.print(line, soft_wrap=True)
