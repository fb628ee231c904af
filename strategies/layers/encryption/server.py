"""The server's half: add ciphertexts, and have clients decrypt the sum.

What the strategy inside sees is one update that stands for all, the weighted mean. The server holds no key
and keeps one vector of ciphertexts, however many clients there are. It learns the mean of each round and
nothing of single clients but their numbers of examples, as long as it follows the protocol: clients cannot
tell the ciphertexts of a sum from those of one client.

A sum is decrypted by two clients that took part, and by more until two agree, as a single one could answer
anything. Where only one took part, its word is taken: it is its own update.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.layers.encryption.ckks import FLOODING_STD, EncryptedSum
from strategies.layers.encryption.client import MAX_WEIGHT
from strategies.server.aggregation import MAX_ABS_UPDATE
from strategies.server.cohort import Cohort
from strategies.server.guard import CheckedReply, ClientUpdate, Rejected, check_answered, example_count
from strategies.server.wrapper import StrategyWrapper

_APART = 16 * FLOODING_STD
"""How far two decryptions of a sum may be apart: their noise is within a third of that."""


@dataclass(frozen=True, eq=False)
class MeanUpdate(ClientUpdate):
    """The weighted mean of several clients' updates, of which nothing else is known."""

    @property
    def reports(self) -> Mapping[str, Mapping[str, float]]:
        """Nothing of single clients."""
        return {}


@dataclass
class _Sum:
    """The sum of a round so far."""

    total: EncryptedSum
    key_id: str = ""
    weight: int = 0
    replies: dict[str, Message] = field(default_factory=dict)


