"""strategies/figure_bounds.py: sums that no outputs on so many examples give are refused, and no others."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings as hypothesis_settings, strategies as st
from torchmetrics import Metric, classification

from strategies.figures import GROUP_SCORES, Figures, record_of
from strategies.tasks.choice import figures_of
from strategies.tasks.settings import TaskSettings
from tests.strategies.other_tasks import Regression as ThreeMembers
from tests.strategies.test_figures import KINDS, drawn


def lying(kind: str, **changed: Callable[[np.ndarray], np.ndarray]) -> tuple[Figures, ArrayRecord]:
    """Return the sums of ten examples with some of them changed, by ``metric__state``."""
    wanted, outputs, targets = drawn(kind, 0)
    record = record_of(wanted.of(outputs[:10], targets[:10]))
    for name, change in changed.items():
        place = "/".join(name.split("__"))
        record[place] = Array(np.asarray(change(record[place].numpy().copy())))
    return wanted, record


def one_more(counts: np.ndarray) -> np.ndarray:
    """Return counts with one more of the first."""
    counts.reshape(-1)[0] += 1
    return counts


def moved(counts: np.ndarray) -> np.ndarray:
    """Return counts, as many in all, of which one is elsewhere."""
    flat = counts.reshape(-1)
    most = int(flat.argmax())
    flat[most] -= 1
    flat[(most + 1) % len(flat)] += 1
    return counts


def thousandfold(counts: np.ndarray) -> np.ndarray:
    """Return counts of a thousand times as many examples."""
    return counts * 1000


def below(sums: np.ndarray) -> np.ndarray:
    """Return sums below 0."""
    return -1 - np.abs(sums)


def half(sums: np.ndarray) -> np.ndarray:
    """Return half of the sums."""
    return sums / 2


def none_found(counts: np.ndarray) -> np.ndarray:
    """Return a curve that finds nothing at its lowest threshold, and as before at the others."""
    counts[0, ..., 0] += counts[0, ..., 1]
    counts[0, ..., 1] = 0
    return counts


LIES: tuple[tuple[str, dict[str, Callable[[np.ndarray], np.ndarray]], str], ...] = (
    ("classification", {"confusion__confmat": thousandfold}, "confusion: 10000 counted of 10 examples"),
    ("classification", {"confusion__confmat": one_more}, "confusion: 11 counted of 10 examples"),
    (
        "classification",
        {"confusion__confmat": moved},
        "confusion: (examples|right) of each",
    ),
    ("classification", {"f1__tp": one_more}, "f1: not the same number of examples for all classes"),
    (
        "classification",
        {f"f1__{state}": thousandfold for state in ("tp", "fp", "tn", "fn")},
        "f1: 10000 counted of 10 examples",
    ),
    ("classification", {"auroc__confmat": thousandfold}, "auroc: 10000 counted of 10 examples"),
    ("classification", {"auroc__confmat": none_found}, "auroc: more found at a higher threshold"),
    ("classification", {"groups__examples": one_more}, "groups/examples: 11 examples, of 10 in all"),
    ("multi-label", {"f1__tp": one_more}, "f1: not the same number of examples for all classes"),
    ("multi-label", {"exact-match__correct": thousandfold}, "exact-match: more are right than there are"),
    ("multi-label", {"exact-match__total": thousandfold}, "exact-match: 10000 counted of 10 examples"),
    ("number", {"r2__residual": below}, "r2: a sum of squares below 0"),
    (
        "number",
        {"r2__sum_squared_error": half},
        "r2: the sum of the targets is larger",
    ),
    ("number", {"r2__total": thousandfold}, "r2: 10000 counted of 10 examples"),
    ("number", {"r2__residual": half}, "rmse: sum of squared residuals: not those of r2"),
    ("number", {"mae__sum_abs_error": below}, "mae: sum_abs_error is below 0"),
    ("number", {"mae__total": thousandfold}, "mae: 10000 counted of 10 examples"),
    ("numbers", {"rmse__total": thousandfold}, "rmse: 30000 counted of 10 examples"),
    ("segmentation", {"iou__confmat": thousandfold}, "iou: .*000 counted of 10 examples"),
)


@pytest.mark.parametrize(("kind", "changed", "message"), LIES)
def test_sums_that_no_outputs_give_are_refused(
    kind: str, changed: dict[str, Callable[[np.ndarray], np.ndarray]], message: str
) -> None:
    """What a client could send to count more than its examples, or to say two things at once."""
    wanted, record = lying(kind, **changed)
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(wanted, cells=4).read(record, 10)
    _, honest = lying(kind)
    replace(wanted, cells=4).read(honest, 10)


def test_the_mean_score_is_that_of_the_groups() -> None:
    """A client that says 100 percent, and sends the sums of what it really found."""
    wanted, record = lying("classification")
    truth = float(record[GROUP_SCORES].numpy().sum()) / 10
    wanted.read(record, 10, truth)
    with pytest.raises(ValueError, match=f"^{GROUP_SCORES}: their mean is {truth:g}, the mean score 100$"):
        wanted.read(record, 10, 100.0)


class _Loose(ThreeMembers):
    """Metrics of a user's own: of one kind that leaves rows out, and of two that disagree by their nature."""

    def metrics(self, num_outputs: int) -> dict[str, Metric]:
        return {
            "some": classification.MulticlassF1Score(3, average="macro", ignore_index=0),
            "two": classification.MulticlassAccuracy(3, average="macro", top_k=2),
            "micro": classification.MulticlassAccuracy(3, average="micro"),
            "low": classification.MulticlassStatScores(3, average=None),
        }

    def judged(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return outputs.softmax(dim=1), targets

    judges_each = True


@hypothesis_settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_honest_sums_of_a_users_own_metrics_are_taken(seed: int) -> None:
    _, outputs, targets = drawn("classification", seed)
    wanted = figures_of(TaskSettings(metrics="all"), _Loose(), 3, 0)
    wanted.read(record_of(wanted.of(outputs, targets)), len(targets))


@hypothesis_settings(max_examples=20)
@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.integers(1, 30))
def test_honest_sums_of_every_task_are_taken(kind: str, seed: int, count: int) -> None:
    wanted, outputs, targets = drawn(kind, seed)
    score = float(wanted.task.scores(outputs[:count], targets[:count]).double().mean())
    sums = wanted.of(outputs[:count], targets[:count])
    replace(wanted, cells=4).read(record_of(sums), count, score)
