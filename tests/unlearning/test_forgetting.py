"""unlearning/forgetting.py: who must be connected, and what a result says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from strategies.core.errors import BadInput
from tests.unlearning.methods.federation import blobs
from tests.unlearning.methods.slow import federation_of, finished, forgotten
from tests.unlearning.runs import logged_run
from unlearning.forgetting import forget
from unlearning.methods import METHODS
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

SETTINGS = ForgetSettings()


@pytest.fixture
def run(tmp_path: Path) -> TrainedRun:
    """Return a run of one round with clients a and b."""
    one = torch.ones(1)
    return logged_run(tmp_path / "log", [{"a": (1, one), "b": (1, 2 * one)}], initial=torch.zeros(1))


SAMPLED = [n for n, method in METHODS.items() if "sample" in method.serves and not method.prunes_anew]


@pytest.mark.parametrize("method", SAMPLED)
def test_positions_that_a_connected_client_does_not_have(tmp_path: Path, method: str) -> None:
    """By what it says of itself; nobody is asked to work."""
    federation = federation_of()
    run = replace(finished(federation, tmp_path), num_examples={}, public=blobs(9, seed=9))
    with pytest.raises(BadInput, match="client 2 has 28 examples, at positions 0 to 27: got 28"):
        forgotten(method, run, federation, ForgetRequest(samples={"2": (28,)}))
    assert {kind for kind, _ in federation.asked} == {"query.describe"}


def test_retraining_needs_clients(run: TrainedRun) -> None:
    """Without a cohort there is nobody to train."""
    with pytest.raises(BadInput, match="retrain needs the remaining clients online"):
        forget(run, ForgetRequest(clients=("a",)), "retrain", SETTINGS)


def test_result_says_what_was_asked_and_what_it_took(run: TrainedRun) -> None:
    """Everything but the model, as plain data."""
    settings = ForgetSettings.of("subtract", form="renormalised")
    result = forget(run, ForgetRequest(clients=("a",)), "subtract", settings).to_json()
    assert result["request"]["clients"] == ["a"]
    assert result["method"] == "subtract"
    assert result["seconds"] >= 0
    assert result["traffic"] == {"bytes-up": 0, "bytes-down": 0, "visits": 0}
    assert result["settings"]["subtract"] == {"form": "renormalised"}
