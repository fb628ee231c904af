"""Keys, needs and promises of `unlearning.methods.fast_fedul`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.traits.base import Needs, Traits

NAME = "fast-fedul"


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


TRAITS = Traits(
    name=NAME,
    summary="subtract the client's logged updates together with an estimate of what they drew after them",
    guarantee="approximate: the influence on later updates of others is estimated by one number per round",
    source="Huynh et al., arXiv 2405.18040",
    cost="no round, no client visit",
    needs=lambda settings: Needs(log="full", fresh=True),
    serves=frozenset({"client"}),
    refusal="the log holds one update per client, not per class or example",
    settings=SkewSettings,
    flat_keys={"skew-alpha": "alpha", "skew-theta": "theta"},
)
