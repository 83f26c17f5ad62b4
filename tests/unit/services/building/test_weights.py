"""Create with work on tensors: what comes out, what is said meanwhile, what is refused and kept."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.core.errors import OperationFailed, RequestInvalid, StorageFull, TooLarge
from registry.core.events import Advance, Event, Events
from registry.core.gguf import Entry, Kind
from registry.core.layering import Recipe
from registry.core.names import ModelName
from registry.core.quantize import TARGETS
from registry.tensors.engine import find_engine
from tests.support.gguf_source import read
from tests.support.library import Library, library
from tests.support.slow_workshop import SlowWorkshop
from tests.support.weighty import entry, gguf_of, model, parts, shards

pytestmark = pytest.mark.anyio
needs_engine = pytest.mark.skipif(find_engine().library is None, reason="no engine")


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


def lines(made: str) -> list[str]:
    return [
        "parsing GGUF",
        "verifying conversion",
        f"creating new layer {made}",
        "writing manifest",
        "success",
    ]


async def model_digest(lib: Library, name: str) -> str:
    shown: dict[str, str] = await lib.show(name)
    found = [line for line in shown["modelfile"].splitlines() if line.startswith("FROM ")]
    return "sha256:" + found[0].rpartition("sha256-")[2]


@needs_engine
@pytest.mark.parametrize("name", ["q4_K_M", "Q6_K", "q8_0", "Q3_k_s", "bf16", "F32"])
async def test_a_quantized_model_says_what_it_is(lib: Library, name: str) -> None:
    source = await lib.put(model())
    said = await lib.make("m", files={"m.gguf": source}, quantize=name)
    assert said == lines(await model_digest(lib, "m"))
    shown = await lib.show("m")
    level = TARGETS[name.upper()]
    expected = "unknown" if level.name == "F32" else level.name
    assert shown["details"]["quantization_level"] == expected
    assert shown["details"]["parameter_size"] == "672K"
    assert shown["model_info"]["general.file_type"] == level.number
    assert lib.incoming() == []


@needs_engine
async def test_the_same_again_is_the_same_blob(lib: Library) -> None:
    files = {"m.gguf": await lib.put(model())}
    await lib.make("one", files=files, quantize="q4_0")
    said = await lib.make("two", files=files, quantize="Q4_0")
    assert said[2] == f"using existing layer {await model_digest(lib, 'one')}"
    assert await lib.digest("one") == await lib.digest("two")


@needs_engine
async def test_a_model_here_can_be_quantized_under_another_name(lib: Library) -> None:
    await lib.base("base", model())
    said = await lib.make("small", origin="base", quantize="q5_K_M", system="Be brief.")
    assert said[0] == "verifying conversion"
    shown = await lib.show("small")
    assert shown["details"]["quantization_level"] == "Q5_K_M"
    assert shown["system"] == "Be brief."
    assert (await lib.show("base"))["details"]["quantization_level"] == "F16"


async def test_what_is_of_that_type_already_stays_as_it_is(lib: Library) -> None:
    source = await lib.put(model())
    await lib.make("m", files={"m.gguf": source}, quantize="f16")
    assert await model_digest(lib, "m") == source


async def test_a_file_that_does_not_say_its_type_is_looked_at(lib: Library) -> None:
    pairs, tensors = parts("F32")
    pairs = [pair for pair in pairs if pair[0] != "general.file_type"]
    source = await lib.put(gguf_of(pairs, tensors))
    await lib.make("m", files={"m.gguf": source}, quantize="f16")
    assert (await lib.show("m"))["details"]["quantization_level"] == "F16"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"quantize": "q9_z"}, "unsupported quantization type Q9_Z - supported types are F32"),
        ({"quantize": "q4_0", "license": 4}, "cannot unmarshal number"),
    ],
)
async def test_what_the_request_alone_says_wrong_is_told_before_a_file_is_read(
    lib: Library, recipe: dict[str, Any], words: str
) -> None:
    absent = "sha256:" + "0" * 64
    for files in ({"m.gguf": absent}, {"m.safetensors": absent, "config.json": absent}):
        with pytest.raises(OperationFailed, match=words):
            await lib.make("m", files=files, **recipe)
    with pytest.raises(OperationFailed, match=words):
        await lib.make("m", origin="absent", **recipe)
    assert lib.pulls.asked == []


async def test_quantized_models_are_not_quantized_again(lib: Library) -> None:
    source = await lib.put(model(file_type=15))
    with pytest.raises(OperationFailed, match="only supported for F16, BF16 and F32 models"):
        await lib.make("m", files={"m.gguf": source}, quantize="q8_0")
    with pytest.raises(OperationFailed, match="requires an unquantized draft model, got Q4_K_M"):
        await lib.make(
            "m",
            files={"m.gguf": await lib.put(model())},
            draft_files={"d.gguf": source},
            draft_quantize="q8_0",
        )


async def test_a_draft_is_quantized_by_its_own_wish(lib: Library) -> None:
    source = await lib.put(model())
    await lib.make(
        "m",
        files={"m.gguf": source},
        draft_files={"d.gguf": await lib.put(model(seed=2))},
        draft_quantize="q8_0",
    )
    assert await model_digest(lib, "m") == source
    tag = await lib.models.find(ModelName.parse("m"))
    assert tag is not None
    facts = (await lib.models.parts(tag)).facts
    assert sorted(found.file_type for found in facts.values()) == ["F16", "Q8_0"]


@pytest.mark.folder
async def test_shards_become_one_layer(lib: Library) -> None:
    files = {
        f"m-{number:05}-of-00003.gguf": await lib.put(shard)
        for number, shard in enumerate(shards(3), 1)
    }
    said = await lib.make("m", files=files)
    made = await model_digest(lib, "m")
    assert said == ["parsing GGUF"] * 2 + lines(made)
    path = lib.data / "blobs" / made.replace(":", "-")
    header = read(path.read_bytes())
    assert not [key for key in header.entries if key.startswith("split.")]
    assert len(header.tensors) == len(parts()[1])


@needs_engine
async def test_shards_quantized_have_the_bytes_of_the_whole_quantized(lib: Library) -> None:
    files = {
        f"m-{number:05}-of-00002.gguf": await lib.put(shard)
        for number, shard in enumerate(shards(2), 1)
    }
    await lib.make("split", files=files, quantize="q4_K_M")
    await lib.make("whole", files={"m.gguf": await lib.put(model())}, quantize="q4_K_M")
    assert await model_digest(lib, "split") == await model_digest(lib, "whole")


async def test_a_model_that_no_engine_is_known_to_run_is_kept_with_a_remark(lib: Library) -> None:
    odd = gguf_of([("general.architecture", entry("nonesuch"))], {})
    said = await lib.make("m", files={"m.gguf": await lib.put(odd)})
    assert said[1].startswith('unknown architecture "nonesuch": kept as it is')
    assert said[-1] == "success"


async def test_a_shard_that_is_missing_or_of_another_model_is_told(lib: Library) -> None:
    one, two = [await lib.put(shard) for shard in shards(2)]
    name = "m-0000{}-of-00002.gguf"
    with pytest.raises(OperationFailed, match="has 1 shards, expected 2"):
        await lib.make("m", files={name.format(2): two})
    with pytest.raises(OperationFailed, match="filename index 0 does not match metadata index 1"):
        await lib.make("m", files={name.format(1): two, name.format(2): one})


async def test_numbers_that_are_none_leave_nothing_behind(lib: Library) -> None:
    pairs, tensors = parts("F32")
    tensors["token_embd.weight"][1][0, 0] = np.nan
    source = await lib.put(gguf_of(pairs, tensors))
    before = lib.files()
    with pytest.raises(OperationFailed, match=r"token_embd\.weight.* not finite"):
        await lib.make("m", files={"m.gguf": source}, quantize="q8_0")
    assert lib.files() == before
    assert lib.incoming() == []


async def test_a_create_that_fails_after_the_work_drops_what_was_made(lib: Library) -> None:
    source = await lib.put(model())
    adapter = await lib.put(b"no gguf at all")
    before = lib.files()
    with pytest.raises(RequestInvalid):
        await lib.make(
            "m",
            files={f"m-{n:05}-of-00002.gguf": await lib.put(s) for n, s in enumerate(shards(), 1)},
            adapters={"a.gguf": adapter},
        )
    await lib.housekeeping.purge()
    expected = before | {str(await lib.put(shard)) for shard in shards()}
    assert lib.files() == expected
    assert source in expected


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes: the system says EFBIG, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.folder
@pytest.mark.parametrize("room", [2 << 20, 7_654_321, 20_990_000])
async def test_a_disk_that_is_full_at_any_byte_keeps_nothing(
    lib: Library, small_disk: Callable[[int], None], room: int
) -> None:
    source = await lib.put(model(layers=4, width=512))  # 21 MB as F32
    before = lib.files()
    small_disk(room)
    with pytest.raises(StorageFull):
        await lib.make("m", files={"m.gguf": source}, quantize="f32")
    small_disk(1 << 30)
    assert lib.files() == before
    assert lib.incoming() == []
    await lib.make("m", files={"m.gguf": source}, quantize="f32")


# with a workshop at our own pace

MADE = model("F32", layers=1)


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[Library, SlowWorkshop]]:
    workshop = SlowWorkshop(MADE)
    async with library(tmp_path / "data", workshop=workshop) as made:
        yield made, workshop


def create(lib: Library, name: str, **recipe: Any) -> Events:
    return lib.create.run(ModelName.parse(name), Recipe(**recipe))


async def collect(lib: Library, name: str, **recipe: Any) -> list[Event]:
    return [event async for event in create(lib, name, **recipe)]


Slow = tuple[Library, SlowWorkshop]


async def test_progress_names_source_and_types(slow: Slow) -> None:
    lib, workshop = slow
    source = await lib.put(model())
    running = asyncio.create_task(collect(lib, "m", files={"m.gguf": source}, quantize="q4_K_M"))
    await workshop.half_way.wait()
    await asyncio.sleep(0.3)
    workshop.go_on.set()
    shown = [event for event in await running if isinstance(event, Advance)]
    assert shown
    for event in shown:
        assert event.text == "quantizing F16 model to Q4_K_M"
        assert str(event.digest) == source
        assert event.total == 64 << 20
    assert 32 << 20 in [event.completed for event in shown]


async def test_small_work_shows_no_progress(slow: Slow) -> None:
    lib, workshop = slow
    workshop.total = 1000
    workshop.warnings.append("the tokenizer is odd")
    workshop.go_on.set()
    said = await collect(lib, "m", files={"m.gguf": await lib.put(model())}, quantize="q8_0")
    assert [event.text for event in said][:3] == [
        "parsing GGUF",
        "the tokenizer is odd",
        "verifying conversion",
    ]


async def test_two_who_want_the_same_share_one_job_and_one_may_leave(slow: Slow) -> None:
    lib, workshop = slow
    files = {"m.gguf": await lib.put(model())}
    one = asyncio.create_task(collect(lib, "one", files=files, quantize="q8_0"))
    two = asyncio.create_task(collect(lib, "two", files=files, quantize="Q8_0"))
    await workshop.half_way.wait()
    await asyncio.sleep(0.15)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert workshop.running == 1
    workshop.go_on.set()
    assert (await two)[-1].text == "success"
    assert len(workshop.jobs) == 1
    assert await lib.models.find(ModelName.parse("one")) is None


async def test_others_wait_for_their_turn(slow: Slow) -> None:
    lib, workshop = slow
    files = {"m.gguf": await lib.put(model())}
    tasks = []
    for name in ("q8_0", "q4_0", "q4_1"):
        tasks.append(asyncio.create_task(collect(lib, name, files=files, quantize=name)))
        await workshop.half_way.wait()
    await asyncio.sleep(1)
    workshop.go_on.set()
    said = [[event.text for event in events] for events in await asyncio.gather(*tasks)]
    waited = ["waiting for another conversion to finish" in texts for texts in said]
    assert waited == [False, True, True]
    assert len(workshop.jobs) == 3
    assert workshop.most == 1


async def test_whoever_leaves_alone_ends_the_work_and_nothing_is_kept(slow: Slow) -> None:
    lib, workshop = slow
    source = await lib.put(model())
    before = lib.files()
    events = create(lib, "m", files={"m.gguf": source}, quantize="q8_0")
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Advance):
                break
    assert workshop.running == 0
    assert lib.files() == before
    assert lib.incoming() == []


async def test_after_an_error_the_next_who_asks_begins_anew(slow: Slow) -> None:
    lib, workshop = slow
    files = {"m.gguf": await lib.put(model())}
    workshop.error = OperationFailed("no")
    workshop.go_on.set()
    for _ in range(2):
        with pytest.raises(OperationFailed, match="no"):
            await collect(lib, "m", files=files, quantize="q8_0")
    workshop.error = None
    await collect(lib, "m", files=files, quantize="q8_0")
    assert len(workshop.jobs) == 3


@pytest.mark.folder
async def test_a_full_disk_leaves_nothing_behind(slow: Slow) -> None:
    lib, workshop = slow
    files = {"m.gguf": await lib.put(model())}
    before = lib.files()
    workshop.error = StorageFull("no space left in the store")
    workshop.go_on.set()
    with pytest.raises(StorageFull):
        await collect(lib, "m", files=files, quantize="q8_0")
    assert lib.files() == before
    assert lib.incoming() == []


async def test_a_model_larger_than_blobs_may_be_is_not_begun(slow: Slow) -> None:
    lib, workshop = slow
    workshop.made = type("Huge", (bytes,), {"__len__": lambda self: 2 << 40})()
    files = {"m.gguf": await lib.put(model())}
    with pytest.raises(TooLarge, match="the model would have"):
        await collect(lib, "m", files=files, quantize="q8_0")


async def test_a_model_of_too_many_files_is_not_opened(slow: Slow) -> None:
    lib, workshop = slow
    some = await lib.put(b"weights")
    files = {f"model-{n}.safetensors": some for n in range(600)} | {"config.json": some}
    with pytest.raises(OperationFailed, match="the model has 601 files, more than 512"):
        await collect(lib, "m", files=files)
    assert workshop.jobs == []


async def test_what_came_out_must_be_a_gguf(slow: Slow) -> None:
    lib, workshop = slow
    workshop.made = b"GGUF" + bytes(100)
    workshop.go_on.set()
    files = {"m.gguf": await lib.put(model())}
    before = lib.files()
    with pytest.raises(OperationFailed, match="the conversion came out wrong"):
        await collect(lib, "m", files=files, quantize="q8_0")
    assert lib.files() == before


async def test_a_base_that_is_quantized_cannot_be_quantized(lib: Library) -> None:
    pairs, tensors = parts()
    pairs = [pair for pair in pairs if pair[0] != "general.file_type"]
    quantized = [*pairs, ("general.file_type", Entry(Kind.U32, 7))]
    await lib.base("base", gguf_of(quantized, tensors))
    with pytest.raises(OperationFailed, match="quantization is only supported"):
        await lib.make("m", origin="base", quantize="q4_0")


# folders: see also test_create_checkpoint.py

INPUTS = Path(__file__).parents[3] / "golden" / "inputs"


async def folder(lib: Library, name: str) -> dict[str, str]:
    """A folder of the recorded inputs, uploaded."""
    paths = sorted((INPUTS / name).iterdir())
    return {path.name: await lib.put(path.read_bytes()) for path in paths}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"files": {"config.json": "x", "pytorch_model.bin": "y"}},
            "pickle files are not supported; convert to safetensors",
        ),
        ({"files": {"m.safetensors": "x", "../config.json": "y"}}, "open config.json: no such"),
        ({"adapters": {"adapter_model.safetensors": "x"}}, "open adapter_config.json: no such"),
        ({"adapters": {"adapter_config.json": "x"}}, "unknown type"),
    ],
)
async def test_folders_that_make_no_model_are_refused(
    lib: Library, recipe: dict[str, Any], words: str
) -> None:
    await lib.base()
    ask = recipe if "files" in recipe else {"origin": "base", **recipe}
    with pytest.raises((OperationFailed, RequestInvalid), match=words):
        await lib.make("m", **ask)


async def test_an_adapter_needs_a_base_of_its_kind(lib: Library) -> None:
    adapters = await folder(lib, "safetensors-lora")
    projector = await lib.put((INPUTS / "clip-mlp.gguf").read_bytes())
    with pytest.raises(RequestInvalid, match="no base model was found"):
        await lib.make("m", files={"p.gguf": projector}, adapters=adapters)
