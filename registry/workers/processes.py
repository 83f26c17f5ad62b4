"""A runner's process, seen from the worker: started, listened to, stopped.

Its standard error is read line by line: the last ones are kept, those that tell why a load failed
are found among them, and those about buffers are summed up.

Source: spec inference-and-gguf 2.1.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.adapters.llama_frames import without_paths
from registry.adapters.runner_wire import RunnerWire
from registry.core.errors import WorkerLost
from registry.workers import machine

COMMAND = (sys.executable, "-P", "-m", "registry.workers.runner")
_LINES = 200
_LINE_BYTES = 4096
_TAIL_BYTES = 1 << 14
_STOP_S = 5.0
_LAST_WORDS_S = 1.0
_POLL_S = 0.05
_LOOK_S = 1.0
_PLACED = "load_model: initializing, n_slots"
_READY_S = 10.0
"""From there on it takes milliseconds, unless the file's chat template, which is tried, runs for
ever."""
_BUFFER = re.compile(r"(\S+): +(\S+) +(?:model|KV|compute|output|RS) buffer size = +([\d.]+) MiB")
_ERROR = re.compile(r"^(?:[\d.]+ )?E (?:[\w~]+: *)?(.*)")
_REASON = re.compile(r"error loading model: *(.*)|error: *(.*)", re.IGNORECASE)
_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cannot allocate|cudaMalloc failed"
    r"|ErrorOutOfDeviceMemory|failed to reserve|std::bad_alloc",
    re.IGNORECASE,
)
_CPU_BUFFERS = re.compile(r"^(CPU.*|BLAS|.*_Host)$")
KILLS = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 0})
"""Codes of a runner that somebody stopped, or the kernel for want of memory: not the model."""
_ENDS = {
    -signal.SIGILL: "the engine uses instructions that this processor does not have",
    -signal.SIGSEGV: "the engine crashed while it loaded the model",
    -signal.SIGABRT: "the engine gave up while it loaded the model",
}
_NO_MEMORY = "memory ran out while the engine loaded the model, and the system stopped it"
_ENDLESS = "the model's chat template does not come to an end"
_STOPPED = "the engine was stopped while it loaded the model, by somebody or for want of memory"


@dataclass(slots=True)
class Log:
    """The last lines a runner wrote, and the buffers it told of, in bytes.

    It is `placed` when all its memory is taken. Once it is `loaded` its lines are kept as they come
    and read when somebody wants to know: it writes some thirty for each request.
    """

    size: int = 0
    size_vram: int = 0
    loaded: bool = False
    placed: bool = False
    heard: int = 0
    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    _rest: bytes = b""
    _told: bool = False  # of the last kind of buffer; that may come after it said that it is ready

    @property
    def lines(self) -> list[str]:
        """The last lines."""
        return [*self._lines, *_decoded(self._rest.split(b"\n"))][-_LINES:]

    def take(self, chunk: bytes) -> None:
        """Take what was written, in pieces of any size."""
        self.heard += len(chunk)
        if self.loaded and self._told:
            self._rest = (self._rest + chunk)[-_TAIL_BYTES:]
            return
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:_LINE_BYTES]
        for line in _decoded(lines):
            self._add(line)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self.placed = self.placed or _PLACED in line
        found = _BUFFER.search(line)
        if found:
            size = int(float(found[3]) * (1 << 20))
            self.size += size
            self._told = self._told or "compute" in line
            if not _CPU_BUFFERS.match(found[2]):
                self.size_vram += size

    @property
    def errors(self) -> list[str]:
        """What the engine called errors, without names of files."""
        found = (_ERROR.match(line) for line in self.lines)
        return [without_paths(match[1]).strip() for match in found if match]

    @property
    def reason(self) -> str:
        """The sentence that best tells what went wrong; empty if none does."""
        errors = self.errors
        for line in errors:
            if _MEMORY.search(line):
                return line
        for line in errors:
            told = _REASON.search(line)
            if told:
                return (told[1] or told[2]).strip()
        if errors:
            return errors[-1]
        failed = (line for line in reversed(self.lines) if "GGML_ASSERT" in line)
        return without_paths(next(failed, ""))

    @property
    def no_memory(self) -> bool:
        """Whether it ran out of memory."""
        return any(_MEMORY.search(line) for line in self.errors)


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    return (line[:_LINE_BYTES].decode("utf-8", "replace") for line in lines if line)


@dataclass(frozen=True, slots=True)
class Start:
    """A line of settings for a new runner. `wire` reaches what it will listen on."""

    settings: Mapping[str, object]
    environment: Mapping[str, str]
    wire: RunnerWire
    timeout_s: float | None


class LoadFailed(Exception):
    """A runner that did not get ready. The text is the engine's; `no_memory` if that was it.

    `killed` if somebody stopped it: that says nothing of the model.
    """

    def __init__(self, message: str, *, no_memory: bool, killed: bool = False) -> None:
        super().__init__(message)
        self.no_memory = no_memory
        self.killed = killed


class Child:
    """A running child process. Made by `launch`; `stop` must be called in the end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.log = Log()
        self.kills_before = machine.memory_kills()
        self._process = process
        self._reading = asyncio.create_task(self._read_errors())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    @property
    def life(self) -> int:
        """A number that changes as long as it does something: writes, or computes."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:  # no Linux, or it has ended
            return self.log.heard
        user, system = text.rpartition(")")[2].split()[11:13]
        return self.log.heard + int(user) + int(system)

    async def wait(self) -> int:
        """Its exit code, once it has ended and all it had to say was read."""
        code = await self._process.wait()
        with contextlib.suppress(TimeoutError):  # what it started itself may hold the pipe
            async with asyncio.timeout(_LAST_WORDS_S):
                await asyncio.shield(self._reading)
        return code

    async def answer(self) -> str:
        """The first line of its output; empty when it ends without one."""
        assert self._process.stdout is not None
        try:
            return (await self._process.stdout.readline()).decode("utf-8", "replace")
        except ValueError:  # a line without end
            return ""

    def kill(self) -> None:
        """End it at once, and what it started."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session of its own

    async def stop(self) -> None:
        """Ask it to end, by closing its input and by a signal; after five seconds it is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self.wait()
                return
        self.kill()
        await self.wait()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(1 << 16):
            self.log.take(chunk)


async def launch(start: Start) -> Child:
    """Start a runner and wait until it has its model loaded.

    Raises:
        LoadFailed: it did not, in its own words.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(start.environment),
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the worker, which stops its runners in order
        )
    except OSError as error:
        raise LoadFailed(f"no runner can be started: {error.strerror}", no_memory=False) from error
    child = Child(process)
    try:
        await _ready(child, process, start)
        child.log.loaded = True
    except BaseException:
        child.kill()
        await asyncio.shield(child.wait())
        raise
    return child


