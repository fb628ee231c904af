"""Which differences between methods a comparison decides.

A method is compared by its disparity, the mean distance to the retrained model of the same training seed:
with doing nothing, with the floor (retrainings that differ by their seed alone), and with every other method.
Each difference is paired by training seed; of several forgettings of one trained model the mean counts, as
they share what the seed did. A difference is decided if its p-value, by Holm's correction over its family, is
below 5 %. One seed decides nothing, and differences that lie in two groups decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from unlearning.audit.statistics import LEVEL, estimate, holm, in_two_groups

DecisionOutcome = Literal["closer", "further", "undecided"]
BySeed = Mapping[int, float]
"""The disparity of a method by training seed."""


@dataclass(frozen=True)
class Decision:
    """A method against another, by their disparities.

    Attributes
    ----------
    method, against : str
        The two.
    outcome : str
        Whether the method is ``closer`` to retraining than the other, ``further``, or that is ``undecided``.
    difference : float or None
        Mean of the method's disparity minus the other's, in points; None without a common seed.
    low, high : float or None
        Its 95 % interval, not corrected; None of one seed, or where the differences lie in two groups.
    p_value : float or None
        By Holm's correction over the family.
    values : tuple of float
        The differences by seed.
    """

    method: str
    against: str
    outcome: DecisionOutcome
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    values: tuple[float, ...]

    @property
    def in_two_groups(self) -> bool:
        """Whether the differences lie in two groups, so that their mean says little."""
        return in_two_groups(self.values)


@dataclass(frozen=True)
class Decisions:
    """What a comparison decides; each list is a family.

    Attributes
    ----------
    nothing, floor, pairs : tuple of Decision
        Each method against doing nothing; against a second retraining, empty without any; and every two.
    seeds : int
        Training seeds.
    """

    nothing: tuple[Decision, ...]
    floor: tuple[Decision, ...]
    pairs: tuple[Decision, ...]
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """Return the decisions as a mapping that `json` can write, and reads back as it was."""
        families = {"nothing": self.nothing, "floor": self.floor, "pairs": self.pairs}
        plain = {
            name: [{**asdict(each), "values": list(each.values)} for each in found]
            for name, found in families.items()
        }
        return {**plain, "seeds": self.seeds}


def decisions(
    methods: Mapping[str, BySeed], nothing: tuple[str, BySeed], floor: tuple[str, BySeed], seeds: int
) -> Decisions:
    """Return what is decided; `nothing` and `floor` have the names of these models, too."""
    known = {name: values for name, values in methods.items() if values}
    return Decisions(
        nothing=_family([(name, *nothing, values) for name, values in known.items()]),
        floor=_family([(name, *floor, values) for name, values in known.items()]) if floor[1] else (),
        pairs=_family([(one, other, known[other], known[one]) for one, other in combinations(known, 2)]),
        seeds=seeds,
    )


def by_seed(samples: Mapping[int, Sequence[Mapping[str, float | None]]], figure: str) -> dict[int, float]:
    """Return a figure by training seed, the mean over the forgettings; without seeds that do not have it."""
    found = {seed: [v for each in of if (v := each.get(figure)) is not None] for seed, of in samples.items()}
    return {seed: fmean(values) for seed, values in found.items() if values}


def _family(compared: Sequence[tuple[str, str, BySeed, BySeed]]) -> tuple[Decision, ...]:
    """Return the decisions of a family: method, other, the other's values and the method's for each."""
    raw = [_difference(*each) for each in compared]
    tested = [place for place, each in enumerate(raw) if each.p_value is not None]
    corrected = holm([p for each in raw if (p := each.p_value) is not None])
    for place, p_value in zip(tested, corrected, strict=True):
        raw[place] = _decided(raw[place], p_value)
    return tuple(raw)


def _difference(method: str, against: str, theirs: BySeed, own: BySeed) -> Decision:
    values = tuple(own[seed] - theirs[seed] for seed in own if seed in theirs)
    mean, found = fmean(values) if values else None, estimate(values)
    if found is None or in_two_groups(values):
        return Decision(method, against, "undecided", mean, None, None, None, values)
    return Decision(method, against, "undecided", mean, found.low, found.high, found.p_value, values)


def _decided(found: Decision, p_value: float) -> Decision:
    outcome: DecisionOutcome = "undecided"
    if p_value < LEVEL and found.difference:
        outcome = "closer" if found.difference < 0 else "further"
    return replace(found, p_value=p_value, outcome=outcome)
