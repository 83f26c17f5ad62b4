"""Requests of the inference endpoints; see also `test_go_json_vectors.py`."""

import pytest

from registry.core.duration import LONGEST
from registry.web.inference_schemas import ChatRequest, GenerateRequest

S = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ('"0"', 0),
        ('"0s"', 0),
        ("5", 5 * S),
        ("1.5", S + S // 2),
        ("-1", LONGEST),
        ('"-5m"', LONGEST),
        ('"5m"', 300 * S),
        ("1e300", LONGEST // S * S),
        ("null", None),
    ],
)
def test_keep_alive_is_read_in_nanoseconds(text: str, ns: int | None) -> None:
    assert GenerateRequest.from_json(b'{"keep_alive":%s}' % text.encode()).keep_alive == ns


@pytest.mark.parametrize(
    ("text", "think"),
    [("true", True), ("false", False), ('"high"', "high"), ("null", None)],
)
def test_think_is_a_flag_or_a_level(text: str, think: object) -> None:
    assert ChatRequest.from_json(b'{"think":%s}' % text.encode()).think == think


def test_images_are_decoded() -> None:
    assert GenerateRequest.from_json(b'{"images":["Zm9v"]}').images == (b"foo",)


def test_tools_keep_the_order_of_their_properties() -> None:
    request = ChatRequest.from_json(
        b'{"tools":[{"function":{"parameters":{"properties":{"z":{"type":"x"},"a":{}}}}}]}'
    )
    assert request.tools is not None
    assert list(request.tools[0]["function"]["parameters"]["properties"]) == ["z", "a"]
