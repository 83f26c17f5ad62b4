"""The engine's library: found where it is, and the reason told where it is not usable."""

import importlib.util
import platform
import shutil
import sys
from pathlib import Path

import pytest

from registry.core.processor import missing_features
from registry.tensors.engine import find_engine

FLAGS = "processor\t: 0\nflags\t\t: fpu sse avx avx2 fma f16c bmi2 ht\n"


def test_every_feature_that_the_library_was_built_for_must_be_there() -> None:
    assert missing_features(FLAGS) == []
    assert missing_features(FLAGS.replace("avx2 ", "").replace("bmi2", "")) == ["avx2", "bmi2"]


def test_where_nothing_is_told_nothing_is_missing() -> None:
    assert missing_features("") == []


def test_an_engine_that_is_not_installed_is_to_be_installed() -> None:
    found = find_engine("no_such_package")
    assert found.library is None
    assert found.fault == ": install the worker extra or add a worker"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "half_an_engine"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError")  # never run
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_library_that_cannot_be_loaded_is_told(package: Path) -> None:
    (package / "engine.so").write_bytes(b"no library")
    assert "cannot be loaded" in find_engine(package.name).fault
    assert package.name not in sys.modules


def test_a_package_without_a_library_is_no_engine(package: Path) -> None:
    assert "install the worker extra" in find_engine(package.name).fault


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86 processors")
def test_a_processor_that_lacks_something_is_not_tried(package: Path, tmp_path: Path) -> None:
    (package / "engine.so").write_bytes(b"no library")
    info = tmp_path / "cpuinfo"
    info.write_text(FLAGS.replace("avx2 ", ""))
    assert find_engine(package.name, info).fault.endswith("cannot run: it lacks avx2")
    assert "cannot be loaded" in find_engine(package.name, tmp_path / "absent").fault


def test_a_library_that_offers_no_kernels_is_told(package: Path) -> None:
    library = importlib.util.find_spec("orjson.orjson")
    assert library and library.origin
    shutil.copy(library.origin, package / "engine.so")
    assert "does not offer it" in find_engine(package.name).fault
