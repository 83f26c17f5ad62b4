"""Modelfiles, read as the stock client reads them and printed as the server prints them."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.errors import ModelfileInvalid
from registry.core.modelfile import (
    Command,
    Modelfile,
    Shown,
    decode,
    parse,
    render,
    render_tensor_model,
)
from registry.core.template import DEFAULT

GOLDEN = Path(__file__).parents[2] / "golden"
CLIENT = json.loads((GOLDEN / "wire" / "cli.json").read_text(encoding="utf-8"))
CREATED = [
    (command["argv"][4], request["request_body"]["json"])
    for command in CLIENT["commands"]
    for request in command["requests"]
    if request["path"] == "/api/create" and len(command["argv"]) > 4
]
NOT_FROM_THE_TEXT = ("model", "name", "from", "files", "adapters", "quantize")


def members(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from members(item)


def recorded_shows() -> list[dict[str, Any]]:
    return [
        body
        for file in sorted((GOLDEN / "cases").glob("*.json"))
        for body in members(json.loads(file.read_text(encoding="utf-8")))
        if isinstance(body.get("modelfile"), str) and "\nFROM " in body["modelfile"]
    ]


def values(modelfile: Modelfile) -> list[tuple[str, ...]]:
    return [tuple(filter(None, (c.name, c.key))) + (c.value,) for c in modelfile.commands]


@pytest.mark.parametrize(("name", "body"), CREATED)
def test_a_modelfile_asks_for_what_the_stock_client_asked_for(
    name: str, body: dict[str, Any]
) -> None:
    modelfile = parse(CLIENT["modelfiles"][name])
    expected = {key: value for key, value in body.items() if key not in NOT_FROM_THE_TEXT}
    assert modelfile.request() == (expected, ())
    if "from" in body:
        assert modelfile.values("from") == (body["from"],)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Modelfile.bad", "unknown parameter 'nosuch'"),
        (
            "Modelfile.syntax",
            '(line 1): command must be one of "from", "license", "template", "system", "adapter", '
            '"draft", "renderer", "parser", "parameter", "message", or "requires"',
        ),
        ("Modelfile.empty", "no FROM line"),
    ],
)
def test_a_bad_modelfile_is_refused_in_the_words_of_the_stock_client(
    name: str, message: str
) -> None:
    with pytest.raises(ModelfileInvalid) as raised:
        parse(CLIENT["modelfiles"][name]).request()
    assert str(raised.value) == message


def after(word: str, text: str) -> list[str]:
    """What follows `word` on the lines that start with it."""
    return [line[len(word) + 1 :] for line in text.split("\n") if line.startswith(word + " ")]


@pytest.mark.parametrize("body", recorded_shows())
def test_every_recorded_modelfile_is_printed_again(body: dict[str, Any]) -> None:
    text = body["modelfile"]
    parameters: dict[str, Any] = {}
    for key, _, value in (line.partition(" ") for line in after("PARAMETER", text)):
        parameters.setdefault(key, []).append(value)
    until_messages = text.partition("\nMESSAGE")[0].replace("\nFROM \n", "\nFROM x\n")
    readable = "\n".join(x for x in until_messages.split("\n") if not x.startswith("PARAMETER"))
    shown = Shown(
        name=after("# FROM", text)[0],
        sources=after("FROM", text),
        template=DEFAULT if "{%" in body["template"] else body["template"],
        adapters=after("ADAPTER", text),
        draft="".join(after("DRAFT", text)),
        system=body.get("system", ""),
        renderer="".join(after("RENDERER", text)),
        parser="".join(after("PARSER", text)),
        parameters=parameters,
        licenses=parse(readable).values("license"),
        messages=[(m["role"], m["content"]) for m in body.get("messages", ())],
    )
    assert render(shown) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM foo", [("from", "foo")]),
        ("from foo\nFrOm bar", [("from", "foo"), ("from", "bar")]),
        ("\n  # comment\n\tFROM\tfoo  \n", [("from", "foo")]),
        ("FROM foo # no comment", [("from", "foo # no comment")]),
        ('FROM "  FOO  BAR  "', [("from", "  FOO  BAR  ")]),
        ("FROM FOO BAR  ", [("from", "FOO BAR")]),
        ("FROM a\r\nSYSTEM b\r\n", [("from", "a"), ("system", "b")]),
        ("FROM a\rSYSTEM b", [("from", "a"), ("system", "b")]),
        ("FROM a\nADAPTER b\nDRAFT c", [("from", "a"), ("adapter", "b"), ("draft", "c")]),
        ("FROM a\nSYSTEM \nSYSTEM", None),
        ("FROM a\nSYSTEM ", [("from", "a"), ("system", "")]),
        ('FROM a\nSYSTEM ""', [("from", "a"), ("system", "")]),
        ('FROM a\nSYSTEM """"""', [("from", "a"), ("system", "")]),
        ('FROM a\nSYSTEM """x"""  ', [("from", "a"), ("system", "x")]),
        ('FROM a\nSYSTEM """\n x "y"\n\n"""\n', [("from", "a"), ("system", '\n x "y"\n\n')]),
        ('FROM a\nSYSTEM """a\r\nb"""', [("from", "a"), ("system", "a\r\nb")]),
        ('FROM a\nSYSTEM "x\ny"\n', [("from", "a"), ("system", "x\ny")]),
        ('FROM a\nSYSTEM "x" y\nz"', [("from", "a"), ("system", 'x" y\nz')]),
        ('FROM a\nSYSTEM "a" "b"', [("from", "a"), ("system", 'a" "b')]),
        ('FROM a\nSYSTEM x "y"', [("from", "a"), ("system", 'x "y"')]),
        ("FROM a\nSYSTEM 'x'", [("from", "a"), ("system", "'x'")]),
        ("FROM a\nSYSTEM 👩\u200d🚀 \u00a0 x", [("from", "a"), ("system", "👩\u200d🚀 \u00a0 x")]),
        (
            "PARAMETER  temperature   1\nFROM a",
            [("parameter", "temperature", "1"), ("from", "a")],
        ),
        (
            "FROM a\nMESSAGE  user hi\nMESSAGE assistant : x",
            [("from", "a"), ("message", "user", "hi"), ("message", "assistant", ": x")],
        ),
        (
            'FROM a\nMESSAGE system """\nx: y\n"""\n',
            [("from", "a"), ("message", "system", "\nx: y\n")],
        ),
    ],
)
def test_commands_are_read_line_by_line_unless_quotes_are_open(
    text: str, expected: list[tuple[str, ...]] | None
) -> None:
    if expected is None:
        with pytest.raises(ModelfileInvalid):
            parse(text)
        return
    assert values(parse(text)) == expected


def test_a_command_knows_its_line() -> None:
    text = 'FROM a\n\nSYSTEM """\n\n"""\nLICENSE MIT'
    assert parse(text).commands == (
        Command("from", "", "a", 1),
        Command("system", "", "\n\n", 3),
        Command("license", "", "MIT", 6),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("FROM \nSYSTEM x", "no FROM line"),
        ("FROM", '(line 1): a space and a value must follow "FROM"'),
        ("FROM a\n\nPARAMETER stop", '(line 3): a space and a value must follow "stop"'),
        ("FROM a\nPARAMETER num-ctx 5", '(line 2): a space and a value must follow "num"'),
        ("FROM a\nPARAMETER", '(line 2): a space and a value must follow "PARAMETER"'),
        ("FROM a\nMESSAGE user", '(line 2): a space and a value must follow "user"'),
        (
            "FROM a\nMESSAGE badguy I am",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
        ('FROM a\nSYSTEM """x\n"\n', '(line 2): unexpected EOF: """ is not closed'),
        ('FROM a\nSYSTEM "x\n', '(line 2): unexpected EOF: " is not closed'),
        ('FROM a\nSYSTEM """', '(line 2): unexpected EOF: """ is not closed'),
        ('FROM a\nSYSTEM """"', '(line 2): unexpected EOF: """ is not closed'),
    ],
)
def test_the_error_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ModelfileInvalid) as raised:
        parse(text)
    assert str(raised.value) == message


