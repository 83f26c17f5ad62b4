"""langchain-ollama and Anthropic's client make every call; they live in an environment of theirs.

They bring more packages than all of ours: `.ci/python` is made for them where a registry of
packages is at hand, and kept.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.server import running
from tests.support.talkers import put_all

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "py"
PACKAGES = {"langchain_ollama": "langchain-ollama>=1.0", "anthropic": "anthropic>=0.80"}
_INSTALL_S = 180


@pytest.fixture(scope="module")
def python() -> Path:
    """An interpreter that has the clients; skips if there can be none."""
    home = ROOT / ".ci" / "python"
    found = home / "bin" / "python"
    if not found.exists():
        venv.create(home, with_pip=True)
    if _imports(found):
        return found
    line = [str(found), "-m", "pip", "install", "--quiet", *PACKAGES.values()]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip could not install the clients: no answer in {_INSTALL_S} s")
    if done.returncode or not _imports(found):
        pytest.skip(f"pip could not install the clients: {done.stderr[-300:]}")
    return found


def _imports(python: Path) -> bool:
    line = [str(python), "-c", f"import {', '.join(PACKAGES)}"]
    return subprocess.run(line, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("server") / "data") as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            put_all(client)
        yield server.url


@pytest.mark.skipif(sys.platform == "win32", reason="paths of environments differ there")
@pytest.mark.parametrize("script", ["langchain_calls.py", "anthropic_calls.py"])
def test_a_client_makes_every_call(python: Path, url: str, script: str) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ANTHROPIC_")}
    done = subprocess.run(
        [str(python), str(SCRIPTS / script)],
        env={**environ, "SERVER": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("all calls done\n")
