"""Split models: which files belong together, and in which order.

llama.cpp's tool names them `<prefix>-00001-of-00003.gguf` and says the same inside, counted from 0.
Both must agree: a file of another model under the right name would make a model of nonsense.

Source: spec ollama-api 6.5; the wording is Ollama's where it has one.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from registry.core.digest import Digest
from registry.core.errors import OperationFailed
from registry.core.facts import Facts

_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)
_TENSORS = "split.tensors.count"


class Shard(NamedTuple):
    """One file of a split model: the name it was sent under, its blob, what its header says."""

    name: str
    digest: Digest
    facts: Facts


class Group(NamedTuple):
    """What the shards of one model have in common."""

    media_type: str
    prefix: str
    shards: int


def group_of(shard: Shard, media_type: str) -> Group | None:
    """The group that a file belongs to; None if it is a model by itself.

    Raises:
        OperationFailed: its name and its contents disagree.
    """
    split, said = shard.facts.split, f"split GGUF {_quoted(shard.name)}"
    if split is None:
        return None
    found = _NAME.fullmatch(posixpath.basename(shard.name))
    if found is None or not (int(found[2]) and int(found[3])):
        raise OperationFailed(f"{said} must use llama.cpp split filename pattern")
    index, count = int(found[2]) - 1, int(found[3])
    if count != split.count:
        words = f"filename count {count} does not match metadata count {split.count}"
        raise OperationFailed(f"{said} {words}")
    if split.index is None:
        raise OperationFailed(f"{said} is missing split.no metadata")
    if index != split.index:
        words = f"filename index {index} does not match metadata index {split.index}"
        raise OperationFailed(f"{said} {words}")
    return Group(media_type, found[1], count)


def in_order(group: Group, shards: Sequence[Shard]) -> list[Shard]:
    """All shards of a group in their order.

    Raises:
        OperationFailed: one is missing or there twice, or they are not of one model.
    """
    said = f"split GGUF {_quoted(shards[0].name)}"
    if len(shards) != group.shards:
        raise OperationFailed(f"{said} has {len(shards)} shards, expected {group.shards}")
    places = {shard.facts.split.index: shard for shard in shards if shard.facts.split}
    for index in range(group.shards):
        if index not in places:
            raise OperationFailed(f"{said} is missing shard {index}")
    ordered = [places[index] for index in range(group.shards)]
    _check_one_model(ordered)
    return ordered


def _check_one_model(shards: Sequence[Shard]) -> None:
    first, names = shards[0].facts, set()
    for shard in shards:
        facts, said = shard.facts, f"split GGUF {_quoted(shard.name)}"
        if "general.architecture" in facts.values and facts.architecture != first.architecture:
            words = f"is of a {facts.architecture} model, the first shard of a {first.architecture}"
            raise OperationFailed(f"{said} {words}")
        for tensor in facts.tensors:
            if tensor.name in names:
                raise OperationFailed(f"{said} repeats a tensor of another shard: {tensor.name}")
            names.add(tensor.name)
    told = first.values.get(_TENSORS)
    if isinstance(told, int) and told != len(names):
        words = f"has {len(names)} tensors in its shards, expected {told}"
        raise OperationFailed(f"split GGUF {_quoted(shards[0].name)} {words}")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
