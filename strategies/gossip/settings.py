"""Settings of decentralised training, all of them keys of the section ``strategy``."""

from typing import Literal

from pydantic import Field

from strategies.core.settings import Settings


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
