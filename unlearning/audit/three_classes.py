"""Whether who holds the models before and after can tell forgotten, retained and unseen examples apart.

The pair gives more away than either model (arXiv 2605.01129): a forgotten example is one that the first
model knows and the second does not. The attacker is a multinomial logistic regression on (φ before, φ
after), fitted to some of each class and checked on the others. A retrained model in place of the second
gives much away, too: that somebody left can be seen in any pair. So the figure means something only beside
that of retraining.
"""

from typing import Any

import numpy as np

from unlearning.audit.roc import Scores

FOLDS = 5
CLASSES = ("forgotten", "retained", "unseen")


def told_apart(
    before: tuple[Scores, Scores, Scores], after: tuple[Scores, Scores, Scores], seed: int
) -> float | None:
    """Return the balanced accuracy in percent of the attacker on examples that it was not fitted to.

    Parameters
    ----------
    before, after
        φ of the forgotten, the retained and the unseen examples under the two models.
    seed
        Draws as many of each class as the smallest has, and the folds.

    Returns
    -------
    float or None
        Guessing gives 33.3; None with fewer than five examples of a class.
    """
    count = min(len(part) for part in before)
    if count < FOLDS:
        return None
    # Here, as a forgetting without an audit should not wait a second for it
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(seed)
    parts = []
    for first, second in zip(before, after, strict=True):
        chosen = generator.permutation(len(first))[:count]
        parts.append(np.stack([first[chosen], second[chosen]], axis=1))
    points, labels = np.concatenate(parts), np.repeat(np.arange(len(CLASSES)), count)
    right = np.zeros(len(labels), bool)
    folds: Any = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    attacker: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    for fitted, checked in folds.split(points, labels):
        attacker.fit(points[fitted], labels[fitted])
        right[checked] = attacker.predict(points[checked]) == labels[checked]
    return float(100.0 * right.mean())
