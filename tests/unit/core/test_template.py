"""What a template's text tells about the model."""

import json
from pathlib import Path

import pytest

from registry.core.errors import TemplateInvalid
from registry.core.template import (
    DEFAULT,
    GoTemplate,
    capabilities,
    check,
    chosen_template,
    jinja_capabilities,
    variables,
)

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "data" / "go-template-golden.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", GOLDEN["parsed"])
def test_variables_and_tags_are_those_the_ollama_server_finds(name: str) -> None:
    template = GoTemplate.read(GOLDEN["templates"][name])
    assert {
        "vars": sorted(template.variables),
        "thinking_tags": list(template.thinking_tags),
        "tool_tag": template.tool_marker,
    } == GOLDEN["parsed"][name]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (DEFAULT, ()),
        ("no variables", ()),
        ("{{ range .Tools }}{{ . }}{{ end }}{{ .Prompt }}", ("tools",)),
        ("{{ if .TOOLS }}{{ end }}", ("tools",)),
        ("{{ .Suffix }}{{ .Tools }}", ("tools", "insert")),
        ("{{ json .Suffix }}", ("insert",)),
        ('{{ define "x" }}{{ .Tools }}{{ end }}{{ template "x" . }}', ("tools",)),
        ("{{ print (len .Tools) }}", ("tools",)),
        ("{{ (index .Tools 0).Function }}", ()),
        ("{{ $tools := 1 }}{{ $tools }}", ()),
        (
            "{{ range .Messages }}{{ if .Thinking }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}",
            ("thinking",),
        ),
        ("{{ range .Messages }}<t>{{ .Thinking }}{{ end }}", ()),
        ("{{ broken", ()),
    ],
)
def test_capabilities_follow_from_the_variables(text: str, found: tuple[str, ...]) -> None:
    assert capabilities(text) == found


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("{{ range .Messages }} <a> {{ .Thinking }} </a> {{ end }}", ("<a>", "</a>")),
        ("{{ range .Other }}<a>{{ .Thinking }}</a>{{ end }}", ("", "")),
        ("<a>{{ .Thinking }}</a>", ("", "")),
        (
            "{{ range .Messages }}<a>{{ .Role }}{{ .Thinking }}x{{ .Role }}</a>{{ end }}",
            ("<a>", "</a>"),
        ),
        ("{{ range .Messages }}<a>{{ range .Thinking }}{{ end }}</a>{{ end }}", ("", "")),
        ("{{ range .Messages }}<a>{{ .X.Thinking }}</a>{{ end }}", ("", "")),
        (
            "{{ range .Messages }}<a>{{ with .Thinking }}{{ . }}{{ end }}</a>{{ end }}",
            ("<a>", "</a>"),
        ),
        (
            "{{ range .Messages }}{{ if .X }}a{{ else }}<b>{{ .Thinking }}</b>{{ end }}{{ end }}",
            ("<b>", "</b>"),
        ),
        (
            "{{ range .Messages }}<a>{{ if .Thinking }}{{ end }}</a>"
            "{{ if .X }}<b>{{ .Thinking }}</b>{{ end }}{{ end }}",
            ("<b>", "</b>"),
        ),
        ('{{ range .Messages }}<a>{{ template "t" .Thinking }}</a>{{ end }}', ("<a>", "</a>")),
    ],
)
def test_thinking_tags_are_the_texts_around_the_last_mention(
    text: str, tags: tuple[str, str]
) -> None:
    assert GoTemplate.read(text).thinking_tags == tags


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("{{ .Prompt }}", "{"),
        ("{{ if .ToolCalls }}<call>{{ end }}", "<call>"),
        ("{{ if .ToolCalls }}\r\n <call>\r\n x{{ end }}", "<call>\n x"),
        ('{{ if .ToolCalls }}[CALLS] {"name": 1}{{ end }}', "[CALLS]"),
        ('{{ if .ToolCalls }} {"name"{{ end }}', "{"),
        ("{{ if .ToolCalls }}{{ .X }}<late>{{ end }}", "{"),
        ("{{ if .ToolCalls }} {{ range .ToolCalls }}<in>{{ end }}{{ end }}", "<in>"),
        ("{{ if .ToolCalls }}{{ range .ToolCalls }}{{ else }}<none>{{ end }}{{ end }}", "<none>"),
        ("{{ if .ToolCalls }}{{ range .ToolCalls }}{{ end }}<after>{{ end }}", "{"),
        ('{{ if .ToolCalls }}{{ template "x" . }}<t>{{ end }}', "<t>"),
        ("{{ if .X }}{{ else if or .Y .ToolCalls }}<else>{{ end }}", "<else>"),
        (
            "{{ range .M }}{{ with .X }}{{ if .M.ToolCalls }}<deep>{{ end }}{{ end }}{{ end }}",
            "<deep>",
        ),
        ("{{ if (len .ToolCalls) }}<brackets>{{ end }}", "{"),
        ("{{ range .ToolCalls }}<no>{{ end }}", "{"),
        ("{{ if .ToolCalls }}{{ end }}{{ if .ToolCalls }}<second>{{ end }}", "{"),
    ],
)
def test_the_tool_marker_is_the_first_text_of_the_clause_about_tool_calls(
    text: str, marker: str
) -> None:
    assert GoTemplate.read(text).tool_marker == marker


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ .Prompt", "template: :1: unclosed action"),
        ("{{ if .System }}x", "template: :1: unexpected EOF"),
        ("{{ Prompt }}", 'template: :1: function "Prompt" not defined'),
        ('{{ template "x" }}', "undefined template specified"),
    ],
)
def test_checking_refuses_what_the_ollama_server_refuses(text: str, message: str) -> None:
    with pytest.raises(TemplateInvalid) as raised:
        check(text)
    assert str(raised.value) == message


