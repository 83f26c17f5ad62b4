"""Which chat templates are recognised, and what the models get."""

import hashlib
import json
import re
import time
from pathlib import Path

import pytest
from gguf import GGUFReader

from registry.core.builtin_templates import PROMPT_FORMATS, detect
from registry.core.builtin_templates.chat_templates import CHAT_TEMPLATES
from registry.core.builtin_templates.digests import DIGESTS
from registry.core.parameters import params_blob
from registry.core.template import GoTemplate

GOLDEN = Path(__file__).parents[2] / "golden"


def chat_template(name: str) -> str:
    field = GGUFReader(GOLDEN / "inputs" / name).fields["tokenizer.chat_template"]
    return str(field.contents())


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("chatml.gguf", "chatml"),
        ("llama-chat.gguf", "llama3-instruct"),
        ("unknown-template.gguf", None),
        ("tools-template.gguf", None),
    ],
)
def test_recorded_models_get_the_template_the_ollama_server_gave_them(
    file: str, name: str | None
) -> None:
    found = detect(chat_template(file))
    assert (found.name if found else None) == name


@pytest.mark.parametrize("name", ["chatml", "llama3-instruct"])
def test_recorded_texts_are_ours_to_the_byte(name: str) -> None:
    recorded = (GOLDEN / "cases" / "04-create.json").read_text(encoding="utf-8")
    assert json.dumps(PROMPT_FORMATS[name].template, ensure_ascii=False) in recorded


def test_a_phi_3_model_gets_layers_of_known_digests() -> None:
    found = detect(CHAT_TEMPLATES["phi-3"][0])
    assert found is PROMPT_FORMATS["phi-3"]
    template, params = found.template.encode(), params_blob({"stop": found.stop})
    assert hashlib.sha256(template).hexdigest() == (
        "35360843d0c84fb1506952a131bbef13cd2bb4a541251f22535170c05b56e672"
    )
    assert hashlib.sha256(params).hexdigest() == (
        "0d79f567714c62c048378f2107fb332dabee0135d080c302d884317da9433cc5"
    )


@pytest.mark.parametrize("name", sorted(CHAT_TEMPLATES))
def test_every_known_text_is_recognised_even_when_touched_up(name: str) -> None:
    for text in CHAT_TEMPLATES[name]:
        assert detect(text) is PROMPT_FORMATS[name]
        assert detect(text + " {#- a note of its author -#}\n") is PROMPT_FORMATS[name]


def test_a_text_known_by_its_digest_is_recognised_to_the_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "{{ a text of which only the digest is known }}é"
    assert detect(text) is None
    digest = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setitem(DIGESTS, digest, "chatqa")
    assert detect(text) is PROMPT_FORMATS["chatqa"]
    assert detect(text + " ") is None


@pytest.mark.parametrize(("digest", "name"), DIGESTS.items())
def test_every_digest_is_one_and_names_a_format(digest: str, name: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert name in PROMPT_FORMATS


@pytest.mark.parametrize(("added", "near"), [(99, True), (100, False)])
def test_a_text_is_near_below_a_hundred_edits(added: int, near: bool) -> None:
    text = CHAT_TEMPLATES["command-r"][0] + "\0" * added
    assert (detect(text) is not None) is near


def test_bytes_are_counted_and_not_characters() -> None:
    text = CHAT_TEMPLATES["command-r"][0]
    assert detect(text + "é" * 49) is not None
    assert detect(text + "é" * 50) is None


@pytest.mark.parametrize("text", ["", "{{ messages }}", "\udcff", "x" * 4600, "x" * (1 << 20)])
def test_other_texts_are_not_recognised_and_cost_little(text: str) -> None:
    started = time.perf_counter()
    assert detect(text) is None
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("name", PROMPT_FORMATS)
def test_every_builtin_is_a_template_of_messages_with_stops(name: str) -> None:
    builtin = PROMPT_FORMATS[name]
    template = GoTemplate.read(builtin.template)
    assert "messages" in template.variables
    assert template.capabilities == ()
    assert builtin.stop and all(builtin.stop)


def test_twenty_formats_are_known_by_the_names_that_clients_show() -> None:
    assert sorted(PROMPT_FORMATS) == [
        *("alfred", "alpaca", "chatml", "chatqa", "codellama-70b-instruct", "command-r"),
        *("falcon-instruct", "gemma-instruct", "gemma3-instruct", "granite-instruct"),
        *("llama2-chat", "llama3-instruct", "magicoder", "mistral-instruct", "openchat", "phi-3"),
        *("solar-instruct", "starcoder2-instruct", "vicuna", "zephyr"),
    ]
