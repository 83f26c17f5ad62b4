"""Small multipart forms, as clients upload recordings with them: the parts by name, in memory.

The body's size is bounded by whoever read it. Source: RFC 7578, RFC 2046 section 5.1.
"""

from collections.abc import Mapping
from email.message import Message

from registry.core.errors import RequestInvalid

_MAX_PARTS = 100
_MAX_HEADERS = 10_000


def parse_form(content_type: str, body: bytes) -> Mapping[str, bytes]:
    """The content of each named part; of several of one name the first.

    Raises:
        RequestInvalid: not a multipart form, or a broken one; the message is Go's.
    """
    head = Message()
    head["content-type"] = content_type
    if head.get_content_type() != "multipart/form-data":
        raise _refused("request Content-Type isn't multipart/form-data")
    boundary = head.get_boundary()
    if not boundary:
        raise _refused("no multipart boundary param in Content-Type")
    sections = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "replace"), _MAX_PARTS)
    if len(sections) < 2 or not any(item.startswith(b"--") for item in sections[1:]):
        raise _refused("multipart: NextPart: EOF")
    found: dict[str, bytes] = {}
    for section in sections[1:]:
        if section.startswith(b"--"):
            break
        name, content = _part(section)
        if name is not None:
            found.setdefault(name, content)
    return found


def _part(section: bytes) -> tuple[str | None, bytes]:
    lines, blank, content = section.partition(b"\r\n\r\n")
    if not blank or len(lines) > _MAX_HEADERS:
        raise _refused("multipart: NextPart: malformed part header")
    head = Message()
    for line in lines.split(b"\r\n"):
        key, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon and key.strip().lower() == "content-disposition":
            head["content-disposition"] = value.strip()
    name = head.get_param("name", header="content-disposition")
    return (name if isinstance(name, str) else None), content


def _refused(why: str) -> RequestInvalid:
    return RequestInvalid(f"failed to parse multipart form: {why}")
