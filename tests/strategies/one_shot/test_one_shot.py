"""strategies/one_shot/one_shot.py: an ensemble heard member by member, and distilled."""

import math
from collections.abc import Mapping

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, strategies as st
from torch import Tensor, nn

from strategies import algorithm, fedavg
from strategies.client.distillation import Lesson, distil
from strategies.client.evaluation import outputs_of
from strategies.client.settings import DistillationSettings
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, TensorExamples
from strategies.core.seeds import torch_generator
from strategies.fedavg import FedAvg
from strategies.one_shot import one_shot
from strategies.one_shot.one_shot import NAME, OneShot, ServerSide, ensemble_logits, votes
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.registry import lookup
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, raises, spoiled

ONE = TensorExamples(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64))
MANY = TensorExamples(torch.linspace(-2, 2, 40)[:, None], torch.zeros(40, dtype=torch.int64))


class Scores(nn.Module):
    """Two weights, which times the input are the two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape [n, 2]."""
        return x * self.w


def member(client_id: str, model: tuple[float, float], num_examples: int = 1) -> Answer:
    return node_answer(client_id, num_examples, lambda old, message: torch.tensor(model))


def settings(**keys: object) -> StrategySettings:
    return StrategySettings.model_validate({"name": NAME, "distil_epochs": 1, **keys})


def run(
    nodes: Mapping[int, Answer],
    strategy: StrategySettings,
    public: Examples = ONE,
    test: Examples | None = None,
    seed: int = 0,
    shuffle: int | None = None,
) -> tuple[Tensor, RoundResult]:
    """Return the model after the round, begun at zero, and the round."""
    cohort = Cohort(FakeGrid(dict(nodes), shuffle), timeout=1.0)
    cohort.connect(len(nodes))
    results: list[RoundResult] = []

    def build(plan: TrainingPlan) -> OneShot:
        return OneShot(plan.strategy, ServerSide(Scores(), 2, public, test, plan.seed))

    plan = TrainingPlan(strategy, SelectionSettings(), 1, seed, build=build)
    start = Start(flat_record([0.0, 0.0]))
    arrays = train(plan, cohort, start, on_round=lambda result, _: results.append(result))
    return wire.state_of(arrays)["w"].clone(), results[0]


def five(**more: Answer) -> dict[int, Answer]:
    """Return five members that differ, and more."""
    draw = torch.randn(5, 2, generator=torch_generator(0, "members")).tolist()
    nodes = {i + 1: member(str(i), (draw[i][0], draw[i][1]), 3 * i + 1) for i in range(5)}
    return nodes | dict(enumerate(more.values(), start=6))


@pytest.mark.parametrize(
    ("ensemble", "first"), [("probabilities", 5 / 8), ("logits", math.sqrt(3) / (1 + math.sqrt(3)))]
)
def test_two_clients_by_hand(ensemble: str, first: float) -> None:
    """At x = 1, a says softmax(ln 3, 0) = (3/4, 1/4) and b (1/2, 1/2): (5/8, 3/8), though b has more data.

    The mean of the logits is (ln √3, 0) instead, whose first probability is √3 / (1 + √3). One step from
    zero, where the student says 1/2 and the gradient is student − teacher: w = −0.5 · (1/2 − first), −w.
    """
    nodes = {1: member("a", (math.log(3), 0.0), 1), 2: member("b", (0.0, 0.0), 9)}
    model, _ = run(nodes, settings(ensemble=ensemble, distil_learning_rate=0.5))
    assert model.tolist() == pytest.approx([0.5 * (first - 0.5), 0.5 * (0.5 - first)], abs=1e-6)


def test_figures_by_hand() -> None:
    """At x = 1 of class 0: a says (3/4, 1/4), b (1/3, 2/3) and is wrong; together 13/24 for class 0."""
    nodes = {1: member("a", (math.log(3), 0.0)), 2: member("b", (0.0, math.log(2)))}
    metrics = run(nodes, settings(), test=ONE)[1].metrics
    assert metrics[one_shot.MEMBERS] == 2
    assert metrics[one_shot.MEMBER_ACCURACY] == 50
    assert metrics[one_shot.ENSEMBLE_ACCURACY] == 100
    assert metrics[one_shot.DISTILLED_ACCURACY] == 100
    assert metrics[one_shot.AGREEMENT] == 100
    untested = run(nodes, settings())[1].metrics
    assert not {one_shot.MEMBER_ACCURACY, one_shot.ENSEMBLE_ACCURACY} & set(untested)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_one_client_is_its_model_distilled(temperature: float) -> None:
    teacher, student = Scores(), Scores()
    with torch.no_grad():
        teacher.w.copy_(torch.tensor([0.5, -1.5]))
    same = DistillationSettings(
        epochs=3, batch_size=8, learning_rate=0.05, temperature=temperature, hard_label_weight=0
    )
    draw = torch_generator(0, NAME, 1)
    torch.randint(2**62, (1,), generator=draw)  # As `seeded_layers` does
    distil(student, Lesson(MANY, outputs_of(teacher, MANY)), same, 0.9, draw)
    given = settings(distil_epochs=3, distil_batch_size=8, distil_temperature=temperature)
    found, _ = run({1: member("a", (0.5, -1.5))}, given, MANY)
    torch.testing.assert_close(found, student.w.detach(), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found, torch.zeros(2), atol=0.1)


