"""The parser against Go's own verdicts, its tree, and its limits."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.core.errors import TemplateInvalid
from registry.core.gotemplate.parser import NESTING_LIMIT, SIZE_LIMIT, parse
from registry.core.gotemplate.tokens import TOKEN_LIMIT
from registry.core.gotemplate.tree import (
    Action,
    Bool,
    Break,
    Call,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Identifier,
    If,
    Nil,
    Number,
    Pipe,
    Range,
    String,
    Text,
    Variable,
    With,
)

DATA = Path(__file__).parents[3] / "data"
CASES = json.loads((DATA / "go-template-errors.json").read_text())["cases"]


def verdict(text: str) -> str | None:
    try:
        parse(text)
    except TemplateInvalid as invalid:
        return str(invalid)
    return None


def test_every_template_parses_or_fails_with_the_words_of_go() -> None:
    wrong = [(text, said, verdict(text)) for text, said in CASES if verdict(text) != said]
    assert wrong == []
    assert len(CASES) > 400


def test_the_recorded_templates_of_the_golden_file_parse_unless_they_must_not() -> None:
    golden = json.loads((DATA / "go-template-golden.json").read_text())
    refused = {name for name, text in golden["templates"].items() if verdict(text) is not None}
    assert refused == golden["templates"].keys() - golden["parsed"].keys()


def one(*args: object) -> Pipe:
    return Pipe((Command(args),))  # type: ignore[arg-type]  # built by hand from all kinds


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", ()),
        ("a {{- /* c */ -}} b", (Text("a"), Text("b"))),
        ("a\n{{- .X -}}\n b", (Text("a"), Action(one(Field(("X",)))), Text("b"))),
        ("{{ .A.B.C }}", (Action(one(Field(("A", "B", "C")))),)),
        ("{{ $.A }}", (Action(one(Variable(("$", "A")))),)),
        ("{{ (len .A).B }}", (Action(one(Chain(one(Identifier("len"), Field(("A",))), ("B",)))),)),
        ("{{ json.X }}", (Action(one(Chain(Identifier("json"), ("X",)))),)),
        (
            "{{ . | print nil true }}",
            (
                Action(
                    Pipe((Command((Dot(),)), Command((Identifier("print"), Nil(), Bool(True))))),
                ),
            ),
        ),
        ("{{ `a\r\nb` }}", (Action(one(String("`a\r\nb`", "a\nb"))),)),
        ("{{ 0x1F }}{{ 'a' }}", (Action(one(Number("0x1F", 31))), Action(one(Number("'a'", 97))))),
        (
            "{{ $x := 1 }}{{ $x = 2 }}",
            (
                Action(Pipe((Command((Number("1", 1),)),), ("$x",))),
                Action(Pipe((Command((Number("2", 2),)),), ("$x",), assigns=True)),
            ),
        ),
        (
            "{{ range $i, $m := .M }}{{ break }}{{ else }}{{ end }}",
            (Range(Pipe((Command((Field(("M",)),)),), ("$i", "$m")), (Break(),), ()),),
        ),
        (
            "{{ range 3 }}{{ continue }}{{ end }}",
            (Range(one(Number("3", 3)), (Continue(),), None),),
        ),
        (
            "{{ if .A }}a{{ else if .B }}b{{ end }}",
            (
                If(
                    one(Field(("A",))),
                    (Text("a"),),
                    (If(one(Field(("B",))), (Text("b"),), None),),
                ),
            ),
        ),
        (
            "{{ with .A }}{{ else with .B }}{{ end }}",
            (With(one(Field(("A",))), (), (With(one(Field(("B",))), (), None),)),),
        ),
        ('{{ template "t" }}', (Call("t", None),)),
        ('{{ template "t" . }}', (Call("t", one(Dot())),)),
    ],
)
def test_text_becomes_the_tree_it_means(text: str, nodes: tuple[object, ...]) -> None:
    assert parse(text).main == nodes


def test_definitions_and_blocks_are_kept_by_name() -> None:
    templates = parse('{{ define "a" }}A{{ end }}{{ block "b" .X }}B{{ end }}')
    assert templates.defined == {"a": (Text("A"),), "b": (Text("B"),)}
    assert templates.main == (Call("b", one(Field(("X",)))),)


def test_a_definition_without_a_name_stands_in_for_an_empty_text() -> None:
    assert parse('{{ define "" }}x{{ end }}').main == (Text("x"),)


def test_a_text_over_a_mebibyte_is_refused() -> None:
    assert verdict("é" * (SIZE_LIMIT // 2)) is None
    assert verdict("é" * (SIZE_LIMIT // 2) + "x") == "template: :1: longer than 1 MiB"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("{{ if . }}", "{{ end }}"),
        ('{{ block "b" . }}', "{{ end }}"),
        ("{{ if . }}{{ range (((.))) }}", "{{ end }}{{ end }}"),
    ],
)
def test_deep_nesting_costs_an_error_and_not_the_stack(opening: str, closing: str) -> None:
    assert verdict(opening * 10 + closing * 10) in (
        None,
        'template: :1: template: multiple definition of template "b"',
    )
    message = f"template: :1: nested deeper than {NESTING_LIMIT} levels"
    assert verdict(opening * 5000) == message


def test_brackets_and_chains_of_else_count_as_nesting() -> None:
    message = f"template: :1: nested deeper than {NESTING_LIMIT} levels"
    assert verdict("{{" + "(" * 100 + "1" + ")" * 100 + "}}") is None
    assert verdict("{{" + "(" * 101 + "1" + ")" * 101 + "}}") == message
    chain = "{{ if . }}" + "{{ else if . }}" * 98 + "{{ end }}"
    assert verdict(chain) is None
    assert verdict("{{ if . }}" + "{{ else if . }}" * 1000 + "{{ end }}") == message


def test_a_text_of_too_many_tokens_is_refused() -> None:
    most = (TOKEN_LIMIT - 1) // 3  # the end of the text is a token too
    assert verdict("{{.}}" * most) is None
    assert verdict("{{.}}" * (most + 1)) == f"template: :1: more than {TOKEN_LIMIT} tokens"


@pytest.mark.parametrize(
    "text",
    [
        "{{/*x*/}}" * 100_000,
        "{{- /**/ -}}\n" * 70_000,
        "{{ " + " " * 1_000_000,
        "{{" + "`\n" * 300_000,
        '{{"' + "\\a" * 400_000,
        "{{" + "é" * 400_000,
        "{{" + "1" * 1_000_000 + "}}",
        "x\n{" * 250_000,
        "{{$x:=1}}{{$x}}" * 10_000,
    ],
)
def test_long_texts_cost_time_in_proportion_to_their_length(text: str) -> None:
    started = time.perf_counter()
    verdict(text)
    assert time.perf_counter() - started < 10  # where it is quadratic, it takes minutes


PIECES = [
    *("{{", "}}", "{{-", "-}}", " ", "\n", ".A", "$", "$x", ":=", "=", ",", "|", "(", ")", "\\"),
    *("if", "else", "end", "range", "with", "define", "block", "template", "break", "nil", "len"),
    *('"a"', "`", "'a'", "1", "0x", "1e3", "+", "i", "/*", "*/", "\udc80", "é"),
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(PIECES),
        max_size=25,
    )
)
def test_any_text_parses_or_is_refused_in_one_way(pieces: list[str]) -> None:
    said = verdict("{{ " + "".join(pieces))
    assert said is None or said.startswith("template: :")
