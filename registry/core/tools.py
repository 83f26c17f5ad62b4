"""Tools as engines read them: JSON objects that they make a grammar of.

Source: llama.cpp, common/chat.cpp, `common_chat_tools_parse_oaicompat`; spec inference-and-gguf
12.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from registry.core.errors import RequestInvalid
from registry.core.gotext import quote

_FUNCTION = "function"
_DEEPEST = 100
_OPTIONAL = 1 << 16
"""An engine's grammar grows by the square of an object's optional properties: with 512 of them it
took a second, with 3,000 a minute."""
_SHOWN = 80


def for_engine(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools, each with its kind; where a property has one type, that is no list.

    Raises:
        RequestInvalid: one without a name, of another kind, or nested too deeply; or an engine
            would be held up by all of them.
    """
    read = [_tool(tool, place) for place, tool in enumerate(tools)]
    if sum(map(_cost, read)) > _OPTIONAL:
        raise RequestInvalid("the tools have too many optional parameters for an engine")
    return read


def _tool(tool: Mapping[str, Any], place: int) -> dict[str, Any]:
    kind, function = tool.get("type") or _FUNCTION, tool.get("function")
    if kind != _FUNCTION:
        shown = quote(str(kind)[:_SHOWN])
        raise RequestInvalid(f"invalid tool at {place}: its type is {shown}, not function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise RequestInvalid(f"invalid tool at {place}: its function has no name")
    try:
        return {**_plain(tool, 0), "type": kind}
    except RecursionError as error:
        raise RequestInvalid(
            f"invalid tool at {place}: it is nested deeper than {_DEEPEST} levels"
        ) from error


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, Mapping):
        plain = {key: _plain(item, depth + 1) for key, item in value.items()}
        kind = plain.get("type")
        return plain | {"type": kind[0]} if isinstance(kind, list) and len(kind) == 1 else plain
    return [_plain(item, depth + 1) for item in value] if isinstance(value, list | tuple) else value


def _cost(value: Any) -> int:
    """The squares of what may be left out, of all objects in it."""
    if isinstance(value, list):
        return sum(map(_cost, value))
    if not isinstance(value, dict):
        return 0
    properties, required = value.get("properties"), value.get("required")
    optional = 0
    if isinstance(properties, dict):
        needed = set(map(str, required)) if isinstance(required, list) else set()
        optional = sum(name not in needed for name in properties)
    return optional**2 + sum(map(_cost, value.values()))
