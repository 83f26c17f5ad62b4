"""Checkpoints as sources: a folder's files as they were sent, converted while they are read.

What is to become of them is planned by `registry/core/convert`; the numbers come from
`transforms.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from registry.core.convert.documents import shown
from registry.core.convert.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Folder,
    are_pickles,
    check_names,
    wanted,
)
from registry.core.convert.headers import all_tensors
from registry.core.convert.lora import Base, convert_adapter
from registry.core.convert.model import convert_model
from registry.core.convert.plan import Conversion
from registry.core.convert.safetensors import (
    PREFIX,
    Stored,
    header_length,
    parse_header,
    unite,
)
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Tensor
from registry.core.gguf.writer import Pair
from registry.tensors.files import File
from registry.tensors.sources import Chunk
from registry.tensors.transforms import pieces

Options = Mapping[str, Any]


class Converted:
    """A conversion as a source; see `Source`."""

    def __init__(self, conversion: Conversion, files: Mapping[str, File]) -> None:
        self.pairs: Sequence[Pair] = conversion.keys
        self.tensors: Sequence[Tensor] = [
            Tensor(output.name, output.type, output.shape) for output in conversion.tensors
        ]
        self._outputs = {output.name: output for output in conversion.tensors}
        self._files = files

    def chunks(self, tensor: Tensor) -> Iterator[Chunk]:
        """The tensor's data; see `Source`."""
        return pieces(self._files, self._outputs[tensor.name])


def open_checkpoint(
    files: Sequence[File], options: Options, warn: Callable[[str], None]
) -> Converted:
    """A model's checkpoint.

    Raises:
        CheckpointInvalid: it cannot be converted.
    """
    named = _by_name(files)
    folder = read_folder(named)
    conversion = convert_model(
        folder, all_tensors(named, folder, lambda name: _header(named[name]))
    )
    for warning in conversion.warnings:
        warn(warning)
    return Converted(conversion, named)


def _by_name(files: Sequence[File]) -> dict[str, File]:
    check_names(file.name for file in files)
    named = {file.name: file for file in files}
    if are_pickles(named):
        raise CheckpointInvalid("pickle files are not supported; convert to safetensors")
    return named


def read_folder(files: Mapping[str, File]) -> Folder:
    """The small files.

    Raises:
        CheckpointInvalid: one is larger than such a file can be.
    """
    contents = {}
    for name, most in wanted(files).items():
        file = files[name]
        if file.size > most:
            raise CheckpointInvalid(f"{shown(name)}: {file.size} bytes are more than {most}")
        contents[name] = file.read(0, file.size)
    return Folder(contents)


def read_headers(files: Mapping[str, File], folder: Folder) -> dict[str, Stored]:
    """See `all_tensors`."""
    return all_tensors(files, folder, lambda name: _header(files[name]))


def _header(file: File) -> tuple[Stored, ...]:
    prefix = file.read(0, min(PREFIX.size, file.size))
    length = header_length(prefix, file.size, file.name)
    return parse_header(file.read(PREFIX.size, PREFIX.size + length), file.size, file.name)


def _adapter_weights(names: Iterable[str]) -> str:
    """The file with an adapter's factors; of any name if it is the only one."""
    found = [name for name in names if name.endswith(".safetensors")]
    known = [name for name in ADAPTER_WEIGHTS if name in found]
    if not known and len(found) != 1:
        raise CheckpointInvalid(f"no {ADAPTER_WEIGHTS[0]} beside {ADAPTER_CONFIG}")
    return (known or found)[0]


def open_adapter(files: Sequence[File], options: Options, warn: Callable[[str], None]) -> Converted:
    """A LoRA adapter. The options tell of the GGUF that it is for: its `values` and `tensors`.

    Raises:
        CheckpointInvalid: it cannot be converted, or is not for this base.
    """
    named = _by_name(files)
    folder = read_folder(named)
    weights = _adapter_weights(named)
    base = Base(options["values"], frozenset(options["tensors"]))
    tensors = unite([_header(named[weights])])
    return Converted(convert_adapter(folder, tensors, base), named)
