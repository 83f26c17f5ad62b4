"""Modelfiles: text -> commands, and a model -> the text that `show` prints.

The command line reads a Modelfile and sends what it says as a create request; files that it names
are the caller's business, nothing here touches a disk. Laxer than the stock client in three points:
more than one space may follow `PARAMETER` and `MESSAGE`, characters that do not print (a no-break
space, the joiner inside an emoji) are kept, and CR LF ends one line, not two.

Source: Ollama docs/modelfile.md, "Format"; recorded runs of its client in `tests/golden/wire`.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.core.errors import ModelfileInvalid
from registry.core.gotext import trim_space
from registry.core.parameters import modelfile_values, read

_COMMANDS = frozenset(
    (
        *("from", "license", "template", "system", "adapter", "draft"),
        *("renderer", "parser", "parameter", "message", "requires"),
    )
)
_UNKNOWN_COMMAND = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)
_ROLES = ("system", "user", "assistant")
_UNKNOWN_ROLE = 'message role must be one of "system", "user", or "assistant"'
_NAME = re.compile(r"[ \t]*([A-Za-z]*)")
_KEY = re.compile(r"[ \t]*([A-Za-z0-9_]*)")
_SPACES = " \t"
_LINE_END = re.compile(r"\r\n|\r|\n")
_TRIPLE = '"""'
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_COUNT = r"(?:0|[1-9][0-9]*)"
_PRERELEASE = rf"(?:{_COUNT}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"{_COUNT}(?:\.{_COUNT}(?:\.{_COUNT}(?:-{_PRERELEASE}(?:\.{_PRERELEASE})*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?"
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command. `key` is a parameter's name or a message's role, else empty."""

    name: str  # lower case
    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Modelfile:
    """The commands of a Modelfile in their order; at least one is a `from`."""

    commands: tuple[Command, ...]

    def values(self, name: str) -> tuple[str, ...]:
        """The values of all commands of one name, such as `from`, `adapter` or `draft`."""
        return tuple(command.value for command in self.commands if command.name == name)

    def request(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The members of a create request that need no file, and warnings for the user.

        Of `template system renderer parser requires` the last one counts; an empty one is absent.

        Raises:
            ModelfileInvalid: an unknown parameter, a value of the wrong type, a bad version.
        """
        body: dict[str, Any] = {}
        for name in ("template", "system", "renderer", "parser", "requires"):
            values = self.values(name)
            if values and values[-1]:
                body[name] = values[-1]
        if "requires" in body:
            body["requires"] = _version(body["requires"])
        if self.values("license"):
            body["license"] = list(self.values("license"))
        parameters, warnings = read(
            (command.key, command.value) for command in self.commands if command.name == "parameter"
        )
        if parameters:
            body["parameters"] = parameters
        messages = [
            {"role": command.key, "content": command.value}
            for command in self.commands
            if command.name == "message"
        ]
        if messages:
            body["messages"] = messages
        return body, warnings


def _version(text: str) -> str:
    version = text.removeprefix("v")
    if _VERSION.fullmatch(version) is None:
        raise ModelfileInvalid("requires must be a valid semver (e.g. 0.14.0)")
    return version


def decode(data: bytes) -> str:
    """The text of a Modelfile: UTF-8, or UTF-16 if it starts with that byte order mark."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.decode("utf-8", "replace")


def parse(text: str) -> Modelfile:
    """Read a Modelfile.

    A value goes to the end of its line; one that starts with a quote, or three, goes on to the
    line that ends with the same. Quotes are removed, nothing inside them is an escape.

    Raises:
        ModelfileInvalid: with the line's number; or no `FROM`, or the text ends inside a value.
    """
    lines = _LINE_END.split(text)
    ends = _LINE_END.findall(text)
    commands: list[Command] = []
    at = 0
    while at < len(lines):
        line = lines[at].lstrip(_SPACES)
        if not line or line.startswith("#"):
            at += 1
            continue
        name, key, value = _head(line, at + 1)
        stop = _value_stop(value, lines, at)
        if stop > at:
            value += "".join(
                end + more
                for end, more in zip(ends[at:stop], lines[at + 1 : stop + 1], strict=True)
            )
        commands.append(Command(name, key, _unquoted(trim_space(value)), at + 1))
        at = stop + 1
    if not any(command.name == "from" and command.value for command in commands):
        raise ModelfileInvalid("no FROM line")
    return Modelfile(tuple(commands))


def _head(line: str, number: int) -> tuple[str, str, str]:
    """Name, key and the start of the value."""
    word, rest = _word(_NAME, line)
    name = word.lower()
    if name not in _COMMANDS or (rest and rest[0] not in _SPACES):
        raise ModelfileInvalid(f"(line {number}): {_UNKNOWN_COMMAND}")
    key = ""
    if name in ("parameter", "message"):
        key, rest = _word(_KEY if name == "parameter" else _NAME, rest)
    if not rest or rest[0] not in _SPACES:
        raise ModelfileInvalid(f'(line {number}): a space and a value must follow "{key or word}"')
    if name == "message" and key not in _ROLES:
        raise ModelfileInvalid(f"(line {number}): {_UNKNOWN_ROLE}")
    return name, key, rest[1:]


def _word(pattern: re.Pattern[str], text: str) -> tuple[str, str]:
    match = pattern.match(text)
    assert match is not None  # both patterns match the empty text
    return match[1], text[match.end() :]


def _value_stop(value: str, lines: Sequence[str], at: int) -> int:
    """The index of the line on which the value that starts on line `at` ends.

    Raises:
        ModelfileInvalid: its closing quotes are missing.
    """
    first = trim_space(value)
    mark = _TRIPLE if first.startswith(_TRIPLE) else first[:1]
    if mark not in ('"', _TRIPLE):
        return at
    if len(first) >= 2 * len(mark) and first.endswith(mark):
        return at
    for stop in range(at + 1, len(lines)):
        if trim_space(lines[stop]).endswith(mark):
            return stop
    raise ModelfileInvalid(f"(line {at + 1}): unexpected EOF: {mark} is not closed")


def _unquoted(text: str) -> str:
    mark = _TRIPLE if text.startswith(_TRIPLE) else '"' if text.startswith('"') else ""
    return text[len(mark) : len(text) - len(mark)]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a model's Modelfile tells of it. `sources` are its model and then its projectors."""

    name: str  # as short as it can be
    sources: Sequence[str]  # a path, or whatever a FROM may name
    template: str  # the Go template or its default, even where prompts are made by the Jinja text
    adapters: Sequence[str] = ()
    draft: str = ""
    system: str = ""
    renderer: str = ""
    parser: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    licenses: Sequence[str] = ()
    messages: Sequence[tuple[str, str]] = ()  # role, content


def render(shown: Shown) -> str:
    """The `modelfile` text of `/api/show`; every line ends with a newline."""
    lines = [
        '# Modelfile generated by "ollama show"',
        "# To build a new Modelfile based on this, replace FROM with:",
        f"# FROM {shown.name}",
        "",
        f"FROM {shown.sources[0] if shown.sources else ''}",
    ]
    lines += [f"ADAPTER {_quoted(adapter)}" for adapter in shown.adapters]
    lines += _optional("DRAFT", shown.draft)
    lines += [f"FROM {source}" for source in shown.sources[1:]]
    lines.append(f"TEMPLATE {_quoted(shown.template)}")
    lines += _optional("SYSTEM", shown.system)
    lines += _optional("RENDERER", shown.renderer)
    lines += _optional("PARSER", shown.parser)
    lines += [
        f"PARAMETER {key} {_quoted(value)}" for key, value in modelfile_values(shown.parameters)
    ]
    lines += [f"LICENSE {_quoted(text)}" for text in shown.licenses]
    lines += [f"MESSAGE {role} {_quoted(content)}" for role, content in shown.messages]
    return "\n".join(lines) + "\n"


def render_tensor_model(shown: Shown) -> str:
    """The same for a model of safetensors layers, which has no file that a FROM could name."""
    head, _, rest = render(shown).partition("\n\n")
    first = head.partition("\n")[0]
    return f"{first}\nFROM {shown.name}\n{rest.partition(chr(10))[2]}"


def _optional(command: str, value: str) -> list[str]:
    return [f"{command} {_quoted(value)}"] if value else []


def _quoted(text: str) -> str:
    """`text` in quotes if a bare one would be read back differently; three if it has quotes."""
    if "\n" not in text and not text.startswith(" ") and not text.endswith(" "):
        return text
    mark = _TRIPLE if '"' in text else '"'
    return f"{mark}{text}{mark}"
