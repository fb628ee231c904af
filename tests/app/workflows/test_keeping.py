"""Runs that keep their best round: the folder is that of a run which ended with it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from app.config.run_config import RunConfig
from app.forgettings.verify_run import verify_run
from app.workflows import forget, resume, session as sessions, train
from app.workflows.evaluator import Evaluator
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from tests.app.conftest import CLIENT_2, SMALL, SUBTRACT
from tests.app.runs import StopAfter, Stopped, flat_model
from unlearning.settings import ForgetSettings

FALLS = [60.3, 71.6, 66.0, 55.4]
"""The accuracy on the validation share by round: the best is round 2."""
BEST = ("run.rounds=4", "run.keep=best", "data.validation-share=0.25")


@pytest.fixture(autouse=True)
def _judged_as_scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the models of the rounds judged as in `FALLS`, each model always alike."""
    seen: dict[bytes, float] = {}
    judged = Evaluator._judged

    def scripted(self: Evaluator, validation: Any) -> Mapping[str, float]:
        real = judged(self, validation)
        assert len(validation) == 20  # A quarter of the 80 test examples
        weights = next(iter(self._model.parameters())).detach().numpy().tobytes()
        seen.setdefault(weights, FALLS[len(seen) % len(FALLS)])
        return {**real, "validation-accuracy": seen[weights]}

    monkeypatch.setattr(Evaluator, "_judged", scripted)


def made(home: Path, *overrides: str) -> RunFolder:
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return train(RunConfig().with_overrides([*SMALL, f"run.home={home}", key, *overrides]))


@pytest.mark.parametrize("retention", ["full", "sum"])
def test_the_kept_round_is_the_end_of_the_run(tmp_path: Path, retention: str) -> None:
    """Model, log and checkpoint are those of a run of two rounds; what four rounds cost stays counted."""
    kept = made(tmp_path / "kept", *BEST, f"log.retention={retention}")
    short = made(
        tmp_path / "short", "run.rounds=2", "data.validation-share=0.25", f"log.retention={retention}"
    )
    assert torch.equal(flat_model(kept), flat_model(short))
    log, other = UpdateLog.open(kept.log_path), UpdateLog.open(short.log_path)
    assert log.rounds() == [1, 2]
    assert log.sha256() == other.sha256()
    assert log.verify() == {}
    assert {p.relative_to(kept.path) for p in kept.log_path.rglob("*.safetensors")} == {
        p.relative_to(short.path) for p in short.log_path.rglob("*.safetensors")
    }
    initial = kept.read_initial()
    total = wire.Layout.of(initial).flatten(initial) + sum(log.weighted_sum(i) for i in log.clients())
    assert torch.allclose(total, flat_model(kept), atol=1e-6)
    assert not (kept.path / "kept.safetensors").exists()
    checkpoint = kept.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round == 2
    summary = kept.read_summary()
    assert (summary["rounds"], summary["completed-rounds"]) == (4, 2)
    assert summary["judged"] == {
        "keep": "best",
        "by": "validation-accuracy",
        "round": 2,
        "trained": 4,
        "best": 2,
        "value": 71.6,
        "validation-examples": 20,
    }
    assert summary["data"]["test-examples"] == 60
    assert summary["final"]["test-accuracy"] == short.read_summary()["final"]["test-accuracy"]
    assert summary["traffic"]["visits"] == 12
    assert [line["round"] for line in kept.read_metrics()] == [1, 2, 3, 4]
    assert all(check.status == "ok" for check in verify_run(kept))


@pytest.mark.check
@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_a_resumed_run_makes_the_same_choice(tmp_path: Path, rounds: int) -> None:
    config = RunConfig().with_overrides([*SMALL, *BEST, f"run.home={tmp_path}", "log.retention=sum"])
    with pytest.raises(Stopped):
        train(config, StopAfter(rounds))
    kept = resume(RunFolder.open(tmp_path / "small"))
    assert kept.read_summary()["judged"]["round"] == 2
    whole = made(tmp_path / "whole", *BEST, "log.retention=sum")
    assert torch.equal(flat_model(kept), flat_model(whole))
    assert UpdateLog.open(kept.log_path).sha256() == UpdateLog.open(whole.log_path).sha256()
    assert UpdateLog.open(kept.log_path).verify() == {}


