"""What a runner is started with, as settings of our own child and as a llama-server's arguments.

Source: spec inference-and-gguf 2.1; ollama-api 18.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.ports.workers import RunnerOptions

_PLAIN_TEMPLATE = "chatml"
"""A placeholder where prompts come rendered: the file's own might not even parse."""
_PROMPT_CACHE_MIB = 64
_EMBEDDING_SLOTS = 8
_EMBEDDING_TOKENS = 8192
"""Vectors are made eight at a time, twice as fast as one by one, in so much context."""
_BYTES_PER_THREAD = 32 << 20
"""A thread is worth its waiting at every step of a token from so much work on: a model of 14 MB was
three times as fast with one thread as with two, one of 1 MB twice."""
_SPINS = "5000"
"""How often a thread looks for the others before it sleeps, for about a tenth of a millisecond.
Asleep at once, two threads end up on one core and a token takes 1.5 times as long; see ADR 11."""
_SPARE_THREADS = 4  # of the runner's HTTP, beside one for each slot: tokenizing, health
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "HSA_OVERRIDE_GFX_VERSION", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip
_PREFIXES = ("CUDA_", "HIP_", "ROCR_", "GGML_", "GPU_", "OMP_", "KMP_")


@dataclass(frozen=True, slots=True)
class Place:
    """How every runner of a node is started: who listens where, on how many cores.

    `socket` is a path that ends in `.sock`.
    """

    socket: str
    api_key: str
    threads: int
    cache_type: str = "f16"
    flash_attention: str = "auto"


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of what the runner opens. `size` is the model's, in bytes."""

    model: str
    adapters: tuple[str, ...] = ()
    projector: str = ""
    size: int = 1 << 62


def runner_settings(files: Files, options: RunnerOptions, place: Place) -> dict[str, Any]:
    """What `registry/workers/runner.py` reads from its standard input."""
    batch, slots = _batch(options), slots_of(options)
    settings: dict[str, Any] = {
        "model": files.model,
        "adapters": list(files.adapters),
        "projector": files.projector,
        "socket": place.socket,
        "api_key": place.api_key,
        "threads": _threads(files, options, place),
        "batch_threads": _most_threads(options, place),
        "http_threads": slots + _SPARE_THREADS,
        "cache_type": place.cache_type.upper(),
        "flash_attention": place.flash_attention,
        "n_ctx": options.num_ctx * slots,
        "n_parallel": slots,
        "n_batch": batch,
        "n_ubatch": batch,
        "n_gpu_layers": options.num_gpu,
        "main_gpu": options.main_gpu,
        "use_mmap": options.use_mmap,
        "embedding": options.embedding,
        "shift": options.shift and not options.embedding,
        "jinja": options.jinja,
        "chat_template": _chat_template(options),
        "prompt_cache_mib": _PROMPT_CACHE_MIB,
    }
    return settings


def server_arguments(files: Files, options: RunnerOptions, place: Place) -> list[str]:
    """The same for a `llama-server` program; its API key goes by environment."""
    threads = str(_threads(files, options, place))
    batch, slots = str(_batch(options)), slots_of(options)
    line = [
        "--model", files.model, "--host", place.socket, "--no-webui", "--offline",
        "-c", str(options.num_ctx * slots), "-np", str(slots),
        "-b", batch, "-ub", batch, "-t", threads, "-tb", str(_most_threads(options, place)),
        "--no-warmup", "--log-verbosity", "4",
        "--threads-http", str(slots + _SPARE_THREADS),
        "--cache-type-k", place.cache_type, "--cache-type-v", place.cache_type,
        "--flash-attn", place.flash_attention, "--cache-ram", str(_PROMPT_CACHE_MIB), "--metrics",
    ]  # fmt: skip
    for path in files.adapters:
        line += ["--lora", path]
    if files.projector:
        line += ["--mmproj", files.projector]
    if options.embedding:
        line += ["--embedding"]
    elif options.shift:
        line += ["--context-shift"]
    if options.num_gpu >= 0:
        line += ["-ngl", str(options.num_gpu)]
    if options.main_gpu is not None:
        line += ["--split-mode", "none", "--main-gpu", str(options.main_gpu)]
    if options.use_mmap is False:
        line += ["--no-mmap"]
    template = _chat_template(options)
    if template:
        line += ["--chat-template", template]
    return [*line, "--jinja" if options.jinja else "--no-jinja"]


def runner_environment(
    environ: Mapping[str, str], python_path: str, *, dedicated: bool
) -> dict[str, str]:
    """What of our environment a runner gets: what the engine needs, none of our secrets.

    Unless the machine is `dedicated`, the engine's threads sleep while they wait for one another:
    beside one other busy process, spinning made it thirty times slower.
    """
    passed = {
        key: value
        for key, value in environ.items()
        if key in _PASSED_ON or key.startswith(_PREFIXES)
    }
    if not dedicated:
        passed |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": _SPINS}
    return {**passed, "PYTHONPATH": python_path, "PYTHONDONTWRITEBYTECODE": "1"}


def _threads(files: Files, options: RunnerOptions, place: Place) -> int:
    """How many make a token; prompts get all there are. See `_BYTES_PER_THREAD`."""
    most = _most_threads(options, place)
    return most if options.num_thread else min(most, 1 + files.size // _BYTES_PER_THREAD)


def _most_threads(options: RunnerOptions, place: Place) -> int:
    """As many as were asked for, but never more than cores: those only wait for one another."""
    return min(options.num_thread or place.threads, place.threads)


def slots_of(options: RunnerOptions) -> int:
    """Sequences that the engine works on at once."""
    if not options.embedding:
        return max(1, options.parallel)
    room = _EMBEDDING_TOKENS // max(1, options.num_ctx)
    return max(1, options.parallel, min(_EMBEDDING_SLOTS, room))


def _batch(options: RunnerOptions) -> int:
    """Tokens of one step. Vectors are made of a whole text at once: it must fit in."""
    if options.embedding:
        return max(512, options.num_ctx)
    return max(1, min(options.num_batch, options.num_ctx * options.parallel))


def _chat_template(options: RunnerOptions) -> str:
    if options.jinja:
        return options.chat_template or ""
    return _PLAIN_TEMPLATE
