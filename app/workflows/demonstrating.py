"""The demo: trains, forgets and audits on embedded data, in one go.

One run serves both halves: a poisoned client is forgotten in it, and an honest one that holds a few examples
that a model can only know by heart.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from app.config.run_config import RunConfig
from app.forgettings.folder import read_audit
from app.report.page import write_report
from app.workflows.forgetting import audit, choose_method, forget
from app.workflows.observer import Observer
from app.workflows.session import Session
from app.workflows.training import train
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest

DEMO = (
    "attack.kind=backdoor",
    "attack.clients=3",
    "hard.kind=rare",
    "hard.clients=5",
    "hard.examples=30",
)
"""The demo's overrides of the defaults: one poisoned client, and an honest one with a few rare examples."""


@dataclass(frozen=True)
class DemoResult:
    """The outcome of the demo.

    Attributes
    ----------
    folder : RunFolder
        The run.
    audits : mapping of str to mapping
        ``audit.json`` of each half, by the name of its forgetting.
    report : Path
        The run's report.
    """

    folder: RunFolder
    audits: Mapping[str, dict[str, Any]]
    report: Path


def demo(observer: Observer | None = None, overrides: Sequence[str] = ()) -> DemoResult:
    """Train with a poisoned and a hard client, forget each and audit that, in one process tree.

    Unless ``audit.seeds`` says otherwise, only the honest client is retrained with another seed, too: what is
    left of a poisoned one is not of the size of chance.
    """
    session = Session.of(RunConfig().with_overrides([*DEMO, *overrides]))
    config, names = session.config, []
    no_floor = config.audit.model_copy(update={"seeds": max(config.audit.seeds, 0)})
    halves = ((session.attackers, no_floor), (config.hard.client_ids, config.audit))
    with ThreadPoolExecutor(max_workers=1) as beside, session.local_grid() as grid:
        ready = beside.submit(_import_ahead)
        folder = train(config, observer, grid)
        ready.result()
        for clients, settings in halves:
            request = ForgetRequest(clients=clients)
            chosen = choose_method(folder, request, config.forget)
            names.append(forget(folder, request, chosen, observer, grid))
            audit(folder, request, [chosen.method], settings, observer, grid)
    audits = {name: read_audit(folder.forget_folder(name)) or {} for name in names}
    return DemoResult(folder, audits, write_report(folder))


def _import_ahead() -> None:
    """Import what forgetting and audits need, while this process waits for that of the clients to start."""
    torch.optim.SGD([torch.zeros(1)])  # The first optimiser imports torch's compiler
    for name in ("sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing"):
        import_module(name)
