"""Several methods against retraining, over several seeds: every figure of a model, and its mean and spread.

A figure is a number or None where it was not measured. Beside each stands its gap, ``<figure>_gap``: the
figure minus the retrained model's of the same seed, so that what the seeds have in common cancels out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from strategies.log.reading import LogReader
from unlearning.audit import metrics
from unlearning.audit.audit import AuditReport
from unlearning.traits.base import Needs

Figures = Mapping[str, float | None]
"""Figures of one model by name."""
Spread = Mapping[str, float | None]
"""``mean`` and ``std``: None where nothing was measured, and the latter where it was measured once only."""

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
GAP = "_gap"


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
    report: AuditReport, costs: Mapping[str, Cost], relearned: Mapping[str, int | None]
) -> dict[str, dict[str, float | None]]:
    """Return every figure of every model of a seed's audit, by model.

    `costs` are by model, the retrained one included; `relearned` holds rounds to relearn by model, and is
    empty if that was not measured.
    """
    own = {name: _own_figures(report, name, costs[name], relearned) for name in report.measurements}
    reference = own[report.reference]
    return {name: {**own[name], **_against(report, name, own[name], reference)} for name in own}


def _own_figures(
    report: AuditReport, name: str, cost: Cost, relearned: Mapping[str, int | None]
) -> dict[str, float | None]:
    measured = report.measurements[name]
    rounds = relearned.get(name)
    return {
        **{figure: getattr(measured, figure) for figure in MEASURED},
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


def summarised(samples: Sequence[Figures]) -> dict[str, Spread]:
    """Return mean and sample standard deviation of every figure over the seeds that have it.

    Examples
    --------
    >>> summarised([{"seconds": 1.0, "relearn_effort": None}, {"seconds": 3.0, "relearn_effort": 0.5}])
    {'seconds': {'mean': 2.0, 'std': 1.4142135623730951}, 'relearn_effort': {'mean': 0.5, 'std': None}}
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    values = {name: [v for s in samples if (v := s.get(name)) is not None] for name in names}
    return {
        name: {
            "mean": fmean(found) if found else None,
            "std": stdev(found) if len(found) > 1 else None,
        }
        for name, found in values.items()
    }
