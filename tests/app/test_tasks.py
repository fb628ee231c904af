"""Whole runs of other tasks than classification: trained, forgotten, audited, or refused before any work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from app.config.run_config import RunConfig
from app.report.page import write_report
from app.workflows import audit, forget, train
from app.workflows.session import open_session
from strategies.core.errors import BadInput
from strategies.core.seeds import torch_generator
from strategies.runs.folder import RunFolder
from strategies.tasks.choice import scale_of
from tests.strategies.other_tasks import Regression
from unlearning import certificate
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

MODULE = """
import torch
from torch import nn

import lethe
from tests.app import test_tasks

numbers = lethe.Project(data=test_tasks.numbers, task="regression")
own = lethe.Project(data=test_tasks.numbers, task=test_tasks.THREE_MEMBERS)
nodes = lethe.Project(data=test_tasks.of_node, task="regression")
labels = lethe.Project(data=test_tasks.labels, task="multi-label")
masks = lethe.Project(
    data=test_tasks.masks, task="segmentation", model=test_tasks.pixels, classes=("back", "front")
)
unnamed = lethe.Project(data=test_tasks.masks, task="segmentation", model=test_tasks.pixels)
one_class = lethe.Project(
    data=test_tasks.masks, task="segmentation", model=test_tasks.pixels, classes=("background",)
)
"""
THREE_MEMBERS = Regression()
ONE = ForgetRequest(clients=("1",))


def numbers() -> Any:
    """Return a linear function of three numbers, scaled so that its deviation is about 2."""
    x = torch.randn(120, 3, generator=torch_generator(0))
    return x, x @ torch.tensor([1.0, -1.5, 0.5]) + 4


def of_node(node: Any) -> Any:
    """Return a third of the numbers; client 0 has no test data, the others 5 and 6 examples."""
    x, y = numbers()
    mine = slice(40 * node.index, 40 * node.index + 30)
    test = slice(40 * node.index + 30, 40 * node.index + 34 + node.index)
    return (x[mine], y[mine]) if node.index == 0 else ((x[mine], y[mine]), (x[test], y[test]))


def labels() -> Any:
    """Return three labels of four numbers."""
    generator = torch_generator(1)
    x = torch.randn(120, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)) > 0


def masks() -> Any:
    """Return images, and which pixels are bright; their first row is not labelled."""
    x = torch.rand(120, 1, 4, 4, generator=torch_generator(2))
    y = (x[:, 0] > 0.5).long()
    y[:, 0] = 255
    return x, y


def pixels(spec: Any) -> nn.Module:
    """Return a model that looks at single pixels."""
    return nn.Conv2d(1, spec.num_outputs, 1)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of projects that every process finds, and return its name."""
    name = f"tasks_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def trained(home: Path, project: str, *overrides: str) -> RunFolder:
    """Return a small run of a project."""
    keys = (
        f"run.home={home}",
        f"run.project={project}",
        f"run.certificate-key={home / 'key.pem'}",
        "data.clients=3",
        "run.rounds=2",
        "run.workers=1",
        "model.name=mlp",
        "model.hidden=4",
        "train.learning-rate=0.02",
    )
    return train(RunConfig().with_overrides([*keys, *overrides]))


def evaluation(run: RunFolder, where: str) -> dict[str, Any]:
    """Return a run's figures on the server's test data, or on what its clients hold out."""
    found: dict[str, Any] = run.read_summary()["evaluations"][where]
    return found


