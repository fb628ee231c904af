"""Asks a question about the clients' data; they answer with masked vectors, and no model is trained."""

from typing import Any

from flwr.serverapp import Grid

from app.config.run_config import RunConfig
from app.workflows.observer import Observer, Quiet
from app.workflows.session import Session
from strategies.analytics.asking import Sharing, ask
from strategies.analytics.statistics import Question
from strategies.server.cohort import Cohort


def analyse(config: RunConfig, observer: Observer | None = None, grid: Grid | None = None) -> dict[str, Any]:
    """Ask what the section ``analytics`` says, and return the answer as plain data.

    `config` has ``run.workflow = "analytics"``; without a grid, the clients start in this process tree.

    Raises
    ------
    LetheError
        If too few clients answer.
    """
    observer = observer or Quiet()
    session = Session.of(config, grid)
    observer.phase(f"ask for {config.analytics.statistic}", 1)
    with session.cohort(grid, config.analytics.min_clients) as cohort:
        question = Question(session.config.analytics, session.server_data.num_groups)
        answer = ask(cohort, question, Sharing(config.privacy.threshold))
        faults = [f"client {f.client_id}, {f.scope}: {f.reason}" for f in cohort.faults]
    for fault in faults:
        observer.note(fault)
    observer.advance("answered")
    return answer | {"faults": faults}


def label_distribution(session: Session, cohort: Cohort) -> dict[str, Any]:
    """Return how many examples of each label the clients of a training have together."""
    labels = {"statistic": "histogram", "column": "label"}
    settings = session.config.analytics.model_copy(update=labels)
    question = Question(settings, session.server_data.num_groups)
    return ask(cohort, question, Sharing(session.config.privacy.threshold))
