"""The config blob of a model: format, family, size, quantization, as Ollama writes and reads it.

The bytes that `to_bytes` gives are those of the recorded server, because their digest goes into the
manifest's and so into the model's. A blob that came from elsewhere is never rewritten.

Source: spec ollama-api 3.4.
"""

from dataclasses import dataclass
from typing import Any, Self

import orjson

from registry.core.gojson import dumps

UNKNOWN = "unknown"

_FILE_TYPES = {
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}


def file_type(number: int) -> str:
    """The quantization that `general.file_type` names. 0, all F32, reads `unknown` as well."""
    return _FILE_TYPES.get(number, UNKNOWN)


def model_type(parameters: int) -> str:
    """A parameter count as people write it: `8B`, `8.0B`, `134.52M`, `22K`, `0`."""
    if parameters >= 10**9:
        return f"{parameters / 1e9:.{0 if parameters % 10**9 == 0 else 1}f}B"
    if parameters >= 10**6:
        return f"{parameters / 1e6:.{0 if parameters % 10**6 == 0 else 2}f}M"
    if parameters >= 1000:
        return f"{parameters / 1e3:.0f}K"
    return str(parameters)


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft model that a manifest brings along for speculative decoding."""

    model_format: str = ""
    architecture: str = ""
    tensor_prefix: str = ""
    config: str = ""

    def fields(self) -> dict[str, Any]:
        """The JSON fields in order; empty ones are left out."""
        every = {
            "model_format": self.model_format,
            "architecture": self.architecture,
            "tensor_prefix": self.tensor_prefix,
            "config": self.config,
        }
        return {key: value for key, value in every.items() if value}


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a config blob says.

    `model_type` is the parameter count, `file_type` the quantization.
    """

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = None
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    remote_model: str = ""
    capabilities: tuple[str, ...] = ()
    context_length: int = 0
    embedding_length: int = 0
    base_name: str = ""
    draft: Draft | None = None
    architecture: str = "amd64"
    os: str = "linux"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a config blob of any origin. What is missing or of a wrong type is left empty.

        Bytes that are no JSON object, as the configs of other artifacts may be, say nothing at all.
        """
        try:
            found = orjson.loads(data)
        except orjson.JSONDecodeError:
            return cls()
        if not isinstance(found, dict):
            return cls()
        draft = found.get("draft")
        return cls(
            model_families=_texts(found, "model_families"),
            capabilities=_texts(found, "capabilities") or (),
            context_length=_count(found, "context_length"),
            embedding_length=_count(found, "embedding_length"),
            draft=Draft(**_strings(draft, _DRAFT_TEXTS)) if isinstance(draft, dict) else None,
            **_strings(found, _TEXTS),
        )

    def to_bytes(self) -> bytes:
        """The blob, with its final newline."""
        optional = {
            "renderer": self.renderer,
            "parser": self.parser,
            "requires": self.requires,
            "remote_host": self.remote_host,
            "remote_model": self.remote_model,
            "capabilities": self.capabilities,
            "context_length": self.context_length,
            "embedding_length": self.embedding_length,
            "base_name": self.base_name,
            "draft": None if self.draft is None else self.draft.fields(),
        }
        fields = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": self.model_families,
            "model_type": self.model_type,
            "file_type": self.file_type,
            # a draft that says nothing is written as {}: there is one
            **{key: value for key, value in optional.items() if value or value == {}},
            "architecture": self.architecture,
            "os": self.os,
        }
        return dumps(fields) + b"\n"


_DRAFT_TEXTS = ("model_format", "architecture", "tensor_prefix", "config")
_TEXTS = (
    "model_format",
    "model_family",
    "model_type",
    "file_type",
    "renderer",
    "parser",
    "requires",
    "remote_host",
    "remote_model",
    "base_name",
    "architecture",
    "os",
)


def _strings(found: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Those of the fields that are strings."""
    return {key: found[key] for key in keys if isinstance(found.get(key), str)}


def _texts(found: dict[str, Any], key: str) -> tuple[str, ...] | None:
    value = found.get(key)
    if not isinstance(value, list):
        return None
    return tuple(item for item in value if isinstance(item, str))


def _count(found: dict[str, Any], key: str) -> int:
    value = found.get(key)
    return value if isinstance(value, int) and value is not True and value > 0 else 0
