"""Full-batch gradient descent that does not wait for the slowest: gradient coding with cyclic repetition.

Tandon et al., ICML 2017, arXiv 1612.03301; the code is in `strategies.coded_gd.gradient_code`. A round is
one step

    w ← w − η ∇F(w),   F the mean loss over all examples,

exact whichever s clients do not answer; with fewer than n − s answers the model stays as it is. No client is
left out by being slow: its data count in every step. s = 0 is gradient descent that waits for everybody.

Each client must hold the data of s others, so this is for a data centre, not for data that must not leave
their owner: a node with data of its own is refused. A client sends −η Σ_j B_ij ∇L_j / m_i, with L_j the
summed loss of part j and m_i its number of examples in all, and Σ_j B_ij n_j besides; the server decodes
gradient and number of examples with the same a.
"""

import logging
import math
from collections.abc import Iterable
from typing import final

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor

from strategies.algorithm import Algorithm
from strategies.client.training import ClientJob, LocalResult, summed_gradient
from strategies.coded_gd.gradient_code import Matrix, decoding, encoding
from strategies.coded_gd.settings import CodedSettings
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.fedavg import EvaluatingStrategy, broadcast
from strategies.server.grids import client_ids_of
from strategies.server.guard import ClientUpdate, all_checked
from strategies.server.reports import COUNT, Range
from strategies.settings import StrategySettings

_logger = logging.getLogger(__name__)

PARTS = "parts"
"""list[str], server to client: the client-ids whose data it sums up."""
COEFFICIENTS = "coefficients"
"""list[float], server to client: what each part's gradient is multiplied with."""
CODED_EXAMPLES = "coded-examples"
"""float, client to server: Σ_j B_ij n_j."""
PART_EXAMPLES = "part-examples"
"""int, client to server: m_i, the number of examples in all of its parts."""
REPORTS = {CODED_EXAMPLES: Range(-math.inf, math.inf), PART_EXAMPLES: COUNT}
"""What clients report."""
DECODED = "decoded-from"
"""How many answers the round's gradient was decoded from."""


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: the coded gradient of its parts, times minus the learning rate."""
    if job.examples_of is None:
        raise LetheError("coded-gd: this client cannot read the data of others")
    config = job.received.config_records[wire.CONFIG]
    names = [str(name) for name in list(config[PARTS])]  # type: ignore[arg-type]
    coefficients = [float(str(c)) for c in list(config[COEFFICIENTS])]  # type: ignore[arg-type]
    parts = [job.examples_of(name) for name in names]
    count = sum(len(part) for part in parts)
    summed_gradient(job.model, parts, coefficients, job.task)
    (rate,) = job.rates(1)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, job.model.parameters()):
            if parameter.grad is None:
                parameter.zero_()
            else:
                parameter.copy_(parameter.grad * (-rate / count))
    coded = sum(c * len(part) for c, part in zip(coefficients, parts, strict=True))
    return LocalResult(job.model, len(job.examples), {CODED_EXAMPLES: coded, PART_EXAMPLES: count})


@final
class CodedGD(EvaluatingStrategy):
    """The server half: hands out the code, and decodes.

    Parameters
    ----------
    seed
        Decides the code.
    """

    is_weighted_average = False
    replies_are_updates = False

    def __init__(self, settings: StrategySettings, seed: int) -> None:
        self._stragglers = settings.own(CodedSettings).stragglers
        self._seed = seed
        self._flat = torch.zeros(0)
        self._layout = wire.Layout((), ())
        self._rows: dict[str, Matrix] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every node of the grid the model, its parts and its row of the code.

        Raises
        ------
        LetheError
            If no more clients are asked than may fail to answer.
        """
        nodes = client_ids_of(grid)
        if len(nodes) <= self._stragglers:
            raise LetheError(
                f"strategy.stragglers: given {self._stragglers}, but {len(nodes)} clients are asked; it "
                "must be less than that"
            )
        self._layout = wire.layout_of(arrays)
        self._flat = wire.flat_of(arrays, self._layout)
        code, names = encoding(len(nodes), self._stragglers, self._seed), list(nodes.values())
        self._rows = dict(zip(names, code, strict=True))
        messages = broadcast(server_round, arrays, config, grid, MessageType.TRAIN)
        for place, message in enumerate(messages):
            parts = [(place + offset) % len(nodes) for offset in range(self._stragglers + 1)]
            coefficients = [float(code[place, j]) for j in parts]
            wire.add_entries(message, {PARTS: [names[j] for j in parts], COEFFICIENTS: coefficients})
        return messages

    def refusal(self, update: ClientUpdate) -> str:
        """Return why an answer cannot be decoded: its numbers of examples are missing or impossible."""
        if not {CODED_EXAMPLES, PART_EXAMPLES} <= set(update.metrics):
            return "it did not send a coded gradient"
        counts = update.metrics[CODED_EXAMPLES], update.metrics[PART_EXAMPLES]
        if not all(abs(count) <= wire.MAX_EXAMPLES for count in counts):  # False for NaN
            return "it claims an impossible number of examples"
        return ""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model after the step, or (None, None) when too few answered to decode it.

        As many coded gradients as clients are held at once.
        """
        coded: dict[str, tuple[Tensor, float, float]] = {}
        for reply in all_checked(replies, "CodedGD"):
            update = reply.update
            counts = update.metrics[CODED_EXAMPLES], update.metrics[PART_EXAMPLES]
            coded[update.client_id] = (update.delta.double(), *counts)
        names = sorted(coded, key=wire.client_sort_key)
        found = decoding(np.array([self._rows[i] for i in names])) if names else None
        if found is None:
            return None, None
        step, examples = torch.zeros_like(self._flat, dtype=torch.float64), 0.0
        for weight, (gradient, coded_examples, count) in zip(found, (coded[i] for i in names), strict=True):
            step += gradient * (float(weight) * count)
            examples += float(weight) * coded_examples
        flat = (self._flat.double() + step / examples).float()
        if not (examples > 0 and flat.isfinite().all()):
            _logger.warning("the sum of the gradients cannot be decoded to a model")
            return None, None
        return wire.FlatRecord(flat, self._layout), MetricRecord({DECODED: float(len(names))})

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("coded-gd: exact with %d stragglers", self._stragglers)


ALGORITHM = Algorithm(
    "exact full-batch gradient descent from any n − s clients, each holding s others' data",
    train_client,
    lambda side: CodedGD(side.settings, side.seed),
    reports=REPORTS,
)
