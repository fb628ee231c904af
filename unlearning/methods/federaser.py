"""FedEraser: replay the run without a client, in fewer and shorter rounds.

Liu, Ma, Yang, Wang, Liu, "FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning
Models", IWQoS 2021, arXiv 2012.13891. From the initial model M_1 on, for every Δt-th round t of the run and
each client k but the target that took part in it, with weights w_{t,k} and updates U_k as they were then,

    Ũ_k = ‖U_k‖ · Û_k / ‖Û_k‖,    M ← M + Σ_k w_{t,k} Ũ_k / Σ_k w_{t,k},

Û_k the update that k makes of M with a share r of its local work in that round. Up to the first round that
the target took part in, the logged updates were made without it, and are added as they are. Norms
are of the update as a whole. The released code computes U_k against the *next* global model, which already
contains most of the step and so shrinks it; it calibrates the clients' average, layer by layer; and it
divides by K − 1 twice.

Differs from the paper: calibration needs no more of U_k than its norm, which the log keeps of every update,
so any retention serves; a round whose updates would be added but are not kept is calibrated as well. Local
work is counted in optimiser steps, at least one. With ``interval-factor`` a step is taken as often as there
are rounds up to the next one that is replayed, so that the path is as long as the run's. The
learning rate is that of round t in the run's schedule, and decides no more than the direction of a step.

A client that does not answer is left out of that round, and the others' weights are scaled up: its logged
update was made at a model that contained the target.

Guarantee: approximate; the lengths of the steps are those of the run that contained the target. Needs: the
log, of whatever retention, and the remaining clients online. Cost: one visit to every remaining client per
replayed round, with a share r of a round's local work: Δt / r times less work than retraining.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor

from strategies.client.training import ClientJob, planned_steps
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.log.reading import LogReader
from strategies.log.update_log import Entry
from strategies.models import travelling
from strategies.registry import lookup
from strategies.server.aggregation import MAX_ABS_UPDATE, ExactSum, largest_entry
from strategies.server.cohort import Fault
from strategies.server.guard import Reference, checked
from unlearning.central.parameters import with_norm
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork, Method, Outcome
from unlearning.methods.federated import received_model, settings_entries, settings_in
from unlearning.traits.federaser import NAME, TRAITS, FedEraserSettings

ACTION = "train.federaser"


def federaser_client(work: ForgetWork) -> ClientAnswer:
    """Run the client half: a share of a round's local work, by the run's own strategy."""
    share = settings_in(FedEraserSettings, work.config).ratio
    steps = max(1, math.ceil(share * planned_steps(len(work.retain), work.train)))
    job = ClientJob(
        received_model(work),
        work.retain,
        work.train.model_copy(update={"local_steps": steps}),
        work.strategy,
        work.client_id,
        work.server_round,
        work.generator,
        task=work.task,
        rounds=int(str(work.config[wire.ROUNDS])),
    )
    result = lookup(work.strategy.name).client(job)
    metrics = {**result.metrics, wire.NUM_EXAMPLES: result.num_examples}
    return ClientAnswer(metrics, travelling.record_of(result.model))


@dataclass(frozen=True)
class ReplayedRound:
    """A round of the run, counted from 1, that is replayed.

    `span` counts the rounds from this one up to the next that is replayed; `calibrated` says whether clients
    make the updates anew, else the logged ones are added.
    """

    round: int
    span: int
    calibrated: bool


def rounds_to_replay(log: LogReader, first: int, interval: int) -> list[ReplayedRound]:
    """Return every Δt-th round, and those up to the targets' `first` round whose updates can be read."""
    rounds = log.rounds()
    clean = {t for t in log.kept_rounds() if t <= first}
    chosen = [t for t in rounds if t in clean or (t - 1) % interval == 0]
    ends = [*chosen[1:], rounds[-1] + 1]
    return [ReplayedRound(t, end - t, t not in clean) for t, end in zip(chosen, ends, strict=True)]


Entries = Mapping[str, Entry]


