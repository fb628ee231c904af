"""Keys, needs and promises of `unlearning.methods.ssd`."""

from pydantic import Field

from strategies.core.settings import Settings
from unlearning.settings import AtLeastZero
from unlearning.traits.base import Needs, Traits

NAME = "ssd"


class SsdSettings(Settings):
    """Selective synaptic dampening.

    Attributes
    ----------
    alpha
        α, how many times as much a weight must matter to the forgotten data as to all, to be dampened, at
        least 0; ``auto``: the root of the number of all examples over that of the forgotten ones, which
        makes 10 of a hundredth.
    dampening
        λ, above 0: a dampened weight is multiplied by λ times the ratio of the two, at most 1.
    """

    alpha: AtLeastZero = "auto"
    dampening: float = Field(default=1.0, gt=0)


TRAITS = Traits(
    name=NAME,
    summary="shrink the weights that matter more to the forgotten data than to all",
    guarantee="none: what is shrunk is chosen by the gradients at the model before",
    source="Foster et al., AAAI 2024, arXiv 2308.07707",
    cost="one visit to every client, of a backward pass per example",
    needs=lambda settings: Needs(remaining=True, forgotten=True),
    settings=SsdSettings,
)
