"""Which test modules can come to a database or a store: those that import it, through whatever.

What runs once more on other backends follows from this, so that no list of folders has to be kept.
"""

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
BACKENDS = TESTS / "support" / "backends.py"


def reaches_backends(file: Path) -> bool:
    """Whether a test module, or a `conftest.py` between it and the root, leads to the backends."""
    above = file.relative_to(TESTS).parents
    conftests = [TESTS / folder / "conftest.py" for folder in above if folder != Path()]
    return any(BACKENDS in _reached(start) for start in (file, *conftests) if start.exists())


@cache
def _reached(start: Path) -> frozenset[Path]:
    found, new = {start}, [start]
    while new:
        for file in _imported(new.pop()):
            if file not in found:
                found.add(file)
                new.append(file)
    return frozenset(found)


@cache
def _imported(file: Path) -> frozenset[Path]:
    """The files below `tests/` that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (TESTS.parent.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return frozenset(file for file in files if file.is_relative_to(TESTS) and file.exists())
