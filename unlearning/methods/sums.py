"""Sums over examples that travel from clients to the server: in float64, and added in the clients' order.

What clients hold between them so gives the same total as the same examples in one place.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies.core import wire
from strategies.server.cohort import Cohort
from unlearning.central.gradients import ExampleSum
from unlearning.forget_spec import ForgetSpec
from unlearning.methods.base import ClientAnswer

Sums = Mapping[str, ExampleSum]
"""Sums of one client by name, such as ``retain`` and ``forget``; each travels as an array of that name,
float64, with the number of its examples under ``<name>-examples``."""


def answer_with(sums: Sums) -> ClientAnswer:
    """Return a client's answer that holds sums."""
    counts = {_count_key(name): each.count for name, each in sums.items()}
    return ClientAnswer(counts, ArrayRecord({name: Array(each.total.numpy()) for name, each in sums.items()}))


def read_sums(content: RecordDict, sizes: Mapping[str, int]) -> dict[str, ExampleSum]:
    """Read back what `answer_with` wrote: sums by name, each of its size, float64.

    Raises
    ------
    ValueError
        If a sum is missing, has another shape or dtype, is not finite, or its count is no count.
    """
    arrays = content.array_records.get(wire.ARRAYS, ArrayRecord())
    numbers = content.metric_records.get(wire.METRICS, MetricRecord())
    return {name: _read_sum(arrays, numbers, name, size) for name, size in sizes.items()}


def _read_sum(arrays: ArrayRecord, numbers: Mapping[str, object], name: str, size: int) -> ExampleSum:
    count = numbers.get(_count_key(name))
    if name not in arrays or not isinstance(count, int) or count < 0:
        raise ValueError(f"no sum '{name}' with a number of examples in the answer")
    values = np.array(arrays[name].numpy())
    if values.shape != (size,) or values.dtype != np.float64:
        raise ValueError(
            f"'{name}' has shape {values.shape} and dtype {values.dtype}, expected ({size},) and float64"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"'{name}' holds values that are not finite")
    return ExampleSum(torch.from_numpy(values), count)


def ask_for_sums(
    cohort: Cohort,
    message_type: str,
    spec: Callable[[str], ForgetSpec],
    arrays: Mapping[str, ArrayRecord],
    sizes: Mapping[str, int],
    entries: Callable[[str], Mapping[str, Any]] = lambda client_id: {},
) -> dict[str, dict[str, ExampleSum]]:
    """Ask every client of a cohort for its sums; an unusable answer is recorded as a fault of its client.

    Parameters
    ----------
    cohort, message_type
        Who is asked, and for which action.
    spec
        Which of its examples each client takes for forgotten, by client-id.
    arrays
        The records of arrays that are sent, by name.
    sizes
        Name of each sum -> its number of entries.
    entries
        What the record ``config`` of a client's message holds besides.

    Returns
    -------
    dict
        Sums by client-id, in the order of `client_sort_key`, whatever order they arrived in.
    """
    made: dict[str, RecordDict] = {}

    def content(client_id: str) -> RecordDict:
        config = {**spec(client_id).to_config(), **entries(client_id)}
        return made.setdefault(repr(config), RecordDict({**arrays, wire.CONFIG: ConfigRecord(config)}))

    answers: dict[str, dict[str, ExampleSum]] = {}
    for reply in cohort.ask(message_type, content):
        try:
            answers[reply.client_id] = read_sums(reply.message.content, sizes)
        except ValueError as error:
            cohort.add_fault(reply.client_id, message_type, str(error))
    return {i: answers[i] for i in sorted(answers, key=wire.client_sort_key)}


def _count_key(name: str) -> str:
    return f"{name}-examples"
