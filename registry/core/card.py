"""A model's card: what lists and checks want to know of it, worked out once when it is stored.

The card's JSON lies beside the manifest in the catalog; `/api/tags` splices it into its answer as
it is, so its keys are those of that answer. The list and `show` work out capabilities differently
(spec ollama-api 7.4): the list does not look into a GGUF's own chat template.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from registry.core import media
from registry.core.digest import Digest
from registry.core.facts import Facts
from registry.core.gojson import dumps
from registry.core.image import ImageConfig
from registry.core.manifest import Manifest
from registry.core.template import capabilities as go_capabilities
from registry.core.template import chosen_template, jinja_capabilities

_PLAIN = re.compile(r"[\w./:-]+", re.ASCII)  # names that JSON writes as they are: nearly all

_TOOLS_ONLY = frozenset(
    {
        "qwen3",
        "qwen3-coder",
        "qwen3-vl-instruct",
        "ministral",
        "olmo3",
        "functiongemma",
        "gemma4-no-thinking",
        "glm-ocr",
        "lfm2",
    }
)
_TOOLS_AND_THINKING = frozenset(
    {
        "qwen3-thinking",
        "qwen3.5",
        "ornith",
        "qwen3-vl-thinking",
        "harmony",
        "cogito",
        "deepseek3",
        "nemotron-3-nano",
        "nemotron-3.5-nano",
        "glm-4.7",
        "gemma4",
        "lfm2-thinking",
        "laguna",
        "poolside-v1",
        "cohere",
        "glimmer",
    }
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A model taken apart: its manifest, its config, its texts and GGUF facts by digest."""

    manifest: Manifest
    config: ImageConfig
    texts: Mapping[Digest, bytes]
    facts: Mapping[Digest, Facts]

    def text(self, *media_types: str) -> str | None:
        """The text of the last layer of these types; None if there is none."""
        found = self.all_texts(*media_types)
        return found[-1] if found else None

    def all_texts(self, *media_types: str) -> list[str]:
        """The texts of all layers of these types, in order."""
        return [
            self.texts[layer.digest].decode("utf-8", "replace")
            for layer in self.manifest.layers
            if layer.media_type in media_types and layer.digest in self.texts
        ]

    def digests(self, media_type: str) -> list[Digest]:
        """The digests of all layers of a type, in order."""
        return [layer.digest for layer in self.manifest.layers if layer.media_type == media_type]

    @property
    def model(self) -> Facts | None:
        """The facts of the weights: the last model layer's, as the real server takes them."""
        found = [self.facts[item] for item in self.digests(media.MODEL) if item in self.facts]
        return found[-1] if found else None

    @property
    def template(self) -> str | None:
        """The Go template of the model, None if it has none."""
        return self.text(media.TEMPLATE, media.PROMPT)

    @property
    def jinja(self) -> str:
        """The chat template of the GGUF, empty if it has none."""
        return self.model.chat_template if self.model else ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The stored parameters; empty if they cannot be read."""
        text = self.text(media.PARAMS)
        return _object(text) if text else {}  # numbers as Go has them: all floats

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The stored messages; empty if they cannot be read."""
        text = self.text(media.MESSAGES)
        try:
            value = json.loads(text) if text else []
        except ValueError:
            return []
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    @property
    def parent(self) -> str:
        """Where the weights came from: the model layer's `from`."""
        origins = [item.origin for item in self.manifest.layers if item.media_type == media.MODEL]
        return origins[-1] if origins else ""

    @property
    def size(self) -> int:
        """All layers and the config, in bytes; a layer that occurs twice counts twice."""
        config = self.manifest.config
        return sum(item.size for item in self.manifest.layers) + (config.size if config else 0)

    @property
    def uses_jinja(self) -> bool:
        """Whether the engine would render chats with the GGUF's own template."""
        config = self.config
        return not (config.renderer or config.parser) and (
            chosen_template(self.template, self.jinja or None) == "jinja"
        )

    @property
    def quantization(self) -> str:
        """The config's quantization, repaired from the weights where it says nothing."""
        told = self.config.file_type
        if told in {"", "unknown"} and self.model and not self.config.remote_host:
            return self.model.file_type if self.model.file_type != "unknown" else told
        return told

    def details(self) -> dict[str, Any]:
        """The `details` of show."""
        config = self.config
        families = config.model_families
        return {
            "parent_model": self.parent,
            "format": config.model_format,
            "family": config.model_family,
            "families": list(families) if families else None,
            "parameter_size": config.model_type,
            "quantization_level": self.quantization,
        }

    def capabilities(self, *, look_into_gguf: bool) -> list[str]:
        """What the model can do, in the order of spec ollama-api 7.4.

        `look_into_gguf` counts what the GGUF's own chat template shows, if it is the one in use.
        """
        config, facts = self.config, self.model
        found: list[str] = list(config.capabilities)
        if facts is not None:
            if look_into_gguf and self.uses_jinja:
                found += jinja_capabilities(self.jinja)
            found.append("embedding" if facts.has_pooling_type else "completion")
            found += ["vision"] if facts.vision_blocks else []
            found += ["audio"] if facts.audio_blocks else []
        found += self._projector_capabilities()
        if self.template is not None and not self.uses_jinja:
            found += go_capabilities(self.template)
        if config.parser in _TOOLS_ONLY | _TOOLS_AND_THINKING:
            found.append("tools")
        if config.parser in _TOOLS_AND_THINKING or config.parser == "olmo3-think":
            found.append("thinking")
        if config.model_family in {"gptoss", "gpt-oss"}:
            found.append("thinking")
        hidden = self._suppressed()
        return [item for item in dict.fromkeys(found) if item not in hidden]

    def _projector_capabilities(self) -> list[str]:
        projectors = self.digests(media.PROJECTOR)
        if not projectors:
            return []
        audio = any(self.facts[item].projector_hears for item in projectors if item in self.facts)
        return ["vision", "audio"] if audio else ["vision"]

    def _suppressed(self) -> set[str]:
        """Capabilities that the runners of some families cannot serve."""
        config = self.config
        families = {config.model_family, *(config.model_families or ())}
        hidden = {"audio"} if "nemotron_h_omni" in families else set()
        if config.model_format == "safetensors":
            if config.renderer.startswith("gemma4"):
                hidden |= {"audio", "vision"}
            if config.renderer == "glimmer":
                hidden |= {"audio"}
            if "nemotron-3-nano" in {config.parser, config.renderer} or (
                "nemotron_h_omni" in families
            ):
                hidden |= {"audio", "vision"}
        return hidden


