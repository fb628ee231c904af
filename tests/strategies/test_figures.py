"""strategies/figures.py: sums over clients are those of the pooled data; what cannot be is refused."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torch import Tensor
from torchmetrics import Metric, classification, regression

from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.figures import (
    CONFUSION,
    GROUP_EXAMPLES,
    GROUP_SCORES,
    MOST_CONFUSED,
    Figures,
    added,
    record_of,
)
from strategies.task import AUROC_THRESHOLDS, CLASSIFICATION, Task
from strategies.tasks.choice import figures_of
from strategies.tasks.multi_label import MultiLabel
from strategies.tasks.regression import Regression
from strategies.tasks.segmentation import Segmentation
from strategies.tasks.settings import TaskSettings
from tests.strategies.other_tasks import Regression as ThreeMembers

NUM = 30


def figures(task: Task, outputs: int, groups: int) -> Figures:
    """Return all figures of a task."""
    return figures_of(TaskSettings(metrics="all"), task, outputs, groups)


def drawn(kind: str, seed: int) -> tuple[Figures, Tensor, Tensor]:
    """Return figures, outputs and targets of random data."""
    generator = torch_generator(seed)
    if kind == "classification":
        targets = torch.randint(3, (NUM,), generator=generator)
        return figures(CLASSIFICATION, 3, 3), torch.randn(NUM, 3, generator=generator), targets
    if kind == "multi-label":
        targets = torch.rand(NUM, 4, generator=generator) > 0.5
        return figures(MultiLabel(), 4, 4), torch.randn(NUM, 4, generator=generator), targets
    if kind == "segmentation":
        targets = torch.randint(3, (NUM, 2, 2), generator=generator)
        targets[0] = 255
        return figures(Segmentation(), 3, 3), torch.randn(NUM, 3, 2, 2, generator=generator), targets
    width = 3 if kind == "numbers" else 1
    outputs = torch.randn(NUM, width, generator=generator)
    targets = 5 + torch.randn(NUM, width, generator=generator)
    return figures(Regression(2.0, width), width, 0), outputs, targets.squeeze(1) if width == 1 else targets


KINDS = ("classification", "multi-label", "segmentation", "number", "numbers")


@hypothesis_settings(max_examples=8)
@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.integers(1, NUM - 1), st.randoms())
def test_sums_over_clients_are_those_of_the_pooled_data(
    kind: str, seed: int, cut: int, random: object
) -> None:
    """Counts bit by bit, real sums but for the rounding of each client's own, in any order."""
    wanted, outputs, targets = drawn(kind, seed)
    pooled = wanted.of(outputs, targets)
    ends = sorted({0, cut, (cut + NUM) // 2, NUM})
    sent = [record_of(wanted.of(outputs[a:b], targets[a:b])) for a, b in pairwise(ends)]
    parts = [wanted.read(record, b - a) for record, (a, b) in zip(sent, pairwise(ends), strict=True)]
    total, turned = added(parts), added(parts[::-1])
    for name, value in pooled.items():
        assert total[name].equal(turned[name])
        if value.is_floating_point():
            torch.testing.assert_close(total[name], value, rtol=1e-12, atol=1e-12)
        else:
            assert total[name].equal(value)
    assert wanted.values(total) == pytest.approx(wanted.values(pooled), rel=1e-9)
    assert wanted.headline in wanted.values(total) or wanted.headline == wanted.task.figure


PEERS: dict[str, Mapping[str, Callable[[], Metric]]] = {
    "classification": {
        "f1": lambda: classification.MulticlassF1Score(3, average="macro"),
        "auroc": lambda: classification.MulticlassAUROC(3, thresholds=AUROC_THRESHOLDS),
    },
    "number": {
        "r2": regression.R2Score,
        "mae": regression.MeanAbsoluteError,
        "rmse": lambda: regression.MeanSquaredError(squared=False),
    },
    "segmentation": {"iou": lambda: classification.MulticlassJaccardIndex(3, ignore_index=255)},
}


@pytest.mark.parametrize("kind", PEERS)
def test_figures_are_those_of_torchmetrics_on_all_data(kind: str) -> None:
    wanted, outputs, targets = drawn(kind, 3)
    values = wanted.values(wanted.of(outputs, targets))
    given = outputs.squeeze(1) if kind == "number" else outputs.softmax(dim=1)
    for name, make in PEERS[kind].items():
        metric = make()
        metric.update(given, targets)
        assert values[name] == pytest.approx(float(metric.compute()), rel=1e-5), name


def test_groups_and_confusion_by_hand() -> None:
    """Predicted 0, 0, 1 for labels 0, 1, 1: class 0 all right, class 1 half, one taken for class 0."""
    wanted = figures(CLASSIFICATION, 2, 3)
    sums = wanted.of(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]))
    first, second = {"group": 0, "examples": 1, "score": 100.0}, {"group": 1, "examples": 2, "score": 50.0}
    assert wanted.groups(sums) == [first, second]
    assert wanted.tables(sums)["confusion"] == [[1, 0], [1, 1]]
    assert wanted.values(sums)["f1"] == pytest.approx(2 / 3)


