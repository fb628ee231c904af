"""Pruning before forgetting: fewer free weights, smaller unlearning error.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 4 ("prune first, then unlearn"): the error of approximate forgetting on a mask m is
O(η²t ‖m ⊙ (θ_t − θ_0)‖₂ σ(m)). Three ways to a mask of sparsity p:

- OMP, magnitude pruning in one step (Ma et al., NeurIPS 2021): train, prune the smallest weights of all
  layers together, rewind the rest to early weights, retrain.
- IMP, iterative magnitude pruning (Frankle and Carbin, ICLR 2019, arXiv 1803.03635): rounds of training,
  pruning 20 % of what is left, and rewinding.
- SynFlow (Tanaka, Kunin, Yamins, Ganguli, NeurIPS 2020, arXiv 2006.05467): no data at all. 100 times, score
  |w·∂R/∂w|, R the summed output for an all-ones input under weights |w|, and keep the share (1 − p)^{1/100}.

OMP and SynFlow depend least on the forgotten data. Pruned are the weights of convolutions and linear layers
(the released code prunes convolutions only), ranked by `torch.nn.utils.prune`.

Guarantee: none on its own; it makes the methods that follow more accurate.
Needs: training data for OMP and IMP; nothing for SynFlow.
Cost: one retraining (OMP, SynFlow) or one per round (IMP).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor, nn
from torch.nn.utils import prune

from strategies.core.settings import Settings
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.masks import Masks, apply_masks, masked
from unlearning.central.parameters import copied, layers_with_weights
from unlearning.central.training import SgdSettings, trained

_NORMALISATIONS = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)


class PruneSettings(Settings):
    """How a model is pruned.

    Attributes
    ----------
    rate : float
        p, the share of weights to prune, in [0, 1); neutral 0.
    iterations : int
        SynFlow: pruning steps, at least 1.
    round_rate : float
        IMP: share of the remaining weights pruned in a round, in (0, 1).
    """

    rate: float = Field(default=0.95, ge=0, lt=1)
    iterations: int = Field(default=100, ge=1)
    round_rate: float = Field(default=0.2, gt=0, lt=1)


@dataclass(frozen=True, eq=False)
class SparseModel:
    """A model and the masks that hold its pruned weights at zero."""

    model: nn.Module
    masks: Masks


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers whose weight can be pruned, by the weight's name."""
    return {f"{name}.weight".lstrip("."): model.get_submodule(name) for name in layers_with_weights(model)}


def lowest_pruned(
    model: nn.Module, scores: Mapping[str, Tensor], rate: float, masks: Masks | None = None
) -> Masks:
    """Return masks that prune the weights with the lowest scores, over all layers together.

    Parameters
    ----------
    model
        It is not altered.
    scores
        One non-negative score per weight, by the weight's name, in the weight's shape.
    rate
        Share of all weights that is pruned then, those of `masks` included; in [0, 1). ValueError if more is
        pruned already.
    masks
        Weights that are pruned already and stay so.
    """
    plain = copied(model).cpu().to(memory_format=torch.contiguous_format)  # What torch's pruning asks for
    layers = prunable(plain)
    kept = {
        name: (masks or {}).get(name, torch.ones(scores[name].shape, dtype=torch.bool)) for name in layers
    }
    target = round(rate * sum(mask.numel() for mask in kept.values()))
    already = sum(int((~mask).sum()) for mask in kept.values())
    if already > target:
        raise ValueError(f"{already} weights are pruned already, more than the {target} of rate {rate}")
    for name, layer in layers.items():
        prune.custom_from_mask(layer, "weight", kept[name])  # type: ignore[no-untyped-call]
    pairs = [(layer, "weight") for layer in layers.values()]
    ranks = {(layer, "weight"): scores[name].cpu().contiguous() for name, layer in layers.items()}
    prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=ranks, amount=target - already)
    return {name: layer.get_buffer("weight_mask").bool().cpu() for name, layer in layers.items()}


def magnitude_masks(model: nn.Module, rate: float, masks: Masks | None = None) -> Masks:
    """Return masks that prune the smallest weights over all layers; parameters as in `lowest_pruned`."""
    scores = {name: weight_of(layer).abs() for name, layer in prunable(model).items()}
    return lowest_pruned(model, scores, rate, masks)


def weight_of(layer: nn.Module) -> Tensor:
    """Return a layer's weight without its graph."""
    return layer.get_parameter("weight").detach()


def omp(trained_model: nn.Module, early: nn.Module, rate: float) -> SparseModel:
    """Prune by the trained weights' magnitude and rewind the rest; retrain the result on its masks.

    `early` is the same architecture at the start of training, or soon after; `rate` is p, in [0, 1).
    """
    masks = magnitude_masks(trained_model, rate)
    return SparseModel(masked(early, masks), masks)


def imp_schedule(rate: float, round_rate: float) -> list[float]:
    """Return the sparsity after each round: 1 − (1 − r)^k, the last one p itself.

    Examples
    --------
    >>> [round(s, 3) for s in imp_schedule(0.5, 0.2)]
    [0.2, 0.36, 0.488, 0.5]
    """
    schedule = []
    kept = 1.0
    while (kept := kept * (1 - round_rate)) > 1 - rate + 1e-9:
        schedule.append(1 - kept)
    return [*schedule, rate] if rate > 0 else []


def imp(
    early: nn.Module,
    examples: Data,
    sgd: SgdSettings,
    settings: PruneSettings,
    generator: Generator,
    task: Task = CLASSIFICATION,
) -> SparseModel:
    """Prune in rounds of training, magnitude pruning and rewinding; retrain the result on its masks.

    Every round starts at `early` and trains by `sgd` on at least one example; the generator, on the CPU,
    draws the batches.
    """
    masks: Masks = {}
    examples = gathered(examples)
    for sparsity in imp_schedule(settings.rate, settings.round_rate):
        end = trained(early, examples, sgd, generator, masks=masks, task=task)
        masks = magnitude_masks(end, sparsity, masks)
    return SparseModel(masked(early, masks), masks)


def synflow_scores(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return |w·∂R/∂w| of every prunable weight, by name, in float64, which a deep product of weights needs.

    Biases count as 0 and normalisation as the identity: what flows is products of weights, as the paper's R
    has it. Activations must leave positive values as they are (ReLU). `input_shape` is of one example.
    """
    twin = _linearised(model)
    device = next(twin.parameters()).device
    flow = twin(torch.ones((1, *input_shape), dtype=torch.float64, device=device)).sum()
    layers = prunable(twin)
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    gradients = torch.autograd.grad(flow, weights)
    return {name: (w.detach() * g).abs() for name, w, g in zip(layers, weights, gradients, strict=True)}


def _linearised(model: nn.Module) -> nn.Module:
    twin = copied(model).eval().double()
    for name, module in list(twin.named_modules()):
        if isinstance(module, _NORMALISATIONS):
            twin.set_submodule(name, nn.Identity())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            frozen = parameter.dim() > 1 and not parameter.requires_grad  # It carries the flow, unpruned
            parameter.abs_() if frozen or name in prunable(twin) else parameter.zero_()
    return twin


def synflow_masks(model: nn.Module, input_shape: tuple[int, ...], settings: PruneSettings) -> Masks:
    """Return SynFlow's masks, without data, for a freshly initialised model and the shape of one example."""
    current = copied(model)
    masks: Masks = {}
    for iteration in range(1, settings.iterations + 1):
        sparsity = 1 - (1 - settings.rate) ** (iteration / settings.iterations)
        masks = lowest_pruned(current, synflow_scores(current, input_shape), sparsity, masks)
        apply_masks(current, masks)
    return masks
