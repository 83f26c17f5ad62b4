"""Reading config.json: typed keys, and the rope settings in all their spellings.

Source: spec inference-and-gguf 8.5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.core.convert.documents import shown
from registry.core.errors import CheckpointInvalid

FILE = "config.json"
_MOST = (1 << 31) - 1
DEFAULT_THETA = 10_000.0
_MAX_LIST = 65_536


@dataclass(frozen=True, slots=True)
class Config:
    """The language model's keys of a config: those of `text_config` before the others.

    Every getter takes the spellings of one thing, of which the first that is there (and not null)
    counts, and raises `CheckpointInvalid` for a value of a wrong kind, or for none if there is no
    default.
    """

    values: Mapping[str, Any]
    file: str = FILE

    @classmethod
    def of(cls, values: Mapping[str, Any], file: str = FILE) -> "Config":
        """The config of a checkpoint from its file's object."""
        inner = values.get("text_config")
        merged = {**values, **inner} if isinstance(inner, dict) else values
        return cls(merged, file)

    @property
    def architecture(self) -> str:
        """The first of `architectures`, of the whole model."""
        listed = self.values.get("architectures")
        if not isinstance(listed, list) or not listed or not isinstance(listed[0], str):
            raise CheckpointInvalid("unknown architecture")
        return listed[0]

    def has(self, *names: str) -> bool:
        """Whether one of the keys is there and not null."""
        return any(self.values.get(name) is not None for name in names)

    def count(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least` to 2³¹ - 1."""
        name, value = self._find(names, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= _MOST:
            raise self._wrong(name, f"must be a whole number from {least} to {_MOST}", value)
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A finite number."""
        name, value = self._find(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "must be a number", value)
        return self._finite(name, value)

    def _finite(self, name: str, value: float) -> float:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not abs(number) <= 3.4e38:  # what a float32 holds; also false for NaN
            raise self._wrong(name, "must be a finite number", value)
        return number

    def flag(self, name: str, default: bool) -> bool:
        """A truth value."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "must be true or false", value)
        return value

    def text(self, *names: str, default: str | None = None) -> str:
        """A text."""
        name, value = self._find(names, default)
        if not isinstance(value, str):
            raise self._wrong(name, "must be a text", value)
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        value = self._list(name)
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise self._wrong(name, "must be a list of numbers", item)
        return tuple(self._finite(name, item) for item in value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._list(name)
        if not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "must be a list of texts", value)
        return tuple(value)

    def inner(self, name: str) -> "Config | None":
        """The object under a key, if it is one."""
        value = self.values.get(name)
        return Config(value, f"{self.file}: {name}") if isinstance(value, dict) else None

    def _list(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > _MAX_LIST:
            raise self._wrong(name, "must be a list", value)
        return value

    def _find(self, names: tuple[str, ...], default: Any) -> tuple[str, Any]:
        for name in names:
            if self.values.get(name) is not None:
                return name, self.values[name]
        if default is None:
            raise CheckpointInvalid(f"{self.file}: {' or '.join(names)} is missing")
        return names[0], default

    def _wrong(self, name: str, words: str, value: Any) -> CheckpointInvalid:
        return CheckpointInvalid(f"{self.file}: {name} {words}, not {shown(repr(value)[:80])}")


@dataclass(frozen=True, slots=True)
class Rope:
    """How positions are turned into angles: the base, the kind of scaling and its settings."""

    theta: float
    kind: str = "default"
    settings: Config = field(default_factory=lambda: Config({}))

    @property
    def factor(self) -> float:
        """By how much positions are stretched."""
        return self.settings.number("factor")


_KINDS = {"default", "linear", "dynamic", "yarn", "llama3", "longrope", "su", "proportional"}


def rope(config: Config, layer: str = "full_attention") -> Rope:
    """The rope settings for layers of a kind, whichever version of transformers wrote them.

    Since version 5 they are in `rope_parameters`, for several kinds of layers nested by kind;
    before it in `rope_theta` and `rope_scaling`. The newest spelling counts, key by key.

    Raises:
        CheckpointInvalid: an unknown kind of scaling, or a key of a wrong kind.
    """
    merged: dict[str, Any] = {}
    if config.has("rope_theta", "rotary_emb_base"):
        merged["rope_theta"] = config.number("rope_theta", "rotary_emb_base")
    for name in ("rope_scaling", "rope_parameters"):
        found = config.inner(name)
        nested = found.inner(layer) if found else None
        chosen = nested or found
        merged |= chosen.values if chosen else {}
    settings = Config(merged, config.file)
    kind = settings.text("rope_type", "type", default="default")
    if kind not in _KINDS:
        raise CheckpointInvalid(f"{config.file}: rope type {shown(kind)} is not supported")
    theta = settings.number("rope_theta", default=DEFAULT_THETA)
    if theta <= 0:
        raise CheckpointInvalid(f"{config.file}: rope_theta must be above 0")
    return Rope(theta, kind, settings)


def llama3_factors(found: Rope, dimensions: int) -> tuple[float, ...]:
    """What llama3's scaling divides each frequency by: `dimensions` / 2 numbers.

    Long wavelengths are stretched by the whole factor, short ones not at all, those between them
    by a mixture.
    """
    settings = found.settings
    low = settings.number("low_freq_factor", default=1.0)
    high = settings.number("high_freq_factor", default=4.0)
    original = settings.count("original_max_position_embeddings", default=8192)
    if not 0 < low < high or found.factor <= 0:
        raise CheckpointInvalid(f"{settings.file}: the llama3 rope settings make no sense")
    factors = []
    for index in range(0, dimensions, 2):
        wavelength = 2 * math.pi * found.theta ** (index / dimensions)
        share = (original / wavelength - low) / (high - low)
        share = min(max(share, 0.0), 1.0)
        factors.append(1 / ((1 - share) / found.factor + share))
    return tuple(factors)
