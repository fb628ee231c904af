"""Squared gradients of the log-likelihood, one example at a time: the diagonal of the Fisher information.

Their mean over examples scores a parameter by how much the model's answers depend on it, as in Wang, Yang,
Dai, 计算机科学 51(1), 2024. The labels are those of the data (the empirical Fisher information).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, on_device
from strategies.task import CLASSIFICATION, Task


def squared_gradients(
    model: nn.Module, examples: Examples, task: Task = CLASSIFICATION
) -> Iterator[dict[str, Tensor]]:
    """Yield (∂ log p(y|x) / ∂θ)² of every trainable parameter, by name, on the CPU, example after example.

    Where a label is unknown (negative), y is the model's prediction.
    """
    parameters = _trainable(model)
    device = next(iter(parameters.values())).device
    for inputs, targets in examples.batches(1):
        outputs = task.forward(model, on_device(inputs, device))
        known = bool((targets >= 0).all())
        target = targets.to(device) if known else task.predict(outputs)
        gradients = torch.autograd.grad(task.loss(outputs, target), list(parameters.values()))
        yield {name: g.cpu().square() for name, g in zip(parameters, gradients, strict=True)}


def fisher_scores(model: nn.Module, examples: Examples, task: Task = CLASSIFICATION) -> dict[str, Tensor]:
    """Return mean_x (∂ log p(y|x) / ∂θ)² for every trainable parameter, by name."""
    totals = {name: torch.zeros_like(p, device="cpu") for name, p in _trainable(model).items()}
    for squares in squared_gradients(model, examples, task):
        for name, square in squares.items():
            totals[name].add_(square)
    return {name: total / max(1, len(examples)) for name, total in totals.items()}


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
