"""What methods in federated rounds share: the rounds, the settings that messages carry, and who takes part.

How a client shall work travels with the message. A client's own run config is that of the training, and a
request may come years later with other settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy
from torch import Generator, Tensor, nn

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.settings import Scalar, Settings
from strategies.fedavg import FedAvg
from strategies.models import travelling
from strategies.plan import RoundResult
from strategies.rounds import Build
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from strategies.server.members import ClientInfo
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import AddedEntries, AddedRecords
from unlearning.central.parameters import copied
from unlearning.central.training import SgdSettings
from unlearning.methods.base import ClientAnswer, ForgetJob, ForgetWork
from unlearning.spending import train_after
from unlearning.traits.rounds import RoundSettings

S = TypeVar("S", bound=Settings)
C = TypeVar("C", bound=SgdSettings)


# The settings that messages carry


def settings_entries(settings: Settings) -> dict[str, Scalar]:
    """Return settings as entries of the record ``config``, under the keys of the run config."""
    return dict(settings.model_dump(by_alias=True))


def local_settings(job: ForgetJob, own: RoundSettings, kind: type[C], **more: float) -> C:
    """Return how clients train in the rounds of a method: settings of class `kind`, with the fields `more`.

    What `own` leaves to the run, momentum and weight decay are those of the run's last round.
    """
    last = job.run.train.in_round(job.run.plan.rounds, job.run.plan.schedule_length)
    return kind(
        epochs=own.epochs,
        learning_rate=last.learning_rate if own.learning_rate == "auto" else own.learning_rate,
        batch_size=last.batch_size if own.batch_size == "auto" else own.batch_size,
        momentum=last.momentum,
        weight_decay=last.weight_decay,
        **more,
    )


def settings_in(kind: type[S], config: Mapping[str, Any]) -> S:
    """Read back what `settings_entries` wrote; KeyError if an entry is missing."""
    fields = kind.model_fields.items()
    return kind.model_validate({name: config[spec.alias or name] for name, spec in fields})


def trained_answer(
    model: nn.Module, num_examples: int, metrics: Mapping[str, float] | None = None
) -> ClientAnswer:
    """Return a client's answer to a train message: its new parameters, number of examples, and metrics."""
    numbers = {**(metrics or {}), wire.NUM_EXAMPLES: num_examples}
    return ClientAnswer(numbers, travelling.record_of(model))


def received_model(work: ForgetWork) -> nn.Module:
    """Return the model that came with the message; read last, as `further_model` overwrites it."""
    return work.build_model(work.arrays[wire.ARRAYS])


def further_model(work: ForgetWork, record: str) -> nn.Module:
    """Return a further model that came with the message, such as a teacher, under a record's name."""
    return copied(work.build_model(work.arrays[record]))


def shuffled(flat: Tensor, layout: wire.Layout, generator: Generator) -> Tensor:
    """Return a model with the entries of each tensor shuffled: a draw from the same distribution."""
    pieces = torch.split(flat, list(layout.sizes))
    return torch.cat([piece[torch.randperm(len(piece), generator=generator)] for piece in pieces])


# Who takes part


def num_dropped(info: ClientInfo, drop: Drop) -> int:
    """Return how many of a client's examples are left out, by what the client said of itself."""
    return info.least_of(drop.classes) + len(drop.indices.get(info.client_id, ()))


def clients_with_retained(job: ForgetJob) -> Cohort:
    """Return the remaining clients that have examples left, late arrivals included.

    LetheError if there is none.
    """
    left = job.remaining().without(job.holdings.clients_without_retained).without_emptied(job.drop)
    if not left.clients:
        raise LetheError(f"{job.request.name} leaves no connected client an example: nobody would remain")
    return left


def clients_with_forgotten(job: ForgetJob) -> Cohort:
    """Return the connected clients that took part and hold what shall be forgotten.

    LetheError if there is none.
    """
    connected = job.connected()
    named = set(job.participants)
    others = [
        i
        for i, info in connected.clients.items()
        if i in job.holdings.clients_without_forgotten
        or (i not in named if job.request.named_clients else num_dropped(info, job.request.drop) == 0)
    ]
    if len(others) == len(connected.clients):
        raise LetheError(f"{job.request.name}: no connected client holds an example of it")
    return connected.without(others)


def clients_asked(job: ForgetJob) -> Cohort:
    """Return the clients that hold some of D_f or of D_r."""
    connected = job.connected()
    wanted = {**clients_with_forgotten(job).clients, **clients_with_retained(job).clients}
    return connected.without(i for i in connected.clients if i not in wanted)


# Rounds

