"""SIFU: how far a training can have been moved by a client, and the noise that hides it.

Fraboni, Van Waerebeke, Scaman, Vidal, Kameni, Lorenzi, "SIFU: Sequential Informed Federated Unlearning for
Efficient and Provable Client Unlearning in Federated Optimization", AISTATS 2024, arXiv 2211.11656. Let θ^t
be the run's model after round t, and θ'^t that of a training without the client, from the same model, in
which the others take part in the same rounds, with the same batches. With Δ_t = ‖mean of all updates − mean
of the others'‖, which the log tells, and B_t, by how much a round of the others stretches distances at most,

    ‖θ^t − θ'^t‖ ≤ ψ_t = B_t ψ_{t−1} + Δ_t,    ψ_0 = 0    (their theorem 1).

A step of gradient descent on a loss that is convex and β-smooth, with an L2 term λ and rate η, stretches by

    max(|1 − ηλ|, |1 − η(β + λ)|),

which is at most 1 up to η = 2 / (β + λ); a client's round by the product over its steps; the mean of some
clients by the mean of theirs. For outputs that are linear in the weights, β ≤ c · max ‖x‖², c the largest
curvature of the loss in the outputs (`Task.curvature`).

The last round T with ψ_T ≤ ψ* is kept, θ^T + N(0, σ² I) is released, and training goes on without the client,
which is post-processing. ψ*/σ is the largest distance at which two Gaussians are (ε, δ)-indistinguishable.

Differs from the paper: that distance is exact (Balle and Wang, ICML 2018, theorem 8), where the paper has
ε / √(2 (ln 1.25 − ln δ)); B_t is of each round's own steps and rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.core.examples import Examples, Inputs, num_rows
from strategies.task import Task
from unlearning.central.certified import only_linear
from unlearning.central.gradients import batches_on
from unlearning.central.parameters import copied


@dataclass(frozen=True)
class Kept:
    """The model of a round that is gone back to.

    Parameters
    ----------
    round
        T; 0: the initial model.
    flat
        θ^T, shape [P], float32.
    sensitivity
        ψ_T.
    """

    round: int
    flat: Tensor
    sensitivity: float


def stretch(rates: Sequence[float], smoothness: float, decay: float = 0.0) -> float:
    """Return by how much steps of gradient descent stretch the distance of two models at most.

    Parameters
    ----------
    rates
        η of each step.
    smoothness
        β of the loss of any batch, at least 0.
    decay
        λ of the L2 term, at least 0.

    Examples
    --------
    >>> stretch([0.1, 0.1], smoothness=4.0, decay=1.0)  # 0.9²
    0.81
    >>> stretch([0.1], smoothness=30.0)  # 1 − 3 = −2
    2.0
    """
    return math.prod(max(abs(1 - rate * decay), abs(1 - rate * (smoothness + decay))) for rate in rates)


def next_sensitivity(before: float, factor: float, shift: float) -> float:
    """Return ψ_t = B_t ψ_{t−1} + Δ_t; a factor that is not finite leaves 0 at 0.

    Examples
    --------
    >>> next_sensitivity(2.0, 0.5, 0.25), next_sensitivity(0.0, float("inf"), 0.25)
    (1.25, 0.25)
    """
    return (factor * before if before else 0.0) + shift


def largest_square(model: nn.Module, examples: Examples, task: Task) -> float:
    """Return max ‖x‖² over what comes into the only layer that trains, with 1 for its bias, at least 0.

    Examples
    --------
    >>> from strategies.core.examples import TensorExamples
    >>> from strategies.task import CLASSIFICATION
    >>> two = TensorExamples(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([0, 1]))
    >>> largest_square(nn.Linear(2, 2), two, CLASSIFICATION)
    26.0

    Raises
    ------
    ValueError
        If more than a linear layer trains, or the outputs are not those of that layer, used once; or if what
        comes into it is not known: training varies the inputs, or it depends on the rest of a batch.
    """
    if examples.varies:
        raise ValueError("training varies the inputs, so what comes into the layer has no known bound")
    twin = copied(model).train()  # As in training: a layer that draws has other outputs then
    layer, seen = only_linear(twin), []

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].detach(), output.detach()))

    handle, largest = layer.register_forward_hook(look), 0.0
    with torch.no_grad():
        for x, _ in batches_on(examples, 256, layer.weight.device):
            again = [task.forward(twin, x) for _ in range(2)]
            if len(seen) != 2 or not all(out.equal(seen[0][1]) for out in again):
                raise ValueError("the outputs are not those of the one linear layer that trains, used once")
            if seen[0][0].dim() != 2:
                raise ValueError("the one linear layer that trains is used at several places of an example")
            task.forward(twin, _first_half(x))
            if not _agree(seen[0][0], seen[2][0]):
                raise ValueError("what comes into the one linear layer depends on the rest of the batch")
            squares = seen[0][0].double().square().sum(dim=1)
            largest = max(largest, float(squares.max()) + (layer.bias is not None)) if len(x) else largest
            seen.clear()
    handle.remove()
    return largest


def _first_half(inputs: Inputs) -> Inputs:
    """Return the first half of a batch, at least one example of any."""
    half = (num_rows(inputs) + 1) // 2
    if isinstance(inputs, Tensor):
        return inputs[:half]
    return {name: part[:half] for name, part in inputs.items()}


def _agree(features: Tensor, of_part: Tensor) -> bool:
    """Whether the examples of a part of a batch have the same features as in the whole, but for rounding."""
    return torch.allclose(features[: len(of_part)], of_part, rtol=1e-3, atol=1e-5)
