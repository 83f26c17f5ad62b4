"""The program as a process: start-up, pipes that close, texts that cannot be encoded."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from registry import __version__
from tests.support.api import Answer, FakeApi, serving


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving() as api:
        yield api


def run(api: FakeApi, command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in which `registry` is this program, against `api`."""
    shell = f'registry() {{ "{sys.executable}" -m registry "$@"; }}; {command}'
    environ = {"REGISTRY_SERVER": api.url, "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "error"}
    return subprocess.run(["bash", "-c", shell], env=environ, capture_output=True, timeout=30)


def test_it_runs_as_a_module(api: FakeApi) -> None:
    assert run(api, "registry version").stdout.startswith(f"registry {__version__}\n".encode())


def test_without_a_command_it_helps(api: FakeApi) -> None:
    result = run(api, "registry")
    assert result.returncode == 2
    assert b"Usage: registry" in result.stdout + result.stderr


def test_a_reader_that_goes_away_is_no_crash(api: FakeApi) -> None:
    names = [{"name": f"m{number}:latest"} for number in range(20_000)]
    api.answers["GET /api/tags"] = Answer(json={"models": names})
    result = run(api, "registry list | head -n 1")
    assert result.stdout.startswith(b"NAME")
    assert b"Traceback" not in result.stderr


def test_text_that_cannot_be_encoded_is_no_crash(api: FakeApi) -> None:
    api.answers["POST /api/show"] = Answer(body=b'{"system": "a\\ud800b"}')
    result = run(api, "registry show m --system")
    assert (result.returncode, result.stdout) == (0, b"a?b\n")


def test_ctrl_c_during_a_pull_says_that_it_can_go_on(api: FakeApi) -> None:
    lines = [{"status": f"step {number}"} for number in range(1000)]
    api.answers["POST /api/pull"] = Answer(lines=lines, pause_s=0.05)
    # Where tests run in the background, SIGINT is ignored, and children inherit that.
    code = (
        "import signal; from registry.cli.main import main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "pull", "m", "--server", api.url],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "step 0\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.endswith(
        "Interrupted. What has arrived is kept: `registry pull m` goes on from there.\n"
    )
