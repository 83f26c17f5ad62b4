"""Names of processes, and what can be told of others."""

import os
import subprocess
import sys

import pytest

from registry.adapters.own_process import is_gone, own_name


def renamed(pid: object) -> str:
    machine, _, _ = own_name().rpartition("/")[0].rpartition("/")
    return f"{machine}/{pid}/abc"


def test_names_differ_even_of_one_process() -> None:
    assert own_name() != own_name()


def test_a_process_that_has_ended_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = renamed(child.pid)
        assert not is_gone(name)
    assert is_gone(name)


def test_an_earlier_process_of_our_number_is_gone() -> None:
    assert is_gone(renamed(os.getpid()))


@pytest.mark.parametrize("name", ["", "p1", "elsewhere/1/1/abc", renamed("x"), renamed(1)])
def test_of_others_nothing_is_told(name: str) -> None:
    assert not is_gone(name)
