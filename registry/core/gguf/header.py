"""What a GGUF header says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from registry.core.gguf.values import Entry


class Tensor(NamedTuple):
    """A tensor: its name, its type as in `core/ggml.py`, its dimensions fastest first.

    Where its data begins follows from the tensors before it: no file may have it otherwise.
    """

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """A header that kept every rule. Keys and tensors are in the file's order.

    The tensor data lies in the bytes `[data_start, data_stop)`; the file may go on after it.
    """

    version: int
    entries: Mapping[str, Entry]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_start: int
    data_stop: int
