"""A model and its options -> what a worker is told to load.

Source: spec ollama-api 17.1, 17.3, 18.1; inference-and-gguf 4, 5, 11.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from registry.core import media
from registry.core.card import Parts
from registry.core.errors import OperationFailed, TemplateInvalid
from registry.core.manifest import Descriptor
from registry.core.memory import estimate
from registry.core.options import context_size, integer
from registry.core.template import DEFAULT, GoTemplate
from registry.ports.catalog import Tag
from registry.ports.workers import LoadSpec, RunnerOptions, Weights
from registry.settings import Worker as WorkerSettings

HARMONY = frozenset({"gptoss", "gpt-oss"})
"""Families whose models write a format of their own."""
_RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap")
_LEAST_BATCH = 2  # an engine that gets 1 ends while it loads
_NUM_BATCH = 512
_EMBEDDING_NUM_BATCH = 2048
_MOST_LAYERS = 10_000
_MOST_THREADS = 256


_DEFAULT = GoTemplate.read(DEFAULT)


class Mode(Enum):
    """Who makes a prompt of messages."""

    RENDERED = "rendered"
    """The library, by the model's Go template; the engine gets text."""
    NATIVE = "native"
    """The engine, by the template in the GGUF; it also tells thoughts and tool calls apart."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a model's prompts are made. `renderer` names one that only Ollama's own server has."""

    mode: Mode
    template: GoTemplate | None = None
    jinja: str = ""
    renderer: str = ""

    @property
    def plain(self) -> GoTemplate:
        """The Go template, or the one that a model has which brings none."""
        return self.template or _DEFAULT


def rendering(parts: Parts, go_template: str) -> Rendering:
    """Who renders for a model; `go_template` is the setting: auto, on or off.

    Raises:
        OperationFailed: its Go template, which would be the one, does not parse.
    """
    config = parts.config
    named = config.renderer or config.parser
    if not named and _is_harmony(parts):
        named = "harmony"
    if named:
        return Rendering(Mode.NATIVE, None, parts.jinja, named)
    uses_go = parts.template is not None and (
        go_template == "on" or (go_template == "auto" and not parts.uses_jinja)
    )
    if not uses_go:
        return Rendering(Mode.NATIVE, None, parts.jinja)
    return Rendering(Mode.RENDERED, read_template(parts.template or ""), parts.jinja)


def read_template(text: str) -> GoTemplate:
    """A Go template to render with.

    Raises:
        OperationFailed: it does not parse, in Go's words.
    """
    try:
        return GoTemplate.read(text)
    except TemplateInvalid as error:
        raise OperationFailed(str(error)) from error


@dataclass(frozen=True, slots=True)
class Demands:
    """What a request asks of a runner.

    `options` are sent and stored ones merged; with `shift` an answer may go on when its context is
    full.
    """

    options: Mapping[str, Any]
    mode: Mode = Mode.NATIVE
    shift: bool = True

    @property
    def key(self) -> tuple[Any, ...]:
        """All that decides what is loaded."""
        return (self.mode, self.shift, *(self.options.get(name) for name in _RUNNER_OPTIONS))


def load_spec(tag: Tag, parts: Parts, demands: Demands, settings: WorkerSettings) -> LoadSpec:
    """What is loaded for a request.

    Raises:
        OperationFailed: the model has no weights that an engine could load.
    """
    options = demands.options
    models = _blobs(parts, media.MODEL)
    facts = parts.model
    if not models or facts is None:
        raise OperationFailed(f"model '{tag.model.short}' has no weights that can be run")
    embeds = "embedding" in parts.capabilities(look_into_gguf=True)
    projectors = _blobs(parts, media.PROJECTOR)[:1]  # more than one is never used
    num_ctx = context_size(
        options, settings.context_length, facts.context_length, images=bool(projectors)
    )
    parallel = 1 if embeds else settings.parallel
    runner = replace(_runner(options, num_ctx, embeds), shift=demands.shift)
    others = [*_blobs(parts, media.ADAPTER), *projectors]
    return LoadSpec(
        name=tag.model,
        manifest=tag.digest,
        model=models[-1],
        adapters=tuple(_blobs(parts, media.ADAPTER)),
        projectors=tuple(projectors),
        options=replace(runner, parallel=parallel, jinja=demands.mode is Mode.NATIVE),
        architecture=facts.architecture,
        memory=sum(item.size for item in others)
        + estimate(
            facts,
            models[-1].size,
            tokens=num_ctx * parallel,
            batch=runner.num_batch,
            cache_type=settings.cache_type,
        ),
    )


def _runner(options: Mapping[str, Any], num_ctx: int, embeds: bool) -> RunnerOptions:
    batch = min(_EMBEDDING_NUM_BATCH, num_ctx) if embeds else _NUM_BATCH
    gpu = options.get("main_gpu")
    return RunnerOptions(
        num_ctx=num_ctx,
        num_batch=max(_LEAST_BATCH, min(integer(options, "num_batch", batch), num_ctx)),
        num_gpu=max(-1, min(integer(options, "num_gpu", -1), _MOST_LAYERS)),
        main_gpu=None if gpu is None else max(0, min(integer(options, "main_gpu", 0), 255)),
        num_thread=max(0, min(integer(options, "num_thread", 0), _MOST_THREADS)),
        use_mmap=options.get("use_mmap"),
        embedding=embeds,
    )


def _blobs(parts: Parts, media_type: str) -> list[Weights]:
    return [_weights(item) for item in parts.manifest.layers if item.media_type == media_type]


def _weights(layer: Descriptor) -> Weights:
    return Weights(layer.digest, layer.size)


def _is_harmony(parts: Parts) -> bool:
    """A gpt-oss model whose template writes the tags of its own format."""
    text = parts.template or ""
    family = parts.config.model_family in HARMONY
    return family and "<|start|>" in text and "<|end|>" in text
