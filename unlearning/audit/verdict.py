"""The verdict of an audit, in words: whether the forgetting came closer to retraining than doing nothing.

Three distances to the retrained model are compared, each a disparity (`unlearning.audit.metrics.disparity`):
that of the model after forgetting, that of the model before, which is what doing nothing gives, and the
floor, which is that of a second retraining with another seed. Two models whose disparities differ by less
than the floor cannot be told apart by this audit. The verdict names the figures in the disparity.

A disparity compares rates, which may agree by chance while the outputs themselves, which hold more and vary
less, moved away from the retrained model's. That does not change the outcome, but the verdict says it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from unlearning.audit.measurement import Measurement

Outcome = Literal["closer", "within-floor", "worse", "reference", "unknown"]

_NOT_MEASURED = "no verdict: UA, RA or TA could not be measured"
_REFERENCE = "this is the retrained model, with which the others are compared"
_SAID = {
    "closer": "the forgetting brought the model closer to retraining than doing nothing",
    "within-floor": "not told from doing nothing: both are equally far from retraining, up to chance",
    "worse": "the forgetting left the model further from retraining than doing nothing would have",
}
BACKDOOR_POINTS = 1.0
"""How much more often than after retraining a backdoor may work before it is said to be left."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a forgetting.

    Parameters
    ----------
    outcome
        ``closer`` to retraining than doing nothing, ``within-floor`` (not to be told apart from doing
        nothing), ``worse``, the ``reference`` itself, or ``unknown`` if too little was measured.
    text
        The same in words, with the figures.
    disparity, before
        Of the models after and before forgetting, in points; None if they could not be measured.
    floor
        Of a second retraining; the mean if there are several, None if there is none.
    counts_mia
        Whether MIA-efficacy is among the figures, as its attacker was better than guessing.
    outputs_further
        On which examples (``forgotten``, ``retained``, ``test``) the outputs after forgetting lie further
        from the retrained model's than those before, and than those of a second retraining.
    """

    outcome: Outcome
    text: str
    disparity: float | None = None
    before: float | None = None
    floor: float | None = None
    counts_mia: bool = False
    outputs_further: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a mapping that `json` can write."""
        return asdict(self)


def judge(disparity: float | None, before: float | None, floor: float | None) -> Outcome:
    """Return the outcome for disparities as in `Verdict`.

    Examples
    --------
    >>> judge(1.8, 15.0, 0.5), judge(11.1, 5.7, 0.5), judge(1.8, 1.4, 0.5), judge(0.2, 0.0, None)
    ('closer', 'worse', 'within-floor', 'worse')
    """
    if disparity is None or before is None:
        return "unknown"
    if abs(disparity - before) <= (floor or 0.0):
        return "within-floor"
    return "closer" if disparity < before else "worse"


def mia_counts(before: Measurement) -> bool:
    """Whether MIA-efficacy counts: its attacker did better than guessing on the model before forgetting."""
    attack = before.membership
    return attack is not None and attack.meaningful and attack.efficacy is not None


def verdict(
    disparities: Mapping[str, tuple[float | None, float | None]],
    floors: Mapping[str, tuple[float | None, float | None]],
    measured: Mapping[str, Measurement],
    names: tuple[str, str, str],
) -> Verdict:
    """Return the verdict on one model.

    Parameters
    ----------
    disparities, floors
        With and without MIA-efficacy, by model; `floors` those of the retrainings with other seeds.
    measured
        By model.
    names
        Of the models before, after and retrained.
    """
    before, after, reference = names
    if after == reference:
        return Verdict("reference", _REFERENCE)
    counts_mia = mia_counts(measured[before])
    form = 0 if counts_mia else 1
    own, nothing = disparities[after][form], disparities[before][form]
    known = [found for each in floors.values() if (found := each[form]) is not None]
    floor = sum(known) / len(known) if known else None
    outcome = judge(own, nothing, floor)
    if own is None or nothing is None:
        return Verdict(outcome, _NOT_MEASURED)
    figures = (
        f"disparity {own:.2f} points{_of(disparities[after][0], counts_mia)}, doing nothing {nothing:.2f}"
    )
    against = f"{_against_floor(own, floor)}{_backdoor(*(measured[name] for name in names))}"
    second = [measured[name] for name in floors if name in measured]
    further = _further(measured[before], measured[after], second)
    concluded = f"{_SAID[outcome]}{_conclusion(outcome, own, floor)}"
    text = f"{concluded}: {figures}, {against}{_outputs(outcome, further)}"
    return Verdict(outcome, text, own, nothing, floor, counts_mia, tuple(further))


def _further(
    before: Measurement, after: Measurement, second: Sequence[Measurement]
) -> dict[str, tuple[float, float]]:
    """Return the distances of outputs after and before, by examples, where that after is the larger one.

    What second retrainings differ in is no distance.
    """
    found = {}
    for part, name in (("forget", "forgotten"), ("retain", "retained"), ("test", "test")):
        own, nothing = (getattr(each.output_distance, part) for each in (after, before))
        chance = [d for each in second if (d := getattr(each.output_distance, part)) is not None]
        if own is not None and nothing is not None and own > max([nothing, *chance]):
            found[name] = (own, nothing)
    return found


def _outputs(outcome: Outcome, further: Mapping[str, tuple[float, float]]) -> str:
    """Return on which examples the outputs have moved away; empty if on none."""
    if not further:
        return ""
    joined = "and" if outcome == "worse" else "yet"
    parts = (f"{after:.3g} (before {before:.3g}) on {name}" for name, (after, before) in further.items())
    return (
        f"; {joined} its outputs moved away from those of retraining, mean KL in nats {', '.join(parts)} "
        "examples"
    )


def _conclusion(outcome: Outcome, disparity: float, floor: float | None) -> str:
    """Return what follows if the forgetting and doing nothing cannot be told apart."""
    if outcome != "within-floor":
        return ""
    if disparity <= (floor or 0.0):
        return ", so that this audit cannot tell whether anything was forgotten"
    return ", so that the forgetting did not help"


def _of(with_mia: float | None, counts_mia: bool) -> str:
    """Return the figures that the disparity is the mean of."""
    if counts_mia:
        return ""
    if with_mia is None:
        return " over UA, RA and TA"
    return f" over UA, RA and TA, as the membership attacker only guesses (with MIA {with_mia:.2f})"


def _against_floor(disparity: float, floor: float | None) -> str:
    if floor is None:
        return "without a second retraining to say what chance alone does (audit.seeds)"
    inside = "; it is as close as another retraining" if disparity <= floor else ""
    return f"a second retraining {floor:.2f}{inside}"


def _backdoor(before: Measurement, after: Measurement, retrained: Measurement) -> str:
    """Return how much of a backdoor is left; empty if it is no more than in the retrained model."""
    left, allowed = after.attack_success_rate, retrained.attack_success_rate
    if before.attack_success_rate is None or left is None or allowed is None:
        return ""
    if left <= allowed + BACKDOOR_POINTS:
        return ""
    return f"; the backdoor still works on {left:.1f} % of the images (retrained: {allowed:.1f} %)"
