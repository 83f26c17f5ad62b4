"""Special tokens, whether they are put around a text, and chat templates.

Source: spec inference-and-gguf 9.4, 8.5.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from registry.core.convert.documents import shown
from registry.core.convert.files import Folder
from registry.core.convert.plan import KeyValue, array, flag, text, u32
from registry.core.convert.tokenizer.vocabulary import TokenizerJson, TokenType, Vocabulary
from registry.core.errors import CheckpointInvalid
from registry.core.gguf import Kind

_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so by the engine
    "pad": "padding_token_id",
    "cls": "cls_token_id",
    "mask": "mask_token_id",
}
_MAX_ENDS = 64
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_MAX_TEMPLATES = 16
_MAX_TEMPLATE = 1 << 20


def special_keys(
    folder: Folder, config: Mapping[str, Any], vocabulary: Vocabulary, encodes: bool
) -> Iterator[KeyValue]:
    """The ids of special tokens, and whether they are added. `encodes` is set for encoders."""
    stated = _stated(folder, vocabulary)
    generation = folder.json("generation_config.json") or {}
    found: dict[str, int] = {}
    for name in _KEYS:
        number = stated.get(name)
        if number is None:
            number = _first_id(f"{name}_token_id", config, generation, len(vocabulary.tokens))
        if number is not None:
            found[name] = number
    if "unk" not in found and (unknown := _unknown(vocabulary)) is not None:
        found["unk"] = unknown
    if encodes and vocabulary.model == "bert" and "cls" in found:
        found["bos"] = found["cls"]  # without it the engine takes 101, which is right by chance
    for name, number in found.items():
        yield u32(f"tokenizer.ggml.{_KEYS[name]}", number)
    yield from _end_keys(config, generation, found.get("eos"), len(vocabulary.tokens))
    if vocabulary.model != "bert":  # the engine always puts both around a text there
        yield from _added_keys(folder, found, vocabulary)


def _stated(folder: Folder, vocabulary: Vocabulary) -> dict[str, int]:
    """Ids of the tokens that tokenizer_config.json or special_tokens_map.json name."""
    ids = vocabulary.ids()
    found: dict[str, int] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the latter counts
        values = folder.json(file) or {}
        for name in _KEYS:
            number = ids.get(_spelled(values.get(f"{name}_token")))
            if number is not None:
                found[name] = number
    return found


def _spelled(value: Any) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _first_id(
    key: str, config: Mapping[str, Any], generation: Mapping[str, Any], size: int
) -> int | None:
    for values in (config, generation):
        listed = _ids(values.get(key), size)
        if listed:
            return listed[0]
    return None


def _ids(value: Any, size: int) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [item for item in listed[:_MAX_ENDS] if type(item) is int and 0 <= item < size]


def _unknown(vocabulary: Vocabulary) -> int | None:
    """The token whose type says so: for some algorithms the engine assumes another than 0."""
    numbers = range(len(vocabulary.tokens))
    return next((n for n in numbers if vocabulary.tokens[n].type is TokenType.UNKNOWN), None)


def _end_keys(
    config: Mapping[str, Any], generation: Mapping[str, Any], eos: int | None, size: int
) -> Iterator[KeyValue]:
    """Where a model may end in several ways: all of them, and the first that is not the usual."""
    for values in (generation, config):
        value = values.get("eos_token_id")
        ends = _ids(value, size) if isinstance(value, list) else []
        if len(ends) > 1:
            yield array("tokenizer.ggml.eos_token_ids", Kind.I32, ends)
            others = [end for end in ends if end != eos]
            if others:
                yield u32("tokenizer.ggml.eot_token_id", others[0])
            return


def _added_keys(
    folder: Folder, found: Mapping[str, int], vocabulary: Vocabulary
) -> Iterator[KeyValue]:
    stated = folder.json("tokenizer_config.json") or {}
    document = folder.json("tokenizer.json")
    first, last = _around(TokenizerJson(document)) if document else (None, None)
    ids = vocabulary.ids()
    for name, token in (("bos", first), ("eos", last)):
        key = f"add_{name}_token"
        if isinstance(stated.get(key), bool):
            yield flag(f"tokenizer.ggml.{key}", stated[key])
        elif token is not None:
            yield flag(
                f"tokenizer.ggml.{key}", token != "" and ids.get(token) == found.get(name, -1)
            )


def _around(document: TokenizerJson) -> tuple[str | None, str | None]:
    """The tokens that the post-processor puts before and after a text: empty if it puts none."""
    steps = document.steps("post_processor", "processors")
    if not steps:
        return None, None
    for step in steps:
        single = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(single, list) and single:
            return _special(single[0]), _special(single[-1])
        if step.get("type") in {"RobertaProcessing", "BertProcessing"}:
            return _paired(step.get("cls")), _paired(step.get("sep"))
    return "", ""


def _special(entry: Any) -> str:
    inner = entry.get("SpecialToken") if isinstance(entry, dict) else None
    name = inner.get("id") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _paired(entry: Any) -> str:
    return entry[0] if isinstance(entry, list) and entry and isinstance(entry[0], str) else ""


def template_keys(folder: Folder) -> Iterator[KeyValue]:
    """Chat templates: the one used by default, and others by their names.

    Raises:
        CheckpointInvalid: neither a text nor a list of named texts, or too long.
    """
    templates = _templates(folder)
    for name, template in templates.items():
        if len(template) > _MAX_TEMPLATE:
            raise CheckpointInvalid(f"chat_template {shown(name)} is longer than {_MAX_TEMPLATE}")
        key = "tokenizer.chat_template" + ("" if name == "default" else f".{name}")
        yield text(key, template)
    others = [name for name in templates if name != "default"]
    if others:
        yield array("tokenizer.chat_templates", Kind.STRING, others)


def _templates(folder: Folder) -> dict[str, str]:
    file = folder.text("chat_template.jinja")
    if file is not None:
        return {"default": file}
    for name in ("tokenizer_config.json", "chat_template.json"):
        value = (folder.json(name) or {}).get("chat_template")
        if isinstance(value, str):
            return {"default": value} if value else {}
        if isinstance(value, list):
            return _named(value[:_MAX_TEMPLATES], name)
        if value is not None:
            raise CheckpointInvalid(f"{name}: chat_template must be a text or a list")
    return {}


def _named(listed: list[Any], file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in listed:
        name = entry.get("name") if isinstance(entry, dict) else None
        template = entry.get("template") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(template, str):
            raise CheckpointInvalid(f"{file}: chat_template needs names and texts")
        if not _NAME.fullmatch(name):
            raise CheckpointInvalid(f"{file}: chat_template has a bad name {shown(name)}")
        found.setdefault(name, template)
    return found
