"""Create: bytes and digests as the real server's, all or nothing, nothing left behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.errors import OperationFailed, RequestInvalid, UpstreamUnknown
from registry.core.events import Done, Status
from registry.core.gguf import Kind
from registry.core.names import ModelName
from tests.support.gguf import SMALLEST, field, gguf
from tests.support.library import Library, library

pytestmark = pytest.mark.anyio


@pytest.fixture
async def lib(tmp_path: Path) -> AsyncIterator[Library]:
    async with library(tmp_path / "data") as made:
        yield made


def arch(name: str, *more: bytes) -> bytes:
    return gguf(field("general.architecture", Kind.STRING, name), *more)


async def test_the_manifest_of_the_test_file_is_the_real_servers(lib: Library) -> None:
    digest = await lib.base()
    assert digest == "f75369d1dd1fb2f7c3db80c05854077604d2e78397dbe270fbe9d8a453ae62ff"
    assert lib.files() == {
        "sha256:89a2116c3a82d6a97f59f748d86ed4417214353fd178ee54df418fde32495fad",
        "sha256:99759ad5b91e723db0393d698ffbb448b1b7df5ff6377a108c49254583b1bc8c",
    }
    assert lib.tag_files() == {"registry.ollama.ai/library/base/latest"}


async def test_texts_come_in_the_real_servers_order_and_bytes(lib: Library) -> None:
    files = {"test.gguf": await lib.put(SMALLEST)}
    await lib.make(
        "m",
        files=files,
        template="{{ .System }} {{ .Prompt }}",
        system="Say hi!",
        parameters={"temperature": 1, "top_k": 10, "stop": ["USER:", "ASSISTANT:"]},
    )
    assert await lib.digest("m") == (
        "df1b714d241fc765e5dee2c34d7a13fe05937f39bebac076758a4702662ff0d6"
    )


async def test_a_child_shares_every_blob_of_its_parent(lib: Library) -> None:
    await lib.base()
    before = lib.files()
    lines = await lib.make("child", origin="base")
    assert lines[-2:] == ["writing manifest", "success"]
    assert lib.files() == before
    assert (await lib.show("child"))["details"]["parent_model"] == "base:latest"


async def test_parameters_merge_and_lists_are_replaced(lib: Library) -> None:
    await lib.base()
    first = {"temperature": 1, "top_k": 10, "stop": ["USER:", "ASSISTANT:"]}
    await lib.make("a", origin="base", parameters=first)
    await lib.make("b", origin="a", parameters={"temperature": 0.6, "top_p": 0.7})
    await lib.make("b", origin="b", parameters={"stop": ["<|endoftext|>"]})
    files = lib.files()
    assert "sha256:1d0ad71299d48c2fb7ae2b98e683643e771f8a5b72be34942af90d97a91c1e37" in files
    assert "sha256:12f58bb75cb3042d69a7e013ab87fb3c3c7088f50ddc62f0c77bd332f0d44d35" in files
    await lib.housekeeping.purge()
    merged = "sha256:e29a7b3c47287a2489c895d21fe413c20f859a85d20e749492f52a838e36e1ba"
    assert merged not in lib.files()  # b's own first parameters went with its first manifest


async def test_replacing_a_model_frees_what_only_it_had(lib: Library) -> None:
    files = {"test.gguf": await lib.put(SMALLEST)}
    await lib.make("m", files=files, template="{{ .Prompt }}")
    old = "sha256:b507b9c2f6ca642bffcd06665ea7c91f235fd32daeefdf875a0f938db05fb315"
    assert await lib.has(old)
    await lib.make("m", files=files, template="{{ .System }} {{ .Prompt }}")
    assert not await lib.has(old)
    await lib.housekeeping.purge()
    assert old not in lib.files()


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        ({}, RequestInvalid, "neither 'from' or 'files' was specified"),
        ({"origin": "bad name"}, RequestInvalid, "invalid model name"),
        ({"files": {}}, RequestInvalid, "unknown type"),
        ({"origin": "base", "adapters": {}}, RequestInvalid, "unknown type"),
        ({"origin": "base", "remote_host": "h\x00"}, RequestInvalid, "bad remote"),
        ({"origin": "base", "info": {"model_family": 1}}, RequestInvalid, "must be a string"),
        ({"origin": "base", "info": {"context_length": 1.5}}, RequestInvalid, "non-negative"),
        ({"origin": "base", "template": "{{ .Prompt"}, RequestInvalid, "template error: "),
        ({"origin": "base", "template": "{{ Prompt }}"}, RequestInvalid, "not defined"),
        ({"origin": "base", "license": 4}, OperationFailed, "cannot unmarshal number"),
        ({"origin": "base", "quantize": "q9_z"}, OperationFailed, "type Q9_Z - supported"),
        ({"origin": "base", "quantize": "q4_K_M"}, OperationFailed, "only supported for F16, BF16"),
        ({"files": {"a.safetensors": "x", "config.json": "y"}}, OperationFailed, "invalid digest"),
        ({"files": {"a.safetensors": "x"}}, OperationFailed, "open config.json: no such file"),
        (
            {"origin": "x", "remote_host": "h", "draft_files": {"d.gguf": "x"}},
            RequestInvalid,
            "DRAFT cannot be used with remote models",
        ),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_written(
    lib: Library, recipe: dict[str, Any], error: type[Exception], message: str
) -> None:
    await lib.base()
    before = lib.files()
    with pytest.raises(error, match=message.replace("(", r"\(")):
        await lib.make("m", **recipe)
    assert await lib.models.find(ModelName.parse("m")) is None
    assert lib.files() == before
    assert lib.incoming() == []


async def test_a_missing_file_is_named_by_digest_without_the_servers_path(lib: Library) -> None:
    absent = "sha256:" + "0" * 64
    with pytest.raises(OperationFailed, match="sha256-0000") as caught:
        await lib.make("m", files={"m.gguf": absent})
    assert str(lib.data) not in str(caught.value)


async def test_split_files_are_refused_in_words(lib: Library) -> None:
    shard = arch("test", field("split.count", Kind.U16, 2), field("split.no", Kind.U16, 0))
    with pytest.raises(OperationFailed, match="has 1 shards, expected 2"):
        await lib.make("m", files={"m-00001-of-00002.gguf": await lib.put(shard)})


async def test_an_absent_base_is_pulled_and_its_success_is_not_passed_on(lib: Library) -> None:
    lib.pulls.events = [Status("pulling manifest"), Done(), UpstreamUnknown("gone")]
    with pytest.raises(UpstreamUnknown):
        await lib.make("m", origin="hf.co/a/b")
    assert [name.short for name in lib.pulls.asked] == ["hf.co/a/b:latest"]


@pytest.mark.parametrize(
    ("origin", "host", "model", "url"),
    [
        ("gpt-oss:20b:cloud", "", "gpt-oss:20b", "https://ollama.com:443"),
        ("gpt-oss:20b-cloud", "", "gpt-oss:20b", "https://ollama.com:443"),
        ("bob", "example.com", "bob", "http://example.com:11434"),
    ],
)
async def test_a_stub_points_elsewhere(
    lib: Library, origin: str, host: str, model: str, url: str
) -> None:
    assert await lib.make("stub", origin=origin, remote_host=host) == [
        "writing manifest",
        "success",
    ]
    shown = await lib.show("stub")
    assert (shown["remote_model"], shown["remote_host"]) == (model, url)
    assert "tensors" not in shown


async def test_the_architecture_brings_renderer_and_parser(lib: Library) -> None:
    await lib.base("g", arch("gemma4"))
    text = (await lib.show("g"))["modelfile"]
    assert "RENDERER gemma4\nPARSER gemma4\n" in text
    assert "PARAMETER stop <turn|>\n" in text
    await lib.make("h", origin="g", renderer="own")
    assert "RENDERER own\nPARSER gemma4\n" in (await lib.show("h"))["modelfile"]


async def test_two_creates_of_one_name_leave_one_of_the_two(lib: Library) -> None:
    await lib.base()
    texts = [f"system {number}" for number in range(8)]
    await asyncio.gather(*(lib.make("same", origin="base", system=text) for text in texts))
    assert (await lib.show("same"))["system"] in texts
    await lib.housekeeping.purge()
    assert len(lib.files()) == 3  # weights, config, the one system text


async def test_a_create_beside_the_delete_of_its_base_is_whole_or_nothing(lib: Library) -> None:
    for number in range(20):
        await lib.base()
        created = asyncio.create_task(lib.make("child", origin="base", system=f"s{number}"))
        await asyncio.sleep(0)
        await lib.models.delete(ModelName.parse("base"))
        try:
            await created
        except Exception as error:
            # found by nobody at all, its create begins with a pull of the base, which fails
            said = ("not found", "blob unknown", "pull model manifest: file does not exist")
            assert any(text in str(error) for text in said), error
            assert await lib.models.find(ModelName.parse("child")) is None
        else:
            assert (await lib.show("child"))["system"] == f"s{number}"
            await lib.models.delete(ModelName.parse("child"))
    await lib.housekeeping.purge()
    assert lib.files() == set()
