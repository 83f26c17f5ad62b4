"""How an answer is sampled and where it ends, as engines want to be told.

Source: spec ollama-api 17.1, 18.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.core.options import integer, number

_OPEN_ENDED = 10  # contexts that an answer without a limit may fill
_STOPS = 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """What an answer is made with; `given` are the options that somebody did set."""

    num_keep: int = 4
    seed: int = -1
    num_predict: int = -1
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    temperature: float = 0.8
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()

    @classmethod
    def of(cls, options: Mapping[str, Any], num_ctx: int) -> "Sampling":
        """From checked options, with an end to open-ended answers: ten contexts."""
        most = _OPEN_ENDED * num_ctx
        predict = integer(options, "num_predict", -1)
        last = integer(options, "repeat_last_n", 64)
        stops = [item for item in options.get("stop") or () if item]
        return cls(
            num_keep=integer(options, "num_keep", 4),
            seed=integer(options, "seed", -1),
            num_predict=most if not 0 <= predict <= most else predict,
            top_k=integer(options, "top_k", 40),
            top_p=number(options, "top_p", 0.9),
            min_p=number(options, "min_p", 0.0),
            typical_p=number(options, "typical_p", 1.0),
            repeat_last_n=num_ctx if last < 0 else last,  # -1 means all of the context
            temperature=number(options, "temperature", 0.8),
            repeat_penalty=number(options, "repeat_penalty", 1.0),
            presence_penalty=number(options, "presence_penalty", 0.0),
            frequency_penalty=number(options, "frequency_penalty", 0.0),
            stop=tuple(stops[:_STOPS]),
            given=frozenset(name for name, value in options.items() if value is not None),
        )

    def body(self) -> dict[str, Any]:
        """As llama-server's endpoints name them."""
        return {
            "n_predict": self.num_predict,
            "n_keep": self.num_keep,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "repeat_last_n": self.repeat_last_n,
            "repeat_penalty": self.repeat_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            **({"stop": list(self.stop)} if self.stop else {}),
        }

    def openai_body(self) -> dict[str, Any]:
        """As OpenAI's API names them, and only those that were given: its servers know defaults."""
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
        body = {name: getattr(self, name) for name in names if name in self.given}
        body |= {"max_tokens": self.num_predict} if "num_predict" in self.given else {}
        return body | ({"stop": list(self.stop)} if self.stop else {})
