"""Neurons chosen by private data, at a price: the Gaussian mechanism on their Fisher scores.

A choice that depends on private data is a release of its own. What is released here, at the example level, is

    s = Σ_i s_i · min(1, C / ‖s_i‖) + N(0, σ²C² I),   s_i[j] = Σ_{e in neuron j} (∂ log p(y_i|x_i) / ∂θ_e)²

over all of a client's examples i, each with the scores of all hidden neurons j as one vector. An example more
or less moves the sum by at most C, so this is one step of a Gaussian mechanism with noise multiplier σ and
sample rate 1, and is accounted for as that, beside the steps of training (Dwork and Roth, "The Algorithmic
Foundations of Differential Privacy", 2014, Appendix A; composition in
`strategies.layers.privacy.accounting`). At the client level the mean of the s_i is clipped as a whole:
without the client it is zero.

Which neurons score highest is then post-processing and costs nothing more. Only the order of scores within a
layer matters, not their size, so C may be small: then every example has about the same say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.core.secret_random import Randomness
from strategies.layers.privacy.accounting import Spend
from strategies.layers.privacy.noise import clipped, noised
from strategies.models.fisher import squared_gradients
from strategies.models.neurons import Group, neuron_scores
from strategies.task import CLASSIFICATION, Task


@dataclass(frozen=True)
class Scoring:
    """How a client may look at its own data to choose neurons.

    Parameters
    ----------
    noise_multiplier
        σ, above 0.
    clip_norm
        C, above 0.
    selections
        How many choices a budget is to last for.

    Raises
    ------
    LetheError
        If there would be no noise.
    """

    noise_multiplier: float
    clip_norm: float
    selections: int = 1

    def __post_init__(self) -> None:
        """Refuse a choice without a cost."""
        if not self.noise_multiplier > 0:
            raise LetheError(
                "strategy.score-noise: must be above 0: a private mask without its cost is refused"
            )

    @property
    def spend(self) -> Spend:
        """What one choice costs."""
        return Spend(self.noise_multiplier, 1.0, 1)

    @property
    def planned(self) -> tuple[Spend, ...]:
        """What the choices of a run cost."""
        return (Spend(self.noise_multiplier, 1.0, self.selections),)


def example_scores(
    model: nn.Module, groups: Sequence[Group], examples: Examples, task: Task = CLASSIFICATION
) -> Iterator[Tensor]:
    """Yield the scores of all hidden neurons by one example after the other, shape [neurons], float64."""
    for squares in squared_gradients(model, examples, task):
        yield torch.cat([neuron_scores(squares, group) for group in groups])


def clipped_total(scores: Iterator[Tensor], clip_norm: float, by_example: bool) -> Tensor:
    """Return Σ_i clip(s_i), or clip(mean_i s_i) where the unit is the client, shape [neurons].

    Raises
    ------
    LetheError
        If a score is not finite: no scaling bounds it. Or if there is none.
    """
    total, count = torch.zeros(()), 0
    for score in scores:
        total, count = total + (clipped(score, clip_norm) if by_example else score), count + 1
    if count == 0:
        raise LetheError("there is no example to choose neurons by")
    return total if by_example else clipped(total / count, clip_norm)


@final
@dataclass
class PrivateScorer:
    """Scores neurons with noise; counts its uses, to be checked against what was paid for.

    Parameters
    ----------
    by_example
        Whether the unit is an example; otherwise the client.
    """

    scoring: Scoring
    by_example: bool
    randomness: Randomness
    uses: int = field(default=0, init=False)

    def __call__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        examples: Examples,
        generator: torch.Generator,
        task: Task = CLASSIFICATION,
    ) -> tuple[Tensor, ...]:
        """Return the noisy scores of each group's neurons; see `strategies.client.training.Scorer`."""
        self.uses += 1
        how = self.scoring
        total = clipped_total(example_scores(model, groups, examples, task), how.clip_norm, self.by_example)
        stream = self.randomness.after(generator)
        released = noised(total, how.noise_multiplier, how.clip_norm, stream)
        return torch.split(released, [group.size for group in groups])
