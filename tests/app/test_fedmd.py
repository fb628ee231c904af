"""FedMD from end to end in one process tree: train, resume, a node's own model, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.config.run_config import RunConfig
from app.simulation import LocalGrid
from app.workflows import ComparisonPlan, audit, compare, forget, resume, train
from app.workflows.accounts import ATTEMPTS
from app.workflows.local_clients import CLIENT_APP, PREPARE
from app.workflows.session import Session
from strategies.core.errors import BadInput
from strategies.fedmd.privacy import epsilon
from strategies.runs.folder import RunFolder
from strategies.runs.json_lines import append_line
from strategies.server.cohort import Cohort
from tests.app.runs import StopAfter, Stopped
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

SMALL = (
    "strategy.name=fedmd",
    "strategy.models=cnn-4-8@0.2, mlp-16",
    "strategy.public-epochs=3",
    "strategy.private-epochs=3",
    "strategy.revisit-epochs=1",
    "strategy.revisit-batch-size=16",
    "run.rounds=3",
    "run.workers=1",
    "data.clients=3",
    "data.per-class=4",
    "data.test-limit=100",
    "data.public=0.4",
    "strategy.alignment=500",
)


def config(home: Path, *overrides: str) -> RunConfig:
    return RunConfig().with_overrides([f"run.home={home}", *SMALL, *overrides])


def wide(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_outputs))


def narrow(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return wide(input_shape, 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home = tmp_path_factory.mktemp("runs")
    return train(config(home, "run.name=finished", "strategy.upper-bound=true"))


def test_every_round_says_what_each_client_reached(finished: RunFolder) -> None:
    lines = finished.read_metrics()
    assert [line["round"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(line["clients"]) == {"0", "1", "2"}
        gains = [c["accuracy"] - c["baseline-accuracy"] for c in line["clients"].values()]
        assert line["collaboration-gain"] == pytest.approx(sum(gains) / 3)
        assert line["upper-bound"] == lines[0]["upper-bound"]
    assert lines[-1]["upper-bound"] > lines[-1]["baseline-accuracy"]


def test_upload_is_the_logits_and_at_most_two_percent(finished: RunFolder) -> None:
    """500 examples, 10 classes, 4 bytes, 3 clients."""
    sent = [line["bytes-up"] for line in finished.read_metrics()]
    assert all(3 * 500 * 10 * 4 < n <= 1.02 * 3 * 500 * 10 * 4 for n in sent)


def test_a_resumed_run_equals_an_uninterrupted_one(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut", "strategy.upper-bound=true"), StopAfter(2))
    cut = resume(RunFolder.open("cut", tmp_path))
    assert torch.equal(cut.read_model()["logits"], finished.read_model()["logits"])
    assert cut.read_metrics()[-1]["clients"] == finished.read_metrics()[-1]["clients"]


def test_noised_logits_are_secret_and_every_question_is_counted(tmp_path: Path) -> None:
    """Three rounds, one of which was asked twice: the noise differs between two equal runs, ε is of four."""
    noise = ("strategy.logit-clip=0.01", "strategy.logit-noise=2000.0", "log.enabled=false")
    with pytest.raises(Stopped):
        train(config(tmp_path, "run.name=cut", *noise), StopAfter(2))
    cut = RunFolder.open("cut", tmp_path)
    append_line(cut.path / ATTEMPTS, {"round": 3, "clients": ["0", "1", "2"]})  # And then the server died
    lines = resume(cut).read_metrics()
    assert [line["epsilon"] for line in lines] == pytest.approx(
        [epsilon(2000.0, 500, n, 1e-5) for n in (1, 2, 4)]
    )
    other = train(config(tmp_path, "run.name=other", *noise))
    assert not torch.equal(other.read_model()["logits"], cut.read_model()["logits"])
    seeded = [*noise, "privacy.randomness=seeded"]
    same = [train(config(tmp_path, f"run.name=seeded-{i}", *seeded)).read_model()["logits"] for i in range(2)]
    assert torch.equal(*same)


def test_the_number_of_workers_changes_nothing(finished: RunFolder, tmp_path: Path) -> None:
    other = train(config(tmp_path, "run.name=other", "run.workers=2"))
    assert torch.equal(other.read_model()["logits"], finished.read_model()["logits"])


def connected(run: RunConfig, *nodes: dict[str, str]) -> Cohort:
    """Return who can be used of one plain client and nodes that say more of themselves."""
    session = Session.of(run)
    plain = {"partition-id": 0, "num-partitions": 3}
    configs: list[dict[str, Any]] = [plain, *({**plain, "partition-id": 1, **more} for more in nodes)]
    grid = LocalGrid(
        CLIENT_APP, run.to_flat(), len(configs), workers=1, prepare=PREPARE, node_configs=configs
    )
    with grid, session.cohort(grid) as cohort:
        return cohort


def test_a_node_brings_its_own_model(tmp_path: Path) -> None:
    cohort = connected(config(tmp_path), {"model.name": f"{__name__}:wide"})
    assert list(cohort.clients) == ["0", "1"]


def test_a_model_that_does_not_fit_is_refused_before_the_first_round(tmp_path: Path) -> None:
    cohort = connected(config(tmp_path), {"model.name": f"{__name__}:narrow"})
    assert list(cohort.clients) == ["0"]
    assert "wanted logits of shape (2, 10)" in cohort.faults[0].reason


def test_other_public_data_are_refused_before_the_first_round(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("right", "wrong"):
        x = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(20) % 10)
    given = (f"data.public=npz:{tmp_path}/right.npz", "data.public-labels=shared")
    cohort = connected(config(tmp_path, *given), {"data.public": f"npz:{tmp_path}/wrong.npz"})
    assert list(cohort.clients) == ["0"]
    assert "are not those of the server" in cohort.faults[0].reason


def test_the_upper_bound_needs_all_data_in_one_place(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.integers(0, 256, (20, 8, 8), dtype=np.uint8), y=np.arange(20) % 10)
    own = {"data.path": str(tmp_path / "own.npz")}
    assert list(connected(config(tmp_path), own).clients) == ["0", "1"]
    cohort = connected(config(tmp_path, "strategy.upper-bound=true"), own)
    assert "strategy.upper-bound" in cohort.faults[0].reason


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.public=0", "fedmd needs public data"),
        ("log.retention=sum", 'allowed "full" or "interval:<k>"'),
        ("data.public=mnist", "fedmd trains on the public labels first"),
        ("model.name=mlp", "has an effect only with a strategy that trains one model for all"),
        ("strategy.logit-noise=1", "strategy.logit-clip above 0"),
        ("strategy.weights=0=2", 'strategy.consensus = "weighted"'),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        config(tmp_path, override)


def test_the_summary_names_the_clients_models(finished: RunFolder) -> None:
    summary = json.loads((finished.path / "summary.json").read_text())
    assert summary["model"]["names"] == ["cnn-4-8@0.2", "mlp-16"]
    assert summary["client-models"] == finished.read_metrics()[-1]["clients"]
    assert summary["final"]["collaboration-gain"] == finished.read_metrics()[-1]["collaboration-gain"]


def test_a_client_is_forgotten_and_the_others_models_are_measured(finished: RunFolder) -> None:
    """Against retraining without it; the run's own models stay as they are."""
    request = ForgetRequest(clients=("1",))
    before = (finished.path / "checkpoint.safetensors").read_bytes()
    name = forget(finished, request, ForgetSettings(method="redistill"))
    report = audit(finished, request, ["redistill"], AuditSettings())
    assert (finished.path / "checkpoint.safetensors").read_bytes() == before
    assert (finished.path / "forget" / name / "clients.safetensors").exists()
    measured = report.measurements
    for model in ("before", "redistill", "retrain"):
        assert (measured[model].num_forget, measured[model].num_retain) == (2 * 40, 2 * 40)
        assert measured[model].num_test == 2 * 100
        assert list(measured[model].client_accuracy) == ["0", "2"]
        assert not measured[model].missing
    comparison = report.comparisons["redistill"]
    assert comparison.disparity is not None
    assert comparison.parameter_distance is None
    final = finished.read_metrics()[-1]["clients"]
    mean = (final["0"]["accuracy"] + final["2"]["accuracy"]) / 2
    assert measured["before"].test_accuracy == pytest.approx(mean)
    with pytest.raises(BadInput, match="other seeds need one model"):
        audit(finished, request, ["redistill"], AuditSettings(seeds=1))
    with pytest.raises(BadInput, match="compare needs one model"):
        compare(finished, ComparisonPlan(request))