@final
class EncryptedStrategy(StrategyWrapper):
    """Add up encrypted updates and hand on their decrypted mean; everything else passes.

    It stands where the guard does otherwise, which cannot look into ciphertexts: what a client sends is its
    own word, which no server can check.

    Parameters
    ----------
    inner
        A strategy that adds the weighted mean of the updates.
    names
        Node id -> client-id, kept up to date by its owner.
    max_examples
        Node id -> number of examples that the node described itself with.
    reject
        Told of each reply that cannot be used, and why.
    accept
        Told the client-id of each whose update is in the model.
    """

    def __init__(
        self,
        inner: Strategy,
        cohort: Cohort,
        names: Mapping[int, str],
        max_examples: Mapping[int, int],
        reject: Callable[[Message, str], None],
        accept: Callable[[str], None],
    ) -> None:
        super().__init__(inner)
        self._cohort = cohort
        self._names = names
        self._max_examples = max_examples
        self._reject = reject
        self._accept = accept
        self._size = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note the size of the updates that the clients will send.

        Raises
        ------
        LetheError
            If clients were to train different parts of the model, whose updates cannot be added up.
        """
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        parts = {message.content.config_records[wire.CONFIG].get(wire.POSITIONS) for message in messages}
        if len(parts) > 1:
            raise LetheError("encryption: the clients train different parts of the model; give all one keep")
        for message in messages[:1]:
            self._size = wire.layout_of(message.content.array_records[wire.ARRAYS]).size
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the updates one at a time, have the sum decrypted, and hand on the mean."""
        return self.inner.aggregate_train(server_round, self._mean(server_round, replies))

    def _mean(self, server_round: int, replies: Iterable[Message]) -> Iterator[Message]:
        found = _Sum(EncryptedSum(self._size))
        for reply in replies:
            try:
                self._add(found, reply)
            except (Rejected, ValueError) as reason:
                self._reject(reply, str(reason))
        if not found.replies:
            return
        mean = self._decrypted(found, f"round {server_round}, decryption")
        if mean is not None:
            last = next(reversed(found.replies.values()))
            node_id, norm = last.metadata.src_node_id, float(torch.linalg.vector_norm(mean))
            for client_id in found.replies:
                self._accept(client_id)
            yield CheckedReply.of(last, MeanUpdate(wire.EVERYBODY, node_id, found.weight, mean, norm))

    def _add(self, found: _Sum, reply: Message) -> None:
        check_answered(reply)
        content, node_id = reply.content, reply.metadata.src_node_id
        weight = example_count(content.metric_records, self._max_examples.get(node_id))
        if found.weight + weight > MAX_WEIGHT:
            raise Rejected(f"the round's examples would be more than {MAX_WEIGHT}")
        sent = content.config_records.get(wire.ENCRYPTED, ConfigRecord())
        payload, key_id = sent.get(wire.PAYLOAD), sent.get(wire.KEY_ID)
        if not isinstance(payload, list) or not isinstance(key_id, str):
            raise Rejected("expected an encrypted update")
        if key_id != (found.key_id or key_id):
            raise Rejected("its update is encrypted with another key than those of the others")
        found.total.add([part for part in payload if isinstance(part, bytes)])
        found.key_id, found.weight = key_id, found.weight + weight
        found.replies[self._names[node_id]] = reply

    def _decrypted(self, found: _Sum, scope: str) -> Tensor | None:
        """Return the mean that two clients agree on, shape [P]; None and a fault if no two agree."""
        record = ConfigRecord(
            {
                wire.PAYLOAD: found.total.ciphertexts(),
                wire.SIZE: self._size,
                wire.WEIGHT: found.weight,
                wire.KEY_ID: found.key_id,
            }
        )
        waiting = sorted(found.replies, key=wire.client_sort_key)
        answers: dict[str, Tensor] = {}
        asked = waiting[:2]
        while asked:
            waiting = waiting[len(asked) :]
            for reply in self._cohort.ask(wire.DECRYPT, RecordDict({wire.ENCRYPTED: record}), asked, scope):
                try:
                    answers[reply.client_id] = self._answer(reply.message)
                except (Rejected, ValueError) as reason:
                    self._cohort.add_fault(reply.client_id, scope, str(reason))
            agreed = agreeing(answers, _APART / found.weight)
            if agreed or (answers and len(found.replies) == 1):
                return self._settled(answers, agreed or list(answers), scope)
            asked = waiting[:1]
        self._cohort.add_fault(
            wire.EVERYBODY, scope, "no two clients agree on what the sum of the updates is"
        )
        return None

    def _settled(self, answers: Mapping[str, Tensor], agreed: Sequence[str], scope: str) -> Tensor:
        for client_id in answers.keys() - set(agreed):
            reason = f"its decryption of the sum is not that of clients {' and '.join(agreed)}"
            self._cohort.add_fault(client_id, scope, reason)
        return answers[agreed[0]]

    def _answer(self, message: Message) -> Tensor:
        check_answered(message)
        record = message.content.array_records.get(wire.ARRAYS)
        if record is None:
            raise Rejected("expected the mean of the updates")
        mean = wire.flat_of(record, wire.Layout((wire.MEAN,), ((self._size,),)))
        if not bool((mean.abs() <= MAX_ABS_UPDATE).all()):
            raise Rejected(f"an entry of the mean is not within ±{MAX_ABS_UPDATE:g}")
        return mean


def agreeing(answers: Mapping[str, Tensor], apart: float) -> list[str]:
    """Return the first two clients whose answers agree up to noise; empty if no two do.

    Parameters
    ----------
    answers
        Client-id -> what it answered, shape [P], float32.
    apart
        Largest difference that noise makes.

    Examples
    --------
    >>> one = torch.ones(3)
    >>> agreeing({"a": one, "b": one + 1, "c": one}, 1e-6)
    ['a', 'c']
    """
    names = list(answers)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            rounding = 2.0**-22 * float(answers[first].abs().max()) if len(answers[first]) else 0.0
            difference = (answers[first] - answers[second]).abs()
            if not len(difference) or float(difference.max()) <= math.fsum((apart, rounding)):
                return [first, second]
    return []
