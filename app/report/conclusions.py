"""What a comparison of methods decides, in plain sentences: for terminal, report and JSON alike."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.report.wording import count, gap, listed

_AGAINST = {
    "nothing": (
        "Closer to retraining than doing nothing",
        "Further from retraining than doing nothing",
        "Not decided against doing nothing",
    ),
    "floor": (
        "Closer to retraining than a retraining with another seed",
        "Further from retraining than a retraining with another seed",
        "Not decided against a retraining with another seed",
    ),
}
"""Family -> what is said of methods that are closer, further, or undecided."""
_UNTESTED = {
    "nothing": "Not tested against doing nothing",
    "floor": "Not tested against a retraining with another seed",
}
"""Family -> what is said of methods whose values allow no interval."""
_OUTCOMES = ("closer", "further", "undecided")
_MOST_SAID = 12
"""Methods that a sentence names at most."""


def conclusions(decisions: Mapping[str, Any]) -> list[str]:
    """Return what is decided in sentences, from ``decisions`` in ``compare/<request>.json``.

    >>> conclusions({"seeds": 1, "nothing": [], "floor": [], "pairs": []})
    ['One training seed decides nothing: lethe compare --seeds 5 trains on four more.']
    """
    if decisions["seeds"] < 2:
        return ["One training seed decides nothing: lethe compare --seeds 5 trains on four more."]
    said = [
        *_of_family("nothing", decisions),
        *_of_family("floor", decisions),
        *_of_pairs(decisions["pairs"]),
    ]
    if not decisions["floor"]:
        said.append("There is no floor: audit.seeds = 1 would retrain with another seed.")
    said.append(
        f"Decided means: a paired t-test over {decisions['seeds']} training seeds, by Holm's correction over "
        "the methods, at the level of 5 %; where all differences are equal, the sign test. p is corrected "
        "so; an interval is of its method alone, and may leave out 0 where nothing is decided."
    )
    return said


def _of_family(name: str, decisions: Mapping[str, Any]) -> Iterator[str]:
    tested = [each for each in decisions[name] if each["low"] is not None]
    for outcome, words in zip(_OUTCOMES, _AGAINST[name], strict=True):
        yield from _sentence(words, [each for each in tested if each["outcome"] == outcome])
    yield from _sentence(_UNTESTED[name], [each for each in decisions[name] if each not in tested])


def _sentence(words: str, found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if found:
        yield f"{words}: {_shortened([_with_difference(each) for each in found])}."


def _with_difference(decision: Mapping[str, Any]) -> str:
    """Return a method with its difference from the other, in points.

    >>> found = {"method": "a", "difference": -2.0, "low": -3.0, "high": -1.0, "p_value": 0.0613}
    >>> _with_difference({**found, "values": []})
    'a (by −2.0, 95 %: −3.0 to −1.0, p = 0.061)'
    """
    method, low, high = (decision[key] for key in ("method", "low", "high"))
    if low is not None and high is not None:
        p_value = f", p = {decision['p_value']:.2g}" if decision.get("p_value") is not None else ""
        return f"{method} (by {gap(decision['difference'])}, 95 %: {gap(low)} to {gap(high)}{p_value})"
    values = decision["values"]
    if len(values) < 2:
        return f"{method} (measured on {count(len(values), 'seed')})"
    return f"{method} (in two groups: {listed(gap(value) for value in values)})"


def _of_pairs(pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield which methods are closer to retraining than which, one sentence for each."""
    if not pairs:
        return
    beaten: dict[str, list[str]] = {}
    for each in pairs:
        first, second = each["method"], each["against"]
        if each["outcome"] != "undecided":
            better, worse = (first, second) if each["outcome"] == "closer" else (second, first)
            beaten.setdefault(better, []).append(worse)
    if not beaten:
        yield "No method is decidedly closer to retraining than another."
        return
    for better, worse in sorted(beaten.items(), key=lambda item: -len(item[1])):
        yield f"{better} is closer to retraining than {_shortened(worse)}."
    decided = sum(map(len, beaten.values()))
    if len(pairs) > 1:
        verb = "is" if decided == 1 else "are"
        yield f"Decided {verb} {decided} of {count(len(pairs), 'pair')} of methods."


def _shortened(words: Sequence[str]) -> str:
    """Return a list of methods, of which the last may only be counted."""
    more = len(words) - _MOST_SAID
    shown = list(words) if more <= 0 else [*words[:_MOST_SAID], f"{more} more"]
    return listed(shown)