class Replay:
    """The replay of a job's run without the clients that are forgotten.

    Attributes
    ----------
    calibrations : int
        Updates that clients have made anew.
    skipped : list of int
        Rounds without a usable update.
    """

    def __init__(self, job: ForgetJob, settings: FedEraserSettings) -> None:
        self._job = job
        self._settings = settings
        self._cohort = job.remaining()
        self._known_faults = len(self._cohort.faults)
        self._scope = ""
        self.calibrations = 0
        self.skipped: list[int] = []

    def run(self, rounds: Sequence[ReplayedRound]) -> Tensor:
        """Return the model after the rounds, shape [P].

        LetheError if clients were asked and none made an update.
        """
        flat = self._job.run.initial
        for number, replayed in enumerate(rounds, start=1):
            self._scope = f"replay of round {replayed.round}"
            flat = self._after(replayed, flat)
            self._job.progress(number, len(rounds), {"calibrations": self.calibrations})
        if self.faults and not self.calibrations:
            reasons = "; ".join(f"client {fault.client_id}: {fault.reason}" for fault in self.faults[:3])
            raise LetheError(f"federaser: no remaining client made an update ({reasons})")
        return flat

    @property
    def faults(self) -> list[Fault]:
        """A fault for each client and round without a usable update."""
        return self._cohort.faults[self._known_faults :]

    @property
    def left_out(self) -> dict[str, int]:
        """Client-id -> number of rounds that it was left out of."""
        counts = Counter(fault.client_id for fault in self.faults)
        return {i: counts[i] for i in sorted(counts, key=wire.client_sort_key)}

    @property
    def notes(self) -> list[str]:
        """What did not go as planned, for people."""
        reasons = {fault.client_id: fault.reason for fault in self.faults}
        left_out = self.left_out.items()
        return [
            *(f"client {i} was left out of {count} replayed rounds: {reasons[i]}" for i, count in left_out),
            *(f"round {t} was not replayed: it has no usable update" for t in self.skipped),
        ]

    def _after(self, replayed: ReplayedRound, flat: Tensor) -> Tensor:
        logged, targets = self._job.log.entries(replayed.round), self._job.excluded_clients
        entries = {e.client_id: e for e in logged if e.client_id not in targets}
        make = self._calibrated if replayed.calibrated else self._logged
        total = ExactSum(len(flat))
        for client_id, update in make(replayed.round, flat, entries):
            if len(update) and not largest_entry(update) <= MAX_ABS_UPDATE:
                self._leave_out(client_id, f"an entry of the update is not within ±{MAX_ABS_UPDATE}")
                continue
            total.add(update, entries[client_id].weight)
        if total.count == 0:
            self.skipped.append(replayed.round)
            return flat
        return total.added_to(flat, factor=replayed.span if self._settings.interval_factor else 1)

    def _logged(self, server_round: int, _: Tensor, entries: Entries) -> Iterator[tuple[str, Tensor]]:
        return ((i, self._job.log.delta(server_round, i)) for i in entries)

    def _calibrated(self, server_round: int, flat: Tensor, entries: Entries) -> Iterator[tuple[str, Tensor]]:
        online = [i for i in entries if i in self._cohort.clients]
        for client_id in entries.keys() - set(online):
            self._leave_out(client_id, "not connected")
        replies = self._cohort.ask(ACTION, self._question(server_round, flat), online, self._scope)
        reference = Reference(flat, self._job.run.layout, self._job.run.mask)
        for reply in checked((r.message for r in replies), reference, self._reject):
            self.calibrations += 1
            update = reply.update
            yield update.client_id, with_norm(update.delta, entries[update.client_id].norm)

    def _question(self, server_round: int, flat: Tensor) -> RecordDict:
        place = {wire.SERVER_ROUND: server_round, wire.ROUNDS: self._job.run.plan.schedule_length}
        config = ConfigRecord({**settings_entries(self._settings), **place})
        return RecordDict({wire.ARRAYS: wire.FlatRecord(flat, self._job.run.layout), wire.CONFIG: config})

    def _reject(self, message: Message, reason: str) -> None:
        self._leave_out(wire.client_id_in(message.content) or "", reason)

    def _leave_out(self, client_id: str, reason: str) -> None:
        self._cohort.add_fault(client_id, self._scope, reason)


def erased(job: ForgetJob) -> Outcome:
    """Return the model of the run replayed without the targets."""
    settings = job.settings.own(NAME, FedEraserSettings)
    replay = Replay(job, settings)
    rounds = rounds_to_replay(job.log, _first_round(job.log, job.excluded_clients), settings.interval)
    flat = replay.run(rounds)
    details = {
        "rounds": len(rounds),
        "calibrated_rounds": sum(replayed.calibrated for replayed in rounds),
        "calibrations": replay.calibrations,
        "left_out": replay.left_out,
    }
    return Outcome(flat, [*job.absence_notes, *replay.notes], details)


def _first_round(log: LogReader, client_ids: Collection[str]) -> int:
    return min(entry.round for i in client_ids for entry in log.entries(client_id=i))


METHOD = Method.of(TRAITS, run=erased, actions={ACTION: federaser_client})