@given(st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=4))
def test_votes_against_a_slow_loop(rows: list[tuple[float, float, float]]) -> None:
    """Σ_k softmax_k / m in Python floats; the logits of the ensemble have that softmax."""
    logits = torch.tensor(rows, dtype=torch.float64)
    mean = votes(logits, "probabilities").mean(dim=0, keepdim=True)
    slow = [0.0, 0.0, 0.0]
    for row in rows:
        total = sum(math.exp(v) for v in row)
        slow = [s + math.exp(v) / total / len(rows) for s, v in zip(slow, row, strict=True)]
    assert ensemble_logits(mean, "probabilities").softmax(dim=1)[0].tolist() == pytest.approx(slow, abs=1e-8)
    assert ensemble_logits(votes(logits, "logits"), "logits").equal(logits)


@pytest.mark.parametrize("start", ["initial", "average"])
def test_the_order_of_arrival_does_not_change_a_bit(start: str) -> None:
    first, result_of_first = run(five(), settings(student_start=start), MANY, MANY)
    for shuffle in range(3):
        model, result = run(five(), settings(student_start=start), MANY, MANY, shuffle=shuffle)
        assert model.equal(first)
        assert result.metrics == result_of_first.metrics


def test_the_average_without_distillation_is_fedavg() -> None:
    """Bit for bit; any distillation moves it, and from the initial model nothing moves."""
    cohort = Cohort(FakeGrid(five()), timeout=1.0)
    cohort.connect(5)
    plan = TrainingPlan(StrategySettings(), SelectionSettings(), 1, 0)
    averaged = wire.state_of(train(plan, cohort, Start(flat_record([0.0, 0.0]))))["w"].clone()
    assert run(five(), settings(distil_epochs=0, student_start="average"))[0].equal(averaged)
    assert not run(five(), settings(student_start="average"), MANY)[0].equal(averaged)
    assert run(five(), settings(distil_epochs=0))[0].equal(torch.zeros(2))


def test_the_seed_alone_decides_the_batches() -> None:
    given = settings(distil_batch_size=8)
    torch.default_generator.manual_seed(1)
    model, _ = run(five(), given, MANY)
    torch.default_generator.manual_seed(2)
    assert run(five(), given, MANY)[0].equal(model)
    assert not run(five(), given, MANY, seed=1)[0].equal(model)


def test_labels_of_the_public_data_are_not_read() -> None:
    unlabelled = TensorExamples(MANY.x, torch.full_like(MANY.y, -1))
    assert run(five(), settings(), unlabelled)[0].equal(run(five(), settings(), MANY)[0])


def test_who_cannot_be_heard_is_named_and_left_out() -> None:
    """An error, NaN, and no number of examples; the model is that of the five."""

    def uncounted(content: RecordDict) -> None:
        content.metric_records[wire.METRICS] = MetricRecord({wire.TRAIN_LOSS: 1.0})

    well = node_answer("error", 1, adds(1.0))

    def failing(message: Message) -> Message | None:
        return raises(message) if message.metadata.message_type == wire.TRAIN else well(message)

    bad = {
        "error": failing,
        "nan": member("nan", (math.nan, 0.0)),
        "none": spoiled(member("none", (9.0, 9.0)), uncounted),
    }
    model, result = run(five(**bad), settings(), MANY)
    assert {fault.client_id for fault in result.faults} == set(bad)
    assert model.equal(run(five(), settings(), MANY)[0])


def test_answers_beyond_all_bounds_are_refused_before_they_count() -> None:
    """Weights of 1000 are a possible update; logits of 2000 at x = 2 are no member's answer."""
    model, result = run(five(wild=member("wild", (1000.0, 0.0))), settings(ensemble="logits"), MANY)
    assert [(f.client_id, f.reason) for f in result.faults] == [
        ("wild", "its model's answers are not within ±1024: it is no member of the ensemble")
    ]
    assert "wild" not in result.accepted
    assert result.metrics[one_shot.MEMBERS] == 5
    assert model.equal(run(five(), settings(ensemble="logits"), MANY)[0])


def test_without_a_member_the_model_stays_and_it_is_said() -> None:
    model, result = run({1: member("a", (math.nan, 0.0))}, settings())
    assert model.equal(torch.zeros(2))
    assert result.faults[-1].reason == "no usable reply: the model is kept as it was"


def test_unchecked_replies_are_refused() -> None:
    strategy = OneShot(settings(), ServerSide(Scores(), 2, ONE, None, 0))
    with pytest.raises(RuntimeError, match="before configure_train"):
        strategy.aggregate_train(1, [])
    grid = FakeGrid({1: member("a", (0.0, 0.0))})
    sent = list(strategy.configure_train(1, flat_record([0.0, 0.0]), ConfigRecord({}), grid))
    with pytest.raises(RuntimeError, match="inside GuardedStrategy"):
        strategy.aggregate_train(1, sent)


def test_it_cannot_be_built_of_its_settings_alone() -> None:
    with pytest.raises(LetheError, match="one-shot has no server half without a model and data"):
        lookup(NAME).build(algorithm.ServerSide(settings()))


def test_further_rounds_are_those_of_fedavg() -> None:
    """What a method or the audit trains on after the only round."""
    plan = TrainingPlan(settings(), SelectionSettings(), 1, 0, build=lambda plan: FedAvg())
    assert plan.in_rounds.strategy.name == "fedavg"
    assert plan.in_rounds.build is None
    assert lookup(NAME).client is fedavg.train_client
