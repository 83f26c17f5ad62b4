"""The worker's end of a link: does what the lines say, and answers.

Calls run side by side. One that is cancelled, or whose line breaks before its answer began, is
dropped; a lease that the library does not know of is given back. See ADR 0008.
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from registry.adapters.llama_http import LlamaRunning
from registry.adapters.worker_codec import (
    ALIVE,
    CRASHES,
    END,
    crash_json,
    error_json,
    facts_json,
    frame,
    read_object,
    spec_of,
)
from registry.core.digest import Digest
from registry.core.errors import RegistryError, RequestInvalid, UpstreamFailed, WorkerLost
from registry.ports.workers import Crash, Worker
from registry.workers.cache import BlobCache
from registry.workers.library import Library, LinkRefused
from registry.workers.tensors import TensorJobs

_BEAT_S = 5.0
_LOOK_S = 0.5
_ALIVE_S = 20.0
_LONGEST_PAUSE_S = 5.0
REFUSALS = frozenset({401, 403})
"""Statuses after which no other try will do."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Call:
    """A call that is being answered. `began` says that its answer is on its way."""

    task: asyncio.Task[None]
    began: bool = False


class Agent:
    """Links a node to a library until `stop`."""

    def __init__(
        self,
        node: Worker,
        library: Library,
        cache: BlobCache,
        keep_alive_s: float | None,
        tensors: TensorJobs | None = None,
    ) -> None:
        self._tensors = tensors
        self._node = node
        self._keep_alive_s = keep_alive_s
        self._library = library
        self._cache = cache
        self._calls: dict[str, _Call] = {}
        self._leases: dict[str, LlamaRunning] = {}
        self.is_linked = False
        self._crashes: deque[Crash] = deque(maxlen=CRASHES)
        self._failures = 0
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Keep a line open; raise only what trying again cannot mend.

        Raises:
            LinkRefused: the credential is not good any more.
        """
        while not self._stopped.is_set():
            self._failures += 1
            try:
                await self._follow()
            except LinkRefused as error:
                if error.status in REFUSALS:
                    raise
                log.warning("the library refuses the link", reason=str(error))
            except UpstreamFailed as error:
                log.warning("no link to the library", reason=str(error))
            pause_s = min(_LONGEST_PAUSE_S, 0.25 * 2 ** min(self._failures, 8))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * (0.5 + random.random())):  # noqa: S311
                    await self._stopped.wait()

    async def leave(self) -> None:
        """Tell the library that we go; what it still runs here is lost."""
        self._stopped.set()
        with contextlib.suppress(UpstreamFailed, TimeoutError):
            async with asyncio.timeout(_BEAT_S):
                await self._library.report(self._report() | {"leaving": True})
        await self._drop(lambda call: True)
        await self._give_back(frozenset())

    async def _follow(self) -> None:
        """One line, from its first word to its end."""
        beating: asyncio.Task[None] | None = None
        try:
            async with contextlib.aclosing(self._library.lines()) as lines:
                async for line in lines:
                    if not line:
                        continue
                    told = read_object(line)
                    if isinstance(told.get("hello"), dict):
                        await self._greeted(told["hello"])
                        beating = beating or asyncio.create_task(self._beat())
                    elif isinstance(told.get("cancel"), str):
                        self._cancel(told["cancel"])
                    else:
                        self._begin(told)
        except RequestInvalid as error:
            raise UpstreamFailed(f"the library's line cannot be read: {error}") from error
        finally:
            self.is_linked = False
            if beating is not None:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
            await self._drop(lambda call: not call.began)

    async def _greeted(self, hello: Mapping[str, Any]) -> None:
        """A new line: the library says which leases it knows of."""
        shares = self._cache.believe(str(hello.get("store") or ""))
        await self._give_back(frozenset(str(item) for item in hello.get("leases") or ()))
        await self._library.report(self._report())  # from now on we are asked
        self._failures = 0
        self.is_linked = True
        log.info("linked to the library", name=hello.get("name"), shares_its_folder=shares)

    async def _beat(self) -> None:
        """Report every few seconds, and when something changed."""
        loop = asyncio.get_running_loop()
        told, due = self._node.facts().loaded, loop.time() + _BEAT_S
        while True:
            await asyncio.sleep(_LOOK_S)
            found = self._node.facts().loaded
            if found == told and not self._crashes and loop.time() < due:
                continue
            try:
                await self._tell()
            except UpstreamFailed as error:
                log.info("a report did not arrive", reason=str(error))
            told, due = found, loop.time() + _BEAT_S

    def crashed(self, crash: Crash) -> None:
        """A model has taken its runner down: the library is told with the next report."""
        self._crashes.append(crash)

    async def _tell(self) -> None:
        """Report, with the crashes that are not told yet."""
        crashes = tuple(self._crashes)
        told = {"crashes": [crash_json(crash) for crash in crashes]} if crashes else {}
        await self._library.report(self._report() | told)
        for crash in crashes:
            self._crashes.remove(crash)

    def _report(self) -> dict[str, Any]:
        return {"facts": facts_json(self._node.facts(), time.time_ns())}

    # --- calls

    def _begin(self, told: Mapping[str, Any]) -> None:
        call_id = told.get("id")
        if not isinstance(call_id, str) or call_id in self._calls:
            return
        task = asyncio.create_task(self._handle(call_id, told))
        self._calls[call_id] = _Call(task)
        task.add_done_callback(lambda _: self._calls.pop(call_id, None))

    def _cancel(self, call_id: str) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.task.cancel()

    async def _drop(self, which: Any) -> None:
        dropped = [call.task for call in self._calls.values() if which(call)]
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)

    async def _handle(self, call_id: str, told: Mapping[str, Any]) -> None:
        path, method = str(told.get("path")), str(told.get("method"))
        try:
            try:
                if path.startswith("/runner/"):
                    await self._pass_on(call_id, method, path, told.get("body"))
                    return
                if path == "/tensors" and self._tensors is not None:
                    await self._work(call_id, self._tensors, told.get("body"))
                    return
                head = await self._do(call_id, path, told.get("body"))
            except RegistryError as error:
                head = {"error": error_json(error)}
            await self._answer(call_id, head)
        except LinkRefused as error:
            log.info("nobody waits for an answer", reason=str(error))
        except UpstreamFailed as error:
            log.info("an answer did not arrive", reason=str(error))
            await self._disavow(call_id)

    async def _disavow(self, call_id: str) -> None:
        """Say that an answer is lost, until that is heard or the line breaks: somebody waits."""
        if call_id in self._calls:
            self._calls[call_id].began = False
        pause_s = 0.1
        while True:
            try:
                await self._library.answer(call_id, _small({"error": error_json(WorkerLost())}))
            except LinkRefused:
                return  # it has been noticed
            except UpstreamFailed:
                await asyncio.sleep(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
            else:
                return

    async def _answer(self, call_id: str, head: Mapping[str, Any]) -> None:
        call = self._calls.get(call_id)
        if call is not None:
            call.began = True
        lease = str(head.get("lease") or "")
        try:
            await self._library.answer(call_id, _small(head))
        except BaseException:
            running = self._leases.pop(lease, None)
            if running is not None:  # nobody will ever use it
                await asyncio.shield(self._let_go(running, self._keep_alive_s))
            raise

    async def _do(self, call_id: str, path: str, body: Any) -> dict[str, Any]:
        told = body if isinstance(body, dict) else {}
        if path == "/acquire":
            return await self._acquire(told)
        if path == "/release":
            running = self._leases.pop(str(told.get("lease")), None)
            if running is not None:
                keep = told.get("keep_alive_s")
                await running.release(None if keep is None else float(keep))
            return {"status": 200} | self._report()
        if path == "/unload":
            await self._node.unload(Digest.parse(str(told.get("model"))))
            return {"status": 200} | self._report()
        raise RequestInvalid("this worker does not know that call")

    async def _acquire(self, told: Mapping[str, Any]) -> dict[str, Any]:
        running = await self._node.acquire(spec_of(told))
        assert isinstance(running, LlamaRunning)
        lease = secrets.token_hex(8)
        self._leases[lease] = running
        head = {"status": 200, "lease": lease, "load_ns": running.load_ns}
        return head | self._report()

    async def _pass_on(self, call_id: str, method: str, path: str, body: Any) -> None:
        """A request for the runner behind a lease, answered as the runner answers."""
        _, _, lease, rest = path.split("/", 3)
        running = self._leases.get(lease)
        if running is None:
            raise WorkerLost
        data = b"" if body is None else orjson.dumps(body)
        reply = await running.wire.send(method, f"/{rest}", data)
        try:
            call = self._calls.get(call_id)
            if call is not None:
                call.began = True
            await self._library.answer(call_id, _framed({"status": reply.status}, reply.chunks()))
        finally:
            await reply.close()

    async def _work(self, call_id: str, tensors: TensorJobs, body: Any) -> None:
        """A job on tensors, answered with what comes of it."""
        async with tensors.begin(body if isinstance(body, dict) else {}) as (head, made):
            call = self._calls.get(call_id)
            if call is not None:
                call.began = True
            await self._library.answer(call_id, _framed(head, made))

    # --- leases

    async def _give_back(self, known: frozenset[str]) -> None:
        """Let go of leases that the library does not know of."""
        for lease in [lease for lease in self._leases if lease not in known]:
            await self._let_go(self._leases.pop(lease), self._keep_alive_s)

    async def _let_go(self, running: LlamaRunning, keep_alive_s: float | None) -> None:
        with contextlib.suppress(RegistryError):
            await running.release(keep_alive_s)


async def _small(head: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
    yield orjson.dumps(head) + b"\n" + END


async def _framed(
    head: Mapping[str, Any], chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """An answer as it is made; its last word comes only when the runner's did."""
    yield orjson.dumps(head) + b"\n"
    async with contextlib.aclosing(chunks):
        while True:
            coming = asyncio.ensure_future(anext(chunks, None))
            try:
                while not (await asyncio.wait({coming}, timeout=_ALIVE_S))[0]:
                    yield ALIVE
                chunk = coming.result()
            except WorkerLost:
                return
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            if chunk is None:
                yield END
                return
            yield frame(chunk)
