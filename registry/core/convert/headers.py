"""The tensors of a checkpoint: those in the headers of all its files with weights."""

from collections.abc import Callable, Collection
from dataclasses import replace

from registry.core.convert.files import INDEX, Folder, dense_weights
from registry.core.convert.safetensors import Stored, check_index, unite, weight_files
from registry.core.errors import CheckpointInvalid

Read = Callable[[str], tuple[Stored, ...]]
"""The tensors in the header of a file."""


def all_tensors(names: Collection[str], folder: Folder, read: Read) -> dict[str, Stored]:
    """The tensors of the files `names`, by their own names.

    Raises:
        CheckpointInvalid: a file that is not what it should be, or one that is missing.
    """
    index = folder.contents.get(INDEX)
    headers = [read(name) for name in weight_files(names, index, INDEX)]
    tensors = unite([*headers, _dense(names, folder, read)])
    if index is not None:
        check_index(index, INDEX, tensors)
    return tensors


def _dense(names: Collection[str], folder: Folder, read: Read) -> tuple[Stored, ...]:
    """The tensors of layers after the pooling, which are in folders of their own."""
    weights = dense_weights(names)
    for name in folder.contents:
        inside = name.removesuffix("/config.json")
        if inside.endswith("_Dense") and inside not in weights:
            raise CheckpointInvalid(f"no model.safetensors beside {name}")
    return tuple(
        replace(tensor, name=f"{inside}.{tensor.name}")
        for inside, name in weights.items()
        if f"{inside}/config.json" in folder
        for tensor in read(name)
    )
