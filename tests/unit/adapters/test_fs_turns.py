import asyncio
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from registry.adapters.fs_turns import Turns
from registry.core.errors import OperationFailed, Unavailable

pytestmark = pytest.mark.anyio

_HOLDER = """
import asyncio, sys
from pathlib import Path
from registry.adapters.fs_turns import Turns
asyncio.run(Turns(Path(sys.argv[1])).take("a"))
print("has it", flush=True)
sys.stdin.read()
"""


async def test_one_has_the_turn_and_others_wait(tmp_path: Path) -> None:
    one, other = Turns(tmp_path), Turns(tmp_path)
    first = await one.take("a")
    await other.take("b")
    assert not first.is_wanted()
    second = asyncio.create_task(other.take("a"))
    while not first.is_wanted():
        await asyncio.sleep(0.005)
    first.end()
    assert not (await second).is_wanted()
    one.close()
    other.close()


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_turn_that_is_not_given_back_is_not_waited_for_for_ever(
    tmp_path: Path, same_process: bool
) -> None:
    one = Turns(tmp_path)
    other = one if same_process else Turns(tmp_path)
    first = await one.take("a")
    with pytest.raises(Unavailable) as error:
        await other.take("a", wait_s=0.02)
    assert error.value.retry_after_s == 1
    assert not first.is_wanted()
    first.end()
    await other.take("a", wait_s=0)
    one.close()
    other.close()
    first.end()  # too late: nothing happens


async def test_a_process_that_is_killed_has_no_turn_any_more(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"has it\n"
        turns = Turns(tmp_path)
        with pytest.raises(Unavailable):
            await turns.take("a", wait_s=0.02)
        holder.kill()
        await turns.take("a", wait_s=10)
        turns.close()


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed):
        await Turns(tmp_path / "none").take("a")


async def test_where_there_are_no_locks_the_administrator_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> bytes:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    turns = Turns(tmp_path)
    for _ in range(2):
        (await turns.take("a")).end()
    turns.close()
    said = capsys.readouterr()
    assert (said.out + said.err).count("no file locks") == 1
