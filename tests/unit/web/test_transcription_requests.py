import pytest

from registry.core.errors import RequestInvalid
from registry.web.transcription_requests import TranscriptionRequest

FORM = {"model": b"m", "file": b"RIFF"}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "model is required"),
        ({"model": b"m"}, "file is required: http: no such file"),
        ({"model": b"m", "file": b""}, "audio file is empty"),
        (FORM | {"response_format": b"srt"}, "response_format 'srt' is not supported"),
    ],
)
def test_forms_that_lack_something_are_refused(form: dict[str, bytes], message: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        TranscriptionRequest.from_form(form)
    assert str(caught.value).startswith(message)


def test_language_and_prompt_are_told_to_the_model() -> None:
    form = FORM | {"language": b"de", "prompt": "Müller".encode(), "response_format": b"text"}
    ask = TranscriptionRequest.from_form(form)
    wish = ask.as_chat()
    system, said = wish.messages or ()
    assert ask.response_format == "text"
    assert system.content.endswith("The language is de. What may help: Müller")
    assert (said.role, said.images) == ("user", (b"RIFF",))
    assert (wish.model, wish.stream, wish.options) == ("m", False, {"temperature": 0.0})


def test_without_them_only_the_task_is() -> None:
    system = (TranscriptionRequest.from_form(FORM).as_chat().messages or ())[0]
    assert system.content.endswith("asked in it.")
