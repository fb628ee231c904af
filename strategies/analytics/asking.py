"""Both halves of a question: clients mask their vectors, the server reads the sum (`layers.secagg`)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from strategies.analytics.settings import AnalyticsSettings
from strategies.analytics.statistics import Integers, Question
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, in_memory
from strategies.core.secret_random import RandomStream
from strategies.layers.secagg import protocol
from strategies.layers.secagg.client import Entries, Refused, SecureClient
from strategies.layers.secagg.server import SecureSum
from strategies.server.cohort import Cohort

ANALYSE = "query.analytics"
"""Asks for the masked vector of a statistic."""
ASKED = "asked"
"""str, server to client: statistic and column, a JSON object."""


@final
@dataclass(frozen=True)
class Sharing:
    """Secure aggregation of one question.

    Parameters
    ----------
    threshold
        Share of the clients that must stay to the end.
    scope
        Names the exchange in the list of faults.
    """

    threshold: float
    scope: str = "analytics"


@final
@dataclass(frozen=True, eq=False)
class SecureTotal:
    """The sum of the clients' vectors.

    Parameters
    ----------
    sum
        Shape [size].
    survivors
        Clients whose vectors are in it.
    ready
        How many clients were to send one.
    """

    sum: Integers
    survivors: list[str]
    ready: int


def secure_total(
    cohort: Cohort, message_type: str, said: Mapping[str, Any], size: int, min_clients: int, sharing: Sharing
) -> SecureTotal:
    """Ask all clients of a cohort for a masked vector, and return the sum.

    Parameters
    ----------
    said
        Further entries of the question.
    size
        Entries of the vector.

    Raises
    ------
    LetheError
        If fewer clients are connected, or answer, than must: nothing is known then.
    """
    clients = list(cohort.clients)
    if len(clients) < min_clients:
        raise LetheError(
            f"{sharing.scope}: {len(clients)} clients are connected, analytics.min-clients is {min_clients}"
        )
    faults = len(cohort.faults)
    secure = SecureSum(
        clients,
        max(sharing.threshold, min_clients / len(clients)),
        lambda kind, content, ids: cohort.ask(kind, content, ids, sharing.scope),
        lambda client_id, reason: cohort.add_fault(client_id, sharing.scope, reason),
    )

    def content(client_id: str) -> RecordDict:
        entries: dict[str, Any] = {**secure.invitation(client_id), **said}
        return RecordDict({wire.CONFIG: ConfigRecord(entries)})

    ready = secure.open()
    for reply in cohort.ask(message_type, content, ready, sharing.scope):
        try:
            secure.add(reply.client_id, reply.message.content, size)
        except ValueError as error:
            cohort.add_fault(reply.client_id, sharing.scope, str(error))
    if (total := secure.close()) is None:
        reasons = [f.reason for f in cohort.faults[faults:] if f.client_id == wire.EVERYBODY]
        raise LetheError(f"{sharing.scope}: no answer ({'; '.join(reasons)})")
    return SecureTotal(total.view(np.int64), secure.survivors, len(ready))


def ask(cohort: Cohort, question: Question, sharing: Sharing) -> dict[str, Any]:
    """Ask all clients of a cohort for a statistic, and return the answer as plain data.

    Raises
    ------
    LetheError
        If fewer clients are connected, or answer, than must: nothing is known then.
    """
    settings = question.settings
    asked = json.dumps({"statistic": settings.statistic, "column": settings.column})
    total = secure_total(cohort, ANALYSE, {ASKED: asked}, question.size, settings.min_clients, sharing)
    return {
        "statistic": settings.statistic,
        "column": settings.column,
        "clients": len(total.survivors),
        "epsilon": settings.epsilon or None,
        **question.answer(total.sum),
    }


def answer_analytics(
    half: SecureClient, settings: AnalyticsSettings, num_groups: int, examples: Callable[[], Examples]
) -> tuple[ArrayRecord, Entries]:
    """Return a client's masked vector.

    Parameters
    ----------
    settings
        As the client itself knows them; the message chooses statistic and column only.

    Raises
    ------
    Refused
        If fewer clients than ``analytics.min-clients`` take part, or the message asks for no statistic.
    """
    half.check_due()
    sharers = len(protocol.numbers(half.config, protocol.NUMBERS))
    if sharers < settings.min_clients:
        raise Refused(f"{sharers} clients take part, analytics.min-clients is {settings.min_clients}")
    question, data = Question(_asked(half, settings), num_groups), examples()
    values = _labels(data) if question.is_label else in_memory(data).x.flatten(1).mean(dim=1)
    noise = question.noise(half.sharers(), RandomStream.secret())
    return half.masked((question.vector(values) + noise).view(np.uint64))


def _labels(data: Examples) -> Tensor:
    groups = data.groups()
    if groups is None:
        raise Refused("its examples have no classes to be asked about")
    return groups


def _asked(half: SecureClient, settings: AnalyticsSettings) -> AnalyticsSettings:
    """Return the client's settings with the message's statistic and column."""
    try:
        asked = json.loads(str(half.config[ASKED]))
        chosen = {**settings.model_dump(), "statistic": asked["statistic"], "column": asked["column"]}
        return AnalyticsSettings.model_validate(chosen)
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Refused("the message asks for no statistic that this client knows") from None
