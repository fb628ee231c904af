"""Fisher forgetting (FF): add noise to the weights that the retained data depend on least.

Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933, as used by
Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3:

    H = E_{x ∈ D_r} Σ_y p(y|x) (∂ log p(y|x) / ∂θ)²,
    θu = θo + sqrt(α / H)·ε,  ε ~ N(0, I),  1/H clamped.

The expectation is over the model's own labels, and the square is taken per example before averaging; squaring
the gradient of a batch, as the released code does, measures something else. The released code also zeroes the
head's row of a class, which makes sense only when that class is forgotten as a whole, so it is asked for
separately here.

Guarantee: none for networks; the noise hides D_f only as far as the loss is quadratic around θo.
Needs: the retained data. At α = 0 the model comes back unchanged.
Cost: one backward pass per retained example and class.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from strategies.client.evaluation import outputs_of
from strategies.core.examples import Examples, TensorExamples, in_memory
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import ExampleSum, Objective, add_squares, gradient_blocks
from unlearning.central.masks import Masks, flat_mask
from unlearning.central.parameters import copied, moved, trainable
from unlearning.traits.fisher import FisherSettings


def fisher_sum(
    model: nn.Module, examples: Examples, block_size: int | None = None, task: Task = CLASSIFICATION
) -> ExampleSum:
    """Return Σ_x Σ_y p(y|x) (∂ log p(y|x))² over examples; its mean over D_r is the diagonal H.

    There must be at least one example; the labels are not used. `block_size` counts examples per block of
    gradients; None chooses it by memory.
    """
    outputs, objective = outputs_of(model, examples, task=task), Objective(task)
    total = torch.zeros(sum(p.numel() for p in trainable(model).values()), dtype=torch.float64)
    for weight, targets in task.expected_targets(outputs):
        relabelled = TensorExamples(in_memory(examples).x, targets)
        rows = iter(weight)
        for block in gradient_blocks(model, relabelled, objective, block_size):
            add_squares(total, block, torch.stack([next(rows) for _ in range(len(block))]))
    return ExampleSum(total, len(examples))


def noise_scale(diagonal: Tensor, settings: FisherSettings) -> Tensor:
    """Return the noise's standard deviation sqrt(α · min(1/H, clamp)), shape [P]; H is at least 0."""
    return (settings.alpha * diagonal.reciprocal().clamp(max=settings.max_inverse)).sqrt()


def add_noise(
    model: nn.Module,
    diagonal: Tensor,
    settings: FisherSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
) -> nn.Module:
    """Return a copy of the model θo with noise by the diagonal H, shape [P].

    The generator, on the CPU, draws the noise; pruned weights of the masks get none.
    """
    noise = torch.randn(len(diagonal), generator=generator, dtype=torch.float64)
    return moved(model, noise_scale(diagonal.double(), settings) * noise * flat_mask(model, masks))


def without_class_rows(model: nn.Module, classes: Sequence[int]) -> nn.Module:
    """Return a copy of the model with the rows of some classes in its last linear layer set to zero.

    Only for requests that forget classes as a whole; examples of a class that stay in D_r need its row.
    ValueError if there is no linear layer, or it has no row for a class.
    """
    twin = copied(model)
    heads = [module for module in twin.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise ValueError("the model has no linear layer whose rows could stand for classes")
    head, rows = heads[-1], list(classes)
    if any(not 0 <= row < head.out_features for row in rows):
        raise ValueError(
            f"classes {rows} are not all among the {head.out_features} rows of the last linear layer"
        )
    with torch.no_grad():
        for parameter in head.parameters():
            parameter[rows] = 0.0
    return twin


def fisher_forget(
    model: nn.Module,
    retain: Data,
    settings: FisherSettings,
    generator: Generator,
    *,
    classes: Sequence[int] = (),
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo after Fisher forgetting with the retained data D_r, at least one example.

    `classes` are those forgotten as a whole; none for client and sample requests. Pruned weights of the masks
    stay zero. ValueError if there is no example, or a class has no row in the head.
    """
    diagonal = fisher_sum(model, gathered(retain), task=task).mean
    start = without_class_rows(model, classes) if classes else model
    return add_noise(start, diagonal, settings, generator, masks=masks)
