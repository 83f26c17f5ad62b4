"""Every call of langchain-ollama against SERVER: chats, tools, thoughts, structure, vectors."""

import asyncio
import os

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel

SERVER = os.environ["SERVER"]
SAID = "Hello there, friend."


class Filled(BaseModel):
    """What the model fills in."""

    a: int


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 22 degrees"


def chat(model: str, **options: object) -> ChatOllama:
    options = {"temperature": 0, "validate_model_on_init": True, **options}
    return ChatOllama(model=model, base_url=SERVER, **options)


def chats() -> None:
    hello = chat("hello", num_predict=20, seed=1, keep_alive="1m")
    whole = hello.invoke([SystemMessage("Be kind."), HumanMessage("hi")])
    assert whole.content == SAID, whole
    assert whole.response_metadata["done_reason"] == "stop", whole
    assert whole.usage_metadata["output_tokens"] == 6, whole
    pieces = list(hello.stream("hi"))
    assert "".join(piece.content for piece in pieces) == SAID, pieces
    assert [answer.content for answer in hello.batch(["a", "b"])] == [SAID, SAID]
    assert hello.bind(stop=[","]).invoke("hi").content == "Hello there"


async def chats_at_once() -> None:
    hello = chat("hello")
    answers = await asyncio.gather(*(hello.ainvoke("hi") for _ in range(5)))
    assert {answer.content for answer in answers} == {SAID}
    assert "".join([piece.content async for piece in hello.astream("hi")]) == SAID


def tools(kind: str) -> None:
    model = chat(f"{kind}-call").bind_tools([get_weather])
    asked = model.invoke("hi")
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"}), asked
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    again = model.invoke([HumanMessage("hi"), asked, result])
    assert isinstance(again, AIMessage)
    streamed = list(model.stream("hi"))
    assert any(piece.tool_calls for piece in streamed), streamed


def thoughts_and_structure(kind: str) -> None:
    thought = chat(f"{kind}-thought", reasoning=True).invoke("hi")
    assert thought.additional_kwargs["reasoning_content"].strip() == "I see now", thought
    assert thought.content.strip() == "Yes.", thought
    assert (
        "reasoning_content"
        not in chat(f"{kind}-thought", reasoning=False).invoke("hi").additional_kwargs
    )
    filled = chat(f"{kind}-object").with_structured_output(Filled, method="json_schema")
    assert filled.invoke("x") == Filled(a=1)
    assert chat(f"{kind}-object", format="json").invoke("x").content.strip() == '{"a":1}'


def texts_and_vectors() -> None:
    text = OllamaLLM(model="hello", base_url=SERVER, temperature=0)
    assert text.invoke("hi") == SAID
    assert "".join(text.stream("hi")) == SAID
    vectors = OllamaEmbeddings(model="vectors", base_url=SERVER)
    many = vectors.embed_documents(["hello", "world"])
    assert [len(vector) for vector in many] == [32, 32]
    assert (
        max(abs(a - b) for a, b in zip(vectors.embed_query("hello"), many[0], strict=True)) < 1e-5
    )


def errors() -> None:
    for call, message in (
        (lambda: chat("none"), "not found"),
        (lambda: chat("hello").bind_tools([get_weather]).invoke("x"), "does not support tools"),
        (lambda: chat("none", validate_model_on_init=False).invoke("x"), "not found"),
    ):
        try:
            call()
        except Exception as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"no error: {message}")


chats()
asyncio.run(chats_at_once())
for each in ("go", "jinja"):
    tools(each)
    thoughts_and_structure(each)
texts_and_vectors()
errors()
print("all calls done")
