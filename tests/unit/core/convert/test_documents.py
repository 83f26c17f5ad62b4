"""registry/core/convert/documents.py."""

import pytest

from registry.core.convert import documents
from registry.core.convert.documents import read_json, shown
from registry.core.errors import CheckpointInvalid


def test_names_are_shown_safe_and_short() -> None:
    assert shown("a.json") == "a.json"
    assert shown("a\n\x1b[31m") == r"'a\n\x1b[31m'"
    assert len(shown("x" * 10_000)) == 121


def test_infinities_are_let_pass_as_checkpoints_have_them() -> None:
    assert read_json(b'{"a": Infinity}', "c.json", 100) == {"a": float("inf")}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 101, "101 bytes are more than 100"),
        (b"{", "c.json: "),
        (b"\xff", "c.json: "),
        (b"[1]", "no object"),
        (b'{"a":' * 20, "c.json: "),
        (b"1" * 100, "no object"),
    ],
)
def test_what_is_no_object_is_one_error(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointInvalid, match=words):
        read_json(data, "c.json", 100)


@pytest.mark.parametrize("data", [b"[" * 9, b'{"a":1,' * 4, b"[1,2,3,4,5,6]"])
def test_more_values_than_any_checkpoint_has_are_refused(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("_MAX_CONTAINERS", 8), ("_MAX_PAIRS", 3), ("_MAX_ITEMS", 4)):
        monkeypatch.setattr(documents, name, most)
    with pytest.raises(CheckpointInvalid, match=r"c\.json: too many values"):
        read_json(data, "c.json", 100)


def test_a_nesting_without_end_is_refused() -> None:
    with pytest.raises(CheckpointInvalid, match=r"nested too deep|recursion"):
        read_json(b"[" * 500_000, "c.json", 1 << 20)
