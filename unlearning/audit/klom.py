"""KLoM: how far the laws of the margins after forgetting and after retraining lie apart, example by example.

Georgiev et al., "Attribute-to-Delete: Machine Unlearning via Datamodel Matching" (arXiv 2410.23232). Over
many models the margin of an example has a law; KL(unlearned ‖ retrained) of the two laws is 0 where the
method does what retraining would. A model that is merely bad on the forgotten examples is far from
retraining, too. The 95th and the 99th percentile over examples are reported, of the forgotten, the
retained and the test examples.

Estimated from few models the divergence is above 0 for equal laws as well. So half of the retrained models
is compared with the other half, and with the half of the unlearned ones that has the seeds of the other half:
equal numbers on both sides, and no training seed on both, which would hold the two together. Normal
densities are fitted up to 50 models a side, with one variance for all examples of a side; above,
histograms are counted.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unlearning.audit.roc import Scores

LEAST_FOR_HISTOGRAMS = 50
BINS = 20
PERCENTILES = (95, 99)
_SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True)
class MarginDivergence:
    """Percentiles over the examples of one set, in nats.

    Parameters
    ----------
    models, examples
        How many models on each side, and how many examples.
    unlearned
        By percentile: KL(unlearned ‖ retrained).
    floor
        The same of the two halves of the retrained models.
    """

    models: int
    examples: int
    unlearned: dict[int, float]
    floor: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        """Return the percentiles as a mapping that `json` can write."""
        return asdict(self)


def margin_divergence(unlearned: Scores, retrained: Scores) -> MarginDivergence | None:
    """Return the divergence and its floor, from half of the models each.

    Parameters
    ----------
    unlearned, retrained
        Margins, shape [models, examples] each; row k of the two shares a training seed.

    Returns
    -------
    MarginDivergence or None
        None with fewer than four models of each, or no example.
    """
    half = min(len(retrained), len(unlearned)) // 2
    if half < 2 or not unlearned.shape[1]:
        return None
    first, other = retrained[:half], slice(half, 2 * half)
    return MarginDivergence(
        half,
        unlearned.shape[1],
        _percentiles(divergences(unlearned[other], first)),
        _percentiles(divergences(retrained[other], first)),
    )


def divergences(unlearned: Scores, retrained: Scores) -> Scores:
    """Return KL(unlearned ‖ retrained) of each example in nats, shape [examples]; ≥ 2 models on each side."""
    if min(len(unlearned), len(retrained)) < LEAST_FOR_HISTOGRAMS:
        return _of_normals(unlearned, retrained)
    found: Scores = np.array(
        [_of_histograms(a, b) for a, b in zip(unlearned.T, retrained.T, strict=True)], dtype=np.float64
    )
    return found


def _of_normals(unlearned: Scores, retrained: Scores) -> Scores:
    """Return log(σr/σu) + (σu² + (μu − μr)²) / 2σr² − ½, each σ the same for all examples."""
    ours, theirs = (
        max(float(side.var(axis=0, ddof=1).mean()), _SMALLEST_VARIANCE) for side in (unlearned, retrained)
    )
    moved = (unlearned.mean(axis=0) - retrained.mean(axis=0)) ** 2
    found: Scores = 0.5 * (np.log(theirs / ours) + (ours + moved) / theirs - 1.0)
    return found


def _of_histograms(unlearned: Scores, retrained: Scores) -> float:
    """Return Σ p log(p / q) over common bins; one count in all is spread over each, so that none is empty."""
    both = np.concatenate([unlearned, retrained])
    edges = np.histogram_bin_edges(both, BINS)
    p, q = ((np.histogram(side, edges)[0] + 1 / BINS) / (len(side) + 1) for side in (unlearned, retrained))
    return float(np.sum(p * np.log(p / q)))


def _percentiles(values: Scores) -> dict[int, float]:
    return {each: float(np.percentile(values, each)) for each in PERCENTILES}
