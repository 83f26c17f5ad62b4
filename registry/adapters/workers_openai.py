"""llama-server, vLLM and other OpenAI-compatible servers as workers.

Such a server cannot be told to load a model: it serves a fixed set, mapped to ours by name. One
that answers `/props` is a llama-server, which takes rendered prompts too.

Source: spec inference-and-gguf 3.2; llama.cpp, tools/server/README.md, "GET /props".
"""

from collections.abc import Callable, Mapping

from registry.adapters.llama_http import LlamaRunning
from registry.adapters.openai_running import OpenAIRunning
from registry.adapters.worker_http import SiteWire
from registry.adapters.workers_external import External, Polled
from registry.core.digest import Digest
from registry.core.errors import CannotRun, RegistryError, WorkerLost
from registry.core.names import ModelName
from registry.ports.workers import Dialect, LoadSpec, Running, WorkerFacts

ALL = "*"
_SLOTS = 16
_IDS = 10_000


class OpenAIWorker(Polled):
    """A server with an OpenAI-compatible API."""

    def __init__(self, external: External, changed: Callable[[], None] = lambda: None) -> None:
        super().__init__(external, changed)
        self._dialect = Dialect.OPENAI
        self._ids: dict[str, str] = {}
        self._slots = external.slots or _SLOTS

    @property
    def dialect(self) -> Dialect:
        """As the last look has shown; until the first, it gets no request."""
        return self._dialect

    async def acquire(self, spec: LoadSpec) -> Running:
        """A lease; the server's own queue is where it waits."""
        key = str(spec.name).lower()
        model = self._ids.get(key)
        if model is None:
            raise CannotRun(f"the worker {self.name} does not serve {spec.name.short}")
        self._enter(key, spec, self._slots)

        async def give_back(keep_alive_s: float | None) -> None:
            self._leave(key)

        if self._dialect is Dialect.LLAMA:
            return LlamaRunning(self.wire, self.name, 0, give_back)
        return OpenAIRunning(self.wire, self.name, model, give_back)

    async def unload(self, model: Digest) -> None:
        """Nothing: it keeps what it was started with."""

    async def _asked(self, wire: SiteWire) -> WorkerFacts:
        props = await _props(wire)
        self._dialect = Dialect.OPENAI if props is None else Dialect.LLAMA
        slots = props.get("total_slots") if props else None
        if not self.external.slots and isinstance(slots, int) and 0 < slots <= 1024:
            self._slots = slots
        self._ids = self._mapped(_listed(await wire.ask("GET", "/v1/models")))
        build = props.get("build_info") if props else None
        return WorkerFacts(
            engine="llama-server" if props is not None else "openai",
            version=str(build)[:100] if build else "",
            labels=self.external.labels,
            models=frozenset(self._ids),
            slots=self._slots,
        )

    def _mapped(self, listed: list[str]) -> dict[str, str]:
        """Our names with the server's ids."""
        found: dict[str, str] = {}
        for ours, theirs in self.external.models.items():
            if ours == ALL:
                names = ((ModelName.parse(item), item) for item in listed)
                found |= {str(name).lower(): item for name, item in names if name.is_valid}
            elif theirs in listed or (listed and theirs == ALL):
                found[ours.lower()] = listed[0] if theirs == ALL else theirs
        return found


async def _props(wire: SiteWire) -> Mapping[str, object] | None:
    """What a llama-server says of itself; None from any other server."""
    try:
        answer = await wire.ask("GET", "/props")
    except WorkerLost:
        raise
    except RegistryError:
        return None
    is_llama = isinstance(answer, dict) and "default_generation_settings" in answer
    return answer if is_llama and isinstance(answer, dict) else None


def _listed(answer: object) -> list[str]:
    """The ids in an answer of `/v1/models`."""
    data = answer.get("data") if isinstance(answer, dict) else None
    rows = data[:_IDS] if isinstance(data, list) else []
    ids = [row.get("id") for row in rows if isinstance(row, dict)]
    return [item for item in ids if isinstance(item, str) and 0 < len(item) <= 500]
