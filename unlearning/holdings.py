"""What clients hold of a request, asked before any work, and what the request leaves them.

A position names an example only as long as the data are those of the run: clients compare them with the tags
that they keep (`strategies.client.data_tags`) and say whether these hold. If a client has no tags of the run,
or does not answer, nothing is known, and that is said.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from strategies.client.data_tags import DataState
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.core.examples import Examples
from strategies.server.cohort import Cohort
from strategies.server.guard import first_line
from unlearning.forget_spec import ForgetSpec, spec_for
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

_SCOPE = "what the request names"
_NAMED_AT_MOST = 8


@dataclass(frozen=True)
class ClientHolding:
    """A client's answer; None where it says nothing, because that is private or because it did not answer."""

    data: DataState = "unknown"
    forgets: bool | None = None
    keeps: bool | None = None


@dataclass(frozen=True)
class Holdings:
    """What is known of a request that can be served.

    Parameters
    ----------
    nothing_to_forget
        Notes on why there is nothing to forget; empty if there is something.
    clients_without_retained
        Clients that the request leaves nothing to train on.
    clients_without_forgotten
        Clients that hold nothing that the request names.
    changed_clients
        Clients whose data are not those that they trained on in the run.
    warnings, notes
        Clients whose data have changed since the run, and clients whose data may have.
    """

    nothing_to_forget: tuple[str, ...] = ()
    clients_without_retained: tuple[str, ...] = ()
    clients_without_forgotten: tuple[str, ...] = ()
    changed_clients: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def holdings_of(
    spec: ForgetSpec, examples: Examples, data: DataState, *, private: bool
) -> dict[str, wire.ConfigValue]:
    """Return a client's answer to the question what it holds of a specification.

    `examples` are all of the client's; `data` says whether they are those of the run, which is all that the
    server learns where the answer is `private`.
    """
    answer: dict[str, wire.ConfigValue] = {wire.DATA_STATE: data}
    if private or (data == "changed" and (spec.indices or spec.earlier_indices)):
        return answer
    try:
        forget, retain = spec.split(examples)
    except BadInput as error:
        return {**answer, wire.REFUSED: str(error)}
    return {**answer, wire.FORGETS: len(forget) > 0, wire.KEEPS: len(retain) > 0}


def ask_holdings(run: TrainedRun, request: ForgetRequest, cohort: Cohort) -> Holdings:
    """Ask the connected clients what they hold of a request, before any work.

    BadInput if nobody would remain, or positions name other examples than those of the run.
    """
    cohort = cohort.without(run.forgotten_clients)
    holdings = _ask(run, request, cohort)
    changed = {i: None for i, each in holdings.items() if each.data == "changed"}
    _check_positions(run, request, changed)
    warnings = _warned(list(changed))
    notes = _noted([i for i, each in holdings.items() if each.data == "unknown"], len(holdings))
    if nothing := _nothing(run, request, holdings):
        return Holdings(nothing, changed_clients=tuple(changed), warnings=warnings, notes=notes)
    without_retained = tuple(
        i for i, each in holdings.items() if each.keeps is False and i not in request.whole_clients
    )
    remaining = set(holdings) - request.whole_clients
    if remaining and remaining <= set(without_retained):
        raise BadInput(f"{request.name} leaves no connected client an example: nobody would remain")
    without_forgotten = tuple(i for i, each in holdings.items() if each.forgets is False)
    return Holdings((), without_retained, without_forgotten, tuple(changed), warnings, notes)


def logged_holdings(run: TrainedRun, request: ForgetRequest) -> Holdings:
    """Return what the log alone tells of a request, without asking any client."""
    return Holdings(_nothing(run, request, {}))


def absent_clients(run: TrainedRun, clients: Iterable[str]) -> tuple[str, ...]:
    """Return the clients of a list that never took part in a round, as far as the update log tells."""
    if run.log is None:
        return ()
    known = set(run.log.clients())
    return tuple(i for i in clients if i not in known)


def _ask(run: TrainedRun, request: ForgetRequest, cohort: Cohort) -> dict[str, ClientHolding]:
    def content(client_id: str) -> RecordDict:
        return RecordDict({wire.CONFIG: spec_for(request, client_id, run.forgotten).to_config()})

    found = dict.fromkeys(cohort.clients, ClientHolding())
    for reply in cohort.ask(wire.HOLDINGS, content, scope=_SCOPE):
        answer = reply.message.content.config_records.get(wire.CONFIG, ConfigRecord())
        if (reason := answer.get(wire.REFUSED)) is not None:
            raise BadInput(f"client {reply.client_id}: {first_line(str(reason))}")
        found[reply.client_id] = _read(answer)
    return found


def _read(answer: Mapping[str, Any]) -> ClientHolding:
    data, forgets, keeps = (answer.get(key) for key in (wire.DATA_STATE, wire.FORGETS, wire.KEEPS))
    return ClientHolding(
        data if data in {"same", "changed"} else "unknown",
        forgets if isinstance(forgets, bool) else None,
        keeps if isinstance(keeps, bool) else None,
    )


def _check_positions(run: TrainedRun, request: ForgetRequest, changed: Collection[str]) -> None:
    for each in (request, *run.forgotten):
        if moved := [i for i in each.samples if i in changed]:
            raise BadInput(
                f"{each.name}: the data of client {moved[0]} are not those of the run any more, so the "
                "positions name other examples; restore them as they were, or forget the client or a class"
            )


def _nothing(
    run: TrainedRun, request: ForgetRequest, holdings: Mapping[str, ClientHolding]
) -> tuple[str, ...]:
    """Return notes on why no client holds what the request names; empty if one does, or may."""
    named = request.named_clients
    asked = named or sorted({*run.clients, *holdings} - set(run.forgotten_clients), key=wire.client_sort_key)
    away = absent_clients(run, asked)
    if any(holdings.get(i, ClientHolding()).forgets is not False for i in asked if i not in away):
        return ()
    if named:
        return tuple(
            f"client {i} never took part in a round: nothing to forget"
            if i in away
            else f"client {i} holds nothing of {request.name}: nothing to forget"
            for i in named
        )
    return (f"no client that took part in the run holds an example of {request.name}: nothing to forget",)


def _warned(changed: Collection[str]) -> tuple[str, ...]:
    return tuple(
        f"the data of client {i} are not those that it trained on in the run: what is left out now may be "
        "other examples than the model has seen"
        for i in changed
    )


def _noted(unknown: Collection[str], of: int) -> tuple[str, ...]:
    if not unknown:
        return ()
    if len(unknown) == of:
        return ("no client can check whether its data are still those of the run: no tags of them were kept",)
    ids = list(unknown)
    listed = ", ".join(ids[:_NAMED_AT_MOST]) + (" and others" if len(ids) > _NAMED_AT_MOST else "")
    return (
        f"client {listed} cannot check whether its data are still those of the run: it kept no tags of them",
    )
