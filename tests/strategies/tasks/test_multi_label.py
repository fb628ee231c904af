"""strategies/tasks/multi_label.py: by hand, and against slow references."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch.nn import functional

from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.task import OutputSpec
from strategies.tasks.multi_label import MultiLabel

TASK = MultiLabel()
OUTPUTS = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()  # p = ¾, ½ and ½, ½
TARGETS = torch.tensor([[True, True], [False, False]])


def test_by_hand() -> None:
    """Losses (ln 4⁄3 + ln 2) / 2 and ln 2; of a logit of 0 the label counts as absent."""
    expected = [(math.log(4 / 3) + math.log(2)) / 2, math.log(2)]
    assert TASK.losses(OUTPUTS, TARGETS).tolist() == pytest.approx(expected)
    assert TASK.predict(OUTPUTS).tolist() == [[True, False], [False, False]]
    assert TASK.scores(OUTPUTS, TARGETS).tolist() == [50.0, 100.0]
    assert TASK.margins(OUTPUTS, TARGETS).tolist() == pytest.approx([math.log(3) / 2, 0.0])
    assert TASK.groups(TARGETS).tolist() == [[True, True], [False, False]]
    assert TASK.outputs(OutputSpec(2)) == 2


@given(st.integers(0, 2**32))
def test_divergence_is_that_of_each_label(seed: int) -> None:
    generator = torch_generator(seed)
    ours, theirs = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    pairs = [(torch.stack([z, 0 * z], dim=-1) / 2).log_softmax(dim=-1) for z in (ours, theirs)]
    slow = functional.kl_div(*pairs, reduction="none", log_target=True).sum(dim=(1, 2))
    torch.testing.assert_close(TASK.divergences(ours, theirs, 2.0), slow)
    assert TASK.divergences(ours, ours).abs().max() < 1e-12


def test_expected_squares_are_those_over_all_sets_of_labels() -> None:
    """For one logit each, E (p − y)² over the four sets of two labels, by enumeration."""
    outputs = torch.tensor([[0.7, -1.2]], dtype=torch.float64, requires_grad=True)
    p = outputs.detach().sigmoid()[0]
    slow = torch.zeros(2, dtype=torch.float64)
    for y in ((0, 0), (0, 1), (1, 0), (1, 1)):
        chance = math.prod(float(p[j]) if y[j] else 1 - float(p[j]) for j in range(2))
        (gradient,) = torch.autograd.grad(TASK.losses(outputs, torch.tensor([y])).sum(), outputs)
        slow += chance * gradient[0].square()
    found = torch.zeros(2, dtype=torch.float64)
    for weights, targets in TASK.expected_targets(outputs.detach()):
        (gradient,) = torch.autograd.grad(TASK.losses(outputs, targets).sum(), outputs)
        found += weights[0] * gradient[0].square()
    torch.testing.assert_close(found, slow)


def test_examples_of_several_groups_are_chosen_by_any_and_counted_in_each() -> None:
    examples = TensorExamples(torch.zeros(3, 1), torch.tensor([[1, 1], [0, 1], [0, 0]]).bool())
    assert examples.chosen([0], []).tolist() == [True, False, False]
    assert examples.chosen([1], [2]).tolist() == [True, True, True]
    assert examples.chosen([7], []).tolist() == [False, False, False]
    assert examples.group_counts(2) == [1, 2]


def test_a_single_label_has_the_figures_of_a_yes_or_no() -> None:
    """Two of three right; yes is said of two examples, one of which has it: precision ½, recall 1, F1 ⅔."""
    outputs, targets = torch.tensor([[2.0], [1.0], [-1.0]]), torch.tensor([[True], [False], [False]])
    found = {}
    for name, metric in TASK.metrics(1).items():
        metric.update(*TASK.judged(outputs, targets))
        found[name] = float(metric.compute())
    assert found == pytest.approx({"f1": 2 / 3, "auroc": 1.0, "exact-match": 2 / 3})
    assert TASK.headline in found
