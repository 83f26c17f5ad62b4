"""GGUF headers: metadata and tensor list of a model file, read without I/O and within bounds.

`HeaderReader` says which bytes it wants next and is fed them; where they come from (a file, ranges
of an object store, an upload in progress) is not its business:

    reader = HeaderReader(size)
    while reader.need is not None:
        start, length = reader.need
        reader.feed(source[start : start + length])
    header = reader.header

Every number of the file is compared with the bytes that exist before anything is allocated or
looped by it; long arrays are stepped over and noted, not kept. Tensor data is never read.

Source: GGUF specification (ggml, docs/gguf.md); spec inference-and-gguf 6.2, 6.3.
"""

from registry.core.gguf.header import Header, Tensor
from registry.core.gguf.reader import HeaderReader
from registry.core.gguf.values import Array, Entry, Kind, Span, decode_array

__all__ = [
    "Array",
    "Entry",
    "Header",
    "HeaderReader",
    "Kind",
    "Span",
    "Tensor",
    "decode_array",
]
