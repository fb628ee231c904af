"""`LocalGrid`: Flower's `Grid` over worker processes of this machine."""

import atexit
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from itertools import count
from types import TracebackType
from typing import Self, final

import torch
from flwr.app import Error, Message, RecordDict, UserConfigValue
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from app.simulation.client import RUN_ID
from app.simulation.grouping import Grouping
from app.simulation.jobs import Job, JobQueue, Outcome, Parcel
from app.simulation.launch import Setup, keep_freed_memory
from app.simulation.pool import WorkerPool
from app.simulation.states import ClientStates
from strategies.core.errors import LetheError
from strategies.server.grids import BaseGrid

SERVER_NODE_ID = 0  # Flower's SuperLink is node 1; here that is the first client.
PULL_SECONDS = 0.1


@final
class LocalGrid(BaseGrid):
    """A federation in one process tree: a ServerApp here, a ClientApp in worker processes.

    Node i + 1 is client i, with node config ``partition-id`` = i and ``num-partitions``. Messages are worked
    on in the order of `push_messages`, each by the first free worker; which worker that is makes no
    difference to the reply, as a client's state (``context.state``) is kept here and travels with its
    messages. Of two messages for the same client, the second waits for the first. A model that many messages
    carry is put into shared memory once; records must not be changed after they were pushed.

    Any failure of a client becomes an error reply, as in Flower: an exception of the ClientApp
    (``CLIENT_APP_RAISED_EXCEPTION``), a process that died (``CLIENT_APP_CRASHED``; a new one takes its
    place), an unknown node (``NODE_UNAVAILABLE``).

    While the grid is open, torch uses one thread in this process: the cores belong to the workers, and idle
    threads of a pool spin on them.

    Memory does not grow with the number of clients: a worker holds a few megabytes of replies that were not
    pulled, or those of two messages or groups if they are larger, then it waits. It works on Linux. It is for
    one thread.

    Parameters
    ----------
    client_app
        Import path of the ClientApp, such as ``app.client_app:app``; it is imported in a process of its own.
    run_config
        The clients' ``context.run_config``.
    num_clients, node_configs
        How many clients there are, or one node config per client instead of the usual ones.
    workers
        Number of worker processes; 0 for one per core.
    prepare
        Import path of a function that is called once with the run config before workers are forked, such as
        one that loads the data set: all workers share what it leaves in memory. None if empty.
    forks
        Whether workers descend from this process and so have all that it has in memory, such as a notebook's
        objects; otherwise from a fresh interpreter.

    Raises
    ------
    BadInput
        If there are no clients, fewer than 0 workers, no way to fork, or a malformed import path.

    Attributes
    ----------
    grouping : Grouping
        Which clients train side by side in a worker; each by itself if it is not set.
    started_with : mapping of str to value
        The run config that its clients were started with.

    Examples
    --------
    ::

        with LocalGrid("app.client_app:app", run_config, num_clients=10, workers=2) as grid:
            strategy.start(grid, arrays, num_rounds=3)
    """

    def __init__(
        self,
        client_app: str,
        run_config: Mapping[str, UserConfigValue],
        num_clients: int = 0,
        workers: int = 0,
        *,
        node_configs: Sequence[Mapping[str, UserConfigValue]] | None = None,
        prepare: str = "",
        forks: bool = False,
    ) -> None:
        setup = Setup.of(client_app, run_config, num_clients, workers, node_configs, prepare, forks)
        take_identity()
        self.grouping = Grouping()
        self.started_with: Mapping[str, UserConfigValue] = setup.run_config
        self._num_nodes = len(setup.node_configs)
        self._run = Run.create_empty(RUN_ID)
        self._states = ClientStates(self._num_nodes)
        self._numbers = count(1)
        self._queue = JobQueue()
        self._open: dict[str, Job] = {}
        self._held: list[Job] | None = None
        self._inbox: dict[str, Message] = {}
        self._num_dropped = 0
        self._owner = os.getpid()
        self._pool: WorkerPool | None = WorkerPool(setup)
        keep_freed_memory()
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)
        atexit.register(self.close)

    def __enter__(self) -> Self:
        """Return the grid."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the grid."""
        self.close()

    def close(self) -> None:
        """End the workers and free the memory; calling it again does nothing."""
        atexit.unregister(self.close)
        pool, self._pool = self._pool, None
        if pool is not None and os.getpid() == self._owner:
            pool.close()
            torch.set_num_threads(self._threads)

    @property
    def counts(self) -> dict[str, int]:
        """Workers replaced and late replies dropped so far; replies that wait to be pulled now."""
        replaced = 0 if self._pool is None else self._pool.num_replaced
        return {
            "replaced-workers": replaced,
            "dropped-replies": self._num_dropped,
            "undelivered-replies": len(self._inbox),
        }

    @property
    def notes(self) -> list[str]:
        """How many clients trained side by side, and why others did not, for people; empty if none was to."""
        pool = self._pool
        if pool is None or not (pool.together or pool.alone):
            return []
        alone = [f"; {count} one by one: {reason}" for reason, count in sorted(pool.alone.items())]
        return [f"run.vectorise: {pool.together} trainings side by side{''.join(alone)}"]

    @property
    def processes(self) -> list[int]:
        """The ids of the worker processes that are running."""
        return [] if self._pool is None else [worker.process for worker in self._pool.workers]

    def get_node_ids(self) -> list[int]:
        """Return the ids of all clients' nodes, in the order of the clients."""
        return list(range(1, self._num_nodes + 1))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Accept messages for the workers; return their ids.

        Raises
        ------
        LetheError
            If the grid is closed or the ClientApp cannot be loaded; BadInput if it refuses the run config.
        """
        ids: list[str] = []
        jobs: list[Job] = []
        parcels: dict[tuple[object, ...], Parcel] = {}
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._numbers))
            key = Parcel.key(message)
            job = Job(message, parcels.get(key) or parcels.setdefault(key, Parcel(message)))
            ids.append(job.message_id)
            self._open[job.message_id] = job
            if 1 <= job.node_id <= self._num_nodes:
                jobs.append(job)
            else:
                reason = f"there is no node {job.node_id}, only 1 to {self._num_nodes}"
                self._finish(job, Error(ErrorCode.NODE_UNAVAILABLE, reason))
        if self._held is None:
            self._hand_on(jobs)
        else:
            self._require_pool()
            self._held += jobs
        return ids

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold messages back, meanwhile, until `release`: those of several pushes are grouped together."""
        self._held = []
        try:
            yield
        finally:
            self._held = None

    def release(self) -> None:
        """Give the messages that are held back to the workers."""
        jobs, self._held = self._held or [], []
        self._hand_on(jobs)

    def _hand_on(self, jobs: Sequence[Job]) -> None:
        self._require_pool().where_faster = self.grouping.where_faster
        for group in self.grouping.groups(jobs):
            self._queue.append(group)
        self._dispatch()

    def pull_messages(self, message_ids: Iterable[str | None]) -> list[Message]:
        """Return replies that have arrived, each once; wait up to a tenth of a second for the first.

        At most a few are returned at a time, so that many large ones are never in memory together. Ids that
        are unknown, cancelled or answered already are ignored.

        Raises
        ------
        LetheError
            If the grid is closed or a worker cannot be started.
        """
        wanted = _lookup(message_ids)
        deadline = time.monotonic() + PULL_SECONDS
        while not (arrived := [i for i in self._inbox if i in wanted]) and self._is_open(wanted):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            self._advance(remaining)
        most = len(arrived) if self._pool is None else self._pool.at_once
        return [self._inbox.pop(i) for i in sorted(arrived, key=int)[:most]]

    def _is_open(self, message_ids: Collection[str]) -> bool:
        """Whether one of the messages, none of which is answered, may still be."""
        fewer, others = sorted((self._open, message_ids), key=len)
        return any(i in others for i in fewer)

    def cancel(self, message_ids: Iterable[str]) -> None:
        """Give up on messages: their replies will never be pulled.

        A worker at such a message is replaced at once, so that a stuck client never holds up others; replies
        that have arrived are dropped and counted.
        """
        if self._pool is None:
            return
        self._advance(0.0)
        for message_id in message_ids:
            if self._inbox.pop(message_id, None) is not None:
                self._num_dropped += 1
            elif (job := self._open.pop(message_id, None)) is not None:
                job.abandoned = True
        self._replace_abandoned(self._pool)
        self._dispatch()

    def begun(self, message_ids: Iterable[str]) -> dict[str, float]:
        """Return when workers began with the messages they are at, by the clock `time.monotonic`.

        A message that waits, also for a worker to start, has not begun.
        """
        wanted = _lookup(message_ids)
        at_work = {} if self._pool is None else self._pool.at_work()
        return {i: began for i, began in at_work.items() if i in wanted and i in self._open}

    def client_states(self) -> dict[int, bytes]:
        """Return the clients' states that are not empty, by node id, in Flower's protobuf form."""
        return self._states.all()

    def state_versions(self) -> dict[int, int]:
        """Return a number for each client that changes with its state, by node id."""
        return self._states.versions()

    def restore_client_states(self, states: Mapping[int, bytes]) -> None:
        """Replace all clients' states by those that `client_states` returned.

        Raises
        ------
        LetheError
            If a node is unknown or its state cannot be read; nothing is changed then.
        """
        self._states.replace(states)

    def _require_pool(self) -> WorkerPool:
        if self._pool is None:
            raise LetheError("the grid is closed")
        return self._pool

    def _dispatch(self) -> None:
        """Give waiting jobs to workers, in their order."""
        pool = self._require_pool()
        while (group := self._queue.take()) is not None:
            # Towards the end of a round no job waits behind another one while a worker idles.
            worker = pool.find(len(self._queue))
            if worker is None:
                self._queue.put_back([group])
                return
            if not pool.give(worker, group, [self._states.get(job.node_id) for job in group]):
                self._queue.put_back([group])

    def _advance(self, seconds: float) -> None:
        """Collect what workers have finished, waiting some seconds for the first; give them more to do."""
        pool = self._require_pool()
        for outcome in pool.wait(seconds, pool.at_once):
            self._settle(outcome)
        self._replace_abandoned(pool)
        self._dispatch()

    def _replace_abandoned(self, pool: WorkerPool) -> None:
        for worker in list(pool.workers):
            if worker.is_stuck:
                for job in worker.running:
                    self._queue.end(job)
                self._queue.put_back(pool.remove(worker))

    def _settle(self, outcome: Outcome) -> None:
        self._queue.put_back(outcome.unstarted)
        if (job := outcome.job) is None:
            return
        self._queue.end(job)
        if outcome.new_state is not None:
            self._states.set(job.node_id, outcome.new_state)
        if job.alone and isinstance(outcome.answer, RecordDict):
            self._require_pool().alone[job.alone] += 1
        self._finish(job, outcome.answer)

    def _finish(self, job: Job, answer: RecordDict | Error) -> None:
        if self._open.pop(job.message_id, None) is None:
            self._num_dropped += 1
            return
        self._inbox[job.message_id] = job.reply(answer)


def _lookup(message_ids: Iterable[str | None]) -> Collection[str]:
    """Return message ids in which one is found at once; those that can be searched so are not copied."""
    if isinstance(message_ids, Set | Mapping):
        return message_ids
    return {i for i in message_ids if i is not None}


def take_identity() -> None:
    """Tell Flower who sends the messages of this process, as Flower's own launchers do."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.task_id = 1
    TaskIdentity.node_id = SERVER_NODE_ID
