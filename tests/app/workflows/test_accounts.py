"""A private run's accounts go on: what is trained after it is paid for out of the same budgets."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.config.run_config import RunConfig
from app.report.page import write_report
from app.workflows import audit, forget, train
from app.workflows.accounts import ATTEMPTS, RunAccounts
from app.workflows.session import open_session
from benchmarks.inline import InlineGrid
from strategies.core.errors import BadInput, LetheError
from strategies.layers.privacy.accounting import Spend, epsilon_of
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import read_lines
from unlearning.audit.relearning import Relearning
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

DELTA, SIGMA, ROUNDS, STEPS = 1e-3, 0.857, 2, 3
SMALL = (
    *(
        f"run.rounds={ROUNDS}",
        "run.workers=1",
        "data.clients=3",
        "data.train-limit=240",
        "data.test-limit=40",
    ),
    *("model.name=mlp", "model.hidden=4", f"train.local-steps={STEPS}", "data.public=0"),
    *(f"privacy.delta={DELTA}", "privacy.accountant=rdp", "log.enabled=false"),
)
GIVEN = f"privacy.noise-multiplier={SIGMA}"
CLIENT = ForgetRequest(clients=("1",))
RETRAIN = ForgetSettings(method="retrain")


def trained(home: Path, *overrides: str) -> RunFolder:
    config = RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])
    return train(config, None, InlineGrid(config))


def forgotten(folder: RunFolder, request: ForgetRequest, settings: ForgetSettings = RETRAIN) -> str:
    """Forget with clients that know nothing of the run, as those of a new simulation."""
    return forget(folder, request, settings, None, InlineGrid(open_session(folder).config))


def result_of(folder: RunFolder, request: ForgetRequest = CLIENT) -> dict[str, Any]:
    path = folder.forget_folder(forgotten(folder, request))
    found: dict[str, Any] = json.loads((path / "result.json").read_text(encoding="utf-8"))
    return found


def spent(rounds: int, rate: float = 0.4, steps: int = STEPS) -> float:
    """Return ε of rounds of steps; each client has 80 examples, of which 32 are drawn in a step."""
    return epsilon_of((Spend(SIGMA, rate, steps * rounds),), DELTA, "rdp")


def test_a_retraining_is_paid_for_out_of_the_account_of_the_run(tmp_path: Path) -> None:
    """12 steps after the run and one retraining, 18 after the next; the forgotten client keeps its 6."""
    folder = trained(tmp_path, "privacy.unit=example", GIVEN)
    assert folder.read_summary()["privacy"]["epsilon"] == pytest.approx(spent(ROUNDS))
    first = result_of(folder)
    assert first["details"]["spent-epsilons"] == {
        "0": pytest.approx(spent(2 * ROUNDS)),
        "1": pytest.approx(spent(ROUNDS)),
        "2": pytest.approx(spent(2 * ROUNDS)),
    }
    most, before = spent(2 * ROUNDS), spent(ROUNDS)
    told = f"at most ε = {most:.4g} in all (per example, δ = 0.001), {before:.4g} of it before"
    assert any(told in note for note in first["notes"])
    certificate = json.loads((folder.forget_folder("client-1-retrain") / "certificate.json").read_text())
    assert any(told in note for note in certificate["certificate"]["notes"])
    second = result_of(folder, ForgetRequest(clients=("2",)))
    assert second["details"]["spent-epsilons"] == {
        "0": pytest.approx(spent(3 * ROUNDS)),
        "1": pytest.approx(spent(2 * ROUNDS)),
        "2": pytest.approx(spent(2 * ROUNDS)),
    }


def test_what_an_audit_trains_again_is_paid_for_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds of the run, two of the retraining, and one that relearns, with the forgotten client back."""
    monkeypatch.setattr(Relearning, "_relearned", lambda self, seen: None)
    folder = trained(tmp_path, "privacy.unit=example", GIVEN)
    name = forgotten(folder, CLIENT)
    settings = AuditSettings(relearn=1, answers="examples")
    config = open_session(folder).config.with_overrides(["audit.answers=examples"])
    audit(folder, CLIENT, ["retrain"], settings, None, InlineGrid(config))
    accounts = json.loads((folder.path / "privacy-accounts.json").read_text(encoding="utf-8"))["epsilons"]
    assert accounts == {
        "0": pytest.approx(spent(2 * ROUNDS + 1)),
        "1": pytest.approx(spent(ROUNDS + 1)),
        "2": pytest.approx(spent(2 * ROUNDS + 1)),
    }
    most, before = spent(2 * ROUNDS + 1), spent(2 * ROUNDS)
    told = f"at most ε = {most:.4g} in all (per example, δ = 0.001), {before:.4g} of it before"
    found = json.loads((folder.forget_folder(name) / "audit.json").read_text(encoding="utf-8"))
    assert any(told in note for note in found["notes"])


