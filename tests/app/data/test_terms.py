"""app/data/terms.py: what the server says of the data arrives as it was, or is refused."""

import json

import pandas as pd
import pytest
import torch

from app.data.columns import Columns
from app.data.terms import NO_TERMS, Terms
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import TensorExamples

COLUMNS = Columns.of(pd.DataFrame({"age": [1.0, 3.0], "city": ["Oslo", "Rome"]}))
TERMS = Terms(("no", "yes"), COLUMNS, (2.0, 0.5, 0.5, 1.0, 0.5, 0.5))


def test_they_travel() -> None:
    """A schema and a scale come back equal; nothing said means nothing."""
    assert Terms.of(TERMS.to_config(), TERMS.class_names) == TERMS
    assert NO_TERMS.to_config() == {}
    assert Terms.of({}, ()) == NO_TERMS


def test_a_scale_by_hand() -> None:
    """(3 − 2) / 1 = 1 and (0 − 0.5) / 0.5 = −1; without a scale, examples stay what they are."""
    examples = TensorExamples(torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([1]))
    scaled = TERMS.scaled(examples)
    assert isinstance(scaled, TensorExamples)
    assert (scaled.x.tolist(), scaled.y.tolist()) == ([[1.0, -1.0, 1.0]], [1])
    assert NO_TERMS.scaled(examples) is examples
    image = TensorExamples(torch.zeros(1, 1, 2, 2), torch.tensor([1]))
    with pytest.raises(
        BadInput, match=r"inputs have shape \(1, 2, 2\), the scale is that of a table of 3 columns"
    ):
        TERMS.scaled(image)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({wire.SCALE: [1.0]}, "expected as many means as deviations above 0"),
        ({wire.SCALE: [1.0, 0.0]}, "expected as many means as deviations above 0"),
        ({wire.SCALE: [float("nan"), 1.0]}, "expected as many means as deviations above 0"),
        ({wire.COLUMNS: "{"}, "no schema of a table's columns"),
        ({wire.COLUMNS: "[" * 100_000}, "no schema of a table's columns"),
        (
            {wire.COLUMNS: json.dumps({"columns": [{"name": "a", "kind": "x"}]})},
            "no schema of a table's columns",
        ),
    ],
)
def test_damaged(entries: dict[str, object], said: str) -> None:
    """A client refuses them before it reads its data."""
    with pytest.raises(BadInput, match=said):
        Terms.of(entries, ())
