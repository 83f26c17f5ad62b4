import base64
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from registry.core.errors import RegistryError, RequestInvalid, Unavailable, WorkerLost
from registry.core.generation import (
    AnswerEvent,
    Choice,
    Delta,
    End,
    Logprob,
    Metrics,
    Reason,
    Rendered,
    Vectors,
)
from registry.core.gojson import dumps
from registry.core.wishes import ToolCall
from registry.web.joined import Joined
from registry.web.openai_answers import (
    ChatChunks,
    CompletionChunks,
    Head,
    chat_completion,
    completion,
    embedding_list,
)
from tests.support.frames import data_of

HEAD = Head("chatcmpl-1a", 1700000000, "tiny")
END = End(metrics=Metrics(prompt_eval_count=3, eval_count=2))
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
CALL = ToolCall("add", {"b": 1, "a": [2]}, "call_x", 0)
CALL_JSON = {
    "id": "call_x",
    "index": 0,
    "type": "function",
    "function": {"name": "add", "arguments": '{"b":1,"a":[2]}'},
}
LIKELY = Logprob(Choice("hé", -0.5), (Choice("hé", -0.5), Choice("ho", -1.5, (104, 111))))
LIKELY_JSON = {
    "token": "hé",
    "logprob": -0.5,
    "bytes": [104, 195, 169],
    "top_logprobs": [
        {"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]},
        {"token": "ho", "logprob": -1.5, "bytes": [104, 111]},
    ],
}


def chat(events: Sequence[AnswerEvent], *, include_usage: bool = False) -> list[Any]:
    chunks = ChatChunks(HEAD, include_usage=include_usage)
    return data_of(b"".join(chunks.write(event) for event in events))


def choices(frames: list[Any]) -> list[Any]:
    assert frames.pop() == "[DONE]"
    return [frame["choices"][0] for frame in frames]


def delta(told: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": told, "finish_reason": finish}


def test_a_chunk_is_written_as_the_real_server_writes_it() -> None:
    chunks = ChatChunks(HEAD)
    assert chunks.write(Delta("a<b")) == (
        b'data: {"id":"chatcmpl-1a","object":"chat.completion.chunk","created":1700000000,'
        b'"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,'
        b'"delta":{"role":"assistant","content":"a\\u003cb"},"finish_reason":null}]}\n\n'
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [Delta("Hel"), Delta("lo"), END],
            [
                delta({"role": "assistant", "content": "Hel"}),
                delta({"content": "lo"}),
                delta({}, "stop"),
            ],
        ),
        ([END], [delta({"role": "assistant", "content": ""}), delta({}, "stop")]),
        (
            [Delta("x"), End(Reason.LENGTH)],
            [delta({"role": "assistant", "content": "x"}), delta({}, "length")],
        ),
        (
            [Delta(thinking="hm"), Delta("so"), END],
            [
                delta({"role": "assistant", "content": "", "reasoning": "hm"}),
                delta({"content": "so"}),
                delta({}, "stop"),
            ],
        ),
        (  # reasoning and content never share a chunk
            [Delta("so", "hm"), END],
            [
                delta({"role": "assistant", "reasoning": "hm"}),
                delta({"content": "so"}),
                delta({}, "stop"),
            ],
        ),
        (
            [Delta(thinking="hm", tool_calls=(CALL,)), END],
            [
                delta({"role": "assistant", "reasoning": "hm"}),
                delta({"content": "", "tool_calls": [CALL_JSON]}),
                delta({}, "tool_calls"),
            ],
        ),
        (
            [Delta(tool_calls=(CALL,)), End(Reason.LENGTH, made_tool_calls=True)],
            [
                delta({"role": "assistant", "content": "", "tool_calls": [CALL_JSON]}),
                delta({}, "length"),
            ],
        ),
        (
            [Delta("hé", logprobs=(LIKELY,)), END],
            [
                delta({"role": "assistant", "content": "hé"})
                | {"logprobs": {"content": [LIKELY_JSON]}},
                delta({}, "stop"),
            ],
        ),
    ],
)
def test_a_streamed_chat(events: list[AnswerEvent], expected: list[Any]) -> None:
    assert choices(chat(events)) == expected


def test_usage_comes_in_a_chunk_of_its_own_when_it_is_asked_for() -> None:
    frames = chat([Delta("x"), END], include_usage=True)
    assert [frame.get("usage") for frame in frames[:-1]] == [None, None, USAGE]
    assert frames[2]["choices"] == []
    assert {frame["created"] for frame in frames[:-1]} == {1700000000}


