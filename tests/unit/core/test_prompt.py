"""Messages to prompts, against renderings of the real server and for every built-in format."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from registry.core.builtin_templates import PROMPT_FORMATS
from registry.core.errors import OperationFailed, TemplateInvalid
from registry.core.prompt import Turn, cut, render
from registry.core.template import GoTemplate

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "data" / "go-template-golden.json").read_text(encoding="utf-8")
)
TODAY = date(2024, 1, 2)
TALK = (
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
)


def prompt(text: str, turn: Turn) -> str:
    return render(GoTemplate.read(text), turn, TODAY)


def turn_of(case: dict[str, Any]) -> Turn:
    return Turn(
        messages=GOLDEN["messages"][case["messages"]] if "messages" in case else (),
        tools=GOLDEN["tools"] if case.get("tools") else None,
        prompt=case.get("prompt", ""),
        suffix=case.get("suffix", ""),
        think=case.get("think", False),
        think_level=case.get("think_level", ""),
        is_think_set=case.get("is_think_set", False),
    )


def outcome(case: dict[str, Any]) -> str | None:
    try:
        return prompt(GOLDEN["templates"][case["template"]], turn_of(case))
    except (OperationFailed, TemplateInvalid):
        return None


@pytest.mark.parametrize("name", GOLDEN["templates"])
def test_prompts_are_those_of_the_ollama_server(name: str) -> None:
    cases = [case for case in GOLDEN["cases"] if case["template"] == name]
    if name == "chatml-tools":  # prints a tool's function: JSON here, a Go struct there
        cases = [case for case in cases if not case.get("tools")]
    assert cases
    wrong = [(case, outcome(case)) for case in cases if outcome(case) != case.get("output")]
    assert wrong == []


def test_a_tools_function_and_parameters_print_as_json() -> None:
    turn = Turn(messages=TALK, tools=GOLDEN["tools"][1:])
    text = "{{ range .Tools }}{{ .Function.Parameters }}{{ .Function }}{{ end }}{{ len .Messages }}"
    parameters = (
        '{"type":"object","required":["a","b"],"properties":{"a":{"type":"number"},'
        '"b":{"type":"number"},"xs":{"type":"array","items":{"type":"string"}}}}'
    )
    function = f'{{"name":"add","description":"Adds","parameters":{parameters}}}'
    assert prompt(text, turn) == f"{parameters}{function}4"


def test_tools_that_say_little_are_filled_up() -> None:
    turn = Turn(messages=TALK[:2], tools=[{}, {"function": {"parameters": {"$defs": {"x": 1}}}}])
    assert prompt("{{ .Tools }}{{ range .Messages }}{{ end }}", turn) == (
        '[{"type":"","function":{"name":"","description":"","parameters":{"type":"",'
        '"properties":{}}}},{"type":"","function":{"name":"","description":"","parameters":'
        '{"type":"","$defs":{"x":1},"properties":{}}}}]'
    )


def test_a_property_of_alternatives_prints_them() -> None:
    properties = {"p": {"anyOf": [{"type": "string"}, {"type": ["integer"], "enum": [1]}]}}
    tools = [{"function": {"parameters": {"properties": properties}}}]
    text = (
        "{{ range .Tools }}{{ range $n, $p := .Function.Parameters.Properties }}"
        "{{ $p }} {{ toTypeScriptType $p }}{{ end }}{{ end }}{{ .Messages }}"
    )
    assert prompt(text, Turn(tools=tools)) == (
        '{"anyOf":[{"type":"string"},{"type":"integer","enum":[1]}]} string | number[]'
    )


def test_what_has_the_wrong_shape_reads_as_absent() -> None:
    wrong = {"role": 1, "content": None, "tool_calls": [1, {"function": {"index": "x"}}]}
    tools = [{"function": {"parameters": {"properties": {"p": 5, "q": {"type": [1, "null"]}}}}}]
    text = "{{ range .Messages }}({{ .Role }}{{ .Content }}{{ .ToolCalls }}){{ end }}"
    text += "{{ range .Tools }}{{ .Function.Parameters.Properties }}{{ end }}"
    called = '[{"ID":"","Function":{"Index":0,"Name":"","Arguments":{}}}]'
    shown = f'({called}){{"p":{{}},"q":{{"type":"null"}}}}'
    assert (
        prompt(
            text,
            Turn(
                messages=[
                    wrong,
                ],
                tools=tools,
            ),
        )
        == shown
    )
    odd: list[dict[str, Any]] = [{"function": 1}, {"function": {"parameters": {"properties": []}}}]
    assert prompt("{{ len .Tools }}{{ .Messages }}", Turn(tools=odd)) == "2[]"


@pytest.mark.parametrize("key", ["properties", "anyOf"])
def test_properties_nested_without_end_are_refused(key: str) -> None:
    inner: dict[str, Any] = {}
    for _ in range(500):
        inner = {"properties": {"p": inner}} if key == "properties" else {"anyOf": [inner]}
    tools = [{"function": {"parameters": {"properties": {"p": inner}}}}]
    with pytest.raises(OperationFailed, match="nested deeper"):
        prompt("{{ .Messages }}", Turn(tools=tools))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a{{ .Response }}b", "a{{ .Response }}"),
        ("{{ if .X }}{{ .Response }}b{{ else }}c{{ end }}d", "{{ if .X }}{{ .Response }}{{ end }}"),
        (
            "{{ if .X }}b{{ else }}{{ .Response }}c{{ end }}d",
            "{{ if .X }}b{{ else }}{{ .Response }}{{ end }}",
        ),
        ("{{ if .Response }}b{{ end }}c", "{{ if .Response }}b{{ end }}c"),
        ("{{ print .Response 1 }}c", "{{ print .Response }}"),
        ("{{ print (print .Response 1) 2 }}c", "{{ print (print .Response) }}"),
        ("{{ .Response | print }}c", ""),
        ("{{ print (.Response | print) 1 }}", "{{ print }}"),
        ("{{ template `x` . }}{{ .Prompt }}", "{{ template `x` . }}{{ .Prompt }}"),
    ],
)
def test_the_last_turn_ends_where_the_answer_begins(text: str, left: str) -> None:
    assert cut(GoTemplate.read(text).tree.main) == GoTemplate.read(left).tree.main


def test_old_templates_run_once_per_round_and_leave_the_last_open() -> None:
    text = "{{ if .System }}<{{ .System }}>{{ end }}[{{ .Prompt }}]{{ .Response }};"
    assert prompt(text, Turn(messages=TALK)) == "<S>[U1]A1;[U2]"
    assert prompt(text, Turn(messages=(*TALK, {"role": "tool", "content": "x"}))).endswith("[U2]")
    assert prompt("{{ .Prompt }}", Turn(messages=TALK)) == "U1A1U2"


def test_neighbours_of_one_role_are_merged_but_not_tool_results() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "tool", "content": "c"},
        {"role": "tool", "content": "d", "tool_name": "t", "tool_call_id": "1"},
        {},
    ]
    shown = "({{ .Role }} {{ .Content }} {{ .ToolName }}{{ .ToolCallID }})"
    text = "{{ range .Messages }}" + shown + "{{ end }}"
    assert prompt(text, Turn(messages=messages)) == "(user a\n\nb )(tool c )(tool d t1)(  )"


def test_calls_keep_their_arguments_as_json() -> None:
    call = {"id": "c1", "function": {"index": 2, "name": "f", "arguments": {"b": 1, "a": "<"}}}
    message = {"role": "assistant", "tool_calls": [call, {}], "images": ["aGk="], "thinking": "t"}
    text = "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }}{{ .Function.Index }}"
    text += "{{ .Function.Name }}{{ .Function.Arguments }}{{ .Function.Arguments.b }};{{ end }}"
    text += "{{ .Thinking }}{{ len .Images }}{{ end }}"
    assert prompt(text, Turn(messages=[message])) == 'c12f{"a":"\\u003c","b":1}1;0{}<no value>;t1'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "alfred",
            "<start_system>S<end_message><start_user>U1<end_message>"
            "<start_assistant>A1<end_message><start_user>U2<end_message><start_assistant>",
        ),
        (
            "alpaca",
            "S\n\n### Instruction:\nU1\n\n### Response:\nA1\n\n### Instruction:\nU2\n\n"
            "### Response:\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n"
            "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        ("chatqa", "System: S\n\nUser: U1\n\nAssistant: A1\n\nUser: U2\n\nAssistant:"),
        (
            "codellama-70b-instruct",
            "Source: system\n\n S <step> Source: user\n\n U1 <step> "
            "Source: assistant\n\n A1 <step> Source: user\n\n U2 <step> "
            "Source: assistant\nDestination: user\n\n ",
        ),
        (
            "command-r",
            "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U1<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>A1<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>U2<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        ),
        ("falcon-instruct", "System: S\nUser: U1\nFalcon: A1\nUser: U2\nFalcon:"),
        (
            "gemma-instruct",
            "<start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\nA1"
            "<end_of_turn>\n<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "granite-instruct",
            "System:\nS\n\nQuestion:\nU1\n\nAnswer:\nA1\n\nQuestion:\nU2\n\nAnswer:\n",
        ),
        ("llama2-chat", "[INST] <<SYS>>\nS\n<</SYS>>\n\nU1 [/INST] A1 </s><s>[INST] U2 [/INST]"),
        (
            "llama3-instruct",
            "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "magicoder",
            "S\n\n@@ Instruction\nU1\n\n@@ Response\nA1\n\n@@ Instruction\nU2\n\n@@ Response\n",
        ),
        ("mistral-instruct", "[INST] S\n\nU1 [/INST] A1</s>[INST] U2 [/INST]"),
        (
            "openchat",
            "GPT4 Correct System: S<|end_of_turn|>GPT4 Correct User: U1<|end_of_turn|>"
            "GPT4 Correct Assistant: A1<|end_of_turn|>GPT4 Correct User: U2<|end_of_turn|>"
            "GPT4 Correct Assistant:",
        ),
        (
            "phi-3",
            "<|system|>\nS<|end|>\n<|user|>\nU1<|end|>\n<|assistant|>\nA1<|end|>\n"
            "<|user|>\nU2<|end|>\n<|assistant|>\n",
        ),
        (
            "solar-instruct",
            "### System:\nS\n\n### User:\nU1\n\n### Assistant:\nA1\n\n"
            "### User:\nU2\n\n### Assistant:\n",
        ),
        (
            "starcoder2-instruct",
            "S\n\n### Instruction\nU1\n\n### Response\nA1<|endoftext|>\n\n"
            "### Instruction\nU2\n\n### Response\n",
        ),
        ("vicuna", "S USER: U1 ASSISTANT: A1</s>USER: U2 ASSISTANT:"),
        (
            "zephyr",
            "<|system|>\nS</s>\n<|user|>\nU1</s>\n<|assistant|>\nA1</s>\n"
            "<|user|>\nU2</s>\n<|assistant|>\n",
        ),
    ],
)
def test_a_builtin_writes_the_format_of_its_family(name: str, text: str) -> None:
    assert prompt(PROMPT_FORMATS[name].template, Turn(messages=TALK)) == text
