"""Our own Go templates for the prompt formats of well-known model families, and where they stop.

The names and stop sequences are those of the Ollama server, whose clients show them. The texts of
chatml, llama3-instruct and phi-3 are the same as its own, so that models get the same digest.
Formats without a place for a system prompt carry it in front of the first user message.

Source: the model cards of the families.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Builtin:
    """A template that a model gets without asking for it."""

    name: str
    template: str  # Go template
    stop: tuple[str, ...]


_ALFRED = """\
{{- range .Messages }}<start_{{ .Role }}>{{ .Content }}<end_message>
{{- end }}<start_assistant>"""

_ALPACA = """\
{{- range .Messages }}
{{- if eq .Role "user" }}### Instruction:
{{ .Content }}

{{ else if eq .Role "assistant" }}### Response:
{{ .Content }}

{{ else }}{{ .Content }}

{{ end }}
{{- end }}### Response:
"""

_CHATML = """\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""

_CHATQA = """\
{{- range .Messages }}
{{- if eq .Role "system" }}System: {{ else if eq .Role "user" }}User: {{ else }}Assistant: {{ end }}
{{- .Content }}

{{ end }}Assistant:"""

_CODELLAMA_70B = """\
{{- range .Messages }}Source: {{ .Role }}

 {{ .Content }} <step> {{ end }}Source: assistant
Destination: user

 """

_COMMAND_R = """\
{{- range .Messages }}<|START_OF_TURN_TOKEN|>
{{- if eq .Role "system" }}<|SYSTEM_TOKEN|>
{{- else if eq .Role "user" }}<|USER_TOKEN|>
{{- else }}<|CHATBOT_TOKEN|>
{{- end }}{{ .Content }}<|END_OF_TURN_TOKEN|>
{{- end }}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"""

_FALCON = """\
{{- range .Messages }}
{{- if eq .Role "system" }}System: {{ else if eq .Role "user" }}User: {{ else }}Falcon: {{ end }}
{{- .Content }}
{{ end }}Falcon:"""

_GEMMA = """\
{{- $system := .System }}
{{- range .Messages }}
{{- if eq .Role "user" }}<start_of_turn>user
{{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ .Content }}<end_of_turn>
{{ else if eq .Role "assistant" }}<start_of_turn>model
{{ .Content }}<end_of_turn>
{{ end }}
{{- end }}<start_of_turn>model
"""

_GRANITE = """\
{{- range .Messages }}
{{- if eq .Role "system" }}System:
{{ else if eq .Role "user" }}Question:
{{ else }}Answer:
{{ end }}{{ .Content }}

{{ end }}Answer:
"""

_LLAMA2 = """\
{{- $system := .System }}
{{- range .Messages }}
{{- if eq .Role "user" }}[INST] {{ if $system }}<<SYS>>
{{ $system }}
<</SYS>>

{{ $system = "" }}{{ end }}{{ .Content }} [/INST]
{{- else if eq .Role "assistant" }} {{ .Content }} </s><s>
{{- end }}
{{- end }}"""

_LLAMA3 = """\
{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>
{{- end }}<|start_header_id|>assistant<|end_header_id|>

"""

_MAGICODER = """\
{{- range .Messages }}
{{- if eq .Role "user" }}@@ Instruction
{{ else if eq .Role "assistant" }}@@ Response
{{ end }}{{ .Content }}

{{ end }}@@ Response
"""

_MISTRAL = """\
{{- $system := .System }}
{{- range .Messages }}
{{- if eq .Role "user" }}[INST] {{ if $system }}{{ $system }}

{{ $system = "" }}{{ end }}{{ .Content }} [/INST]
{{- else if eq .Role "assistant" }} {{ .Content }}</s>
{{- end }}
{{- end }}"""

_OPENCHAT = """\
{{- range .Messages }}GPT4 Correct {{ if eq .Role "system" }}System
{{- else if eq .Role "user" }}User
{{- else }}Assistant
{{- end }}: {{ .Content }}<|end_of_turn|>
{{- end }}GPT4 Correct Assistant:"""

_PHI3 = """\
{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}<|end|>
{{ end }}<|assistant|>
"""

_SOLAR = """\
{{- range .Messages }}
{{- if eq .Role "system" }}### System:
{{ else if eq .Role "user" }}### User:
{{ else }}### Assistant:
{{ end }}{{ .Content }}

{{ end }}### Assistant:
"""

_STARCODER2 = """\
{{- range .Messages }}
{{- if eq .Role "user" }}### Instruction
{{ .Content }}

{{ else if eq .Role "assistant" }}### Response
{{ .Content }}<|endoftext|>

{{ else }}{{ .Content }}

{{ end }}
{{- end }}### Response
"""

_VICUNA = """\
{{- range .Messages }}
{{- if eq .Role "user" }}USER: {{ .Content }} {{ else if eq .Role "assistant" -}}
ASSISTANT: {{ .Content }}</s>
{{- else }}{{ .Content }} {{ end }}
{{- end }}ASSISTANT:"""

_ZEPHYR = """\
{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}</s>
{{ end }}<|assistant|>
"""

PROMPT_FORMATS = {
    builtin.name: builtin
    for builtin in (
        Builtin(
            "alfred",
            _ALFRED,
            ("<start_system>", "<end_message>", "<start_user>", "<start_assistant>"),
        ),
        Builtin("alpaca", _ALPACA, ("### Instruction:", "### Response")),
        Builtin("chatml", _CHATML, ("<|im_start|>", "<|im_end|>")),
        Builtin("chatqa", _CHATQA, ("System:", "User:", "Assistant:", "<|begin_of_text|>")),
        Builtin("codellama-70b-instruct", _CODELLAMA_70B, ("Source:", "Destination:", "<step>")),
        Builtin("command-r", _COMMAND_R, ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>")),
        Builtin("falcon-instruct", _FALCON, ("User:", "Assistant:")),
        Builtin("gemma-instruct", _GEMMA, ("<start_of_turn>", "<end_of_turn>")),
        Builtin("gemma3-instruct", _GEMMA, ("<end_of_turn>",)),
        Builtin("granite-instruct", _GRANITE, ("System:", "Question:", "Answer:")),
        Builtin("llama2-chat", _LLAMA2, ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
        Builtin(
            "llama3-instruct", _LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        ),
        Builtin("magicoder", _MAGICODER, ("@@ Instruction", "@@ Response")),
        Builtin("mistral-instruct", _MISTRAL, ("<|im_start|>", "<|im_end|>")),
        Builtin("openchat", _OPENCHAT, ("<|end_of_turn|>",)),
        Builtin("phi-3", _PHI3, ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")),
        Builtin("solar-instruct", _SOLAR, ("### System:", "### User:", "### Assistant")),
        Builtin(
            "starcoder2-instruct",
            _STARCODER2,
            ("### Instruction", "### Response", "<|endoftext|>"),
        ),
        Builtin("vicuna", _VICUNA, ("USER:", "ASSISTANT:")),
        Builtin("zephyr", _ZEPHYR, ("<|system|>", "</s>", "<|user|>", "<|assistant|>")),
    )
}
