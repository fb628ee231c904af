"""Rows of `benchmarks.default`: what is kept of a model, what an attack says of a method, and the rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.figures import paired
from benchmarks.forgetting import ATTACKER
from strategies.core.errors import LetheError
from strategies.core.seeds import numpy_generator
from unlearning.audit.likelihood_ratio import Rate, likelihood_ratios
from unlearning.audit.margins import Margins
from unlearning.audit.roc import Scores
from unlearning.audit.shadow_attack import Baselines, ShadowPair, findings

BEFORE, RETRAIN = "before", "retrain"
FALSE_POSITIVES = 0.05
_MOST_OTHERS = 500
"""Retained and test examples that are attacked."""
_DIGITS = 5
"""Significant digits of a margin that is kept."""


def rule(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], speed: float, price: float
) -> dict[str, str | float | None]:
    """Return the method that the rule names, its worst distance, and the nearest at any speed.

    Parameters
    ----------
    tables
        The rows of each case; a method has to keep to the limits in all of them.
    speed, price
        The limits, see `Options`.
    """
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for table in tables.values() for row in table):
        by_method.setdefault(str(row["model"]), []).append(row)
    judged = {
        name: rows
        for name, rows in by_method.items()
        if name != BEFORE and len(rows) == len(tables) and all("distance" in row for row in rows)
    }
    worst = {name: max(row["distance"] for row in rows) for name, rows in judged.items()}
    able = [name for name in judged if all(_keeps(row, speed, price) for row in judged[name])]
    passing = [name for name in able if all(row["outcome"] == "passes" for row in judged[name])]
    return {
        "nearest": min(able, key=lambda name: worst[name], default=None),
        "distance": min((worst[name] for name in able), default=None),
        "passes in all cases": ", ".join(passing) or None,
        "nearest at any speed and price": min(worst, key=lambda name: worst[name], default=None),
    }


def _keeps(row: Mapping[str, Any], speed: float, price: float) -> bool:
    return bool(row["times faster"] >= speed and row["TA gap"] >= -price)


@dataclass(frozen=True)
class Measured:
    """What is kept of one model.

    Parameters
    ----------
    seconds
        That it took to make it, on the wall.
    accuracy
        On the test data, in percent.
    margins
        Of single examples.
    attack_success
        ASR in percent, of a run with a backdoor.
    """

    seconds: float
    accuracy: float
    margins: Margins
    attack_success: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        margins = self.margins
        return {
            "seconds": self.seconds,
            "accuracy": self.accuracy,
            "forgotten": {client: _short(values) for client, values in margins.forgotten.items()},
            "retained": _short(margins.retained),
            "unseen": _short(margins.unseen),
            "places": {client: values.tolist() for client, values in margins.places.items()},
            "attack success": self.attack_success,
        }

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Measured":
        """Read what `to_json` returned."""
        margins = Margins(
            {client: np.array(values) for client, values in document["forgotten"].items()},
            np.array(document["retained"]),
            np.array(document["unseen"]),
            {client: np.array(values, dtype=np.int64) for client, values in document["places"].items()},
        )
        return Measured(document["seconds"], document["accuracy"], margins, document.get("attack success"))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def row(
    name: str,
    found: Sequence[Measured | str],
    models: Sequence[Mapping[str, Measured | str]],
    marked: Tensor,
    seed: int,
    faster: float,
) -> dict[str, Any]:
    """Return what is known of one method, over pairs.

    Parameters
    ----------
    name
        Its name; of what it made.
    found
        What it left of each original.
    models
        All models of each pair, among them the originals and the retrained ones.
    marked
        Positions of the examples that are looked at once more by themselves.
    seed
        Draws permutations and bootstraps.
    faster
        How many times faster than retraining it is.
    """
    if failed := [each for each in found if isinstance(each, str)]:
        return {"model": name, "failed": failed[0]}
    ours = [each for each in found if isinstance(each, Measured)]
    before, theirs = ([_known(pair[model]) for pair in models] for model in (BEFORE, RETRAIN))
    return {
        "model": name,
        "times faster": round(faster, 1),
        **_against("TA", [each.accuracy for each in ours], [each.accuracy for each in theirs]),
        **_success(ours, theirs),
        **_attacked(before, ours, theirs, seed),
        **_attacked_marked(ours, theirs, marked, seed),
    }


def _success(ours: Sequence[Measured], theirs: Sequence[Measured]) -> dict[str, Any]:
    """Return ASR as `_against` has it; nothing where there is no backdoor."""
    rates = [
        [each.attack_success for each in side if each.attack_success is not None] for side in (ours, theirs)
    ]
    return _against("ASR", *rates) if len(rates[0]) == len(rates[1]) == len(ours) else {}


def _against(title: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the mean of a figure, and of its distance from retraining's, paired, with its 95 % interval."""
    gap = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    half = 0.0 if gap.high is None else gap.high - gap.mean
    return {
        title: round(float(np.mean(ours)), 2),
        f"{title} gap": round(gap.mean, 2),
        f"{title} gap ±": round(half, 2),
    }


def _known(found: Measured | str) -> Measured:
    if isinstance(found, str):
        raise LetheError(f"a model that all methods are compared with could not be made: {found}")
    return found


def _attacked(
    before: Sequence[Measured], ours: Sequence[Measured], theirs: Sequence[Measured], seed: int
) -> dict[str, Any]:
    pairs = [
        ShadowPair(a.margins, b.margins, c.margins) for a, b, c in zip(before, ours, theirs, strict=True)
    ]
    found = findings(pairs, None, Baselines(seed), most_others=_MOST_OTHERS)
    if found is None:
        raise LetheError("clients did not answer about enough of the models")
    area, rate = found.forgotten.area, found.forgotten.rates[FALSE_POSITIVES]
    return {
        "AUC": _told(area),
        "distance": round(max(abs(area.low - 0.5), abs(area.high - 0.5)), 4),
        "TPR at 5 %": None if rate is None else _told(rate),
        "p": found.forgotten.p_value,
        "outcome": found.outcome,
        "unseen AUC": None if found.unseen is None else _told(found.unseen.area),
        "retained AUC": None if found.retained is None else _told(found.retained.area),
        "floor AUC": None if found.retraining is None else _told(found.retraining.area),
        "KLoM 95": {
            part: None if each is None else [round(each.unlearned[95], 3), round(each.floor[95], 3)]
            for part, each in found.divergences.items()
        },
    }


def _attacked_marked(
    ours: Sequence[Measured], theirs: Sequence[Measured], marked: Tensor, seed: int
) -> dict[str, Any]:
    """Return the area of the marked examples and of the others of the client, each by themselves."""
    if not len(marked):
        return {}
    found: dict[str, Any] = {}
    for title, inside in (("marked", True), ("unmarked", False)):
        sides = [np.stack([_only(each.margins, marked, inside) for each in side]) for side in (ours, theirs)]
        attacked = likelihood_ratios(sides[0], sides[1], numpy_generator(seed, title))
        found |= {f"{title} AUC": _told(attacked.area), f"{title} p": attacked.p_value}
    return found


def _only(margins: Margins, marked: Tensor, inside: bool) -> Scores:
    """Return those of the marked, or of the other, examples of the client."""
    kept = np.isin(margins.places[ATTACKER], marked.numpy(), invert=not inside)
    chosen: Scores = margins.forgotten[ATTACKER][kept]
    return chosen


def _told(rate: Rate) -> list[float]:
    return [round(rate.value, 3), round(rate.low, 3), round(rate.high, 3)]
