"""Pieces of OpenAI's requests: parts of messages, images, audio, reasoning effort.

Source: spec ollama-api 19.2.
"""

from typing import Any

from registry.core.errors import RequestInvalid
from registry.core.gojson import JsonInvalid, base64_bytes
from registry.core.gotext import quote
from registry.core.wishes import Message
from registry.web.schemas import SHOWN

_IMAGE_PREFIXES = (
    "data:;base64,",
    *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")),
)


def think_from_effort(effort: str) -> bool | str | None:
    """OpenAI's reasoning effort as Ollama's `think`.

    Raises:
        RequestInvalid: another word.
    """
    if effort == "":
        return None
    if effort == "none":
        return False
    if effort in {"low", "medium", "high", "max"}:
        return effort
    renamed = {"minimal": "low", "xhigh": "max", "ultra": "max"}.get(effort)
    if renamed is None:
        raise RequestInvalid(
            f'invalid reasoning value: {quote(effort[:SHOWN])} (must be "minimal", "low", '
            '"medium", "high", "xhigh", "ultra", "max", or "none")'
        )
    return renamed


def image_from_url(url: str) -> bytes:
    """The bytes of an image given as a data URL; other URLs are never fetched.

    Raises:
        RequestInvalid: anything but base64 of the known image types.
    """
    if url.startswith(("http://", "https://")):
        raise RequestInvalid(
            "image URLs are not currently supported, please use base64 encoded data instead"
        )
    prefix = next((item for item in _IMAGE_PREFIXES if url.startswith(item)), None)
    try:
        if prefix is not None:
            return base64_bytes(url.removeprefix(prefix))
    except JsonInvalid as error:
        raise RequestInvalid("invalid image input") from error
    raise RequestInvalid("invalid image input")


def go_type(value: Any) -> str:
    """Go's name for the type that a JSON value is read into."""
    if value is None:
        return "<nil>"
    names = {bool: "bool", float: "float64", str: "string", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def part_message(role: str, part: Any) -> Message:
    """One part of a message's content as a message of its own.

    Raises:
        RequestInvalid: a part of no known form.
    """
    if not isinstance(part, dict):
        raise RequestInvalid("invalid message format")
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return Message(role=role, content=part["text"])
    if kind == "image_url":
        told = part.get("image_url")
        url = told.get("url") if isinstance(told, dict) else told
        if isinstance(url, str):
            return Message(role=role, images=(image_from_url(url),))
    if kind == "input_audio":
        return Message(role=role, images=(_audio(part.get("input_audio")),))
    raise RequestInvalid("invalid message format")


def _audio(told: Any) -> bytes:
    if not isinstance(told, dict):
        raise RequestInvalid("invalid input_audio format")
    if not isinstance(told.get("data"), str):
        raise RequestInvalid("invalid input_audio format: missing data")
    try:
        return base64_bytes(told["data"])
    except JsonInvalid as error:
        raise RequestInvalid(f"invalid input_audio base64 data: {error}") from error
