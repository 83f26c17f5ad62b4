"""Converts checkpoints in this process, without the child that the server would start."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from registry.core.convert.files import Folder
from registry.core.convert.model import convert_model
from registry.core.convert.plan import Conversion
from registry.core.convert.safetensors import Stored, header_length, parse_header, unite
from registry.core.gguf.writer import layout, padded
from registry.tensors.files import File
from registry.tensors.sources import Source


@contextmanager
def opened(contents: Mapping[str, bytes]) -> Iterator[list[File]]:
    """Files in memory as the child process has them."""
    descriptors: list[int] = []
    files = []
    try:
        for name, data in contents.items():
            descriptor = os.memfd_create("file")
            descriptors.append(descriptor)
            os.truncate(descriptor, len(data))
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            files.append(File(name, descriptor, len(data)))
        yield files
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def gguf(source: Source) -> bytes:
    """The file that a source becomes when no tensor is quantized."""
    laid = layout(source.pairs, source.tensors)
    parts = [laid.header]
    for tensor, length in zip(source.tensors, laid.lengths, strict=True):
        data = b"".join(chunk.tobytes() for chunk in source.chunks(tensor))
        assert len(data) == length, tensor
        parts += [data, bytes(padded(length, laid.alignment) - length)]
    return b"".join(parts)


def write(source: Source, path: Path) -> Path:
    """The same, as a file."""
    path.write_bytes(gguf(source))
    return path


def stored(contents: Mapping[str, bytes]) -> dict[str, Stored]:
    """The tensors of safetensors files in memory."""
    headers = []
    for name, data in contents.items():
        if name.endswith(".safetensors"):
            length = header_length(data[:8], len(data), name)
            headers.append(parse_header(data[8 : 8 + length], len(data), name))
    return unite(headers)


def planned(contents: Mapping[str, bytes]) -> Conversion:
    """What a checkpoint in memory is to become."""
    return convert_model(Folder(contents), stored(contents))
