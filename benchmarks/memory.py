"""How much memory the server needs: peak resident memory by the number of clients in a round."""

from collections.abc import Sequence
from typing import Any

from app.workflows.observer import Observer, Quiet
from benchmarks.jobs import Job, Task, contend, machine


def run(
    observer: Observer | None = None,
    *,
    clients: Sequence[int] = (10, 100, 1000),
    megabytes: int = 10,
    workers: int = 2,
) -> dict[str, Any]:
    """Measure the server process with clients that only add a constant to the model.

    Parameters
    ----------
    observer
        Told how far it is.
    clients
        Numbers of clients in a round.
    megabytes
        Size of the model.
    workers
        Processes; each takes memory for one or two replies.

    Returns
    -------
    dict
        ``machine``, ``megabytes``, ``workers``, and for each number of clients ``before-mb``, the memory when
        the first round begins, ``peak-mb``, the most afterwards, their difference ``added-mb``, and the time
        per client.
    """
    watcher = observer or Quiet()
    watcher.phase("memory", len(clients))
    measured: dict[str, Any] = {}
    for number in clients:
        task = Task(Job(clients=number, rounds=2, steps=1, batch_size=1), "", workers, megabytes=megabytes)
        measured[str(number)] = contend("server_memory", task)
        watcher.advance(f"{number} clients")
    return {"machine": machine(), "megabytes": megabytes, "workers": workers, "clients": measured}
