import subprocess
import sys

PROGRAM = "from registry.server.malloc import raise_thresholds; print(raise_thresholds())"


def test_the_allocator_takes_the_thresholds_or_has_none() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {"True", "False"}
    assert done.stderr == ""
