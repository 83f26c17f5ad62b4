"""A generation over one scripted worker, with models of every kind, and short ways to ask it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from registry.core.generation import Answer, AnswerEvent, Delta
from registry.core.gguf import Kind
from registry.core.wishes import ChatWish, EmbeddingWish, EmbedWish, GenerateWish, Message
from registry.ports.workers import Piece, Stop, Timings
from registry.services.inference.generation import Clocks, Generation
from registry.services.inference.inference import Ask, Inference, Purpose
from registry.services.inference.routing import Router
from registry.settings import Worker
from tests.support.fake_worker import HELLO, FakeWorker, Script
from tests.support.gguf import field, gguf
from tests.support.library import Library, library

LLAMA = gguf(
    field("general.architecture", Kind.STRING, "llama"),
    field("llama.block_count", Kind.U32, 2),
    field("llama.context_length", Kind.U32, 100),
)
JINJA = "{% for m in messages %}{{ m.content }}{% endfor %}<think></think> tools tool_calls"
WITH_JINJA = gguf(
    field("general.architecture", Kind.STRING, "llama"),
    field("llama.block_count", Kind.U32, 2),
    field("tokenizer.chat_template", Kind.STRING, JINJA),
    field("tokenizer.ggml.bos_token_id", Kind.U32, ord("<")),
    field("tokenizer.ggml.add_bos_token", Kind.BOOL, True),
)
BERT = gguf(
    field("general.architecture", Kind.STRING, "bert"),
    field("bert.context_length", Kind.U32, 20),
    field("bert.pooling_type", Kind.U32, 1),
    field("bert.normalize_embeddings", Kind.BOOL, False),
)
GO = (
    "{{ range .Messages }}<{{ .Role }}>{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"
    '{{ .Content }}{{ if .ToolCalls }}<call>{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"'
    "}{{ end }}{{ end }}{{ end }}{{ if .Tools }}{{ .Tools }}{{ end }}<assistant>"
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
USER = Message("user", "hi")
GOLDEN = Path(__file__).parents[1] / "golden" / "inputs"


@asynccontextmanager
async def model_shelf(data: Path) -> AsyncIterator[Library]:
    """A library with a model of each kind."""
    async with library(data) as made:
        files = {"test.gguf": await made.put(LLAMA)}
        await made.make("plain", files=files)
        one_round = "{{ .System }}|{{ .Prompt }}|"
        await made.make("system", files=files, system="Be kind.", template=one_round)
        await made.make("go", files=files, template=GO)
        await made.make("fill", files=files, template="<P>{{ .Prompt }}<S>{{ .Suffix }}<M>")
        await made.make("broken", files=files, template="{{ .Messages.Nope }}")
        await made.make("named", files=files, renderer="qwen3-coder")
        await made.make("set", files=files, parameters={"num_ctx": 50, "stop": ["x"], "top_k": 3})
        await made.make("native", files={"test.gguf": await made.put(WITH_JINJA)})
        seer = {"p.gguf": await made.put((GOLDEN / "clip-mlp.gguf").read_bytes())}
        await made.make("eyes", files=files | seer, template=GO)
        native = {"test.gguf": await made.put(WITH_JINJA)}
        await made.make("native-eyes", files=native | seer)
        await made.make("bert", files={"test.gguf": await made.put(BERT)})
        yield made


class Desk:
    """A generation over one scripted worker, and short ways to ask it."""

    def __init__(self, lib: Library, worker: FakeWorker | None, settings: Worker | None) -> None:
        self.router = Router()
        self.worker = worker or FakeWorker()
        self.router.add(self.worker)
        self._inference = Inference(lib.models)
        self._generation = Generation(self.router, settings or Worker(), Clocks(lib.clock, Ticks()))

    async def events(self, wish: GenerateWish | ChatWish) -> list[AnswerEvent]:
        """All events of an answer."""
        return [event async for event in await self.answer(wish)]

    async def answer(self, wish: GenerateWish | ChatWish) -> Answer:
        """The answer, nothing of it drawn yet."""
        chat = isinstance(wish, ChatWish)
        given = wish.messages if isinstance(wish, ChatWish) else wish.prompt
        ask = Ask(
            Purpose.CHAT if chat else Purpose.GENERATE,
            wish.model,
            unload=not given and wish.keep_alive == 0,
            think=wish.think,
        )
        return self._generation.answer(await self._inference.admit(ask), wish)

    async def embed(self, wish: EmbedWish | EmbeddingWish) -> list[list[float]]:
        """The vectors."""
        admitted = await self._inference.admit(Ask(Purpose.EMBED, wish.model))
        if isinstance(wish, EmbedWish):
            return (await self._generation.vectors(admitted, wish)).vectors
        return (await self._generation.vector(admitted, wish)).vectors

    @property
    def asked(self) -> list[tuple[str, Any]]:
        """What the last lease was asked."""
        return self.worker.leases[-1].asked

    def body(self, what: str) -> dict[str, Any]:
        """The last body of a kind."""
        return [body for name, body in self.asked if name == what][-1]  # type: ignore[no-any-return]


class Ticks:
    """A stopwatch that goes on by a millisecond with each look."""

    def __init__(self) -> None:
        self._now = 0

    def __call__(self) -> int:
        self._now += 1_000_000
        return self._now


def desk(lib: Library, *pieces: Piece, settings: Worker | None = None, **script: Any) -> Desk:
    """A desk whose worker plays these pieces."""
    played = Script(pieces=pieces or HELLO, **script)
    return Desk(lib, FakeWorker(script=played), settings)


def saying(*texts: str, stop: Stop | None = None) -> list[Piece]:
    """An answer of these pieces, each of one token."""
    pieces = [Piece(text, tokens=(index,)) for index, text in enumerate(texts)]
    return [*pieces, Piece(stop=stop or Stop(timings=Timings(7, 1.5, len(texts), 2.5)))]


def text_of(events: Sequence[AnswerEvent]) -> tuple[str, str]:
    """Thoughts and content."""
    deltas = [event for event in events if isinstance(event, Delta)]
    return "".join(d.thinking for d in deltas), "".join(d.content for d in deltas)
