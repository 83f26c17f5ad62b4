"""Conversations: which messages a prompt is made of, in which order, and what is left out.

Source: spec ollama-api 14.4, 15 ("System rule"), 17.4.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry.core.errors import RequestInvalid
from registry.core.gojson import dumps
from registry.core.pictures import check_picture
from registry.core.thinking import THINK_TAGS, ThinkingParser
from registry.core.wishes import ChatWish, GenerateWish, Message, ToolCall

IMAGE_TOKENS = 768
"""What an image is taken to cost where nobody has looked at it yet."""
_PLACE = "[img]"
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_MP3 = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a model brings along to every conversation."""

    system: str = ""
    messages: tuple[Message, ...] = ()

    @classmethod
    def of(cls, system: str | None, messages: Sequence[Mapping[str, Any]]) -> "Stored":
        """From the model's layers."""
        found = tuple(
            Message(str(item.get("role") or "").lower(), str(item.get("content") or ""))
            for item in messages
        )
        return cls(system or "", found)


def of_generate(wish: GenerateWish, stored: Stored) -> tuple[Message, ...]:
    """The conversation that a generate stands for."""
    system = wish.system or stored.system
    first = (Message("system", system),) if system else ()
    earlier = stored.messages if wish.context is None else ()
    return (*first, *earlier, Message("user", wish.prompt, images=wish.images))


def of_chat(wish: ChatWish, stored: Stored) -> tuple[Message, ...]:
    """The conversation of a chat: the model's system text leads unless the chat begins with one."""
    sent = wish.messages or ()
    told = bool(sent) and sent[0].role == "system"
    first = () if told or not stored.system else (Message("system", stored.system),)
    return (*first, *stored.messages, *sent)


def without_old_thoughts(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same, thoughts cut out of what the assistant said before the user's last message."""
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    last = users[-1] if users else -1
    return tuple(
        replace(message, content=_unthought(message.content))
        if message.role == "assistant" and place < last
        else message
        for place, message in enumerate(messages)
    )


def _unthought(text: str) -> str:
    parser = ThinkingParser(*THINK_TAGS)
    return parser.feed(text).content + parser.finish().content


def window(messages: Sequence[Message], start: int) -> tuple[Message, ...]:
    """The messages from `start` on, the system messages before it in front."""
    system = (message for message in messages[:start] if message.role == "system")
    return (*system, *messages[start:])


def images_of(messages: Iterable[Message]) -> list[bytes]:
    """All pictures and recordings, in order."""
    return [image for message in messages for image in message.images or () if image is not None]


def media_of(messages: Iterable[Message]) -> frozenset[str]:
    """What a model must be able to take in: `vision`, `audio`, both or nothing."""
    return frozenset("audio" if _sound(image) else "vision" for image in images_of(messages))


def check_media(messages: Iterable[Message]) -> None:
    """Let a conversation pass whose pictures an engine can decode.

    Raises:
        RequestInvalid: one that it cannot.
    """
    for image in images_of(messages):
        if not _sound(image):
            check_picture(image)


def tagged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Each image's number in the text: in place of an `[img]`, else in front of it."""
    count = 0
    marked: list[Message] = []
    for message in messages:
        if not message.images:
            marked.append(message)
            continue
        prefix, content = "", message.content
        for _ in images_of((message,)):
            tag = f"[img-{count}]"
            count += 1
            if _PLACE in content:
                content = content.replace(_PLACE, tag, 1)
            else:
                prefix += tag
        marked.append(replace(message, content=prefix + content))
    return tuple(marked)


def as_template(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages as a Go template gets them; images stand in the text by number."""
    return [_for_template(message) for message in messages]


def _for_template(message: Message) -> dict[str, Any]:
    converted: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        converted["thinking"] = message.thinking
    if message.tool_calls:
        converted["tool_calls"] = [call.as_json() for call in message.tool_calls]
    if message.tool_name or message.tool_call_id:
        converted |= {"tool_name": message.tool_name, "tool_call_id": message.tool_call_id}
    return converted


def as_openai(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages as an engine's chat endpoint reads them.

    Raises:
        RequestInvalid: arguments of a tool call that JSON cannot carry.
    """
    return [_openai(message) for message in messages]


def _openai(message: Message) -> dict[str, Any]:
    converted: dict[str, Any] = {"role": message.role}
    if message.tool_call_id:
        converted["tool_call_id"] = message.tool_call_id
    if message.tool_name:
        converted["name"] = message.tool_name
    if message.thinking:
        converted["reasoning_content"] = message.thinking
    if message.tool_calls:
        converted["tool_calls"] = [_call(call) for call in message.tool_calls]
    media = images_of((message,)) if message.images else []
    if not media:
        return {**converted, "content": message.content}
    text = [{"type": "text", "text": message.content}] if message.content else []
    return {**converted, "content": [*text, *map(_media, media)]}


def _call(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = dumps(dict(call.arguments or {})).decode()
    except ValueError as error:
        raise RequestInvalid(f"invalid arguments of the tool call {call.name[:80]!r}") from error
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "function": function, **({"id": call.id} if call.id else {})}


def _media(data: bytes) -> dict[str, Any]:
    text = base64.b64encode(data).decode()
    if sound := _sound(data):
        return {"type": "input_audio", "input_audio": {"data": text, "format": sound}}
    kind = next((kind for sign, kind in _SIGNATURES if data.startswith(sign)), "image/jpeg")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{text}"}}


def _sound(data: bytes) -> str:
    """The format of a recording; empty for anything else."""
    if data.startswith(b"RIFF") and data[8:12] != b"WEBP":
        return "wav"
    return "mp3" if data.startswith(_MP3) else ""
