"""strategies/coded_gd/coded_gd.py: a step of full-batch gradient descent, whoever does not answer."""

from collections.abc import Iterable, Mapping
from itertools import combinations

import pytest
import torch
from flwr.app import Message
from torch import Tensor, nn
from torch.nn import functional

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, summed_gradient
from strategies.coded_gd import coded_gd
from strategies.coded_gd.coded_gd import CODED_EXAMPLES, DECODED, PART_EXAMPLES, CodedGD
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, TensorExamples, concatenated
from strategies.core.seeds import torch_generator
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, node_answer, raises
from tests.strategies.fedprox.test_fedprox import model

SIZES = (8, 3, 5, 12)
TRAIN = TrainSettings(learning_rate=0.5)


def part(client_id: str) -> Examples:
    size, generator = SIZES[int(client_id)], torch_generator(0, "part", client_id)
    x = torch.randn(size, 4, generator=generator)
    return TensorExamples(x, torch.randint(0, 3, (size,), generator=generator))


def coding(client_id: str, stragglers: int, down: Iterable[str] = ()) -> Answer:
    """Return a client that runs the client half; those that are down answer with errors."""
    plain = node_answer(client_id, SIZES[int(client_id)], lambda old, message: old)

    def answer(message: Message) -> Message | None:
        if message.metadata.message_type != wire.TRAIN:
            return plain(message)
        if client_id in down:
            return raises(message)
        network = model()
        layout = wire.Layout.of(network.state_dict())
        wire.load_flat(network, wire.flat_of(message.content.array_records[wire.ARRAYS], layout), layout)
        settings = StrategySettings(name="coded-gd", stragglers=stragglers)
        job = ClientJob(network, part(client_id), TRAIN, settings, client_id, 1, torch_generator(0))
        job = ClientJob(**{**job.__dict__, "received": message.content, "examples_of": part})
        result = coded_gd.train_client(job)
        numbers = {**result.metrics, wire.NUM_EXAMPLES: result.num_examples}
        return wire.reply_to(message, client_id, numbers, wire.record_of(result.model.state_dict()))

    return answer


def run(stragglers: int, down: Iterable[str] = (), rounds: int = 1) -> tuple[Tensor, list[RoundResult]]:
    answers = [coding(str(i), stragglers, down) for i in range(4)]
    cohort = Cohort(FakeGrid(dict(enumerate(answers, start=1))), timeout=1.0)
    cohort.connect(4)
    settings = StrategySettings(name="coded-gd", stragglers=stragglers)
    results: list[RoundResult] = []
    start = Start(wire.record_of(model().state_dict()))
    plan = TrainingPlan(settings, SelectionSettings(), rounds, 0)
    arrays = train(plan, cohort, start, on_round=lambda result, _: results.append(result))
    return flat(wire.state_of(arrays)), results


def flat(state: wire.State) -> Tensor:
    return wire.Layout.of(state).flatten(state)


def descended(rounds: int = 1) -> Tensor:
    """Return what torch's SGD on all examples at once gives."""
    network, data = model(), concatenated(part(str(i)) for i in range(4))
    optimizer = torch.optim.SGD(network.parameters(), TRAIN.learning_rate)
    for _ in range(rounds):
        optimizer.zero_grad()
        functional.cross_entropy(network(data.x), data.y).backward()
        optimizer.step()
    return flat(network.state_dict())


def test_a_coded_gradient_by_hand() -> None:
    """One weight vector per class, all zero, so every softmax is uniform: ∂ℓ/∂W = (½ − [y = c]) x.

    2 · [x = 1, y = 0] − 1 · [x = 3, y = 1]: row 0: 2·(−½)·1 − ½·3 = −2.5; row 1: 2·½·1 + ½·3 = 2.5.
    """
    network = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        network.weight.zero_()
    parts = [TensorExamples(torch.tensor([[x]]), torch.tensor([y])) for x, y in ((1.0, 0), (3.0, 1))]
    summed_gradient(network, parts, [2.0, -1.0])
    assert network.weight.grad is not None
    assert network.weight.grad.flatten().tolist() == pytest.approx([-2.5, 2.5])


