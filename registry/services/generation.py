"""From a checked wish to the events of its answer.

Source: spec ollama-api 14-17, inference-and-gguf 11, 12.
"""

from registry.core.errors import Unavailable
from registry.core.generation import Answer, End, Reason, Vectors
from registry.core.wishes import ChatWish, EmbeddingWish, EmbedWish, GenerateWish
from registry.services.inference import Admitted
from registry.services.routing import NO_WORKER, Router


class Generation:
    """Use cases that run a model which has been admitted."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def answer(self, admitted: Admitted, wish: GenerateWish | ChatWish) -> Answer:
        """The events of an answer; nothing is asked of a worker before the first is drawn.

        Raises:
            Unavailable: there is no worker, or none that has time.
        """
        if not admitted.ask.unload:
            raise Unavailable(NO_WORKER, 30)
        yield End(Reason.UNLOAD)

    async def vectors(self, admitted: Admitted, wish: EmbedWish) -> Vectors:
        """The embeddings of an embed's inputs."""
        raise Unavailable(NO_WORKER, 30)

    async def vector(self, admitted: Admitted, wish: EmbeddingWish) -> Vectors:
        """The embedding of one prompt as the older endpoint gives it: none for no prompt."""
        raise Unavailable(NO_WORKER, 30)
