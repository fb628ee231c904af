"""A comparison of methods, as in ``compare/<request>.json``, in tables: for terminal and report alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.report import wording
from app.report.tables import NumberTable, Row
from app.report.wording import COLUMNS, MISSING, capital, subject

Figures = Mapping[str, Mapping[str, float | None]]
"""Mean and standard deviation of every figure of a model."""

RETRAINED = "retrained"
OTHER_SEED = "retrain-other-seed"
"""Name among the methods of the retrainings that differ from the reference by chance alone (``audit.seeds``):
the scale for all the others, and no method."""
RATES = ("unlearning_accuracy", "mia_efficacy", "retain_accuracy", "test_accuracy", "attack_success_rate")
"""The five figures that a method is judged by."""
SHORT = {column.key: column.short for column in COLUMNS}

_DISTANCES = {
    "worst_client_accuracy": ("worst client, %", 1),
    "output_distance_forget": ("KL on forgotten", 3),
    "output_distance_retain": ("KL on retained", 3),
    "output_distance_test": ("KL on test", 3),
    "parameter_distance": ("parameters", 2),
    "relearn_effort": ("relearn effort", 2),
}
"""Name and digits."""


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
    """Return a figure's mean over the seeds; None if it was not measured."""
    return figures.get(key, {}).get("mean")


def disparity_of(document: Mapping[str, Any]) -> str:
    """Return the key of the disparity that counts: without MIA if its attacker only guesses.

    A comparison from before this was kept has one disparity.

    >>> disparity_of({"mia_counts": False}), disparity_of({})
    ('disparity_without_mia', 'disparity')
    """
    return "disparity" if document.get("mia_counts", True) else "disparity_without_mia"


def models(document: Mapping[str, Any]) -> dict[str, Figures]:
    """Return the models that methods are compared with, then the methods, smallest disparity first."""
    methods: Mapping[str, Figures] = document["methods"]

    def key(name: str) -> tuple[bool, float]:
        disparity = mean_of(methods[name], disparity_of(document))
        return disparity is None, disparity or 0.0

    ordered = {name: methods[name] for name in sorted(methods, key=key)}
    return {"before": document["before"], RETRAINED: document["retrain"], **ordered}


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
    seeds = document["seeds"]
    if len(seeds) == 1:
        return f"One run with one seed ({seeds[0]}): differences of a point or so may be chance"
    return f"Mean ± standard deviation over {len(seeds)} runs with seeds {wording.listed(map(str, seeds))}"


def tables(document: Mapping[str, Any]) -> tuple[Table, Table, Table]:
    """Return the tables of rates, of distances and of costs."""
    found = models(document)
    return _rates(found), _distances(found), _costs(found)


def _rates(found: Mapping[str, Figures]) -> Table:
    caption = (
        "In brackets the gap to retrained, in points; disparity is its mean size over UA, MIA, RA and TA, or "
        "without MIA, which counts where its attacker only guesses (see the notes)."
    )
    rows = []
    for name, figures in found.items():
        cells = (f"{wording.spread(figures.get(key))}{_gap(name, figures, key)}" for key in RATES)
        disparities = (wording.spread(figures.get(key)) for key in ("disparity", "disparity_without_mia"))
        rows.append((name, *disparities, *cells))
    return Table(caption, ("disparity", "without MIA", *(SHORT[key] for key in RATES)), tuple(rows))


def _gap(name: str, figures: Figures, key: str) -> str:
    mean = mean_of(figures, f"{key}_gap")
    return "" if mean is None or name == RETRAINED else f" ({wording.gap(mean)})"


def _distances(found: Mapping[str, Figures]) -> Table:
    caption = (
        "Worst of the remaining clients; distance to retrained of outputs, in nats, and of parameters, as a "
        "share of that before; rounds to relearn, as a share of retrained's."
    )
    rows = (
        (name, *(wording.spread(figures.get(key), digits) for key, (_, digits) in _DISTANCES.items()))
        for name, figures in found.items()
    )
    return Table(caption, tuple(name for name, _ in _DISTANCES.values()), tuple(rows))


def _costs(found: Mapping[str, Figures]) -> Table:
    columns: Mapping[str, tuple[str, Callable[[float], str]]] = {
        "seconds": ("seconds", wording.seconds),
        "seconds_ratio": ("of retraining", lambda value: f"{value:.2g} ×"),
        "client_visits": ("client visits", lambda value: f"{value:,.0f}"),
        "bytes_up": ("from clients", wording.size),
        "bytes_down": ("to clients", wording.size),
        "log_bytes": ("update log", wording.size),
    }
    rows = []
    for name, figures in found.items():
        means = ((mean_of(figures, key), words) for key, (_, words) in columns.items())
        rows.append((name, *(MISSING if mean is None else words(mean) for mean, words in means)))
    caption = "What it took, and how much of an update log the server must keep for it."
    return Table(caption, tuple(name for name, _ in columns.values()), tuple(rows))