EVERYONE = SelectionSettings()
"""A round of all clients of a cohort, not of some that are drawn."""


@dataclass
class FederatedWork:
    """The federated rounds of one job, in one or more phases; `total_rounds` is over all phases.

    Rounds are numbered on from the run's last, so that clients draw fresh batches; where they train as the
    run did, their learning rates are those of its last round. `metrics` are means over the clients' answers
    in the last round, by name. `records` are further records of every message of `act`, by name, with the
    layout of the model.
    """

    job: ForgetJob
    total_rounds: int
    records: Mapping[str, ArrayRecord] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    done: int = 0

    def act(
        self,
        flat: Tensor,
        message_type: str,
        entries: Sequence[Mapping[str, wire.ConfigValue]],
        cohort: Cohort,
        *,
        drop: Drop | None = None,
        selection: SelectionSettings | None = None,
    ) -> Tensor:
        """Return the model, shape [P], after rounds that average what a method's action makes of it.

        Parameters
        ----------
        flat
            The model before, shape [P].
        message_type
            The action's.
        entries
            What the record ``config`` holds besides, one mapping per round.
        cohort
            The clients that may be asked.
        drop
            Which examples count as forgotten on the clients; None: those of the job.
        selection
            How a round's clients are chosen; None: as in the run.
        """
        first = self._next_round
        return self._rounds(
            flat,
            len(entries),
            cohort,
            drop,
            selection,
            lambda: AddedEntries(
                AddedRecords(FedAvg(message_type=message_type), self.records),
                lambda server_round, node: {
                    **entries[server_round - first],
                    **({wire.FORGET_ALL: True} if node in self._leaving(cohort) else {}),
                },
            ),
        )

    def passes(
        self, message_type: str, settings: SgdSettings, more: Mapping[str, wire.ConfigValue] | None = None
    ) -> Tensor:
        """Return the model, shape [P], after rounds in which every client makes a pass over what it holds.

        Parameters
        ----------
        message_type
            Of the action that makes the pass.
        settings
            Those of the passes; their epochs are the rounds.
        more
            Further entries of the record ``config``.
        """
        one_pass = {**settings_entries(settings.model_copy(update={"epochs": 1})), **(more or {})}
        job = self.job
        return self.act(
            job.run.final,
            message_type,
            [one_pass] * settings.epochs,
            clients_asked(job),
            drop=job.forget_drop,
            selection=EVERYONE,
        )

    def _leaving(self, cohort: Cohort) -> set[int]:
        """Return the nodes of the clients that are forgotten as a whole."""
        return {cohort.clients[i].node_id for i in self.job.request.clients if i in cohort.clients}

    def train(self, flat: Tensor, rounds: int, cohort: Cohort, build: Build | None = None) -> Tensor:
        """Return the model, shape [P], after training on as the run did, without what shall be forgotten.

        `build` makes the strategy; None: the run's. At 0 rounds the model stays as it is.
        """
        return self._rounds(flat, rounds, cohort, None, None, build)

    def advance(self, values: Mapping[str, float] | None = None) -> None:
        """Report one more round as done."""
        self.done += 1
        self.job.progress(self.done, self.total_rounds, values or {})

    @property
    def _next_round(self) -> int:
        return self.job.run.plan.rounds + self.done + 1

    def _rounds(
        self,
        flat: Tensor,
        count: int,
        cohort: Cohort,
        drop: Drop | None,
        selection: SelectionSettings | None,
        build: Build | None,
    ) -> Tensor:
        if count == 0:
            return flat
        run, before = self.job.run, self._next_round - 1
        plan = replace(
            run.plan.going_on(self.done + count),
            selection=selection or feasible_selection(run.plan.selection, cohort),
            federated_evaluation=False,
            drop=self.job.drop if drop is None else drop,
        )
        return train_after(run, plan, cohort, flat, self._on_round, build, before)

    def _on_round(self, result: RoundResult, _: Strategy) -> None:
        if not result.accepted:
            failed = [fault for fault in result.faults if fault.client_id in self.job.run.clients]
            reasons = "; ".join(f"client {fault.client_id}: {fault.reason}" for fault in failed[:3])
            raise LetheError(f"forgetting {self.job.request.name}: no client took part ({reasons})")
        self.metrics = result.metrics
        self.advance(result.metrics)


def feasible_selection(selection: SelectionSettings, cohort: Cohort) -> SelectionSettings:
    """Return the selection with no larger minimum than the cohort can meet."""
    fewest = max(1, min(selection.min_clients, len(cohort.clients)))
    return selection.model_copy(update={"min_clients": fewest})
