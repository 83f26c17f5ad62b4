"""Public keys: the two spellings, what is refused, the fingerprint that OpenSSH prints."""

import base64

import pytest

from registry.core.errors import RequestInvalid
from registry.core.ssh_key import SshKey, fingerprint
from tests.support.accounts import key_blob, wire

# The key of the protocol document's test vector (private seed 00 01 … 1f).
BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
P = 2**255 - 19


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        (BLOB, ""),
        (f"  {BLOB}\n", ""),
        (f"ssh-ed25519 {BLOB}", ""),
        (f"ssh-ed25519 {BLOB} me@here\n", "me@here"),
        (f"ssh-ed25519\t{BLOB}  two words ", "two words"),
        (f"ssh-ed25519 {BLOB} \x1b[31mred\u202e", "[31mred"),
        (f"ssh-ed25519 {BLOB} {'long' * 100}", "long" * 25),
    ],
)
def test_a_line_and_its_second_field_are_read(text: str, comment: str) -> None:
    key = SshKey.parse(text)
    assert (key.blob, key.comment) == (BLOB, comment)
    assert key.raw == base64.b64decode(BLOB)[19:]


def test_the_fingerprint_is_openssh_s() -> None:
    # ssh-keygen -lf on the line above
    expected = "SHA256:lbmsoA0yIEcEiVDRnMWuzm+nV+3ZEEpVIURqFoeSspg"
    assert SshKey.parse(BLOB).fingerprint == fingerprint(BLOB) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "\n",
        "ssh-ed25519",
        "ssh-rsa AAAAB3NzaC1yc2E me",
        f"ssh-dss {BLOB}",
        f"{BLOB} {BLOB}",
        f"ssh-ed25519 {BLOB}\nssh-ed25519 {BLOB}",
        BLOB[:-1],
        BLOB + "A",
        BLOB + "====",
        BLOB[:-4] + "===="[:4],
        BLOB[:-1] + "!",
        BLOB[:-1] + "\u00e9",
        "AAAAC3" + "A" * 62,
        "ssh-ed25519 " + "A" * 68,
        wire(bytes(31)),
        "x" * 5_000,
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        SshKey.parse(text)


def test_a_private_key_is_refused_without_being_quoted() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"
    with pytest.raises(RequestInvalid) as caught:
        SshKey.parse(text)
    assert "c2VjcmV0" not in str(caught.value)
    assert "private" in str(caught.value)


def _encoded(y: int, sign: int = 0) -> str:
    return wire((y | sign << 255).to_bytes(32, "little"))


SMALL = [
    0,
    1,
    P - 1,
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
]


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [*SMALL, P, P + 1, 2**255 - 1, 2])
def test_keys_of_small_order_not_canonical_or_off_the_curve_are_refused(y: int, sign: int) -> None:
    with pytest.raises(RequestInvalid) as caught:
        SshKey.parse(_encoded(y, sign))
    assert "usable" in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_real_keys_are_taken(seed: int) -> None:
    assert SshKey.parse(key_blob(seed)).blob == key_blob(seed)
