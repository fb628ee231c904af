"""The server's side: central noise, lost clients, accounts, interruptions, and what is refused at once."""

import math

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.fedavg import FedAvg
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.layers.privacy.accounts import Accounts
from strategies.layers.privacy.central import CentralPrivacy, CentralStrategy
from strategies.layers.privacy.checks import check_feasible
from strategies.layers.privacy.noise import grid_step
from strategies.layers.privacy.server import (
    AccountedStrategy,
    RememberedAttempts,
    prior_attempts,
    privacy_summary,
    repeated_rounds,
)
from strategies.layers.privacy.settings import PrivacySettings
from strategies.plan import RoundResult, Start, TrainingPlan
from strategies.rounds import train
from strategies.server.cohort import Cohort
from strategies.server.settings import SelectionSettings
from strategies.settings import StrategySettings
from tests.strategies.fakes import Answer, FakeGrid, adds, flat_record, node_answer, raises

EXACT = PrivacySettings(unit="client-central", noise_multiplier=0.0, clip_norm=100.0, randomness="seeded")


def run(
    settings: PrivacySettings,
    nodes: dict[int, Answer],
    rounds: int = 1,
    fraction: float = 1.0,
    size: int = 1,
) -> tuple[list[float], list[RoundResult]]:
    """Train a model of zeros and return it, and the rounds."""
    cohort = Cohort(FakeGrid(nodes), 0.2, 0.001)
    cohort.connect(len(nodes))
    selection = SelectionSettings(fraction=fraction)
    plan = TrainingPlan(StrategySettings(), selection, rounds, 0, privacy=settings)
    results: list[RoundResult] = []
    start = Start(flat_record([0.0] * size))
    arrays = train(plan, cohort, start, on_round=lambda result, _: results.append(result))
    return wire.state_of(arrays)["w"].tolist(), results


def three_nodes(**changes: Answer) -> dict[int, Answer]:
    nodes = {i: node_answer(str(i), 10 * i, adds(float(i))) for i in (1, 2, 3)}
    return nodes | {int(name[1:]): answer for name, answer in changes.items()}


def reporting(client_id: str, value: float, epsilon: float) -> Answer:
    """Return a client that adds a constant and reports an ε."""
    plain = node_answer(client_id, 10, adds(value))

    def answer(message: Message) -> Message | None:
        reply = plain(message)
        if reply is not None and message.metadata.message_type == wire.TRAIN:
            reply.content[wire.METRICS][wire.EPSILON] = epsilon
            reply.content[wire.METRICS][wire.NOISE_MULTIPLIER] = 2.0
        return reply

    return answer


def test_central_by_hand() -> None:
    """Updates 1, 2, 3 clipped at 2: (1 + 2 + 2) / 3, every client with the same weight."""
    model, _ = run(EXACT.model_copy(update={"clip_norm": 2.0}), three_nodes())
    assert model == pytest.approx([5 / 3])


def test_without_noise_and_clipping_it_is_the_plain_average() -> None:
    assert run(EXACT, three_nodes())[0] == [2.0]


def test_a_lost_client_adds_nothing_and_the_divisor_stays() -> None:
    """(1 + 3) / 3, not / 2: the number of those expected does not depend on who answers."""
    model, results = run(EXACT, three_nodes(n2=raises_when_training("2")))
    assert model == pytest.approx([4 / 3])
    assert [fault.client_id for fault in results[0].faults] == ["2"]


def test_noise_on_the_sum_has_the_std_that_was_paid_for() -> None:
    """σC / m over 10,000 entries, with updates of zero."""
    settings = EXACT.model_copy(update={"noise_multiplier": 3.0, "clip_norm": 0.5})
    nodes = {i: node_answer(str(i), 10, lambda old, _: old) for i in (1, 2, 3)}
    model = torch.tensor(run(settings, nodes, size=10_000)[0])
    assert float(model.std()) == pytest.approx(3.0 * 0.5 / 3, rel=0.03)
    assert abs(float(model.mean())) < 0.03


def test_the_released_sum_lies_on_the_grid_and_the_model_is_made_of_it() -> None:
    """Of four clients from zero: four times the model is the sum, in steps of 2⁻¹¹ for σC = ½."""
    settings = EXACT.model_copy(update={"noise_multiplier": 1.0, "clip_norm": 0.5, "randomness": "secret"})
    nodes = {i: node_answer(str(i), 10, adds(0.001 * i)) for i in (1, 2, 3, 4)}
    first, second = (torch.tensor(run(settings, nodes, size=500)[0]).double() * 4 for _ in range(2))
    assert grid_step(0.5) == 2.0**-11
    assert not (first * 2**11 % 1).any()
    assert not torch.equal(first, second)


def test_seeded_central_noise_repeats_and_differs_between_rounds() -> None:
    settings = EXACT.model_copy(update={"noise_multiplier": 1.0})
    privacy = [CentralPrivacy(settings, SelectionSettings(), 2, 0, Accounts()) for _ in range(2)]
    first, again = (each.released(torch.zeros(5), 1) for each in privacy)
    assert torch.equal(first, again)
    assert not torch.equal(first, privacy[0].released(torch.zeros(5), 2))


