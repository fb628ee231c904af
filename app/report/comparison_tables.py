"""A comparison of methods, as in ``compare/<request>.json``, in tables: for terminal and report alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from app.report import wording
from app.report.tables import NumberTable, Row
from app.report.wording import COLUMNS, MISSING, capital, subject

Figures = Mapping[str, Mapping[str, Any]]
"""What is known of every figure of a model over the seeds, as in ``compare/<request>.json``."""

RETRAINED = "retrained"
FLOOR = "floor"
"""What the retrainings with other seeds are called in tables."""
OTHER_SEED = "retrain-other-seed"
"""Name among the methods of the retrainings that differ from the reference by chance alone (``audit.seeds``):
the scale for all the others, and no method."""
RATES = ("unlearning_accuracy", "mia_efficacy", "retain_accuracy", "test_accuracy", "attack_success_rate")
"""The five figures that a method is judged by."""
SHORT = {column.key: column.short for column in COLUMNS}

_DISPARITY_NAMES = {"disparity": "with MIA", "disparity_without_mia": "without MIA"}
_HALF = " (± half the 95 % interval over the seeds, Student's t)"
_OF_DISTANCES = "Distance to retrained of outputs, in nats, and of parameters, as a share of that before."
_OF_FURTHER = "Worst of the remaining clients; rounds to relearn, as a share of retrained's."
_KINDS = ("poisoned", "hard", "clean")
_DISTANCES = {
    "output_distance_forget": ("KL on forgotten", 3),
    "output_distance_retain": ("KL on retained", 3),
    "output_distance_test": ("KL on test", 3),
    "parameter_distance": ("parameters", 2),
}
_FURTHER = {"worst_client_accuracy": ("worst client, %", 1), "relearn_effort": ("relearn effort", 2)}
"""Name and digits; both in a table of 80 characters."""


@dataclass(frozen=True)
class Table:
    """A table of numbers: its caption, its columns, and its rows, the model's name first."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def on_page(self) -> NumberTable:
        """Return it as a table of the page."""
        rows = tuple(Row(name, cells) for name, *rest in self.rows for cells in [tuple(rest)])
        return NumberTable(self.caption, "model", self.columns, rows)


def mean_of(figures: Figures, key: str) -> float | None:
    """Return a figure's mean over the seeds, or the median of values in two groups; None if not measured.

    >>> mean_of({"x": {"mean": None, "listed": True, "values": [[80.0], [7.0], [82.0]]}}, "x")
    80.0
    """
    found = figures.get(key) or {}
    values = [value for of in found.get("values") or () for value in of]
    if found.get("listed") and values:
        return float(median(values))
    mean: float | None = found.get("mean")
    return mean


def disparity_of(document: Mapping[str, Any]) -> str:
    """Return the key of the disparity that counts: without MIA if its attacker only guesses.

    A comparison from before this was kept has one disparity.

    >>> disparity_of({"mia_counts": False}), disparity_of({})
    ('disparity_without_mia', 'disparity')
    """
    return "disparity" if document.get("mia_counts", True) else "disparity_without_mia"


