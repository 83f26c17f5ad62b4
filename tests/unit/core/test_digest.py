"""Digests hold nothing but a known algorithm and its hex digits."""

import hashlib

import pytest

from registry.core.digest import EMPTY, Digest
from registry.core.errors import DigestInvalid

HEX = hashlib.sha256(b"x").hexdigest()


def test_all_spellings_of_one_sha256_are_one_digest() -> None:
    spellings = [f"sha256:{HEX}", f"sha256-{HEX}", f"sha256:{HEX.upper()}"]
    assert {Digest.parse(text) for text in spellings} == {Digest("sha256", HEX)}
    assert str(Digest.of(b"x")) == f"sha256:{HEX}"
    assert Digest.of(b"x").file_name == f"sha256-{HEX}"
    assert Digest.of(b"x").short == HEX[:12]


def test_sha512_is_read_in_lower_case_only() -> None:
    text = f"sha512:{hashlib.sha512(b'x').hexdigest()}"
    assert Digest.parse(text) == Digest.of(b"x", "sha512")
    with pytest.raises(DigestInvalid):
        Digest.parse(text.upper())


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"SHA256:{HEX}", f"md5:{HEX[:32]}", HEX]
    + ["sha256:../../etc/passwd", f"sha256:{HEX}\n", f" sha256:{HEX}", f"sha256:{'g' * 64}"]
    + [f"sha256/{HEX}", f"sha512-{HEX}", "sha256:" + "０" * 64],
)
def test_every_other_text_is_refused(text: str) -> None:
    with pytest.raises(DigestInvalid, match="invalid digest format"):
        Digest.parse(text)


def test_a_digest_cannot_be_made_of_a_wrong_length() -> None:
    for algorithm, digits in (("sha256", HEX[:10]), ("md5", HEX)):
        with pytest.raises(DigestInvalid):
            Digest(algorithm, digits)


def test_the_empty_digest_is_the_well_known_one() -> None:
    assert EMPTY.hex.startswith("e3b0c44298fc1c14")
    assert Digest.sha256(hashlib.sha256().hexdigest()) == EMPTY
