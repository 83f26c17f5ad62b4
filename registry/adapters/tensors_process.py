"""Work on tensors in child processes: see `registry/tensors/child.py` for what runs there.

A child gets its sources as open descriptors, an all but empty environment, and two pipes: one that
the finished file comes through, one for what it has to say. It is killed when its job is left.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from anyio import CancelScope

import registry
from registry.adapters.fs_files import free_bytes
from registry.adapters.nameless import Nameless
from registry.adapters.os_errors import os_errors
from registry.core import errors
from registry.core.errors import OperationFailed, RegistryError, StorageFull
from registry.ports.blobs import Opened, Sink
from registry.ports.tensors import TensorJob

log = structlog.get_logger()

_F_SETPIPE_SZ = 1031  # on Linux; an error, which does not matter, elsewhere
_PIPE_BYTES = 1 << 20
_LINE_BYTES = 1 << 20
_KINDS: dict[str, type[RegistryError]] = {
    "GgufInvalid": OperationFailed,  # the request may be fine: what it refers to is not
    "OperationFailed": OperationFailed,
    "RequestInvalid": errors.RequestInvalid,
    "Unsupported": errors.Unsupported,
}
_WARNINGS = 100
_KEPT = ("LD_LIBRARY_PATH", "TZ")
_DIED = "the process that works on tensors died; it may have run out of memory"


class TensorProcesses:
    """A `TensorWorkshop` of one child process per job."""

    def __init__(
        self, scratch: Path, threads: int, memory_bytes: int, *, engine: bool = True
    ) -> None:
        """Of so many threads each; `scratch` is for blobs that are in no local file."""
        self._scratch = scratch
        self._threads = threads
        self._memory_bytes = memory_bytes
        self._engine = engine

    @asynccontextmanager
    async def begin(self, job: TensorJob) -> AsyncIterator["Process"]:
        """See `TensorWorkshop`."""
        async with contextlib.AsyncExitStack() as stack:
            files = [
                (name, await self.descriptor(opened, stack), opened.size)
                for name, opened in job.files
            ]
            process = await Process.start(self._line(job, files), [file[1] for file in files])
            try:
                await process.planned()
                yield process
            finally:
                await process.end()

    def _line(self, job: TensorJob, files: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
        return {
            "kind": job.kind,
            "files": files,
            "target": job.target,
            "canonical": job.canonical,
            "options": dict(job.options),
            "threads": self._threads,
            "memory_bytes": self._memory_bytes,
            "engine": self._engine,
            "parent": os.getpid(),
        }

    async def descriptor(self, opened: Opened, stack: contextlib.AsyncExitStack) -> int:
        """The blob as a file of this machine; one that is elsewhere is copied, out of sight."""
        found = opened.fileno()
        if found is not None:
            return found
        with os_errors():
            if free_bytes(self._scratch) < opened.size:
                raise StorageFull("no space left for a copy of the model's file")
        copy = stack.enter_context(Nameless(self._scratch))
        async for chunk in opened.chunks(0, opened.size):
            await copy.write(chunk)
        return copy.fileno()


class Process:
    """A child at work."""

    def __init__(self, process: asyncio.subprocess.Process, output: int, status: int) -> None:
        self.size = self.total = self.done = 0
        self.level = ""
        self.warnings: list[str] = []
        self._process = process
        self._output = output
        self._status = status
        self._error: RegistryError | None = None
        self._plan = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @classmethod
    async def start(cls, line: dict[str, Any], files: Sequence[int]) -> "Process":
        """Start a child on a job."""
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as given, os_errors():
            output, child_output = _pipe(kept, given)
            status, child_status = _pipe(kept, given)
            with contextlib.suppress(OSError):  # the system may allow less
                fcntl.fcntl(output, _F_SETPIPE_SZ, _PIPE_BYTES)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-s", "-m", "registry.tensors.child",
                stdin=asyncio.subprocess.PIPE,
                stdout=child_output,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=[*files, child_status],
                env=environment(os.environ),
            )  # fmt: skip
            kept.pop_all()
            started = cls(process, output, status)
        assert process.stdin is not None
        process.stdin.write(json.dumps(line | {"status": child_status}).encode())
        process.stdin.close()
        return started

    async def planned(self) -> None:
        """Wait until it is known what will come.

        Raises:
            RegistryError: nothing will.
        """
        await self._plan.wait()
        if not self.size:
            await self._fail()

    async def feed(self, sink: Sink) -> int:
        """Send the finished file to `sink`; see `Making`."""
        received = 0
        while True:
            await _readable(self._output)
            view = await sink.borrow()
            count = os.readv(self._output, [view])
            received += count
            if not count or received > self.size:
                break
            await sink.fill(count)
        if received != self.size or await self._process.wait():
            await self._fail()
        self.done = self.total
        return received

    async def end(self) -> None:
        """Kill it if it still runs, and see it gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._listening.cancel()
        try:
            with CancelScope(shield=True):
                await self._process.wait()
                await asyncio.wait({self._listening})
        finally:
            os.close(self._output)
            os.close(self._status)

    async def _fail(self) -> None:
        await self._listening
        raise self._error or OperationFailed(_DIED)

    async def _listen(self) -> None:
        """Take in what the child says, line by line, until it is gone."""
        rest = b""
        try:
            while True:
                await _readable(self._status)
                data = os.read(self._status, 1 << 16)
                if not data or len(rest) > _LINE_BYTES:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._hear(json.loads(line))
        except ValueError:  # it says nothing that we understand: as good as dead
            self._process.kill()
        finally:
            self._plan.set()

    def _hear(self, line: dict[str, Any]) -> None:
        match line:
            case {"done": int(done)}:
                self.done = done
            case {"plan": {"size": int(size), "read": int(total), "level": str(level)}}:
                self.size, self.total, self.level = size, total, level
                self._plan.set()
            case {"warning": str(text)} if len(self.warnings) < _WARNINGS:
                self.warnings.append(text)
            case {"error": [str(kind), str(text)]}:
                self._error = _KINDS.get(kind, OperationFailed)(text)
            case {"crash": str(place)}:
                log.error("work on tensors failed", place=place)
                self._error = OperationFailed("the model cannot be converted: unexpected content")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """All that a child may know of ours."""
    kept = {key: environ[key] for key in _KEPT if key in environ}
    return kept | {
        "PYTHONPATH": str(Path(registry.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # chunks come and go: memory that is given back each time costs a tenth of the work
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
        "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    }


def _pipe(kept: contextlib.ExitStack, given: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe: our end, which does not block, and the child's; each closed with its stack."""
    ours, theirs = os.pipe()
    kept.callback(os.close, ours)
    given.callback(os.close, theirs)
    os.set_blocking(ours, False)
    return ours, theirs


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
