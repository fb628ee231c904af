"""Flower's own strategies by name: ``strategy.name = "flwr:FedAdam"``, settings in ``strategy.options``.

They run unchanged inside the same guard, log and selection as the project's own. Whom they ask is decided by
the grid they are given, so their own sampling is turned off; they collect all replies of a round in memory,
as Flower wrote them.
"""

import inspect
from collections.abc import Iterable
from typing import Any, final

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from strategies.algorithm import Algorithm
from strategies.client.training import ClientJob, LocalTraining, StepState, near
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.flower.settings import PREFIX, FlowerSettings
from strategies.server.wrapper import StrategyWrapper
from strategies.settings import StrategySettings

_AVERAGING = {"FedAvg", "FedProx"}
_SAMPLING = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}


def available() -> dict[str, type[Strategy]]:
    """Return the classes that can be named: Flower's strategies for arrays that wrap no other."""
    found: dict[str, type[Strategy]] = {}
    for name in flower.__all__:
        candidate = getattr(flower, name)
        if inspect.isclass(candidate) and issubclass(candidate, flower.FedAvg) and "Xgb" not in name:
            found[name] = candidate
    return found


def build(settings: StrategySettings) -> Strategy:
    """Return the strategy that ``flwr:<ClassName>`` names, with the options passed to its constructor.

    Raises
    ------
    BadInput
        If there is no such strategy or its constructor does not take the options.
    """
    name = settings.name.removeprefix(PREFIX)
    if name not in available():
        raise BadInput(f"strategy.name: got '{settings.name}', Flower has {', '.join(sorted(available()))}")
    chosen = available()[name]
    accepted = set(inspect.signature(chosen).parameters)
    options: dict[str, Any] = {
        key.replace("-", "_"): value for key, value in settings.own(FlowerSettings).option_values.items()
    }
    if unknown := sorted(set(options) - accepted - set(_SAMPLING)):
        raise BadInput(
            f"strategy.options: {name} has no '{unknown[0]}'; it takes {', '.join(sorted(accepted))}"
        )
    if sampling := sorted(set(options) & set(_SAMPLING)):
        raise BadInput(
            f"strategy.options: '{sampling[0]}' is decided by selection.fraction and selection.min-clients"
        )
    sampling_defaults = {key: value for key, value in _SAMPLING.items() if key in accepted}
    try:
        by_examples = options.get("weighted_by_key", wire.NUM_EXAMPLES) == wire.NUM_EXAMPLES
        return SortedReplies(chosen(**sampling_defaults, **options), name in _AVERAGING and by_examples)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"strategy.options: {name} refused {settings.own(FlowerSettings).options!r}: {error}"
        ) from None


def required_metrics(settings: StrategySettings) -> list[str]:
    """Return the numbers without which Flower's strategy takes no reply of a round."""
    key = settings.own(FlowerSettings).option_values.get("weighted_by_key", wire.NUM_EXAMPLES)
    return [] if key == wire.NUM_EXAMPLES else [str(key)]


@final
class SortedReplies(StrategyWrapper):
    """Hand replies to a strategy in the clients' order, so that its floating-point sums repeat.

    Parameters
    ----------
    averaging
        Whether it averages the updates and nothing else.
    """

    def __init__(self, inner: Strategy, averaging: bool) -> None:
        super().__init__(inner)
        self._averaging = averaging

    @property
    def is_weighted_average(self) -> bool:
        """Whether a round adds exactly the weighted mean of the updates to the model."""
        return self._averaging

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Collect the replies, sort them and pass them on.

        FedAdam and its kin return float64; the model is float32 everywhere else, in checkpoints too, so it is
        made float32 here: a resumed run then starts from what the uninterrupted one had.
        """
        arrays, metrics = self.inner.aggregate_train(server_round, _sorted(replies))
        return arrays if arrays is None else wire.record_of(wire.state_of(arrays)), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Collect the replies, sort them and pass them on."""
        return self.inner.aggregate_evaluate(server_round, _sorted(replies))


def _sorted(replies: Iterable[Message]) -> list[Message]:
    """Return the replies in the clients' order, with only the metrics that all share, as Flower requires."""
    listed = sorted(replies, key=_client_key)
    metrics = [r.content.metric_records.get(wire.METRICS, MetricRecord()) for r in listed if r.has_content()]
    common = set.intersection(*(set(record) for record in metrics)) if metrics else set()
    for record in metrics:
        for name in record.keys() - common:
            del record[name]
    return listed


def _client_key(message: Message) -> tuple[int, int, str]:
    client_id = wire.client_id_in(message.content) if message.has_content() else None
    return wire.client_sort_key(client_id or str(message.metadata.src_node_id))


def prepare(job: ClientJob) -> StepState:
    """Return the proximal term that Flower's FedProx asks for."""
    mu = float(job.strategy.own(FlowerSettings).option_values.get("proximal_mu", 0.0))
    return near(job.model, max(mu, 0.0))


train_client = LocalTraining(prepare)
"""The client half: local training."""


ALGORITHM = Algorithm(
    "one of Flower's own strategies",
    train_client,
    lambda side: build(side.settings),
    required=required_metrics,
    members=lambda: [PREFIX + name for name in available()],
)
