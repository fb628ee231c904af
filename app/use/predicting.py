"""Predictions of a model, batch by batch, and the rows in which people read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.data.unlabelled import Unlabelled
from app.use.subject import Subject
from strategies.client.evaluation import eval_mode
from strategies.core.errors import BadInput
from strategies.core.examples import Inputs

BATCH = 512
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What a model raises that is given what it does not take."""
_SHOWN_DIGITS = 7
_LONGEST = 200
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a model makes of a batch.

    Parameters
    ----------
    predictions
        As the task says: classes, labels, numbers or masks, shape [n, ...].
    probabilities
        Of each class or label, shape [n, classes, ...]; None where the task has none.
    """

    predictions: Tensor
    probabilities: Tensor | None


def predict(subject: Subject, inputs: Unlabelled, batch_size: int = BATCH) -> Iterator[Predicted]:
    """Yield what a model predicts of inputs, in their order.

    Raises
    ------
    BadInput
        If the model does not take them.
    """
    task = subject.session.task
    with eval_mode(subject.model):
        for batch, _ in inputs.examples.batches(batch_size):
            outputs = _outputs(subject, batch)
            yield Predicted(task.predict(outputs), task.probabilities(outputs))


def _outputs(subject: Subject, batch: Inputs) -> Tensor:
    try:
        return subject.session.task.forward(subject.model, batch).float()
    except FAILURES as error:
        if isinstance(error, BadInput):
            raise
        shape = (
            {name: tuple(part.shape[1:]) for name, part in batch.items()} if isinstance(batch, dict) else ()
        )
        given = shape or (tuple(batch.shape[1:]) if isinstance(batch, Tensor) else ())
        reason = " ".join(str(error).split())[:_LONGEST]
        raise BadInput(f"the model does not take inputs of shape {given}: {reason}") from None


def rows_of(subject: Subject, inputs: Unlabelled) -> Iterator[Row]:
    """Yield a row for each input: its place or file, what is predicted, and probabilities by class."""
    place = 0
    for predicted in predict(subject, inputs):
        found = _Rows(predicted, subject.class_names)
        for i in range(len(predicted.predictions)):
            named = {"file": inputs.names[place]} if inputs.names else {"row": place}
            yield {**named, **found.row(i)}
            place += 1


class _Rows:
    """The rows of a batch."""

    def __init__(self, predicted: Predicted, class_names: Sequence[str]) -> None:
        self._found = predicted.predictions.cpu()
        self._names = class_names
        made = predicted.probabilities
        self._one_each = made is not None and made.dim() == 2
        self._probabilities: list[list[float]] = made.tolist() if made is not None and made.dim() == 2 else []

    def row(self, place: int) -> Row:
        """Return what is predicted of an input."""
        found = self._found[place]
        if found.dtype == torch.bool and found.dim() == 1:
            return {
                "prediction": [self._name(k) for k in found.nonzero().flatten().tolist()],
                **self._each(place),
            }
        if self._names and not found.is_floating_point() and not found.dim():
            label = int(found)
            likely = {"probability": _short(self._probabilities[place][label])} if self._one_each else {}
            return {"prediction": self._name(label), **likely, **self._each(place)}
        return {"prediction": _plain(found), **self._each(place)}

    def _each(self, place: int) -> Row:
        if not self._one_each:
            return {}
        values = self._probabilities[place]
        return {f"p({self._name(k)})": _short(value) for k, value in enumerate(values)}

    def _name(self, label: int) -> str:
        return self._names[label] if label < len(self._names) else str(label)


def _short(value: float) -> float:
    return float(f"{value:.{_SHOWN_DIGITS}g}")


def _plain(found: Tensor) -> Any:
    """Return a number, or nested lists of numbers, with the digits that a float32 has."""
    if found.dim():
        return [_plain(part) for part in found]
    value = found.item()
    return _short(value) if isinstance(value, float) else value
