"""The figures of a model as sums over examples, which add up over batches and over clients.

A metric of torchmetrics keeps states, and computes its value from them. Where every state is a sum, the sum
of the states of several clients is the state over all their data, so the value is that of the data in one
place, and the clients send no example. Counts are whole numbers and add up exactly; sums of real numbers are
taken in float64 and added up with one rounding (`math.fsum`), whatever the order.
"""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from strategies.core.arrays import array_in
from strategies.core.errors import BadInput
from strategies.figure_bounds import Over, check_sums
from strategies.task import Task

if TYPE_CHECKING:
    from torchmetrics import Metric

Sums = Mapping[str, Tensor]
"""State by name, ``metric/state``: int64 counts, or float64 sums, of any shape."""

GROUP_EXAMPLES, GROUP_SCORES = "groups/examples", "groups/scores"
"""Number of examples of each group, and the sum of their scores; shape [groups]."""
CONFUSION = "confusion"
"""Number of examples of each class that are taken for each class; shape [true class, predicted class]."""
MOST_CONFUSED = 60
"""Classes of which the server counts that unasked."""
MOST_ENTRIES = 2**22
"""Entries that the states of a metric have at most."""
_LARGEST = 2.0**100
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Figures:
    """Which figures of a task are computed.

    Parameters
    ----------
    num_outputs, num_groups
        Size of the model's output; number of groups of the data, such as classes, 0 where there are none.
    names
        The metrics of the task that are computed.
    headline
        One of them, or the task's `figure`, the mean of the scores.
    cells
        Numbers in one input: how many places of one example a metric compares at most; 0: not known.
    confused
        Whether to count, besides, which class is taken for which, as the server does on its own data.
    """

    task: Task
    num_outputs: int
    num_groups: int
    names: tuple[str, ...]
    headline: str
    cells: int = 0
    confused: bool = False

    def confusing(self) -> "Figures":
        """Return the figures with a confusion matrix, if there are classes, and not too many to read one."""
        few = 1 < self.num_outputs <= MOST_CONFUSED
        return replace(self, confused=self.task.labelled and few and CONFUSION not in self.names)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the headline; that of a metric which does not say is upwards."""
        if self.headline == self.task.figure:
            return True
        return self.metrics()[self.headline].higher_is_better is not False

    def metrics(self) -> "dict[str, Metric]":
        """Return the metrics, without data, whose real states are float64.

        Raises
        ------
        BadInput
            If a state of one is no sum.
        """
        if not self.names:
            return {}
        known = self.task.metrics(self.num_outputs)
        return {name: _summed(name, known[name]) for name in self.names}

    def of(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return the sums over some examples, at least one."""
        sums = self._by_group(outputs, targets)
        if self.confused:
            places = targets * self.num_outputs + self.task.predict(outputs)
            counts = torch.bincount(places, minlength=self.num_outputs**2)
            sums[CONFUSION] = counts.view(self.num_outputs, self.num_outputs)
        judged = self.task.judged(outputs, targets) if self.names else ()
        for name, metric in self.metrics().items():
            metric.update(*judged)
            sums |= _states(name, metric)
        return sums

    def _by_group(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        groups = self.task.groups(targets)
        if groups is None or not self.num_groups:
            return {}
        scores = self.task.scores(outputs, targets).double()
        if groups.dim() == 2:
            counts, totals = groups.sum(dim=0), scores @ groups.double()
        else:
            counts = torch.bincount(groups, minlength=self.num_groups)
            totals = torch.bincount(groups, weights=scores, minlength=self.num_groups)
        return {GROUP_EXAMPLES: counts, GROUP_SCORES: totals}

    def values(self, sums: Sums) -> dict[str, float]:
        """Return each metric that is one number and is defined on the data that were summed."""
        found = ((name, value) for name, value in self._computed(sums) if value.numel() == 1)
        numbers = ((name, float(value)) for name, value in found)
        return {name: number for name, number in numbers if math.isfinite(number)}

    def tables(self, sums: Sums) -> dict[str, Any]:
        """Return each metric that is several numbers, such as a confusion matrix, as lists."""
        tables = {name: value.tolist() for name, value in self._computed(sums) if value.numel() > 1}
        return tables | ({CONFUSION: sums[CONFUSION].tolist()} if CONFUSION in sums else {})

    def _computed(self, sums: Sums) -> Iterable[tuple[str, Tensor]]:
        for name, metric in self.metrics().items():
            for state in metric.metric_state:
                setattr(metric, state, sums[f"{name}/{state}"])
            metric._update_count = 1  # As the states were not made by `update`, it would warn of that
            try:
                with warnings.catch_warnings():  # Of classes without an example
                    warnings.simplefilter("ignore")
                    value = metric.compute()
            except ValueError:  # Not defined on so few examples
                continue
            yield name, torch.as_tensor(value)

    def is_one_number(self, name: str) -> bool:
        """Whether a metric, or the mean score, is one number, and no table."""
        nothing = self._expected()
        return all(value.numel() == 1 for known, value in self._computed(nothing) if known == name)

    def groups(self, sums: Sums) -> list[dict[str, float | int]]:
        """Return number of examples and mean score of each group that has an example."""
        if GROUP_EXAMPLES not in sums:
            return []
        pairs = zip(sums[GROUP_EXAMPLES].tolist(), sums[GROUP_SCORES].tolist(), strict=True)
        return [
            {"group": group, "examples": count, "score": total / count}
            for group, (count, total) in enumerate(pairs)
            if count
        ]

    def read(self, record: ArrayRecord, num_examples: int, score: float | None = None) -> dict[str, Tensor]:
        """Return the sums that a client sent, over as many examples, of which `score` is the mean score.

        Raises
        ------
        ValueError
            If one is missing, of another type or shape, not finite, or cannot be a sum over these examples.
        """
        expected = self._expected()
        if set(record) != set(expected):
            raise ValueError(f"sums: got {_some(record)}, expected {_some(expected)}")
        sums = {name: self._checked(name, record[name], like) for name, like in expected.items()}
        if GROUP_EXAMPLES in sums:
            counts, scores = sums[GROUP_EXAMPLES], sums[GROUP_SCORES]
            most = num_examples if self.task.labelled else num_examples * self.num_groups
            if int(counts.max()) > num_examples or int(counts.sum()) > most:
                raise ValueError(f"{GROUP_EXAMPLES}: {int(counts.sum())} examples, of {num_examples} in all")
            if bool((scores < 0).any()) or bool((scores > 100.0 * counts + 1e-6).any()):
                raise ValueError(f"{GROUP_SCORES}: a mean score outside 0 to 100")
            if self.task.labelled:
                self._check_groups(counts, scores, num_examples, score)
        over = Over(num_examples, self.task.judges_each, self.cells, self.num_outputs)
        check_sums(self.metrics(), sums, over)
        return sums

    def _check_groups(self, counts: Tensor, scores: Tensor, num_examples: int, score: float | None) -> None:
        """Refuse groups that are not those of all examples, where each example is in one."""
        if int(counts.sum()) != num_examples:
            raise ValueError(f"{GROUP_EXAMPLES}: {int(counts.sum())} examples, of {num_examples} in all")
        mean = float(scores.sum()) / num_examples
        if score is not None and abs(mean - score) > _ROUNDING * 100.0:
            raise ValueError(f"{GROUP_SCORES}: their mean is {mean:.6g}, the mean score {score:.6g}")

    def _expected(self) -> dict[str, Tensor]:
        expected: dict[str, Tensor] = {}
        for name, metric in self.metrics().items():
            expected |= _states(name, metric)
        if self.task.has_groups and self.num_groups:
            expected[GROUP_EXAMPLES] = torch.zeros(self.num_groups, dtype=torch.int64)
            expected[GROUP_SCORES] = torch.zeros(self.num_groups, dtype=torch.float64)
        return expected

    def _checked(self, name: str, array: Array, like: Tensor) -> Tensor:
        shapes = {tuple(like.shape)} | ({(self.num_outputs,)} if like.numel() == 1 else set())
        if tuple(array.shape) not in shapes or array.dtype != str(like.dtype).removeprefix("torch."):
            raise ValueError(f"{name}: {array.dtype} of shape {tuple(array.shape)}, expected {_kind(like)}")
        values = torch.from_numpy(np.array(array_in(array)))
        if not bool(values.isfinite().all()) or bool((values.double().abs() > _LARGEST).any()):
            raise ValueError(f"{name}: holds numbers that are not finite or too large")
        if like.dtype == torch.int64 and bool(((values < 0) | (values > 2**53)).any()):
            raise ValueError(f"{name}: holds {int(values.min())}, expected counts")
        return values


def record_of(sums: Sums) -> ArrayRecord:
    """Return sums as arrays to be sent."""
    return ArrayRecord({name: Array(value.cpu().numpy()) for name, value in sums.items()})


def added(parts: Iterable[Sums]) -> dict[str, Tensor]:
    """Return the sums of several parts, at least one: exact, and the same in any order."""
    listed = list(parts)
    return {name: _total([part[name] for part in listed]) for name in listed[0]}


def _total(values: list[Tensor]) -> Tensor:
    shape = max((value.shape for value in values), key=len)  # A state may be one number before any data
    alike = torch.stack([value.expand(shape) for value in values])
    if not alike.is_floating_point():
        return alike.sum(dim=0)
    rows = alike.reshape(len(values), -1).T.tolist()
    return torch.tensor([math.fsum(row) for row in rows], dtype=torch.float64).view(shape)


def _states(name: str, metric: "Metric") -> dict[str, Tensor]:
    states = metric.metric_state.items()
    return {f"{name}/{state}": value for state, value in states if isinstance(value, Tensor)}


def _summed(name: str, metric: "Metric") -> "Metric":
    from torchmetrics.utilities import dim_zero_sum

    for state, value in metric.metric_state.items():
        if not isinstance(value, Tensor) or metric._reductions[state] is not dim_zero_sum:
            raise BadInput(
                f"task.metric: '{name}' is {type(metric).__name__}, whose state '{state}' is no sum over "
                "examples, so clients cannot add it up; allowed metrics of sums, such as a binned curve "
                "(thresholds=…)"
            )
        if value.numel() > MOST_ENTRIES:
            raise BadInput(f"task.metric: '{name}' has {value.numel()} entries, allowed {MOST_ENTRIES}")
        setattr(metric, state, value.double() if value.is_floating_point() else value)
    return metric


def _kind(like: Tensor) -> str:
    return f"{str(like.dtype).removeprefix('torch.')} of shape {tuple(like.shape)}"


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:4]) + (" …" if len(listed) > 4 else "") if listed else "nothing"
