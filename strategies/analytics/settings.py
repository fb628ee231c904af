"""Settings of federated analytics: the section ``analytics`` of the run config."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings

Statistic = Literal["count", "histogram", "mean", "quantile", "heavy-hitters"]
Column = Literal["label", "brightness"]


class AnalyticsSettings(Settings):
    """What is asked of the clients' data, and what protects each client and example.

    Attributes
    ----------
    enabled
        Whether training asks for the distribution of labels first, for its report; neutral false.
    statistic
        ``count``, ``histogram``, ``mean``, ``quantile`` or ``heavy-hitters``.
    column
        ``label``, or ``brightness``: the mean of an example's input.
    quantile
        Which quantile, in [0, 1].
    low
        Smallest value of ``brightness``; what lies below counts as it.
    high
        Largest value of ``brightness``; what lies above counts as it.
    bins
        Bins of ``brightness`` between them, at least 1; a quantile is exact to one bin.
    top
        How many heavy hitters are named at most, at least 1.
    min_clients
        Clients that must answer for there to be an answer, at least 2.
    epsilon
        Noise for ε at the level of one example, at least 0; neutral 0: no noise.
    """

    enabled: bool = False
    statistic: Statistic = "histogram"
    column: Column = "label"
    quantile: float = Field(default=0.5, ge=0, le=1)
    low: float = 0.0
    high: float = 1.0
    bins: int = Field(default=20, ge=1)
    top: int = Field(default=3, ge=1)
    min_clients: int = Field(default=3, ge=2)
    epsilon: float = Field(default=0.0, ge=0)
