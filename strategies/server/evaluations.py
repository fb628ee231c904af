"""The figures of a model over what clients hold out: checked, and added up exactly."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message

from strategies.core import wire
from strategies.figures import Figures, Sums, added
from strategies.server.reports import Complain


class Evaluations:
    """What the clients of one round say of its model, by client.

    Parameters
    ----------
    figures
        Which sums the clients send.
    complain
        Told of each reply whose sums cannot be: nothing of it is used.
    name
        Returns the client-id behind a reply.
    """

    def __init__(self, figures: Figures, complain: Complain, name: Callable[[Message], str]) -> None:
        self._figures = figures
        self._complain = complain
        self._name = name
        self._sums: dict[str, Sums] = {}
        self._rows: dict[str, dict[str, float]] = {}

    def taken(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Note the sums of each reply whose numbers were checked, and pass it on."""
        for reply in replies:
            numbers = dict(wire.iter_numbers(reply.content.metric_records[wire.METRICS]))
            count = int(numbers[wire.NUM_EXAMPLES])
            try:
                record = reply.content.array_records.get(wire.SUMS, ArrayRecord())
                sums = self._figures.read(record, count, numbers.get(wire.ACCURACY))
            except ValueError as error:
                self._complain(reply, f"reports {error}: not used")
                continue
            client_id = self._name(reply)
            self._sums[client_id] = sums
            self._rows[client_id] = self._row(sums, numbers, count)
            yield reply

    def _row(self, sums: Sums, numbers: Mapping[str, float], count: int) -> dict[str, float]:
        values = self._figures.values(sums) | _named(self._figures, numbers)
        headline = self._figures.headline
        return {"examples": count} | ({headline: values[headline]} if headline in values else {})

    def values(self) -> dict[str, float]:
        """Return the metrics over all examples of the clients whose sums were noted."""
        return self._figures.values(added(self._sums.values())) if self._sums else {}

    def to_json(self, values: Mapping[str, float]) -> dict[str, Any] | None:
        """Return the figures with their tables, of the clients' own data; None if nobody answered.

        `values` has the score and the loss over all of them.
        """
        if not self._sums:
            return None
        ids = sorted(self._rows, key=wire.client_sort_key)
        document = evaluation_json(self._figures, added(self._sums.values()), _named(self._figures, values))
        examples = int(sum(row["examples"] for row in self._rows.values()))
        clients = {i: self._rows[i] for i in ids}
        return {"examples": examples, **document, "clients": clients}


def _named(figures: Figures, numbers: Mapping[str, float]) -> dict[str, float]:
    names = {wire.ACCURACY: figures.task.figure, wire.LOSS: wire.LOSS}
    return {names[key]: value for key, value in numbers.items() if key in names}


def evaluation_json(figures: Figures, sums: Sums, values: Mapping[str, float]) -> dict[str, Any]:
    """Return a model's figures as plain data: the headline, one number each, tables, and by group.

    `values` has the score and the loss.
    """
    return {
        "task": figures.task.name,
        "headline": figures.headline,
        "higher-is-better": figures.higher_is_better,
        "figures": {**values, **figures.values(sums)},
        "tables": figures.tables(sums),
        "groups": figures.groups(sums),
    }
