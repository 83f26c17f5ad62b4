from collections.abc import Sequence

import pytest

from registry.core.errors import WorkerLost
from registry.core.generation import (
    Answer,
    AnswerEvent,
    Choice,
    Delta,
    End,
    Logprob,
    Metrics,
    Rendered,
)
from registry.core.wishes import ToolCall
from registry.web.joined import Joined, joined

pytestmark = pytest.mark.anyio

ONE, TWO = Logprob(Choice("a", -1)), Logprob(Choice("b", -2))
CALLS = ToolCall("f", {}, "1", 0), ToolCall("g", {}, "2", 1)


async def answer(events: Sequence[AnswerEvent], error: WorkerLost | None = None) -> Answer:
    for event in events:
        yield event
    if error is not None:
        raise error


async def test_the_pieces_are_put_together() -> None:
    end = End(metrics=Metrics(eval_count=2))
    events: list[AnswerEvent] = [
        Delta("a", "x", CALLS[:1], (ONE,)),
        Delta("b", "y", CALLS[1:], (TWO,)),
        end,
    ]
    assert await joined(answer(events)) == Joined("ab", "xy", CALLS, (ONE, TWO), end)


async def test_a_rendered_prompt_is_kept() -> None:
    whole = await joined(answer([Rendered("p", 1)]))
    assert (whole.rendered, whole.metrics) == (Rendered("p", 1), Metrics())


async def test_a_failure_is_the_callers() -> None:
    with pytest.raises(WorkerLost):
        await joined(answer([Delta("a")], WorkerLost()))
