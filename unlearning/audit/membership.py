"""MIA-efficacy: the share of the forgotten examples that a membership attacker calls non-members.

The measure is that of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023 (arXiv
2304.04934), after the confidence-based attack of Song and Mittal, USENIX Security 2021. The attacker knows
the model's margin for each example,

    φ = log p − log(1 − p),    p the model's probability of the true label,

or, where there are no labels, what the task says of how well the model knows an example (`Task.confidences`),
such as minus the size of a residual: only their order matters. It is trained anew for every audited model, on
that model's own outputs: members are as many examples of D_r as D_t has, non-members are D_t.

What differs from Jia et al.:

* Their attacker is a support vector classifier with a kernel on p, which can learn that *low* confidence
  means "member"; one model then has an efficacy of 87 or of 7, as the draw falls. This one is monotone: it
  calls an example a member if its margin is at least a threshold.
* They draw members once. Here the draw is repeated, and the efficacy is the mean over the draws, with their
  standard deviation beside it.
* Only half of each side trains the attacker. The other half, which it has not seen, gives its own accuracy,
  without which the efficacy cannot be read: an attacker that only guesses calls about any share of D_f
  non-members.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

CONFIDENCE_PERCENT = 95
"""How sure one must be that an attacker does not merely guess."""


@dataclass(frozen=True)
class MembershipResult:
    """The attacker's results on one model.

    Attributes
    ----------
    efficacy, efficacy_std : float or None
        Percentage of D_f called non-members, mean and standard deviation over the draws; None without
        forgotten examples.
    attacker_accuracy, attacker_accuracy_std : float
        Percentage of right answers on the held-out halves of members and non-members, over the draws.
    guessing_bound : float
        The percentage that an attacker who tosses a coin stays at or below, in a single draw, with 95 %
        probability; the mean of several varies less.
    num_per_side, num_available : int
        Members, and as many non-members, in each draw, and how many there would have been without the cap.
    num_draws : int
        How often they were drawn.
    """

    efficacy: float | None
    efficacy_std: float | None
    attacker_accuracy: float
    attacker_accuracy_std: float
    guessing_bound: float
    num_per_side: int
    num_available: int
    num_draws: int

    @property
    def meaningful(self) -> bool:
        """Whether the attacker is better than guessing; judge it on the model before forgetting."""
        return self.attacker_accuracy > self.guessing_bound


def membership_attack(
    retained: Tensor,
    unseen: Tensor,
    forgotten: Tensor,
    generator: np.random.Generator,
    draws: int = 10,
    max_per_side: int = 10_000,
) -> MembershipResult:
    """Train an attacker on one model's outputs, several times, and let it judge the forgotten examples.

    Parameters
    ----------
    retained, unseen, forgotten
        The model's margins on D_r (members), D_t (non-members) and D_f, one-dimensional. In class-wise
        forgetting D_t comes without the forgotten classes: with them, the attacker finds the class in place
        of membership.
    generator
        Draws the members and the halves. Give the same seed for every model that is compared: gaps between
        them then do not come from the draw.
    draws
        How often, at least 2.
    max_per_side
        Most members, and most non-members, that are used.

    Raises
    ------
    ValueError
        If there are fewer than two members or non-members.
    """
    available = min(len(retained), len(unseen))
    if available < 2:
        raise ValueError(
            f"got {len(retained)} members and {len(unseen)} non-members; expected at least 2 of each"
        )
    members, non_members, judged = (values.double().numpy() for values in (retained, unseen, forgotten))
    per_side = min(available, max_per_side)
    half = per_side // 2
    rates: list[float] = []
    accuracies: list[float] = []
    for _ in range(draws):
        seen = members[generator.permutation(len(members))[:per_side]]
        not_seen = non_members[generator.permutation(len(non_members))[:per_side]]
        cut = best_threshold(seen[:half], not_seen[:half])
        accuracies.append(50.0 * float(np.mean(seen[half:] >= cut) + np.mean(not_seen[half:] < cut)))
        if len(judged):
            rates.append(100.0 * float(np.mean(judged < cut)))
    return MembershipResult(
        efficacy=float(np.mean(rates)) if rates else None,
        efficacy_std=float(np.std(rates, ddof=1)) if rates else None,
        attacker_accuracy=float(np.mean(accuracies)),
        attacker_accuracy_std=float(np.std(accuracies, ddof=1)),
        guessing_bound=guessing_bound(2 * (per_side - half)),
        num_per_side=per_side,
        num_available=available,
        num_draws=draws,
    )


def best_threshold(members: Any, non_members: Any) -> float:
    """Return the lowest margin that the attacker calls "member": that with the most right answers.

    Margins are float64. Cuts lie half-way between neighbouring margins, below all of them and above all of
    them. Of equally good ones it is the middle one, the lower of two.

    Examples
    --------
    >>> best_threshold(np.array([2.0, 3.0, -9.0]), np.array([0.0, 1.0]))
    1.5
    """
    values = np.unique(np.concatenate([members, non_members]))
    middle = values[:-1] + (values[1:] - values[:-1]) / 2
    cuts = np.concatenate([[-np.inf], np.where(middle > values[:-1], middle, values[1:]), [np.inf]])
    kept = len(members) - np.searchsorted(np.sort(members), cuts)  # members at or above each cut
    cleared = np.searchsorted(np.sort(non_members), cuts)  # non-members below it
    right = kept + cleared
    best = cuts[right == right.max()]
    return float(best[(len(best) - 1) // 2])


@cache
def guessing_bound(num_checked: int) -> float:
    """Return the accuracy that coin tossing stays at or below with 95 % probability, in percent.

    The smallest k with P(Binomial(num_checked, ½) ≤ k) ≥ 0.95, over num_checked; exact, in whole numbers. It
    holds for any attacker that learned nothing, not only for a fair coin: one that says "member" at rate p,
    whatever it is asked, is right on half of a balanced set on average and varies by p(1 − p) ≤ ¼ per
    example.

    Examples
    --------
    >>> guessing_bound(4)  # P(at most 3 of 4) = 15/16 < 0.95
    100.0
    >>> guessing_bound(1000)
    52.6
    """
    outcomes = ways = 1  # sequences of tosses with at most k, and with exactly k right answers
    k = 0
    while 100 * outcomes < CONFIDENCE_PERCENT * 2**num_checked:
        ways = ways * (num_checked - k) // (k + 1)
        outcomes += ways
        k += 1
    return 100.0 * k / num_checked
