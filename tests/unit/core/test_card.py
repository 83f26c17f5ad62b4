"""A model's card: capabilities, details and the list's entry, from its parts."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from registry.core import media
from registry.core.card import Card, Parts, list_entry
from registry.core.digest import Digest
from registry.core.facts import Facts
from registry.core.gguf import HeaderReader, Kind
from registry.core.image import ImageConfig
from registry.core.manifest import Descriptor, Manifest
from tests.support.gguf import field, gguf

TOOLS_JINJA = "{% if tools %}{{ tool_call }}{% endif %}<think></think>"
TOOLS_GO = "{{ .Tools }}{{ .Suffix }}{{ .Prompt }}"


def facts(arch: str = "test", **values: tuple[int, object]) -> Facts:
    fields = [field("general.architecture", Kind.STRING, arch)]
    fields += [field(key.replace("__", "."), kind, value) for key, (kind, value) in values.items()]
    data = gguf(*fields)
    reader = HeaderReader(len(data))
    while reader.need is not None:
        start, size = reader.need
        reader.feed(data[start : start + size])
    assert reader.header is not None
    return Facts.of(reader.header)


def parts(
    *layers: tuple[str, str | Facts], config: ImageConfig | None = None, origin: str = ""
) -> Parts:
    descriptors: list[Descriptor] = []
    texts: dict[Digest, bytes] = {}
    found: dict[Digest, Facts] = {}
    for number, (media_type, content) in enumerate(layers):
        digest = Digest.of(b"%d" % number)
        descriptors.append(Descriptor(media_type, digest, 10, origin))
        if isinstance(content, Facts):
            found[digest] = content
        else:
            texts[digest] = content.encode()
    manifest = Manifest(
        body=b"{}", media_type=media.DOCKER_MANIFEST, subject=None, artifact_type=None,
        annotations={}, config=Descriptor(media.CONFIG, Digest.of(b"c"), 5),
        layers=tuple(descriptors),
    )  # fmt: skip
    return Parts(manifest, config or ImageConfig(model_format="gguf"), texts, found)


U32, BOOL, STRING = Kind.U32, Kind.BOOL, Kind.STRING
MODEL = facts()
CASES: list[tuple[str, Parts, list[str]]] = [
    ("weights alone", parts((media.MODEL, MODEL)), ["completion"]),
    ("nothing", parts(), []),
    (
        "a pooling type makes it an embedding model",
        parts((media.MODEL, facts("bert", bert__pooling_type=(U32, 1)))),
        ["embedding"],
    ),
    (
        "vision and audio blocks",
        parts(
            (
                media.MODEL,
                facts(
                    "g",
                    g__block_count=(U32, 1),
                    g__vision__block_count=(U32, 2),
                    g__audio__block_count=(U32, 1),
                ),
            )
        ),
        ["completion", "vision", "audio"],
    ),
    (
        "a Go template",
        parts((media.MODEL, MODEL), (media.TEMPLATE, TOOLS_GO)),
        ["completion", "tools", "insert"],
    ),
    (
        "a GGUF's chat template without another",
        parts((media.MODEL, facts(tokenizer__chat_template=(STRING, TOOLS_JINJA)))),
        ["tools", "thinking", "completion"],
    ),
    (
        "a projector that hears",
        parts(
            (media.MODEL, MODEL),
            (media.PROJECTOR, facts("clip", clip__has_audio_encoder=(BOOL, True))),
        ),
        ["completion", "vision", "audio"],
    ),
    (
        "a projector that sees",
        parts(
            (media.MODEL, MODEL),
            (media.PROJECTOR, facts("clip", clip__has_vision_encoder=(BOOL, True))),
        ),
        ["completion", "vision"],
    ),
]


def with_config(**fields: object) -> Parts:
    made = parts((media.MODEL, MODEL))
    return replace(made, config=replace(made.config, **fields))  # type: ignore[arg-type]


CASES += [
    ("own capabilities come first, once", with_config(capabilities=("vision", "completion")),
     ["vision", "completion"]),
    ("a parser of tools", with_config(parser="qwen3-coder"), ["completion", "tools"]),
    ("a parser of both", with_config(parser="harmony"), ["completion", "tools", "thinking"]),
    ("a parser of thoughts", with_config(parser="olmo3-think"), ["completion", "thinking"]),
    ("an unknown parser", with_config(parser="passthrough"), ["completion"]),
    ("the gpt-oss family", with_config(model_family="gptoss"), ["completion", "thinking"]),
    ("audio that cannot be served", with_config(
        capabilities=("audio", "vision"), model_families=("nemotron_h_omni",)),
     ["vision", "completion"]),
    ("safetensors gemma4", with_config(
        capabilities=("audio", "vision"), model_format="safetensors", renderer="gemma4"),
     ["completion"]),
    ("safetensors glimmer", with_config(
        capabilities=("audio", "vision"), model_format="safetensors", renderer="glimmer"),
     ["vision", "completion"]),
    ("safetensors nemotron", with_config(
        capabilities=("audio", "vision"), model_format="safetensors",
        model_family="nemotron_h_omni"),
     ["completion"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "made", "expected"), CASES, ids=[case[0] for case in CASES])
def test_capabilities_come_in_their_order(name: str, made: Parts, expected: Sequence[str]) -> None:
    assert made.capabilities(look_into_gguf=True) == expected


def test_the_list_does_not_look_into_the_chat_template() -> None:
    made = parts((media.MODEL, facts(tokenizer__chat_template=(STRING, TOOLS_JINJA))))
    assert made.capabilities(look_into_gguf=False) == ["completion"]


def test_a_renderer_takes_the_place_of_the_chat_template() -> None:
    made = parts((media.MODEL, facts(tokenizer__chat_template=(STRING, TOOLS_JINJA))))
    own = replace(made, config=replace(made.config, renderer="own"))
    assert (made.uses_jinja, own.uses_jinja) == (True, False)
    assert own.capabilities(look_into_gguf=True) == ["completion"]


def test_the_last_text_of_a_kind_counts_and_licenses_all() -> None:
    made = parts((media.PROMPT, "old"), (media.TEMPLATE, "new"), (media.LICENSE, "a"),
                 (media.LICENSE, "b"))  # fmt: skip
    assert made.template == "new"
    assert made.all_texts(media.LICENSE) == ["a", "b"]
    assert made.text(media.SYSTEM) is None


@pytest.mark.parametrize("text", ["{", "[1]", "null", '"x"'])
def test_stored_parameters_and_messages_that_are_none_read_as_empty(text: str) -> None:
    made = parts((media.PARAMS, text), (media.MESSAGES, text))
    assert made.parameters == {}
    assert made.messages == []
    assert parts().messages == []


def test_stored_parameters_are_read_with_gos_numbers() -> None:
    made = parts((media.PARAMS, '{"a":-0,"b":[1,"x"]}'), (media.MESSAGES, '[{"role":"user"},3]'))
    assert str(made.parameters) == "{'a': -0.0, 'b': [1.0, 'x']}"
    assert made.messages == [{"role": "user"}]


@pytest.mark.parametrize(
    ("told", "weights", "shown"),
    [
        ("", 1, "F16"),
        ("unknown", 1, "F16"),
        ("Q5", 1, "Q5"),
        ("unknown", 0, "unknown"),
        ("", 0, ""),
    ],
)
def test_the_quantization_is_repaired_from_the_weights(told: str, weights: int, shown: str) -> None:
    made = parts(
        (media.MODEL, facts(general__file_type=(U32, weights))),
        config=ImageConfig(file_type=told),
        origin="base:latest",
    )
    assert made.details()["quantization_level"] == shown
    assert made.details()["parent_model"] == "base:latest"


def test_a_card_has_what_the_list_shows() -> None:
    made = parts(
        (media.MODEL, facts("t", t__context_length=(U32, 128), t__embedding_length=(U32, 32))),
        config=ImageConfig("gguf", "t", ("t",), "1K", "F16"),
    )
    entry = list_entry("a/b:c", "2026-01-01T00:00:00Z", Card.of(made, Digest.of(b"m")).to_json())
    assert json.loads(entry) == {
        "name": "a/b:c",
        "model": "a/b:c",
        "modified_at": "2026-01-01T00:00:00Z",
        "size": 15,
        "digest": Digest.of(b"m").hex,
        "details": {
            "parent_model": "", "format": "gguf", "family": "t", "families": ["t"],
            "parameter_size": "1K", "quantization_level": "F16", "context_length": 128,
            "embedding_length": 32,
        },
        "capabilities": ["completion"],
    }  # fmt: skip


def test_a_stubs_card_points_elsewhere_and_has_no_capabilities() -> None:
    config = ImageConfig(remote_host="http://h:1", remote_model="m", context_length=5)
    card = json.loads(Card.of(parts(config=config), Digest.of(b"m")).to_json())
    assert (card["remote_host"], card["remote_model"]) == ("http://h:1", "m")
    assert card["details"]["context_length"] == 5
    assert "capabilities" not in card
