"""What clients may report: the numbers of a reply by name, and the range of each.

A reply's metric record is rebuilt from the names of a table before anything reads it. So no client can write
under a name of the server's, such as ``round``, ``clients`` or ``test-accuracy``, and no number that cannot
be is averaged. Every name of a table is a client's and no other; what the server makes of it has another name
or is the mean over the clients.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from strategies.core import wire


@dataclass(frozen=True)
class Range:
    """What a number may be: from `low` to `high`, both included; never NaN."""

    low: float
    high: float


Known = Mapping[str, Range]
"""Name -> range of each number that a reply may hold besides `num-examples`."""
Complain = Callable[[Message, str], None]
"""Told of each reply with which something is wrong, and what."""

PERCENT = Range(0.0, 100.0)
COUNT = Range(0.0, 2.0**53)
LOSS = Range(-1e12, 1e12)
TRAINING: Known = {wire.TRAIN_LOSS: LOSS, wire.NUM_STEPS: COUNT}
"""Of every reply to training."""
PRIVATE: Known = {wire.EPSILON: Range(0.0, math.inf), wire.NOISE_MULTIPLIER: Range(0.0, 1e12)}
"""Besides, where clients add noise; without noise ε is infinite."""
EVALUATION: Known = {wire.LOSS: LOSS, wire.ACCURACY: PERCENT}
"""Of every reply to evaluation."""

_MOST_NAMED = 3
_LONGEST_NAME = 40


class Claims:
    """How many examples each client has spoken of: a number that changes from round to round is named.

    With it a client could weigh what it says in some rounds more than in others. What it said at first is no
    less a claim: a bound is what it described itself with.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int | float] = {}

    def noted(self, replies: Iterable[Message], what: str, complain: Complain) -> Iterator[Message]:
        """Yield all replies; complain of each whose number is not that of the node's last one.

        `what` says of which, such as ``trains on``.
        """
        for message in replies:
            said = None if message.has_error() else _claimed(message)
            if said is not None:
                before = self._known.setdefault((what, message.metadata.src_node_id), said)
                if said != before:
                    complain(message, f"says that it {what} {said:g} examples, {before:g} before")
                    self._known[what, message.metadata.src_node_id] = said
            yield message


def _claimed(message: Message) -> int | float | None:
    records = list(message.content.metric_records.values())
    said = records[0].get(wire.NUM_EXAMPLES) if len(records) == 1 else None
    return said if isinstance(said, int | float) else None


def rebuilt(record: Mapping[str, Any], known: Known) -> tuple[dict[str, int | float], list[str], list[str]]:
    """Return a metric record's valid numbers, its unknown names, and its impossible values.

    Parameters
    ----------
    known
        What may be in it, besides `num-examples`, which is taken as it is if it is a number.

    Examples
    --------
    >>> rebuilt({"train-loss": math.inf, "num-steps": 3, "round": 7}, TRAINING)
    ({'num-steps': 3}, ["'round'"], ['train-loss is inf'])
    """
    numbers: dict[str, int | float] = {}
    unknown, impossible = [], []
    for name, value in record.items():
        if name == wire.NUM_EXAMPLES and isinstance(value, int | float):
            numbers[name] = value
        elif name not in known and name != wire.NUM_EXAMPLES:
            unknown.append(_short(name))
        elif isinstance(value, int | float) and known[name].low <= value <= known[name].high:
            numbers[name] = value
        else:
            impossible.append(
                f"{name} is {value:.6g}" if isinstance(value, int | float) else f"{name} is a list"
            )
    return numbers, unknown, impossible


def cleaned(
    replies: Iterable[Message],
    known: Known,
    complain: Complain,
    *,
    required: Iterable[str] = (),
    strict: bool = False,
) -> Iterator[Message]:
    """Yield replies whose metric record is cut to known names and possible numbers.

    What else a record holds is left out, and said. Errors and refusals pass as they are.

    Parameters
    ----------
    complain
        Told of each reply from which something is left out, or that is not used.
    required
        Names without which a reply is not used.
    strict
        Whether a reply with a number that cannot be, or without its one record, is not used at all: where
        replies consist of nothing else.
    """
    for message in replies:
        if message.has_error() or _refuses(message.content):
            yield message
            continue
        records = message.content.metric_records
        numbers, unknown, impossible = rebuilt(next(iter(records.values()), {}), known)
        reasons = [f"{_listed(unknown)}: no name of a client's"] if unknown else []
        missing = [name for name in required if name not in numbers]
        if missing or (strict and (impossible or len(records) != 1)):
            wrong = [*impossible, *(f"no {name}" for name in missing)] or ["not one metric record"]
            complain(message, f"reports {_listed(wrong)}: not used")
            continue
        if reasons := [*impossible, *reasons]:
            complain(message, f"reports {'; '.join(reasons)}: left out")
        if len(records) == 1 and (unknown or impossible or wire.METRICS not in records):
            others = {n: r for n, r in message.content.items() if n not in records}
            message.content = RecordDict({**others, wire.METRICS: MetricRecord(dict(numbers))})
        yield message


def _refuses(content: RecordDict) -> bool:
    config = content.get(wire.CONFIG)
    return isinstance(config, ConfigRecord) and wire.REFUSED in config


def _short(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
