"""An audit's results for each method: its document, and triggered images with the models' predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from app.report.triggered import TriggeredImage
from app.workflows import other_seeds
from strategies.client.backdoor import triggered_test
from strategies.client.evaluation import outputs_of
from strategies.task import Task
from unlearning.audit.audit import AuditReport
from unlearning.audit.relearning import Relearned
from unlearning.audit.rounding import Rounded, by_bits
from unlearning.audit.shadow_attack import ShadowFindings
from unlearning.audit.single_examples import attack_single_examples
from unlearning.audit.verdict import Verdict, verdict
from unlearning.run import TrainedRun

_KEPT = {"shadows": "the attack with shadow models", "relearned": "relearning"}
IMAGES_SHOWN = 10
"""Triggered test images that an audit keeps for the report."""


@dataclass(frozen=True)
class Tries:
    """What was tried on a method's model besides measuring it.

    Parameters
    ----------
    shadows
        What shadow models tell; None: there were none.
    rounded
        What was measured of the models with rounded weights, by model.
    relearned
        How fast the forgotten was relearned; None: that was not tried.
    """

    shadows: ShadowFindings | None = None
    rounded: Mapping[str, Sequence[Rounded]] = field(default_factory=dict)
    relearned: Relearned | None = None


def method_audit(report: AuditReport, method: str, task: Task, tries: Tries | None = None) -> dict[str, Any]:
    """Return one method's part of an audit: before, after, retrained, gaps, limits of the conclusions."""
    tries = tries or Tries()
    document = report.to_json()
    models, comparison = document["models"], document["comparisons"][method]
    columns = {"before": "before", "after": method, "retrain": "retrain"}
    return {
        "request": document["request"],
        "method": method,
        **{column: {**models[name], "seconds": report.seconds[name]} for column, name in columns.items()},
        "gaps": comparison["gaps"],
        "disparity": comparison["disparity"],
        "disparity_without_mia": comparison["disparity_without_mia"],
        "verdict": _verdict(report, method).to_json(),
        "comparison": comparison,
        "single-examples": _single_examples(report, method, task),
        "shadows": None if tries.shadows is None else tries.shadows.to_json(),
        "rounded": by_bits(tries.rounded, columns),
        "relearned": None if tries.relearned is None else tries.relearned.to_json(),
        "scale": other_seeds.scale(report),
        "notes": document["notes"],
        "earlier": [_earlier(each, columns) for each in document["earlier"]],
    }


def with_earlier(document: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return an audit with what an earlier one of the same model found by attacks that told nothing now.

    They tell nothing where no client that holds something to be forgotten answers, as after it left; what was
    found against a forgetting is not to be lost by that. A note says what is of the earlier audit.
    """
    found = {
        key: earlier[key]
        for key in _KEPT
        if earlier is not None and document[key] is None and earlier.get(key) is not None
    }
    notes = [
        f"{_KEPT[key]} told nothing this time, as no client that holds what was forgotten answered: what is "
        "said of it is what an earlier audit found"
        for key in found
    ]
    return {**document, **found, "notes": [*document["notes"], *notes]}


def _verdict(report: AuditReport, method: str) -> Verdict:
    found = {n: (c.disparity, c.disparity_without_mia) for n, c in report.comparisons.items()}
    floors = {name: both for name, both in found.items() if name.startswith(other_seeds.PREFIX)}
    return verdict(found, floors, report.measurements, ("before", method, report.reference))


def _single_examples(report: AuditReport, method: str, task: Task) -> dict[str, Any] | None:
    margins = {name: measured.margins for name, measured in report.measurements.items()}
    others = [name for name in margins if name.startswith(other_seeds.PREFIX)]
    names = ("before", method, report.reference)
    found = attack_single_examples(margins, names, others, task, seed=0)
    return None if found is None else found.to_json()


def _earlier(document: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return how well a method kept an earlier request served."""
    models = {column: document["models"][name] for column, name in columns.items()}
    return {"request": document["request"], **models, "gaps": document["gaps"][columns["after"]]}


def triggered_images(run: TrainedRun, models: Mapping[str, Tensor]) -> list[TriggeredImage]:
    """Return a few triggered test images with each model's prediction; empty if there was no attack."""
    if run.trigger is None or run.test is None or run.client_models:
        return []
    triggered = triggered_test(run.test, run.trigger)
    triggered = triggered.subset(
        range(0, len(triggered), max(1, len(triggered) // IMAGES_SHOWN))[:IMAGES_SHOWN]
    )
    called = {}
    for name, flat in models.items():
        with run.lent(flat) as model:
            called[name] = run.task.predict(outputs_of(model, triggered, task=run.task))
    return [
        TriggeredImage(
            triggered.x[i].numpy(), int(triggered.y[i]), {name: int(c[i]) for name, c in called.items()}
        )
        for i in range(len(triggered))
    ]
