"""Names: parsed right to left, shown short, mapped to repositories."""

import pytest

from registry.core.errors import NameInvalid
from registry.core.names import ModelName, RepositoryName, check_tag, short_name

LONG = "a" * 80


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("model", "registry.ollama.ai/library/model:latest"),
        ("model:tag", "registry.ollama.ai/library/model:tag"),
        ("namespace/model", "registry.ollama.ai/namespace/model:latest"),
        ("h/nn/mm:t", "h/nn/mm:t"),
        ("scheme://host:port/namespace/model:tag", "host:port/namespace/model:tag"),
        ("_why/_the/_lucky:_stiff", "_why/_the/_lucky:_stiff"),
        ("a.:443/n/m", "a.:443/n/m:latest"),
        (f"{'h' * 350}/{LONG}/{LONG}:{LONG}", f"{'h' * 350}/{LONG}/{LONG}:{LONG}"),
    ],
)
def test_valid_names_are_read_with_their_defaults(text: str, full: str) -> None:
    name = ModelName.checked(text)
    assert str(name) == full
    assert name.is_valid


@pytest.mark.parametrize(
    "text",
    ["", "@t", "m@d", "^", "mm:", "/nn/mm", "//", "//mm", "hh//", "//mm:@", "00@", "@", "n//m"]
    + ["-hh/nn/mm:tt", "hh/-nn/mm:tt", "hh/nn/-mm:tt", "hh/nn/mm:-tt", "a/b/c/d", "m:a:b"]
    + ["host/name:space/model:tag", "h/a./m", f"{LONG}a", f"m:{LONG}a", f"{LONG}a/m", "m\n"]
    + [f"{'h' * 351}/n/m", "../m", "a/../m", "m:..", "h/n/m\x00", "ümlaut", "host:1/n/m/:t"],
)
def test_illegal_names_are_read_and_told_apart(text: str) -> None:
    assert not ModelName.parse(text).is_valid
    with pytest.raises(NameInvalid, match="invalid model name"):
        ModelName.checked(text)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("model", "model:latest"),
        ("library/model:tag", "model:tag"),
        ("namespace/model:tag", "namespace/model:tag"),
        ("Library/model:tag", "Library/model:tag"),
        ("library/library/model:tag", "library/library/model:tag"),
        ("host/namespace/model:tag", "host/namespace/model:tag"),
        ("host/library/model:tag", "host/library/model:tag"),
    ],
)
def test_the_short_form_leaves_defaults_out(text: str, short: str) -> None:
    assert ModelName.parse(text).short == short
    assert ModelName.parse(short) == ModelName.parse(text)
    name = ModelName.parse(text)
    assert short_name(name.repository.path, name.tag) == short


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("mymodel", "library/mymodel"),
        ("team/llama:8b", "team/llama"),
        ("hf.co/ns/model", "hf.co/ns/model"),
        ("localhost:5000/ns/Model", "localhost:5000/ns/Model"),
    ],
)
def test_a_model_lies_in_the_repository_of_its_path(text: str, path: str) -> None:
    name = ModelName.parse(text)
    assert name.repository.path == path
    assert name.repository.model_name(name.tag) == name


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("foo", "library/foo"),
        ("library/foo", "library/foo"),
        ("registry.ollama.ai/library/foo", "library/foo"),
        ("a/b/c/d", "a/b/c/d"),
        ("Team/Llama-3.Q4__x", "Team/Llama-3.Q4__x"),
    ],
)
def test_repository_paths_are_superset_of_both_grammars(text: str, path: str) -> None:
    name = RepositoryName.parse(text)
    assert str(name) == path
    assert name.key == path.lower()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a//b",
        "a/",
        "..",
        "a/../b",
        "a b",
        "a\x00",
        "é",
        "-a",
        ".a",
        "a:1",
        "a:1/b",
        "x/a:1/b",
    ]
    + ["a" * 600, "a/" * 300 + "b"],
)
def test_hostile_repository_paths_are_refused(text: str) -> None:
    with pytest.raises(NameInvalid):
        RepositoryName.parse(text)


def test_deep_paths_have_no_model_name() -> None:
    assert not RepositoryName.parse("a/b/c/d").model_name("t").is_valid


def test_names_know_their_file_and_other_tags() -> None:
    name = ModelName.parse("team/m")
    assert name.file_path == "registry.ollama.ai/team/m/latest"
    assert name.with_tag("v2").short == "team/m:v2"


@pytest.mark.parametrize("tag", ["a", "_x", "1.2-3", "t" * 128])
def test_tags_may_be_longer_for_oci_clients(tag: str) -> None:
    assert check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".", "-a", "a/b", "t" * 129, "a:b", "ä", "a\n"])
def test_illegal_tags_are_refused(tag: str) -> None:
    with pytest.raises(NameInvalid):
        check_tag(tag)
