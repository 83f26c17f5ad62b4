"""Where a named model is to run: the suffixes `:local`, `:cloud` and `-cloud` of the Ollama API.

Inference, show and the `from` of create read them; pull and delete normalise them to the name that
a stub is stored under; copy, push and the target of create know nothing of them.

Source: Ollama `internal/modelref`, as described in spec ollama-api 1.3.
"""

from dataclasses import dataclass
from enum import Enum

from registry.core.errors import NameInvalid
from registry.core.gotext import quote, trim_space
from registry.core.names import ModelName

_SHOWN = 700
"""A valid name has at most 593 characters; more of an invalid one need not be quoted."""


class Source(Enum):
    """Where a model is to run."""

    UNSPECIFIED = "unspecified"
    LOCAL = "local"
    CLOUD = "cloud"


class NameRequired(NameInvalid):
    """A name of nothing but white space. Endpoints answer it differently."""


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A name as asked for, taken apart: `base` is it without suffix and outer white space."""

    base: str
    source: Source

    @property
    def name(self) -> ModelName:
        """The base as a name, which may be invalid."""
        return ModelName.parse(self.base)


def parse_reference(text: str) -> ModelReference:
    """Split off the suffix; whether the base is a valid name is not looked at.

    Raises:
        NameRequired: nothing but white space.
        NameInvalid: two suffixes.
    """
    text = trim_space(text)
    if not text:
        raise NameRequired("model is required")
    base, source = _split(text)
    if source is not Source.UNSPECIFIED and _split(base)[1] is not Source.UNSPECIFIED:
        raise NameInvalid(f"use either :local or :cloud, not both: {quote(text[:_SHOWN])}")
    return ModelReference(base, source)


def pull_name(text: str) -> str:
    """The name under which a model asked for as `text` is stored: what pull and delete act on.

    An empty name stays empty, for the caller to refuse as the invalid name that it is.

    Raises:
        NameInvalid: two suffixes.
    """
    try:
        reference = parse_reference(text)
    except NameRequired:
        return ""
    if reference.source is not Source.CLOUD:
        return reference.base
    has_tag = reference.base.rfind(":") > reference.base.rfind("/")
    return reference.base + ("-cloud" if has_tag else ":cloud")


def _split(text: str) -> tuple[str, Source]:
    head, colon, tail = text.rpartition(":")
    if not colon:
        return text, Source.UNSPECIFIED
    suffix = trim_space(tail)
    lowered = suffix.lower()
    if lowered in {"cloud", "local"}:
        return head, Source(lowered)
    if lowered.endswith("-cloud") and "/" not in suffix:
        return f"{head}:{suffix[: -len('-cloud')]}", Source.CLOUD
    return text, Source.UNSPECIFIED
