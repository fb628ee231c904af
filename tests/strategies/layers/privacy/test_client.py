"""A private client: pays first, refuses what it cannot pay, and lets nothing else out."""

import math
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from torch import nn

from strategies import fedavg
from strategies.client.settings import TrainSettings
from strategies.client.training import ClientJob, LocalResult, local_train
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError, RunCorrupt
from strategies.core.examples import TensorExamples
from strategies.core.seeds import torch_generator
from strategies.fedprox import fedprox
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.layers.privacy.client import BudgetSpent, ClientPrivacy, pay, train_privately
from strategies.layers.privacy.ledger import LedgerFile, read_account
from strategies.layers.privacy.settings import PrivacySettings
from strategies.settings import StrategySettings

SETTINGS = PrivacySettings(unit="example", epsilon=4.0, accountant="rdp", randomness="seeded", delta=1e-3)
ROUNDS = 3


def job(server_round: int = 1, mu: float = 0.0) -> ClientJob:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    examples = TensorExamples(torch.rand(20, 4, generator=torch_generator(0)), torch.arange(20) % 2)
    settings = StrategySettings(name="fedprox", mu=mu) if mu else StrategySettings()
    train = TrainSettings(batch_size=5, local_epochs=1)
    return ClientJob(model, examples, train, settings, "7", server_round, torch_generator(server_round))


def privacy(settings: PrivacySettings = SETTINGS, **changes: object) -> ClientPrivacy:
    made = ClientPrivacy(settings, settings.budget_of("7"), ROUNDS, state=RecordDict())
    return replace(made, **changes)  # type: ignore[arg-type]


def flat(model: nn.Module) -> torch.Tensor:
    return wire.Layout.of(model.state_dict()).flatten(model.state_dict())


def test_the_budget_lasts_exactly_the_planned_rounds() -> None:
    """ε grows to the budget over three rounds of four steps; the fourth is refused, and nothing is spent."""
    client = privacy()
    reported = [train_privately(fedavg.train_client, job(r), client).metrics for r in range(1, ROUNDS + 1)]
    epsilons = [metrics[wire.EPSILON] for metrics in reported]
    noise = reported[0][wire.NOISE_MULTIPLIER]
    assert epsilons == [epsilon_of((Spend(noise, 0.25, 4 * r),), 1e-3, "rdp") for r in (1, 2, 3)]
    assert 3.9 < epsilons[-1] <= 4.0
    account = read_account(client.state)
    with pytest.raises(BudgetSpent, match=r"spent: another round would bring ε from 3\.\d+ to 4\.\d+"):
        train_privately(fedavg.train_client, job(4), client)
    assert read_account(client.state) == account


def test_a_reply_that_is_lost_has_been_paid_for() -> None:
    """The account is in the state before the training, so what becomes of the answer does not matter."""
    client, seen = privacy(), []

    def spy(given: ClientJob) -> LocalResult:
        seen.append(read_account(client.state).attempts)
        return fedavg.train_client(given)

    for _ in range(ROUNDS):
        train_privately(spy, job(), client)  # Every answer is lost
    assert seen == [1, 2, 3]
    with pytest.raises(BudgetSpent):
        train_privately(spy, job(), client)


def test_rounds_that_an_interruption_undid_are_paid_for() -> None:
    """Asked twice before, of which the state knows nothing: one more round is left, then it is over."""
    client = privacy(prior_attempts=2)
    train_privately(fedavg.train_client, job(), client)
    assert read_account(client.state).attempts == 3
    with pytest.raises(BudgetSpent):
        train_privately(fedavg.train_client, job(), client)


def test_a_refusal_costs_nothing_and_is_not_taken_for_a_round_that_was_lost() -> None:
    """Two rounds reached the client, one was refused: asked twice before, it has nothing to make up for."""
    client = privacy()
    train_privately(fedavg.train_client, job(), client)
    client.note_refusal()
    train_privately(fedavg.train_client, job(), replace(client, prior_attempts=2))
    account = read_account(client.state)
    assert account.attempts == 3
    assert [spend.steps for spend in account.history] == [2 * 4]


def test_a_ledger_knows_what_an_interruption_undid(tmp_path: Path) -> None:
    """It is written before a round, so it has both rounds of which the client's state knows nothing."""
    kept = SETTINGS.model_copy(update={"ledger": str(tmp_path)})
    for _ in range(2):
        train_privately(fedavg.train_client, job(), privacy(kept))  # What the state knows is lost
    last = train_privately(fedavg.train_client, job(), privacy(kept, prior_attempts=2))
    noise = last.metrics[wire.NOISE_MULTIPLIER]
    assert LedgerFile(tmp_path / "7.json").read() == (Spend(noise, 0.25, ROUNDS * 4),)
    assert last.metrics[wire.EPSILON] == epsilon_of((Spend(noise, 0.25, ROUNDS * 4),), 1e-3, "rdp")


def test_a_ledger_adds_up_over_runs(tmp_path: Path) -> None:
    """A second run with a state of its own finds what the first has spent."""
    kept = SETTINGS.model_copy(update={"ledger": str(tmp_path)})
    for _ in range(ROUNDS):
        train_privately(fedavg.train_client, job(), privacy(kept))
    with pytest.raises(BudgetSpent, match="budget is spent"):
        train_privately(fedavg.train_client, job(), privacy(kept))
    (tmp_path / "7.json").write_text("{}")
    with pytest.raises(RunCorrupt, match="privacy ledger cannot be read"):
        train_privately(fedavg.train_client, job(), privacy(kept))