def test_a_secret_draw_of_a_fixed_number_differs_each_time() -> None:
    """Four of eight, in the clients' order; all 70 draws are possible."""
    settings = EXACT.model_copy(update={"noise_multiplier": 1.0, "randomness": "secret"})
    privacy = CentralPrivacy(settings, SelectionSettings(fraction=0.5), 400, 0, Accounts())
    clients = [str(i) for i in range(8)]
    draws = {tuple(privacy.select(clients, 1)[0]) for _ in range(40)}
    assert len(draws) > 10
    assert all(len(draw) == 4 and list(draw) == sorted(draw) for draw in draws)


def test_a_round_without_an_answer_still_releases_noise() -> None:
    settings = EXACT.model_copy(update={"noise_multiplier": 1.0})
    model, results = run(settings, {1: raises_when_training("1"), 2: raises_when_training("2")})
    assert model != [0.0]
    assert results[0].accepted == ()


def raises_when_training(client_id: str) -> Answer:
    plain = node_answer(client_id, 10, adds(1.0))
    return lambda message: raises(message) if message.metadata.message_type == wire.TRAIN else plain(message)


def test_central_budgets_are_kept_per_client() -> None:
    """The budget is three rounds of σ = 4; client 1 has one, stops after it, and the server counts that."""
    one, three = (epsilon_of((Spend(4.0, 1.0, n),), 1e-5, "rdp") for n in (1, 3))
    budgets = f"1={one}, 3=0"
    settings = EXACT.model_copy(
        update={"noise_multiplier": 4.0, "epsilon": three, "budgets": budgets, "accountant": "rdp"}
    )
    _, results = run(settings, three_nodes(), rounds=5)
    assert [result.selected for result in results] == [("1", "2"), ("2",), ("2",), (), ()]
    spent = results[-1].privacy
    assert spent is not None
    assert spent["epsilons"] == {"1": one, "2": three}
    rows = privacy_summary(settings, spent, ["1", "2", "3"])["clients"]
    assert [rows[i]["refused-rounds"] for i in "123"] == [4, 2, 5]
    assert rows["3"] == {
        "budget": 0.0,
        "epsilon": 0.0,
        "noise-multiplier": None,
        "refused-rounds": 5,
        "reason": "its privacy budget is 0: it takes no part",
        "unreported-rounds": 0,
    }


def test_poisson_sampling_divides_by_the_expected_count_and_charges_everyone() -> None:
    """With q = 1/2 of 20 clients that add 1: each round moves the model by (number drawn) / 10."""
    changes = {"noise_multiplier": 1.0, "client_sampling": "poisson", "accountant": "rdp"}
    settings = EXACT.model_copy(update=changes)
    selection = SelectionSettings(fraction=0.5)
    privacy = CentralPrivacy(settings, selection, 400, 0, Accounts())
    clients = [str(i) for i in range(20)]
    sizes = [len(privacy.select(clients, r)[0]) for r in range(1, 401)]
    assert privacy.expected == 10
    assert sum(sizes) / 400 == pytest.approx(10, abs=0.5)
    assert len(set(sizes)) > 5
    assert privacy.histories["7"] == (Spend(1.0, 0.5, 400),)
    assert sum(spend.steps for (spend,) in privacy.unamplified.values()) == sum(sizes)
    assert {spend.sample_rate for (spend,) in privacy.unamplified.values()} == {1.0}
    again = CentralPrivacy(settings, selection, 400, 0, Accounts())
    again.restore(privacy.to_json())
    assert (again.histories, again.unamplified) == (privacy.histories, privacy.unamplified)
    nodes = {i + 1: node_answer(str(i), 10, adds(1.0)) for i in range(20)}
    exact = EXACT.model_copy(update={"client_sampling": "poisson"})
    model, results = run(exact, nodes, rounds=3, fraction=0.5)
    assert model[0] == pytest.approx(sum(len(result.selected) for result in results) / 10)


def test_fixed_sampling_charges_those_who_were_drawn_without_amplification() -> None:
    settings = EXACT.model_copy(update={"noise_multiplier": 1.0})
    privacy = CentralPrivacy(settings, SelectionSettings(fraction=0.5), 4, 0, Accounts())
    drawn, _ = privacy.select(["1", "2", "3", "4"], 1)
    assert len(drawn) == 2
    assert privacy.histories == dict.fromkeys(drawn, (Spend(1.0, 1.0, 1),))


def test_central_noise_needs_an_average() -> None:
    class Other(FedAvg.__mro__[1]):  # type: ignore[misc]
        configure_train = aggregate_train = configure_evaluate = aggregate_evaluate = summary = None

    privacy = CentralPrivacy(EXACT, SelectionSettings(), 1, 0, Accounts())
    with pytest.raises(LetheError, match="needs a strategy that averages"):
        CentralStrategy(Other(), privacy)


