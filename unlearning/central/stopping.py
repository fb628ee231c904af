"""When to stop forgetting, for each model by itself: once D_f looks like data that it was not trained on.

Near p = 1 the gradient of the cross-entropy goes as 1 − p, so a number of steps and a step size that are
right for one model do nothing to the next, or destroy it. Two things are done about that. A step has a fixed
share of ‖θ‖ as its length, along the full-batch gradient of a loss that does not saturate where the model is
sure:

    ℓ_s = softplus(φ) = −log(1 − p),    φ = log p − log(1 − p),

whose slope in φ is p: 1 where the model is sure of the label, 0 where the example is forgotten. (Other tasks:
softplus of `Task.confidences`.) And steps are taken until D_f meets a goal that no retrained model is needed
for; the last one is halved a few times, as long as the goal stays met:

- of a label that the retained data have as well: the mean loss on D_f is at least that of the model *before*
  on held-out data with the same shares of labels;
- of a label that only D_f has, such as a forgotten class: at most 1 % of its examples are still right.

The held-out data must be neither trained on nor those that the result is judged by. Of examples that are
harder than others of their label, such as mislabelled ones, a model without them would have a higher loss
than held-out data have: these are forgotten too little, and the rule cannot know.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from strategies.client.evaluation import outputs_of
from strategies.core.examples import Examples
from strategies.core.settings import Settings
from strategies.task import FULL_SCORE, Task
from unlearning.central.gradients import Loss
from unlearning.central.parameters import with_norm

T = TypeVar("T")

RIGHT_AT_MOST = 0.01
"""Share of the examples of a label that only D_f has that may still be right."""
SHARES = tuple(0.001 * 2.0**k for k in range(11))
"""Lengths of a single step that are tried first, as shares of the norm of the parameters."""
_HALVINGS = 3
_CLOSE = 0.02  # A length is found once it is known to this share of itself
_LARGEST = 1e12  # Stands for the loss of a model that is broken, which has gone beyond any goal
_BETWEEN = 7  # Lengths that are tried between two others


class StepSettings(Settings):
    """Steps towards a goal.

    Attributes
    ----------
    step_share : float
        Length of a step as a share of the norm of the parameters, above 0.
    max_steps : int
        Steps after which it ends in any case, at least 0; neutral 0.
    """

    step_share: float = Field(default=0.004, gt=0)
    max_steps: int = Field(default=100, ge=0)


@final
@dataclass(frozen=True)
class Goal:
    """What D_f is to look like.

    Parameters
    ----------
    losses
        Least mean loss of each label; infinite where only D_f has the label, NaN where nothing is known.
    otherwise
        The same for examples of no label, or of several.
    """

    losses: tuple[float, ...] = ()
    otherwise: float = math.nan

    @staticmethod
    def of(
        model: nn.Module, held_out: Examples | None, num_labels: int, gone: Iterable[int], task: Task
    ) -> "Goal":
        """Return the goal for a model before forgetting.

        Parameters
        ----------
        held_out
            Data that it was not trained on; examples without a label are left out. None: there are none.
        num_labels
            Number of labels.
        gone
            The labels that no retained example has.
        """
        losses, labels = _losses_and_labels(model, held_out, num_labels, task)
        mean = float(losses.mean()) if len(losses) else math.nan
        of_label = [losses[labels == label] for label in range(num_labels)]
        found = [float(each.mean()) if len(each) else mean for each in of_label]
        for label in gone:
            found[label] = math.inf
        return Goal(tuple(found), mean)

    @property
    def vector(self) -> tuple[float, ...]:
        """All of its numbers, as a message carries them; see `from_vector`."""
        return *self.losses, self.otherwise

    @staticmethod
    def from_vector(vector: Sequence[float]) -> "Goal":
        """Return the goal with these numbers."""
        return Goal(tuple(vector[:-1]), vector[-1])

    def of_each(self, targets: Tensor, task: Task) -> Tensor:
        """Return the loss that is wanted of each example, shape [n], float64."""
        labels = task.groups(targets)
        if labels is None or labels.dim() != 1:
            return torch.full((len(targets),), self.otherwise, dtype=torch.float64)
        known = (labels >= 0) & (labels < len(self.losses))
        places = torch.where(known, labels, len(self.losses)).cpu()
        return torch.tensor(self.vector, dtype=torch.float64)[places]


@final
@dataclass(frozen=True)
class Standing:
    """Where D_f stands; standings of several clients add up.

    Parameters
    ----------
    loss, wanted, count
        Summed losses, and what they are to be, over the examples whose label the retained data have as well.
    right, gone
        Of the examples of the other labels: how many are right, and how many there are.
    """

    loss: float = 0.0
    wanted: float = 0.0
    count: float = 0.0
    right: float = 0.0
    gone: float = 0.0

    @staticmethod
    def of(model: nn.Module, forget: Examples, goal: Goal, task: Task) -> "Standing":
        """Measure a model on D_f; without an example it is empty."""
        if not len(forget):
            return Standing()
        outputs, targets = outputs_of(model, forget, task=task), forget.targets()
        wanted = goal.of_each(targets, task)
        gone = wanted.isinf()
        losses = task.losses(outputs, targets).double().nan_to_num(_LARGEST, _LARGEST)
        right = task.scores(outputs, targets) / FULL_SCORE
        return Standing(
            float(losses[~gone].sum()),
            float(wanted[~gone].sum()),
            float((~gone).sum()),
            float(right[gone].double().sum()),
            float(gone.sum()),
        )

    def __add__(self, other: "Standing") -> "Standing":
        """Return that of both sets of examples."""
        return Standing(*(a + b for a, b in zip(self.vector, other.vector, strict=True)))

    @property
    def vector(self) -> tuple[float, ...]:
        """All of its numbers, in the order of the fields."""
        return self.loss, self.wanted, self.count, self.right, self.gone

    @property
    def is_known(self) -> bool:
        """Whether there is a goal for every example."""
        return not math.isnan(self.wanted)

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        learnt = self.loss < self.wanted if self.count else False
        return not learnt and self.right <= RIGHT_AT_MOST * self.gone

    def check(self) -> None:
        """Raise ValueError if there are examples of which it is not known when they are forgotten."""
        if not self.is_known:
            raise ValueError(
                "labelled held-out data are needed to tell when examples are forgotten whose label the "
                "retained data have as well; got none"
            )

    def in_words(self) -> str:
        """Return the standing for people.

        Examples
        --------
        >>> Standing(3.0, 5.0, 10, 1, 4).in_words()
        'mean loss 0.3 where held-out data have 0.5; 25 % right of labels that nothing else has'
        """
        mean, wanted = (value / self.count if self.count else 0.0 for value in (self.loss, self.wanted))
        loss = [f"mean loss {mean:.3g} where held-out data have {wanted:.3g}"] if self.count else []
        share = 100 * self.right / self.gone if self.gone else 0.0
        right = [f"{share:.3g} % right of labels that nothing else has"] if self.gone else []
        return "; ".join([*loss, *right])


def unsaturated(task: Task) -> Loss:
    """Return ℓ_s, which steps lower, from outputs and targets, shape [n]."""
    return lambda outputs, targets: functional.softplus(task.confidences(outputs, targets))


def stepped(flat: Tensor, gradient: Tensor, share: float) -> Tensor:
    """Return parameters after a step of a share of their norm against a gradient, all [P]; float64.

    Without a gradient there is no direction, and they stay as they are.
    """
    return flat.double() - with_norm(
        gradient.double(), share * float(torch.linalg.vector_norm(flat.double()))
    )


def shortened(
    before: Tensor, after: Tensor, standing: Standing, standing_of: Callable[[Tensor], Standing]
) -> tuple[Tensor, Standing]:
    """Return the last step's end, moved back by halving the step as long as the goal stays met.

    Parameters
    ----------
    before, after
        The parameters before the step, which do not meet the goal, and after it, which do, shape [P].
    standing
        Where D_f stands after it.
    standing_of
        Measures further parameters.
    """
    for _ in range(_HALVINGS):
        middle = ((before.double() + after.double()) / 2).to(after.dtype)
        found = standing_of(middle)
        before, after, standing = (before, middle, found) if found.met else (middle, after, standing)
    return after, standing


@final
@dataclass(frozen=True, eq=False)
class Reached:
    """Parameters after some steps, shape [P], and where D_f stands."""

    flat: Tensor
    steps: int
    standing: Standing


def steps_until(
    start: Tensor,
    settings: StepSettings,
    ask: Callable[[Tensor], tuple[T, Standing]],
    gradient: Callable[[T], Tensor],
    *,
    within: Callable[[Tensor], Tensor] = lambda flat: flat,
    on_step: Callable[[Standing], None] = lambda standing: None,
) -> Reached:
    """Take steps of one length until D_f meets its goal, the cap is reached, or there is no direction.

    Parameters
    ----------
    start
        The parameters to begin with, shape [P].
    ask
        Gives what a step is made of, and where D_f stands, for parameters of shape [P].
    gradient
        What a step is against, shape [P], from what `ask` gave last.
    within
        Maps the parameters after a step to where they may be.
    on_step
        Told where D_f stood before each step, once it is taken.
    """
    before = flat = start
    steps = 0
    while True:
        told, standing = ask(flat)
        if standing.met and steps:
            flat, standing = shortened(before, flat, standing, lambda middle: ask(middle)[1])
        if standing.met or steps == settings.max_steps:
            return Reached(flat, steps, standing)
        against = gradient(told)
        if not against.any():
            return Reached(flat, steps, standing)
        before, flat = flat, within(stepped(flat, against, settings.step_share).to(flat.dtype))
        steps += 1
        on_step(standing)


def gone_labels(forget: Examples, retain: Examples) -> list[int]:
    """Return the labels that only D_f has; none where examples have no label, or several."""
    of_forgotten, of_retained = forget.groups(), retain.groups()
    if of_forgotten is None or of_retained is None or of_forgotten.dim() != 1:
        return []
    return sorted(set(of_forgotten.tolist()) - set(of_retained.tolist()))


def next_lengths(tried: Mapping[float, bool]) -> tuple[float, ...]:
    """Return lengths between the longest that is too short and the next one, ascending.

    The shortest length that meets the goal is looked for. None: it is known well enough, or none does.

    Parameters
    ----------
    tried
        Length -> whether it meets the goal; 0 is one of them.

    Examples
    --------
    >>> next_lengths({0: False, 1: False, 9: True, 20: True})
    (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    >>> next_lengths({0: False, 1: True})[-3:]
    (0.125, 0.25, 0.5)
    >>> next_lengths({0: False, 1: False})
    ()
    """
    upper = shortest(tried)
    if upper is None or upper == 0:
        return ()
    lower = max(length for length in tried if length < upper)
    if upper - lower <= _CLOSE * upper:
        return ()
    steps = range(1, _BETWEEN + 1)
    if lower == 0:
        return tuple(upper / 2**k for k in reversed(steps))
    return tuple(lower + (upper - lower) * k / (_BETWEEN + 1) for k in steps)


def shortest(tried: Mapping[float, bool]) -> float | None:
    """Return the shortest length that meets the goal; None if none does."""
    return min((length for length, met in tried.items() if met), default=None)


def _losses_and_labels(
    model: nn.Module, held_out: Examples | None, num_labels: int, task: Task
) -> tuple[Tensor, Tensor]:
    """Return loss and label of the held-out examples that have a target; the label is −1 if it is not one."""
    if held_out is None or not len(held_out):
        return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
    if task.labelled:
        labelled = held_out.targets() >= 0
        held_out = held_out.split(labelled)[0]
        if not len(held_out):
            return _losses_and_labels(model, None, num_labels, task)
    targets = held_out.targets()
    losses = task.losses(outputs_of(model, held_out, task=task), targets).double()
    labels = task.groups(targets)
    if labels is None or labels.dim() != 1:
        labels = torch.full((len(targets),), -1)
    return losses, labels
