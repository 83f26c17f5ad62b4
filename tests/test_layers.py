"""Imports go inwards only, and the core touches nothing of the world."""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "registry"
MAY_IMPORT = {
    "core": {"core"},
    "ports": {"core", "ports"},
    "settings": {"core"},
    "adapters": {"core", "ports", "adapters", "settings"},
    "services": {"core", "ports", "services", "settings"},
    "web": {"core", "ports", "services", "web", "settings", "server"},
    "server": {"core", "ports", "server", "settings"},
    "tensors": {"core", "tensors"},
    "workers": {"core", "ports", "adapters", "settings", "workers"},
    "logs": {"server"},
    "lifetime": {"core", "services", "server"},
    "app": {
        "core",
        "ports",
        "adapters",
        "services",
        "web",
        "server",
        "settings",
        "logs",
        "lifetime",
        "workers",
    },
    "cli": {"core", "ports", "adapters", "services", "cli", "settings", "app", "logs", "workers"},
}
GROUPS: dict[str, set[str]] = {  # of services: which others each may import
    "sharing": set(),
    "access": {"sharing"},
    "library": {"access"},
    "uploading": {"library"},
    "transfers": {"sharing", "access", "library"},
    "building": {"sharing", "access", "library"},
    "inference": {"access", "library"},
    "upkeep": {"sharing", "library", "uploading", "transfers"},
}  # fmt: skip
PURE = {  # what core may import from outside the project
    "__future__", "abc", "array", "base64", "bisect", "codecs", "collections", "contextlib",
    "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib",
    "binascii", "heapq", "hmac", "html", "itertools", "json", "math", "operator", "posixpath", "re",
    "string",
    "struct", "sys", "textwrap", "types", "typing", "unicodedata", "urllib", "orjson", "rapidfuzz",
}  # fmt: skip


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """Every imported module with its line, and whether the import stands at the module's top."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.lineno, top))
    return found


def layer_of(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def test_every_import_goes_inwards() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        layer = layer_of(path)
        if layer in {"__init__", "__main__"}:
            continue
        for name, line, _ in imports(path):
            parts = name.split(".")
            if parts[0] != "registry" or len(parts) == 1:
                continue
            if parts[1] not in MAY_IMPORT[layer]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_no_two_groups_of_services_need_each_other() -> None:
    wrong = []
    for path in sorted((ROOT / "services").rglob("*.py")):
        if path.parent.name == "services":  # the bundle of them all
            continue
        for name, line, _ in imports(path):
            parts = name.split(".")
            if parts[:2] != ["registry", "services"]:
                continue
            if parts[2] not in GROUPS[path.parent.name] | {path.parent.name}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_the_core_imports_nothing_that_reaches_the_world() -> None:
    wrong = []
    for path in sorted((ROOT / "core").rglob("*.py")):
        for name, line, _ in imports(path):
            if name.split(".")[0] not in PURE | {"registry"}:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_only_the_command_line_delays_imports() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name} inside a function"
        for path in sorted(ROOT.rglob("*.py"))
        if layer_of(path) != "cli"
        for name, line, top in imports(path)
        if not top and name.split(".")[0] in {"registry", *sys.stdlib_module_names}
    ]
    assert wrong == []
