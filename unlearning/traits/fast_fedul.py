"""Keys, needs and promises of `unlearning.methods.fast_fedul`."""

from unlearning.central.settings import SkewSettings
from unlearning.traits.base import Needs, Traits

NAME = "fast-fedul"


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