@pytest.mark.parametrize("line", ["FRO a", "FROM1 a", "F_ROM a", "123", "FROM:a", '"FROM" a', "é"])
def test_what_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(ModelfileInvalid, match=r"^\(line 2\): command must be one of"):
        parse(f"FROM a\n{line}")


def test_the_last_of_single_commands_counts_and_lists_add_up() -> None:
    body, warnings = parse(
        "FROM a\nTEMPLATE x\nTEMPLATE y\nSYSTEM z\nSYSTEM \nLICENSE A\nLICENSE B\n"
        "RENDERER r\nPARSER p\nREQUIRES v0.14.0\nPARAMETER mirostat 1\nPARAMETER stop s\n"
    ).request()
    assert body == {
        "template": "y",
        "renderer": "r",
        "parser": "p",
        "requires": "0.14.0",
        "license": ["A", "B"],
        "parameters": {"stop": ["s"]},
    }
    assert warnings == ("warning: parameter mirostat is deprecated",)


@pytest.mark.parametrize("text", ["0.14.0", "v1", "1.2", "1.2.3-rc.1", "1.2.3-0a+b.c", "v0.0.0+1"])
def test_a_version_may_be_short(text: str) -> None:
    assert parse(f"FROM a\nREQUIRES {text}").request()[0]["requires"] == text.removeprefix("v")


