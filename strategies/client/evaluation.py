"""Inference in eval mode, in batches: outputs, score and loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, on_device
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
    outputs, targets = outputs_of(model, examples, batch_size, task), examples.targets()
    score = mean_score(task.scores(outputs, targets))
    return Evaluation(score, float(task.loss(outputs, targets)), len(examples))


def mean_score(scores: Tensor) -> float:
    """Return the mean of scores of single examples, at least one, added up in float64."""
    return float(scores.double().sum()) / len(scores)
