"""A client of the HTTP API for the commands: blocking calls, streams as iterators.

It works against any server that speaks the Ollama API. Foreign errors become those of
`core/errors.py` here, worded for somebody at a terminal: what went wrong and what to type next.

Source: Ollama docs/api.md; spec ollama-api 2 and 4.
"""

import ipaddress
import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from registry import __version__
from registry.core.digest import Digest
from registry.core.errors import (
    ModelUnknown,
    OperationFailed,
    RegistryError,
    RequestInvalid,
    UpstreamFailed,
    UpstreamUnreachable,
)
from registry.core.gojson import dumps

DEFAULT_PORT = 11434
DEFAULT_SERVER = f"http://127.0.0.1:{DEFAULT_PORT}"

_LINE_BYTES = 8 << 20  # longest line of a stream that is read; Ollama's own limit
_ERROR_BYTES = 64 << 10  # of an answer that tells an error
_ERROR_CHARACTERS = 2000  # of such an answer shown when it is not ours
_PLAIN = httpx2.Timeout(60.0, connect=10.0)
# A server that hashes a large blob says nothing for minutes: a stream has no read limit.
_STREAM = httpx2.Timeout(60.0, connect=10.0, read=None)
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


@dataclass(frozen=True, slots=True)
class Report:
    """One line of a progress stream.

    `total` and `completed` are bytes and mean something only if `digest` is set; `total` is 0 when
    the server does not know it.
    """

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Read a line; fields of a wrong type count as missing."""
        status, digest = line.get("status"), line.get("digest")
        return cls(
            status if isinstance(status, str) else "",
            digest if isinstance(digest, str) else "",
            _count(line.get("total")),
            _count(line.get("completed")),
        )


def server_url(text: str) -> str:
    """The base URL that `--server`, `REGISTRY_SERVER` or `OLLAMA_HOST` means; no final slash.

    Accepted are `host`, `host:port`, `:port` and URLs, a path prefix included. Without a scheme the
    port is 11434 if not given; an address that means "all interfaces" is reached by loopback.

    Raises:
        RequestInvalid: it names no server.
    """
    text = text.strip().strip("\"'")
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise RequestInvalid(f"not a server address: {text!r}") from error
    if scheme not in {"http", "https"} or parts.username is not None or any(map(str.isspace, rest)):
        raise RequestInvalid(
            f"not a server address: {text!r}; give HOST:PORT or http(s)://HOST[:PORT]"
        )
    host = _WILDCARDS.get(host, host)
    if not found:
        port = DEFAULT_PORT if port is None else port
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether the server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """Calls of one server. A context manager: leaving it closes the connections.

    Every method raises `UpstreamUnreachable` if no server answers, `ModelUnknown` for 404,
    `RequestInvalid` for other faults of the request, `OperationFailed` for what the server could
    not do, and `UpstreamFailed` if the answer is not one of this API.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx2.Client(
            base_url=url,
            timeout=_PLAIN,
            headers={"User-Agent": f"registry/{__version__}", "Accept": "application/json"},
            # An HTTP proxy of the environment cannot reach this machine's own loopback; the
            # authorities it names (SSL_CERT_FILE) count there too.
            trust_env=not is_loopback(url),
            verify=httpx2.create_ssl_context() if url.startswith("https:") else True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def version(self) -> str:
        """The Ollama version whose API the server speaks."""
        return str(self._object("GET", "/api/version").get("version", ""))

    def software(self) -> str:
        """The server's own name and version: its `Server` header, "" if it sends none."""
        with self._sentences():
            return self._http.head("/api/version").headers.get("Server", "")

    def models(self) -> list[dict[str, Any]]:
        """The items of `/api/tags`, in the server's order."""
        found = self._object("GET", "/api/tags").get("models")
        if not isinstance(found, list):
            raise UpstreamFailed(f"{self.url} sent no list of models")
        return [item for item in found if isinstance(item, dict)]

    def show(self, name: str, *, verbose: bool = False) -> dict[str, Any]:
        """What `/api/show` tells of a model."""
        return self._object("POST", "/api/show", {"model": name, "verbose": verbose})

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name."""
        self._call("POST", "/api/copy", {"source": source, "destination": destination})

    def delete(self, name: str) -> None:
        """Delete a model's name."""
        self._call("DELETE", "/api/delete", {"model": name})

    def load(self, name: str) -> None:
        """Have a model loaded; returns when it is."""
        path, body = "/api/generate", {"model": name, "stream": False}
        if "embedding" in self.show(name).get("capabilities", ()):
            path, body = "/api/embed", {"model": name, "input": []}
        with self._sentences():
            answer = self._http.post(path, json=body, timeout=_STREAM)
        if answer.status_code != 200:
            raise _failure(answer, self.url)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the server has the blob already."""
        with self._sentences():
            answer = self._http.head(f"/api/blobs/{digest}")
        if answer.status_code == 404:
            return False
        if answer.status_code != 200:
            raise _failure(answer, self.url)
        return True

    def upload(self, digest: Digest, chunks: Iterable[bytes], size: int) -> None:
        """Send a blob of `size` bytes; the length goes first, so that the server can plan."""
        with self._sentences():
            answer = self._http.post(
                f"/api/blobs/{digest}",
                content=chunks,
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                timeout=_STREAM,
            )
        if answer.status_code not in {200, 201}:
            raise _failure(answer, self.url)

    def create(self, request: dict[str, Any]) -> Iterator[Report]:
        """Create a model; see `stream`."""
        return self.stream("/api/create", request)

    def pull(self, name: str, *, insecure: bool = False) -> Iterator[Report]:
        """Have the server fetch a model from another registry; see `stream`."""
        return self.stream("/api/pull", _transfer(name, insecure))

    def push(self, name: str, *, insecure: bool = False) -> Iterator[Report]:
        """Have the server send a model to another registry; see `stream`."""
        return self.stream("/api/push", _transfer(name, insecure))

    def stream(self, path: str, request: dict[str, Any]) -> Iterator[Report]:
        """POST and yield the reports as they arrive, the last of them `success`.

        Closing the iterator closes the connection, which tells the server that nobody waits.

        Raises:
            OperationFailed: the stream tells an error, or ends without `success`.
        """
        last = ""
        # Numbers of a Modelfile go out as the stock client writes them.
        call = self._http.build_request(
            "POST",
            path,
            content=dumps(request),
            headers={"Content-Type": "application/json"},
            timeout=_STREAM,
        )
        with self._sentences(), closing(self._http.send(call, stream=True)) as answer:
            if answer.status_code != 200:
                raise _failure(answer, self.url)
            for line in _lines(answer.iter_bytes(), self.url):
                if "error" in line:
                    raise OperationFailed(str(line["error"]))
                report = Report.from_line(line)
                last = report.status
                yield report
        if last != "success":
            raise OperationFailed(f"{self.url} broke off the answer; try again")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        with self._sentences():
            answer = self._http.request(method, path, json=body)
        if answer.status_code != 200:
            raise _failure(answer, self.url)
        return answer

    def _object(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return _parse(self._call(method, path, body).content, self.url)

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Word the failures of the network for a reader."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise UpstreamUnreachable(_unreachable(self.url)) from error
        except httpx2.TimeoutException as error:
            raise UpstreamUnreachable(f"{self.url} did not answer in time") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise UpstreamUnreachable(f"the connection to {self.url} broke: {error}") from error


def _transfer(name: str, insecure: bool) -> dict[str, Any]:
    return {"model": name, "insecure": True} if insecure else {"model": name}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _unreachable(url: str) -> str:
    if not is_loopback(url):
        return f"no server answers at {url}; is the address right (--server, REGISTRY_SERVER)?"
    port = urlsplit(url).port
    start = "registry serve" if port == DEFAULT_PORT else f"registry serve --port {port or 80}"
    return (
        f"no server answers at {url}; start one with `{start}`, "
        "or name another with --server or REGISTRY_SERVER"
    )


def _parse(data: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed(_foreign(url)) from error
    if not isinstance(value, dict):
        raise UpstreamFailed(_foreign(url))
    return value


def _foreign(url: str) -> str:
    return f"{url} does not answer like a model library; is the address right?"


def _lines(chunks: Iterable[bytes], url: str) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, one a line; an incomplete last line counts too."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE_BYTES:
            raise UpstreamFailed(f"{url} sent a line of more than {_LINE_BYTES >> 20} MiB")
        for line in whole:
            if line.strip():
                yield _parse(line, url)
    if rest.strip():
        yield _parse(rest, url)


def _failure(answer: httpx2.Response, url: str) -> RegistryError:
    """The error that an answer with another status than expected tells."""
    sentence = _told(answer)
    status = answer.status_code
    if not sentence:
        reason = f"{status} {answer.reason_phrase}".strip()
        return UpstreamFailed(f"{url} answered {reason}; is it a model library?")
    if status == 404:
        return ModelUnknown(sentence)
    return RequestInvalid(sentence) if status < 500 else OperationFailed(sentence)


def _told(answer: httpx2.Response) -> str:
    """The sentence in `{"error": …}`; "" if the body is something else."""
    body = b""
    for chunk in answer.iter_bytes() if not answer.is_stream_consumed else [answer.content]:
        body += chunk
        if len(body) > _ERROR_BYTES:
            return ""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    told = value.get("error") if isinstance(value, dict) else None
    return told[:_ERROR_CHARACTERS] if isinstance(told, str) else ""
