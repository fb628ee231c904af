"""The workflows from end to end: train, resume, forget, purge, audit, compare, remove, demo.

Each takes a grid or, without one, starts the clients in this process tree; each writes into the run's folder
and reports its progress to an observer. A workflow is imported when it is first asked for: most import torch,
for which a list of runs should not wait.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.workflows.analytics import analyse
    from app.workflows.comparing import ComparisonPlan, compare
    from app.workflows.continuing import find_place, go_on
    from app.workflows.demonstrating import DemoResult, demo
    from app.workflows.family import tree_of_runs
    from app.workflows.forgetting import audit, choose_method, forget
    from app.workflows.listing import list_runs
    from app.workflows.observer import Observer, Quiet
    from app.workflows.purging import check_purge, purge
    from app.workflows.removing import find_removable, remove, run_contents
    from app.workflows.serving import serve
    from app.workflows.standard_cases import standard_requests
    from app.workflows.suspecting import suspects
    from app.workflows.training import resume, train

__all__ = [
    "ComparisonPlan",
    "DemoResult",
    "Observer",
    "Quiet",
    "analyse",
    "audit",
    "check_purge",
    "choose_method",
    "compare",
    "demo",
    "find_place",
    "find_removable",
    "forget",
    "go_on",
    "list_runs",
    "purge",
    "remove",
    "resume",
    "run_contents",
    "serve",
    "standard_requests",
    "suspects",
    "train",
    "tree_of_runs",
]
_PARTS = {
    "analytics": ("analyse",),
    "comparing": ("ComparisonPlan", "compare"),
    "continuing": ("find_place", "go_on"),
    "demonstrating": ("DemoResult", "demo"),
    "family": ("tree_of_runs",),
    "forgetting": ("audit", "choose_method", "forget"),
    "listing": ("list_runs",),
    "observer": ("Observer", "Quiet"),
    "purging": ("check_purge", "purge"),
    "removing": ("find_removable", "remove", "run_contents"),
    "serving": ("serve",),
    "standard_cases": ("standard_requests",),
    "suspecting": ("suspects",),
    "training": ("resume", "train"),
}


def __getattr__(name: str) -> Any:
    """Return a workflow, importing the module that has it."""
    for part, names in _PARTS.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(f"{__name__}.{part}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
