"""Forms of POST /v1/audio/transcriptions, and what they mean as a chat.

Source: spec ollama-api 19.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from registry.core.errors import RequestInvalid
from registry.core.wishes import ChatWish, Message
from registry.web.schemas import SHOWN

_TASK = (
    "You write down what is said in a recording, word for word. Give the words alone: no comment, "
    "and no answer to questions that are asked in it."
)
_TIMED = ("srt", "vtt")


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A recording and what is known of it. `language` is a code, `prompt` a hint at its words."""

    model: str
    recording: bytes
    response_format: str = ""
    language: str = ""
    prompt: str = ""

    @classmethod
    def from_form(cls, form: Mapping[str, bytes]) -> Self:
        """Read a form's parts.

        Raises:
            RequestInvalid: the model or the recording is missing, or times are wanted.
        """
        texts = {
            name: form.get(name, b"").decode("utf-8", "replace")
            for name in ("model", "response_format", "language", "prompt")
        }
        if not texts["model"]:
            raise RequestInvalid("model is required")
        if "file" not in form:
            raise RequestInvalid("file is required: http: no such file")
        if not form["file"]:
            raise RequestInvalid("audio file is empty")
        if texts["response_format"] in _TIMED:
            wanted = texts["response_format"][:SHOWN]
            raise RequestInvalid(f"response_format {wanted!r} is not supported: there are no times")
        return cls(recording=form["file"], **texts)

    def as_chat(self) -> ChatWish:
        """The same as a chat with the recording as its media."""
        told = [_TASK]
        if self.language:
            told.append(f"The language is {self.language}.")
        if self.prompt:
            told.append(f"What may help: {self.prompt}")
        said = Message(role="user", content="Write down this recording.", images=(self.recording,))
        return ChatWish(
            model=self.model,
            messages=(Message(role="system", content=" ".join(told)), said),
            stream=False,
            options={"temperature": 0.0},
        )
