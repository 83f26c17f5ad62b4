"""Commands run in this process; what they set for all of it goes with them."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A command says what is logged, and where."""
    yield
    structlog.reset_defaults()
