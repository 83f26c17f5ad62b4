"""The interpreter against Go's own renderings, and its limits."""

import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from registry.core.errors import OperationFailed, TemplateInvalid
from registry.core.gotemplate.interpreter import DEPTH_LIMIT, STEP_LIMIT, run
from registry.core.gotemplate.parser import parse
from registry.core.gotemplate.printing import TEXT_LIMIT
from registry.core.gotemplate.values import Map, Slice, Struct, Style, Value, from_json

DATA = Path(__file__).parents[3] / "data"
GIVEN = json.loads((DATA / "go-template-values.json").read_text(encoding="utf-8"))
TODAY = date(2024, 1, 2)


def message(role: str, content: str) -> Struct:
    names = {"Role": "Role", "Content": "Content"}
    return Struct("message", {"Role": role, "Content": content}, names)


VALUES: dict[str, Value] = {
    **GIVEN["values"],
    "L": from_json(GIVEN["values"]["L"]),
    "M": from_json(GIVEN["values"]["M"]),
    "Messages": Slice((message("user", "hi"), message("assistant", "yo"))),
}


def rendered(text: str, steps: int = 100_000, **values: Value) -> str:
    return run(parse(text), {**VALUES, **values}, TODAY, steps)


def outcome(text: str) -> str | None:
    try:
        return rendered(text)
    except (OperationFailed, TemplateInvalid):
        return None


def test_every_template_renders_or_fails_as_go_does() -> None:
    wrong = [(text, told, outcome(text)) for text, told in GIVEN["cases"] if outcome(text) != told]
    assert wrong == []
    assert len(GIVEN["cases"]) > 300


def failure(text: str, steps: int = 100_000, **values: Value) -> str:
    with pytest.raises(OperationFailed) as raised:
        rendered(text, steps, **values)
    return str(raised.value)


def test_a_loop_without_end_runs_out_of_steps() -> None:
    assert failure("{{ range 1000000000 }}{{ end }}") == "template: too many steps"


def test_a_text_that_doubles_runs_out_of_room() -> None:
    doubling = '{{ $x := "0123456789abcdef" }}' + "{{ $x = print $x $x }}" * 40
    assert failure(doubling, STEP_LIMIT) == f"template: a text of more than {TEXT_LIMIT} characters"


@pytest.mark.parametrize(
    "text",
    [
        '{{ $x := printf "%1000000d" 1 }}{{ print ' + "$x " * 500 + "}}",
        '{{ $x := printf "%1000000d" 1 }}{{ println ' + "$x " * 500 + "}}",
        '{{ printf "' + "%999999d" * 300 + '" ' + "1 " * 300 + "}}",
        '{{ $x := printf "%1000000d" 1 }}{{ range 100 }}{{ $x }}{{ end }}',
    ],
)
def test_much_output_is_refused_before_it_is_made(text: str) -> None:
    assert failure(text, STEP_LIMIT).startswith("template: a")


def test_steps_are_paid_for_long_texts_and_lists_too() -> None:
    text = '{{ $x := printf "%1000000d" 1 }}{{ range 1000000 }}{{ $y := $x }}{{ end }}'
    assert failure(text) == "template: too many steps"
    many = Slice(tuple(range(100_000)))
    looped = "{{ range 1000000 }}{{ $y := .Long }}{{ end }}"
    assert failure(looped.replace(".Long", "$.Long"), Long=many).endswith("steps")


def test_recursion_and_nesting_have_one_limit() -> None:
    message = f"template: nested deeper than {DEPTH_LIMIT} levels"
    assert failure('{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" . }}') == message
    brackets = "(" * 90 + "1" + ")" * 90
    nested = '{{ define "r" }}{{ if ' + brackets + ' }}{{ template "r" . }}{{ end }}{{ end }}'
    assert failure(nested + '{{ template "r" . }}') == message


