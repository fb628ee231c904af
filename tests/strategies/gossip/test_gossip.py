"""What a client makes of its neighbours' models, and the server that relays them."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, TrainStats
from strategies.core import wire
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.gossip.gossip import (
    DISTANCE,
    EIGENVALUE,
    NEIGHBOUR,
    WEIGHTS,
    Gossip,
    consensus_distance,
    mixed,
    train_client,
)
from strategies.gossip.topology import adjacency
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server import memory as strategy_state
from strategies.server.aggregation import ExactSum
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, raises

# by hand


def test_a_mixture_by_hand() -> None:
    """¼ · (4, 0) + ¾ · (0, 8) = (1, 6)."""
    assert mixed([torch.tensor([4.0, 0.0]), torch.tensor([0.0, 8.0])], [0.25, 0.75]).tolist() == [1.0, 6.0]


def test_distance_by_hand() -> None:
    """0, 0, 3: mean 1, squares 1 + 1 + 4 = 6, of three: √2."""
    models = [torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([3.0])]
    assert consensus_distance(models) == pytest.approx(2**0.5)


def test_uniform_weights_give_fedavgs_average_of_equal_weights() -> None:
    models = [torch.randn(50, generator=torch_generator(i)) for i in range(5)]
    average = ExactSum(50)
    for model in models:
        average.add(model, 1.0)
    torch.testing.assert_close(mixed(models, [0.2] * 5), average.mean().float())


# the client


def line(value: float) -> nn.Module:
    """Return a model of two parameters, both of that value."""
    model = nn.Linear(1, 1)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def climb(model: nn.Module, *_: object, **__: object) -> TrainStats:
    """Train as if the gradient were −3 at a learning rate of 1: every parameter grows by 3."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3.0)
    return TrainStats(1, 0.5)


