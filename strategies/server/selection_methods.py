"""Choosing clients by what is known of them: their last loss, their speed, how often they were asked.

- ``power-of-choice`` (Cho, Wang, Joshi, arXiv 2010.01243): d candidates are drawn with probability
  proportional to their examples, and those with the largest loss take part. This is the paper's variant
  rpow-d: the loss is the one that a client last reported, and clients without a report come first.
- ``oort`` (Lai et al., OSDI 2021, arXiv 2010.06081): a share of the places goes to clients that were never
  asked; the others to the largest utility,

      n_i · loss_i · (T / t_i)^2 where t_i > T, plus a bonus √(0.1 ln R / r_i) of the largest utility,

  with t_i its time on the simulated clock, T the median of all, R the round and r_i the round in which the
  client was last heard. Differs: the paper takes the root mean square of the examples' losses, of which a
  client tells only the mean, and paces T.
- ``budgeted``: uniform among those that were asked less often than the budget allows.

Where everybody takes part, all of them are uniform selection.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.seeds import numpy_generator
from strategies.server.guard import CheckedReply
from strategies.server.settings import SelectionSettings
from strategies.server.wrapper import StrategyWrapper

_SLOWNESS_EXPONENT = 2.0
_IDS, _NUMBERS = "/ids", "/numbers"
"""In a checkpoint; no client-id has a slash."""


@dataclass
class Known:
    """How often a client was asked, the round of its last reply (0: none), and the loss it reported then."""

    asked: int = 0
    last_round: int = 0
    loss: float = math.inf


@dataclass(frozen=True)
class Candidates:
    """Who can be chosen in a round.

    Parameters
    ----------
    num_examples
        By client-id, in the order of `client_sort_key`.
    known
        By client-id; missing for clients that were never asked.
    seconds
        Time on the simulated clock, by client-id; empty where there is none.
    """

    num_examples: Mapping[str, int]
    known: Mapping[str, Known]
    seconds: Mapping[str, float]

    def of(self, client_id: str) -> Known:
        """Return what is known of a client."""
        return self.known.get(client_id, Known())


def choose(
    candidates: Candidates, count: int, settings: SelectionSettings, seed: int, server_round: int
) -> list[str]:
    """Return that many clients, or as many as can be chosen, in the order of the candidates.

    Parameters
    ----------
    candidates
        At least `count`.
    seed, server_round
        Decide what is drawn.
    """
    ids = list(candidates.num_examples)
    if settings.method == "budgeted":
        ids = [i for i in ids if candidates.of(i).asked < settings.budget]
    if len(ids) <= count:
        return ids
    scope = (seed, "selection", server_round)
    if settings.method == "power-of-choice":
        drawn = _drawn_by_size(ids, candidates, max(count, settings.candidates or 2 * count), scope)
        chosen = sorted(drawn, key=lambda i: -candidates.of(i).loss)[:count]
    elif settings.method == "oort":
        chosen = _by_utility(ids, candidates, count, settings.explore, scope)
    else:
        chosen = _drawn(ids, count, scope)
    among = set(chosen)
    return [i for i in ids if i in among]


_Scope = tuple[int, str, int]


def _drawn(ids: list[str], count: int, scope: _Scope) -> list[str]:
    return [ids[j] for j in numpy_generator(*scope).choice(len(ids), size=count, replace=False)]


def _drawn_by_size(ids: list[str], candidates: Candidates, count: int, scope: _Scope) -> list[str]:
    sizes = [candidates.num_examples[i] for i in ids]
    total = sum(sizes)
    shares = [size / total for size in sizes]
    size = min(count, len(ids))
    return [ids[j] for j in numpy_generator(*scope).choice(len(ids), size=size, replace=False, p=shares)]


def _by_utility(
    ids: list[str], candidates: Candidates, count: int, explore: float, scope: _Scope
) -> list[str]:
    new = [i for i in ids if not candidates.of(i).asked]
    old = [i for i in ids if candidates.of(i).asked]
    places = min(len(new), max(math.ceil(explore * count), count - len(old)))
    utilities = _utilities(old, candidates, scope[2])
    best = sorted(old, key=lambda i: -utilities[i])[: count - places]
    return best + _drawn(new, places, scope)


def _utilities(ids: list[str], candidates: Candidates, server_round: int) -> dict[str, float]:
    times = sorted(candidates.seconds.values())
    preferred = times[len(times) // 2] if times else math.inf
    plain = {}
    for i in ids:
        loss = candidates.of(i).loss
        slow = (preferred / candidates.seconds[i]) ** _SLOWNESS_EXPONENT if times else 1.0
        plain[i] = candidates.num_examples[i] * loss * min(1.0, slow) if math.isfinite(loss) else 0.0
    largest = max(plain.values(), default=0.0)
    last = {i: max(1, candidates.of(i).last_round) for i in ids}
    bonuses = {i: math.sqrt(0.1 * math.log(max(1, server_round)) / last[i]) for i in ids}
    return {i: value + largest * bonuses[i] for i, value in plain.items()}


@final
class LastKnownLoss(StrategyWrapper):
    """Remember the loss that each client last reported, for selection; it belongs inside the guard."""

    memory_name = "selection"

    def __init__(self, inner: Strategy) -> None:
        super().__init__(inner)
        self.known: dict[str, Known] = {}

    def asked(self, client_ids: Iterable[str]) -> None:
        """Note who is asked."""
        for client_id in client_ids:
            self.known.setdefault(client_id, Known()).asked += 1

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Note what each reply says."""
        return self.inner.aggregate_train(server_round, self._noted(server_round, replies))

    def _noted(self, server_round: int, replies: Iterable[Message]) -> Iterator[Message]:
        for reply in replies:
            if isinstance(reply, CheckedReply):
                for client_id, metrics in reply.update.reports.items():
                    known = self.known.setdefault(client_id, Known())
                    known.last_round = server_round
                    known.loss = metrics.get(wire.TRAIN_LOSS, known.loss)
            yield reply
            del reply  # Not held while the next one arrives, which may be large

    def memory(self) -> dict[str, Tensor]:
        """Return what must be in a checkpoint."""
        if not self.known:
            return {}
        rows = [[known.asked, known.last_round, known.loss] for known in self.known.values()]
        ids = json.dumps(list(self.known)).encode()
        return {
            _IDS: torch.frombuffer(bytearray(ids), dtype=torch.uint8),
            _NUMBERS: torch.tensor(rows, dtype=torch.float64),
        }

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned; earlier versions had a row under each client-id."""
        rows = {i: numbers.tolist() for i, numbers in tensors.items() if i not in (_IDS, _NUMBERS)}
        if _IDS in tensors:
            ids = json.loads(tensors[_IDS].numpy().tobytes())
            rows |= dict(zip(ids, tensors[_NUMBERS].tolist(), strict=True))
        for client_id, (asked, last_round, loss) in rows.items():
            self.known[client_id] = Known(int(asked), int(last_round), loss)
