"""Keys, needs and promises of `unlearning.methods.influence`."""

from pydantic import Field, field_validator

from strategies.core.settings import Settings, split_list
from unlearning.settings import ForgetSettings
from unlearning.traits.base import Needs, Traits

NAME = "influence"


class InfluenceKeys(Settings):
    """The step.

    Attributes
    ----------
    damping
        λ, above 0, the curvature assumed where no retained example has a gradient.
    fisher_examples
        Retained examples that the curvature is taken from, at least 1.
    tolerance
        Residual, relative to the right-hand side, at which the system with the Fisher matrix counts as
        solved, in (0, 1); each further product with it is a visit to every client.
    alphas
        Lengths of the step that are tried, each above 0, separated by commas: the one is taken that raises
        the loss on the forgotten data most; ``auto``: the shortest length at which this loss is that on the
        server's public data, and at which of a class at most 1 % is right.
    max_retain_drop
        Percentage points of accuracy on the retained data that a length may cost that is given, at least 0.
    """

    damping: float = Field(default=1e-3, gt=0)
    fisher_examples: int = Field(default=256, ge=1)
    tolerance: float = Field(default=1e-3, gt=0, lt=1)
    alphas: str = "auto"
    max_retain_drop: float = Field(default=2.0, ge=0)

    @field_validator("alphas", mode="before")
    @classmethod
    def _may_be_one_number(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("alphas")
    @classmethod
    def _alphas_parse(cls, value: str) -> str:
        if value != "auto":
            parsed_alphas(value)
        return value


def parsed_alphas(text: str) -> tuple[float, ...]:
    """Return the lengths in a list; ValueError if the text is something else."""
    try:
        alphas = tuple(float(entry) for entry in split_list(text))
    except ValueError:
        alphas = ()
    if not alphas or not all(0 < alpha < float("inf") for alpha in alphas):
        raise ValueError("auto, or numbers above 0 separated by commas, such as '0.5, 1, 2'")
    return alphas


def needs(settings: ForgetSettings) -> Needs:
    """Return that all clients must be online."""
    asked = settings.own(NAME, InfluenceKeys).alphas == "auto"
    return Needs(remaining=True, forgotten=True, held_out="alphas" if asked else "")


TRAITS = Traits(
    name=NAME,
    summary="take the forgotten data out of the loss by one Newton-like step",
    guarantee="none for networks: a first-order estimate of the minimum without the forgotten data",
    source="Jia et al., NeurIPS 2023, arXiv 2304.04934",
    cost="some visits to every client, and one per product with the Fisher matrix, some dozens",
    needs=needs,
    settings=InfluenceKeys,
    flat_keys={"fisher-tolerance": "tolerance", "alpha-search": "alphas"},
)
