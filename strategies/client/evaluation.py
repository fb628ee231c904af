"""Inference in eval mode, in batches: logits, accuracy and loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.core.examples import Examples


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


def predict_logits(model: nn.Module, x: Tensor, batch_size: int = 512) -> Tensor:
    """Return the model's logits, shape [n, classes], on the CPU.

    Parameters
    ----------
    model
        On any device; inputs are moved to it batch by batch.
    x
        Inputs, shape [n, ...].
    batch_size
        Examples per forward pass.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        parts = [model(batch.to(device)).float().cpu() for batch in torch.split(x, batch_size)]
    return torch.cat(parts)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, mean cross-entropy, and over how many examples."""

    accuracy: float
    loss: float
    num_examples: int


def evaluate(model: nn.Module, examples: Examples, batch_size: int = 512) -> Evaluation:
    """Return a model's accuracy and loss; it must be given at least one example."""
    logits = predict_logits(model, examples.x, batch_size)
    correct = int((logits.argmax(dim=1) == examples.y).sum())
    loss = float(functional.cross_entropy(logits, examples.y))
    return Evaluation(100.0 * correct / len(examples), loss, len(examples))
