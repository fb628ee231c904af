"""NegGrad+: descent on the retained data beside ascent on the forgotten ones.

Kurmanji, Triantafillou, Hayes, Triantafillou, "Towards Unbounded Machine Unlearning", NeurIPS 2023, arXiv
2302.09880, section 4.1 (baselines):

    L(θ) = β · (1/|D_r|) Σ_{D_r} ℓ  −  (1 − β) · (1/|D_f|) Σ_{D_f} ℓ,      by SGD from θo.

Differs from the released code: a batch is drawn from both sets together, with the weights that make its mean
an unbiased estimate of L, instead of one batch of each per step.

Guarantee: none; ascent has no end of its own, so β must be near 1 and the epochs few.
Needs: both sets. At β = 1 the forgotten data have no part in the loss.
Cost: the epochs over both sets.
"""

from pydantic import Field
from torch import Generator, nn

from strategies.core.examples import Examples
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.lessons import Lesson, taught
from unlearning.central.masks import Masks
from unlearning.central.training import SgdSettings


class NegGradSettings(SgdSettings):
    """NegGrad+; the other fields as in `SgdSettings`.

    Attributes
    ----------
    beta : float
        β, the weight of the retained data, in [0, 1]; neutral 1, which leaves the forgotten data out.
    """

    beta: float = Field(default=0.99, ge=0, le=1)


def example_weights(beta: float, num_retained: int, num_forgotten: int) -> tuple[float, float]:
    """Return what a retained and a forgotten example weigh in the mean over all of both.

    ValueError if there is none of a kind.

    Examples
    --------
    >>> example_weights(0.75, 90, 10)
    (0.8333333333333334, -2.5)
    """
    if num_retained < 1 or num_forgotten < 1:
        raise ValueError(
            f"both sets need an example, got {num_retained} retained and {num_forgotten} forgotten"
        )
    total = num_retained + num_forgotten
    return beta * total / num_retained, -(1 - beta) * total / num_forgotten


def weighted_descent(
    model: nn.Module,
    parts: tuple[Examples, Examples],
    weights: tuple[float, float],
    settings: NegGradSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model after SGD on (D_r, D_f), of which one may be empty, by `example_weights`."""
    lessons = [Lesson.labels(part, weight) for part, weight in zip(parts, weights, strict=True)]
    return taught(model, lessons, settings, generator, masks=masks, task=task)


def neggrad(
    model: nn.Module,
    retain: Data,
    forget: Data,
    settings: NegGradSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo after NegGrad+ on D_r and D_f, each at least one example.

    Parameters are those of `trained`.
    """
    parts = gathered(retain), gathered(forget)
    weights = example_weights(settings.beta, *map(len, parts))
    return weighted_descent(model, parts, weights, settings, generator, masks=masks, task=task)
