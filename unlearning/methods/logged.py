"""What the update log knows of the clients that a request names."""

from dataclasses import dataclass

from strategies.log.update_log import UpdateLog
from unlearning.methods.base import ForgetJob
from unlearning.methods.federated import absence_notes


@dataclass(frozen=True)
class LoggedTargets:
    """The clients to forget that took part, and a note on each of the others.

    Parameters
    ----------
    log
        The run's update log.
    clients
        Those of the request that took part in a round, sorted; empty: there is nothing to forget.
    notes
        One line per client that never did.
    """

    log: UpdateLog
    clients: tuple[str, ...]
    notes: tuple[str, ...]


def logged_targets(job: ForgetJob) -> LoggedTargets:
    """Look the request's clients up in the log; whoever calls has checked that there is one."""
    if job.run.log is None:
        raise RuntimeError("needs were not checked")
    clients = tuple(i for i in job.request.clients if i not in job.absent)
    return LoggedTargets(job.run.log, clients, tuple(absence_notes(job)))
