"""Squared gradients of the log-likelihood, one example at a time: the diagonal of the Fisher information.

Their mean over examples scores a parameter by how much the model's answers depend on it, as in Wang, Yang,
Dai, 计算机科学 51(1), 2024. The labels are those of the data (the empirical Fisher information).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.examples import Examples


def squared_gradients(model: nn.Module, examples: Examples) -> Iterator[dict[str, Tensor]]:
    """Yield (∂ log p(y|x) / ∂θ)² of every parameter, by name, on the CPU, example after example.

    Where a label is unknown (negative), y is the class that the model finds likeliest.
    """
    parameters = dict(model.named_parameters())
    device = next(iter(parameters.values())).device
    for x, label in zip(examples.x, examples.y.tolist(), strict=True):
        logits = model(x[None].to(device))
        target = logits.argmax(dim=1) if label < 0 else torch.tensor([label], device=device)
        gradients = torch.autograd.grad(functional.cross_entropy(logits, target), list(parameters.values()))
        yield {name: g.cpu().square() for name, g in zip(parameters, gradients, strict=True)}


def fisher_scores(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Return mean_x (∂ log p(y|x) / ∂θ)² for every parameter, by name."""
    totals = {name: torch.zeros_like(p, device="cpu") for name, p in model.named_parameters()}
    for squares in squared_gradients(model, examples):
        for name, square in squares.items():
            totals[name].add_(square)
    return {name: total / max(1, len(examples)) for name, total in totals.items()}
