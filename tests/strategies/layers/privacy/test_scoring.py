"""Neurons chosen by private data: what one example moves, the noise, what it costs, and who may not."""

from dataclasses import replace

import dp_accounting
import pytest
import torch
from dp_accounting import rdp
from flwr.app import RecordDict
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, LocalResult
from strategies.core import wire
from strategies.core.errors import LetheError
from strategies.core.examples import Examples, TensorExamples
from strategies.core.secret_random import Randomness
from strategies.core.seeds import torch_generator
from strategies.layers.privacy.accounting import ORDERS, Spend, epsilon_of, solve_noise
from strategies.layers.privacy.client import BudgetSpent, ClientPrivacy, train_privately
from strategies.layers.privacy.ledger import read_account
from strategies.layers.privacy.scoring import PrivateScorer, Scoring, clipped_total, example_scores
from strategies.layers.privacy.settings import PrivacySettings
from strategies.models.neurons import hidden_groups
from strategies.models.subnetwork import block_index, top_neurons, unpack_kept
from strategies.pruned_dp import pruned_dp
from strategies.registry import lookup
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings

SEEDED = Randomness(secret=False)
DELTA = 1e-3
SETTINGS = PrivacySettings(unit="example", epsilon=4.0, accountant="rdp", randomness="seeded", delta=DELTA)
PRIVATE = StrategySettings(name="pruned-dp", score_source="private", score_noise=5.0)
SCORING = Scoring(5.0, 0.01, selections=2)
ROUNDS = 4
VECTORS = st.lists(st.lists(st.floats(0, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=6)


def net() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2))
    generator = torch_generator(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def data(n: int = 20) -> Examples:
    return TensorExamples(torch.rand(n, 4, generator=torch_generator(0)), torch.arange(n) % 2)


def job(keep: float = 0.5, server_round: int = 1) -> ClientJob:
    train = TrainSettings(batch_size=5, local_epochs=1)
    generator = torch_generator(server_round)
    return ClientJob(net(), data(), train, PRIVATE, "7", server_round, generator, keep=keep)


def privacy(scoring: Scoring | None = SCORING, unit: str = "example", prior: int = 0) -> ClientPrivacy:
    chosen = SETTINGS.model_copy(update={"unit": unit})
    return ClientPrivacy(chosen, 4.0, ROUNDS, prior, RecordDict(), scoring)


def independent_epsilon(*mechanisms: tuple[float, float, int]) -> float:
    """Return what dp-accounting says of Gaussian mechanisms: noise, sample rate, steps of each."""
    accountant = rdp.RdpAccountant(list(ORDERS))
    for noise, rate, steps in mechanisms:
        step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, steps))
    return float(accountant.get_epsilon(DELTA))


def test_two_examples_by_hand() -> None:
    """Scores (3, 4) and (0, 0.5), clipped at 1: (0.6, 0.8) + (0, 0.5). As one client: their mean, clipped."""
    rows = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])]
    assert clipped_total(iter(rows), 1.0, by_example=True).tolist() == pytest.approx([0.6, 1.3])
    mean = torch.tensor([1.5, 2.25])
    expected = (mean / mean.norm()).tolist()
    assert clipped_total(iter(rows), 1.0, by_example=False).tolist() == pytest.approx(expected)


