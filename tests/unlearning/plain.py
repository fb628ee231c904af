"""SGD written out, step by step, as papers write it: without optimiser, batches or task of this project."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator

LossOf = Callable[[nn.Module, Tensor], Tensor]
"""From the model and the positions of a batch to the batch's loss."""


def epoch_of_batches(count: int, size: int, generator: Generator) -> list[Tensor]:
    """Return the batches of one pass: a permutation in pieces."""
    order = torch.randperm(count, generator=generator)
    return [order[start : start + size] for start in range(0, count, size)]


def descend(
    model: nn.Module,
    batches: Sequence[Tensor],
    loss_of: LossOf,
    *,
    rate: float,
    momentum: float = 0.0,
    decay: float = 0.0,
    where: Sequence[Tensor] | None = None,
) -> nn.Module:
    """Take one step per batch, in place: g = ∇L + decay·w, v ← momentum·v + g, w ← w − rate·v.

    `where` says, by parameter, which weights are moved at all; None: all.
    """
    weights = list(model.parameters())
    moved = [torch.ones_like(w) for w in weights] if where is None else [m.to(weights[0]) for m in where]
    speeds = [torch.zeros_like(w) for w in weights]
    for batch in batches:
        gradients = torch.autograd.grad(loss_of(model, batch), weights)
        with torch.no_grad():
            for w, g, v, m in zip(weights, gradients, speeds, moved, strict=True):
                v.mul_(momentum).add_(g + decay * w)
                w.sub_(rate * v * m)
    return model


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return −log softmax(logits)[label] of each example."""
    each = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -each[torch.arange(len(labels)), labels].log()


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return Σ_y p(y) log(p(y)/q(y)) of each example, p the teacher's softmax and q the student's."""
    p, q = teacher.detach().double().softmax(dim=1), student.double().softmax(dim=1)
    return (p * (p / q).log()).sum(dim=1)


def both(retain: Examples, forget: Examples) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs and labels of D_r and then D_f, and which are of D_f."""
    (x_r, y_r), (x_f, y_f) = (part.batch(torch.arange(len(part))) for part in (retain, forget))
    assert isinstance(x_r, Tensor)
    assert isinstance(x_f, Tensor)
    gone = torch.arange(len(y_r) + len(y_f)) >= len(y_r)
    return torch.cat([x_r, x_f]), torch.cat([y_r, y_f]), gone


def fresh(seed: int = 0) -> Generator:
    """Return the generator of a central run."""
    return torch_generator(seed, "central")