@pytest.mark.parametrize(
    ("project", "headline", "figures"),
    [
        ("numbers", "r2", {"score", "loss", "r2", "rmse", "mae"}),
        ("labels", "f1", {"score", "loss", "f1", "auroc", "exact-match"}),
        ("masks", "iou", {"score", "loss", "iou", "pixel-accuracy"}),
        ("own", "score", {"score", "loss"}),
    ],
)
def test_a_task_is_trained_forgotten_and_audited(
    project: str, headline: str, figures: set[str], module: str, tmp_path: Path
) -> None:
    run = trained(tmp_path, f"{module}:{project}")
    found = evaluation(run, "server")
    assert found["headline"] == headline
    assert set(found["figures"]) == figures
    assert {f"test-{name}" for name in figures} <= set(run.read_summary()["final"])
    forget(run, ONE, ForgetSettings(method="finetune"))
    audit(run, ONE, ["finetune"], AuditSettings())
    document = json.loads((run.path / "forget" / "client-1-finetune" / "audit.json").read_text())
    for model in ("before", "after", "retrain"):
        measured = document[model]
        assert 0 < measured["test_accuracy"] < 100
        assert measured["test_accuracy"] + measured["unlearning_accuracy"] > 0
        assert 0 <= measured["mia_efficacy"] <= 100
    write_report(run)


def test_without_test_data_figures_are_exact_sums_over_what_the_clients_hold_out(
    module: str, tmp_path: Path
) -> None:
    """The clients evaluate by themselves, and R² is that of all that is held out, in one place."""
    run = trained(tmp_path, f"{module}:numbers", "data.test-share=0", "data.local-test-share=0.25")
    found, final = evaluation(run, "clients"), run.read_summary()["final"]
    assert found["figures"]["r2"] == final["client-r2"]
    assert set(found["clients"]) == {"0", "1", "2"}
    assert found["examples"] == sum(row["examples"] for row in found["clients"].values())
    assert all({"examples", "r2"} == set(row) for row in found["clients"].values())
    squares = found["figures"]["rmse"] ** 2
    assert final["client-loss"] == pytest.approx(squares / 2)
    assert "test-loss" not in final


def test_figures_are_those_of_the_test_data_that_came_with_the_clients_own(
    module: str, tmp_path: Path
) -> None:
    """Who has none is not asked; every node trains on all of its training data."""
    run = trained(tmp_path, f"{module}:nodes", "task.scale=2")
    rows = evaluation(run, "clients")["clients"]
    assert {i: row["examples"] for i, row in rows.items()} == {"1": 5, "2": 6}
    assert run.read_summary()["faults"] == []
    assert [known["num-examples"] for known in run.read_summary()["clients"].values()] == [30, 30, 30]


FEDERATED = ("task.scale-from=federated", "task.scale-range=100", "run.federated-evaluation=true")


def test_a_server_without_data_gets_the_scale_by_secure_sums_and_keeps_it(
    module: str, tmp_path: Path
) -> None:
    """It is that of the pooled training targets, in forgettings and audits too, as the certificate says."""
    run = trained(tmp_path, f"{module}:nodes", *FEDERATED)
    pooled = torch.cat([numbers()[1][40 * i : 40 * i + 30] for i in range(3)])
    kept = json.loads((run.path / "target-scale.json").read_text())
    assert kept == {"scale": pytest.approx(scale_of(pooled), rel=1e-6), "epsilon": None}
    assert run.read_summary()["faults"] == []
    found = evaluation(run, "clients")["figures"]
    assert 0 < found["score"] < 100

    opened = open_session(run)
    assert (opened.target_scale, opened.task) == (kept["scale"], opened.figures.task)
    forget(run, ONE, ForgetSettings(method="finetune"))
    audit(run, ONE, ["finetune"], AuditSettings())
    folder = run.path / "forget" / "client-1-finetune"
    limits = str(certificate.read((folder / "certificate.json").read_bytes()).statement["limits"])
    assert "the scale that scores are measured by is that of all clients' targets" in limits


def test_a_private_client_pays_for_its_part_in_the_scale(module: str, tmp_path: Path) -> None:
    """The noise has a tenth of the deviation that would hide the scale of so few targets."""
    private = ("privacy.unit=example", "privacy.epsilon=25", "privacy.accountant=rdp", "privacy.delta=1e-4")
    noisy = ("task.scale-from=federated", "task.scale-range=12", "analytics.epsilon=20")
    run = trained(tmp_path, f"{module}:numbers", *private, *noisy, "train.batch-size=8")
    kept = json.loads((run.path / "target-scale.json").read_text())
    assert kept["epsilon"] == 20.0
    assert kept["scale"] != pytest.approx(scale_of(numbers()[1]), rel=1e-9)
    assert run.read_summary()["privacy"]["analytics-epsilon"] == 20.0
    spent = run.read_summary()["privacy"]["epsilon"]
    assert 20.0 < spent <= 25.0


