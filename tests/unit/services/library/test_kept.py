"""Bytes kept up to a total."""

from registry.services.library.kept import Kept

ROOM = 100_000


def test_what_was_put_is_found() -> None:
    kept = Kept(ROOM)
    kept.put(("name", 1), b"one")
    assert kept.get(("name", 1)) == b"one"
    assert kept.get(("name", 2)) is None


def test_the_longest_unused_go_first_and_the_total_is_bounded() -> None:
    kept = Kept(ROOM)
    for number in range(100):
        kept.put(number, bytes(9_000))
        kept.get(0)
    found = [number for number in range(100) if kept.get(number) is not None]
    assert found[0] == 0
    assert found[-1] == 99
    assert len(found) * 9_000 <= ROOM


def test_what_is_too_large_is_not_kept() -> None:
    kept = Kept(ROOM)
    kept.put("small", b"small")
    kept.put("large", bytes(ROOM // 8))
    assert kept.get("large") is None
    assert kept.get("small") == b"small"


def test_a_key_put_again_counts_once() -> None:
    kept = Kept(ROOM)
    kept.put("first", b"first")
    for _ in range(1000):
        kept.put("again", bytes(9_000))
    assert kept.get("first") == b"first"