def test_a_budget_holds_for_the_run_and_its_retraining(tmp_path: Path) -> None:
    """There is room for three rounds: the run takes two, the retraining's second is refused by everybody."""
    folder = trained(tmp_path, "privacy.unit=example", GIVEN, f"privacy.epsilon={spent(3) + 1e-6}")
    result = result_of(folder)
    assert result["details"]["spent-epsilons"]["0"] == pytest.approx(spent(3))
    assert max(result["details"]["spent-epsilons"].values()) <= spent(3) + 1e-6
    for client_id in "02":
        left_out = f"privacy: client {client_id} was left out of 1 of the rounds: its privacy budget is spent"
        assert any(note.startswith(left_out) for note in result["notes"])


@pytest.mark.parametrize("unit", ["example", "client-local", "client-central"])
def test_a_budget_that_the_run_has_spent_allows_no_retraining(unit: str, tmp_path: Path) -> None:
    """The noise is solved so that the budget lasts the run's rounds; and nothing is left behind."""
    folder = trained(tmp_path, f"privacy.unit={unit}", "privacy.epsilon=3")
    with pytest.raises(LetheError, match=r"^no client may train after the run: client 0 .* budget is spent"):
        forgotten(folder, CLIENT)
    assert not (folder.path / "forget").exists() or not list((folder.path / "forget").iterdir())


def test_central_accounts_go_on_with_and_without_amplification(tmp_path: Path) -> None:
    """Everybody pays for every round at q; who sees the names knows in which rounds each took part."""
    sampled = ("privacy.unit=client-central", "privacy.client-sampling=poisson", "selection.fraction=0.5")
    folder = trained(tmp_path, *sampled, GIVEN)
    summary = folder.read_summary()["privacy"]
    assert summary["epsilon"] == pytest.approx(spent(ROUNDS, 0.5, 1))
    lines = folder.read_metrics()
    taken = {i: sum(i in line["selected"] for line in lines) for i in "012"}
    for client_id, row in summary["clients"].items():
        assert row["epsilon-unamplified"] == pytest.approx(
            spent(taken[client_id], 1.0, 1) if taken[client_id] else 0
        )
    assert summary["epsilon-unamplified"] == max(
        r["epsilon-unamplified"] for r in summary["clients"].values()
    )
    assert "for those who do not see who took part" in summary["sampling"]
    assert "for those who do" in write_report(folder).read_text(encoding="utf-8")
    after = result_of(folder)["details"]["spent-epsilons"]
    assert (after["0"], after["1"]) == (
        pytest.approx(spent(2 * ROUNDS, 0.5, 1)),
        pytest.approx(spent(ROUNDS, 0.5, 1)),
    )


def test_a_pruned_run_goes_on_with_the_accounts_of_the_run_it_comes_from(tmp_path: Path) -> None:
    """It is trained on the same data: 4 rounds after pruning, 6 after retraining on the mask."""
    folder = trained(tmp_path, "privacy.unit=example", GIVEN)
    settings = ForgetSettings(method="retrain", prune="synflow", sparsity=0.5, prune_iterations=2)
    forgotten(folder, CLIENT, settings)
    accounts = RunAccounts(folder, RunConfig().privacy).known()
    assert accounts is not None
    assert accounts["epsilons"]["0"] == pytest.approx(spent(3 * ROUNDS))
    assert {line["training"] for line in read_lines(folder.path / ATTEMPTS)} == {
        folder.name,
        "synflow-0.5-2",
        "",
    }


QUESTION = ("privacy.unit=example", "analytics.enabled=true")


def test_a_question_before_training_is_part_of_every_account(tmp_path: Path) -> None:
    """Of a budget of 3, ½ goes for the labels; the noise is solved for the other 2½, and the sum is told."""
    kept = tmp_path / "kept"
    kept.mkdir()
    asked = ("analytics.epsilon=0.5", "privacy.epsilon=3", f"privacy.ledger={kept}")
    folder = trained(tmp_path, *QUESTION, *asked)
    summary = folder.read_summary()["privacy"]
    row = summary["clients"]["0"]
    training = epsilon_of((Spend(row["noise-multiplier"], 0.4, STEPS * ROUNDS),), DELTA, "rdp")
    assert 2.4 < training <= 2.5
    assert row["epsilon"] == pytest.approx(training + 0.5)
    assert (summary["analytics-epsilon"], row["refused-rounds"]) == (0.5, 0)
    assert json.loads((kept / "0.json").read_text())["asked-epsilon"] == 0.5
    assert "0.5 is for the question before the training" in write_report(folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (*QUESTION, "privacy.epsilon=1"),
            "analytics.epsilon: given 0, which answers the question before the training without noise",
        ),
        (
            (*QUESTION, "privacy.epsilon=1", "analytics.epsilon=1"),
            "allowed below privacy.epsilon, which is 1",
        ),
        (
            (
                "privacy.unit=client-local",
                "privacy.epsilon=1",
                "analytics.enabled=true",
                "analytics.epsilon=1",
            ),
            "whose noise hides one example, but privacy.unit is",
        ),
    ],
)
def test_a_question_that_no_account_could_count_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        RunConfig().with_overrides(list(overrides))