def test_an_example_scores_a_neuron_by_its_squared_gradients() -> None:
    """Against autograd, neuron by neuron: weights from the layer before, and the bias."""
    model, examples = net(), data(3)
    for x, y, scores in zip(
        examples.x, examples.y, example_scores(model, hidden_groups(model), examples), strict=True
    ):
        model.zero_grad()
        nn.functional.cross_entropy(model(x[None]), y[None]).backward()  # type: ignore[no-untyped-call]
        by_hand = [
            float(layer.weight.grad[j].square().sum() + layer.bias.grad[j].square())
            for layer in (model[0], model[2])  # type: ignore[index]
            for j in range(layer.out_features)
        ]
        assert scores.tolist() == pytest.approx(by_hand, rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(VECTORS, st.floats(0.01, 100))
def test_an_example_more_or_less_moves_the_sum_by_at_most_the_clip_norm(
    rows: list[list[float]], clip: float
) -> None:
    """Whatever its scores are; and a client's whole data move the client's vector by no more."""
    vectors = [torch.tensor(row, dtype=torch.float64) for row in rows]
    zero = torch.zeros(3, dtype=torch.float64)
    without = clipped_total(iter([*vectors[1:], zero]), clip, by_example=True)  # of nothing, the sum is zero
    moved = clipped_total(iter([*vectors, zero]), clip, by_example=True) - without
    assert float(moved.norm()) <= clip * (1 + 1e-9)
    assert float(clipped_total(iter(vectors), clip, by_example=False).norm()) <= clip * (1 + 1e-9)


@pytest.mark.parametrize("by_example", [True, False])
def test_the_noise_has_the_variance_that_is_paid_for(by_example: bool) -> None:
    """10,000 neurons on which no score depends: N(0, (σC)²) with σC = 3 · 0.5."""
    model = nn.Sequential(nn.Linear(1, 10_000), nn.Linear(10_000, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    scorer = PrivateScorer(Scoring(3.0, 0.5), by_example, SEEDED)
    (scores,) = scorer(
        model,
        hidden_groups(model),
        TensorExamples(torch.zeros(2, 1), torch.tensor([0, 1])),
        torch_generator(0),
    )
    assert float(scores.std()) == pytest.approx(1.5, rel=0.03)
    assert abs(float(scores.mean())) < 4 * 1.5 / 100


def test_with_little_noise_the_best_neurons_are_kept_and_with_much_they_are_not() -> None:
    def chosen(noise: float) -> bytes:
        return pruned_dp.train_client(
            replace(job(), scorer=PrivateScorer(Scoring(noise, 0.01), True, SEEDED))
        ).positions

    model = net()
    groups = hidden_groups(model)
    total = clipped_total(example_scores(model, groups, data()), 0.01, by_example=True)
    best = (top_neurons(total[:6], 3), top_neurons(total[6:], 2))
    assert unpack_kept(groups, chosen(1e-6)) == best
    assert chosen(1e6) != chosen(1e-6)


def test_the_client_trains_the_part_that_it_chose() -> None:
    """What comes back is a block of its positions: after tiny steps, nearly that of the model sent."""
    still = replace(job(), train=TrainSettings(batch_size=5, local_epochs=1, learning_rate=1e-9))
    result = train_privately(pruned_dp.train_client, still, privacy())
    model = net()
    layout, groups = wire.Layout.of(model.state_dict()), hidden_groups(model)
    kept = unpack_kept(groups, result.positions)
    assert [len(neurons) for neurons in kept] == [3, 2]
    index, small = block_index(layout, groups, kept)
    state = result.model.state_dict()
    assert wire.Layout.of(state) == small
    torch.testing.assert_close(small.flatten(state), layout.flatten(model.state_dict())[index])


def test_choosing_is_part_of_the_same_account() -> None:
    """ε after a round with a choice, and after one without: both mechanisms, as dp-accounting has it."""
    client = privacy()
    first = train_privately(pruned_dp.train_client, job(), client).metrics
    second = train_privately(pruned_dp.train_client, job(keep=0.0, server_round=2), client).metrics
    noise = first[wire.NOISE_MULTIPLIER]
    for steps, metrics in ((4, first), (8, second)):
        mechanisms = (noise, 0.25, steps), (5.0, 1.0, 1)
        assert metrics[wire.EPSILON] == pytest.approx(independent_epsilon(*mechanisms), rel=0.01)
        assert metrics[wire.EPSILON] > epsilon_of((Spend(noise, 0.25, steps),), DELTA, "rdp")
    assert set(read_account(client.state).history) == {Spend(noise, 0.25, 8), Spend(5.0, 1.0, 1)}


def test_the_noise_is_solved_with_the_choices_in_the_budget() -> None:
    """Sixteen steps and two choices fit the budget; with 1 % less noise they do not."""
    noise = solve_noise(4.0, DELTA, 0.25, 16, "rdp", SCORING.planned)

    def spent(sigma: float, accountant: str = "rdp") -> float:
        return epsilon_of((*SCORING.planned, Spend(sigma, 0.25, 16)), DELTA, accountant)

    assert spent(noise, "prv") <= spent(noise) <= 4.0 < spent(noise / 1.01)
    assert noise > solve_noise(4.0, DELTA, 0.25, 16, "rdp")


def test_the_budget_lasts_the_planned_rounds_and_choices_and_no_more() -> None:
    """Four rounds, the first and the third with a choice; then nothing is left, for either."""
    client = privacy()
    keeps = (0.5, 0.0, 0.5, 0.0)
    spent = [
        train_privately(pruned_dp.train_client, job(keep), client).metrics[wire.EPSILON] for keep in keeps
    ]
    assert spent == sorted(spent)
    assert 3.9 < spent[-1] <= 4.0
    account = read_account(client.state)
    for keep in (0.0, 0.5):
        with pytest.raises(BudgetSpent, match="budget is spent"):
            train_privately(pruned_dp.train_client, job(keep), client)
    assert read_account(client.state) == account


def test_a_choice_that_an_interruption_undid_is_paid_for() -> None:
    """Asked once before, of which the state knows nothing: steps and choice are paid for twice."""
    client = privacy(prior=1)
    train_privately(pruned_dp.train_client, job(), client)
    assert {(s.noise_multiplier == 5.0, s.steps) for s in read_account(client.state).history} == {
        (False, 8),
        (True, 2),
    }


def test_at_the_client_level_the_choice_is_counted_too() -> None:
    client = privacy(unit="client-local")
    metrics = train_privately(pruned_dp.train_client, job(), client).metrics
    expected = independent_epsilon((metrics[wire.NOISE_MULTIPLIER], 1.0, 1), (5.0, 1.0, 1))
    assert metrics[wire.EPSILON] == pytest.approx(expected, rel=0.01)


def test_seeded_noise_repeats_and_secret_noise_does_not() -> None:
    def scored(randomness: Randomness, seed: int) -> Tensor:
        scorer = PrivateScorer(SCORING, True, randomness)
        model = net()
        return torch.cat(scorer(model, hidden_groups(model), data(), torch_generator(seed)))

    assert scored(SEEDED, 0).equal(scored(SEEDED, 0))
    assert not scored(SEEDED, 0).equal(scored(SEEDED, 1))
    assert not scored(Randomness(secret=True), 0).equal(scored(Randomness(secret=True), 0))


def test_without_noise_there_is_no_choice() -> None:
    with pytest.raises(LetheError, match="a private mask without its cost is refused"):
        Scoring(0.0, 0.01)
    settings = StrategySettings(name="pruned-dp")
    assert lookup("pruned-dp").scoring(settings, 2, SelectionSettings()) is None
    for client in (privacy(None), privacy(None, unit="client-central"), privacy(unit="client-central")):
        with pytest.raises(LetheError, match="does not pay for: nothing is sent"):
            train_privately(pruned_dp.train_client, job(), client)
    with pytest.raises(LetheError, match="nothing is sent"):
        pruned_dp.train_client(job())  # Not even in a run without privacy


def test_who_scores_unasked_or_scores_what_is_no_number_sends_nothing() -> None:
    def curious(given: ClientJob) -> LocalResult:
        return pruned_dp.train_client(replace(given, keep=0.5))

    with pytest.raises(LetheError, match="scored neurons unasked: nothing is sent"):
        train_privately(curious, job(keep=0.0), privacy())
    with pytest.raises(LetheError, match="not finite"):
        clipped_total(iter([torch.tensor([float("nan")])]), 1.0, by_example=True)
    with pytest.raises(LetheError, match="no example"):
        clipped_total(iter([]), 1.0, by_example=True)
