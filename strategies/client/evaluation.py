"""Inference in eval mode, in batches: outputs, score and loss."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, on_device
from strategies.figures import Figures, added
from strategies.task import CLASSIFICATION, Task


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into eval mode without gradients, and back as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        model.train(was_training)


def outputs_of(
    model: nn.Module, examples: Examples, batch_size: int = 512, task: Task = CLASSIFICATION
) -> Tensor:
    """Return the model's outputs, such as logits of shape [n, classes], on the CPU.

    Parameters
    ----------
    model
        On any device; inputs are moved to it batch by batch.
    examples
        The targets are not read.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        parts = [
            task.forward(model, on_device(inputs, device)).float().cpu()
            for inputs, _ in examples.batches(batch_size)
        ]
    return torch.cat(parts)


@dataclass(frozen=True)
class Evaluation:
    """Mean score from 0 to 100, such as accuracy in percent, mean loss, and over how many examples."""

    accuracy: float
    loss: float
    num_examples: int


def evaluate(
    model: nn.Module, examples: Examples, batch_size: int = 512, task: Task = CLASSIFICATION
) -> Evaluation:
    """Return a model's score and loss; it must be given at least one example."""
    return _judged(model, examples, batch_size, task, None)[0]


def evaluate_by(
    figures: Figures, model: nn.Module, examples: Examples, batch_size: int = 512
) -> tuple[Evaluation, dict[str, Tensor]]:
    """Return a model's score and loss, and the sums of its other figures, over at least one example."""
    evaluation, sums = _judged(model, examples, batch_size, figures.task, figures)
    return evaluation, added(sums)


def _judged(
    model: nn.Module, examples: Examples, batch_size: int, task: Task, figures: Figures | None
) -> tuple[Evaluation, list[dict[str, Tensor]]]:
    parts: list[Evaluation] = []
    sums: list[dict[str, Tensor]] = []
    for outputs, targets in _outputs_and_targets(model, examples, batch_size, task):
        score = mean_score(task.scores(outputs, targets))
        parts.append(Evaluation(score, float(task.loss(outputs, targets)), len(targets)))
        sums += [] if figures is None else [figures.of(outputs, targets)]
    if len(parts) == 1:
        return parts[0], sums
    total = sum(part.num_examples for part in parts)
    score, loss = (
        math.fsum(value * part.num_examples for value, part in zip(values, parts, strict=True)) / total
        for values in ([part.accuracy for part in parts], [part.loss for part in parts])
    )
    return Evaluation(score, loss, total), sums


def _outputs_and_targets(
    model: nn.Module, examples: Examples, batch_size: int, task: Task
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield outputs and targets, on the CPU: all at once, or by batches where an output is large."""
    if task.vectors:
        yield outputs_of(model, examples, batch_size, task), examples.targets()
        return
    device = next(model.parameters()).device
    with eval_mode(model):
        for inputs, targets in examples.batches(batch_size):
            yield task.forward(model, on_device(inputs, device)).float().cpu(), targets.cpu()


def mean_score(scores: Tensor) -> float:
    """Return the mean of scores of single examples, at least one, added up in float64."""
    return float(scores.double().sum()) / len(scores)
