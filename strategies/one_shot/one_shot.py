"""One round of communication: the clients train to the end, and their ensemble becomes one model.

Guha, Talwalkar, Smith, "One-Shot Federated Learning", arXiv 1902.11175. Every client k trains a model w_k on
its own data until it is done. The ensemble F answers as they do in the mean, and on the server's public
inputs X, whose labels are not read, a student is distilled from it (see `strategies.client.distillation`),
so that one model answers instead of m:

    F(x) = (1/m) Σ_k softmax(w_k(x))
    w = argmin Σ_{x in X} T² · KL( softmax(log F(x) / T) ‖ softmax(w(x) / T) )

Differs from the paper: networks that share their initial weights instead of support vector machines; every
client that answers is a member, where the paper also picks the best, the largest or some at random; logits
may be averaged in place of probabilities. The student may begin at the average of the members, as in Lin,
Kong, Stich, Jaggi, "Ensemble Distillation for Robust Model Fusion in Federated Learning", arXiv 2006.07242,
Algorithm 1: without a step of distillation that is a round of FedAvg, to the bit.

Members are used one by one and their answers added up exactly, so the server holds one model at a time and
the order of arrival does not change a bit.
"""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from strategies import algorithm, fedavg
from strategies.client.distillation import Lesson, distil
from strategies.client.evaluation import mean_score, outputs_of
from strategies.client.settings import DistillationSettings
from strategies.core import wire
from strategies.core.examples import Examples, concatenated
from strategies.core.seeds import seeded_layers, torch_generator
from strategies.fedavg import EvaluatingStrategy
from strategies.one_shot.settings import OneShotSettings
from strategies.server.aggregation import MAX_ABS_UPDATE, ExactSum, MetricMeans
from strategies.server.guard import ClientUpdate, Reference, all_checked
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task

_logger = logging.getLogger(__name__)

NAME = "one-shot"
MEMBERS = "ensemble-members"
"""How many models the ensemble has."""
MEMBER_ACCURACY = "member-accuracy"
"""Mean of the members' accuracies on the test data, in percent: what clients have that never talk."""
ENSEMBLE_ACCURACY = "ensemble-accuracy"
"""The ensemble's on the test data, in percent."""
DISTILLED_ACCURACY = "distilled-accuracy"
"""The distilled model's on the test data, in percent."""
AGREEMENT = "ensemble-agreement"
"""Share of the public inputs on which the distilled model names the ensemble's class, in percent."""
_SMALLEST = 1e-9  # A probability of 0 has no logarithm.

train_client = fedavg.train_client
"""The client half: plain local training."""


@dataclass(frozen=True, eq=False)
class ServerSide:
    """What the server has besides the settings.

    Parameters
    ----------
    model
        Of the run's architecture, on the device to use; its weights are overwritten.
    public
        At least one example; the labels are not read.
    test
        What the accuracies are measured on; None: they are not.
    seed
        The run's seed; decides the batches of distillation.
    """

    model: nn.Module
    num_outputs: int
    public: Examples
    test: Examples | None
    seed: int
    momentum: float = 0.9
    task: Task = CLASSIFICATION


def votes(logits: Tensor, ensemble: str) -> Tensor:
    """Return what a member adds to the ensemble: its probabilities, or its logits, shape [n, classes]."""
    return logits if ensemble == "logits" else logits.softmax(dim=1)


def ensemble_logits(mean: Tensor, ensemble: str) -> Tensor:
    """Return the logits of the ensemble from the mean of its members' votes, shape [n, classes].

    Examples
    --------
    >>> import torch
    >>> ensemble_logits(torch.tensor([[0.75, 0.25]]), "probabilities").softmax(dim=1)
    tensor([[0.7500, 0.2500]])
    """
    return mean if ensemble == "logits" else mean.clamp(min=_SMALLEST).log()


