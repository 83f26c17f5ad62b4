"""Names, labels and addresses of workers: what an administrator may write."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from registry.core.errors import RequestInvalid

KINDS = ("ollama", "openai")
LABELS_MAX = 20
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_worker_name(text: str) -> str:
    """A worker's name, in lower case.

    Raises:
        RequestInvalid: other characters than letters, digits, `_.-`, or too many.
    """
    name = text.lower()
    if not _WORD.fullmatch(name):
        raise RequestInvalid(
            "a worker's name is of letters, digits and _.- and has 63 characters at most"
        )
    return name


def check_labels(labels: Iterable[str]) -> frozenset[str]:
    """Labels, in lower case.

    Raises:
        RequestInvalid: one that is no word, or too many.
    """
    found = frozenset(label.lower() for label in labels)
    if len(found) > LABELS_MAX or not all(_WORD.fullmatch(label) for label in found):
        raise RequestInvalid(
            "labels are up to 20 words of letters, digits and _.- with 63 characters at most"
        )
    return found


def check_server_url(url: str) -> str:
    """The URL of a server; `/v1` and `/api` at its end are dropped.

    Raises:
        RequestInvalid: not http or https, or with a user, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise RequestInvalid("the worker's URL cannot be read") from error
    is_text = url.isascii() and url.strip().isprintable() and " " not in url.strip()
    if parts.scheme not in _DEFAULT_PORTS or not port or not parts.hostname or not is_text:
        raise RequestInvalid("the worker's URL must begin with http:// or https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise RequestInvalid("the worker's URL must have no user name, query or fragment")
    path = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/api")
    return f"{parts.scheme}://{parts.netloc}{path}"
