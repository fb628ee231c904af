"""What the update log alone says of each client: where its updates point, and how long they are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from strategies.log.index import Entry
from strategies.log.reading import LogReader
from unlearning.suspects.outliers import Values
from unlearning.suspects.signs import SMALLEST_SHARE, Sign, known_means

_HELD_BYTES = 1 << 28
"""Memory for the updates of a round; those that do not fit are read twice."""


@dataclass(frozen=True)
class ClientSums:
    """What each client added to the model in all.

    Parameters
    ----------
    shares
        Each client's share of the weights of all rounds, in [0, 1].
    total
        What all clients together added, shape [P], float64.
    """

    log: LogReader
    clients: Sequence[str]
    shares: Sequence[float]
    total: Tensor

    @staticmethod
    def of(log: LogReader, clients: Sequence[str], total: Tensor) -> "ClientSums":
        """Return the sums of some clients of a log."""
        weights = dict.fromkeys(log.clients(), 0.0)
        for entry in log.entries():
            weights[entry.client_id] += entry.weight
        whole = sum(weights.values())
        return ClientSums(log, clients, [weights[i] / whole for i in clients], total.double())

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each client's Σ weight·update, shape [P], float64; one is held at a time."""
        for client_id in self.clients:
            yield self.log.weighted_sum(client_id).double()


def lengths(log: LogReader, clients: Sequence[str]) -> Sign:
    """Return how long each client's updates are, by the norms that every log keeps.

    A sample is log(‖δ‖ / median of the round); what is shown is the geometric mean of the ratios.
    """
    places = {client_id: place for place, client_id in enumerate(clients)}
    rounds = {number: row for row, number in enumerate(log.rounds())}
    norms = np.full((len(rounds), len(clients)), np.nan)
    for entry in log.entries():
        if entry.client_id in places and entry.num_examples:
            norms[rounds[entry.round], places[entry.client_id]] = entry.norm
    norms = norms[(~np.isnan(norms)).any(axis=1)]
    usual = np.nanmedian(norms, axis=1, keepdims=True)
    ratios = np.divide(norms, usual, out=np.ones_like(norms), where=usual > 0)
    samples = np.where(np.isnan(norms), np.nan, np.log(np.maximum(ratios, SMALLEST_SHARE)))
    shown = [None if mean is None else math.exp(mean) for mean in known_means(samples)]
    return Sign("length", "round", samples[..., None], shown, "its updates are longer than the others'")


def directions(log: LogReader, clients: Sequence[str]) -> Sign:
    """Return how far each client's updates point away from the mean of the others', round by round.

    A sample is the round's median cosine minus the client's; what is shown is the mean cosine. The rounds are
    those whose updates are kept.
    """
    places = {client_id: place for place, client_id in enumerate(clients)}
    kept = log.kept_rounds()
    cosines = np.full((len(kept), len(clients)), np.nan)
    for row, number in enumerate(kept):
        for client_id, cosine in _round_cosines(log, number):
            if client_id in places:
                cosines[row, places[client_id]] = cosine
    return _directions(cosines)


def summed_directions(sums: ClientSums) -> Sign:
    """Return the same of a log that keeps one sum per client: a single sample of each."""
    cosines = [_cosine_to_rest(own, sums.total) for own in sums]
    return _directions(np.array([cosines], dtype=np.float64))


def _directions(cosines: Values) -> Sign:
    cosines = cosines[(~np.isnan(cosines)).any(axis=1)]
    samples = np.nanmedian(cosines, axis=1, keepdims=True) - cosines
    reason = "its updates point away from the others'"
    return Sign("direction", "round", samples[..., None], known_means(cosines), reason)


def _round_cosines(log: LogReader, number: int) -> Iterator[tuple[str, float]]:
    """Yield the cosine of each client's update to the weighted mean of the others'; not if it is alone."""
    most = max(1, _HELD_BYTES // (4 * max(1, log.layout.size)))
    total = torch.zeros(log.layout.size, dtype=torch.float64)
    held: list[tuple[Entry, Tensor]] = []
    count = 0
    for entry, update in log.updates(number):
        total += entry.weight * update.double()
        count += 1
        if len(held) < most:
            held.append((entry, update))
    if count < 2:
        return
    for entry, update in held if count == len(held) else log.updates(number):
        yield entry.client_id, _cosine_to_rest(entry.weight * update.double(), total)


def _cosine_to_rest(part: Tensor, total: Tensor) -> float:
    """Return the cosine of a part of a sum to the rest of it; 0 where one of the two is zero."""
    rest = total - part
    lengths = float(part.norm() * rest.norm())
    return float(part @ rest) / lengths if lengths > 0 else 0.0
