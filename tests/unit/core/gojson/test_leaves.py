import pytest

from registry.core.gojson import JsonInvalid, base64_bytes, parse
from registry.core.gojson.leaves import build


@pytest.mark.parametrize(
    ("text", "data"),
    [("", b""), ("AA==", b"\0"), ("AB==", b"\0"), ("AAA=", b"\0\0"), ("A\r\nA=\n=\n", b"\0")],
)
def test_padded_base64_with_line_breaks_is_read(text: str, data: bytes) -> None:
    assert base64_bytes(text) == data


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("not base64!", 3),
        ("AAA", 0),
        ("AAAAA", 4),
        ("=", 0),
        ("A===", 1),
        ("====", 0),
        ("AA=", 3),
        ("AA=A", 2),
        ("AA=\n", 4),
        ("AAAA=", 4),
        ("AAAA====", 4),
        ("AAA=A", 4),
        ("AA==AAAA", 4),
        ("AA-_", 2),
        ("éAAA", 0),
    ],
)
def test_the_offset_of_the_first_bad_byte_is_told(text: str, offset: int) -> None:
    with pytest.raises(JsonInvalid, match=f"^illegal base64 data at input byte {offset}$"):
        base64_bytes(text)


def test_a_tree_becomes_dicts_and_lists() -> None:
    node = parse(b'{"a":[1,{"b":2.5}],"a":[3]}')
    assert build(node, float) == {"a": [3.0]}
