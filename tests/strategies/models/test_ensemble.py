"""strategies/models/ensemble.py: what members that answer together say, and how their vectors lie."""

import pytest
import torch
from torch import Tensor, nn

from strategies.core.layout import Layout
from strategies.models import travelling
from strategies.models.ensemble import (
    Ensemble,
    absent_in,
    emptied,
    ensemble_of,
    first_member,
    is_whole,
    member_layout,
    members_of,
    whole_layout,
    without_absent,
)
from strategies.task import CLASSIFICATION
from strategies.tasks.multi_label import MultiLabel
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation


def linear(value: float) -> nn.Linear:
    """Return a model whose logits are (value · x + 1, 1)."""
    model = nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[value], [0.0]]))
        model.bias.fill_(1.0)
    return model


def pair(*values: float) -> nn.Module:
    """Return the ensemble of such models."""
    return ensemble_of(lambda number: linear(values[number]), len(values), CLASSIFICATION)


def answer(model: nn.Module) -> Tensor:
    """Return the probabilities at x = 1."""
    found: Tensor = model(torch.ones(1, 1)).softmax(dim=1)
    return found


def test_two_members_by_hand() -> None:
    """p = 3/4 and 1/4 of the first class: 1/2 in the mean; logits of ln 3 and −ln 3."""
    log_3 = float(torch.tensor(3.0).log())
    torch.testing.assert_close(answer(pair(log_3, -log_3)), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(answer(pair(log_3, 0.0)), torch.tensor([[0.625, 0.375]]))


def test_an_absent_member_says_nothing() -> None:
    """All its entries are zero; without any other it is asked all the same."""
    wholly = pair(1.0, 0.0)
    assert isinstance(wholly, Ensemble)
    for parameter in wholly.members[1].parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(answer(wholly), answer(linear(1.0)))
    assert len(wholly.present) == 1
    trimmed = without_absent(wholly, CLASSIFICATION)
    assert isinstance(trimmed, Ensemble)
    assert len(trimmed.members) == 1
    assert without_absent(linear(1.0), CLASSIFICATION) is not trimmed
    nothing = pair(0.0, 0.0)
    for parameter in nothing.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(answer(nothing), torch.tensor([[0.5, 0.5]]))


def test_a_single_member_is_the_model_itself() -> None:
    model = pair(1.0)
    assert isinstance(model, nn.Linear)
    layout = travelling.layout_of(model)
    assert whole_layout(layout, 1) is layout
    assert member_layout(layout, 1) is layout
    assert first_member({"w": torch.ones(1)}, 1) == {"w": torch.ones(1)}
    assert not is_whole(travelling.record_of(model), layout, 1)
    assert absent_in(torch.zeros(4), 1) == []


def test_an_ensembles_vector_is_its_members_joined() -> None:
    model, alone = pair(1.0, 2.0), travelling.layout_of(linear(0.0))
    layout = travelling.layout_of(model)
    assert whole_layout(alone, 2) == layout
    assert member_layout(layout, 2) == alone
    flats = members_of(travelling.vector_of(model), 2)
    assert [flat.tolist() for flat in flats] == [[1.0, 0.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0]]
    assert first_member(travelling.travelling(model), 2)["weight"].tolist() == [[1.0], [0.0]]
    assert is_whole(travelling.record_of(model), alone, 2)
    assert not is_whole(travelling.record_of(linear(1.0)), alone, 2)
    without = emptied(travelling.vector_of(model), 2, [1])
    assert without.tolist() == [1.0, 0, 1, 1, 0, 0, 0, 0]
    assert absent_in(without, 2) == [1]


def test_names_that_look_like_members_are_a_models_own() -> None:
    own = Layout(("members.0.w",), ((1,),))
    assert member_layout(whole_layout(own, 2), 2) == own


@pytest.mark.parametrize("task", [CLASSIFICATION, Segmentation(), MultiLabel()])
def test_probabilities_are_averaged(task: object) -> None:
    shape = (3, 4, 2, 2) if isinstance(task, Segmentation) else (3, 4)
    logits = [5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    mean = sum(task.probabilities(each) for each in logits) / 3  # type: ignore[attr-defined]
    found = task.probabilities(task.combined(logits))  # type: ignore[attr-defined]
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-6, check_dtype=False)


def test_numbers_are_averaged() -> None:
    task = Regression(scale=1.0)
    assert task.combined([torch.tensor([[1.0]]), torch.tensor([[4.0]])]).tolist() == [[2.5]]


def test_certainty_is_no_overflow() -> None:
    sure = torch.tensor([[1e4, -1e4]])
    assert CLASSIFICATION.combined([sure, sure]).isfinite().all()
    assert MultiLabel().combined([sure, -sure]).isfinite().all()
