"""Server-side optimisers: the mean update is the gradient of a step with momentum, or of an adaptive one.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021,
arXiv 2003.00295, Algorithm 2. With Δ_t the mean update of round t and β₁, β₂, τ, η of the server,

    m ← β₁ m + (1 − β₁) Δ_t
    fedadagrad:  v ← v + Δ_t²
    fedadam:     v ← β₂ v + (1 − β₂) Δ_t²
    fedyogi:     v ← v − (1 − β₂) Δ_t² sign(v − Δ_t²)
    x ← x + η m / (√v + τ)

entry by entry, from m = 0 and v = τ², the least that the paper allows. ``fedavgm`` is Hsu, Qi, Brown,
"Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", arXiv
1909.06335: m ← β m + Δ_t, x ← x + η m. At β = 0 and η = 1 it is FedAvg, to the bit.

Differs from the paper: the mean is weighted by examples, as in FedAvg. Differs from Flower's FedAdam, which
multiplies η by Adam's correction of the first rounds and begins with v = 0. A round without a usable reply
leaves model, m and v as they are.

The model does not move by the mean of a round's updates alone, so methods that sum the log are refused; every
retraining begins with m and v as the run did. For fedavgm the model is still linear in the updates: after T
rounds those of round t have counted η (1 − β^(T−t+1)) / (1 − β) times, a factor that no log of rounds says.
Without momentum it is η, and the log does.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import Tensor

from strategies.algorithm import Algorithm
from strategies.core import wire
from strategies.fedavg import EvaluatingStrategy, broadcast, summed, train_client
from strategies.fedopt.settings import FedOptSettings
from strategies.server.aggregation import apply_mean
from strategies.server.guard import Reference

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Moments:
    """What the server keeps: m and v, shape [P] each, float32; v is empty where nothing adapts."""

    first: Tensor
    second: Tensor


def begin(size: int, settings: FedOptSettings) -> Moments:
    """Return m = 0 and v = τ²."""
    return Moments(torch.zeros(size), torch.full((size,), settings.tau**2))


Step = Callable[[Tensor, Moments, FedOptSettings], tuple[Tensor, Moments]]
"""From Δ_t to the model's change, shape [P] and float64 both, and what is kept; changes neither argument."""


def momentum_step(mean: Tensor, moments: Moments, settings: FedOptSettings) -> tuple[Tensor, Moments]:
    """Take a step of ``fedavgm``; see `Step`.

    Examples
    --------
    >>> how = FedOptSettings(server_momentum=0.5, server_learning_rate=2.0)
    >>> change, moments = momentum_step(torch.tensor([1.0]).double(), begin(1, how), how)
    >>> float(change), float(momentum_step(torch.tensor([1.0]).double(), moments, how)[0])
    (2.0, 3.0)
    """
    first = settings.server_momentum * moments.first.double() + mean
    return settings.server_learning_rate * first, Moments(first.float(), torch.zeros(0))


def adaptive_step(
    second: Callable[[Tensor, Tensor, float], Tensor],
    mean: Tensor,
    moments: Moments,
    settings: FedOptSettings,
) -> tuple[Tensor, Moments]:
    """Take an adaptive step; `second` returns the new v from the old one, Δ² and β₂; see `Step`."""
    first = settings.beta1 * moments.first.double() + (1 - settings.beta1) * mean
    squares = second(moments.second.double(), mean.square(), settings.beta2)
    change = settings.adaptive_learning_rate * first / (squares.sqrt() + settings.tau)
    return change, Moments(first.float(), squares.float())


def adagrad(squares: Tensor, new: Tensor, beta2: float) -> Tensor:
    """Return v + Δ²; β₂ has no part in it."""
    return squares + new


def adam(squares: Tensor, new: Tensor, beta2: float) -> Tensor:
    """Return β₂ v + (1 − β₂) Δ²."""
    return beta2 * squares + (1 - beta2) * new


def yogi(squares: Tensor, new: Tensor, beta2: float) -> Tensor:
    """Return v − (1 − β₂) Δ² sign(v − Δ²), which is never below 0."""
    return squares - (1 - beta2) * new * torch.sign(squares - new)


@final
class FedOpt(EvaluatingStrategy):
    """The server half: averages as `FedAvg` does, and steps by an optimiser.

    Parameters
    ----------
    step
        The optimiser's.
    averages
        Whether the step adds η times the mean and nothing else.
    """

    memory_name = "fedopt"

    def __init__(self, settings: FedOptSettings, step: Step, averages: bool = False) -> None:
        self._settings = settings
        self._step = step
        self._averages = averages
        self._moments = begin(0, settings)
        self._reference = Reference(torch.zeros(0), wire.Layout((), ()))
        self._divisor: float | None = None

    @property
    def is_weighted_average(self) -> bool:
        """Whether nothing of earlier rounds is in the step."""
        return self._averages

    @property
    def weight_divisor(self) -> float | None:
        """Σ n / η of the last round, where the step is the mean times η."""
        return self._divisor

    def memory(self) -> dict[str, Tensor]:
        """Return m and v."""
        return {"first": self._moments.first, "second": self._moments.second}

    def recall(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `memory` returned."""
        self._moments = Moments(tensors["first"].clone(), tensors["second"].clone())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid."""
        self._reference = Reference.of(arrays)
        size = self._reference.layout.size
        if len(self._moments.first) != size:
            self._moments = begin(size, self._settings)
        return broadcast(server_round, arrays, config, grid, wire.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the model after the optimiser's step, or (None, None) when there is no usable reply."""
        total, metrics = summed(replies, self._reference)
        if total.count == 0:
            return None, None
        change, self._moments = self._step(total.mean(), self._moments, self._settings)
        self._divisor = total.weight / self._settings.server_learning_rate if self._averages else None
        flat = apply_mean(self._reference.flat, change)
        return wire.FlatRecord(flat, self._reference.layout), MetricRecord(dict(metrics.means()))

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("streaming weighted average, and a step of the server's optimiser")


def algorithm(
    summary: str, step: Step, averages: Callable[[FedOptSettings], bool] = lambda settings: False
) -> Algorithm:
    """Return the algorithm whose server takes such steps, and whose clients train as in FedAvg.

    `averages` says whether, with some settings, the step adds η times the mean and nothing else.
    """

    def build(settings: FedOptSettings) -> FedOpt:
        return FedOpt(settings, step, averages(settings))

    return Algorithm(summary, train_client, lambda side: build(side.settings.own(FedOptSettings)))
