"""Influence unlearning (IU): one Newton-like step that takes the forgotten examples out of the loss.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 3 (method after Koh and Liang 2017 and Izzo et al. 2021), with n = |D_f| + |D_r|:

    θu = θo + α F⁻¹ v,
    v = (1/n) (Σ_{D_f} ∇ℓ − (|D_f| / |D_r|) Σ_{D_r} ∇ℓ),
    F = λI + (1/N) Σ g gᵀ  over N retained examples.

v is ∇L(θo; D) − ∇L(θo; D_r). For a quadratic loss whose Hessian on D_r is F, started at the minimum over D,
the step at α = 1 lands on the minimum over D_r.

α is the shortest length after which D_f meets a goal that is each model's own (`unlearning.central.stopping`;
`influence_until`), or, of lengths that are given, the one that forgets most at a fair cost (`influence`).

F⁻¹v is taken by WoodFisher; a federation takes it by conjugate gradients (see `unlearning.central.inverse`
for both, and for the flaw of the released code). v needs only sums over examples, which clients can send.

Guarantee: none for networks; a first-order estimate of the minimum without D_f.
Needs: gradients on D_f and D_r at the final model.
Cost: one pass over all data, and the inverse.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.core.examples import Examples
from strategies.core.settings import Settings
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import PLAIN, ExampleSum, Objective, gradient_blocks, gradient_sum
from unlearning.central.inverse import woodfisher_product
from unlearning.central.masks import Masks, flat_mask
from unlearning.central.parameters import flat_parameters, moved
from unlearning.central.stopping import SHARES, Goal, Standing, next_lengths, shortest

FINER_LENGTHS = 7
"""Lengths that are tried between two others."""


class InfluenceSettings(Settings):
    """The influence step and the search for its length.

    Attributes
    ----------
    damping : float
        λ, above 0: the curvature assumed where no retained example has a gradient.
    fisher_examples : int
        N, at least 1: retained examples drawn for F; all of them where there are fewer. WoodFisher takes
        8·N·P bytes of memory for P parameters.
    block_size : int
        Rows of gradients that one update of F⁻¹ takes in; it changes the result by rounding only.
    alphas : tuple of float
        Lengths to try first, each above 0; the paper searches 1 to 20, sparse models need less.
    max_retain_drop : float
        Percentage points of accuracy on D_r that a length may cost, at least 0.
    """

    damping: float = Field(default=1e-3, gt=0)
    fisher_examples: int = Field(default=256, ge=1)
    block_size: int = Field(default=32, ge=1)
    alphas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0), min_length=1
    )
    max_retain_drop: float = Field(default=2.0, ge=0)


def influence_vector(forget: ExampleSum, retain: ExampleSum) -> Tensor:
    """Return v from the gradient sums over D_f and D_r, shape [P], float64; ValueError if a set is empty."""
    if forget.count < 1 or retain.count < 1:
        raise ValueError(
            f"both sets need examples, got {forget.count} to forget and {retain.count} to retain"
        )
    weighted = forget.total - retain.total * (forget.count / retain.count)
    return weighted / (forget.count + retain.count)


def influence_direction(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: InfluenceSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    objective: Objective = PLAIN,
) -> Tensor:
    """Return F⁻¹v at the parameters of the model θo, shape [P], float64; the step is α times it.

    The generator, on the CPU, draws the examples in F; pruned weights of the masks do not move. ValueError if
    D_r or D_f is empty.
    """
    retain, forget, free = gathered(retain), gathered(forget), flat_mask(model, masks)
    vector = influence_vector(*(gradient_sum(model, part, objective) for part in (forget, retain))) * free
    drawn = retain.subset(torch.randperm(len(retain), generator=generator)[: settings.fisher_examples])
    blocks = (block.cpu() * free for block in gradient_blocks(model, drawn, objective, settings.block_size))
    return woodfisher_product(blocks, vector, settings.damping, len(drawn))


@dataclass(frozen=True, eq=False)
class InfluenceUntil:
    """The model θu after the step of the shortest length that meets the goal.

    `alpha` is 0.0 where θo meets it. If no length does, it is the longest that was tried; `met` says so, and
    `standing` where D_f is.
    """

    model: nn.Module
    alpha: float
    standing: Standing

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.standing.met


def unit_length(flat: Tensor, direction: Tensor) -> float:
    """Return the α at which the step is as long as the parameters, both of shape [P]; 0 without a step."""
    size, length = (float(torch.linalg.vector_norm(each.double())) for each in (flat, direction))
    return size / length if length else 0.0


def shortest_alpha(
    tried: Callable[[Sequence[float]], Sequence[Standing]], unit: float
) -> tuple[float, Standing]:
    """Return the shortest length that meets the goal, to 2 % of itself, or the longest; and where D_f stands.

    Parameters
    ----------
    tried
        Gives the standing after each of several lengths.
    unit
        The length of which shares are tried first, by `unit_length`.
    """
    found: dict[float, Standing] = {}
    lengths: Sequence[float] = (0.0, *(share * unit for share in SHARES))
    while lengths:
        found.update(zip(lengths, tried(lengths), strict=True))
        found[0.0].check()
        lengths = next_lengths({length: standing.met for length, standing in found.items()})
    best = shortest({length: standing.met for length, standing in found.items()})
    alpha = max(found) if best is None else best
    return alpha, found[alpha]


def influence_until(
    model: nn.Module,
    parts: tuple[Data, Data],
    goal: Goal,
    settings: InfluenceSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> InfluenceUntil:
    """Return the model after the shortest influence step with which D_f meets the goal.

    `parts` are D_r and D_f. Of the settings, `alphas` and `max_retain_drop` have no part. The other
    parameters and errors are as in `influence_direction`; ValueError also if the goal says nothing about some
    examples.
    """
    stays, goes = map(gathered, parts)
    direction = influence_direction(
        model, stays, goes, settings, generator, masks=masks, objective=Objective(task)
    )

    def tried(alphas: Sequence[float]) -> list[Standing]:
        return [Standing.of(moved(model, alpha * direction), goes, goal, task) for alpha in alphas]

    alpha, standing = shortest_alpha(tried, unit_length(flat_parameters(model), direction))
    return InfluenceUntil(moved(model, alpha * direction), alpha, standing)


@dataclass(frozen=True)
class AlphaTrial:
    """One length of the step: accuracy on D_r in percent and mean loss on D_f after it."""

    alpha: float
    retain_accuracy: float
    forget_loss: float


@dataclass(frozen=True, eq=False)
class InfluenceResult:
    """The model θu after the step, and how its length was found.

    `alpha` is 0.0, with the model unchanged, where every trial cost too much on D_r. `trials` are in their
    order, α = 0 first.
    """

    model: nn.Module
    alpha: float
    trials: tuple[AlphaTrial, ...]


def choose_alpha(trials: Sequence[AlphaTrial], max_retain_drop: float) -> float:
    """Return the α with the highest finite loss on D_f among those that D_r can bear, the smallest of equals.

    The first trial is α = 0, which is always bearable; `max_retain_drop` is in percentage points of accuracy.
    """
    floor = trials[0].retain_accuracy - max_retain_drop
    bearable = [t for t in trials if t.retain_accuracy >= floor and math.isfinite(t.forget_loss)]
    return max(bearable, key=lambda t: (t.forget_loss, -t.alpha)).alpha


def finer_alphas(trials: Sequence[AlphaTrial], max_retain_drop: float) -> tuple[float, ...]:
    """Return lengths between the one that would be chosen and the next longer one that was tried, ascending.

    A step that is too long destroys everything, and one a little shorter than D_r can bear may forget only
    half: what is bearable is bracketed first and then looked at closely. If not even the shortest length was
    chosen, it is halved again and again; if the longest was, there are none.

    Examples
    --------
    >>> finer_alphas([AlphaTrial(0, 99, 0.1), AlphaTrial(1, 98, 1), AlphaTrial(9, 20, 9)], 2)
    (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    >>> finer_alphas([AlphaTrial(0, 99, 0.1), AlphaTrial(1, 20, 9)], 2)[-3:]
    (0.125, 0.25, 0.5)
    """
    chosen = choose_alpha(trials, max_retain_drop)
    longer = [trial.alpha for trial in trials if trial.alpha > chosen]
    if not longer:
        return ()
    upper, steps = min(longer), range(1, FINER_LENGTHS + 1)
    if chosen == 0:
        return tuple(upper / 2**k for k in reversed(steps))
    return tuple(chosen + (upper - chosen) * k / (FINER_LENGTHS + 1) for k in steps)


def search_alpha(
    model: nn.Module,
    direction: Tensor,
    retain: Examples,
    forget: Examples,
    settings: InfluenceSettings,
    task: Task = CLASSIFICATION,
) -> InfluenceResult:
    """Try each length of the step, then some around the best; take the one that forgets most at a fair cost.

    Test data play no part: a length chosen on them would flatter every accuracy reported on them. `direction`
    is F⁻¹v, shape [P]; D_r and D_f have at least one example each.
    """

    def tried(alpha: float) -> AlphaTrial:
        candidate = moved(model, alpha * direction)
        on_retain, on_forget = (evaluate(candidate, part, task=task) for part in (retain, forget))
        return AlphaTrial(alpha, on_retain.accuracy, on_forget.loss)

    trials = [tried(alpha) for alpha in (0.0, *settings.alphas)]
    trials += [tried(alpha) for alpha in finer_alphas(trials, settings.max_retain_drop)]
    alpha = choose_alpha(trials, settings.max_retain_drop)
    return InfluenceResult(moved(model, alpha * direction), alpha, tuple(trials))


def influence(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: InfluenceSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> InfluenceResult:
    """Return the model after the influence step; parameters and errors as in `influence_direction`."""
    retain, forget = gathered(retain), gathered(forget)
    direction = influence_direction(
        model, retain, forget, settings, generator, masks=masks, objective=Objective(task)
    )
    return search_alpha(model, direction, retain, forget, settings, task)
