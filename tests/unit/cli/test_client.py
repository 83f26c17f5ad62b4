"""The HTTP client: what it asks, what it makes of answers, how it words failures."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.cli.client import Client, Report, is_loopback, server_url
from registry.core.digest import Digest
from registry.core.errors import (
    ModelUnknown,
    OperationFailed,
    RegistryError,
    RequestInvalid,
    UpstreamFailed,
    UpstreamUnreachable,
)
from tests.support.api import Answer, FakeApi, serving
from tests.support.certificates import self_signed

DIGEST = Digest.of(b"abc")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving() as api:
        yield api


@pytest.fixture
def client(api: FakeApi) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        (":5000", "http://127.0.0.1:5000"),
        ("models.example", "http://models.example:11434"),
        ("http://models.example", "http://models.example"),
        ("https://models.example/", "https://models.example"),
        ("https://models.example:8443/library/", "https://models.example:8443/library"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::1]:9", "http://[::1]:9"),
        ("[::]:9", "http://[::1]:9"),
        ("host:0", "http://host:0"),
        ("  'models.example:1' ", "http://models.example:1"),
    ],
)
def test_a_server_is_named_as_the_stock_tools_name_it(text: str, url: str) -> None:
    assert server_url(text) == url


@pytest.mark.parametrize(
    "text", ["ftp://host", "host:port", "host:99999", "http://me:secret@host", "a b", "[::1"]
)
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="not a server address"):
        server_url(text)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://192.168.0.1", False),
        ("http://localhost.example", False),
    ],
)
def test_loopback_is_recognised(url: str, local: bool) -> None:
    assert is_loopback(url) is local


def test_an_authority_of_the_environment_counts_on_this_machine_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = self_signed(tmp_path)
    with serving(tls=context) as api:
        api.answers = {"GET /api/version": Answer(json={"version": "1.2.3"})}
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with Client(api.url) as stranger, pytest.raises(UpstreamUnreachable):
            stranger.version()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        with Client(api.url) as known:
            assert known.version() == "1.2.3"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ({"status": "success"}, Report("success")),
        (
            {"status": "pulling ab", "digest": "sha256:ab", "total": 9, "completed": 3},
            Report("pulling ab", "sha256:ab", 9, 3),
        ),
        ({"status": 5, "digest": None, "total": "9", "completed": -1}, Report("")),
        ({}, Report("")),
    ],
)
def test_a_line_of_progress_is_read(line: dict[str, Any], report: Report) -> None:
    assert Report.from_line(line) == report


def test_each_call_asks_what_the_documentation_says(api: FakeApi, client: Client) -> None:
    success = Answer(lines=[{"status": "success"}])
    api.answers = {
        "GET /api/version": Answer(json={"version": "1.2.3"}, headers={"X-Thing": "a"}),
        "GET /api/tags": Answer(json={"models": [{"name": "m:latest"}, "no model"]}),
        "POST /api/show": Answer(json={"template": "t"}),
        "POST /api/copy": Answer(),
        "DELETE /api/delete": Answer(),
        "POST /api/create": success,
        "POST /api/pull": success,
        "POST /api/push": success,
    }
    assert client.version() == "1.2.3"
    assert client.models() == [{"name": "m:latest"}]
    assert client.show("m", verbose=True) == {"template": "t"}
    client.copy("m", "n")
    client.delete("m")
    assert list(client.create({"model": "m", "from": "n"})) == [Report("success")]
    assert list(client.pull("m")) == [Report("success")]
    assert list(client.push("m", insecure=True)) == [Report("success")]
    bodies = {asked.path: asked.json for asked in api.asked if asked.body}
    assert bodies == {
        "/api/show": {"model": "m", "verbose": True},
        "/api/copy": {"source": "m", "destination": "n"},
        "/api/delete": {"model": "m"},
        "/api/create": {"model": "m", "from": "n"},
        "/api/pull": {"model": "m"},
        "/api/push": {"model": "m", "insecure": True},
    }


def test_a_server_may_lie_under_a_path(api: FakeApi) -> None:
    api.answers["GET /library/api/version"] = Answer(json={"version": "1"})
    with Client(server_url(f"{api.url}/library/")) as client:
        assert client.version() == "1"


def test_a_blob_is_asked_for_and_sent_with_its_length(api: FakeApi, client: Client) -> None:
    assert not client.has_blob(DIGEST)
    client.upload(DIGEST, iter([b"a", b"bc"]), 3)
    assert client.has_blob(DIGEST)
    assert api.blobs == {str(DIGEST): b"abc"}
    assert api.last(f"/api/blobs/{DIGEST}").method == "HEAD"
    assert any(asked.headers.get("Content-Length") == "3" for asked in api.asked)


def test_lines_are_put_together_from_pieces(api: FakeApi, client: Client) -> None:
    api.answers["POST /api/pull"] = Answer(
        lines=[b'{"status":"pull', b'ing"}\n\n{"status":', b'"success"}']
    )
    assert [report.status for report in client.pull("m")] == ["pulling", "success"]


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (Answer(json={"error": "model 'm' not found"}, status=404), ModelUnknown, "model 'm' not"),
        (Answer(json={"error": "invalid model name"}, status=400), RequestInvalid, "invalid model"),
        (Answer(json={"error": "disk full"}, status=507), OperationFailed, "disk full"),
        (Answer(body=b"<html>", status=502), UpstreamFailed, "answered 502 Bad Gateway"),
        (Answer(body=b"404 page not found", status=404), UpstreamFailed, "is it a model library"),
        (Answer(body=b"x" * 100_000, status=500), UpstreamFailed, "answered 500"),
        (Answer(body=b"[" * 100_000), UpstreamFailed, "does not answer like a model library"),
        (Answer(body=b"<html>"), UpstreamFailed, "does not answer like a model library"),
        (Answer(json=[1]), UpstreamFailed, "does not answer like a model library"),
    ],
)
def test_a_failed_call_is_told_in_a_sentence(
    api: FakeApi, client: Client, answer: Answer, error: type[RegistryError], sentence: str
) -> None:
    api.answers["POST /api/show"] = answer
    with pytest.raises(error, match=sentence):
        client.show("m")


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (Answer(json={"error": "invalid model name"}, status=400), RequestInvalid, "invalid model"),
        (Answer(lines=[{"error": "no such host"}]), OperationFailed, "^no such host$"),
        (Answer(lines=[{"status": "pulling manifest"}]), OperationFailed, "broke off the answer"),
        (Answer(lines=[{"status": "a"}], breaks_off=True), UpstreamUnreachable, "connection to"),
        (Answer(lines=[b"pulling\n"]), UpstreamFailed, "does not answer like a model library"),
        (Answer(lines=[b" " * (9 << 20)]), UpstreamFailed, "line of more than 8 MiB"),
    ],
)
def test_a_failed_stream_is_told_in_a_sentence(
    api: FakeApi, client: Client, answer: Answer, error: type[RegistryError], sentence: str
) -> None:
    api.answers["POST /api/pull"] = answer
    with pytest.raises(error, match=sentence):
        list(client.pull("m"))


def test_a_list_that_is_none_is_refused(api: FakeApi, client: Client) -> None:
    api.answers["GET /api/tags"] = Answer(json={"models": "none"})
    with pytest.raises(UpstreamFailed, match="no list of models"):
        client.models()


def test_failures_of_blobs_are_told(api: FakeApi, client: Client) -> None:
    path = f"/api/blobs/{DIGEST}"
    api.answers[f"HEAD {path}"] = Answer(status=400)
    api.answers[f"POST {path}"] = Answer(json={"error": "digest mismatch"}, status=400)
    with pytest.raises(UpstreamFailed, match="400 Bad Request"):
        client.has_blob(DIGEST)
    with pytest.raises(RequestInvalid, match="digest mismatch"):
        client.upload(DIGEST, [b"abc"], 3)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_does_not_run_is_told_with_what_to_type() -> None:
    port = _closed_port()
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(UpstreamUnreachable, match=f"start one with `registry serve --port {port}`"),
    ):
        client.models()


def test_a_remote_server_that_does_not_answer_is_not_started_here() -> None:
    with (
        Client("http://server.invalid:1") as client,
        pytest.raises(UpstreamUnreachable, match="is the address right"),
    ):
        client.models()
