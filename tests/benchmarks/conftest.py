"""What a benchmark replaces in the product is put back after its test."""

import sys

import pytest

from app.models import built_in


@pytest.fixture(autouse=True)
def _models_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' clients take the place of the built-in cnn where they are imported."""
    monkeypatch.setitem(built_in._BUILDERS, "cnn", built_in._BUILDERS["cnn"])
    monkeypatch.delitem(sys.modules, "benchmarks.clients", raising=False)
