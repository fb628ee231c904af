"""Masked sums over a SuperLink: secure aggregation and analytics are what one process computes."""

import json
from pathlib import Path

import torch

from app.config.run_config import RunConfig
from app.data import load_client_data
from benchmarks.deployed.federation import Federation
from strategies.core.settings import Scalar
from strategies.runs.folder import RunFolder
from tests.deployed.conftest import CLIENTS, SMALL, home, in_one_process

PLAIN: dict[str, Scalar] = {**SMALL, "run.rounds": 1, "run.name": "masked", "log.enabled": "false"}
MASKED: dict[str, Scalar] = {**PLAIN, "log.enabled": False, "privacy.secure-aggregation": True}


def test_the_masked_model_is_the_plain_one(federation: Federation, tmp_path: Path) -> None:
    """The masks cancel: what is left differs from plain averaging by roundings of float32 alone."""
    printed = federation.run({**MASKED, **home(federation)}, "masked")
    assert "run folder" in printed, printed
    run = RunFolder.open("masked", federation.runs)
    expected = in_one_process(tmp_path, PLAIN).read_model()
    for name, tensor in run.read_model().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6)
    summary = run.read_summary()
    assert summary["faults"] == []
    assert summary["clients"] == {name: {} for name in CLIENTS}


def test_a_histogram_is_that_of_the_pooled_data(federation: Federation) -> None:
    told: dict[str, Scalar] = {
        "run.workflow": "analytics",
        "analytics.statistic": "histogram",
        **{key: value for key, value in SMALL.items() if key.startswith("data.")},
    }
    printed = federation.run(told, "analytics")
    assert "answer: " in printed, printed
    answer, _ = json.JSONDecoder().raw_decode(printed.partition("answer: ")[2])
    config = RunConfig().with_overrides([f"{key}={value}" for key, value in told.items()])
    nodes = ({"partition-id": i, "num-partitions": len(CLIENTS)} for i in range(len(CLIENTS)))
    labels = torch.cat([load_client_data(config.data, config.run.seed, node).y for node in nodes])
    assert answer["counts"] == torch.bincount(labels, minlength=10).tolist()
    assert answer["clients"] == len(CLIENTS)
    assert answer["faults"] == []
