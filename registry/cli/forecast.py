"""What quantizing or converting will come to, before it begins: from a header alone.

Computed here, by the same rules as on the server, so that a model that cannot be converted is told
before it is uploaded.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from registry.cli.files import request_names
from registry.cli.render import clock_text, size_text, table
from registry.core.convert.files import Folder, check_names, wanted
from registry.core.convert.headers import all_tensors
from registry.core.convert.model import convert_model
from registry.core.convert.safetensors import PREFIX, Stored, header_length, parse_header
from registry.core.errors import OperationFailed, UpstreamFailed
from registry.core.facts import Facts, Value
from registry.core.ggml import TYPE_NUMBERS, data_size
from registry.core.gguf import HeaderReader, Tensor
from registry.core.gguf.pairs import plain_value
from registry.core.image import UNKNOWN, file_type, model_type
from registry.core.quantize import Hyper, plan, stored_as, target
from registry.core.quantize.targets import PLAIN

_CORES = 4
_RATES = {
    "Q2_K": 24,
    "Q3_K": 100,
    "Q4_K": 21,
    "Q5_K": 25,
    "Q6_K": 43,
    "IQ4_NL": 1.5,
    "IQ4_XS": 2,
    "IQ3_S": 3,
}
"""Millions of numbers that a core quantizes in a second: measured, on an AMD EPYC with AVX2."""
_OTHER_RATE = 400


@dataclass(frozen=True, slots=True)
class Forecast:
    """What goes in and what comes out."""

    source: str
    level: str
    given: tuple[Tensor, ...]
    wanted: tuple[Tensor, ...]
    result: str

    @classmethod
    def of(cls, source: str, facts: Facts, name: str) -> Self:
        """What becomes of a GGUF that is quantized to the type `name`.

        Raises:
            OperationFailed: it was quantized before.
        """
        level = stored_as(facts.file_type, facts.tensors)
        if level not in PLAIN:
            raise OperationFailed(
                f"{source} is {level} already; only F16, BF16 and F32 models can be quantized"
            )
        made = plan(facts.tensors, Hyper.of(facts.values), target(name))
        return cls(source, level, facts.tensors, tuple(made), target(name).name)

    def text(self, name: str) -> str:
        """Two lines for somebody who waits; `name` is that of the model to be made."""
        parameters = model_type(sum(_count(tensor) for tensor in self.given))
        types = Counter(tensor.type for tensor in self.wanted)
        listed = ", ".join(f"{count} {kind}" for kind, count in types.most_common())
        return table(
            [
                ("in", self.source, self.level, size_text(size_of(self.given)), parameters),
                ("out", name, self.result, size_text(size_of(self.wanted)), f"tensors: {listed}"),
                ("time", f"about {clock_text(self.seconds)} on {_CORES} cores"),
            ]
        )

    @property
    def seconds(self) -> float:
        """How long a server of our guess needs for it; uploading comes on top."""
        return sum(_count(tensor) / _rate(tensor.type) for tensor in self.wanted) / _CORES + 1

    def fields(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "source": self.source,
            "source_type": self.level,
            "source_bytes": size_of(self.given),
            "type": self.result,
            "bytes": size_of(self.wanted),
            "tensors": dict(Counter(tensor.type for tensor in self.wanted)),
        }


def size_of(tensors: Sequence[Tensor]) -> int:
    """The bytes of all of them, which is all of a file but its header."""
    return sum(data_size(tensor.type, tensor.shape) for tensor in tensors)


def _rate(kind: str) -> float:
    return _RATES.get(kind, _OTHER_RATE) * 1e6


def _count(tensor: Tensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def facts_of_file(path: Path) -> Facts:
    """The facts of a GGUF file of this machine.

    Raises:
        OperationFailed: it cannot be read.
        GgufInvalid: it is none, or one that breaks a rule.
    """
    try:
        with path.open("rb") as file:
            reader = HeaderReader(path.stat().st_size)
            while reader.need is not None:
                start, length = reader.need
                file.seek(start)
                reader.feed(file.read(length))
    except OSError as error:
        raise OperationFailed(f"cannot read {path}: {error.strerror}") from error
    assert reader.header is not None
    return Facts.of(reader.header)


def facts_of_answer(answer: Mapping[str, Any]) -> Facts:
    """The facts of a model of the server, as far as `/api/show` tells them.

    Raises:
        UpstreamFailed: it does not tell the tensors.
    """
    listed, info = answer.get("tensors"), answer.get("model_info")
    tensors = [_tensor(item) for item in listed] if isinstance(listed, list) else []
    known = [tensor for tensor in tensors if tensor is not None]
    if not known or len(known) != len(tensors):
        raise UpstreamFailed("the server does not tell what the model's tensors are")
    values: dict[str, Value] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (info.items() if isinstance(info, dict) else ())
    }
    number = values.get("general.file_type")
    said = file_type(number) if isinstance(number, int) else UNKNOWN
    return Facts(sum(map(_count, known)), said, values, tuple(known))


def _tensor(item: object) -> Tensor | None:
    match item:
        case {"name": str(name), "type": str(kind), "shape": [int(), *_] as shape}:
            if kind in TYPE_NUMBERS and all(isinstance(size, int) and size > 0 for size in shape):
                return Tensor(name, kind, tuple(shape))
    return None


def of_checkpoint(source: str, paths: Sequence[Path], name: str) -> Forecast:
    """What becomes of a safetensors checkpoint; `name` is empty if it is not quantized.

    Raises:
        CheckpointInvalid: it cannot be converted.
        OperationFailed: a file of it cannot be read.
    """
    named = request_names(paths)
    check_names(named)
    try:
        folder = Folder({file: _content(named[file], most) for file, most in wanted(named).items()})
        tensors = all_tensors(named, folder, lambda file: _header(file, named[file]))
    except OSError as error:
        raise OperationFailed(f"cannot read {error.filename}: {error.strerror}") from error
    made = convert_model(folder, tensors)
    values: dict[str, Value] = {
        key: plain_value(value) for key, value in made.keys if not key.startswith("tokenizer.")
    }
    given = tuple(Tensor(output.name, output.type, output.shape) for output in made.tensors)
    number = values.get("general.file_type")
    facts = Facts(0, file_type(number) if isinstance(number, int) else UNKNOWN, values, given)
    if name:
        return Forecast.of(source, facts, name)
    return Forecast(source, facts.file_type, given, given, facts.file_type)


def _content(path: Path, most: int) -> bytes:
    if path.stat().st_size > most:
        raise OperationFailed(f"{path} is larger than {most} bytes")
    return path.read_bytes()


def _header(name: str, path: Path) -> tuple[Stored, ...]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(file.read(PREFIX.size), size, name)
        return parse_header(file.read(length), size, name)
