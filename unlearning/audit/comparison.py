"""Several methods against retraining, over several seeds: every figure of a model, and what is known of it.

A figure is a number or None where it was not measured. Beside each stands its gap, ``<figure>_gap``: the
figure minus the retrained model's of the same seed, so that what the seeds have in common cancels out. The
disparity also stands relative to that of the model before, which is what doing nothing gives: its
``_ratio`` and its ``_difference``, of the same seed, too.

A training seed may have several forgettings. They share the trained model, so means, deviations and intervals
are over the training seeds, each with the mean of its forgettings; the spread is split into the two.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

from strategies.log.reading import LogReader
from unlearning.audit import metrics
from unlearning.audit.apart import CLEAN, HARD, POISONED
from unlearning.audit.audit import ORIGINAL, AuditReport
from unlearning.audit.statistics import components, estimate, in_two_groups
from unlearning.traits.base import Needs

Figures = Mapping[str, float | None]
"""Figures of one model by name."""
Spread = Mapping[str, Any]
"""What is known of a figure over the seeds.

``values`` has a list for each training seed, of its forgettings. ``mean`` and ``std`` are None where nothing
was measured, the latter also where it was measured once only; ``low`` and ``high`` are the ends of the mean's
95 % interval (Student's t). Where the values lie in two groups, ``listed`` is true and all four are None.
``std_training`` and ``std_forgetting`` split the spread where there are several forgettings.
"""

MEASURED = (
    "unlearning_accuracy",
    "mia_efficacy",
    "retain_accuracy",
    "test_accuracy",
    "attack_success_rate",
    "worst_client_accuracy",
    "mean_client_accuracy",
)
"""Percentages of an audit's measurements."""
RMIA = "rmia_area"
GAP = "_gap"
DISPARITIES = ("disparity", "disparity_without_mia")
RATIO, DIFFERENCE = "_ratio", "_difference"
"""End the names of a disparity over that of doing nothing, and minus it."""
_APART = ("unlearning_accuracy", "mia_efficacy", "attack_success_rate")
_KINDS = (POISONED, HARD, CLEAN)


@dataclass(frozen=True)
class Cost:
    """What it took to make a model; None where it was not counted.

    Wall-clock in seconds, bytes from and to clients, messages that clients worked on, and the bytes of the
    update log that the server must keep for it.
    """

    seconds: float | None
    bytes_up: int | None = None
    bytes_down: int | None = None
    client_visits: int | None = None
    log_bytes: int | None = None


def log_bytes(log: LogReader | None, needs: Needs) -> int:
    """Return the size of the least update log of a run that serves a method.

    ``norms`` takes the index alone, ``sum`` one model per client besides, ``full`` the log as it is.
    """
    if log is None or needs.log == "none":
        return 0
    if needs.log == "full":
        return log.stored_bytes()
    index = sum(path.stat().st_size for path in log.path.iterdir() if path.is_file())  # updates lie deeper
    return index + (4 * log.layout.size * len(log.clients()) if needs.log == "sum" else 0)


def figures_of(
    report: AuditReport,
    costs: Mapping[str, Cost],
    relearned: Mapping[str, int | None],
    areas: Mapping[str, float | None] = MappingProxyType({}),
) -> dict[str, dict[str, float | None]]:
    """Return every figure of every model of a seed's audit, by model.

    `costs` are by model, the retrained one included; `relearned` holds rounds to relearn by model, and is
    empty if that was not measured; `areas` RMIA's areas under the curve, likewise.
    """
    own = {
        name: {**_own_figures(report, name, costs[name], relearned), RMIA: areas.get(name)}
        for name in report.measurements
    }
    reference = own[report.reference]
    return {
        name: {**own[name], **_against(report, name, own[name], reference), **_relative(report, name)}
        for name in own
    }


def _own_figures(
    report: AuditReport, name: str, cost: Cost, relearned: Mapping[str, int | None]
) -> dict[str, float | None]:
    measured = report.measurements[name]
    rounds = relearned.get(name)
    return {
        **{figure: getattr(measured, figure) for figure in MEASURED},
        **{
            f"{figure}_{kind}": getattr(measured.apart[kind], figure)
            for kind in _KINDS
            if kind in measured.apart
            for figure in _APART
        },
        **asdict(cost),
        "relearn_rounds": None if rounds is None else float(rounds),
    }


def _against(report: AuditReport, name: str, own: Figures, reference: Figures) -> dict[str, float | None]:
    comparison, distance = report.comparisons[name], report.measurements[name].output_distance
    rounds = [
        None if each["relearn_rounds"] is None else int(each["relearn_rounds"]) for each in (own, reference)
    ]
    seconds, retraining = own["seconds"], reference["seconds"]
    return {
        **{figure + GAP: metrics.gap(value, reference[figure]) for figure, value in own.items()},
        "disparity": comparison.disparity,
        "disparity_without_mia": comparison.disparity_without_mia,
        "output_distance_forget": distance.forget,
        "output_distance_retain": distance.retain,
        "output_distance_test": distance.test,
        "parameter_distance": comparison.parameter_distance,
        "last_layer_angle": comparison.last_layer_angle,
        "relearn_effort": metrics.relearn_effort(*rounds),
        "seconds_ratio": seconds / retraining if seconds is not None and retraining else None,
    }


def _relative(report: AuditReport, name: str) -> dict[str, float | None]:
    """Return the disparities relative to those of doing nothing."""
    found: dict[str, float | None] = {}
    for key in DISPARITIES:
        own, nothing = (getattr(report.comparisons[model], key) for model in (name, ORIGINAL))
        found[key + RATIO] = own / nothing if own is not None and nothing else None
        found[key + DIFFERENCE] = metrics.gap(own, nothing)
    return found


def _is_percentage(name: str) -> bool:
    """Say whether a figure is in percent, or in points: its values may lie in two groups."""
    return name.startswith((*MEASURED, *DISPARITIES)) and not name.endswith(RATIO)


def summarised(samples: Iterable[Iterable[Figures]]) -> dict[str, Spread]:
    """Return what is known of every figure over training seeds, and the forgettings of each.

    Examples
    --------
    >>> found = summarised([[{"seconds": 1.0, "effort": None}], [{"seconds": 3.0, "effort": 0.5}]])
    >>> found["seconds"]["mean"], found["seconds"]["std"], found["seconds"]["values"]
    (2.0, 1.4142135623730951, [[1.0], [3.0]])
    >>> found["effort"]["mean"], found["effort"]["std"]
    (0.5, None)
    """
    listed = [list(of) for of in samples]
    names = dict.fromkeys(name for of in listed for sample in of for name in sample)
    return {name: dict(_spread(name, listed)) for name in names}


def _spread(name: str, samples: Iterable[Iterable[Figures]]) -> Iterator[tuple[str, Any]]:
    values = [[v for sample in of if (v := sample.get(name)) is not None] for of in samples]
    values = [found for found in values if found]
    flat = [value for found in values for value in found]
    apart = _is_percentage(name) and in_two_groups(flat)
    means = [fmean(found) for found in values]
    interval = None if apart else estimate(means)
    yield "mean", fmean(means) if means and not apart else None
    spreading = means if len(means) > 1 else flat
    yield "std", stdev(spreading) if len(spreading) > 1 and not apart else None
    yield "low", None if interval is None else interval.low
    yield "high", None if interval is None else interval.high
    yield "values", values
    yield "listed", apart
    if any(len(found) > 1 for found in values):
        between, within = (None, None) if apart else components(values)
        yield "std_training", between
        yield "std_forgetting", within
