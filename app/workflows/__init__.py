"""The workflows from end to end: train, resume, forget, purge, audit, compare, remove, demo.

Each takes a grid or, without one, starts the clients in this process tree; each writes into the run's folder
and reports its progress to an observer.
"""

from app.workflows.analytics import analyse
from app.workflows.comparing import ComparisonPlan, compare
from app.workflows.continuing import find_place, go_on
from app.workflows.demo import DemoResult, demo
from app.workflows.forgetting import audit, choose_method, forget
from app.workflows.listing import list_runs, tree_of_runs
from app.workflows.observer import Observer, Quiet
from app.workflows.purging import check_purge, purge
from app.workflows.removing import find_removable, remove, run_contents
from app.workflows.serving import serve
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
    "train",
    "tree_of_runs",
]
