"""The form of Ollama's signatures, and the texts they are of."""

import base64

import pytest

from registry.core.ollama_signature import (
    SignedBy,
    api_text,
    looks_signed,
    signed_at,
    token_text,
)

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
SIGNATURE = (
    "+YYnBQyz9h7L9eXnI9CvEJOYNUrMuBqi/UrLxMzkNOf64lgtABwrOHKQJwiH4EVC2qOq8sKFjVn8zyB5bXbaBg=="
)


def test_a_header_is_read() -> None:
    by = SignedBy.parse(f"{KEY}:{SIGNATURE}")
    assert by is not None
    assert (by.key.blob, len(by.key.raw), len(by.signature)) == (KEY, 32, 64)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ":",
        KEY,
        f"{KEY}:",
        f"{KEY}:{SIGNATURE[:-1]}",
        f"{KEY}:{SIGNATURE}=",
        f"{KEY}:{SIGNATURE[:-3]}h==",  # other spare bits, the same bytes
        f"{KEY}:{'!' * 88}",
        f"{KEY}:{'A' * 88}",  # 66 bytes
        f"{KEY}:{SIGNATURE[:-4]}\n{SIGNATURE[-3:]}",
        f"{KEY[:-1]}:{SIGNATURE}",
        f"{'B' + KEY[1:]}:{SIGNATURE}",
        f"{KEY.replace('x3chm', '!3chm')}:{SIGNATURE}",
        f"ssh-ed25519 {KEY}:{SIGNATURE}",
        f"Bearer {KEY}:{SIGNATURE}",
    ],
)
def test_anything_else_is_none(header: str) -> None:
    assert SignedBy.parse(header) is None


def test_a_key_that_signs_everything_is_none() -> None:
    weak = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"\x01" + b"\0" * 31).decode()
    assert SignedBy.parse(f"{weak}:{SIGNATURE}") is None


def test_what_is_meant_as_a_signature_is_told_from_schemes() -> None:
    assert looks_signed(f"{KEY}:x")
    assert not looks_signed(f"Bearer {KEY}")
    assert not looks_signed(f"{KEY} x")


def test_the_texts() -> None:
    assert token_text("https://h/v2/token?a=b") == (
        b"GET,https://h/v2/token?a=b,ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5"
        b"MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
    )
    assert api_text("POST", "/api/me", "17") == b"POST,/api/me?ts=17"


@pytest.mark.parametrize(
    ("text", "time"),
    [("0", 0), ("1760000000", 1760000000), ("", None), ("-1", None), ("1.5", None), ("٣", None)],
)
def test_times(text: str, time: int | None) -> None:
    assert signed_at(text) == time
    assert signed_at("1" * 13) is None
