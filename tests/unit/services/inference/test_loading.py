"""From a model and options to what a worker is told to load; who renders."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.card import Parts
from registry.core.errors import OperationFailed
from registry.core.names import ModelName
from registry.ports.catalog import Tag
from registry.services.inference.inference import Admitted, Ask, Purpose
from registry.services.inference.loading import Demands, Mode, load_spec, rendering
from registry.services.inference.traits import KnownTraits
from registry.settings import Worker
from tests.support.desk import GO, LLAMA, WITH_JINJA, model_shelf
from tests.support.library import Library

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def lib(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with model_shelf(tmp_path_factory.mktemp("library") / "data") as made:
        yield made


async def taken_apart(lib: Library, name: str) -> tuple[Tag, Parts]:
    tag = await lib.models.find(ModelName.parse(name))
    assert tag is not None
    return tag, await lib.models.parts(tag)


async def spec(lib: Library, name: str, options: dict[str, Any], **settings: Any) -> Any:
    tag, parts = await taken_apart(lib, name)
    return load_spec(tag, parts, Demands(options, Mode.RENDERED), Worker(**settings))


async def test_runner_options_stay_within_bounds(lib: Library) -> None:
    wild = {
        "num_batch": 1e9, "num_gpu": -7, "main_gpu": 1e9, "num_thread": 1e9, "use_mmap": False,
    }  # fmt: skip
    options = (await spec(lib, "plain", wild)).options
    assert (options.num_batch, options.num_gpu, options.main_gpu) == (100, -1, 255)
    assert (options.num_thread, options.use_mmap, options.jinja) == (256, False, False)
    assert (await spec(lib, "plain", {"num_batch": 0})).options.num_batch == 2
    plain = (await spec(lib, "plain", {})).options
    assert (plain.main_gpu, plain.num_thread, plain.use_mmap, plain.embedding) == (
        None,
        0,
        None,
        False,
    )


async def test_embedding_models_get_one_slot_and_a_batch_of_their_own(lib: Library) -> None:
    options = (await spec(lib, "bert", {}, parallel=4)).options
    assert (options.embedding, options.parallel, options.num_batch) == (True, 1, 20)


async def test_equal_options_share_a_runner_and_others_do_not(lib: Library) -> None:
    keys = [
        (await spec(lib, "plain", options)).key
        for options in ({}, {"temperature": 1, "seed": 5}, {"num_ctx": 50}, {"num_thread": 2})
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_adapters_and_one_projector_go_along(lib: Library) -> None:
    golden = Path(__file__).parents[3] / "golden" / "inputs"
    adapter = await lib.put((golden / "lora.gguf").read_bytes())
    first = await lib.put((golden / "clip-mlp.gguf").read_bytes())
    second = await lib.put((golden / "clip-notype.gguf").read_bytes())
    await lib.make("seer", origin="plain", adapters={"a.gguf": adapter})
    found = await spec(lib, "seer", {})
    assert [str(item.digest) for item in found.adapters] == [adapter]
    model = await lib.put(LLAMA)
    await lib.make("eyes", files={"m.gguf": model, "p.gguf": first, "q.gguf": second})
    found = await spec(lib, "eyes", {"num_ctx": 10})
    assert len(found.projectors) == 1
    assert found.options.num_ctx == 100
    assert found.memory > sum(item.size for item in found.blobs)


async def test_what_has_no_weights_cannot_be_loaded(lib: Library) -> None:
    tag, parts = await taken_apart(lib, "plain")
    config = Parts(parts.manifest, parts.config, {}, {})
    with pytest.raises(OperationFailed, match="has no weights that can be run"):
        load_spec(tag, config, Demands({}), Worker())


async def test_who_renders(lib: Library) -> None:
    files = {"m.gguf": await lib.put(WITH_JINJA)}
    harmony = "<|start|>{{ .Prompt }}<|end|>"
    await lib.make("both", files=files, template=GO)
    await lib.make("weaker", files=files, template="{{ .Prompt }}")
    await lib.make("open", files=files, template=harmony, info={"model_family": "gptoss"})
    await lib.make("coder", files=files, renderer="qwen3-coder")
    found = {}
    for name in ("plain", "go", "native", "both", "weaker", "open", "coder"):
        _, parts = await taken_apart(lib, name)
        for setting in ("auto", "on", "off"):
            made = rendering(parts, setting)
            found[name, setting] = (made.mode.value, made.renderer)
    rendered, native = ("rendered", ""), ("native", "")
    assert found == {
        ("plain", "auto"): native, ("plain", "on"): native, ("plain", "off"): native,
        ("go", "auto"): rendered, ("go", "on"): rendered, ("go", "off"): native,
        ("native", "auto"): native, ("native", "on"): native, ("native", "off"): native,
        ("both", "auto"): rendered, ("both", "on"): rendered, ("both", "off"): native,
        ("weaker", "auto"): native, ("weaker", "on"): rendered, ("weaker", "off"): native,
        ("open", "auto"): ("native", "harmony"), ("open", "on"): ("native", "harmony"),
        ("open", "off"): ("native", "harmony"),
        ("coder", "auto"): ("native", "qwen3-coder"), ("coder", "on"): ("native", "qwen3-coder"),
        ("coder", "off"): ("native", "qwen3-coder"),
    }  # fmt: skip


async def test_traits_are_worked_out_once_and_large_templates_each_time(lib: Library) -> None:
    known = KnownTraits("auto")
    files = {"m.gguf": await lib.put(LLAMA)}
    await lib.make("long", files=files, template="x" * 70_000 + "{{ .Prompt }}")
    for name, same in (("go", True), ("long", False)):
        tag, parts = await taken_apart(lib, name)
        admitted = Admitted(Ask(Purpose.CHAT, name), tag, parts)
        first, second = await known.of(admitted), await known.of(admitted)
        assert first == second
        assert (first is second) is same
