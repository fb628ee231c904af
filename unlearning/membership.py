"""MIA-efficacy: the share of the forgotten examples that a membership attacker calls non-members.

Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023 (arXiv 2304.04934), after the
confidence-based attack of Song and Mittal, USENIX Security 2021: a support vector classifier (C = 3, rbf
kernel, gamma = 'auto', which is 1 for one feature) on one feature, the audited model's softmax probability of
the true label. It is trained anew for every audited model, on that model's own outputs: members are as many
examples of D_r as D_t has, non-members are D_t.

What differs: only half of each side trains the attacker. The other half, which it has not seen, gives its
own accuracy, without which the efficacy cannot be read: an attacker that only guesses calls about any share
of D_f non-members. And each side is capped, because the classifier's time grows with the square of its
training set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

CONFIDENCE_PERCENT = 95
"""How sure one must be that an attacker does not merely guess."""


@dataclass(frozen=True)
class MembershipResult:
    """What the attacker found out about one model.

    Attributes
    ----------
    efficacy : float or None
        Percentage of D_f called non-members; None without forgotten examples.
    attacker_accuracy : float
        Percentage of right answers on the held-out halves of members and non-members.
    guessing_bound : float
        The percentage that an attacker who tosses a coin stays at or below with 95 % probability.
    num_per_side : int
        Members, and as many non-members, that the attacker was trained and checked on.
    num_available : int
        Members, and as many non-members, that there would have been without the cap.
    """

    efficacy: float | None
    attacker_accuracy: float
    guessing_bound: float
    num_per_side: int
    num_available: int

    @property
    def meaningful(self) -> bool:
        """Whether the attacker is better than guessing; judge it on the model before forgetting."""
        return self.attacker_accuracy > self.guessing_bound


def membership_attack(
    retained: Tensor,
    unseen: Tensor,
    forgotten: Tensor,
    generator: np.random.Generator,
    c: float = 3.0,
    max_per_side: int = 2500,
) -> MembershipResult:
    """Train an attacker on one model's outputs and let it judge the forgotten examples.

    Parameters
    ----------
    retained
        The model's probability of the true label on D_r (members), shape [n_r].
    unseen
        The same on D_t (non-members), shape [n_t]; all of it, in class-wise forgetting too.
    forgotten
        The same on D_f, shape [n_f].
    generator
        Draws the members and the halves. Give the same seed for every model that is compared: gaps between
        them then do not come from the draw.
    c
        Penalty of the classifier.
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
    per_side = min(available, max_per_side)
    members, non_members = _draw(retained, per_side, generator), _draw(unseen, per_side, generator)
    half = per_side // 2
    attacker = _train(members[:half], non_members[:half], c)
    caught = int(attacker.predict(members[half:]).sum())
    cleared = int((attacker.predict(non_members[half:]) == 0).sum())
    num_checked = 2 * (per_side - half)
    passed = int((attacker.predict(_feature(forgotten)) == 0).sum()) if len(forgotten) else 0
    return MembershipResult(
        efficacy=100.0 * passed / len(forgotten) if len(forgotten) else None,
        attacker_accuracy=100.0 * (caught + cleared) / num_checked,
        guessing_bound=guessing_bound(num_checked),
        num_per_side=per_side,
        num_available=available,
    )


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


def _draw(values: Tensor, count: int, generator: np.random.Generator) -> Any:
    return _feature(values)[generator.permutation(len(values))[:count]]


def _feature(values: Tensor) -> Any:
    return values.double().numpy().reshape(-1, 1)  # [n, 1]


def _train(members: Any, non_members: Any, c: float) -> Any:
    from sklearn.svm import SVC  # slow to import, and most users of this package never attack

    labels = np.repeat([1, 0], [len(members), len(non_members)])
    # Without a random state it would draw from numpy's global generator; the fit itself is deterministic.
    attacker: Any = SVC(C=c, kernel="rbf", gamma="auto", random_state=0)  # type: ignore[no-untyped-call]
    return attacker.fit(np.concatenate([members, non_members]), labels)
