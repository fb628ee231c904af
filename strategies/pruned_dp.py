"""Gradient-pruned aggregation: each client trains, privately or not, a smaller network of its own size.

After Wang, Yang, Dai, "lightweight differentially private federated learning by gradient selection",
计算机科学 51(1), 2024, and its published relatives: Federated Dropout (arXiv 1812.07210: `random`),
HeteroFL (arXiv 2010.01264) and FjORD (arXiv 2102.13451; both `ordered`). Client k keeps the ⌈p_k n_l⌉
neurons of each hidden layer l that score highest; only their entries travel, down and up, with the positions
of the neurons. Entry e of the model then moves by

    Δ_e = Σ_{k has e} n_k δ_{k,e} / Σ_{k has e} n_k,

and an entry that nobody had keeps its value. With p_k = 1 for all it is FedAvg, to the bit.

Differs from the paper: the server selects, from what it may know anyway, so that no client's data say which
neurons it trains, and the full model need not travel. Scores are `fisher` (mean squared gradients of log p on
public data, or how far the released model has moved from its start), `magnitude`, `random` and `ordered`. A
selection by private scores would be a release of its own; it is refused.

With noise of a given multiplier, ε is that of the full network: what pruning lowers is the noise's length, as
σC√k is shorter than σC√d, and the bytes and the work.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn
from torch.nn import functional

from strategies import wire
from strategies.errors import LetheError
from strategies.examples import Examples
from strategies.fedavg import train_client
from strategies.guard import CheckedReply, Reference
from strategies.seeds import torch_generator
from strategies.settings import StrategySettings
from strategies.subnetwork import (
    Kept,
    block_index,
    hidden_groups,
    keep_count,
    neuron_scores,
    pack_kept,
    top_neurons,
    unpack_kept,
)
from strategies.wrapper import StrategyWrapper

__all__ = ["PrunedStrategy", "Pruning", "fisher_scores", "train_client"]

NAME = "pruned-dp"
_MOST_PUBLIC = 256
"""Public examples that the Fisher information is estimated on."""


@dataclass(frozen=True, eq=False)
class Pruning:
    """What the server selects by.

    Parameters
    ----------
    settings
        Of the strategy.
    model
        The run's, with its initial weights; it is not changed.
    seed
        The run's.
    public
        Public data, where the scores come from them.
    """

    settings: StrategySettings
    model: nn.Module
    seed: int
    public: Examples | None = None

    def kept(self, client_id: str, keep: float, server_round: int, scores: Mapping[str, Tensor]) -> Kept:
        """Return the neurons that a client trains from this round on."""
        chosen = []
        for group in hidden_groups(self.model):
            count = keep_count(keep, group.size)
            if self.settings.score == "ordered":
                chosen.append(tuple(range(count)))
            elif self.settings.score == "random":
                generator = torch_generator(self.seed, "prune", client_id, server_round, group.name)
                drawn = torch.randperm(group.size, generator=generator)[:count]
                chosen.append(tuple(sorted(drawn.tolist())))
            else:
                chosen.append(top_neurons(neuron_scores(scores, group), count))
        return tuple(chosen)

    def scores(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a score for every entry of the model; nothing where none is needed."""
        if self.settings.score == "magnitude":
            return {name: tensor.abs() for name, tensor in state.items()}
        if self.settings.score != "fisher":
            return {}
        if self.settings.score_source == "global-model":
            start = self.model.state_dict()
            return {name: (tensor - start[name].cpu()).square() for name, tensor in state.items()}
        if self.public is None:
            raise LetheError("strategy.score-source: 'public' without public data")
        model = copy.deepcopy(self.model)
        model.load_state_dict(dict(state), strict=False)
        return fisher_scores(model, self.public.subset(range(min(_MOST_PUBLIC, len(self.public)))))


