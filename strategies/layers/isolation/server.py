"""Groups of clients that are trained apart, in one training.

Bourtoule et al., "Machine Unlearning", IEEE S&P 2021, arXiv 1912.03817 (SISA), section IV: the data are
parted into k shards, a model is trained on each alone, and their answers are aggregated. Qiu et al.,
"FedCIO", arXiv 2302.12559: the same with clients in place of examples.

    w_g ← A(w_g, {the updates of the clients of group g}),   g = 0 … k − 1, in every round
    F(x) = (1/k) Σ_g softmax(w_g(x))

with any averaging algorithm A. Of what a client sent, nothing is in another group's model, so forgetting it
takes that group's training alone.

Differs from the papers: groups follow from client-ids, not from clusters of similar clients (FedCIO), so that
a client who leaves moves no other; shards have no slices; answers are averaged, not models; all groups train
in the same rounds. With one group it is the algorithm itself.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.core.isolation import group_of
from strategies.layers.isolation.drawn import Fed
from strategies.models.ensemble import member_layout, members_of
from strategies.server import memory
from strategies.server.aggregation import MetricMeans
from strategies.server.grids import client_ids_of, part_of
from strategies.server.guard import ClientUpdate, Reference, all_checked
from strategies.server.wrapper import Answers, ServerHalf, answers_of

_logger = logging.getLogger(__name__)
_Result = tuple[ArrayRecord | None, MetricRecord | None]


@final
class IsolatedGroups(ServerHalf):
    """The server half of groups that are trained apart: one half per group, each with its own model.

    The model of the training is the ensemble of all; a client gets, and answers with, that of its group.

    Parameters
    ----------
    halves
        One per group, at least 2, none of which remembers anything yet.
    """

    memory_name = "isolation"

    def __init__(self, halves: Sequence[Strategy]) -> None:
        self._halves = tuple(halves)
        self._sent: dict[int, Reference] = {}
        self._groups: dict[int, int] = {}
        self._whole = Reference(torch.zeros(0), wire.Layout((), ()))

    @property
    def is_weighted_average(self) -> bool:
        """Whether every group's round is one."""
        return all(answers_of(half).is_weighted_average for half in self._halves)

    @property
    def reply_records(self) -> tuple[str, ...]:
        """The algorithm's answer."""
        return answers_of(self._halves[0]).reply_records

    def share_of(self, client_id: str) -> int:
        """Return the client's group: the weights of a group add up to 1."""
        return group_of(client_id, len(self._halves))

    def divisor_of(self, share: int) -> float | None:
        """Return the answer of the group's half."""
        return answers_of(self._halves[share]).weight_divisor

    def aggregation_weight(self, update: ClientUpdate) -> float:
        """Return the answer of the half of the client's group."""
        return self._half_of(update).aggregation_weight(update)

    def refusal(self, update: ClientUpdate) -> str:
        """Return the answer of the half of the client's group."""
        return self._half_of(update).refusal(update)

    def _half_of(self, update: ClientUpdate) -> Answers:
        return answers_of(self._halves[self.share_of(update.client_id)])

    def reference_of(self, node_id: int) -> Reference | None:
        """Return the model that a node was sent in this round, which its update is measured against."""
        group = self._groups.get(node_id)
        return None if group is None else self._sent[group]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of every group's half, each with the group's own model."""
        layout = wire.layout_of(arrays)
        self._whole = Reference(wire.flat_of(arrays, layout), layout)
        alone = member_layout(layout, len(self._halves))
        flats = members_of(self._whole.flat, len(self._halves))
        nodes = client_ids_of(grid)
        self._groups = {node: self.share_of(client_id) for node, client_id in nodes.items()}
        self._sent.clear()
        messages: list[Message] = []
        for group in sorted(set(self._groups.values())):
            self._sent[group] = Reference(flats[group], alone)
            own = part_of(grid, {n: i for n, i in nodes.items() if self._groups[n] == group})
            model = wire.FlatRecord(flats[group].clone(), alone)
            messages += self._halves[group].configure_train(server_round, model, config, own)
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> _Result:
        """Return the ensemble of the groups' new models, or (None, None) when no reply was usable.

        The model of a group of which no reply was usable stays as it was.
        """
        fed: dict[int, Fed[Message, _Result]] = {}
        examples: dict[int, int] = {}
        try:
            for reply in all_checked(replies, "IsolatedGroups"):
                group = self._groups[reply.update.node_id]
                if group not in fed:
                    fed[group] = Fed(self._aggregation(group, server_round))
                fed[group].give(reply)
                examples[group] = examples.get(group, 0) + reply.update.num_examples
            results = {group: each.finish() for group, each in sorted(fed.items())}
        finally:
            for each in fed.values():
                each.abandon()
        return self._joined(results, examples)

    def _aggregation(self, group: int, server_round: int) -> Callable[[Iterable[Message]], _Result]:
        return lambda replies: self._halves[group].aggregate_train(server_round, replies)

    def _joined(self, results: Mapping[int, _Result], examples: Mapping[int, int]) -> _Result:
        parts = list(members_of(self._whole.flat, len(self._halves)))
        metrics, changed = MetricMeans(), False
        for group, (arrays, means) in results.items():
            if arrays is not None:
                parts[group] = wire.flat_of(arrays, self._sent[group].layout)
                changed = True
            metrics.add(dict(wire.iter_numbers(means or {})), examples[group])
        if not changed:
            return None, None
        return wire.FlatRecord(torch.cat(parts), self._whole.layout), MetricRecord(dict(metrics.means()))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the ensemble to every node, as the algorithm sends a model."""
        return self._halves[0].configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return what the algorithm makes of the clients' figures."""
        return self._halves[0].aggregate_evaluate(server_round, replies)

    def memory(self) -> dict[str, Tensor]:
        """Return what the groups' halves keep between rounds, by name."""
        return {
            f"{group}/{name}": tensor
            for group, half in enumerate(self._halves)
            for name, tensor in memory.capture(half).items()
        }

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        for group, half in enumerate(self._halves):
            prefix = f"{group}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            memory.restore(half, own)

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("isolation: %d groups of clients are trained apart", len(self._halves))
        self._halves[0].summary()
