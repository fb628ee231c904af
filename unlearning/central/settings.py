"""Settings of the central forms that forgetting methods have among their keys, without torch."""

from typing import Annotated

from pydantic import Field

from strategies.core.settings import Settings


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


class SkewSettings(Settings):
    """Fast-FedUL.

    Attributes
    ----------
    alpha : float
        Share of the target's past influence that the other clients undo in a round, in [0, 1]; neutral 0.
    theta : float
        Share of the estimate that is subtracted, at least 0; 1 for all of it.
    """

    alpha: float = Field(default=0.07, ge=0, le=1)
    theta: float = Field(default=1.0, ge=0)


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