def fisher_scores(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    """Return mean_x (∂ log p(y|x) / ∂θ)² for every parameter, by name.

    Where a label is unknown (negative), y is the class that the model finds likeliest.
    """
    parameters = dict(model.named_parameters())
    totals = {name: torch.zeros_like(p, device="cpu") for name, p in parameters.items()}
    device = next(iter(parameters.values())).device
    for x, label in zip(examples.x, examples.y.tolist(), strict=True):
        logits = model(x[None].to(device))
        target = logits.argmax(dim=1) if label < 0 else torch.tensor([label], device=device)
        gradients = torch.autograd.grad(functional.cross_entropy(logits, target), list(parameters.values()))
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total.add_(gradient.cpu().square())
    return {name: total / max(1, len(examples)) for name, total in totals.items()}


@dataclass(frozen=True, eq=False)
class _Block:
    """What one client has of the model in a round."""

    index: Tensor
    reference: Reference


@final
class PrunedStrategy(StrategyWrapper):
    """The server half: sends blocks, and turns the blocks that come back into updates of the whole model.

    It belongs inside the guard, which checks a block against what was sent, and outside the log, which then
    holds each client's share of what was added: n_k δ_{k,e} / Σ n, written as an update of the whole model
    with weight n_k. The blocks of a round wait in memory until all are there.

    Parameters
    ----------
    inner
        Adds the weighted mean of the updates.
    pruning
        How neurons are selected.
    names
        Node id -> client-id, kept up to date by its owner.
    keeps
        Client-id -> share of the neurons that the client said it can train.
    by_asked
        Whether an entry is divided by the number of clients that were asked for it, rather than by the
        examples of those that answered: what central noise needs.
    """

    def __init__(
        self,
        inner: Strategy,
        pruning: Pruning,
        names: Mapping[int, str],
        keeps: Mapping[str, float],
        by_asked: bool = False,
    ) -> None:
        super().__init__(inner)
        self._pruning = pruning
        self._names = names
        self._keeps = keeps
        self._by_asked = by_asked
        self._groups = hidden_groups(pruning.model)
        self._blocks: dict[int, _Block] = {}
        self._size = 0
        self.selected: dict[str, bytes] = {}

    def reference_of(self, node_id: int) -> Reference | None:
        """Return what a node was sent in this round."""
        block = self._blocks.get(node_id)
        return None if block is None else block.reference

    @property
    def entry_counts(self) -> Tensor | None:
        """How many clients were asked for each entry, shape [P]; None where nothing is divided by that."""
        if not self._by_asked:
            return None
        counts = torch.zeros(self._size, dtype=torch.int64)
        for block in self._blocks.values():
            counts[block.index] += 1
        return counts

    def _keep_of(self, client_id: str) -> float:
        settings = self._pruning.settings
        return settings.client_keeps.get(client_id) or self._keeps.get(client_id) or settings.keep

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every client its block, after selecting anew where it is time to."""
        layout = wire.layout_of(arrays)
        flat, self._size, self._blocks = wire.flat_of(arrays, layout), layout.size, {}
        if (server_round - 1) % self._pruning.settings.refresh == 0:
            self.selected.clear()
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        names = [self._names[message.metadata.dst_node_id] for message in messages]
        scores = {} if set(names) <= set(self.selected) else self._pruning.scores(layout.unflatten(flat))
        for client_id, message in zip(names, messages, strict=True):
            if client_id not in self.selected:
                kept = self._pruning.kept(client_id, self._keep_of(client_id), server_round, scores)
                self.selected[client_id] = pack_kept(self._groups, kept)
            packed = self.selected[client_id]
            index, small = block_index(layout, self._groups, unpack_kept(self._groups, packed))
            block = flat[index]
            self._blocks[message.metadata.dst_node_id] = _Block(index, Reference(block, small))
            told = {**message.content.config_records[wire.CONFIG], wire.POSITIONS: packed}
            record = wire.FlatRecord(block, small)
            message.content = RecordDict({wire.ARRAYS: record, wire.CONFIG: ConfigRecord(told)})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model with every entry moved by the mean over the clients that had it."""
        return self.inner.aggregate_train(server_round, self._scattered(replies))

    def _scattered(self, replies: Iterable[Message]) -> Iterator[Message]:
        good: list[CheckedReply] = []
        for reply in replies:
            if not isinstance(reply, CheckedReply):
                raise LetheError("pruned-dp: a reply was not checked; put PrunedStrategy inside the guard")
            good.append(reply)
        weights = self.entry_counts
        if weights is None:
            weights = torch.zeros(self._size, dtype=torch.int64)
            for reply in good:
                weights[self._blocks[reply.update.node_id].index] += reply.update.num_examples
        total = sum(reply.update.num_examples for reply in good)
        for reply in good:
            index = self._blocks[reply.update.node_id].index
            delta = torch.zeros(self._size)
            delta[index] = (reply.update.delta.double() * (total / weights[index].double())).float()
            norm = float(torch.linalg.vector_norm(delta.double()))
            yield CheckedReply.of(reply, replace(reply.update, delta=delta, norm=norm))


def restored(selected: Mapping[str, str]) -> dict[str, bytes]:
    """Return selections that a checkpoint holds as text."""
    return {client_id: bytes.fromhex(text) for client_id, text in selected.items()}
