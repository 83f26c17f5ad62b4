"""Create by layering: base layers and a recipe in, the new model's layers and config out.

Pure: what the layers' texts say is handed in, new texts come out as bytes with their digests. The
rules (what is inherited, replaced, appended, and in which order) are those of spec ollama-api 6.8;
they decide the manifest's bytes and so the model's digest.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from registry.core import media
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.facts import Facts
from registry.core.gojson import dumps
from registry.core.image import Draft, ImageConfig, model_type
from registry.core.manifest import Descriptor
from registry.core.parameters import merge, params_blob

_MAX_INT = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a create request asks for, apart from names. Empty means not given.

    `files`, `adapters` and `draft_files` map file names to digest texts; None is not given, an
    empty mapping is an error of its own. `license` is the JSON value as sent.
    """

    origin: str = ""
    files: Mapping[str, str] | None = None
    adapters: Mapping[str, str] | None = None
    draft_files: Mapping[str, str] | None = None
    quantize: str = ""
    draft_quantize: str = ""
    template: str = ""
    system: str = ""
    license: Any = None
    parameters: Mapping[str, Any] | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_host: str = ""
    info: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the model in the making. `content` is given for a text that may be new.

    `status` replaces the usual status line of the layer.
    """

    descriptor: Descriptor
    facts: Facts | None = None
    content: bytes | None = None
    status: str = ""

    @property
    def media_type(self) -> str:
        """The descriptor's media type."""
        return self.descriptor.media_type


@dataclass(frozen=True, slots=True)
class Plan:
    """The model as it will be: its config blob and its layers in the manifest's order."""

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def contents(self) -> dict[Digest, bytes]:
        """The texts that have to be in the store, by digest."""
        every = (*self.layers, self.config)
        return {item.descriptor.digest: item.content for item in every if item.content is not None}


def text_layer(media_type: str, content: bytes, status: str = "") -> Layer:
    """A layer made of `content`."""
    return Layer(Descriptor(media_type, Digest.of(content), len(content)), None, content, status)


def check_files(recipe: Recipe) -> None:
    """The checks that come before anything else, in the order of spec ollama-api 6.2.

    Raises:
        RequestInvalid: a file name that is no clean relative path, an empty digest, a draft's
            quantization without a draft.
    """
    for files in (recipe.files, recipe.draft_files):
        for name, digest in sorted((files or {}).items()):
            if not _is_clean_path(name):
                raise RequestInvalid("file path must be relative")
            if not digest:
                raise RequestInvalid("invalid digest format")
    if recipe.draft_quantize and not recipe.draft_files:
        raise RequestInvalid("--draft-quantize requires a DRAFT model")
    if any(not digest for digest in (recipe.adapters or {}).values()):
        raise RequestInvalid("invalid digest format")


def _is_clean_path(name: str) -> bool:
    """Go's `fs.ValidPath`: relative, no empty, `.` or `..` element; `.` alone is fine there."""
    return name == "." or all(part not in {"", ".", ".."} for part in name.split("/"))


def remote_url(text: str) -> str:
    """The normal form of a remote stub's host. Idempotent.

    Raises:
        RequestInvalid: `bad remote`.
    """
    if not text or text.startswith("/"):
        return "http://localhost:11434" + (_clean(text) if text else "")
    if "://" not in text:
        text = "http://" + text
    if text == "http://ollama.com":
        text = "https://ollama.com:443"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise RequestInvalid("bad remote") from error
    if any(character <= " " or character == "\x7f" for character in text):
        raise RequestInvalid("bad remote")
    host = url.netloc or "localhost"
    if port is None:
        host = f"{host.rstrip(':')}:11434"
    path = _clean(url.path) if url.path else ""
    return f"{url.scheme}://{host}{'' if path == '/' else path}"


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def start_config(recipe: Recipe, base: ImageConfig | None) -> ImageConfig:
    """The config before the layers had their say: the request's fields, then the parent's."""
    config = ImageConfig(renderer=recipe.renderer, parser=recipe.parser, requires=recipe.requires)
    if base is None:
        return config
    return replace(
        config,
        renderer=config.renderer or base.renderer,
        parser=config.parser or base.parser,
        requires=config.requires or base.requires,
        model_format=base.model_format,
        capabilities=base.capabilities,
    )