def test_clients_with_models_of_their_own_hold_the_projects_public_data(module: str, tmp_path: Path) -> None:
    """FedMD's positions are those of the project's examples, not those of the data set that is built in."""
    keys = ["strategy.name=fedmd", "strategy.models=mlp-4", "model.name=cnn", "model.hidden=128"]
    keys += ["train.learning-rate=0.05", *(f"strategy.{of}-epochs=1" for of in ("public", "private"))]
    run = trained(tmp_path, f"{module}:numbers", *keys)
    assert run.read_summary()["faults"] == []
    assert run.read_summary()["data"]["public-examples"] == 10
    name = forget(run, ONE, ForgetSettings(method="redistill"))
    assert run.forget_folder(name).exists()


@pytest.mark.parametrize(
    ("project", "overrides", "message"),
    [
        (
            "numbers",
            ("attack.kind=backdoor", "attack.clients=1"),
            'attack.kind: given "backdoor", which changes class labels, and the targets of the task '
            '(regression) are no class labels; allowed "none"',
        ),
        (
            "numbers",
            ("analytics.enabled=true",),
            "analytics.enabled: given true, which asks for the distribution of labels, and the targets",
        ),
        (
            "labels",
            ("strategy.name=one-shot", "run.rounds=1"),
            'strategy.name: given "one-shot", which averages probabilities of classes, but the targets of '
            'the task (multi-label) are no class labels; strategy.ensemble = "logits" averages outputs',
        ),
        (
            "masks",
            ("strategy.name=one-shot", "run.rounds=1", "strategy.ensemble=logits"),
            'strategy.name: given "one-shot", which averages one vector of outputs per example, but the task '
            "(segmentation) has outputs of another shape",
        ),
        (
            "one_class",
            (),
            "run.project: its task (segmentation) tells classes apart, and the data have 1: background; at "
            "least 2 are needed",
        ),
        (
            "unnamed",
            (),
            "run.project: its task (segmentation) has an output for each class, and the server cannot tell "
            "the classes from the data; name them: lethe.Project(classes=",
        ),
        (
            "nodes",
            ("strategy.name=fedmd", "model.name=cnn", "model.hidden=128", "train.learning-rate=0.05"),
            'strategy.name: given "fedmd", which needs public data, but the server has none; give some: ',
        ),
        (
            "nodes",
            ("strategy.name=pruned-dp",),
            'strategy.name: given "pruned-dp", which scores neurons on public data (or strategy.score-source',
        ),
        (
            "nodes",
            ("model.batch-norm=recalibrate",),
            'model.batch-norm: given "recalibrate", which sets statistics on public data, but the server has',
        ),
        (
            "numbers",
            ("task.metric=f1",),
            'task.metric: given "f1", the task (regression) has score, r2, rmse,',
        ),
        (
            "numbers",
            ("task.name=classification",),
            'task.name: given "classification", but the project\'s is',
        ),
    ],
)
def test_what_a_task_cannot_do_is_refused_before_any_work(
    project: str, overrides: tuple[str, ...], message: str, module: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"^{re.escape(message)}"):
        trained(tmp_path, f"{module}:{project}", *overrides)
    assert not list(tmp_path.glob("*/config.toml"))


def test_a_request_that_the_task_cannot_serve_is_refused(module: str, tmp_path: Path) -> None:
    run = trained(tmp_path, f"{module}:numbers")
    with pytest.raises(
        BadInput, match=r"^a class request: in this run's task \(regression\) examples are of no"
    ):
        forget(run, ForgetRequest(classes=(0,)), ForgetSettings(method="retrain"))
    with pytest.raises(
        BadInput,
        match=r"^fedosd descends on a loss of the probability of the forgotten label, but the targets",
    ):
        forget(run, ONE, ForgetSettings(method="fedosd"))
