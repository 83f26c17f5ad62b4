"""Scripted models of every kind, put into a started server: it is known what they say."""

import hashlib
from collections.abc import Sequence
from typing import Any

import httpx2

from tests.support.scripted_model import CHATML, embedding_model, scripted_model

GO = (
    "{{ if .Tools }}<|im_start|>system\n{{ range .Tools }}{{ . }}{{ end }}<|im_end|>\n{{ end }}"
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n"
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>\n{{ end }}{{ .Content }}"
    "{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}"
    '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}\n'
    "</tool_call>{{ end }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
"""A Go template with tools and thinking."""
JINJA = """\
{%- if tools %}{{ '<|im_start|>system\\n<tools>' }}{% for tool in tools %}
{{- '\\n' }}{{ tool | tojson }}{% endfor %}
{{- '\\n</tools>\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n' }}
{{- '</tool_call><|im_end|>\\n' }}{% endif %}
{%- for message in messages %}{% if message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content }}
{{- '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}
{%- if message.content is string %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>\\n{"name": "' + call.function.name }}
{{- '", "arguments": ' }}{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"""
"""The same for the engine."""
HELLO = ["Hello", " there", ",", " friend", "."]
THOUGHT = ["<think>", "\nI see", " now", "\n</think>", "\n\n", "Yes", "."]
OBJECT = ["<think>", "\nhm", "\n</think>", "\n\n", "{", '"a"', ":", "1", "}"]
CALL = [
    "Let me see.", "<tool_call>", "\n{", '"name": "get', '_weather", ', '"arguments": {',
    '"city": "Paris"', "}}", "\n</tool_call>",
]  # fmt: skip
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string"}},
        },
    },
}


def put(client: httpx2.Client, name: str, gguf: bytes, **recipe: Any) -> None:
    """Create a model of a file that answers the same each time."""
    digest = f"sha256:{hashlib.sha256(gguf).hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=gguf).raise_for_status()
    parameters = {"temperature": 0, **recipe.pop("parameters", {})}
    body = {"model": name, "files": {"m.gguf": digest}, "parameters": parameters, **recipe}
    client.post("/api/create", json={**body, "stream": False}).raise_for_status()


def put_all(client: httpx2.Client) -> None:
    """`hello`, `go-…` with a Go template and `jinja-…` with the engine's, `vectors`."""

    def talker(name: str, script: Sequence[str], **recipe: Any) -> None:
        put(client, f"go-{name}", scripted_model(script), template=GO, **recipe)
        put(client, f"jinja-{name}", scripted_model(script, chat_template=JINJA), **recipe)

    put(client, "hello", scripted_model(HELLO, chat_template=CHATML))
    talker("thought", THOUGHT, system="Be brief.")
    talker("object", OBJECT)
    talker("call", CALL)
    put(client, "vectors", embedding_model())