def with_info(config: ImageConfig, info: Mapping[str, Any] | None) -> ImageConfig:
    """Apply the request's `info`, which overrides what the files say.

    Raises:
        RequestInvalid: a field of a wrong type, named.
    """
    if info is None:
        return config
    capabilities = info.get("capabilities")
    if isinstance(capabilities, list):
        texts = tuple(item if isinstance(item, str) else "" for item in capabilities)
        config = replace(config, capabilities=config.capabilities + texts)
    family = _text(info, "model_family")
    return replace(
        config,
        model_family=family,
        model_families=(family,) if family else None,
        base_name=_text(info, "base_name"),
        file_type=_text(info, "quantization_level"),
        model_type=_text(info, "parameter_size"),
        context_length=_count(info, "context_length"),
        embedding_length=_count(info, "embedding_length"),
    )


def _text(info: Mapping[str, Any], key: str) -> str:
    value = info.get(key, "")
    if not isinstance(value, str):
        raise RequestInvalid(f'info field "{key}" must be a string')
    return value


def _count(info: Mapping[str, Any], key: str) -> int:
    value = info.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestInvalid(f'info field "{key}" must be a number')
    if value < 0 or value != int(value) or value > _MAX_INT:
        raise RequestInvalid(f'info field "{key}" must be a non-negative integer')
    return int(value)


def licenses(value: Any) -> list[str]:
    """The license texts of a request.

    Raises:
        OperationFailed: neither a string nor a list of strings.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        for item in value:
            if item is not None and not isinstance(item, str):
                kind = _json_kind(item)
                raise OperationFailed(f"json: cannot unmarshal {kind} into Go value of type string")
        return [item or "" for item in value]
    raise OperationFailed(
        f"json: cannot unmarshal {_json_kind(value)} into Go value of type []string"
    )


def _json_kind(value: Any) -> str:
    # no strings: those are licenses
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "array" if isinstance(value, list) else "object"


_DEFAULTS = {  # architecture -> renderer, parser
    "gemma4": ("gemma4", "gemma4"),
    "laguna": ("laguna", "laguna"),
    "nemotron_h": ("nemotron-3-nano", "nemotron-3-nano"),
    "nemotron_h_moe": ("nemotron-3-nano", "nemotron-3-nano"),
    "nemotron_h_omni": ("nemotron-3-nano", "nemotron-3-nano"),
}


@dataclass(slots=True)
class _Draft:
    """The plan while it is made."""

    config: ImageConfig
    layers: list[Layer]
    parameters: dict[str, Any] = field(default_factory=dict)

    def add_facts(self, layer: Layer) -> None:
        """Let a GGUF layer fill in what the config does not say yet."""
        facts = layer.facts
        if facts is None:
            return
        if layer.media_type == media.DRAFT:
            draft = Draft(model_format="gguf", architecture=facts.architecture)
            self.config = replace(self.config, draft=draft)
        if layer.media_type != media.MODEL:
            return
        config = self.config
        self.config = replace(
            config,
            model_format=config.model_format or "gguf",
            model_family=config.model_family or facts.architecture,
            model_type=config.model_type or model_type(facts.parameter_count),
            file_type=config.file_type or facts.file_type,
            model_families=(*(config.model_families or ()), facts.architecture),
        )
        renderer, parser = _DEFAULTS.get(facts.architecture, ("", ""))
        if renderer and not (config.renderer and config.parser):
            self.config = replace(
                self.config, renderer=config.renderer or renderer, parser=config.parser or parser
            )
            if facts.architecture == "gemma4":
                self.parameters.setdefault("stop", ["<turn|>"])

    def put(self, media_type: str, content: bytes) -> None:
        """Replace all layers of a type by one at the end."""
        self.layers = [layer for layer in self.layers if layer.media_type != media_type]
        self.layers.append(text_layer(media_type, content))


def plan(
    recipe: Recipe,
    config: ImageConfig,
    layers: Sequence[Layer],
    params: Sequence[Mapping[str, Any]],
) -> Plan:
    """Lay the recipe's texts over base, adapter and draft layers.

    `params` are the parameter objects of the params layers among `layers`, in order.

    Raises:
        OperationFailed: a license that is neither a string nor a list of strings.
    """
    draft = _Draft(config, list(layers), dict(recipe.parameters or {}))
    for layer in layers:
        draft.add_facts(layer)
    if recipe.template:
        draft.put(media.TEMPLATE, recipe.template.encode())
    if recipe.system:
        draft.put(media.SYSTEM, recipe.system.encode())
    draft.layers += [text_layer(media.LICENSE, item.encode()) for item in licenses(recipe.license)]
    merged: dict[str, Any] = draft.parameters
    for existing in params:
        merged = merge(existing, merged)
    if merged:
        draft.put(media.PARAMS, params_blob(merged))
    if recipe.messages:
        draft.put(media.MESSAGES, dumps(list(recipe.messages)) + b"\n")
    return Plan(text_layer(media.CONFIG, draft.config.to_bytes()), tuple(draft.layers))
