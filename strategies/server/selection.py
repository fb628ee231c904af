"""Which clients take part in a round, and whose replies come too late for it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.isolation import grouped
from strategies.core.seeds import numpy_generator
from strategies.server.clock import Clock
from strategies.server.selection_methods import Candidates, Known, choose
from strategies.server.settings import SelectionSettings


def select_clients(
    clients: Iterable[str], selection: SelectionSettings, seed: int, server_round: int
) -> list[str]:
    """Return the clients of a round, drawn uniformly without replacement, in the order of `client_sort_key`.

    Parameters
    ----------
    seed, server_round
        Decide the draw.

    Raises
    ------
    LetheError
        If fewer clients are connected than must take part.
    """
    known = sorted(clients, key=wire.client_sort_key)
    require_enough(len(known), selection)
    count = cohort_size(len(known), selection)
    if count == len(known):
        return known
    drawn = numpy_generator(seed, "selection", server_round).choice(len(known), size=count, replace=False)
    return [known[i] for i in sorted(drawn)]


def require_enough(connected: int, selection: SelectionSettings) -> None:
    """Raise `LetheError` if fewer clients are connected than must take part."""
    if connected < selection.min_clients:
        raise LetheError(
            f"{connected} clients are connected, selection.min-clients is {selection.min_clients}"
        )


def cohort_size(connected: int, selection: SelectionSettings) -> int:
    """Return how many of the connected clients a round waits for."""
    return min(connected, max(selection.min_clients, math.ceil(selection.fraction * connected - 1e-9)))


@dataclass(frozen=True)
class Asked:
    """The clients of a round.

    Parameters
    ----------
    clients
        Who is asked, in the order of `client_sort_key`.
    awaited
        How many replies are waited for.
    late
        Who will be too late on the simulated clock, with the time that it takes; these replies do not count.
    seconds
        How long the round takes on the simulated clock; None where there is none.
    """

    clients: list[str]
    awaited: int
    late: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None


def ask_clients(
    num_examples: Mapping[str, int],
    known: Mapping[str, Known],
    selection: SelectionSettings,
    seed: int,
    server_round: int,
) -> Asked:
    """Return the clients to ask in a round, and those that will be too late.

    Parameters
    ----------
    num_examples
        Of the connected clients, by client-id.
    known
        The clients' last reports (see `strategies.server.selection_methods`).
    seed, server_round
        Decide what is drawn.

    Raises
    ------
    LetheError
        If fewer clients are connected than must take part.
    """
    ids = sorted(num_examples, key=wire.client_sort_key)
    awaited = cohort_size(len(ids), selection)
    wanted = min(len(ids), math.ceil(awaited * selection.over_selection - 1e-9))
    clock = Clock(selection.speeds, seed)
    timed = selection.speeds != "none"
    seconds = {i: clock.seconds(i, num_examples[i]) for i in ids} if timed else {}
    at_least = max(wanted, selection.min_clients)
    exactly = selection.model_copy(update={"fraction": 1e-12, "min_clients": at_least})
    chosen = select_clients(ids, exactly, seed, server_round)  # Refuses where too few are connected
    if selection.method != "uniform":
        candidates = Candidates({i: num_examples[i] for i in ids}, known, seconds)
        chosen = choose(candidates, wanted, selection, seed, server_round)
    return _timed(chosen, awaited, seconds, selection.deadline)


def ask_groups(
    num_examples: Mapping[str, int],
    known: Mapping[str, Known],
    selection: SelectionSettings,
    seed: int,
    server_round: int,
    groups: int,
) -> Asked:
    """Return the clients to ask in a round of groups that are trained apart; see `ask_clients`.

    Each group's are drawn as if there were no other; with one group this is `ask_clients`. As many clients as
    `selection.min_clients` must be connected in all, and so many are drawn of a group if it has them.
    """
    if groups == 1:
        return ask_clients(num_examples, known, selection, seed, server_round)
    require_enough(len(num_examples), selection)
    asked = []
    for clients in grouped(num_examples, groups).values():
        own = selection.model_copy(update={"min_clients": min(selection.min_clients, len(clients))})
        asked.append(ask_clients({i: num_examples[i] for i in clients}, known, own, seed, server_round))
    chosen = sorted((i for each in asked for i in each.clients), key=wire.client_sort_key)
    return Asked(chosen, sum(each.awaited for each in asked))


def _timed(chosen: list[str], awaited: int, seconds: Mapping[str, float], deadline: float) -> Asked:
    if not seconds:
        return Asked(chosen, awaited)
    arriving = sorted(chosen, key=lambda i: seconds[i])
    used = [i for i in arriving[:awaited] if not deadline or seconds[i] <= deadline]
    in_time = set(used)
    late = {i: seconds[i] for i in arriving if i not in in_time}
    waited = deadline if deadline and len(used) < min(awaited, len(chosen)) else 0.0
    return Asked(chosen, len(used), late, max([waited, *(seconds[i] for i in used)]))
