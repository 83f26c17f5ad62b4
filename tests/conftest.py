"""Fixtures that every test may use, and what is skipped where."""

import pytest

from registry.workers.engine import find_engine


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: the server's own loop."""
    return "asyncio"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the real engine need it."""
    engine = find_engine("xllamacpp")
    if engine.problem:
        for item in items:
            if item.get_closest_marker("engine"):
                item.add_marker(pytest.mark.skip(reason=engine.problem))
