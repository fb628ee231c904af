"""SGD in which each example has its own part in the loss: its label counts, or a teacher's answer, or both.

    L(θ) = (1/N) Σ_i [ a_i ℓ(f(x_i; θ), y_i) + b_i KL(t_i ‖ f(x_i; θ)) ]

with weights a_i and b_i of either sign, targets y_i that need not be the example's own, and a teacher's
outputs t_i; KL stands for the task's distance between two outputs. A batch is drawn from all examples alike,
so its mean is an unbiased estimate of L. A teacher's outputs are those for the inputs as they are, also where
training varies them. At a = 1, b = 0 and the own targets it is plain training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import final

import torch
from torch import Generator, Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.client.training import GradientAdjustment
from strategies.core.examples import Examples, GroupsOf, Inputs
from strategies.task import CLASSIFICATION, Task
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings, trained


@final
@dataclass(frozen=True, eq=False)
class Lesson:
    """What is to be learned from some examples.

    Parameters
    ----------
    data
        The examples.
    targets
        y, shape [n, ...].
    label_weight, teacher_weight
        a and b, the same for all.
    outputs
        t, the teacher's outputs, shape [n, ...], on the CPU; None where b = 0.
    """

    data: Examples
    targets: Tensor
    label_weight: float = 1.0
    teacher_weight: float = 0.0
    outputs: Tensor | None = None

    @staticmethod
    def labels(data: Examples, weight: float = 1.0, targets: Tensor | None = None) -> "Lesson":
        """Return the lesson that teaches the examples' targets, or others in their place."""
        return Lesson(data, data.targets() if targets is None else targets, weight)

    @staticmethod
    def answers(
        data: Examples,
        teacher: nn.Module,
        weight: float,
        label_weight: float = 0.0,
        task: Task = CLASSIFICATION,
    ) -> "Lesson":
        """Return the lesson that teaches how a teacher answers, in eval mode; at least one example."""
        outputs = outputs_of(teacher, data, task=task)
        return Lesson(data, data.targets(), label_weight, weight, outputs)


def taught(
    model: nn.Module,
    lessons: Sequence[Lesson],
    settings: SgdSettings,
    generator: Generator,
    *,
    adjustments: Sequence[GradientAdjustment] = (),
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model, trained on several lessons at once; the rest is as in `trained`.

    Lessons without an example are left out; ValueError if none is left.
    """
    kept = [lesson for lesson in lessons if len(lesson.data)]
    if not kept:
        raise ValueError("lessons need at least one example")
    examples, objective = Numbered(tuple(each.data for each in kept)), _ByNumber(task, kept)
    return trained(model, examples, settings, generator, adjustments=adjustments, masks=masks, task=objective)


@final
@dataclass(frozen=True, eq=False)
class Numbered(Examples):
    """Sets of examples one after another, each not empty; the target of an example is its number."""

    parts: Sequence[Examples]
    numbers: Tensor | None = None
    """Which of all are in this set, in their order, shape [n], int64; None: all."""

    @property
    def group_of(self) -> GroupsOf:
        """A number is of no group."""
        return lambda targets: None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._all) if self.numbers is None else len(self.numbers)

    def batch(self, index: Tensor) -> tuple[Inputs, Tensor]:
        """Return inputs and numbers of the examples at some positions."""
        return self._gathered(index, lambda part, rows: part.batch(rows)[0])

    def training_batch(
        self, index: Tensor, generator: Generator, *, alone: bool = False
    ) -> tuple[Inputs, Tensor]:
        """Return what training gets of a batch: each set varies its own inputs."""
        return self._gathered(index, lambda part, rows: part.training_batch(rows, generator, alone=alone)[0])

    @property
    def varies(self) -> bool:
        """Whether a set varies its inputs."""
        return any(part.varies for part in self.parts)

    def variation_generator(self, generator: Generator) -> Generator:
        """Return what decides the variation of the sets, which are of one kind."""
        return self.parts[0].variation_generator(generator)

    def subset(self, indices: Tensor | Sequence[int]) -> "Numbered":
        """Return the examples at the given positions; they keep their numbers."""
        return replace(self, numbers=self._numbers(torch.as_tensor(indices, dtype=torch.int64)))

    def groups(self) -> None:
        """Return that there are no groups."""
        return

    def to(self, device: str | torch.device) -> "Numbered":
        """Return examples whose batches are on a device."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))

    @property
    def _all(self) -> range:
        return range(sum(map(len, self.parts)))

    def _numbers(self, index: Tensor) -> Tensor:
        return index if self.numbers is None else self.numbers[index.cpu()]

    def _gathered(
        self, index: Tensor, inputs_of: Callable[[Examples, Tensor], Inputs]
    ) -> tuple[Inputs, Tensor]:
        numbers, found, order = self._numbers(index), list[Inputs](), list[Tensor]()
        ends = list(accumulate(map(len, self.parts)))
        for part, end in zip(self.parts, ends, strict=True):
            here = ((numbers >= end - len(part)) & (numbers < end)).nonzero().flatten()
            if len(here):
                found.append(inputs_of(part, numbers[here] - (end - len(part))))
                order.append(here)
        if len(found) == 1:
            return found[0], numbers
        return _joined(found, torch.cat(order).argsort()), numbers


def _joined(parts: Sequence[Inputs], order: Tensor) -> Inputs:
    """Return several batches of inputs as one, with its rows in an order."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors)[order.to(tensors[0].device)]
    named = [part for part in parts if isinstance(part, Mapping)]
    return {name: _rows([part[name] for part in named], order) for name in named[0]}


def _rows(parts: Sequence[Tensor], order: Tensor) -> Tensor:
    return torch.cat(list(parts))[order.to(parts[0].device)]


@final
class _ByNumber(Task):
    """A task whose targets are numbers of examples, and which knows what each is to teach."""

    def __init__(self, task: Task, lessons: Sequence[Lesson]) -> None:
        self._task = task
        self._targets = torch.cat([lesson.targets.cpu() for lesson in lessons])
        self._label_weights = _each([lesson.label_weight for lesson in lessons], lessons)
        self._teacher_weights = _each([lesson.teacher_weight for lesson in lessons], lessons)
        outputs = [lesson.outputs for lesson in lessons if lesson.outputs is not None]
        self._outputs = torch.cat(outputs) if len(outputs) == len(lessons) else None

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return each example's part in the loss, shape [n]."""
        numbers, total = targets.cpu(), outputs.new_zeros(len(outputs))
        labels, teacher = (
            weights[numbers].to(outputs) for weights in (self._label_weights, self._teacher_weights)
        )
        if self._outputs is None or bool(self._label_weights.any()):
            total = total + labels * self._task.losses(outputs, self._targets[numbers].to(outputs.device))
        if self._outputs is not None:
            reference = self._outputs[numbers].to(outputs)
            total = total + teacher * self._task.divergences(outputs, reference)
        return total

    def predict(self, outputs: Tensor) -> Tensor:
        """Return what the task makes of outputs."""
        return self._task.predict(outputs)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the scores against what is taught."""
        return self._task.scores(outputs, self._targets[targets.cpu()].to(outputs.device))

    def forward(self, model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
        """Return the model's outputs."""
        return self._task.forward(model, inputs)


def _each(values: Sequence[float], lessons: Sequence[Lesson]) -> Tensor:
    """Return the value of each example's lesson, shape [n]."""
    return torch.tensor(values, dtype=torch.float64).repeat_interleave(
        torch.tensor([len(lesson.data) for lesson in lessons])
    )