@final
class OneShot(EvaluatingStrategy):
    """The server half: adds up the members' votes, and distils the ensemble."""

    is_weighted_average = False

    def __init__(self, settings: StrategySettings, side: ServerSide) -> None:
        self._settings = settings.own(OneShotSettings)
        self._side = side
        self._reference: Reference | None = None
        self._last: tuple[ClientUpdate, Tensor] | None = None
        tested = () if side.test is None else (side.test,)
        self._asked = concatenated((side.public, *tested))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the model to every node of the grid."""
        self._reference = Reference.of(arrays)
        return fedavg.broadcast(server_round, arrays, config, grid, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the distilled model, or (None, None) when there is no usable reply."""
        if self._reference is None:
            raise RuntimeError("aggregate_train was called before configure_train")
        start, layout, self._last = self._reference.flat, self._reference.layout, None
        average = ExactSum(layout.size)
        votes_sum = ExactSum(len(self._asked) * self._side.num_outputs)
        means, accuracies = MetricMeans(), []
        for reply in all_checked(replies, "OneShot"):
            update = reply.update
            logits = self._logits(update, self._reference)
            votes_sum.add(votes(logits, self._settings.ensemble).flatten(), 1.0)
            update.add_to(average)
            means.add(update.metrics, update.num_examples)
            accuracies.append(self._test_accuracy(logits))
        if not accuracies:
            return None, None
        mean = votes_sum.mean().float().view(-1, self._side.num_outputs)
        ensemble = ensemble_logits(mean, self._settings.ensemble)
        if self._settings.student_start == "average":
            start = average.added_to(start)
        flat, distilled = self._distilled(server_round, start, layout, ensemble)
        figures = means.means() | self._figures(ensemble, distilled, accuracies)
        return wire.FlatRecord(flat, layout), MetricRecord(dict(figures))

    def refusal(self, update: ClientUpdate) -> str:
        """Return why a client's model cannot be a member: its answers are not finite, or too large."""
        if self._reference is None:
            raise RuntimeError("refusal was called before configure_train")
        given = votes(self._logits(update, self._reference), self._settings.ensemble)
        if bool((given.abs() <= MAX_ABS_UPDATE).all()):  # False for NaN
            return ""
        return f"its model's answers are not within ±{MAX_ABS_UPDATE:g}: it is no member of the ensemble"

    def _logits(self, update: ClientUpdate, reference: Reference) -> Tensor:
        """Return a client's model's answers to the public and then the test inputs."""
        if self._last is None or self._last[0] is not update:
            wire.load_flat(self._side.model, reference.flat + update.delta, reference.layout)
            self._last = update, self._outputs()
        return self._last[1]

    def _outputs(self) -> Tensor:
        return outputs_of(self._side.model, self._asked, task=self._side.task)

    def _distilled(
        self, server_round: int, start: Tensor, layout: wire.Layout, ensemble: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the student as a vector, and its answers."""
        settings, side = self._settings, self._side
        how = DistillationSettings(
            epochs=settings.distil_epochs,
            learning_rate=settings.distil_learning_rate,
            batch_size=settings.distil_batch_size,
            temperature=settings.distil_temperature,
            hard_label_weight=0.0,
        )
        wire.load_flat(side.model, start, layout)
        generator = torch_generator(side.seed, NAME, server_round)
        with seeded_layers(generator, next(side.model.parameters()).device):
            lesson = Lesson(side.public, ensemble[: len(side.public)])
            distil(side.model, lesson, how, side.momentum, generator, task=side.task)
        return layout.flatten(side.model.state_dict()), self._outputs()

    def _test_accuracy(self, logits: Tensor) -> float:
        task, test = self._side.task, self._side.test
        if test is None:
            return math.nan
        return mean_score(task.scores(logits[len(self._side.public) :], test.targets()))

    def _figures(self, ensemble: Tensor, distilled: Tensor, accuracies: list[float]) -> dict[str, float]:
        public, task = len(self._side.public), self._side.task
        agreement = mean_score(task.scores(distilled[:public], task.predict(ensemble[:public])))
        figures = {MEMBERS: float(len(accuracies)), AGREEMENT: agreement}
        if self._side.test is None:
            return figures
        return figures | {
            MEMBER_ACCURACY: math.fsum(accuracies) / len(accuracies),
            ENSEMBLE_ACCURACY: self._test_accuracy(ensemble),
            DISTILLED_ACCURACY: self._test_accuracy(distilled),
        }

    def summary(self) -> None:
        """Log what the strategy does."""
        _logger.info("one-shot: an ensemble distilled on %d public examples", len(self._side.public))


def _build(side: algorithm.ServerSide) -> Strategy:
    holdings = side.required_holdings
    own = ServerSide(
        holdings.build_model(),
        holdings.num_outputs,
        side.public,
        holdings.test,
        side.seed,
        holdings.train.momentum,
        holdings.task,
    )
    return OneShot(side.settings, own)


ALGORITHM = algorithm.Algorithm(
    "one round: the ensemble of the clients' models is distilled into one on public data",
    train_client,
    _build,
)
