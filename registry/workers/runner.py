"""A runner: the child process that holds one model. The only module that imports the engine.

`python -m registry.workers.runner` reads one line of JSON settings from standard input, loads the
model, says `{"address": …}` or `{"error": …}` in one line on standard output, and serves until
standard input is closed. Whoever started it has closed that by its end, however it ended; on Linux
the kernel sees to it too. With `program` in the settings it becomes that llama-server instead; with
`devices` it only tells what accelerators there are.

Source: spec inference-and-gguf 2.1.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_LINE = 1 << 20
_OOM_SCORE = "600"
_PR_SET_PDEATHSIG = 1
_ENGINE_LIBRARY = "xllamacpp.xllamacpp"
_WARNINGS = 2


def main() -> int:
    """Run until standard input is closed."""
    settings = json.loads(_read_line())
    _live_with_parent(int(settings["parent"]))
    if settings.get("devices"):
        _say({"devices": _devices()})
        return 0
    if settings.get("program"):
        environment = {**os.environ, "LLAMA_API_KEY": settings["api_key"]}
        command = [settings["program"], *settings["arguments"]]
        os.dup2(2, 1)  # our output is read no more: it would fill up
        os.execve(command[0], command, environment)  # noqa: S606  # no shell is wanted
    server, problem = _start(settings)
    if server is None:
        _say({"error": problem})
        return 1
    _quieten()
    _say({"address": settings["socket"]})
    os.dup2(2, 1)  # read no more: what the engine might print there would fill it up
    while sys.stdin.buffer.read(4096):
        pass
    # The engine's destructor waits for requests that run; nobody reads their answers any more.
    os._exit(0)


def _read_line() -> bytes:
    """One line, and not a byte more: what follows is for whoever this process becomes."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _MAX_LINE:
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def _live_with_parent(parent: int) -> None:
    """Die when the worker dies; and rather than the library, when memory runs out."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError:  # some sandboxes have none
        return


def _devices() -> list[dict[str, Any]]:
    """Devices that have memory of their own; one that shares the machine's adds none."""
    engine = __import__("xllamacpp")
    own = engine.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU
    return [
        {"name": item["name"], "total": item["memory_total"], "free": item["memory_free"]}
        for item in engine.get_device_info()
        if item["type"] == own
    ]


def _say(what: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _quieten() -> None:
    """Warnings and errors only, from now on: thirty lines a request take longer than a short one.

    There is no other way than the engine's own function, which a build may well not export.
    """
    try:
        library = ctypes.CDLL(sys.modules[_ENGINE_LIBRARY].__file__)
        library._Z30common_log_set_verbosity_tholdi(_WARNINGS)
    except (OSError, KeyError, AttributeError):
        return


def _start(settings: Mapping[str, Any]) -> tuple[Any, str]:
    """A server that listens and has the model loaded; or None, and what is wrong."""
    try:
        engine = __import__("xllamacpp")
        return engine.Server(_parameters(engine, settings)), ""
    except ImportError as error:
        return None, f"the engine cannot be loaded: {error}"
    except RuntimeError as error:  # its reason is on standard error
        return None, str(error)


def _parameters(engine: Any, settings: Mapping[str, Any]) -> Any:
    params = engine.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.api_keys = [settings["api_key"]]
    for name in ("n_ctx", "n_parallel", "n_batch", "n_ubatch", "n_gpu_layers"):
        setattr(params, name, settings[name])
    params.n_threads_http = settings["http_threads"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["batch_threads"]
    params.embedding = settings["embedding"]
    params.ctx_shift = settings["shift"]
    params.use_jinja = settings["jinja"]
    params.chat_template = settings["chat_template"]
    params.cache_ram_mib = settings["prompt_cache_mib"]
    params.warmup = False
    params.fit_params = False
    params.ui = False
    params.offline = True
    params.endpoint_metrics = True
    params.verbosity = 4  # the lines that tell of buffers
    kind = engine.ggml_type[f"GGML_TYPE_{settings['cache_type']}"]
    params.cache_type_k = params.cache_type_v = kind
    params.flash_attn_type = _flash(engine, settings["flash_attention"])
    _add_files(engine, params, settings)
    if settings["main_gpu"] is not None:
        params.split_mode = engine.llama_split_mode.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = settings["main_gpu"]
    if settings["use_mmap"] is False:
        params.load_mode = engine.llama_load_mode.LLAMA_LOAD_MODE_NONE
    return params


def _flash(engine: Any, wanted: str) -> Any:
    kinds = engine.llama_flash_attn_type
    return {
        "auto": kinds.LLAMA_FLASH_ATTN_TYPE_AUTO,
        "on": kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        "off": kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[wanted]


def _add_files(engine: Any, params: Any, settings: Mapping[str, Any]) -> None:
    params.lora_adapters = [
        engine.CommonAdapterLoraInfo(path, 1.0) for path in settings["adapters"]
    ]
    if settings["projector"]:
        params.mmproj.path = settings["projector"]


if __name__ == "__main__":
    sys.exit(main())
