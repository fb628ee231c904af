"""Which clients take part in a round."""

import math
from collections.abc import Iterable

from strategies import wire
from strategies.errors import LetheError
from strategies.seeds import numpy_generator
from strategies.settings import SelectionSettings


def select_clients(
    clients: Iterable[str], selection: SelectionSettings, seed: int, server_round: int
) -> list[str]:
    """Return the clients of a round, drawn uniformly without replacement, in the order of `client_sort_key`.

    Parameters
    ----------
    clients
        Client-ids that are connected.
    selection
        The share to draw, and how many at least.
    seed, server_round
        Decide the draw.

    Raises
    ------
    LetheError
        If fewer clients are connected than must take part.
    """
    known = sorted(clients, key=wire.client_sort_key)
    if len(known) < selection.min_clients:
        raise LetheError(
            f"{len(known)} clients are connected, selection.min-clients is {selection.min_clients}"
        )
    count = min(len(known), max(selection.min_clients, math.ceil(selection.fraction * len(known) - 1e-9)))
    if count == len(known):
        return known
    drawn = numpy_generator(seed, "selection", server_round).choice(len(known), size=count, replace=False)
    return [known[i] for i in sorted(drawn)]
