"""Names, passwords, codes, subjects, scopes and lifetimes as people write them."""

from collections.abc import Callable

import pytest

from registry.core import accounts
from registry.core.access import Right, Scope
from registry.core.errors import NameInvalid, RequestInvalid


@pytest.mark.parametrize("name", ["a", "Alice", "ci-2", "0x", "a_b", "a" * 80])
def test_names_that_can_be_namespaces_are_names(name: str) -> None:
    assert accounts.check_name(name) == name
    assert accounts.is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "_a",
        "a b",
        "a/b",
        "a:b",
        "a.b",
        "a" * 81,
        "é",
        "a\n",
        "\ud800",
        "library",
        "LiBrary",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        accounts.check_name(name)


@pytest.mark.parametrize("length", [10, 1024])
def test_passwords_have_a_length(length: int) -> None:
    assert accounts.check_password("x" * length)


@pytest.mark.parametrize("length", [0, 9, 1025])
def test_passwords_of_other_lengths_are_refused_without_being_quoted(length: int) -> None:
    with pytest.raises(RequestInvalid) as caught:
        accounts.check_password("x" * length)
    assert "xx" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "is_key"),
    [
        ("hf_" + "a" * 34, True),
        ("hf_" + "Z9" * 126, True),
        ("hf_" + "a" * 33, False),
        ("hf_" + "a" * 254, False),
        ("hf_" + "a" * 33 + "-", False),
        ("xx_" + "a" * 34, False),
        ("hf_" + "a" * 34 + "\n", False),
        ("", False),
    ],
)
def test_api_keys_have_a_shape(text: str, is_key: bool) -> None:
    assert accounts.is_api_key(text) is is_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ABCDEF-GHJKMN-PQRSTV-WXYZ01", "ABCDEFGHJKMNPQRSTVWXYZ01"),
        (" abcdef ghjkmn pqrstv wxyz01\n", "ABCDEFGHJKMNPQRSTVWXYZ01"),
        ("ABCDEF-GHJKMN-PQRSTV-WXYZ0", None),
        ("ABCDEF-GHJKMN-PQRSTV-WXYZ0I", None),
        ("", None),
        ("-" * 200, None),
        ("\ud800" * 24, None),
    ],
)
def test_codes_are_read_in_any_spelling(text: str, key: str | None) -> None:
    assert accounts.code_key(text) == key


def test_codes_are_shown_in_groups() -> None:
    plain = "ABCDEFGHJKMNPQRSTVWXYZ01"
    assert accounts.code_text(plain) == "ABCDEF-GHJKMN-PQRSTV-WXYZ01"
    assert accounts.code_key(accounts.code_text(plain)) == plain


@pytest.mark.parametrize("text", ["", "one line", "é", "x" * 100])
def test_titles_are_lines(text: str) -> None:
    assert accounts.check_title(text) == text


@pytest.mark.parametrize("text", ["x" * 101, "a\nb", "\x1b[0m", "\u202e", "\ud800"])
def test_other_titles_are_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        accounts.check_title(text)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("user:Alice", ("user", "Alice")),
        ("team:core", ("team", "core")),
        ("users", ("users", "")),
        ("everybody", ("everybody", "")),
    ],
)
def test_subjects_are_read(text: str, subject: tuple[str, str]) -> None:
    assert accounts.parse_subject(text) == subject


@pytest.mark.parametrize(
    "text", ["", "alice", "user:", "user", "team:", "user:a b", "users:", "x:y"]
)
def test_other_subjects_are_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        accounts.parse_subject(text)


def test_scopes_are_read_and_written() -> None:
    scope = Scope("team/*", Right.READ | Right.WRITE)
    assert accounts.parse_scope("Team/*:read,write") == scope
    assert accounts.scope_text(scope) == "team/*:read,write"
    assert accounts.parse_scope("host:80/a/b:read").pattern == "host:80/a/b"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("5m", 300),
        ("12h", 43_200),
        ("90d", 7_776_000),
        ("2w", 1_209_600),
        ("never", None),
    ]
    + [("never", None), ("1y", 31_536_000), ("99999y", 3_153_600_000)],
)
def test_lifetimes_are_read(text: str, seconds: int | None) -> None:
    assert accounts.parse_lifetime(text) == seconds


@pytest.mark.parametrize(
    ("read", "text"),
    [(accounts.parse_scope, text) for text in ("", "team/*", "team/*:fly", "a b:read")]
    + [(accounts.parse_lifetime, text) for text in ("", "0d", "1", "d", "-1d", "1d1h", "123456d")],
)
def test_other_texts_are_refused(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(RequestInvalid):
        read(text)
