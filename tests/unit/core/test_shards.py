"""Split models: files that belong together are found and ordered, others refused."""

from typing import Any

import pytest

from registry.core import media
from registry.core.digest import Digest
from registry.core.errors import OperationFailed
from registry.core.facts import Facts
from registry.core.gguf import Tensor
from registry.core.shards import Group, Shard, group_of, in_order

DIGEST = Digest.of(b"")


def shard(name: str, index: int | None, count: int = 3, *tensors: str, **values: Any) -> Shard:
    told = {"split.count": count} | ({} if index is None else {"split.no": index})
    listed = tuple(Tensor(tensor, "F32", (1,)) for tensor in tensors)
    return Shard(name, DIGEST, Facts(0, "F16", told | values, listed))


def test_the_name_and_the_contents_tell_the_group() -> None:
    group = group_of(shard("dir/a-00002-of-00003.gguf", 1), media.MODEL)
    assert group == Group(media.MODEL, "a", 3)


@pytest.mark.parametrize("values", [{}, {"split.count": 1}, {"split.count": "2"}])
def test_a_whole_file_is_in_no_group(values: dict[str, Any]) -> None:
    whole = Shard("a.gguf", DIGEST, Facts(0, "F16", values, ()))
    assert group_of(whole, media.MODEL) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (shard('a".gguf', 0), 'split GGUF "a\\".gguf" must use llama.cpp split filename pattern'),
        (shard("a-1-of-3.gguf", 0), "must use llama.cpp split filename pattern"),
        (shard("a-00000-of-00003.gguf", 0), "must use llama.cpp split filename pattern"),
        (shard("a-00001-of-00002.gguf", 0), "filename count 2 does not match metadata count 3"),
        (shard("a-00001-of-00003.gguf", None), "is missing split.no metadata"),
        (shard("a-00002-of-00003.gguf", 2), "filename index 1 does not match metadata index 2"),
    ],
)
def test_a_name_that_disagrees_with_the_contents_is_refused(found: Shard, words: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        group_of(found, media.MODEL)
    assert words in str(caught.value)


NAMES = [f"a-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
GROUP = Group(media.MODEL, "a", 3)
LLAMA = {"general.architecture": "llama"}


def three(**first: Any) -> list[Shard]:
    return [
        shard(NAMES[0], 0, 3, "x", **(LLAMA | first)),
        shard(NAMES[1], 1, 3, "y"),
        shard(NAMES[2], 2, 3, "z", **LLAMA),
    ]


def test_shards_are_put_in_order() -> None:
    shards = three(**{"split.tensors.count": 3})
    assert in_order(GROUP, shards[::-1]) == shards


@pytest.mark.parametrize(
    ("shards", "words"),
    [
        (three()[:2], 'split GGUF "a-00001-of-00003.gguf" has 2 shards, expected 3'),
        ([*three()[:2], three()[1]], "is missing shard 2"),
        ([three()[0], shard(NAMES[1], 1, 3, "x"), three()[2]], "repeats a tensor of another"),
        (
            [
                three()[0],
                shard(NAMES[1], 1, 3, "y", **{"general.architecture": "bert"}),
                three()[2],
            ],
            "is of a bert model, the first shard of a llama",
        ),
        (three(**{"split.tensors.count": 4}), "has 3 tensors in its shards, expected 4"),
    ],
)
def test_missing_and_mixed_shards_are_refused(shards: list[Shard], words: str) -> None:
    with pytest.raises(OperationFailed) as caught:
        in_order(GROUP, shards)
    assert words in str(caught.value)