def test_variables_are_lower_case_and_response_is_added_where_it_will_be_appended() -> None:
    assert variables("{{ $x := .Prompt }}{{ $x.Y }}") == {"prompt", "$x", "y", "response"}
    assert variables("{{ .Messages }}") == {"messages"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", ()),
        ("{% if tools %}{% endif %}", ("tools",)),
        ("{{ m.tool_call }}", ("tools",)),
        ("<think>{{ x }}</think>", ("thinking",)),
        ("<think>", ()),
        ("{{ content.split('</think>') }}", ("thinking",)),
        ('{{ content.split("</think>") }}', ("thinking",)),
        ("{{ content.split('</think>') }}{{ reasoning_content }}", ()),
        ("{{ content.split('</think>') }}<SPECIAL_12>", ()),
        ("tools <think></think>", ("tools", "thinking")),
    ],
)
def test_a_jinja_text_shows_capabilities_by_its_words(text: str, found: tuple[str, ...]) -> None:
    assert jinja_capabilities(text) == found


GO_PLAIN = "{{ range .Messages }}{{ .Content }}{{ end }}"
GO_TOOLS = "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ end }}"
GO_ROUND_TRIP = '{{ .Tools }}{{ range .Messages }}{{ .ToolCalls }}{{ eq .Role "tool" }}{{ end }}'
JINJA_PLAIN = "{{ messages }}"
JINJA_TOOLS = "{{ tools }}"
JINJA_ROUND_TRIP = "{{ tools }}{{ tool_calls }}{{ tool_response }}"


@pytest.mark.parametrize(
    ("go", "jinja", "choice"),
    [
        (None, None, None),
        ("", "", None),
        (GO_PLAIN, None, "go"),
        (None, JINJA_PLAIN, "jinja"),
        (GO_PLAIN, JINJA_PLAIN, "go"),
        (GO_PLAIN, JINJA_TOOLS, "jinja"),
        (GO_TOOLS, JINJA_PLAIN, "go"),
        (GO_TOOLS, JINJA_TOOLS, "go"),
        (GO_TOOLS, JINJA_ROUND_TRIP, "jinja"),
        (GO_ROUND_TRIP, JINJA_ROUND_TRIP, "go"),
        (GO_ROUND_TRIP, JINJA_TOOLS + "<think></think>", "go"),
        (GO_ROUND_TRIP, JINJA_ROUND_TRIP + "<think></think>", "jinja"),
        (GO_PLAIN + "{{ .Suffix }}", JINJA_ROUND_TRIP, "go"),
        ("{{ broken", JINJA_PLAIN, "jinja"),
        ("{{ broken", None, "go"),
    ],
)
def test_the_stronger_template_makes_the_prompts(
    go: str | None, jinja: str | None, choice: str | None
) -> None:
    assert chosen_template(go, jinja) == choice
