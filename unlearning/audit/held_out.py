"""What clients tell of a model on test data of their own, for a server that has none.

A client answers about the examples that it holds out, or that came with its data as test data: it never
trained on them. It leaves out those of forgotten classes, as the server does with its own, and a client that
is forgotten as a whole says nothing. The answer has a margin and a score for each example; of a client that
sends sums only, the number of examples and the sum of their scores. The server pools them, so that test
accuracy is the exact mean over all nodes' test examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from strategies.core import wire
from strategies.core.examples import Examples
from strategies.task import FULL_SCORE, Task
from unlearning.audit import metrics
from unlearning.audit.reading import check_correct, spread_sum, vector_in
from unlearning.forget_spec import ForgetSpec

WANTED = "test-wanted"
"""Config, server to client: whether the answer is to tell of the client's own test data."""
NUM_TESTED = "num-tested"
"""Metric, client to server: how many test examples the model was measured on."""
CORRECT_TESTED = "correct-tested"
"""Metric, client to server, in sums: how far the outputs are right, from 0 to 1, added up."""
DIVERGENCE_TESTED = "divergence-tested"
"""Metric, client to server, if there is a reference: Σ of the divergences from it."""
MARGIN_TESTED, SCORE_TESTED = "margin-tested", "score-tested"
"""Arrays, client to server. As `margin` and `correct` of the audit's answer, shape [n], float32."""

Outputs = Callable[[Examples], Tensor]
"""What a model makes of examples, such as logits of shape [n, classes], on the CPU."""


@dataclass(frozen=True, eq=False)
class HeldOutAnswer:
    """What one client says of a model on its own test data.

    Attributes
    ----------
    margin
        How well the model knows each example, shape [n], float32; None if the client sent sums only.
    correct
        How far each output is right, from 0 to 1, shape [n], float32.
    divergence
        Summed over the examples; None without a reference model.
    """

    margin: Tensor | None
    correct: Tensor
    divergence: float | None = None


@dataclass(frozen=True)
class Bound:
    """What a client can have tested at most, and whether it got a reference model."""

    most: int
    with_reference: bool


def is_wanted(question: RecordDict) -> bool:
    """Say whether a question asks for the client's own test data."""
    return bool(question.config_records.get(wire.CONFIG, ConfigRecord()).get(WANTED, False))


def answer_held_out(
    ours: Outputs, theirs: Outputs | None, examples: Examples, spec: ForgetSpec, task: Task
) -> HeldOutAnswer | None:
    """Measure a model on a client's own test data; None if there is nothing to tell.

    The audited model, and the reference if there is one, are given by what they make of examples.
    """
    if spec.everything:
        return None
    left = examples.split(examples.chosen((*spec.classes, *spec.earlier_classes), ()))[1]
    if not len(left):
        return None
    outputs, targets = ours(left), left.targets()
    divergence = None
    if theirs is not None:
        divergence = float(metrics.output_divergence(outputs, theirs(left), task).sum())
    correct = (task.scores(outputs, targets) / FULL_SCORE).float()
    return HeldOutAnswer(task.confidences(outputs, targets), correct, divergence)


def encoded(found: HeldOutAnswer, *, summed: bool) -> tuple[dict[str, float | int], dict[str, Array]]:
    """Return the metrics and the arrays that carry it."""
    numbers: dict[str, float | int] = {NUM_TESTED: len(found.correct)}
    if found.divergence is not None:
        numbers[DIVERGENCE_TESTED] = found.divergence
    if summed or found.margin is None:
        return {**numbers, CORRECT_TESTED: float(found.correct.double().sum())}, {}
    vectors = {MARGIN_TESTED: found.margin, SCORE_TESTED: found.correct}
    return numbers, {name: Array(vector.numpy()) for name, vector in vectors.items()}


def decoded(numbers: Mapping[str, Any], record: ArrayRecord, bound: Bound) -> HeldOutAnswer | None:
    """Read it back from an answer's metrics and arrays; None if the client said nothing.

    Raises
    ------
    ValueError
        If it could not have come from any model, or tells of more examples than the client can have.
    """
    if NUM_TESTED not in numbers:
        return None
    count = numbers[NUM_TESTED]
    if not isinstance(count, int) or not 0 < count <= bound.most:
        raise ValueError(f"'{NUM_TESTED}' is {count}, expected a whole number from 1 to {bound.most}")
    divergence = numbers.get(DIVERGENCE_TESTED) if bound.with_reference else None
    if bound.with_reference and not (isinstance(divergence, float) and 0 <= divergence < float("inf")):
        raise ValueError(f"'{DIVERGENCE_TESTED}' is {divergence}, expected a finite number of at least 0")
    if CORRECT_TESTED in numbers:
        return HeldOutAnswer(None, spread_sum(numbers, CORRECT_TESTED, count), divergence)
    names = (MARGIN_TESTED, SCORE_TESTED)
    margin, correct = (vector_in(record, name, count, "float32") for name in names)
    if not bool(margin.isfinite().all()):
        raise ValueError(f"'{MARGIN_TESTED}' holds values that are not finite; is the model?")
    check_correct(SCORE_TESTED, correct)
    return HeldOutAnswer(margin, correct, divergence)


def pooled(found: Sequence[HeldOutAnswer]) -> HeldOutAnswer:
    """Return what several clients say as one; without margins if one of them sent sums only."""
    margins = [each.margin for each in found if each.margin is not None]
    divergences = [each.divergence for each in found if each.divergence is not None]
    correct = [each.correct.double() for each in found]
    count = sum(map(len, correct))
    return HeldOutAnswer(
        torch.cat(margins) if margins and len(margins) == len(found) else None,
        torch.cat(correct) if correct else torch.zeros(0),
        sum(divergences) / count if divergences and count else None,
    )
