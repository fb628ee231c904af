"""Keys, needs and promises of `unlearning.methods.fisher`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.traits.base import Needs, Traits

NAME = "fisher"


class FisherSettings(Settings):
    """Fisher forgetting.

    Attributes
    ----------
    alpha : float
        Variance of the noise where H = 1, at least 0; neutral 0, which adds none.
    max_inverse : float
        Clamp of 1/H, above 0; the noise's standard deviation is at most sqrt(alpha · max_inverse).
    """

    alpha: float = Field(default=1e-6, ge=0)
    max_inverse: float = Field(default=1e3, gt=0)


TRAITS = Traits(
    name=NAME,
    summary="add noise to the weights, the more the less the retained data depend on them",
    guarantee="none: the noise hides the forgotten data only as far as the loss is quadratic",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="one visit to every client that keeps data, of a backward pass per example and class",
    needs=lambda settings: Needs(remaining=True),
    settings=FisherSettings,
    flat_keys={"fisher-alpha": "alpha", "fisher-max-inverse": "max-inverse"},
)
