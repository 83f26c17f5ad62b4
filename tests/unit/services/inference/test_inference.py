"""What is refused before a worker is asked, in which order, with which words."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.core.errors import (
    Forbidden,
    ModelUnknown,
    OperationFailed,
    RegistryError,
    RequestInvalid,
)
from registry.core.gguf import Kind
from registry.services.inference.inference import Ask, Inference, Purpose
from tests.support.gguf import field, gguf
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio

CLOUD = "ollama cloud is disabled: remote model is unavailable"
EMBEDDER = gguf(
    field("general.architecture", Kind.STRING, "bert"), field("bert.pooling_type", Kind.U32, 1)
)
GENERATE, CHAT, EMBED, EMBEDDINGS = Purpose


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        await made.base("tiny")
        await made.base("tinybert", EMBEDDER)
        await made.make("hot", origin="tiny", parameters={"temperature": "hot"})
        await made.make("stub", origin="big:cloud")
        await made.make("elsewhere", origin="big", remote_host="http://gpu.example.com")
        await made.make("painter", origin="tiny", info={"capabilities": ["image"]})
        await made.make("thinker", origin="tiny", info={"capabilities": ["thinking"]})
        yield made


async def refusal(lib: Library, ask: Ask) -> tuple[type[RegistryError], str]:
    with pytest.raises(RegistryError) as caught:
        await Inference(lib.models).admit(ask)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("purpose", "empty", "absent"),
    [
        (GENERATE, "model '' not found", "model 'No:1' not found"),
        (CHAT, "model is required", "model 'No:1' not found"),
        (EMBED, "model '' not found", 'model "No:1" not found, try pulling it first'),
        (EMBEDDINGS, "model is required", 'model "No:1" not found, try pulling it first'),
    ],
)
async def test_names_are_refused_in_the_words_of_each_endpoint(
    lib: Library, purpose: Purpose, empty: str, absent: str
) -> None:
    assert (await refusal(lib, Ask(purpose, "")))[1] == empty
    assert await refusal(lib, Ask(purpose, "No:1")) == (ModelUnknown, absent)
    assert (await refusal(lib, Ask(purpose, "a b")))[1] == "invalid model name"
    assert (await refusal(lib, Ask(purpose, "a:cloud:local")))[1].startswith("use either :local")
    assert await refusal(lib, Ask(purpose, "gpt-oss:20b-cloud")) == (Forbidden, CLOUD)


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (Ask(GENERATE, "stub"), Forbidden, CLOUD),
        (Ask(GENERATE, "stub", unload=True), Forbidden, CLOUD),
        (Ask(CHAT, "stub"), Forbidden, CLOUD),
        (Ask(CHAT, "elsewhere"), RequestInvalid, "this server cannot run this remote model"),
        (Ask(CHAT, "stub:local"), ModelUnknown, "model 'stub:local' not found"),
        (Ask(EMBED, "stub"), ModelUnknown, 'model "stub" not found, try pulling it first'),
        (
            Ask(EMBED, "stub", options={"seed": "x"}),
            OperationFailed,
            'option "seed" must be of type integer',
        ),
        (
            Ask(GENERATE, "painter"),
            RequestInvalid,
            "image generation models are not currently supported",
        ),
        (
            Ask(GENERATE, "tiny", raw_conflict=True, think=True),
            RequestInvalid,
            "raw mode does not support template, system, or context",
        ),
        (
            Ask(GENERATE, "Tiny", think="high", options={"seed": "x"}),
            RequestInvalid,
            '"Tiny" does not support thinking',
        ),
        (
            Ask(GENERATE, "tinybert", needs=("insert",)),
            RequestInvalid,
            '"tinybert" does not support generate',
        ),
        (Ask(CHAT, "tinybert"), RequestInvalid, '"tinybert" does not support chat'),
        (
            Ask(CHAT, "TINY", needs=("tools", "vision"), options={"seed": "x"}),
            RequestInvalid,
            "registry.ollama.ai/library/tiny:latest does not support tools\nvision",
        ),
        (
            Ask(CHAT, "hot", options={"seed": "x"}),
            OperationFailed,
            'option "temperature" must be of type float32',
        ),
        (
            Ask(EMBEDDINGS, "tiny", options={"stop": "x"}),
            OperationFailed,
            'option "stop" must be of type array',
        ),
    ],
)
async def test_of_several_faults_the_first_in_the_recorded_order_is_told(
    lib: Library, ask: Ask, kind: type[RegistryError], message: str
) -> None:
    assert await refusal(lib, ask) == (kind, message)


@pytest.mark.parametrize(
    "ask",
    [
        Ask(GENERATE, "tiny", unload=True, think=True, options={"seed": "x"}),
        Ask(CHAT, "tinybert", unload=True),
        Ask(CHAT, "stub", unload=True),
    ],
)
async def test_an_unload_is_done_before_anything_else_is_looked_at(lib: Library, ask: Ask) -> None:
    assert (await Inference(lib.models).admit(ask)).ask.unload


@pytest.mark.parametrize(
    "ask",
    [
        Ask(GENERATE, "tiny", think=False),
        Ask(GENERATE, "tiny:local"),
        Ask(CHAT, "thinker", think=True),
        Ask(CHAT, "tiny", think=True, thinking_optional=True),
        Ask(EMBED, "tinybert", options={"num_ctx": 512.0}),
    ],
)
async def test_what_passes_all_checks_is_admitted(lib: Library, ask: Ask) -> None:
    admitted = await Inference(lib.models).admit(ask)
    assert admitted.ask is ask
    assert admitted.tag.model.model.casefold() == ask.model.removesuffix(":local")
    assert admitted.parts.model is not None


async def test_asks_are_values() -> None:
    assert replace(Ask(CHAT, "a"), model="b") == Ask(CHAT, "b")
