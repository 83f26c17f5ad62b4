"""Tools as engines read them: what they would choke on is refused in words."""

from typing import Any

import pytest

from registry.core.errors import RequestInvalid
from registry.core.tools import for_engine

OPTIONAL = {"type": "object", "properties": {f"p{n}": {"type": ("string",)} for n in range(40)}}


def tool(parameters: Any = None, **changes: Any) -> dict[str, Any]:
    function = {"name": "f", **({"parameters": parameters} if parameters else {})}
    return {"type": "function", "function": function, **changes}


def nested(depth: int) -> dict[str, Any]:
    """Objects within objects within a list."""
    inner: Any = {"type": "string"}
    for _ in range(depth):
        inner = {"items": inner}
    return inner  # type: ignore[no-any-return]


def test_a_kind_that_is_left_out_is_a_function_and_single_types_are_no_lists() -> None:
    sent = {"function": {"name": "f", "parameters": {"properties": {"a": {"type": ("x",)}}}}}
    (read,) = for_engine([sent])
    assert read == {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"a": {"type": "x"}}}},
    }
    (read,) = for_engine([tool({"properties": {"a": {"type": ("x", "y")}}})])
    assert read["function"]["parameters"]["properties"]["a"]["type"] == ["x", "y"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({}, "invalid tool at 1: its function has no name"),
        (tool(function=None), "invalid tool at 1: its function has no name"),
        (tool(function={"name": ""}), "invalid tool at 1: its function has no name"),
        (tool(type="web"), 'invalid tool at 1: its type is "web", not function'),
        (tool(nested(200)), "invalid tool at 1: it is nested deeper than 100 levels"),
        (tool(nested(20_000)), "invalid tool at 1: it is nested deeper than 100 levels"),
    ],
)
def test_a_tool_that_no_engine_reads_is_refused(bad: dict[str, Any], why: str) -> None:
    with pytest.raises(RequestInvalid, match=f"^{why}$"):
        for_engine([tool(), bad])


def test_what_would_hold_an_engine_up_is_refused() -> None:
    for_engine([tool(OPTIONAL)] * 40)
    required = {**OPTIONAL, "required": list(OPTIONAL["properties"])}
    for_engine([tool(required)] * 100)
    with pytest.raises(RequestInvalid, match="the tools have too many optional parameters"):
        for_engine([tool(OPTIONAL)] * 41)
    many = {"type": "object", "properties": {f"p{n}": {} for n in range(300)}, "required": "p"}
    with pytest.raises(RequestInvalid, match="the tools have too many optional parameters"):
        for_engine([tool({"properties": {"a": {"items": many}}})])
