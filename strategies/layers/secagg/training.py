"""Training under secure aggregation: what a client adds to the sum, and the model that the sum gives.

A client's vector is, in the fixed point 2^-b of `strategies.server.aggregation.ExactSum`, with rounding to
nearest,

    [ n_k · δ_k · 2^b,  n_k,  n_k · loss_k · 2^b ]

so that neither its update, nor how many examples it has, nor its loss is seen by itself. The sum modulo 2^64
is the sum that plain federated averaging computes; with the same b the model is the same, to the bit.

What a server cannot see it cannot check: a client that sends nonsense spoils its round like a poisoned update
would. The client itself refuses to send what is not finite, and a sum that no honest clients could give is
not used.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.secagg.masking import Vector
from strategies.layers.secagg.server import Content, SecureSum
from strategies.server.aggregation import MAX_ABS_UPDATE, fixed_point, fraction_bits, largest_entry
from strategies.server.cohort import Cohort, Reply
from strategies.server.grids import CohortGrid
from strategies.server.guard import CheckedReply, Reference, SummedUpdate
from strategies.server.members import ClientInfo
from strategies.server.wrapper import StrategyWrapper

_BESIDES = 2
"""Entries of the vector after those of the model: the weight, and the weighted loss."""


def client_vector(delta: Tensor, weight: int, loss: float, bits: int) -> Vector:
    """Return what a client adds to the sum.

    Parameters
    ----------
    delta
        New minus old parameters, shape [size], float32.
    weight
        Number of examples, at least 0.
    loss
        Mean loss; 0 where it is not told.
    bits
        b, from 0 to 52.

    Returns
    -------
    Vector
        Shape [size + 2].

    Raises
    ------
    LetheError
        If an entry is not finite or too large: the client has diverged, and nothing is sent.

    Examples
    --------
    >>> client_vector(torch.tensor([0.5, -1.0]), 3, 2.0, bits=1).view(np.int64).tolist()
    [3, -6, 3, 12]
    """
    largest = largest_entry(delta) if len(delta) else 0.0
    if not (largest <= MAX_ABS_UPDATE and abs(loss) <= MAX_ABS_UPDATE):
        raise LetheError(f"the update is not within ±{MAX_ABS_UPDATE:g}: it diverged, and nothing is sent")
    factor = weight * 2.0**bits
    besides = torch.tensor([weight, round(loss * factor)], dtype=torch.int64)
    parts: Vector = torch.cat([fixed_point(delta, factor), besides]).numpy().view(np.uint64)
    return parts


def summed(total: Vector, bits: int, max_weight: int, mask: Tensor | None = None) -> SummedUpdate:
    """Return the update that a sum of client vectors is.

    Parameters
    ----------
    total
        Shape [size + 2].
    bits
        b.
    max_weight
        What the clients weigh at most between them.
    mask
        Which entries may differ from zero, shape [size], bool; None: all.

    Raises
    ------
    ValueError
        If no client had an example, or no honest clients could give that sum.
    """
    flat = torch.from_numpy(total.view(np.int64))
    update, weight, loss = flat[:-_BESIDES], int(flat[-2]), int(flat[-1])
    if weight == 0:
        raise ValueError("no client has an example left")
    bound = MAX_ABS_UPDATE * weight * 2.0**bits
    low, high = (int(v) for v in torch.aminmax(update)) if len(update) else (0, 0)
    if not 0 < weight <= max_weight or max(-low, high, abs(loss)) > bound:
        raise ValueError("the sum is none that clients could give who follow the protocol: it is not used")
    if mask is not None and bool(update[~mask].any()):
        raise ValueError("pruned weights were changed")
    mean = update.double().div_(weight * 2.0**bits).float()
    norm = float(torch.linalg.vector_norm(mean))
    metrics = {wire.TRAIN_LOSS: loss / (weight * 2.0**bits)} if loss else {}
    return SummedUpdate(
        wire.EVERYBODY, 0, weight, mean, norm, metrics, total=update, weight=float(weight), bits=bits
    )


@final
@dataclass(frozen=True)
class SecureSettings:
    """What a secure sum of updates depends on.

    Parameters
    ----------
    threshold
        Share of a round's clients that must stay to the end.
    max_weight
        What one client weighs at most.
    """

    threshold: float
    max_weight: int


@final
@dataclass(frozen=True)
class Federation:
    """The clients as a secure round needs them.

    Parameters
    ----------
    names
        Node id -> client-id, kept up to date by its owner.
    scope
        Returns the name of the present round, for faults.
    accept
        Told the client-id of each whose update is in the model.
    """

    cohort: Cohort
    names: Mapping[int, str]
    scope: Callable[[], str]
    accept: Callable[[str], None]

    def ask(self, message_type: str, content: Content, client_ids: Sequence[str]) -> Iterator[Reply]:
        """Send each client a message."""
        return self.cohort.ask(message_type, content, client_ids, self.scope())

    def blame(self, client_id: str, reason: str) -> None:
        """Record what went wrong."""
        self.cohort.add_fault(client_id, self.scope(), reason)


@final
class SecureStrategy(StrategyWrapper):
    """Let only the sum of the updates through to the wrapped strategy, as one checked reply.

    It takes the place of the guard. Who deals or opens wrong shares is asked no more in this training.

    Parameters
    ----------
    inner
        A strategy that adds the weighted mean of the updates.
    """

    def __init__(self, inner: Strategy, settings: SecureSettings, federation: Federation) -> None:
        super().__init__(inner)
        self._settings = settings
        self._federation = federation
        self._barred: set[str] = set()
        self._sum: SecureSum | None = None
        self._size = self._bits = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Exchange keys and shares; then send the model to those who are ready.

        The fixed point of the sum is as fine as the weights of those clients allow.
        """
        self._size = Reference.of(arrays).layout.size + _BESIDES
        federation = self._federation
        nodes = {federation.names[node]: node for node in grid.get_node_ids()}
        for client_id in self._barred & set(nodes):
            federation.blame(client_id, "not asked: it dealt or opened wrong shares before")
        asked = [i for i in nodes if i not in self._barred]
        self._sum = SecureSum(asked, self._settings.threshold, federation.ask, federation.blame)
        ready = {i: ClientInfo(i, nodes[i], 1) for i in self._sum.open()}
        self._bits = fraction_bits(self._settings.max_weight * max(1, len(ready)))
        messages = list(self.inner.configure_train(server_round, arrays, config, CohortGrid(grid, ready)))
        for message in messages:
            invitation = self._sum.invitation(federation.names[message.metadata.dst_node_id])
            wire.add_entries(message, {wire.SUM_BITS: self._bits, **invitation})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the vectors as they arrive, unmask the sum and pass it on; pass nothing if there is no sum."""
        if self._sum is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        reports: dict[str, Mapping[str, float]] = {}
        last: Message | None = None
        for reply in replies:
            client_id = self._federation.names[reply.metadata.src_node_id]
            try:
                self._sum.add(client_id, reply.content, self._size)
            except ValueError as error:
                self._federation.blame(client_id, str(error))
                continue
            last = reply
            if report := _report(reply):
                reports[client_id] = report
        update = self._unmasked(self._sum)
        self._barred |= self._sum.suspects
        if update is None or last is None:
            return self.inner.aggregate_train(server_round, [])
        for client_id in self._sum.survivors:
            self._federation.accept(client_id)
        whole = replace(update, client_reports=reports)
        return self.inner.aggregate_train(server_round, [CheckedReply.of(last, whole)])

    def _unmasked(self, secure: SecureSum) -> SummedUpdate | None:
        if (total := secure.close()) is None:
            return None
        most = self._settings.max_weight * len(secure.survivors)
        try:
            return summed(total, self._bits, most, self._federation.cohort.mask)
        except ValueError as error:
            self._federation.blame(wire.EVERYBODY, str(error))
            return None


def _report(reply: Message) -> dict[str, float]:
    """Return what a client reports in the clear: what it has spent of its privacy budget."""
    metrics = dict(wire.iter_numbers(reply.content.metric_records.get(wire.METRICS, {})))
    if wire.EPSILON not in metrics:
        return {}
    return {name: metrics[name] for name in (wire.EPSILON, wire.NOISE_MULTIPLIER) if name in metrics}