@pytest.mark.parametrize("stragglers", [0, 1, 2])
def test_a_round_is_full_batch_descent_whoever_is_missing(stragglers: int) -> None:
    """Parts of 8, 3, 5 and 12 examples; every set of stragglers."""
    for down in combinations("0123", stragglers):
        found, results = run(stragglers, down)
        torch.testing.assert_close(found, descended(), atol=1e-6, rtol=1e-5)
        assert results[0].metrics[DECODED] == 4 - stragglers
        assert {fault.client_id for fault in results[0].faults} == set(down)


def test_several_rounds_are_several_steps() -> None:
    torch.testing.assert_close(run(1, "2", 3)[0], descended(3), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(descended(3), descended(1), atol=1e-3)


def test_too_many_stragglers_leave_the_model_as_it_is_and_are_said() -> None:
    found, results = run(1, "12")
    assert found.equal(flat(model().state_dict()))
    assert [f.reason for f in results[0].faults][-1] == "no usable reply: the model is kept as it was"


def test_fewer_clients_than_stragglers_end_the_run() -> None:
    with pytest.raises(LetheError, match="stragglers: given 4, but 4 clients are asked"):
        run(4)


def test_a_client_that_cannot_read_others_data_says_so() -> None:
    job = ClientJob(model(), part("0"), TRAIN, StrategySettings(), "0", 1, torch_generator(0))
    with pytest.raises(LetheError, match="cannot read the data of others"):
        coded_gd.train_client(job)


def with_figures(figures: Mapping[str, float], drop: Iterable[str] = ()) -> Tensor:
    """Return the model after a step in which client 1 changes or leaves out figures of its answer."""
    good = coding("1", 1)

    def changed(message: Message) -> Message | None:
        reply = good(message)
        if reply is not None and message.metadata.message_type == wire.TRAIN:
            reply.content.metric_records[wire.METRICS].update(figures)
            for name in drop:
                del reply.content.metric_records[wire.METRICS][name]
        return reply

    grid = FakeGrid({i + 1: changed if i == 1 else coding(str(i), 1) for i in range(4)})
    cohort = Cohort(grid, timeout=1.0)
    cohort.connect(4)
    plan = TrainingPlan(StrategySettings(name="coded-gd"), SelectionSettings(), 1, 0)
    arrays = train(plan, cohort, Start(wire.record_of(model().state_dict())))
    return flat(wire.state_of(arrays))


def test_an_answer_that_is_not_coded_is_not_used() -> None:
    """Client 1 leaves out what decodes the number of examples: the others make up for it."""
    torch.testing.assert_close(with_figures({}, [CODED_EXAMPLES]), descended(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [CODED_EXAMPLES, PART_EXAMPLES])
@pytest.mark.parametrize("value", [1e300, -1e300, 2.0**40])
def test_an_answer_with_impossible_figures_is_not_used(name: str, value: float) -> None:
    """A sum with them would have no number in it: the others make up for it."""
    torch.testing.assert_close(with_figures({name: value}), descended(), atol=1e-6, rtol=1e-5)


def test_a_sum_that_cannot_be_decoded_leaves_the_model_as_it_is() -> None:
    """Figures that are possible, but make the number of all examples negative."""
    assert with_figures({CODED_EXAMPLES: -(2.0**31)}).isfinite().all()
    found = [with_figures({CODED_EXAMPLES: sign * 2.0**31}) for sign in (-1, 1)]
    assert any(each.equal(flat(model().state_dict())) for each in found)


def test_unchecked_replies_are_refused() -> None:
    strategy, grid = CodedGD(StrategySettings(stragglers=0), 0), FakeGrid({1: coding("0", 0)})
    from flwr.app import ConfigRecord

    messages = list(strategy.configure_train(1, wire.record_of(model().state_dict()), ConfigRecord({}), grid))
    with pytest.raises(RuntimeError, match="inside GuardedStrategy"):
        strategy.aggregate_train(1, messages)
