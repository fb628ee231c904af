"""Decentralised training from end to end in one process tree: theory, retraining, and what is refused."""

from itertools import pairwise

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, train
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from tests.app.runs import flat_model, flat_of
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "run.workers=1",
    "run.rounds=9",
    "run.evaluate-every=9",
    "data.train-limit=200",
    "data.test-limit=50",
    "data.clients=6",
    "data.partition=shards",
    "model.name=mlp",
    "model.hidden=8",
    "strategy.name=gossip",
    "log.retention=interval:9",
)
CLIENT_5 = ForgetRequest(clients=("5",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run whose learning rate is as good as zero after the first round."""
    home = tmp_path_factory.mktemp("runs")
    key = f"run.certificate-key={home / 'certificate.pem'}"
    return train(RunConfig().with_overrides([f"run.home={home}", key, "train.lr-decay=1e-12", *SMALL]))


def test_without_steps_disagreement_falls_by_the_spectral_gap(finished: RunFolder) -> None:
    """Ring of six: the modulus is (1 + 2 cos 60°)/3 = 2/3, reached when only its mode is left."""
    lines = finished.read_metrics()
    assert lines[0]["second-eigenvalue"] == pytest.approx(2 / 3)
    distances = [line["consensus-distance"] for line in lines]
    factors = [after / before for before, after in pairwise(distances)]
    assert all(factor <= 2 / 3 + 1e-3 for factor in factors)
    assert factors[-1] == pytest.approx(2 / 3, abs=0.01)


def test_a_client_is_forgotten_by_gossip_among_the_others(finished: RunFolder) -> None:
    path = finished.forget_folder(forget(finished, CLIENT_5, ForgetSettings(method="retrain")))
    assert not flat_model(finished).equal(flat_of(read_sealed(path / "model.safetensors").tensors))


@pytest.mark.parametrize("method", ["subtract", "finetune"])
def test_other_methods_are_refused_before_any_work(finished: RunFolder, method: str) -> None:
    with pytest.raises(BadInput, match=f"{method} does not apply to gossip: every client holds a model"):
        forget(finished, CLIENT_5, ForgetSettings(method=method))
