"""The set-up script: what it installs, apart from what not every machine can have."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def dev() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dev", ROOT / "tools" / "dev.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_engine_is_installed_apart(dev: ModuleType) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    library, engine = dev.parts(lock)
    assert sorted((library + engine).splitlines()) == sorted(lock.splitlines())
    names = [line for line in engine.splitlines() if not line.startswith((" ", "#"))]
    assert len(names) == 1
    assert names[0].startswith("xllamacpp==")
    assert "--hash=sha256:" in engine
    assert "xllamacpp" not in library.replace("# via", "")
