"""What an audit found of single examples and of kinds of them, as tables of a report."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.report.tables import NumberTable, Row
from app.report.wording import MISSING, apart

_SIDES = {
    "forgotten": "forgotten, after the method",
    "nothing": "forgotten, doing nothing",
    "retraining": "forgotten, retrained against retrained",
    "retained": "retained, after the method",
    "unseen": "never seen by any, after the method",
}
_COLUMNS = ("area under the curve", "balanced accuracy, %", "found at 1 % false, %", "at 5 %, %", "p-value")
_PERCENTILES = (("unlearned", "95"), ("unlearned", "99"), ("floor", "95"), ("floor", "99"))
_ACCURACIES = {"unlearning_accuracy": "UA", "retain_accuracy": "RA", "test_accuracy": "TA"}
_SETS = {"forget": "forgotten", "retain": "retained", "test": "test"}


def attack_tables(audit: Mapping[str, Any]) -> tuple[NumberTable, ...]:
    """Return the tables of an ``audit.json``; none where no attack was tried."""
    tables = (
        _apart(audit),
        _areas(audit),
        _shadows(audit),
        _by_themselves(audit),
        _divergences(audit),
        _exposed(audit),
        _rounded(audit),
        _relearned(audit),
    )
    return tuple(table for table in tables if table is not None and table.rows)


def _apart(audit: Mapping[str, Any]) -> NumberTable:
    rows = apart(audit, {"before": "before", "after": "after", "retrain": "retrained"})
    caption = (
        "The forgotten examples by kind, %; ASR of clean ones is the share of test images without the "
        "trigger that go to the target class all the same."
    )
    columns = ("examples", "UA", "MIA", "ASR")
    return NumberTable(
        caption, "forgotten", columns, tuple(Row(label, tuple(cells)) for label, *cells in rows)
    )


def _areas(audit: Mapping[str, Any]) -> NumberTable | None:
    single = audit.get("single-examples")
    if single is None:
        return None
    rows = [
        Row("RMIA, area under the curve (guessing: 0.5)", _cells(single, ("before", "area", "retrained"), 2)),
        Row(
            "the pair of models, balanced accuracy, % (guessing: 33.3)",
            (MISSING, *_cells(single, ("told_apart", "told_apart_retrained"), 1)),
        ),
    ]
    caption = "Attacks on single examples. What counts is how far after is from retrained."
    measured = tuple(row for row in rows if set(row.cells) != {MISSING})
    return NumberTable(caption, "attack", ("before", "after", "retrained"), measured)


def _shadows(audit: Mapping[str, Any]) -> NumberTable | None:
    shadows = audit.get("shadows")
    if shadows is None:
        return None
    rows = tuple(
        Row(label, tuple(_attack(shadows[key]))) for key, label in _SIDES.items() if shadows.get(key)
    )
    pairs = shadows["forgotten"]["pairs"]
    caption = (
        f"Examples told from never-seen ones by likelihood ratios of {pairs} pairs of shadow models, "
        "with 95 % intervals over the pairs. 0.5 and 50 % are guessing. The p-value is that of the area and "
        "of the example that is told best, whichever is smaller, for both together."
    )
    columns = (
        "area under the curve",
        "balanced accuracy, %",
        "found at 1 % false, %",
        "at 5 %, %",
        "p-value",
    )
    return NumberTable(caption, "examples", columns, rows)


def _by_themselves(audit: Mapping[str, Any]) -> NumberTable | None:
    found = (audit.get("shadows") or {}).get("by-client") or {}
    rows = tuple(
        Row(
            f"client {client_id}",
            (str(each["examples"]), _rate(each["area"], 1.0, 2), f"{each['p_value']:.3f}", each["outcome"]),
        )
        for client_id, each in found.items()
    )
    caption = (
        "Each client's forgotten examples, attacked by the client itself, which told the server these "
        "figures and nothing of single examples. The table before is of the client that is told best."
    )
    columns = ("forgotten examples", "area under the curve", "p-value", "outcome")
    return NumberTable(caption, "whose", columns, rows, texts=("outcome",))


def _attack(found: Mapping[str, Any]) -> Iterator[str]:
    yield _rate(found["area"], 1.0, 2)
    yield _rate(found["accuracy"], 100.0, 0)
    for share in ("0.01", "0.05"):
        yield _rate(found[f"true-positives-at-{share}"], 100.0, 0)
    yield f"{found['p_value']:.3f}"


def _divergences(audit: Mapping[str, Any]) -> NumberTable | None:
    found = (audit.get("shadows") or {}).get("divergences") or {}
    known = {name: each for name, each in found.items() if each}
    if not known:
        return None
    models = next(iter(known.values()))["models"]
    rows = tuple(
        Row(
            _SETS[name],
            tuple(f"{each[side][p]:.2f}" for side in ("unlearned", "floor") for p in ("95", "99")),
        )
        for name, each in known.items()
    )
    caption = (
        f"Divergence of the margins' laws from those of retraining (KLoM), from {models} models a side: "
        "percentiles over the examples, nats. The floor is that of retrained models among themselves."
    )
    return NumberTable(caption, "examples", ("95th", "99th", "floor, 95th", "floor, 99th"), rows)


def _exposed(audit: Mapping[str, Any]) -> NumberTable | None:
    found = (audit.get("shadows") or {}).get("most-exposed") or ()
    rows = tuple(
        Row(
            f"{each['position']} of client {each['client']}",
            (f"{each['effect']:.1f}", "known" if each["direction"] > 0 else "known less than unseen"),
        )
        for each in found
    )
    caption = "The forgotten examples that can be told best, and how far their two laws lie apart."
    return NumberTable(caption, "example", ("standard deviations", "still"), rows, texts=("still",))


def _rounded(audit: Mapping[str, Any]) -> NumberTable | None:
    rows = tuple(
        Row(f"{name} at {bits} bits", _cells({c: found[c][key] for c in found}, tuple(found), 1))
        for bits, found in (audit.get("rounded") or {}).items()
        for key, name in _ACCURACIES.items()
    )
    caption = "Accuracies with the models' weights rounded, %: whether what was forgotten comes back."
    return NumberTable(caption, "figure", ("before", "after", "retrained"), rows)


def _relearned(audit: Mapping[str, Any]) -> NumberTable | None:
    found = audit.get("relearned")
    if found is None:
        return None
    rounds = (
        f"> {found['most']}" if found[key] is None else str(found[key]) for key in ("after", "retrained")
    )
    caption = (
        "Rounds with the forgotten data back until the model knows them as the one before did; a model that "
        "only hides them takes fewer than the retrained one."
    )
    row = Row("rounds to relearn", tuple(rounds))
    return NumberTable(caption, "attack", ("after", "retrained"), (row,))


def _cells(values: Mapping[str, Any], keys: tuple[str, ...], digits: int) -> tuple[str, ...]:
    return tuple(MISSING if values.get(key) is None else f"{values[key]:.{digits}f}" for key in keys)


def _rate(found: Mapping[str, Any] | None, factor: float, digits: int) -> str:
    """Return a figure with its interval.

    >>> _rate({"value": 0.634, "low": 0.6, "high": 0.7}, 1.0, 2)
    '0.63 (0.60 to 0.70)'
    """
    if found is None:
        return MISSING
    value, low, high = (f"{factor * found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
