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
public data, or how far the released model has moved from its start), `magnitude`, `random` and `ordered`.
Scores of a client's own data are the paper's, and a release of their own: then the full model travels down
whenever neurons are chosen, the client chooses by scores with noise, pays for them in its ε
(`strategies.layers.privacy.scoring`), and sends its block and the positions. Without that noise it sends
nothing.

With noise of a given multiplier, ε is that of the full network: what pruning lowers is the noise's length, as
σC√k is shorter than σC√d, and the bytes and the work.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from strategies import fedavg
from strategies.algorithm import Algorithm, Members, PartsStrategy, ServerSide
from strategies.client.training import ClientJob, LocalResult
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.checks import planned_selections
from strategies.layers.privacy.scoring import Scoring
from strategies.models import travelling
from strategies.models.fisher import fisher_scores
from strategies.models.neurons import hidden_groups, neuron_scores
from strategies.models.subnetwork import (
    Kept,
    block_index,
    keep_count,
    pack_kept,
    subnetwork,
    top_neurons,
    unpack_kept,
)
from strategies.pruned_dp.settings import PrunedSettings
from strategies.server.guard import CheckedReply, Reference, Rejected, all_checked
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task

_MOST_PUBLIC = 256
"""Public examples that the Fisher information is estimated on."""


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: train the network that was sent, or the part of it that the client chooses.

    Raises
    ------
    LetheError
        If the client is to choose and has no private way to.
    """
    if not job.keep:
        return fedavg.train_client(job)
    if job.scorer is None:
        raise LetheError(
            "strategy.score-source: asked to choose neurons by private data, which this client's own config "
            "does not pay for: nothing is sent"
        )
    groups = hidden_groups(job.model)
    scores = job.scorer(job.model, groups, job.examples, job.generator, job.task)
    kept = tuple(
        top_neurons(score, keep_count(job.keep, group.size))
        for group, score in zip(groups, scores, strict=True)
    )
    small = subnetwork(job.model, groups, kept)
    start = travelling.vector_of(small)
    result = fedavg.train_client(replace(job, model=small))
    return replace(result, start=start, positions=pack_kept(groups, kept))


@dataclass(frozen=True, eq=False)
class Pruning:
    """How the server selects neurons.

    Parameters
    ----------
    model
        The run's, with its initial weights; it is not changed.
    public
        Public data, where the scores come from them.
    """

    settings: PrunedSettings
    model: nn.Module
    seed: int
    public: Examples | None = None
    task: Task = CLASSIFICATION

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
        few = self.public.subset(range(min(_MOST_PUBLIC, len(self.public))))
        return fisher_scores(model, few, self.task)


@dataclass(frozen=True, eq=False)
class _Block:
    """What one client has of the model in a round."""

    index: Tensor
    reference: Reference


@dataclass(frozen=True)
class _Choice:
    """A client that chooses its neurons itself, and what share of them."""

    client_id: str
    keep: float


@final
class PrunedStrategy(PartsStrategy):
    """The server half: sends blocks, and turns the blocks that come back into updates of the whole model.

    It belongs inside the guard, which checks a block against what was sent, and outside the log, which then
    holds each client's share of what was added: n_k δ_{k,e} / Σ n, written as an update of the whole model
    with weight n_k. The blocks of a round wait in memory until all are there.

    Parameters
    ----------
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
        self._choosing: dict[int, _Choice] = {}
        self._model = Reference(torch.zeros(0), wire.Layout((), ()))
        self.selected: dict[str, bytes] = {}

    def reference_of(self, reply: Message) -> Reference | None:
        """Return the block that a reply is about; None if it does not name one.

        Raises
        ------
        Rejected
            If the client was to choose its neurons and does not say which, or chose others than it should.
        """
        node_id = reply.metadata.src_node_id
        choice = self._choosing.get(node_id)
        if choice is not None and not reply.has_error():
            config = reply.content.config_records.get(wire.CONFIG, ConfigRecord())
            if wire.REFUSED not in config:
                packed = self._chosen(config.get(wire.POSITIONS), choice.keep)
                self.selected[choice.client_id] = packed
                self._blocks[node_id] = self._block(packed)
        block = self._blocks.get(node_id)
        return None if block is None else block.reference

    def _chosen(self, packed: object, keep: float) -> bytes:
        """Return a reply's positions if they name the expected number of neurons."""
        if not isinstance(packed, bytes):
            raise Rejected(f"{wire.POSITIONS} of the neurons that it chose are missing")
        try:
            counts = [len(neurons) for neurons in unpack_kept(self._groups, packed)]
        except ValueError as error:
            raise Rejected(str(error)) from None
        if counts != (expected := [keep_count(keep, group.size) for group in self._groups]):
            raise Rejected(f"it chose {counts} neurons, expected {expected}")
        return packed

    def _block(self, packed: bytes) -> _Block:
        index, small = block_index(self._model.layout, self._groups, unpack_kept(self._groups, packed))
        return _Block(index, Reference(self._model.flat[index], small))

    @property
    def entry_counts(self) -> Tensor | None:
        """How many clients were asked for each entry, shape [P]; None where nothing is divided by that."""
        if not self._by_asked:
            return None
        counts = torch.zeros_like(self._model.flat, dtype=torch.int64)
        for block in self._blocks.values():
            counts[block.index] += 1
        return counts

    def _keep_of(self, client_id: str) -> float:
        settings = self._pruning.settings
        return settings.client_keeps.get(client_id) or self._keeps.get(client_id) or settings.keep

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each client its block; reselect every `refresh` rounds."""
        self._model, self._blocks, self._choosing = Reference.of(arrays), {}, {}
        if (server_round - 1) % self._pruning.settings.refresh == 0:
            self.selected.clear()
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        names = [self._names[message.metadata.dst_node_id] for message in messages]
        if not self._by_private_data:
            self._select([name for name in names if name not in self.selected], server_round)
        for client_id, message in zip(names, messages, strict=True):
            node_id, sent = message.metadata.dst_node_id, self._model
            if client_id in self.selected:
                wire.add_entries(message, {wire.POSITIONS: self.selected[client_id]})
                self._blocks[node_id] = self._block(self.selected[client_id])
                sent = self._blocks[node_id].reference
            else:
                wire.add_entries(message, {wire.KEEP: self._keep_of(client_id)})
                self._choosing[node_id] = _Choice(client_id, self._keep_of(client_id))
            record = wire.FlatRecord(sent.flat, sent.layout)
            config_sent = message.content.config_records[wire.CONFIG]
            further = self._cut(message.content, self._blocks.get(node_id))
            message.content = RecordDict({wire.ARRAYS: record, **further, wire.CONFIG: config_sent})
        return messages

    def _cut(self, content: RecordDict, block: _Block | None) -> dict[str, ArrayRecord]:
        """Return a message's further records, which have the model's layout, for a block as for the model."""
        further = {name: each for name, each in content.array_records.items() if name != wire.ARRAYS}
        if block is None:
            return further
        layout, small = self._model.layout, block.reference.layout
        flats = {name: wire.flat_of(record, layout)[block.index] for name, record in further.items()}
        return {name: wire.FlatRecord(flat, small) for name, flat in flats.items()}

    @property
    def _by_private_data(self) -> bool:
        settings = self._pruning.settings
        return settings.score == "fisher" and settings.score_source == "private"

    def _select(self, client_ids: Sequence[str], server_round: int) -> None:
        if not client_ids:
            return
        scores = self._pruning.scores(self._model.layout.unflatten(self._model.flat))
        for client_id in client_ids:
            kept = self._pruning.kept(client_id, self._keep_of(client_id), server_round, scores)
            self.selected[client_id] = pack_kept(self._groups, kept)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model with every entry moved by the mean over the clients that had it."""
        return self.inner.aggregate_train(server_round, self._scattered(replies))

    def _scattered(self, replies: Iterable[Message]) -> Iterator[Message]:
        good = list(all_checked(replies, "PrunedStrategy"))
        weights = self.entry_counts
        if weights is None:
            weights = torch.zeros_like(self._model.flat, dtype=torch.int64)
            for reply in good:
                weights[self._blocks[reply.update.node_id].index] += reply.update.num_examples
        total = sum(reply.update.num_examples for reply in good)
        for reply in good:
            index = self._blocks[reply.update.node_id].index
            delta = torch.zeros_like(self._model.flat)
            delta[index] = (reply.update.delta.double() * (total / weights[index].double())).float()
            norm = float(torch.linalg.vector_norm(delta.double()))
            yield CheckedReply.of(reply, replace(reply.update, delta=delta, norm=norm))


def _parts(inner: Strategy, side: ServerSide, members: Members) -> PrunedStrategy:
    if members.mask is not None:
        raise LetheError("pruned-dp: clients cannot train parts of a model that is pruned itself")
    holdings = side.required_holdings
    own = side.settings.own(PrunedSettings)
    pruning = Pruning(own, holdings.build_model(), side.seed, holdings.public, holdings.task)
    return PrunedStrategy(inner, pruning, members.names, members.keeps, by_asked=members.central_noise)


def _scoring(settings: StrategySettings, rounds: int, selection: SelectionSettings) -> Scoring | None:
    own = settings.own(PrunedSettings)
    if own.score_source != "private":
        return None
    return Scoring(own.score_noise, own.score_clip, planned_selections(rounds, selection, own.refresh))


ALGORITHM = Algorithm(
    "each client trains a smaller network of the most important neurons, and only that travels",
    train_client,
    lambda side: fedavg.FedAvg(),
    parts=_parts,
    scoring=_scoring,
)