async def _ready(child: Child, process: asyncio.subprocess.Process, start: Start) -> None:
    assert process.stdin is not None
    line = json.dumps({**start.settings, "parent": os.getpid()}).encode() + b"\n"
    with contextlib.suppress(ConnectionError):  # it has ended already: its answer tells
        process.stdin.write(line)
        await process.stdin.drain()
    told = _healthy(child, start.wire) if start.settings.get("program") else _said(child)
    waiting = asyncio.create_task(told)
    watching = asyncio.create_task(_watched(child, start.timeout_s))
    try:
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        (waiting if waiting.done() else watching).result()
    finally:
        waiting.cancel()
        watching.cancel()
        await asyncio.gather(waiting, watching, return_exceptions=True)


async def _watched(child: Child, timeout_s: float | None) -> None:
    """Wait until a load does not seem to come to an end, and say why."""
    clock = asyncio.get_running_loop().time
    life, since, placed_at = child.life, clock(), None
    while True:
        await asyncio.sleep(min(_LOOK_S, timeout_s or _LOOK_S))
        if child.log.placed:
            placed_at = placed_at or clock()
            if clock() - placed_at > _READY_S:
                raise LoadFailed(_ENDLESS, no_memory=False)
        if life != (life := child.life):
            since = clock()
        elif timeout_s and clock() - since >= timeout_s:
            raise LoadFailed("timed out waiting for the model to load", no_memory=False)


async def _said(child: Child) -> None:
    """Wait for the line by which our own runner says that it is ready."""
    try:
        said = json.loads(await child.answer() or "{}")
    except ValueError:
        said = {}
    if "address" in said:
        return
    if "error" not in said:
        raise await _failure(child, "the runner ended while it loaded the model")
    raise await _failure(child, str(said["error"]))


async def _healthy(child: Child, wire: RunnerWire) -> None:
    """Ask until it says that it is ready: a llama-server has no line for us."""
    while True:
        if child.ended:
            raise await _failure(child, "the runner ended while it loaded the model")
        with contextlib.suppress(WorkerLost):
            reply = await wire.send("GET", "/health")
            await reply.close()
            if reply.status == 200:
                return
        await asyncio.sleep(_POLL_S)


async def _failure(child: Child, otherwise: str) -> LoadFailed:
    """Why it ended; its last lines come just before its end."""
    child_ended = asyncio.create_task(child.wait())
    done, _ = await asyncio.wait({child_ended}, timeout=_STOP_S)
    if not done:
        child.kill()
    code = await child_ended
    if code == -signal.SIGKILL and machine.memory_kills() != child.kills_before:
        return LoadFailed(_NO_MEMORY, no_memory=True)
    if done and code in KILLS - {0}:
        return LoadFailed(_STOPPED, no_memory=False, killed=True)
    reason = child.log.reason or _ENDS.get(code, otherwise)
    return LoadFailed(reason, no_memory=child.log.no_memory)