def test_reports_are_written_down_and_the_lost_are_counted() -> None:
    """Client 2 never answers: what it may have spent is said, not guessed."""
    settings = PrivacySettings(unit="example", epsilon=5.0)
    nodes = {1: reporting("1", 1.0, 0.5), 2: raises_when_training("2"), 3: reporting("3", 3.0, 0.7)}
    model, results = run(settings, nodes, rounds=2)
    assert model == [4.0]
    spent = results[-1].privacy
    assert spent is not None
    assert spent["epsilons"] == {"1": 0.5, "3": 0.7}
    assert results[-1].metrics[wire.EPSILON] == 0.7
    assert privacy_summary(settings, spent, ["1", "2", "3"])["clients"]["2"]["unreported-rounds"] == 2


def test_updates_without_an_epsilon_are_not_used() -> None:
    """Their clients do not know that the run is private: the model stays, and each is named."""
    model, results = run(PrivacySettings(unit="example", epsilon=5.0), three_nodes(), rounds=1)
    assert model == [0.0]
    reasons = [f.reason for f in results[0].faults if f.client_id != "all"]
    assert reasons == ["reports no epsilon: not used"] * 3


def test_accounts_survive_a_checkpoint() -> None:
    accounts = Accounts({"1": 0.5, "2": math.inf}, {"1": 2.0}, {"3": (2, "no")}, {"4": 1})
    document = accounts.to_json()
    document["epsilons"] = {"1": 0.5, "2": None}  # What JSON makes of infinity
    assert Accounts.from_json(document) == accounts


def test_attempts_are_written_before_anything_is_sent_and_told_with_every_message() -> None:
    """Client a was asked three times before an interruption; then both are asked twice."""
    noted: list[tuple[int, list[str]]] = []
    names, accounts = {1: "a", 2: "b"}, Accounts(attempts={"a": 3})
    writing = RememberedAttempts(FedAvg(), lambda: names, lambda r, ids: noted.append((r, ids)))
    strategy = AccountedStrategy(writing, accounts, names)
    grid = FakeGrid(three_nodes())
    del grid.answers[3]
    arrays: ArrayRecord = flat_record([0.0])
    told = [
        [message.content.config_records[wire.CONFIG].get(wire.PRIOR_ATTEMPTS) for message in messages]
        for messages in (strategy.configure_train(r, arrays, ConfigRecord(), grid) for r in (4, 5))
    ]
    assert noted == [(4, ["a", "b"]), (5, ["a", "b"])]
    assert told == [[3, None], [4, 1]]


def test_attempts_that_count() -> None:
    """Round 2 was tried twice. Secret noise was drawn anew each time; seeded noise was the same."""
    lines = [{"round": r, "clients": ["a"]} for r in (1, 2, 2)] + [{"round": 1, "clients": ["b"]}]
    secret, seeded = (PrivacySettings(randomness=r) for r in ("secret", "seeded"))  # type: ignore[arg-type]
    assert prior_attempts(lines, secret, 1, "run") == {"a": 3, "b": 1}
    assert prior_attempts(lines, seeded, 1, "run") == {"a": 1, "b": 1}
    assert (repeated_rounds(lines[:3], secret, 1), repeated_rounds(lines[:3], seeded, 1)) == (2, 0)
    assert repeated_rounds([], secret, 0) == 0


def test_attempts_of_other_trainings_all_count() -> None:
    """Their noise is not that of the training that goes on, whatever it is derived from."""
    own = [{"round": r, "clients": ["a"], "training": "run"} for r in (1, 1, 2)]
    lines = [*own, {"round": 2, "clients": ["a"], "training": ""}]
    seeded = PrivacySettings(randomness="seeded")
    assert prior_attempts(lines, seeded, 1, "run") == {"a": 2}
    assert prior_attempts(lines, seeded, 0, "") == {"a": 4}
    masked = seeded.model_copy(update={"secure_aggregation": True})
    assert prior_attempts(lines, masked, 1, "run") == {"a": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": 0.02}, r"privacy\.delta: given 0\.02, allowed below 1/80: client 1 has 80 examples"),
        (
            {"unit": "client-local", "delta": 0.5},
            r"privacy\.delta: given 0\.5, allowed below 1/2: there are 2 clients",
        ),
        (
            {"noise_multiplier": 0.3, "epsilon": 0.5},
            r"privacy\.epsilon: given 0\.5, too small for one step: with privacy\.noise-multiplier 0\.3",
        ),
        ({"epsilon": 1e-9, "delta": 1e-12}, r"privacy\.epsilon: given 1e-09, too small for \d+ steps"),
        ({"budgets": "0=0, 1=0"}, r"privacy\.budgets: every client has 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(changes: dict[str, object], message: str) -> None:
    settings = PrivacySettings(unit="example", epsilon=4.0).model_copy(update=changes)
    with pytest.raises(BadInput, match=message):
        check_feasible(settings, TrainSettings(), 5, {"0": 40, "1": 80})


def test_what_can_be_trained_is_not_refused() -> None:
    for unit in ("none", "example", "client-local", "client-central"):
        settings = PrivacySettings(unit=unit, epsilon=4.0, budgets="0=0")  # type: ignore[arg-type]
        check_feasible(settings, TrainSettings(), 5, {"0": 40, "1": 80})
