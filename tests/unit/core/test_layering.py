"""Layering: the pure rules of create."""

from dataclasses import replace
from typing import Any

import pytest

from registry.core import media
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RequestInvalid
from registry.core.facts import Facts
from registry.core.image import Draft, ImageConfig
from registry.core.layering import (
    Layer,
    Plan,
    Recipe,
    check_files,
    licenses,
    plan,
    remote_url,
    start_config,
    text_layer,
    with_info,
)
from registry.core.manifest import Descriptor

ARCH = "general.architecture"
HEX = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("/foo/bar", "http://localhost:11434/foo/bar"),
        ("/foo/../bar", "http://localhost:11434/bar"),
        ("/", "http://localhost:11434/"),
        ("example.com", "http://example.com:11434"),
        ("example.com:8080", "http://example.com:8080"),
        ("https://example.com:8080/path/../other", "https://example.com:8080/other"),
        ("https://example.com", "https://example.com:11434"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("http://example.com/", "http://example.com:11434"),
        ("", "http://localhost:11434"),
        ("/a/b/../../c/./d", "http://localhost:11434/c/d"),
        ("http://[::1]", "http://[::1]:11434"),
    ],
)
def test_remote_hosts_have_one_form_and_keep_it(text: str, url: str) -> None:
    assert remote_url(text) == url
    assert remote_url(url) == url.removesuffix("/")


@pytest.mark.parametrize(
    "text", ["http://[::1]:namedport", "h:99999", "a b", "h\x7f", "http://[::1"]
)
def test_what_is_no_url_is_a_bad_remote(text: str) -> None:
    with pytest.raises(RequestInvalid, match="bad remote"):
        remote_url(text)


@pytest.mark.parametrize(
    "name", ["../a", "a/../b", "/a", "./a", "a//b", "a/", "", "..", "../../../x", "dir/../../x"]
)
@pytest.mark.parametrize("place", ["files", "draft_files"])
def test_file_names_must_be_clean_relative_paths(name: str, place: str) -> None:
    with pytest.raises(RequestInvalid, match="file path must be relative"):
        check_files(Recipe(**{place: {name: HEX}}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.gguf", "dir/a.gguf", "a\\b.gguf", "...", "ä"])
def test_other_file_names_are_fine(name: str) -> None:
    check_files(Recipe(files={name: HEX}))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(files={"a": ""}), "invalid digest format"),
        (Recipe(draft_files={"a": ""}), "invalid digest format"),
        (Recipe(adapters={"a": ""}), "invalid digest format"),
        (Recipe(draft_quantize="q8_0"), "--draft-quantize requires a DRAFT model"),
    ],
)
def test_the_other_early_checks(recipe: Recipe, message: str) -> None:
    with pytest.raises(RequestInvalid, match=message):
        check_files(recipe)


@pytest.mark.parametrize(
    ("value", "texts"),
    [(None, []), ("", []), ("MIT", ["MIT"]), (["a", ""], ["a", ""]), ([None], [""]), ([], [])],
)
def test_licenses_are_a_text_or_a_list(value: Any, texts: list[str]) -> None:
    assert licenses(value) == texts


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1, "number"), (True, "bool"), ({"a": 1}, "object"), ([1], "number"), ([["x"]], "array")]
    + [([{}], "object"), ([False], "bool"), ([1.5], "number")],
)
def test_other_licenses_are_refused_in_gos_words(value: Any, kind: str) -> None:
    with pytest.raises(OperationFailed, match=f"cannot unmarshal {kind} into"):
        licenses(value)


def test_info_overrides_and_names_a_wrong_field() -> None:
    info = {
        "capabilities": ["vision", 1],
        "model_family": "f",
        "base_name": "b",
        "quantization_level": "Q",
        "parameter_size": "7B",
        "context_length": 4096.0,
        "embedding_length": 8,
    }
    config = with_info(ImageConfig(capabilities=("tools",)), info)
    assert config == ImageConfig(
        model_family="f",
        model_families=("f",),
        model_type="7B",
        file_type="Q",
        base_name="b",
        context_length=4096,
        embedding_length=8,
        capabilities=("tools", "vision", ""),
    )
    assert with_info(config, None) is config
    for key, value, words in (
        ("model_family", 1, "must be a string"),
        ("context_length", "x", "must be a number"),
        ("context_length", True, "must be a number"),
        ("context_length", -1, "must be a non-negative integer"),
        ("embedding_length", 0.5, "must be a non-negative integer"),
        ("embedding_length", 1e30, "must be a non-negative integer"),
    ):
        with pytest.raises(RequestInvalid, match=f'info field "{key}" {words}'):
            with_info(ImageConfig(), {key: value})


def test_a_child_inherits_what_it_does_not_say() -> None:
    base = ImageConfig(
        renderer="r", parser="p", requires="1", model_format="gguf", capabilities=("c",),
        model_family="not inherited",
    )  # fmt: skip
    assert start_config(Recipe(parser="own"), base) == ImageConfig(
        renderer="r", parser="own", requires="1", model_format="gguf", capabilities=("c",)
    )
    assert start_config(Recipe(renderer="x"), None) == ImageConfig(renderer="x")