def test_loops_within_loops_end_soon() -> None:
    started = time.perf_counter()
    failure("{{ range 100000 }}{{ range 100000 }}{{ len $.S }}{{ end }}{{ end }}")
    assert time.perf_counter() - started < 10


def test_functions_without_arguments_are_values() -> None:
    assert rendered("{{ print currentDate yesterdayDate }}") == "2024-01-022024-01-01"
    assert "can't evaluate field X" in failure("{{ currentDate.X }}")


def test_a_variable_declared_in_a_template_call_lives_on() -> None:
    text = '{{ define "q" }}{{ . }}{{ end }}{{ template "q" $a := 1 }}{{ $a }}'
    assert rendered(text) == "11"


@pytest.mark.parametrize(
    "text",
    ["{{ .__class__ }}", "{{ (index .Messages 0).fields }}", "{{ .S.upper }}", "{{ .L.items }}"],
)
def test_no_attribute_of_python_can_be_reached(text: str) -> None:
    assert outcome(text) in (None, "<no value>")


def test_values_that_print_as_json_have_a_string_method() -> None:
    tool = Struct("tool", {"Type": "function"}, {"Type": "type"})
    kinds = Slice(("a", "b"), Style.TYPE)
    assert rendered("{{ .X.String }}{{ .Y.String }}", X=tool, Y=kinds) == '{"type":"function"}[a b]'
    assert rendered("{{ .X.String }}", X=Map({"a": 1.0}, Style.JSON)) == '{"a":1}'
    assert rendered("{{ .M.String }}") == "<no value>"
    assert "can't evaluate field String" in failure("{{ .L.String }}")
    assert "can't evaluate field String" in failure("{{ .S.String }}")


def property_of(*kinds: str, any_of: tuple[Any, ...] = ()) -> Struct:
    return Struct("property", {"Type": Slice(kinds, Style.TYPE), "AnyOf": Slice(any_of)}, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (property_of("string"), "string"),
        (property_of("integer", "null"), "number | null"),
        (property_of("array"), "any[]"),
        (property_of("object"), "Record<string, any>"),
        (property_of("odd"), "any"),
        (property_of(), "any"),
        (property_of(any_of=(property_of("boolean"), property_of("number"))), "boolean | number"),
        (message("a", "b"), "any"),
        ("string", "any"),
    ],
)
def test_a_propertys_type_is_told_in_typescript(value: Value, text: str) -> None:
    assert rendered("{{ toTypeScriptType .X }}", X=value) == text


def test_a_propertys_type_can_be_asked_as_a_method() -> None:
    assert rendered("{{ .X.ToTypeScriptType }}", X=property_of("string")) == "string"
    assert "can't evaluate field" in failure("{{ .X.ToTypeScriptType }}", X=message("a", "b"))


def test_a_definition_without_a_name_is_the_main_template() -> None:
    assert failure('{{ template "" . }}').endswith("levels")


def test_bytes_that_are_no_text_come_out_replaced() -> None:
    assert rendered('{{ "\\xff" }}{{ .X }}', X="\ud800") == "\ufffd\ufffd"


def test_a_type_of_one_prints_bare_and_a_nil_list_is_null_in_json() -> None:
    one, none = Slice(("string",), Style.TYPE), Slice((), Style.TYPE)
    assert rendered("{{ .A }}|{{ .B }}|{{ json .A }}", A=one, B=none) == 'string||"string"'
    assert rendered("{{ .A }}|{{ json .A }}", A=Slice((), is_nil=True)) == "[]|null"


def test_what_json_cannot_say_is_left_out() -> None:
    assert rendered("{{ json .A }}|", A=float("inf")) == "|"


def test_values_nested_without_end_are_refused() -> None:
    value: object = 1
    for _ in range(200):
        value = [value]
    with pytest.raises(OperationFailed, match="nested deeper"):
        from_json(value)
    assert from_json([1, True, "x"]) == Slice((1.0, True, "x"))
