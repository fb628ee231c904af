"""The demo: the main job on embedded data, in one go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config import RunConfig
from app.report import write_report
from app.session import Session
from app.workflows.forgetting import OpenedRun, method_audit
from app.workflows.observer import Observer
from app.workflows.training import train
from strategies.run_folder import RunFolder
from unlearning.request import ForgetRequest

DEMO = (
    "run.rounds=15",
    "data.clients=10",
    "data.public=0.2",
    "train.learning-rate=0.03",
    "train.local-epochs=3",
    "attack.kind=backdoor",
    "attack.clients=3",
)
"""What the demo sets apart from the defaults: digits, one poisoned client of ten."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves: the run, the table before / after / retrain, and the report."""

    folder: RunFolder
    table: dict[str, Any]
    report: Path


def demo(observer: Observer | None = None, overrides: Sequence[str] = ()) -> DemoResult:
    """Train with a poisoned client, forget it by distillation, retrain without it, compare and report."""
    config = RunConfig().with_overrides([*DEMO, *overrides])
    session = Session.of(config)
    request = ForgetRequest(clients=session.attackers)
    with session.local_grid() as grid:
        folder = train(config, observer, grid)
        opened = OpenedRun.of(folder, observer)
        with opened.session.cohort(grid) as cohort:
            cohort.tell(opened.observer.answered)
            opened.forget(request, "distill", config.forget, cohort)
            report = opened.audit(request, ["distill"], config.audit, cohort)
    table = method_audit(report, "distill")
    return DemoResult(
        folder, {key: table[key] for key in ("before", "after", "retrain")}, write_report(folder)
    )
