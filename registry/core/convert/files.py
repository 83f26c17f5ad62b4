"""The small files of a checkpoint, by their names: which are wanted, and how large they may be."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from registry.core.convert.documents import read_json, shown
from registry.core.errors import CheckpointInvalid

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapters.safetensors")

LIMITS = {
    CONFIG: 8 << 20,
    ADAPTER_CONFIG: 1 << 20,
    INDEX: 64 << 20,
    "generation_config.json": 1 << 20,
    "tokenizer.json": 96 << 20,
    "tokenizer_config.json": 32 << 20,
    "special_tokens_map.json": 4 << 20,
    "added_tokens.json": 8 << 20,
    "tokenizer.model": 32 << 20,
    "sentencepiece.bpe.model": 32 << 20,
    "vocab.txt": 32 << 20,
    "chat_template.jinja": 1 << 20,
    "chat_template.json": 2 << 20,
    "modules.json": 1 << 20,
}
"""The files that are read, with the most bytes that they may have."""

_POOLING = re.compile(r"[0-9]{1,3}_(Pooling|Dense)/config\.json")
_POOLING_LIMIT = 1 << 20
_DENSE = re.compile(r"([0-9]{1,3}_Dense)/model\.safetensors")
_PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl", ".pickle")
_MAX_FILES = 1000
_MAX_NAME = 255


def check_names(names: Iterable[str]) -> None:
    """Refuse names that mean another place than the checkpoint's folder to somebody.

    Raises:
        CheckpointInvalid: such a name, or too many files.
    """
    for count, name in enumerate(names):
        parts = name.replace("\\", "/").split("/")
        hostile = "\\" in name or "\0" in name or not name.isprintable() or len(name) > _MAX_NAME
        if hostile or any(part in {"", ".", ".."} for part in parts) or ":" in parts[0]:
            raise CheckpointInvalid(f"the file name {shown(name)!r} is not accepted")
        if count >= _MAX_FILES:
            raise CheckpointInvalid(f"more than {_MAX_FILES} files")


def needed(names: Iterable[str]) -> list[str]:
    """Those files that a conversion may read, in order."""
    names = sorted(names)
    small = wanted(names)
    return [name for name in names if name in small or name.endswith(".safetensors")]


def adapter_folders(names: Iterable[str]) -> list[dict[str, str]]:
    """Each folder's own files, by their names in it, of those folders that hold an adapter."""
    names = list(names)
    found = []
    for config in sorted(names):
        folder = config.removesuffix(ADAPTER_CONFIG)
        if config.endswith(ADAPTER_CONFIG) and (not folder or folder.endswith("/")):
            inside = {name[len(folder) :]: name for name in names if name.startswith(folder)}
            found.append({short: name for short, name in inside.items() if "/" not in short})
    return found


def dense_weights(names: Iterable[str]) -> dict[str, str]:
    """The files with the weights of layers after the pooling, by their folders."""
    found = {name: _DENSE.fullmatch(name) for name in sorted(names)}
    return {match[1]: name for name, match in found.items() if match}


def are_pickles(names: Iterable[str]) -> bool:
    """Whether the weights are in pickle files only, which nothing here opens."""
    names = list(names)
    if any(name.endswith(".safetensors") for name in names):
        return False
    return any(name.endswith(_PICKLES) for name in names)


def wanted(names: Iterable[str]) -> dict[str, int]:
    """The small files that are read, with the most bytes that each may have."""
    found = {name: LIMITS[name] for name in names if name in LIMITS}
    pooling = sorted(name for name in names if _POOLING.fullmatch(name))[:8]
    return found | dict.fromkeys(pooling, _POOLING_LIMIT)


class Folder:
    """The contents of the small files, by name; each is parsed once."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        self._parsed: dict[str, dict[str, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.contents

    def json(self, name: str) -> dict[str, Any] | None:
        """The object of a JSON file, None if it is not there.

        Raises:
            CheckpointInvalid: it is too long or no object.
        """
        data = self.contents.get(name)
        if data is None:
            return None
        if name not in self._parsed:
            self._parsed[name] = read_json(data, name, limit(name))
            self.contents[name] = b""  # a vocabulary's text would be kept beside what it says
        return self._parsed[name]

    def text(self, name: str) -> str | None:
        """The text of a file, None if it is not there.

        Raises:
            CheckpointInvalid: it is no UTF-8.
        """
        data = self.contents.get(name)
        if data is None:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CheckpointInvalid(f"{name}: no UTF-8") from error

    def needed_json(self, name: str) -> dict[str, Any]:
        """The object of a JSON file that has to be there; the wording is the real server's."""
        found = self.json(name)
        if found is None:
            raise CheckpointInvalid(f"open {name}: no such file or directory")
        return found


def limit(name: str) -> int:
    """The most bytes that a small file may have."""
    return LIMITS.get(name, _POOLING_LIMIT)