@pytest.mark.parametrize(
    "text", ["latest", "1.", "01", "1.2.3.4", "1.2-rc", "1.2.3-01", "vv1", "1.2.3+"]
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ModelfileInvalid, match=r"requires must be a valid semver"):
        parse(f"FROM a\nREQUIRES {text}").request()


@pytest.mark.parametrize(
    "data",
    [
        b"FROM \xc3\xa9",
        b"\xef\xbb\xbfFROM \xc3\xa9",
        b"\xff\xfe" + "FROM é".encode("utf-16-le"),
        b"\xfe\xff" + "FROM é".encode("utf-16-be"),
    ],
)
def test_bytes_are_utf8_or_what_their_mark_says(data: bytes) -> None:
    assert decode(data) == "FROM é"


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert decode(b"FROM \xff") == "FROM \ufffd"


FULL = Shown(
    name="mario",
    sources=("/models/a", "/models/projector"),
    template='a "b"\nc',
    adapters=("/models/lora",),
    draft="/models/draft",
    system=" x ",
    renderer="r",
    parser="p",
    parameters={"top_k": 1e6, "stop": ["</s>", "a b\n"], "seed": 42},
    licenses=("MIT", "two\nlines"),
    messages=(("user", "hi "), ("tool", "")),
)


def test_a_model_is_printed_in_a_fixed_order_and_quoted_where_it_must_be() -> None:
    assert render(FULL) == (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        "# FROM mario\n"
        "\n"
        "FROM /models/a\n"
        "ADAPTER /models/lora\n"
        "DRAFT /models/draft\n"
        "FROM /models/projector\n"
        'TEMPLATE """a "b"\nc"""\n'
        'SYSTEM " x "\n'
        "RENDERER r\n"
        "PARSER p\n"
        "PARAMETER seed 42\n"
        "PARAMETER stop </s>\n"
        'PARAMETER stop "a b\n"\n'
        "PARAMETER top_k 1e+06\n"
        "LICENSE MIT\n"
        'LICENSE "two\nlines"\n'
        'MESSAGE user "hi "\n'
        "MESSAGE tool \n"
    )


def test_a_model_without_a_file_prints_an_empty_from() -> None:
    assert render(Shown("x", (), "t")).endswith("# FROM x\n\nFROM \nTEMPLATE t\n")


def test_a_model_of_tensor_layers_is_its_own_source() -> None:
    assert render_tensor_model(Shown("x", (), "t\n\nu", system="s")) == (
        '# Modelfile generated by "ollama show"\nFROM x\nTEMPLATE "t\n\nu"\nSYSTEM s\n'
    )


@given(
    st.text(st.characters(codec="utf-8", exclude_characters='"'))
    | st.from_regex(r"[a-z \n.]+", fullmatch=True)
)
def test_a_printed_text_reads_back(text: str) -> None:
    system = text.strip() + "\n" + text
    modelfile = parse(render(Shown("x", ("y",), "t", system=system)))
    assert modelfile.values("system") == (system,)


@given(st.text(alphabet='FROMfrom "\n\r\t#x', max_size=60))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    try:
        assert parse(text).commands
    except ModelfileInvalid as invalid:
        assert str(invalid)


@pytest.mark.parametrize(
    "piece", ['SYSTEM """x"""\n', "x\n", '"\n', " ", "#\n", 'LICENSE "a\nb"\n']
)
def test_time_grows_with_the_length_alone(piece: str) -> None:
    started = time.perf_counter()
    text = 'FROM a\nSYSTEM """' + piece * (1_000_000 // len(piece))
    with contextlib.suppress(ModelfileInvalid):
        parse(text)
    assert time.perf_counter() - started < 10
