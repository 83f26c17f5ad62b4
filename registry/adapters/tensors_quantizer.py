"""A `llama-quantize` program in the place of the engine's own kernels.

It reads and writes files without names, under limits. What it made is read by our own child process
before any byte of it is believed: its tensors must be those of our plan, and so must its size.

Source: spec inference-and-gguf 7.4; `llama-quantize --help` of llama.cpp, August 2026.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from anyio import CancelScope

from registry.adapters.nameless import Nameless
from registry.adapters.os_errors import os_errors
from registry.adapters.tensors_process import TensorProcesses, environment
from registry.core.errors import OperationFailed
from registry.core.quantize import target
from registry.ports.blobs import Opened, Sink
from registry.ports.tensors import Making, TensorJob

_STEP = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_SLACK_BYTES = 1 << 20
_LINE_BYTES = 1 << 20
_SHOWN = 200
_REASON = "failed to quantize: "
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """The program, and what it may take."""

    path: str
    scratch: Path
    threads: int
    memory_bytes: int

    @classmethod
    def find(cls, name: str, scratch: Path, threads: int, memory_bytes: int) -> "Program":
        """Find it by name or path.

        Raises:
            OperationFailed: there is no such program.
        """
        path = shutil.which(name)
        if path is None:
            raise OperationFailed(f"REGISTRY_CONVERSION__QUANTIZER: there is no program {name!r}")
        return cls(str(Path(path).resolve()), scratch, threads, memory_bytes)


class Quantizer:
    """A `TensorWorkshop` that has mixtures quantized by the program, and does all else itself."""

    def __init__(self, program: Program, inner: TensorProcesses) -> None:
        self._program = program
        self._inner = inner

    @asynccontextmanager
    async def begin(self, job: TensorJob) -> AsyncIterator[Making]:
        """See `TensorWorkshop`."""
        if not job.target or not target(job.target).is_mixture:
            async with self._inner.begin(job) as making:
                yield making
            return
        async with AsyncExitStack() as stack:
            source = await self._source(job, stack)
            wanted = TensorJob("gguf", [source], job.target)
            planned = replace(wanted, options={"plan_only": True})
            async with self._inner.begin(planned) as plan:
                made = Made(self._program, self._inner, wanted, plan)
            try:
                yield made
            finally:
                await made.end()

    async def _source(self, job: TensorJob, stack: AsyncExitStack) -> tuple[str, Opened]:
        """One GGUF of plain numbers: the file itself, or what files make before quantization."""
        if job.kind == "gguf" and len(job.files) == 1:
            return job.files[0]
        plain = stack.enter_context(Nameless(self._program.scratch))
        async with self._inner.begin(replace(job, target="", canonical=True)) as making:
            await making.feed(plain)
        return job.files[0][0], plain


class Made:
    """A `Making` of the program's."""

    def __init__(
        self, program: Program, inner: TensorProcesses, job: TensorJob, plan: Making
    ) -> None:
        self.size, self.total, self.level = plan.size, plan.total, plan.level
        self.done = 0
        self.warnings: list[str] = []
        self._program = program
        self._inner = inner
        self._job = job
        self._process: asyncio.subprocess.Process | None = None

    async def feed(self, sink: Sink) -> int:
        """Run the program and send what it made to `sink`; see `Making`."""
        (name, source), *_ = self._job.files
        with Nameless(self._program.scratch, self.size) as output:
            async with AsyncExitStack() as stack:
                await self._run(await self._inner.descriptor(source, stack), output.fileno())
            files = [(name, source), (f"quantized {name}", output)]
            check = TensorJob("quantized", files, options={"target": self._job.target})
            async with self._inner.begin(check) as making:
                if making.size != self.size:
                    raise OperationFailed("llama-quantize made a file of another size than planned")
                count = await making.feed(sink)
        self.done = self.total
        return count

    async def end(self) -> None:
        """Kill the program if it still runs, and see it gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            with CancelScope(shield=True):
                await self._process.wait()

    async def _run(self, source: int, output: int) -> None:
        """Run the program on two descriptors.

        Raises:
            OperationFailed: it failed; its own last words.
        """
        limits = {
            "parent": os.getpid(),
            "memory_bytes": self._program.memory_bytes,
            "file_bytes": self.size + _SLACK_BYTES,
        }
        with os_errors():
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-s", "-m", "registry.tensors.confined", json.dumps(limits),
                self._program.path, _path(source), _path(output),
                self._job.target, str(self._program.threads),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[source, output],
                env=environment(os.environ),
                limit=_LINE_BYTES,
            )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        said, _ = await asyncio.gather(self._listen(process.stderr), self._listen(process.stdout))
        code = await process.wait()
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise OperationFailed(f"llama-quantize {how}: {said or 'it said nothing'}")

    async def _listen(self, stream: asyncio.StreamReader) -> str:
        """Count the tensors that it tells of; the line that says best what went wrong."""
        reason = rest = ""
        while data := await stream.read(_PIECE):
            for step in _STEP.finditer(data):
                number, count = int(step[1]), int(step[2])
                if 0 < number <= count:  # it tells of a tensor when it begins with it
                    self.done = max(self.done, self.total * (number - 1) // count)
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            rest = rest[-_SHOWN:]
            for line in lines:
                if line.strip() and _REASON not in reason:
                    reason = line.strip()
        return reason.rpartition(_REASON)[2][:_SHOWN]


def _path(descriptor: int) -> str:
    """What a program that wants a path is given for a descriptor that it has."""
    return f"/proc/self/fd/{descriptor}"
