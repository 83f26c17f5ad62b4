"""The child process: one job in, one GGUF out. `python -m registry.tensors.child`.

    standard input    the job as one JSON object: `Job`
    standard output   the finished file, in one stream
    job["status"]     JSON lines: {"plan": …}, {"done": bytes}, {"warning": text},
                      {"error": [kind, text]}

Once the job is read the process can open nothing any more: no file, no socket. What it reads, it
reads from descriptors it was started with; what it writes, it writes to those two pipes.
"""

import json
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Self

from registry.core.errors import OperationFailed, RegistryError, Unsupported
from registry.core.facts import Value
from registry.core.gguf.metadata import quoted
from registry.core.image import UNKNOWN, file_type
from registry.core.quantize import Target, stored_as, target
from registry.core.quantize.targets import PLAIN
from registry.tensors.checkpoint import open_adapter, open_checkpoint
from registry.tensors.confined import follow
from registry.tensors.engine import Engine, find_engine
from registry.tensors.files import File
from registry.tensors.gguf_file import GgufFile, Joined
from registry.tensors.kernels import Kernels
from registry.tensors.sources import Source
from registry.tensors.writing import Writer, check, draft, values_of

_PROGRESS_S = 0.1
_STACK_BYTES = 1 << 20
_OWN_BYTES = 128 << 20
"""What the interpreter, numpy and ggml take by themselves."""
_JOB_BYTES = 64 << 20

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done. `target` is empty for a file whose tensors stay as they are."""

    kind: str
    files: tuple[File, ...]
    target: str
    status: int
    parent: int
    threads: int
    memory_bytes: int
    canonical: bool
    engine: bool
    options: Options

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read the job from JSON; the server writes it, so it is as it should be."""
        found = json.loads(text)
        return cls(files=tuple(File(*file) for file in found.pop("files")), **found)


class Status:
    """The pipe back to the server."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._done = 0
        self._told_at = 0.0

    def tell(self, **line: object) -> None:
        """Send one line."""
        _write(self._descriptor, memoryview(json.dumps(line).encode() + b"\n"))

    def warn(self, text: str) -> None:
        """Send a remark that does not end the work."""
        self.tell(warning=text)

    def advance(self, count: int) -> None:
        """Count source bytes that are done, and say so from time to time. Safe for threads."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if count and now - self._told_at >= _PROGRESS_S:
                self._told_at = now
                self.tell(done=self._done)


def _open_gguf(files: Sequence[File], options: Options, warn: Callable[[str], None]) -> Source:
    """One file, or shards in order."""
    sources = [GgufFile(file) for file in files]
    return sources[0] if len(sources) == 1 else Joined(sources)


def _open_quantized(files: Sequence[File], options: Options, warn: Callable[[str], None]) -> Source:
    """What another program made of the first file: the second, if it is what was planned."""
    source, made = (GgufFile(file) for file in files)
    planned = draft(source, target(options["target"]), canonical=False)
    for wanted, found in zip_longest(planned.wanted, made.tensors):
        if wanted != found:
            name = quoted((wanted or found).name)
            raise OperationFailed(f"tensor {name} was not quantized as planned")
    return made


Opener = Callable[[Sequence[File], Options, Callable[[str], None]], Source]
OPENERS: dict[str, Opener] = {
    "gguf": _open_gguf,
    "checkpoint": open_checkpoint,
    "adapter": open_adapter,
    "quantized": _open_quantized,
}
"""How the files of a kind of job become a source."""


def run(job: Job, engine: Engine, status: Status) -> None:
    """Do the job.

    Raises:
        RegistryError: it cannot be done; nothing, or an unfinished file, was written.
    """
    opener = OPENERS.get(job.kind)
    if opener is None:
        raise Unsupported(f"work of the kind {job.kind!r} is not known here")
    source = opener(job.files, job.options, status.warn)
    told = values_of(source.pairs)
    number = told.get("general.file_type")
    said = file_type(number) if isinstance(number, int) else UNKNOWN
    level = stored_as(said, source.tensors)
    wanted = _target(job, told, level)
    kernels = Kernels(engine.library)
    made = draft(source, wanted, canonical=job.canonical)
    plan_only = bool(job.options.get("plan_only"))
    if not plan_only:
        check(made, wanted, kernels, engine.fault)
    status.tell(plan={"size": made.layout.size, "read": made.to_read, "level": level})
    if plan_only:
        return
    writer = Writer(source, kernels, job.threads)
    writer.write(made, lambda data: _write(1, data), status.advance)


def _target(job: Job, told: Mapping[str, Value], level: str) -> Target | None:
    """What to quantize to: what was asked for; 8 bits for a checkpoint that had no more."""
    name = job.target
    if not name and told.get("source_quantization") == "hf_fp8":
        name = "Q8_0"
    if name and level not in PLAIN:
        raise OperationFailed("quantization is only supported for F16, BF16 and F32 models")
    return target(name) if name else None


def confine(job: Job) -> None:
    """Give up everything that the job does not need."""
    threading.stack_size(_STACK_BYTES)
    memory = job.memory_bytes + _OWN_BYTES + job.threads * _STACK_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        resource.setrlimit(limit, (0, 0))


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _place(error: BaseException) -> str:
    """Where something unexpected happened, without a path or a value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"


def main() -> int:
    """Run as a program."""
    job = Job.read(sys.stdin.buffer.read(_JOB_BYTES))
    status = Status(job.status)
    follow(job.parent)
    may_quantize = job.target or job.kind == "checkpoint"
    engine = find_engine() if job.engine and may_quantize else Engine(None, _WITHOUT)
    confine(job)
    try:
        run(job, engine, status)
    except BrokenPipeError:  # nobody wants it any more
        return 1
    except RegistryError as error:
        status.tell(error=[type(error).__name__, str(error)])
        return 1
    except MemoryError:
        limit = job.memory_bytes >> 20
        text = f"the model needs more memory than the {limit} MiB that converting may take"
        status.tell(error=[OperationFailed.__name__, text])
        return 1
    except Exception as error:  # the edge of the process: no trace of it goes to anybody
        status.tell(crash=_place(error))
        return 1
    return 0


_WITHOUT = ": install the worker extra or add a worker"

if __name__ == "__main__":
    sys.exit(main())
