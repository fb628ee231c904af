"""One-shot learning from end to end in one process tree: train, forget, and what is refused."""

from pathlib import Path

import pytest

from app.config.run_config import RunConfig
from app.workflows import forget, train
from strategies.core import wire
from strategies.core.errors import BadInput
from strategies.one_shot import one_shot
from strategies.runs.folder import RunFolder
from strategies.runs.tensor_file import read_sealed
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

SMALL = (
    "strategy.name=one-shot",
    "run.rounds=1",
    "run.workers=1",
    "data.clients=4",
    "data.partition=shards",
    "data.train-limit=400",
    "data.test-limit=200",
    "data.public=0.25",
    "model.name=mlp",
    "model.hidden=16",
    "train.local-epochs=5",
)
CLIENT_3 = ForgetRequest(clients=("3",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    home: Path = tmp_path_factory.mktemp("runs")
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return train(RunConfig().with_overrides([f"run.home={home}", "run.name=shot", key, *SMALL]))


def test_the_ensemble_and_what_is_distilled_of_it_are_better_than_the_members(folder: RunFolder) -> None:
    final = folder.read_summary()["final"]
    assert final[one_shot.MEMBERS] == 4
    assert final[one_shot.MEMBER_ACCURACY] + 5 < final[one_shot.ENSEMBLE_ACCURACY]
    assert final[one_shot.MEMBER_ACCURACY] + 5 < final["test-accuracy"]
    assert final[one_shot.DISTILLED_ACCURACY] == pytest.approx(final["test-accuracy"])


def test_retraining_is_one_shot_again_without_the_client(folder: RunFolder) -> None:
    name = forget(folder, CLIENT_3, ForgetSettings(method="retrain"))
    after = read_sealed(folder.forget_folder(name) / "model.safetensors").tensors
    before = folder.read_model()
    assert not wire.Layout.of(after).flatten(after).equal(wire.Layout.of(before).flatten(before))


def test_what_subtracts_is_refused(folder: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"subtract does not apply to one-shot: .*; use retrain"):
        forget(folder, CLIENT_3, ForgetSettings(method="subtract"))
