import base64
from typing import Any

import pytest

from registry.core.conversation import (
    Stored,
    as_openai,
    as_template,
    images_of,
    media_of,
    of_chat,
    of_generate,
    tagged,
    window,
    without_old_thoughts,
)
from registry.core.errors import RequestInvalid
from registry.core.wishes import ChatWish, GenerateWish, Message, ToolCall

S, U, A = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
STORED = Stored("be kind", (U, A))
PNG, JPEG, GIF = b"\x89PNG\r\n\x1a\n1", b"\xff\xd8\xff2", b"GIF89a3"
KIND = Message("system", "be kind")


def test_what_a_model_brings_along() -> None:
    raw: list[dict[str, Any]] = [{"role": "User", "content": "u"}, {"role": None}, {}]
    assert Stored.of(None, raw) == Stored("", (U, Message(), Message()))


@pytest.mark.parametrize(
    ("wish", "messages"),
    [
        (GenerateWish(prompt="p"), (KIND, U, A, Message("user", "p"))),
        (
            GenerateWish(prompt="p", system="x"),
            (Message("system", "x"), U, A, Message("user", "p")),
        ),
        (GenerateWish(prompt="p", context=(1,)), (KIND, Message("user", "p"))),
    ],
)
def test_a_generate_is_a_conversation(wish: GenerateWish, messages: tuple[Message, ...]) -> None:
    assert of_generate(wish, STORED) == messages


def test_a_model_without_anything_adds_nothing() -> None:
    assert of_generate(GenerateWish(prompt="u"), Stored()) == (Message("user", "u"),)
    assert of_chat(ChatWish(messages=(U,)), Stored()) == (U,)


@pytest.mark.parametrize(
    ("sent", "messages"),
    [
        ((U,), (KIND, U, A, U)),
        ((S, U), (U, A, S, U)),
        ((U, S), (KIND, U, A, U, S)),
        ((), (KIND, U, A)),
        (None, (KIND, U, A)),
    ],
)
def test_the_models_system_text_leads_unless_the_chat_begins_with_one(
    sent: tuple[Message, ...] | None, messages: tuple[Message, ...]
) -> None:
    assert of_chat(ChatWish(messages=sent), STORED) == messages


def test_old_thoughts_are_cut_out() -> None:
    thought = Message("assistant", "<think>hm</think> yes")
    said = Message("assistant", "yes")
    assert without_old_thoughts((U, thought, U, thought)) == (U, said, U, thought)
    assert without_old_thoughts((thought,)) == (thought,)
    begun = Message("assistant", "<thi")
    assert without_old_thoughts((begun, U)) == (begun, U)


def test_a_window_keeps_what_the_system_said() -> None:
    late = Message("system", "late")
    messages = (S, U, late, A, U)
    assert window(messages, 0) == messages
    assert window(messages, 3) == (S, late, A, U)


def test_images_get_numbers_in_the_text() -> None:
    messages = (
        Message("user", "see [img] and [img]", images=(PNG, None, JPEG, GIF)),
        Message("user", "or", images=(PNG,)),
        U,
    )
    assert [message.content for message in tagged(messages)] == [
        "[img-2]see [img-0] and [img-1]",
        "[img-3]or",
        "u",
    ]
    assert images_of(messages) == [PNG, JPEG, GIF, PNG]


@pytest.mark.parametrize(
    ("data", "sense"),
    [(PNG, "vision"), (b"?", "vision"), (b"RIFF1234WAVE", "audio"), (b"ID3", "audio"),
     (b"RIFF1234WEBP", "vision")],
)  # fmt: skip
def test_what_a_model_must_take_in(data: bytes, sense: str) -> None:
    assert media_of([Message(images=(data,))]) == {sense}
    assert media_of([U]) == frozenset()


def test_messages_as_a_template_gets_them() -> None:
    call = ToolCall("f", {"a": 1.0}, "id", 2)
    messages = [
        U,
        Message("assistant", "a", thinking="t", images=(PNG,), tool_calls=(call,)),
        Message("tool", "r", tool_name="f", tool_call_id="id"),
    ]
    function = {"index": 2, "name": "f", "arguments": {"a": 1.0}}
    assert as_template(messages) == [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": "a",
            "thinking": "t",
            "tool_calls": [{"id": "id", "function": function}],
        },
        {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "id"},
    ]


def test_messages_as_an_engine_reads_them() -> None:
    call = ToolCall("f", {"a": 1.0, "b": "<"}, "id")
    messages = [
        Message("user", "u", images=(PNG,)),
        Message("user", images=(JPEG, GIF, b"BM", b"?", b"RIFF1234WAVE", b"\xff\xfb")),
        Message("assistant", "a", thinking="t", tool_calls=(call, ToolCall("g"))),
        Message("tool", "r", tool_name="f", tool_call_id="id"),
    ]

    def url(kind: str, data: bytes) -> dict[str, Any]:
        text = base64.b64encode(data).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{text}"}}

    def sound(kind: str, data: bytes) -> dict[str, Any]:
        text = base64.b64encode(data).decode()
        return {"type": "input_audio", "input_audio": {"data": text, "format": kind}}

    assert as_openai(messages) == [
        {"role": "user", "content": [{"type": "text", "text": "u"}, url("png", PNG)]},
        {
            "role": "user",
            "content": [
                url("jpeg", JPEG),
                url("gif", GIF),
                url("bmp", b"BM"),
                url("jpeg", b"?"),
                sound("wav", b"RIFF1234WAVE"),
                sound("mp3", b"\xff\xfb"),
            ],
        },
        {
            "role": "assistant",
            "reasoning_content": "t",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"a":1,"b":"\\u003c"}'},
                    "id": "id",
                },
                {"type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
            "content": "a",
        },
        {"role": "tool", "tool_call_id": "id", "name": "f", "content": "r"},
    ]


def test_arguments_that_json_cannot_carry_are_refused() -> None:
    with pytest.raises(RequestInvalid, match="'f'"):
        as_openai([Message(tool_calls=(ToolCall("f", {"a": float("nan")}),))])
