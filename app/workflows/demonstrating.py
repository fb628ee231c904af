"""The demo: trains, forgets and audits on embedded data, in one go."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.config.run_config import RunConfig
from app.forgettings.folder import read_audit
from app.report.page import write_report
from app.workflows.forgetting import audit, choose_method, forget
from app.workflows.observer import Observer
from app.workflows.session import Session
from app.workflows.training import train
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest

DEMO = ("attack.kind=backdoor", "attack.clients=3")
"""The demo's overrides of the defaults: one poisoned client."""


@dataclass(frozen=True)
class DemoResult:
    """The outcome of the demo: the run, its audit, and the report."""

    folder: RunFolder
    audit: dict[str, Any]
    report: Path


def demo(observer: Observer | None = None, overrides: Sequence[str] = ()) -> DemoResult:
    """Train with a poisoned client, forget it and audit the forgetting, in one process tree."""
    session = Session.of(RunConfig().with_overrides([*DEMO, *overrides]))
    config = session.config
    request = ForgetRequest(clients=session.attackers)
    with session.local_grid() as grid:
        folder = train(config, observer, grid)
        settings = choose_method(folder, request, config.forget)
        name = forget(folder, request, settings, observer, grid)
        audit(folder, request, [settings.method], config.audit, observer, grid)
    return DemoResult(folder, read_audit(folder.forget_folder(name)) or {}, write_report(folder))
