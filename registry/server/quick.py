"""Quick answers: which requests may have one, and how its head begins."""

from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

QUICK_IN_A_ROW = 32  # of pipelined requests: other connections have their turn, too
_METHODS = frozenset({b"GET", b"HEAD"})
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


def is_plain(parser: Any, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request is a GET or HEAD without a body on a connection that goes on after it."""
    if parser.get_method() not in _METHODS or parser.get_http_version() != "1.1":
        return False
    if parser.should_upgrade() or not parser.should_keep_alive():
        return False
    for name, _ in headers:  # noqa: SIM110 - half the cost of all()
        if name in _UNUSUAL:
            return False
    return True


class Opening:
    """The beginning of a head: its first line and the server's own headers."""

    def __init__(self) -> None:
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._text = b""

    def of(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Worded anew only for another list; uvicorn makes one each second, for the date."""
        if headers is not self._headers:
            self._headers = headers
            lines = [b"%b: %b\r\n" % (name.lower(), value) for name, value in headers]
            self._text = b"".join([STATUS_LINE[200], *lines])
        return self._text