def models(document: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the models that methods are compared with, then the methods, smallest disparity first.

    The floor is the retrainings with other seeds, where there are any.
    """
    methods: Mapping[str, Figures] = document["methods"]

    def key(name: str) -> tuple[bool, float, str]:
        disparity = mean_of(methods[name], disparity_of(document))
        return disparity is None, disparity or 0.0, name

    ordered = {name: methods[name] for name in sorted(methods.keys() - {OTHER_SEED}, key=key)}
    floor = {FLOOR: methods[OTHER_SEED]} if OTHER_SEED in methods else {}
    return {"before": document["before"], RETRAINED: document["retrain"], **floor, **ordered}


def title(document: Mapping[str, Any]) -> str:
    """Return the title of a comparison."""
    methods = wording.count(len(document["methods"].keys() - {OTHER_SEED}), "method")
    return f"{capital(subject(document['request']))}{_pruned(document['settings'])}: {methods} compared"


def _pruned(settings: Mapping[str, Any]) -> str:
    """Return how the runs were pruned, in words; empty if they were not."""
    how = settings["prune"]
    return "" if how == "none" else f", {100 * settings['sparsity']:g} % pruned ({how})"


def over(document: Mapping[str, Any]) -> str:
    """Return which runs the numbers are taken over."""
    seeds, times = document["seeds"], document.get("forgettings", 1)
    several = f", {times} forgettings by each method on each" if times > 1 else ""
    if len(seeds) == 1:
        return f"One run with one seed ({seeds[0]}){several}: differences of a point or so may be chance"
    runs = f"{len(seeds)} runs with seeds {wording.listed(map(str, seeds))}"
    return f"Mean ± standard deviation over {runs}{several}"


def tables(document: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return the tables of disparities, rates, rates by kind of example, gaps, distances and costs."""
    found = models(document)
    made = (
        _disparities(document, found),
        _rates(found),
        _apart(found),
        _gaps(found, len(document["seeds"])),
        _single_examples(found),
        _of_figures(_OF_DISTANCES, _DISTANCES, found),
        _of_figures(_OF_FURTHER, _FURTHER, found),
        _costs(found),
    )
    return tuple(table for table in made if table.columns)


def _disparities(document: Mapping[str, Any], found: Mapping[str, Figures]) -> Table:
    key = disparity_of(document)
    other = next(each for each in _DISPARITY_NAMES if each != key)
    columns = ["disparity", "of nothing", "less nothing", _DISPARITY_NAMES[other]]
    split = document.get("forgettings", 1) > 1
    rows = []
    for name, figures in found.items():
        spread = figures.get(key) or {}
        ratio, less = (figures.get(f"{key}{end}") for end in ("_ratio", "_difference"))
        cells = [
            wording.spread(spread),
            wording.spread(ratio, 2),
            interval(less),
            wording.spread(figures.get(other)),
        ]
        parts = [wording.number(spread.get(f"std_{part}")) for part in ("training", "forgetting")]
        rows.append((name, *cells, *(parts if split else ())))
    mia = ", and MIA" if key == "disparity" else "; MIA is left out, as its attacker only guesses"
    caption = (
        f"Disparity: mean distance to retrained over UA, RA and TA{mia}, points. Beside it as a share of "
        f"that of doing nothing, and less that{_HALF}."
    )
    if split:
        columns += ["± training", "± forgetting"]
        caption += " Its spread over training seeds, and over forgettings of one trained model."
    if FLOOR not in found:
        caption += " There is no floor (audit.seeds)."
    return Table(caption, tuple(columns), tuple(rows))


def interval(spread: Mapping[str, Any] | None, digits: int = 1) -> str:
    """Return a mean gap with half its 95 % interval, or the values where they lie in two groups.

    >>> interval({"mean": -1.0, "low": -1.75, "high": -0.25}), interval({"mean": 2.0}), interval(None)
    ('−1.0 ± 0.8', '+2.0', '–')
    """
    found = spread or {}
    if found.get("listed"):
        return wording.spread(found)
    mean, low, high = (found.get(key) for key in ("mean", "low", "high"))
    if mean is None:
        return MISSING
    around = "" if low is None or high is None else f" ± {wording.number((high - low) / 2, digits)}"
    return f"{wording.gap(mean, digits)}{around}"


def _rates(found: Mapping[str, Figures]) -> Table:
    caption = "Rates, %. Values that lie in two groups are listed, in place of a mean that is near none."
    rows = tuple(
        (name, *(wording.spread(figures.get(key)) for key in RATES)) for name, figures in found.items()
    )
    return Table(caption, tuple(SHORT[key] for key in RATES), rows)


def _apart(found: Mapping[str, Figures]) -> Table:
    """Return the rates of poisoned or hard and of clean examples apart; without columns where none are."""
    names = {f"{key}_{kind}": f"{SHORT[key]} {kind}" for key in wording.APART for kind in _KINDS}
    names.pop("attack_success_rate_poisoned")  # It is that of all triggered images, which is ASR
    keys = [key for key in names if any(mean_of(figures, key) is not None for figures in found.values())]
    caption = "The forgotten examples by kind, %; ASR of clean ones is over test images without the trigger."
    rows = tuple(
        (name, *(wording.spread(figures.get(key)) for key in keys)) for name, figures in found.items()
    )
    return Table(caption, tuple(names[key] for key in keys), rows)


def _gaps(found: Mapping[str, Figures], num_seeds: int) -> Table:
    caption = "Gap to retrained, paired by seed, points"
    caption += f"{_HALF}." if num_seeds > 1 else "; one seed has no interval."
    rows = tuple(
        (name, *(interval(figures.get(f"{key}_gap")) for key in RATES))
        for name, figures in found.items()
        if name != RETRAINED
    )
    return Table(caption, tuple(SHORT[key] for key in RATES), rows)


def _single_examples(found: Mapping[str, Figures]) -> Table:
    """Return what an attack on single examples finds; without columns where it could not be tried."""
    areas = {name: figures.get("rmia_area") for name, figures in found.items()}
    if all(mean_of(figures, "rmia_area") is None for figures in found.values()):
        return Table("", (), ())
    gaps = {name: figures.get("rmia_area_gap") for name, figures in found.items() if name != RETRAINED}
    rows = tuple(
        (name, wording.spread(area, 2), interval(gaps[name], 2) if name in gaps else MISSING)
        for name, area in areas.items()
    )
    caption = (
        "Attack on single examples (RMIA, with the second retraining as reference), area under the curve: "
        "guessing gives 0.5, but what counts is the gap to retrained."
    )
    return Table(caption, ("area", "gap to retrained"), rows)


def _of_figures(caption: str, figures: Mapping[str, tuple[str, int]], found: Mapping[str, Figures]) -> Table:
    rows = (
        (name, *(wording.spread(known.get(key), digits) for key, (_, digits) in figures.items()))
        for name, known in found.items()
    )
    return Table(caption, tuple(name for name, _ in figures.values()), tuple(rows))


def _costs(found: Mapping[str, Figures]) -> Table:
    columns: Mapping[str, tuple[str, Callable[[float], str]]] = {
        "seconds": ("seconds", wording.seconds),
        "seconds_ratio": ("of retraining", lambda value: f"{value:.2g} ×"),
        "client_visits": ("visits", lambda value: f"{value:,.0f}"),
        "bytes_up": ("up", wording.size),
        "bytes_down": ("down", wording.size),
        "log_bytes": ("update log", wording.size),
    }
    rows = []
    for name, figures in found.items():
        means = ((mean_of(figures, key), words) for key, (_, words) in columns.items())
        rows.append((name, *(MISSING if mean is None else words(mean) for mean, words in means)))
    caption = (
        "What it took: visits to clients, bytes from them (up) and to them (down), and how much of an update "
        "log the server must keep for it."
    )
    return Table(caption, tuple(name for name, _ in columns.values()), tuple(rows))
