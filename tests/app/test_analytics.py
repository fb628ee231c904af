"""Federated analytics from end to end: the sums, their protection, the report, the command."""

import json
from pathlib import Path

import pytest
import torch

from app.cli.entry import run
from app.config.run_config import RunConfig
from app.data import load_client_data
from app.report.page import write_report
from app.workflows import analyse, train
from strategies.core.errors import BadInput

SMALL = ("data.clients=4", "data.train-limit=300", "data.test-limit=50", "data.public=0", "run.workers=1")
ASK = (*SMALL, "run.workflow=analytics")


def config(*overrides: str) -> RunConfig:
    return RunConfig().with_overrides(list(overrides))


def pooled(asked: RunConfig) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [
        load_client_data(asked.data, asked.run.seed, {"partition-id": i, "num-partitions": 4})
        for i in range(4)
    ]
    labels = torch.cat([part.y for part in parts])
    return labels, torch.cat([part.x.flatten(1).mean(dim=1) for part in parts])


def test_sums_are_those_of_the_pooled_data() -> None:
    asked = config(*ASK)
    answer = analyse(asked)
    labels, brightness = pooled(asked)
    assert answer["counts"] == torch.bincount(labels, minlength=10).tolist()
    assert answer["clients"] == 4
    assert answer["faults"] == []
    mean = analyse(config(*ASK, "analytics.statistic=mean", "analytics.column=brightness"))
    assert mean["count"] == len(labels)
    assert mean["mean"] == pytest.approx(float(brightness.double().mean()), abs=2**-16)


def test_noise_changes_the_answer() -> None:
    asked = config(*ASK, "analytics.epsilon=0.5")
    answer = analyse(asked)
    exact = torch.bincount(pooled(asked)[0], minlength=10).tolist()
    assert answer["epsilon"] == 0.5
    assert answer["counts"] != exact
    assert all(abs(a - b) < 80 for a, b in zip(answer["counts"], exact, strict=True))


def test_a_training_report_shows_the_labels(tmp_path: Path) -> None:
    secure = ("log.enabled=false", "privacy.secure-aggregation=true", "analytics.enabled=true")
    asked = config(
        *SMALL, f"run.home={tmp_path}", "run.rounds=1", "model.name=mlp", "model.hidden=8", *secure
    )
    folder = train(asked)
    counts = torch.bincount(pooled(asked)[0], minlength=10).tolist()
    summary = folder.read_summary()
    assert summary["analytics"]["counts"] == counts
    assert summary["clients"]["0"] == {}
    page = write_report(folder).read_text(encoding="utf-8")
    assert f"0: {counts[0]}, 1: {counts[1]}" in page


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    sets = [text for key in SMALL for text in ("--set", key)]
    assert run(["analytics", "heavy-hitters", "--column", "label", "--json", *sets]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["heavy-hitters"]) == 3
    assert run(["analytics", "median", *sets]) == 2
    assert 'analytics.statistic: given "median", allowed one of count, histogram' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["analytics.epsilon=1.0"], "has an effect only with analytics.enabled = true"),
        (["analytics.bins=5"], 'only with run.workflow = "analytics"'),
        ([*ASK, "analytics.bins=5"], 'only with analytics.column = "brightness"'),
        ([*ASK, "analytics.quantile=0.1"], 'only with analytics.statistic = "quantile"'),
        ([*ASK, "analytics.top=1"], 'only with analytics.statistic = "heavy-hitters"'),
        ([*ASK, "analytics.min-clients=5"], "allowed at most data.clients, which is 4"),
        ([*ASK, "analytics.enabled=true"], "analytics.enabled: given true"),
        ([*ASK, "analytics.column=brightness", "analytics.low=2.0"], "allowed below analytics.high"),
    ],
)
def test_what_has_no_effect_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        config(*overrides)