def pay_often(folder: Path, ready: Barrier) -> None:
    """Pay 40 times, for four steps each, from the account in a folder."""
    settings = SETTINGS.model_copy(update={"epsilon": 0.0, "noise_multiplier": 5.0, "ledger": str(folder)})
    client, work = ClientPrivacy(settings, float("inf"), 100, state=RecordDict()), job()
    ready.wait()
    for _ in range(40):
        pay(work, client)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_that_pay_at_once_lose_no_payment(tmp_path: Path) -> None:
    """Each trains on the client's data in a run of its own: 40 rounds of four steps by each of two."""
    context = get_context("fork")
    ready = context.Barrier(2)
    both = [context.Process(target=pay_often, args=(tmp_path, ready), daemon=True) for _ in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert LedgerFile(tmp_path / "7.json").read() == (Spend(5.0, 0.25, 2 * 40 * 4),)


def test_a_ledger_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    kept = SETTINGS.model_copy(update={"ledger": str(tmp_path / "none")})
    with pytest.raises(BadInput, match=r"privacy\.ledger: .*none is no folder"):
        train_privately(fedavg.train_client, job(), privacy(kept))


def test_a_ledger_of_a_client_with_an_odd_name_stays_in_its_folder(tmp_path: Path) -> None:
    ledger = LedgerFile.of(str(tmp_path), "../a/b")
    assert ledger is not None
    ledger.write((Spend(1.0, 0.5, 3),))
    assert ledger.path.parent == tmp_path
    assert ledger.read() == (Spend(1.0, 0.5, 3),)


def test_nothing_that_depends_on_the_examples_leaves_without_noise() -> None:
    for unit in ("example", "client-local", "client-central"):
        settings = SETTINGS.model_copy(update={"unit": unit})
        result = train_privately(fedavg.train_client, job(), privacy(settings))
        assert set(result.metrics) <= {wire.NUM_STEPS, wire.EPSILON, wire.NOISE_MULTIPLIER}
        assert result.num_examples == (20 if unit == "example" else 1)


def test_a_half_that_trains_by_itself_sends_nothing() -> None:
    """Fails closed: the private trainer took no step."""

    def disobedient(given: ClientJob) -> LocalResult:
        local_train(given.model, given.examples, given.train, given.generator)
        return LocalResult(given.model, len(given.examples))

    with pytest.raises(LetheError, match=r"trained 0 private steps of 4: nothing is sent"):
        train_privately(disobedient, job(), privacy())


def test_client_level_noise_is_on_the_clipped_update() -> None:
    """With σ = 0 the update has norm C, in the direction of the plain one; with σ it is off by σC·N(0, 1)."""
    plain = flat(fedavg.train_client(job()).model) - flat(job().model)
    settings = SETTINGS.model_copy(
        update={"unit": "client-local", "clip_norm": 0.01, "noise_multiplier": 0.0, "epsilon": 0.0}
    )
    result = train_privately(fedavg.train_client, job(), privacy(settings))
    delta = flat(result.model) - flat(job().model)
    torch.testing.assert_close(delta, plain * (0.01 / plain.norm()), atol=1e-6, rtol=1e-4)
    assert result.metrics[wire.EPSILON] == math.inf
    noisy = settings.model_copy(update={"noise_multiplier": 5.0})
    other = train_privately(fedavg.train_client, job(), privacy(noisy))
    assert not flat(other.model).equal(flat(result.model))


def test_without_clip_and_noise_the_client_level_is_federated_averaging() -> None:
    settings = SETTINGS.model_copy(
        update={"unit": "client-local", "clip_norm": 1e6, "noise_multiplier": 0.0, "epsilon": 0.0}
    )
    private = flat(train_privately(fedavg.train_client, job(), privacy(settings)).model)
    torch.testing.assert_close(private, flat(fedavg.train_client(job()).model), atol=1e-7, rtol=1e-6)


def test_the_proximal_term_works_on_noised_gradients() -> None:
    """FedProx with a large μ stays nearer to where it started; both take the steps that were paid for."""
    loose, tight = (train_privately(fedprox.train_client, job(mu=mu), privacy()) for mu in (1e-6, 5.0))
    start = flat(job().model)
    assert (flat(tight.model) - start).norm() < (flat(loose.model) - start).norm()


def test_who_refuses_and_whose_budget_is_hopeless() -> None:
    with pytest.raises(BudgetSpent, match="budget is 0: it takes no part"):
        train_privately(fedavg.train_client, job(), privacy(budget=0.0))
    strict = SETTINGS.model_copy(update={"delta": 1e-9})
    with pytest.raises(BudgetSpent, match="too small"):
        train_privately(fedavg.train_client, job(), privacy(strict, budget=1e-7))


def test_a_node_can_lower_its_budget_and_not_raise_it() -> None:
    settings = PrivacySettings(unit="example", epsilon=4.0, budgets="3=1, b=0")
    assert [settings.budget_of(i) for i in ("7", "3", "b")] == [4.0, 1.0, 0.0]
    assert settings.budget_of("7", 0.5) == 0.5
    assert settings.budget_of("7", 50.0) == 4.0
    assert PrivacySettings(unit="example").budget_of("7") == math.inf
