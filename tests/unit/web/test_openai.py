import json

import pytest

from registry.web.openai import render_anthropic, render_openai


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (404, "not_found_error"), (500, "api_error")],
)
def test_openai_errors_name_their_kind(status: int, kind: str) -> None:
    response = render_openai(status, "<why>")
    assert response.status_code == status
    assert bytes(response.body) == (
        b'{"error":{"message":"\\u003cwhy\\u003e","type":"%b","param":null,"code":null}}'
        % kind.encode()
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, "permission_error"), (503, "overloaded_error"), (418, "api_error")],
)
def test_anthropic_errors_name_their_kind(status: int, kind: str) -> None:
    response = render_anthropic(status, "why", "1a")
    assert json.loads(bytes(response.body)) == {
        "type": "error",
        "error": {"type": kind, "message": "why"},
        "request_id": "req_1a",
    }


def test_a_request_id_gets_its_prefix_once() -> None:
    assert json.loads(bytes(render_anthropic(400, "x", "req_2").body))["request_id"] == "req_2"
