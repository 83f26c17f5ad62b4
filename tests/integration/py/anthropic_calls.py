"""Every call of Anthropic's client that there is an endpoint for, against SERVER."""

import asyncio
import os

import anthropic

SERVER = os.environ["SERVER"]
SAID = "Hello there, friend."
HI = [{"role": "user", "content": "hi"}]
TOOL = {
    "name": "get_weather",
    "description": "The weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
client = anthropic.Anthropic(base_url=SERVER, api_key="x", max_retries=0)


def ask(model: str, **told: object) -> anthropic.types.Message:
    told = {"messages": HI, "max_tokens": 50, **told}
    return client.messages.create(model=model, **told)


def messages() -> None:
    sampling = {"temperature": 0, "top_p": 1, "top_k": 1}
    whole = ask("hello", system="Be kind.", stop_sequences=["zz"], extra_body=sampling)
    assert whole.content[0].text == SAID, whole
    assert (whole.stop_reason, whole.usage.output_tokens) == ("end_turn", 6), whole
    assert ask("hello", max_tokens=2).stop_reason == "max_tokens"
    stopped = ask("hello", stop_sequences=[","])
    assert stopped.content[0].text == "Hello there", stopped
    with client.messages.stream(model="hello", messages=HI, max_tokens=50) as stream:
        assert "".join(stream.text_stream) == SAID
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 6), final
    events = list(client.messages.create(model="hello", messages=HI, max_tokens=50, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds


def tools_and_thoughts(kind: str) -> None:
    asked = ask(f"{kind}-call", tools=[TOOL])
    call = asked.content[-1]
    assert (asked.stop_reason, call.name, call.input) == (
        "tool_use",
        "get_weather",
        {"city": "Paris"},
    )
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
    history = [
        *HI,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    ask(f"{kind}-call", tools=[TOOL], messages=history)
    with client.messages.stream(
        model=f"{kind}-call", messages=HI, max_tokens=50, tools=[TOOL]
    ) as stream:
        final = stream.get_final_message()
    assert final.content[-1].input == {"city": "Paris"}, final
    thinking = {"type": "enabled", "budget_tokens": 1024}
    thought = ask(f"{kind}-thought", thinking=thinking, max_tokens=2000)
    assert [block.type for block in thought.content] == ["thinking", "text"], thought
    assert thought.content[0].thinking.strip() == "I see now", thought


async def at_once() -> None:
    async with anthropic.AsyncAnthropic(base_url=SERVER, api_key="x") as them:
        answers = await asyncio.gather(
            *(them.messages.create(model="hello", messages=HI, max_tokens=50) for _ in range(5))
        )
    assert {answer.content[0].text for answer in answers} == {SAID}


def errors() -> None:
    for call, kind in (
        (lambda: ask("none"), anthropic.NotFoundError),
        (lambda: ask("hello", messages=[]), anthropic.BadRequestError),
        (lambda: ask("hello", max_tokens=0), anthropic.BadRequestError),
        (lambda: ask("hello", tools=[TOOL]), anthropic.BadRequestError),
    ):
        try:
            call()
        except kind as error:
            assert error.body["type"] == "error", error
        else:
            raise AssertionError(f"no {kind}")


messages()
for each in ("go", "jinja"):
    tools_and_thoughts(each)
asyncio.run(at_once())
errors()
print("all calls done")
