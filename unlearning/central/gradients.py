"""Gradients of the loss over a set of examples: their sum, and one row per example.

Sums over examples add up over clients: what clients hold between them gives the same total as the same
examples in one place. Everything is computed in eval mode; sums of batches are accumulated in float64. Of a
model that holds masks, the gradients of pruned weights are zero.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from strategies.core.examples import Examples, Inputs, on_device
from strategies.models.mask import masks_of
from strategies.task import CLASSIFICATION, Task
from unlearning.central.masks import flat_mask
from unlearning.central.parameters import copied, trainable

Loss = Callable[[Tensor, Tensor], Tensor]
"""Per-example losses: (outputs of shape [n, ...], labels of shape [n]) -> shape [n]."""

_BLOCK_ENTRIES = 2**24  # Entries of one block of per-example gradients: 64 MiB in float32.
_ROWS_TOGETHER = 64
"""Squares of so many gradients are added up in the model's dtype, in half the time that float64 takes."""


@dataclass(frozen=True, eq=False)
class ExampleSum:
    """A sum of vectors over `count` examples; `total` has shape [P], float64, on the CPU."""

    total: Tensor
    count: int

    def __add__(self, other: "ExampleSum") -> "ExampleSum":
        """Return the sum over both sets of examples."""
        return ExampleSum(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """Mean over the examples, shape [P], float64; undefined, hence a ValueError, over none."""
        if self.count < 1:
            raise ValueError("the mean over 0 examples is not defined; expected at least 1")
        return self.total / self.count

    @staticmethod
    def join(parts: Iterable["ExampleSum"]) -> "ExampleSum":
        """Return the sum over all parts, added in their order; there must be at least one."""
        first, *others = parts
        for part in others:
            first = first + part
        return first


@dataclass(frozen=True)
class Objective:
    """What is summed over examples: the losses of a task, or other per-example losses of the same outputs."""

    task: Task = CLASSIFICATION
    loss: Loss | None = None

    def losses(self, model: Callable[..., Tensor], inputs: Inputs, targets: Tensor) -> Tensor:
        """Return the loss of each example of a batch, shape [n]."""
        outputs = self.task.forward(model, inputs)
        return (self.loss or self.task.losses)(outputs, targets)


PLAIN = Objective()


def gradient_sum(
    model: nn.Module, examples: Examples, objective: Objective = PLAIN, batch_size: int = 256
) -> ExampleSum:
    """Return Σ ∇ℓ over examples, with respect to the trainable parameters; over no example it is zero.

    `batch_size` counts examples per backward pass and changes the result by rounding only.
    """
    twin = copied(model).eval()
    parameters = list(trainable(twin).values())
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for x, y in batches_on(examples, batch_size, parameters[0].device):
        pieces = torch.autograd.grad(objective.losses(twin, x, y).sum(), parameters)
        total += torch.cat([piece.reshape(-1) for piece in pieces]).double().cpu()
    return ExampleSum(total, len(examples))


def gradient_blocks(
    model: nn.Module, examples: Examples, objective: Objective = PLAIN, block_size: int | None = None
) -> Iterator[Tensor]:
    """Yield the gradient of each example's loss, in blocks of shape [rows, P], in the order of the examples.

    Blocks are on the model's device, in its dtype. The model's layers must treat examples independently in
    eval mode. `block_size` is the rows per block; None: as many as take 64 MiB in float32.
    """
    twin = copied(model).eval()
    parameters = {name: p.detach() for name, p in trainable(twin).items()}
    size = sum(p.numel() for p in parameters.values())
    rows = block_size or max(1, _BLOCK_ENTRIES // size)

    def loss_of_one(weights: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
        def called(*args: Any, **kwargs: Any) -> Tensor:
            return cast(Tensor, functional_call(twin, weights, args, kwargs))

        alone = tree_map(lambda part: part.unsqueeze(0), x)
        return objective.losses(called, alone, y.unsqueeze(0)).squeeze(0)

    gradients_of = vmap(grad(loss_of_one), in_dims=(None, 0, 0))
    # What replaces the model's own weights in a functional call does not pass by their hooks.
    free = flat_mask(twin, None).to(next(iter(parameters.values())).device) if masks_of(twin) else None
    for x, y in batches_on(examples, rows, next(iter(parameters.values())).device):
        by_name = gradients_of(parameters, x, y)
        block = torch.cat([by_name[name].reshape(len(y), -1) for name in parameters], dim=1)  # [rows, P]
        yield block if free is None else block * free


def add_squares(total: Tensor, block: Tensor, weights: Tensor | None = None) -> None:
    """Add Σ_i w_i g_i² to a total, shape [P], float64, on the CPU; the block is overwritten.

    Parameters
    ----------
    block
        Rows g_i, shape [rows, P].
    weights
        w_i, shape [rows]; None: 1.
    """
    for start in range(0, len(block), _ROWS_TOGETHER):
        rows = slice(start, start + _ROWS_TOGETHER)
        squares = block[rows].square_()
        total += (squares.sum(dim=0) if weights is None else weights[rows].to(squares) @ squares).cpu()


def batches_on(examples: Examples, batch_size: int, device: torch.device) -> Iterator[tuple[Inputs, Tensor]]:
    """Yield inputs and targets in their order, on a device; nothing where there are no examples."""
    if len(examples):
        for inputs, targets in examples.batches(batch_size):
            yield on_device(inputs, device), targets.to(device)
