"""Settings of decentralised training, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field

from strategies.core.conditions import only_with
from strategies.core.settings import Settings
from strategies.core.traits import Traits


class GossipSettings(Settings):
    """What ``gossip`` reads.

    Attributes
    ----------
    topology
        Who is whose neighbour: ``ring``, ``torus``, ``complete`` or ``random`` (Erdős–Rényi, connected).
    edge_probability
        ``random``: probability of each edge, in (0, 1].
    """

    topology: Literal["ring", "torus", "complete", "random"] = "ring"
    edge_probability: float = Field(default=0.5, gt=0, le=1)


TRAITS = (
    Traits(
        "gossip",
        GossipSettings,
        conditions=(only_with("strategy.edge-probability", "strategy.topology", "random"),),
        averages=False,
        encodes=False,
        noised=False,
        hidden="none",
        everybody=True,
        only_retraining="every client holds a model of its own, into which its neighbours' were mixed",
        page="docs/gossip.md",
    ),
)