def test_the_server_counts_which_class_is_taken_for_which_without_a_library() -> None:
    """Outputs 0, 2, 2 for labels 0, 1, 2; clients do not send the counts, as they say more than sums."""
    plain = figures_of(TaskSettings(), CLASSIFICATION, 3, 3)
    outputs = torch.eye(3)[[0, 2, 2]]
    targets = torch.tensor([0, 1, 2])
    sums = plain.confusing().of(outputs, targets)
    assert plain.confusing().tables(sums) == {"confusion": [[1, 0, 0], [0, 0, 1], [0, 0, 1]]}
    assert CONFUSION not in plain.of(outputs, targets)
    assert figures(CLASSIFICATION, 3, 3).tables(figures(CLASSIFICATION, 3, 3).of(outputs, targets)) == (
        plain.confusing().tables(sums)
    )


def test_too_many_classes_and_other_tasks_have_no_such_counts() -> None:
    most = figures_of(TaskSettings(), CLASSIFICATION, MOST_CONFUSED + 1, MOST_CONFUSED + 1)
    assert not most.confusing().confused
    assert not figures(MultiLabel(), 3, 3).confusing().confused
    assert not figures(CLASSIFICATION, 3, 3).confusing().confused  # its metric counts them already


def test_a_task_of_three_members_has_no_further_figures() -> None:
    wanted = figures(ThreeMembers(), 1, 0)
    assert wanted.headline == "score"
    assert wanted.of(torch.zeros(2, 1), torch.zeros(2)) == {}


class _Kept(ThreeMembers):
    def metrics(self, num_outputs: int) -> dict[str, Metric]:
        return {"spearman": regression.SpearmanCorrCoef()}


@pytest.mark.filterwarnings("ignore:Metric `Spearman")
def test_a_metric_that_keeps_every_example_is_refused() -> None:
    message = (
        r"^task.metric: 'spearman' is SpearmanCorrCoef, whose state 'preds' is no sum over examples, so "
        r"clients cannot add it up; allowed metrics of sums, such as a binned curve \(thresholds=…\)$"
    )
    with pytest.raises(BadInput, match=message):
        figures(_Kept(), 1, 0)


class _Correlated(ThreeMembers):
    def metrics(self, num_outputs: int) -> dict[str, Metric]:
        return {"pearson": regression.PearsonCorrCoef()}


def test_a_metric_whose_states_are_no_sums_is_refused() -> None:
    with pytest.raises(BadInput, match=r"^task\.metric: 'pearson' is PearsonCorrCoef, whose state"):
        figures(_Correlated(), 1, 0)


def spoiled(name: str, value: object) -> ArrayRecord:
    """Return the sums of two examples with one of them replaced, or left out if it is None."""
    wanted, outputs, targets = drawn("classification", 0)
    record = record_of(wanted.of(outputs[:2], targets[:2]))
    del record[name]
    if value is not None:
        record[name] = Array(np.array(value))
    return record


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("f1/tp", None, "sums: got .*, expected "),
        ("f1/tp", [1, 2], r"f1/tp: int64 of shape \(2,\), expected int64 of shape \(3,\)"),
        ("f1/tp", [1.0, 2.0, 3.0], r"f1/tp: float64 of shape \(3,\), expected int64"),
        ("f1/tp", [1, -2, 3], "f1/tp: holds -2, expected counts"),
        (GROUP_EXAMPLES, [3, 0, 0], f"{GROUP_EXAMPLES}: 3 examples, of 2 in all"),
        (GROUP_SCORES, [math.nan, 0.0, 0.0], f"{GROUP_SCORES}: holds numbers that are not finite"),
        (GROUP_SCORES, [1e9, 0.0, 0.0], f"{GROUP_SCORES}: a mean score outside 0 to 100"),
    ],
)
def test_sums_that_cannot_be_are_refused(name: str, value: object, message: str) -> None:
    wanted, _, _ = drawn("classification", 0)
    with pytest.raises(ValueError, match=f"^{message}"):
        wanted.read(spoiled(name, value), 2)
