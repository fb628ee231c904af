"""What the audit measures, as pure functions of outputs, labels and weights.

θo is the model before forgetting, θu after it, θr the model retrained without the forgotten data; D_f, D_r
and D_t are the forgotten, the retained and the test examples. Accuracies and rates are percentages.
Definitions follow Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023 (arXiv
2304.04934), except where a function says otherwise. A set without examples has no accuracy: that is an error
here, and `None` in a measurement.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from strategies.task import CLASSIFICATION, Task

_PIECE = 1 << 20
"""Entries that are converted at a time."""


def accuracy(correct: Tensor) -> float:
    """Return how far outputs are right in the mean, in percent: from 0 to 1, or bool, shape [n].

    With labels it is the accuracy, else the mean score. ValueError if there is no example.
    """
    if len(correct) == 0:
        raise ValueError("the accuracy over 0 examples is not defined; expected at least 1")
    return 100.0 * float(correct.double().sum()) / len(correct)


def unlearning_accuracy(correct: Tensor) -> float:
    """Return 100 − accuracy on D_f (UA); good is equal to the retrained model's, not high."""
    return 100.0 - accuracy(correct)


def attack_success_rate(predictions: Tensor, labels: Tensor, target: int) -> float:
    """Return the percentage of triggered images *not of the target class* that go to the target (ASR).

    Images of the target class are left out: a clean model assigns them to the target as well, so that
    counting them puts a floor of 100 / classes under the rate (as in the backdoor table of Jia et al.).
    Predictions and true labels, those before the trigger was stamped on, have shape [n]; ValueError if every
    image is of the target class.
    """
    return accuracy(predictions[labels != target] == target)


def output_divergence(outputs: Tensor, reference: Tensor, task: Task = CLASSIFICATION) -> Tensor:
    """Return how far a model's outputs lie from a reference's, per example, shape [n], float64.

    For classification, outputs have shape [n, classes], and this is KL(softmax reference ‖ softmax model) in
    nats. Its mean with θr as reference and θu as model is the output distance; 0 where the two agree.
    """
    return task.divergences(outputs.double(), reference.double()).clamp(min=0.0)  # rounding may go below


def parameter_distance(unlearned: Tensor, retrained: Tensor, original: Tensor) -> float | None:
    """Return ‖θu − θr‖ / ‖θo − θr‖: 0 at the retrained model, 1 as far from it as the original.

    All have shape [P]. Two retrainings with different seeds do not coincide either; their distance is the
    scale to judge this by. None if θo equals θr while θu does not: there was nothing to forget, and the ratio
    has no meaning.
    """
    moved = _distance(unlearned, retrained)
    if moved == 0.0:
        return 0.0
    scale = _distance(original, retrained)
    return moved / scale if scale > 0.0 else None


def angle(first: Tensor, second: Tensor) -> float | None:
    """Return the angle between two vectors in degrees, in [0, 180]; None if either is all zeros.

    It is reported for the last layers of θu and θr.
    """
    if not (first.any() and second.any()):
        return None
    a, b = (v.double() / v.double().norm() for v in (first, second))
    # The half-angle's tangent is exactly 0 for equal vectors, where the arc cosine loses half the digits.
    return math.degrees(2.0 * math.atan2(float((a - b).norm()), float((a + b).norm())))


def gap(value: float | None, reference: float | None) -> float | None:
    """Return value − reference, in points; None if either was not measured."""
    return None if value is None or reference is None else value - reference


def disparity(gaps: Iterable[float | None]) -> float | None:
    """Return the mean |gap| to the retrained model, in points: the headline figure of a method; 0 is perfect.

    The gaps are of UA, RA and TA, and of MIA-efficacy if its attacker is better than guessing. None if one of
    them was not measured: a mean over fewer is not comparable.
    """
    sizes = [None if g is None else abs(g) for g in gaps]
    known = [s for s in sizes if s is not None]
    return sum(known) / len(known) if known and len(known) == len(sizes) else None


def rounds_to_relearn(accuracies: Sequence[float], original: float, tolerance: float = 1.0) -> int | None:
    """Return after how many further rounds, with D_f back, a model has relearned what was forgotten.

    Parameters
    ----------
    accuracies
        UA (percent) after 0, 1, 2, … further rounds; None is returned if no round has relearned.
    original
        UA of θo.
    tolerance
        Points above `original` that count as relearned. A UA below `original` counts as well: D_f is then
        known better than it was at first.
    """
    return next((r for r, value in enumerate(accuracies) if value <= original + tolerance), None)


def relearn_effort(unlearned_rounds: int | None, retrained_rounds: int | None) -> float | None:
    """Return the rounds θu needs to relearn over those of θr; below 1, D_f was hidden rather than forgotten.

    None if either never relearned, or if θr needs no round at all: it then does as well on D_f as θo without
    having seen it, so that relearning tells nothing.
    """
    if unlearned_rounds is None or not retrained_rounds:
        return None
    return unlearned_rounds / retrained_rounds


def _distance(first: Tensor, second: Tensor) -> float:
    pairs = zip(torch.split(first, _PIECE), torch.split(second, _PIECE), strict=True)
    return math.hypot(*(float((a.double() - b.double()).norm()) for a, b in pairs))