def test_a_client_adds_its_change_to_the_mixture_by_hand() -> None:
    """x₁ = 1 and x₂ = 5, weights ¾ and ¼, step +3: ¾ · 1 + ¼ · 5 + 3 = 5."""
    received = RecordDict({wire.CONFIG: ConfigRecord({WEIGHTS: [0.75, 0.25]})})
    received[wire.ARRAYS] = wire.record_of(line(1.0).state_dict())
    received[f"{NEIGHBOUR}1"] = wire.record_of(line(5.0).state_dict())
    data = TensorExamples(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    settings, generator = StrategySettings(name="gossip"), torch_generator(0)
    job = ClientJob(
        line(1.0), data, TrainSettings(), settings, "1", 1, generator, trainer=climb, received=received
    )
    result = train_client(job)
    assert [parameter.item() for parameter in result.model.parameters()] == [5.0, 5.0]
    assert result.num_examples == 2


# the server, with clients that follow the box


def test_each_weight_goes_with_its_model_by_hand() -> None:
    """On a path, an end counts itself ⅔ and the middle ⅓; the middle counts all three ⅓."""
    seed = next(s for s in range(99) if adjacency("random", 3, 0.5, s).sum() == 4)
    degrees = adjacency("random", 3, 0.5, seed).sum(axis=1).tolist()
    middle = degrees.index(2)
    strategy = Gossip(StrategySettings(name="gossip", topology="random"), seed)
    grid = FakeGrid({i + 1: gossiping(str(i), 0.0) for i in range(3)})
    strategy.models = {str(i + 1): np.array([float(i)], dtype=np.float32) for i in range(3)}
    for place, message in enumerate(strategy.configure_train(1, flat_record([0.0]), ConfigRecord(), grid)):
        weights = list(message.content.config_records[wire.CONFIG][WEIGHTS])  # type: ignore[arg-type]
        names = [wire.ARRAYS, *(f"{NEIGHBOUR}{i}" for i in range(1, len(weights)))]
        sent = [int(wire.state_of(message.content.array_records[name])["w"]) for name in names]
        third = {middle: 1 / 3}
        ends = {0: 1 / 3, 1: 1 / 3, 2: 1 / 3} if place == middle else {place: 2 / 3, **third}
        assert dict(zip(sent, weights, strict=True)) == pytest.approx(ends)
        assert sent[0] == place


def gossiping(client_id: str, step: float) -> Answer:
    """Return a client whose gradient step is a constant."""
    plain = node_answer(client_id, 10, adds(0.0))

    def answer(message: Message) -> Message | None:
        if message.metadata.message_type != wire.TRAIN:
            return plain(message)
        records = message.content.array_records
        weights = list(message.content.config_records[wire.CONFIG][WEIGHTS])  # type: ignore[arg-type]
        names = [wire.ARRAYS, *(f"{NEIGHBOUR}{i}" for i in range(1, len(weights)))]
        models: list[Tensor] = [wire.state_of(records[name])["w"] for name in names]
        new = mixed(models, [float(w) for w in weights]) + step  # type: ignore[arg-type]
        return wire.reply_to(message, client_id, {wire.NUM_EXAMPLES: 10}, wire.record_of({"w": new}))

    return answer


def run(
    answers: list[Answer], rounds: int, topology: str = "ring", start: Start | None = None
) -> list[RoundResult]:
    cohort = Cohort(FakeGrid(dict(enumerate(answers, start=1))), timeout=1.0)
    cohort.connect(len(answers))
    settings = StrategySettings(name="gossip", topology=topology)  # type: ignore[arg-type]
    plan = TrainingPlan(settings, SelectionSettings(), rounds, 0)
    results: list[RoundResult] = []
    TENSORS.clear()

    def note(result: RoundResult, strategy: object) -> None:
        results.append(result)
        TENSORS.update(strategy_state.capture(strategy))  # type: ignore[arg-type]

    train(plan, cohort, start or Start(flat_record([0.0])), on_round=note)
    return results


TENSORS: dict[str, Tensor] = {}
"""What a checkpoint of the last run would hold of the strategy."""


def models() -> dict[str, float]:
    return {
        key.rpartition("|")[2]: float(value) for key, value in TENSORS.items() if key.startswith("models|")
    }


def test_two_rounds_on_a_ring_of_four_by_hand() -> None:
    """Steps 3, 0, 0, 0. Round 1: 3, 0, 0, 0. Round 2: client 0 has 3/3 + 3 = 4, its neighbours 1, 2 has 0."""
    results = run([gossiping("0", 3.0), *(gossiping(str(i), 0.0) for i in (1, 2, 3))], 2)
    assert models() == pytest.approx({"0": 4.0, "1": 1.0, "2": 0.0, "3": 1.0})
    assert wire.state_of(results[0].arrays)["w"].tolist() == [0.75]
    assert wire.state_of(results[1].arrays)["w"].tolist() == pytest.approx([1.5])
    assert results[0].metrics[DISTANCE] == pytest.approx((3 * 0.75**2 + 2.25**2) ** 0.5 / 2)
    assert results[0].metrics[EIGENVALUE] == pytest.approx(1 / 3)


def test_a_client_that_fails_keeps_its_model_and_is_named() -> None:
    """Client 3 answers with errors: its model stays 0, and counts in its neighbours' mixtures."""
    describing = gossiping("3", 0.0)

    def broken(message: Message) -> Message | None:
        return raises(message) if message.metadata.message_type == wire.TRAIN else describing(message)

    results = run([gossiping("0", 3.0), gossiping("1", 0.0), gossiping("2", 0.0), broken], 2)
    assert models() == pytest.approx({"0": 4.0, "1": 1.0, "2": 0.0, "3": 0.0})
    assert {fault.client_id for fault in results[1].faults} == {"3"}


def test_a_resumed_run_goes_on_with_every_model() -> None:
    """Three rounds at once, against two and one from what a checkpoint holds."""
    answers = [gossiping(str(i), float(i)) for i in range(5)]
    whole = run(answers, 3)[-1]
    two = run(answers, 2)[-1]
    resumed = run(answers, 3, start=Start(two.arrays, 2, dict(TENSORS)))[-1]
    assert wire.state_of(resumed.arrays)["w"].equal(wire.state_of(whole.arrays)["w"])
    assert resumed.metrics == whole.metrics


def test_on_the_complete_graph_every_client_gets_the_mean_and_its_own_step() -> None:
    """Steps 0 to 3: round 1 leaves i; round 2: mean 1.5 plus i."""
    run([gossiping(str(i), float(i)) for i in range(4)], 2, "complete")
    assert models() == pytest.approx({"0": 1.5, "1": 2.5, "2": 3.5, "3": 4.5})


def test_a_round_without_answers_changes_nothing() -> None:
    describing = gossiping("0", 0.0)

    def broken(message: Message) -> Message | None:
        return raises(message) if message.metadata.message_type == wire.TRAIN else describing(message)

    results = run([broken], 1)
    assert wire.state_of(results[0].arrays)["w"].tolist() == [0.0]
    assert results[0].accepted == ()


def test_unchecked_replies_are_refused() -> None:
    strategy = Gossip(StrategySettings(), 0)
    grid = FakeGrid({1: gossiping("0", 1.0)})
    messages = list(strategy.configure_train(1, flat_record([0.0]), ConfigRecord({}), grid))
    grid.push_messages(messages)
    with pytest.raises(RuntimeError, match="inside GuardedStrategy"):
        strategy.aggregate_train(1, messages)