@dataclass(frozen=True, slots=True)
class Card:
    """What the catalog keeps of a model."""

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, parts: Parts, digest: Digest) -> Self:
        """The card of a model whose manifest has that digest."""
        config, facts = parts.config, parts.model
        context = config.context_length or (facts.context_length if facts else 0)
        embedding = config.embedding_length or (facts.embedding_length if facts else 0)
        details = parts.details()
        details |= {"context_length": context} if context else {}
        details |= {"embedding_length": embedding} if embedding else {}
        fields: dict[str, Any] = {}
        if config.remote_model or config.remote_host:
            fields = {"remote_model": config.remote_model, "remote_host": config.remote_host}
        fields |= {"size": parts.size, "digest": digest.hex, "details": details}
        listed = parts.capabilities(look_into_gguf=False)
        return cls(fields | ({"capabilities": listed} if listed else {}))

    def to_json(self) -> str:
        """The text kept in the catalog."""
        return dumps(dict(self.fields)).decode()


def list_entry(name: str, modified_at: str, card: str) -> bytes:
    """One item of `/api/tags`, from a card's text."""
    quoted = f'"{name}"' if _PLAIN.fullmatch(name) else dumps(name).decode()
    return f'{{"name":{quoted},"model":{quoted},"modified_at":"{modified_at}",{card[1:]}'.encode()


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_int=float)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
