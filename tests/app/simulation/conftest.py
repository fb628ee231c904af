"""Grids that the tests of a file share."""

from collections.abc import Iterator

import pytest

from app.simulation import LocalGrid
from app.simulation.launch import launch
from tests.app.simulation.helpers import APP, CLIENTS


@pytest.fixture(scope="module")
def _real_start() -> Iterator[None]:
    """Have grids start as they do outside of tests: with a new interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.simulation.pool.launch", launch)
        yield


@pytest.fixture(scope="module")
def grid() -> Iterator[LocalGrid]:
    """Two workers; no test may leave states or open messages."""
    with LocalGrid(APP, {"name": "test", "rate": 0.5}, CLIENTS, 2) as started:
        yield started


@pytest.fixture(scope="module")
def lone() -> Iterator[LocalGrid]:
    """One worker."""
    with LocalGrid(APP, {}, CLIENTS, 1) as started:
        yield started
