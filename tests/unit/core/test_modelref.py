import pytest

from registry.core.errors import NameInvalid
from registry.core.modelref import NameRequired, Source, parse_reference, pull_name


@pytest.mark.parametrize(
    ("text", "base", "source"),
    [
        ("gpt-oss:20b:cloud", "gpt-oss:20b", Source.CLOUD),
        ("gpt-oss:20b-cloud", "gpt-oss:20b", Source.CLOUD),
        ("gpt-oss:20B-CLOUD", "gpt-oss:20B", Source.CLOUD),
        ("m: Cloud ", "m", Source.CLOUD),
        ("qwen3:8b:local", "qwen3:8b", Source.LOCAL),
        (" m:LOCAL\n", "m", Source.LOCAL),
        ("my-cloud-model", "my-cloud-model", Source.UNSPECIFIED),
        ("foo:bar-cloud/baz", "foo:bar-cloud/baz", Source.UNSPECIFIED),
        ("foo:x/y-cloud", "foo:x/y-cloud", Source.UNSPECIFIED),
        ("host:5000/ns/m", "host:5000/ns/m", Source.UNSPECIFIED),
    ],
)
def test_the_suffix_is_split_off(text: str, base: str, source: Source) -> None:
    reference = parse_reference(text)
    assert (reference.base, reference.source) == (base, source)


def test_the_base_is_a_name() -> None:
    assert parse_reference("me/m:8b:local").name.short == "me/m:8b"
    assert not parse_reference("a b").name.is_valid


@pytest.mark.parametrize("text", ["foo:cloud:local", "foo:a-cloud:cloud", "foo:local:cloud"])
def test_two_suffixes_are_refused(text: str) -> None:
    with pytest.raises(NameInvalid) as caught:
        parse_reference(text)
    assert str(caught.value) == f'use either :local or :cloud, not both: "{text}"'


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_no_name_at_all_has_an_error_of_its_own(text: str) -> None:
    with pytest.raises(NameRequired, match="model is required"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt-oss:20b:local", "gpt-oss:20b"),
        ("gpt-oss:20b:cloud", "gpt-oss:20b-cloud"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b-cloud"),
        ("qwen3:cloud", "qwen3:cloud"),
        ("localhost:11434/library/foo:cloud", "localhost:11434/library/foo:cloud"),
        (" plain ", "plain"),
        ("  ", ""),
    ],
)
def test_pull_acts_on_the_name_that_is_stored(text: str, name: str) -> None:
    assert pull_name(text) == name
