import pytest

from registry.core.errors import RequestInvalid
from registry.web.multipart import parse_form

TYPE = 'multipart/form-data; boundary="b"'


def part(disposition: str, content: bytes, more: str = "") -> bytes:
    head = f"--b\r\nContent-Disposition: form-data; {disposition}\r\n{more}\r\n"
    return head.encode() + content + b"\r\n"


def test_parts_are_found_by_name_byte_for_byte() -> None:
    sound = bytes(range(256)) + b"\r\n--x\r\n\r\n--"
    body = (
        b"preamble\r\n"
        + part('name="model"', b"m")
        + part('name="file"; filename="a\\"b.wav"', sound, "Content-Type: audio/wav\r\n")
        + part('name="model"', b"second")
        + part("other=1", b"nameless")
        + b"--b--\r\nepilogue"
    )
    assert parse_form(TYPE, body) == {"model": b"m", "file": sound}


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        ("", b"", "request Content-Type isn't multipart/form-data"),
        ("application/json", b"{}", "request Content-Type isn't multipart/form-data"),
        ("multipart/form-data", b"", "no multipart boundary param in Content-Type"),
        (TYPE, b"", "multipart: NextPart: EOF"),
        (TYPE, b"--b\r\nno end", "multipart: NextPart: EOF"),
        (TYPE, b"--b\r\nno blank line\r\n--b--", "multipart: NextPart: malformed part header"),
        (
            TYPE,
            b"--b\r\n" + b"x" * 20_000 + b"\r\n\r\n\r\n--b--",
            "multipart: NextPart: malformed part header",
        ),
    ],
)
def test_broken_forms_are_refused(content_type: str, body: bytes, why: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_form(content_type, body)
    assert str(caught.value) == f"failed to parse multipart form: {why}"
