"""What a GGUF's header tells about a model: kept in the catalog, so that no answer opens the file.

Facts are made once from a `Header` and travel as JSON. Long arrays (vocabularies) stay in the file;
the facts note where, and `array_values` reads them for those who ask for everything.

Source: spec ollama-api 6.4 (kinds of files), 6.5 (split files), 7.3 (model_info), 7.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Literal, Self

import orjson

from registry.core import media
from registry.core.float32 import shortest
from registry.core.gguf import (
    Array,
    Entry,
    Header,
    Kind,
    Span,
    Tensor,
    decode_array,
)
from registry.core.image import UNKNOWN, file_type

Item = int | float | bool | str | None
Value = Item | tuple[Item, ...] | Span

_HIDDEN = frozenset({"general.name", "tokenizer.chat_template"})
_PARAMETERS = "general.parameter_count"
_EMBEDDED = ("a.", "mm.", "mtp.", "s.", "v.")
_MEDIA_TYPES = {"model": media.MODEL, "adapter": media.ADAPTER, "projector": media.PROJECTOR}
_MAX_SHARDS = 65_535


@dataclass(frozen=True, slots=True)
class Split:
    """One of several files that are a model together. `index` counts from 0, None if not told."""

    index: int | None
    count: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a GGUF file.

    `values` is its metadata: float32 values as the shortest float64 that means them, NaN and
    infinities as None, like strings too long to be kept; arrays as tuples, or as spans of the file.
    """

    parameter_count: int
    file_type: str
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, header: Header) -> Self:
        """The facts that a header holds."""
        kind, number = header.entries.get("general.file_type", Entry(Kind.U32, 0))
        return cls(
            parameter_count=sum(prod(tensor.shape) for tensor in header.tensors),
            file_type=file_type(number)
            if kind is Kind.U32 and isinstance(number, int)
            else UNKNOWN,
            values={key: _value(entry) for key, entry in header.entries.items()},
            tensors=header.tensors,
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote."""
        found = orjson.loads(data)
        return cls(
            parameter_count=found["parameter_count"],
            file_type=found["file_type"],
            values={key: _unpacked(value) for key, value in found["values"].items()},
            tensors=tuple(
                Tensor(name, kind, tuple(shape)) for name, kind, shape in found["tensors"]
            ),
        )

    def to_json(self) -> bytes:
        """The form kept in the catalog."""
        return orjson.dumps(
            {
                "parameter_count": self.parameter_count,
                "file_type": self.file_type,
                "values": dict(self.values),
                "tensors": self.tensors,
            },
            default=tuple,  # of each `Tensor`, one at a time: there may be 131,072
        )

    @property
    def architecture(self) -> str:
        """`general.architecture`; `unknown` in a later file of a split model."""
        return self._text("general.architecture") or UNKNOWN

    @property
    def kind(self) -> Literal["model", "adapter", "projector"]:
        """What the file is to a model made of it."""
        told = self._text("general.type")
        if told == "adapter":
            return "adapter"
        if told in {"projector", "mmproj"}:
            return "projector"
        if self._count("block_count"):
            return "model"
        if self.vision_blocks:
            return "projector"
        sees = self.values.get("clip.has_vision_encoder") is True
        hears = self.values.get("clip.has_audio_encoder") is True
        return "projector" if self.architecture == "clip" and (sees or hears) else "model"

    @property
    def media_type(self) -> str:
        """The media type of a layer of that kind."""
        return _MEDIA_TYPES[self.kind]

    @property
    def has_embedded_parts(self) -> bool:
        """Whether vision, audio or multi-token tensors lie beside the text model's."""
        return any(tensor.name.startswith(_EMBEDDED) for tensor in self.tensors)

    @property
    def split(self) -> Split | None:
        """Which part of a split model the file is; None if it is whole."""
        count = self._shard("split.count")
        if count is None or count < 2:
            return None
        return Split(self._shard("split.no"), count)

    @property
    def chat_template(self) -> str:
        """The Jinja chat template, empty if there is none."""
        return self._text("tokenizer.chat_template")

    @property
    def context_length(self) -> int:
        """The context it was trained for, in tokens; 0 if not told."""
        return self._count("context_length")

    @property
    def embedding_length(self) -> int:
        """The width of its embeddings; 0 if not told."""
        return self._count("embedding_length")

    @property
    def has_pooling_type(self) -> bool:
        """Whether it is made for embeddings."""
        return f"{self.architecture}.pooling_type" in self.values

    @property
    def vision_blocks(self) -> int:
        """Layers of its own vision encoder."""
        return self._count("vision.block_count")

    @property
    def audio_blocks(self) -> int:
        """Layers of its own audio encoder."""
        return self._count("audio.block_count")

    @property
    def projector_type(self) -> str:
        """What a projector was made for, empty if not told."""
        return self._text("clip.projector_type") or self._text("clip.vision.projector_type")

    @property
    def projector_hears(self) -> bool:
        """Whether a projector takes audio, and the engine lets it."""
        if self._text(f"{self.architecture}.vision.projector_type") == "gemma3nv":
            return False
        return any(
            value is True and key.endswith(".has_audio_encoder")
            for key, value in self.values.items()
        )

    @property
    def spans(self) -> dict[str, Span]:
        """The arrays that lie in the file, by key."""
        return {key: value for key, value in self.values.items() if isinstance(value, Span)}

    def _text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def _count(self, name: str) -> int:
        """A number of this architecture; 0 for anything that is no positive integer."""
        value = self.values.get(f"{self.architecture}.{name}")
        return value if isinstance(value, int) and value is not True and value > 0 else 0

    def _shard(self, key: str) -> int | None:
        for name in (key, f"{self.architecture}.{key}"):
            value = self.values.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SHARDS:
                return value
        return None


def model_info(facts: Facts, arrays: Mapping[str, Sequence[Item]] | None = None) -> dict[str, Any]:
    """The `model_info` of show, keys in byte order.

    Without `arrays` every array that is not empty reads None. With them, which is the verbose form,
    arrays stand there in full: `arrays` has those of `facts.spans`, and one it lacks reads None.
    """
    info = projector_info(facts, arrays)
    return {key: value for key, value in info.items() if key not in _HIDDEN}


def projector_info(
    facts: Facts, arrays: Mapping[str, Sequence[Item]] | None = None
) -> dict[str, Any]:
    """The `projector_info` of show: as `model_info`, with the name and the chat template."""
    values = {**facts.values, _PARAMETERS: facts.parameter_count}
    return {key: _shown(key, values[key], arrays) for key in sorted(values)}


def array_values(span: Span, data: bytes) -> list[Item]:
    """The elements of an array that lies in the file, from the bytes of its span.

    Raises:
        ValueError: they are not the bytes that were there when the header was read.
    """
    return [_item(span.kind, value) for value in decode_array(span, data)]


def _shown(key: str, value: Value, arrays: Mapping[str, Sequence[Item]] | None) -> Any:
    if isinstance(value, Span):
        return None if arrays is None else arrays.get(key)
    if isinstance(value, tuple) and value and arrays is None:
        return None
    return list(value) if isinstance(value, tuple) else value


def _value(entry: Entry) -> Value:
    if isinstance(entry.value, Array):
        return tuple(_item(entry.value.kind, value) for value in entry.value.values)
    return entry.value if isinstance(entry.value, Span) else _item(entry.kind, entry.value)


def _item(kind: Kind, value: Item) -> Item:
    if not isinstance(value, float):
        return value
    if not isfinite(value):
        return None
    return shortest(value) if kind is Kind.F32 else value


def _unpacked(value: Any) -> Value:
    if isinstance(value, dict):
        return Span(Kind(value["kind"]), value["count"], value["offset"], value["length"])
    if isinstance(value, list):
        return tuple(value)
    return value  # type: ignore[no-any-return]  # a scalar of JSON
