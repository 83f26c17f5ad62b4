"""The engine is found, or it is said in words why it is not."""

import importlib.util
from pathlib import Path

import pytest

from registry.workers.engine import find_engine


def test_a_program_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = find_engine(str(program))
    assert (found.program, found.problem) == (str(program), "")


def test_a_program_that_is_not_there_is_told_without_its_path() -> None:
    problem = find_engine("/opt/no-such-server").problem
    assert "REGISTRY_WORKER__ENGINE names" in problem
    assert "/opt" not in problem


def test_a_missing_engine_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'registry[worker]'" in find_engine("xllamacpp").problem


def test_a_processor_that_is_too_old_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    found = find_engine("xllamacpp", lambda: ("avx2", "fma"))
    assert "lacks avx2, fma" in found.problem
