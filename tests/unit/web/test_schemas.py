"""Requests of the management endpoints; see also `test_go_json_vectors.py`."""

import pytest

from registry.core.errors import RequestInvalid
from registry.core.gojson import dumps
from registry.web.schemas import (
    CopyRequest,
    CreateRequest,
    DeleteRequest,
    JsonRequest,
    PullRequest,
    PushRequest,
    ShowRequest,
)

NAMED: list[type[DeleteRequest | PullRequest | PushRequest | ShowRequest | CreateRequest]] = [
    CreateRequest,
    ShowRequest,
    DeleteRequest,
    PullRequest,
    PushRequest,
]


@pytest.mark.parametrize("kind", [*NAMED, CopyRequest])
def test_a_missing_body_is_told(kind: type[JsonRequest]) -> None:
    with pytest.raises(RequestInvalid, match=r"^missing request body$"):
        kind.from_json(b" \n")


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"name":"n"}', "n"),
        (b'{"name":"n","model":""}', "n"),
        (b'{"name":"n","model":"m"}', "m"),
        (b"null", ""),
    ],
)
def test_the_old_name_stands_in_for_a_missing_model(
    kind: type[ShowRequest], body: bytes, model: str
) -> None:
    assert kind.from_json(body).model == model


def test_what_a_body_does_not_say_can_be_told_from_what_it_says() -> None:
    assert PullRequest.from_json(b"{}").stream is None
    assert PullRequest.from_json(b'{"stream":false}').stream is False
    assert CreateRequest.from_json(b"{}").files is None
    assert CreateRequest.from_json(b'{"files":{}}').files == {}


def test_messages_are_given_as_the_api_writes_them() -> None:
    body = (
        b'{"from":"b","messages":[{"ROLE":"USER","content":"hi","unknown":1,"images":["Zm9v",null],'
        b'"tool_calls":[{"id":"1","function":{"name":"f","arguments":{"z":1,"a":[2.5]}}},{},'
        b'{"function":{"arguments":null}}]}]}'
    )
    request = CreateRequest.from_json(body)
    assert request.origin == "b"
    assert dumps(list(request.messages)) == (
        b'[{"role":"user","content":"hi","images":["Zm9v",null],"tool_calls":['
        b'{"id":"1","function":{"index":0,"name":"f","arguments":{"z":1,"a":[2.5]}}},'
        b'{"function":{"index":0,"name":"","arguments":{}}},'
        b'{"function":{"index":0,"name":"","arguments":null}}]}]'
    )


def test_passwords_do_not_show_in_logs() -> None:
    request = PullRequest.from_json(b'{"model":"m","password":"secret"}')
    assert request.password == "secret"
    assert "secret" not in repr(request)
