"""Inference: which model may do what is asked.

The checks come in the order of the real server, because clients see which of several faults is told
first.

Source: spec ollama-api 1.5, 14.2, 15, 16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn
from urllib.parse import urlsplit

from registry.core.card import Parts
from registry.core.digest import Digest
from registry.core.errors import Forbidden, ModelUnknown, RequestInvalid
from registry.core.gotext import quote
from registry.core.modelref import ModelReference, NameRequired, Source, parse_reference
from registry.core.names import ModelName
from registry.core.options import check_options
from registry.ports.catalog import Tag
from registry.services.library.models import Models

CLOUD_INFERENCE = "ollama cloud is disabled: remote model is unavailable"
CLOUD_DETAILS = "ollama cloud is disabled: remote model details are unavailable"
_CLOUD_HOST = "ollama.com"
_KEPT = 4096
_SHOWN = 700
"""So much of a name errors quote: valid ones are shorter, but white space around them is not."""


class Purpose(Enum):
    """What the model is to do; the value is the word of error texts."""

    GENERATE = "generate"
    CHAT = "chat"
    EMBED = "embed"
    EMBEDDINGS = "embeddings"

    @property
    def embeds(self) -> bool:
        """Whether vectors are asked for, not text."""
        return self in {Purpose.EMBED, Purpose.EMBEDDINGS}


@dataclass(frozen=True, slots=True)
class Ask:
    """What the checks need to know of a request.

    `model` is the name as sent. `unload` asks to forget the model at once. `needs` are capabilities
    beyond the purpose's own. `raw_conflict` says that raw mode came with a template, a system text
    or a context. `thinking_optional` lets a wish to think pass on a model that cannot.
    """

    purpose: Purpose
    model: str
    unload: bool = False
    think: bool | str | None = None
    thinking_optional: bool = False
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] | None = None
    raw_conflict: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A model that may do what was asked of it, and the request as far as it was checked.

    `account` is whom the work is written up to.
    """

    ask: Ask
    tag: Tag
    parts: Parts
    account: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What the checks need of a model."""

    capabilities: list[str]
    parameters: Mapping[str, Any]


class Inference:
    """What is checked before a model runs."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._known: dict[Digest, _Known] = {}

    def reference(self, ask: Ask) -> ModelReference:
        """The checks that need the name alone.

        Raises:
            ModelUnknown, RequestInvalid: there is no name, or not a valid one.
            Forbidden: it names a model of the vendor's cloud.
        """
        try:
            reference = parse_reference(ask.model)
        except NameRequired as error:
            if ask.purpose in {Purpose.GENERATE, Purpose.EMBED}:
                raise ModelUnknown(f"model '{ask.model[:_SHOWN]}' not found") from error
            raise RequestInvalid("model is required") from error
        ModelName.checked(reference.base)
        if reference.source is Source.CLOUD:
            raise Forbidden(CLOUD_INFERENCE)
        return reference

    async def admit(self, ask: Ask) -> Admitted:
        """Check everything that can be checked before a worker is needed.

        Where the model is only to be unloaded, nothing more is checked than that it is here.

        Raises:
            ModelUnknown: there is no such model.
            RequestInvalid: a bad name, or something the model cannot do.
            Forbidden: the model runs in the vendor's cloud.
            OperationFailed: an option, stored or sent, of the wrong type.
        """
        reference = self.reference(ask)
        tag = await self._models.find(reference.name)
        if tag is None:
            self.unknown(ask)
        parts = await self._models.parts(tag)
        admitted = Admitted(ask, tag, parts)
        if ask.purpose.embeds:
            self._check_options(ask, tag, parts)
            if _is_stub(parts):
                self.unknown(ask)
            return admitted
        if _is_stub(parts):
            self._check_stub(ask, reference, parts.config.remote_host)
        if ask.unload:
            return admitted
        self._check_generation(ask, self._look(tag, parts).capabilities, str(tag.model))
        self._check_options(ask, tag, parts)
        return admitted

    def unknown(self, ask: Ask) -> NoReturn:
        """Refuse a model that is not here, or not for the caller.

        Raises:
            ModelUnknown: always.
        """
        if ask.purpose.embeds:
            raise ModelUnknown(f"model {quote(ask.model[:_SHOWN])} not found, try pulling it first")
        raise ModelUnknown(f"model '{ask.model[:_SHOWN]}' not found")

    def _check_stub(self, ask: Ask, reference: ModelReference, host: str) -> None:
        """A stub of a model elsewhere: this server calls no other one for inference."""
        if reference.source is Source.LOCAL:
            self.unknown(ask)
        if ask.purpose is Purpose.CHAT and ask.unload:
            return  # the real server looks at this first for chats, and only for chats
        if urlsplit(host).hostname != _CLOUD_HOST:
            raise RequestInvalid("this server cannot run this remote model")
        raise Forbidden(CLOUD_INFERENCE)

    def _look(self, tag: Tag, parts: Parts) -> "_Known":
        """What the checks need of a model; manifests never change, so it is remembered."""
        found = self._known.get(tag.digest)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            capabilities = parts.capabilities(look_into_gguf=True)
            found = self._known[tag.digest] = _Known(capabilities, parts.parameters)
        return found

    def _check_generation(self, ask: Ask, capabilities: list[str], full_name: str) -> None:
        if ask.purpose is Purpose.GENERATE:
            if "image" in capabilities:
                raise RequestInvalid("image generation models are not currently supported")
            if ask.raw_conflict:
                raise RequestInvalid("raw mode does not support template, system, or context")
        if ask.think and "thinking" not in capabilities and not ask.thinking_optional:
            raise RequestInvalid(f"{quote(ask.model[:_SHOWN])} does not support thinking")
        if "completion" not in capabilities:
            raise RequestInvalid(
                f"{quote(ask.model[:_SHOWN])} does not support {ask.purpose.value}"
            )
        missing = [item for item in ask.needs if item not in capabilities]
        if missing:
            raise RequestInvalid(f"{full_name} does not support " + "\n".join(missing))

    def _check_options(self, ask: Ask, tag: Tag, parts: Parts) -> None:
        check_options(self._look(tag, parts).parameters)
        check_options(ask.options or {})


def _is_stub(parts: Parts) -> bool:
    return bool(parts.config.remote_host and parts.config.remote_model)