def test_a_call_without_an_id_is_given_one() -> None:
    frames = chat([Delta(tool_calls=(ToolCall("f", None, "", 2),)), END])
    call = frames[0]["choices"][0]["delta"]["tool_calls"][0]
    assert call == {
        "id": "call_1a_2",
        "index": 2,
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerLost("gone"), "api_error"),
        (Unavailable("gone"), "api_error"),
        (RequestInvalid("gone"), "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("frames", [ChatChunks(HEAD), CompletionChunks(HEAD)])
def test_a_failure_in_mid_answer_is_the_last_frame(
    frames: ChatChunks | CompletionChunks, error: RegistryError, kind: str
) -> None:
    expected = {"message": "gone", "type": kind, "param": None, "code": None}
    assert data_of(frames.failed(error)) == [{"error": expected}]


def test_only_a_whole_answer_tells_a_rendered_prompt() -> None:
    rendered = Rendered("<|user|>", 2)
    assert ChatChunks(HEAD).write(rendered) == CompletionChunks(HEAD).write(rendered) == b""
    whole = chat_completion(HEAD, Joined(rendered=rendered))
    assert whole["_debug_info"] == {"rendered_template": "<|user|>", "image_count": 2}
    assert whole["choices"][0]["finish_reason"] is None
    text = completion(HEAD, [Joined(rendered=Rendered("p"))])
    assert text["_debug_info"] == {"rendered_template": "p"}
    assert text["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize(
    ("whole", "message", "finish"),
    [
        (Joined("hi", end=END), {"content": "hi"}, "stop"),
        (Joined("hi", "hm", end=END), {"content": "hi", "reasoning": "hm"}, "stop"),
        (Joined(tool_calls=(CALL,)), {"content": "", "tool_calls": [CALL_JSON]}, "tool_calls"),
        (
            Joined(tool_calls=(CALL,), end=End(Reason.LENGTH)),
            {"content": "", "tool_calls": [CALL_JSON]},
            "length",
        ),
        (Joined(end=End(Reason.LOAD)), {"content": ""}, "load"),
    ],
)
def test_a_whole_chat(whole: Joined, message: dict[str, Any], finish: str) -> None:
    assert chat_completion(HEAD, whole) == {
        "id": "chatcmpl-1a",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "tiny",
        "system_fingerprint": "fp_ollama",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
        ],
        "usage": USAGE if whole.end is END else NOTHING,
    }


def test_a_whole_chat_has_the_likeliest_tokens() -> None:
    whole = chat_completion(HEAD, Joined("hé", logprobs=(LIKELY,)))
    assert whole["choices"][0]["logprobs"] == {"content": [LIKELY_JSON]}


def texts(events: Sequence[AnswerEvent], **told: Any) -> list[Any]:
    chunks = CompletionChunks(HEAD, **told)
    return data_of(b"".join(chunks.write(event) for event in events))


def choice(text: str, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "finish_reason": finish}


def test_a_streamed_completion_leaves_thinking_out() -> None:
    frames = texts([Delta(thinking="hm"), Delta("a"), Delta("b"), END])
    assert choices(frames) == [choice("a"), choice("b"), choice("", 0, "stop")]
    assert "usage" not in frames[0]


def test_several_prompts_are_answered_one_after_the_other_in_one_stream() -> None:
    events: list[AnswerEvent] = [
        Delta("a"),
        END,
        Delta("b"),
        End(Reason.LENGTH, END.metrics),
    ]
    frames = texts(events, prompts=2, include_usage=True)
    assert frames.pop() == "[DONE]"
    last = frames.pop()
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert [frame["choices"][0] for frame in frames] == [
        choice("a"),
        choice("", 0, "stop"),
        choice("b", 1),
        choice("", 1, "length"),
    ]
    assert all(frame["usage"] == NOTHING for frame in frames)


def test_a_completion_tells_its_tokens_and_where_they_stand() -> None:
    events = [Delta("hé", logprobs=(LIKELY,)), Delta("!", logprobs=(Logprob(Choice("!", -2)),))]
    frames = texts(events)
    assert [frame["choices"][0]["logprobs"] for frame in frames] == [
        {
            "tokens": ["hé"],
            "token_logprobs": [-0.5],
            "top_logprobs": [{"hé": -0.5, "ho": -1.5}],
            "text_offset": [0],
        },
        {"tokens": ["!"], "token_logprobs": [-2], "top_logprobs": [{}], "text_offset": [2]},
    ]
    whole = completion(HEAD, [Joined("hé!", logprobs=(LIKELY, Logprob(Choice("!", -2))))])
    assert whole["choices"][0]["logprobs"]["text_offset"] == [0, 2]


def test_a_whole_completion_has_a_choice_for_each_prompt() -> None:
    assert completion(HEAD, [Joined("a", end=END), Joined("b", end=End(Reason.LENGTH))]) == {
        "id": "chatcmpl-1a",
        "object": "text_completion",
        "created": 1700000000,
        "model": "tiny",
        "system_fingerprint": "fp_ollama",
        "choices": [choice("a", 0, "stop"), choice("b", 1, "length")],
        "usage": USAGE,
    }


def test_vectors_are_numbers_or_base64() -> None:
    vectors = Vectors([[struct.unpack("<f", struct.pack("<f", 0.1))[0], -1.0]], Metrics())
    numbers = embedding_list("m", vectors, as_base64=False)
    assert dumps(numbers) == (
        b'{"object":"list","data":[{"object":"embedding","embedding":[0.1,-1],"index":0}],'
        b'"model":"m","usage":{"prompt_tokens":0,"total_tokens":0}}'
    )
    text = embedding_list("m", vectors, as_base64=True)["data"][0]["embedding"]
    assert base64.b64decode(text) == struct.pack("<2f", 0.1, -1.0)


def test_no_vectors_are_an_empty_list() -> None:
    vectors = Vectors([], Metrics(prompt_eval_count=4))
    found = embedding_list("m", vectors, as_base64=True)
    assert (found["data"], found["usage"]) == ([], {"prompt_tokens": 4, "total_tokens": 4})