def layer(media_type: str, text: str, origin: str = "base:latest") -> Layer:
    data = text.encode()
    return Layer(Descriptor(media_type, Digest.of(data), len(data), origin))


def kinds(layers: tuple[Layer, ...]) -> list[tuple[str, str]]:
    return [(item.media_type.removeprefix(media.OLLAMA), item.descriptor.origin) for item in layers]


def test_texts_replace_and_licenses_add_up() -> None:
    base = [
        layer(media.TEMPLATE, "t"), layer(media.SYSTEM, "s"), layer(media.LICENSE, "l"),
        layer(media.PARAMS, '{"a":1}'), layer(media.MESSAGES, "[]"),
    ]  # fmt: skip
    recipe = Recipe(
        template="new",
        system="new",
        license=["x", "y"],
        parameters={"b": 2},
        messages=[{"role": "user", "content": "<hi>"}],
    )
    made = plan(recipe, ImageConfig(), base, [{"a": 1.0}])
    assert kinds(made.layers) == [
        ("license", "base:latest"), ("template", ""), ("system", ""), ("license", ""),
        ("license", ""), ("params", ""), ("messages", ""),
    ]  # fmt: skip
    contents = [item.content for item in made.layers[1:]]
    assert contents[4:] == [
        b'{"a":1,"b":2}\n',
        b'[{"role":"user","content":"\\u003chi\\u003e"}]\n',
    ]


def test_empty_texts_leave_the_parents_and_parameters_move_to_the_end() -> None:
    base = [layer(media.PARAMS, '{"a":1}'), layer(media.SYSTEM, "s"), layer(media.MESSAGES, "[]")]
    made = plan(Recipe(parameters={}, messages=[]), ImageConfig(), base, [{"a": 1.0}])
    assert kinds(made.layers) == [
        ("system", "base:latest"), ("messages", "base:latest"), ("params", ""),
    ]  # fmt: skip


def test_without_parameters_there_is_no_such_layer() -> None:
    made = plan(Recipe(), ImageConfig(), [], [])
    assert made.layers == ()
    assert set(made.contents) == {made.config.descriptor.digest}


def weights(arch: str, media_type: str = media.MODEL) -> Layer:
    return replace(layer(media_type, arch), facts=Facts(22_000, "F16", {ARCH: arch}, ()))


@pytest.mark.parametrize(
    ("arch", "renderer", "parser"),
    [
        ("gemma4", "gemma4", "gemma4"),
        ("laguna", "laguna", "laguna"),
        ("nemotron_h", "nemotron-3-nano", "nemotron-3-nano"),
        ("nemotron_h_moe", "nemotron-3-nano", "nemotron-3-nano"),
        ("nemotron_h_omni", "nemotron-3-nano", "nemotron-3-nano"),
        ("llama", "", ""),
    ],
)
def test_weights_fill_in_what_the_config_does_not_say(
    arch: str, renderer: str, parser: str
) -> None:
    made = ImageConfig.parse(content_of(plan(Recipe(), ImageConfig(), [weights(arch)], [])))
    assert (made.renderer, made.parser) == (renderer, parser)
    assert (made.model_family, made.model_families) == (arch, (arch,))
    assert (made.model_type, made.file_type, made.model_format) == ("22K", "F16", "gguf")


def test_what_the_request_says_stays() -> None:
    told = ImageConfig(
        model_family="f", model_families=("f",), model_type="7B", file_type="Q5", renderer="r",
        parser="p",
    )  # fmt: skip
    made = ImageConfig.parse(content_of(plan(Recipe(), told, [weights("gemma4")], [])))
    assert made == replace(told, model_format="gguf", model_families=("f", "gemma4"))


def test_gemma4_stops_at_its_turns_unless_the_request_says_otherwise() -> None:
    made = plan(Recipe(), ImageConfig(), [weights("gemma4")], [])
    assert made.layers[-1].content == b'{"stop":["\\u003cturn|\\u003e"]}\n'
    recipe = Recipe(parameters={"stop": ["x"]})
    assert plan(recipe, ImageConfig(), [weights("gemma4")], []).layers[-1].content == (
        b'{"stop":["x"]}\n'
    )


def test_a_draft_is_told_in_the_config_and_adapters_are_not() -> None:
    layers = [weights("llama"), weights("x", media.ADAPTER), weights("tiny", media.DRAFT)]
    made = ImageConfig.parse(content_of(plan(Recipe(), ImageConfig(), layers, [])))
    assert made.draft == Draft(model_format="gguf", architecture="tiny")
    assert made.model_families == ("llama",)


def content_of(made: Plan) -> bytes:
    assert made.config.content is not None
    return made.config.content


def test_a_plan_knows_which_texts_have_to_be_stored() -> None:
    kept = layer(media.SYSTEM, "old")
    made = plan(Recipe(template="t"), ImageConfig(), [kept], [])
    assert sorted(made.contents.values()) == sorted([b"t", ImageConfig().to_bytes()])
    assert replace(text_layer(media.SYSTEM, b"x"), status="s").status == "s"
