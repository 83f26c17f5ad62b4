#!/usr/bin/env python3
"""Set up a virtual environment beside the sources and run something in it.

    python3 tools/dev.py serve [ARGS]   # registry serve
    python3 tools/dev.py run [ARGS]     # any other `registry` command
    python3 tools/dev.py test [ARGS]    # ruff, mypy, pytest
    python3 tools/dev.py setup          # only the environment

Needs Python 3.11+ with venv, and pip's usual access to packages; the versions and hashes are those
of `requirements.lock`. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
LOCK = ROOT / "requirements.lock"
ENGINE = "xllamacpp"
NO_ENGINE = (
    "the inference engine could not be installed on this machine: the library works without it, "
    "and can run models by a llama-server program (REGISTRY_WORKER__ENGINE) or on other machines"
)


def setup() -> None:
    """Make the environment, or bring it up to date if the lock file or pyproject changed."""
    if sys.version_info < (3, 11):
        sys.exit(f"registry needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = VENV / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("setting up .venv …", file=sys.stderr)
    if not (BIN / "python").exists() and not (BIN / "python.exe").exists():
        venv.create(VENV, with_pip=True)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    locked = [*pip, "--require-hashes", "--only-binary=:all:", "-r"]
    library, engine = parts(LOCK.read_text())
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "library.txt"), Path(folder, "engine.txt")
        names[0].write_text(library)
        names[1].write_text(engine)
        subprocess.run([*locked, str(names[0])], check=True)
        if subprocess.run([*locked, str(names[1])], check=False).returncode:
            print(NO_ENGINE, file=sys.stderr)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    stamp.write_text(wanted)


def parts(lock: str) -> tuple[str, str]:
    """The lock file without the engine, and the engine: not every machine has a build of that."""
    library: list[str] = []
    engine: list[str] = []
    into = library
    for line in lock.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            into = engine if line.startswith(f"{ENGINE}==") else library
        into.append(line)
    return "".join(library), "".join(engine)


def test(args: list[str]) -> int:
    """Run every check; the first that fails ends it. Arguments go to pytest."""
    steps = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["pytest", *args],
    ]
    for step in steps:
        print("$", *step, flush=True)
        code = subprocess.run([str(BIN / step[0]), *step[1:]], cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


def main() -> int:
    """Dispatch on the first argument."""
    command, *args = sys.argv[1:] or ["help"]
    if command not in {"serve", "run", "test", "setup"}:
        print(__doc__)
        return 2
    setup()
    if command == "test":
        return test(args)
    if command == "setup":
        return 0
    program = str(BIN / "registry")
    line = [program, *(["serve"] if command == "serve" else []), *args]
    os.execv(program, line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