@pytest.mark.check
def test_a_run_that_died_while_it_went_back_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Stopped

    config = RunConfig().with_overrides([*SMALL, *BEST, f"run.home={tmp_path}"])
    for name in ("rewind", "compact"):  # Before the log went back, and after
        with monkeypatch.context() as patched:
            patched.setattr(UpdateLog, name, die)
            with pytest.raises(Stopped):
                train(config.with_overrides([f"run.name={name}"]))
        found = resume(RunFolder.open(tmp_path / name))
        assert UpdateLog.open(found.log_path).rounds() == [1, 2]
        assert [line["round"] for line in found.read_metrics()] == [1, 2, 3, 4]
        assert found.read_summary()["judged"]["trained"] == 4
        assert torch.equal(flat_model(found), flat_model(made(tmp_path / "whole" / name, *BEST)))


def test_training_stops_early_and_is_not_gone_on_with(tmp_path: Path) -> None:
    stopped = made(tmp_path, "run.rounds=9", "run.stop=1", "data.validation-share=0.25")
    assert stopped.read_summary()["completed-rounds"] == 3  # The last is kept
    assert [line["round"] for line in stopped.read_metrics()] == [1, 2, 3]
    config = RunConfig().with_overrides(
        [*SMALL, f"run.home={tmp_path / 'b'}", "run.rounds=9", "run.stop=1", "data.validation-share=0.25"]
    )
    with pytest.raises(Stopped):
        train(config, StopAfter(3))
    found = resume(RunFolder.open(tmp_path / "b" / "small"))
    assert torch.equal(flat_model(found), flat_model(stopped))


def test_forgetting_sums_up_to_the_kept_round(tmp_path: Path) -> None:
    kept = made(tmp_path / "kept", *BEST)
    short = made(tmp_path / "short", "run.rounds=2", "data.validation-share=0.25")
    for method in ("subtract", "retrain", "federaser"):
        settings = ForgetSettings(method=method)
        names = [forget(folder, CLIENT_2, settings) for folder in (kept, short)]
        paths = [f.forget_folder(n) for f, n in zip((kept, short), names, strict=True)]
        models = [(path / "model.safetensors").read_bytes() for path in paths]
        assert models[0] == models[1], method
    result = json.loads((kept.path / "forget" / "client-2-retrain" / "result.json").read_text())
    assert result["details"]["rounds"] == 2
    assert result["notes"][0].startswith("retrained for 2 rounds, as many as are in the run's model")
    certificate = (kept.path / "forget" / "client-2-subtract" / "certificate.json").read_text()
    assert "the model is that of round 2 of 4, chosen by the server's own examples" in certificate
    assert (
        "of round 2 of 4"
        not in (short.path / "forget" / "client-2-subtract" / "certificate.json").read_text()
    )


def test_validation_examples_are_in_no_report(tmp_path: Path) -> None:
    """Test and validation are parted by the seed, and are all of the test data."""
    folder = made(tmp_path, "run.rounds=1", "data.validation-share=0.25")
    data = sessions.open_session(folder).server_data
    assert data.test is not None
    assert data.validation is not None
    rows = {tuple(row.flatten().tolist()) for row in data.validation.batch(torch.arange(20))[0]}
    others = {tuple(row.flatten().tolist()) for row in data.test.batch(torch.arange(60))[0]}
    assert not rows & others
    same = sessions.open_session(folder).server_data.validation
    assert same is not None
    assert torch.equal(same.targets(), data.validation.targets())


def test_the_share_needs_test_data_at_the_server(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data\.validation-share: given 0\.25.*it has 2 examples"):
        made(tmp_path, "data.test-limit=2", "data.validation-share=0.25", "run.keep=best")
    assert not (tmp_path / "small").exists()


def test_subtraction_is_unchanged_by_a_share_that_nothing_depends_on(tmp_path: Path) -> None:
    """Neutral: with the last round kept, the share changes no bit of the model."""
    plain, judged = made(tmp_path / "a"), made(tmp_path / "b", "data.validation-share=0.25")
    assert torch.equal(flat_model(plain), flat_model(judged))
    assert forget(judged, CLIENT_2, SUBTRACT) == forget(plain, CLIENT_2, SUBTRACT)
    assert "judged" not in plain.read_summary()
