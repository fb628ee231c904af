"""Runs whose clients train side by side: near those of one by one, and the same for any number of workers."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import lethe
from app.config.run_config import RunConfig
from app.workflows.forgetting import forget
from app.workflows.training import train
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from tests.app.runs import flat_model, flat_of
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

BASE = (
    "run.rounds=1",
    "run.workers=1",
    "data.clients=6",
    "data.partition=dirichlet",
    "data.train-limit=300",
    "data.test-limit=100",
    "model.name=mlp",
    "model.hidden=16",
    "train.batch-size=16",
    "train.momentum=0",
)
OWN_STEPS = "they take no plain local steps"


def run(home: Path, name: str, *keys: str) -> RunFolder:
    return train(RunConfig().with_overrides([f"run.home={home}", f"run.name={name}", *BASE, *keys]))


def notes_of(folder: RunFolder) -> list[str]:
    return [note for note in folder.read_summary()["notes"] if note.startswith("run.vectorise")]


def moved(folder: RunFolder) -> Tensor:
    initial = folder.read_initial()
    return flat_model(folder) - torch.cat([tensor.flatten() for tensor in initial.values()])


CLAIMED: Mapping[str, tuple[str, ...]] = {
    "fedavg": (),
    "fedprox": ("strategy.mu=0.5", "strategy.work=0=0.5"),
    "scaffold": ("run.rounds=2",),
    "feddyn": ("run.rounds=2",),
    "ditto": ("run.rounds=2",),
    "fedadam": (),
}


@pytest.mark.parametrize("strategy", CLAIMED)
def test_side_by_side_is_near_one_by_one(tmp_path: Path, strategy: str) -> None:
    keys = (f"strategy.name={strategy}", *CLAIMED[strategy])
    alone = run(tmp_path, "alone", *keys)
    beside = run(tmp_path, "beside", *keys, "run.vectorise=4")
    assert (moved(alone) - moved(beside)).norm() <= 1e-5 * moved(alone).norm()
    rounds = 2 if "run.rounds=2" in keys else 1
    trainings = 6 * rounds * (2 if strategy == "ditto" else 1)
    assert notes_of(alone) == []
    assert notes_of(beside) == [f"run.vectorise: {trainings} trainings side by side"]


def test_private_training_is_beside_others_and_spends_what_it_spends_alone(tmp_path: Path) -> None:
    """With seeded noise, which is the same numbers; ε, which the server reads from replies, is equal."""
    keys = ("privacy.unit=example", "privacy.noise-multiplier=1.0", "privacy.clip-norm=0.5")
    seeded = (*keys, "privacy.randomness=seeded", "run.rounds=2")
    alone = run(tmp_path, "alone", *seeded)
    beside = run(tmp_path, "beside", *seeded, "run.vectorise=4")
    assert notes_of(beside) == ["run.vectorise: 12 trainings side by side"]
    assert (moved(alone) - moved(beside)).norm() <= 1e-5 * moved(alone).norm()
    assert beside.read_summary()["privacy"] == alone.read_summary()["privacy"]


def test_with_few_clients_it_is_said_why_nothing_is_side_by_side(tmp_path: Path) -> None:
    alone, few = run(tmp_path, "alone"), run(tmp_path, "few", "run.vectorise=auto")
    assert flat_model(alone).equal(flat_model(few))
    why = "8 clients or fewer in a round are a group each, so that all workers have work"
    assert notes_of(few) == ["run.vectorise: 0 trainings side by side; 6 one by one: " + why]


def test_any_number_of_workers_gives_the_same_bits(tmp_path: Path) -> None:
    keys = ("run.vectorise=2", "run.rounds=2", "strategy.name=ditto")
    one, three = (run(tmp_path, f"w{n}", *keys, f"run.workers={n}") for n in (1, 3))
    assert flat_model(one).equal(flat_model(three))


def test_what_falls_back_is_said_once_and_has_the_bits_of_one_by_one(tmp_path: Path) -> None:
    keys = ("strategy.name=per-fedavg",)
    alone = run(tmp_path, "alone", *keys)
    beside = run(tmp_path, "beside", *keys, "run.vectorise=4")
    assert flat_model(alone).equal(flat_model(beside))
    assert notes_of(beside) == ["run.vectorise: 0 trainings side by side; 6 one by one: " + OWN_STEPS]


def run_of_own(home: Path, inner: Sequence[nn.Module], *keys: str) -> RunFolder:
    """Return a run of nine clients whose model, a project's own, has some layers in the middle."""

    def model(spec: lethe.ModelSpec) -> nn.Module:
        first, last = nn.Linear(64, 16), nn.Linear(16, spec.num_outputs)
        return nn.Sequential(nn.Flatten(), first, *map(copy.deepcopy, inner), last)

    given = [key for key in BASE if not key.startswith("model.")]
    config = RunConfig().with_overrides([*given, f"run.home={home}", "data.clients=9", *keys])
    run = lethe.train(lethe.Project(model=model), config=config.to_flat(), progress=False)
    return RunFolder(run.path)


def test_dropout_is_drawn_as_one_by_one(tmp_path: Path) -> None:
    """In the second round, too: each client draws anew, from its own numbers."""
    layers = (nn.ReLU(), nn.Dropout(0.3))
    alone, beside = (
        run_of_own(tmp_path, layers, "run.rounds=2", f"run.vectorise={way}") for way in ("off", "auto")
    )
    assert (moved(alone) - moved(beside)).norm() <= 1e-5 * moved(alone).norm()
    left = "no other client was left for its group"
    assert notes_of(beside) == [f"run.vectorise: 16 trainings side by side; 2 one by one: {left}"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("local", "its layers keep statistics while they train"),
        ("recalibrate", "its outputs depend on the other examples of a batch"),
    ],
)
def test_batch_norm_has_the_bits_of_one_by_one(tmp_path: Path, policy: str, reason: str) -> None:
    """Statistics that stay with a client, or are made anew: each has its own, whoever was before it."""
    layers, keys = (nn.BatchNorm1d(16), nn.ReLU()), ("run.rounds=2", f"model.batch-norm={policy}")
    alone, beside = (run_of_own(tmp_path, layers, *keys, f"run.vectorise={way}") for way in ("off", "auto"))
    assert flat_model(alone).equal(flat_model(beside))
    (note,) = notes_of(beside)
    assert f"16 one by one: {reason}" in note


@pytest.fixture(scope="module")
def finished(home: Path) -> RunFolder:
    return run(home, "finished", "run.rounds=3")


@pytest.mark.parametrize("method", ["federaser", "finetune", "retrain"])
def test_methods_that_visit_clients_use_it(tmp_path: Path, method: str, finished: RunFolder) -> None:
    """Of copies of one run, with clients one by one and side by side."""
    settings = ForgetSettings(method=method)
    found = []
    for vectorise in ("off", "3"):
        folder = RunFolder(Path(shutil.copytree(finished.path, tmp_path / vectorise)))
        config = folder.path / "config.toml"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace('vectorise = "off"', f'vectorise = "{vectorise}"'), encoding="utf-8")
        made = folder.forget_folder(forget(folder, ForgetRequest(clients=("1",)), settings))
        found.append(flat_of(load_file(made / "model.safetensors")))
    length = (found[0] - flat_model(finished)).norm()
    assert 0 < (found[0] - found[1]).norm() <= 1e-5 * length


def test_what_the_key_takes() -> None:
    for given in ("1", "0", "many", "-4", "2.5"):
        with pytest.raises(BadInput, match=f"run.vectorise: given .*{given}.*, allowed off, auto or a whole"):
            RunConfig().with_overrides([f"run.vectorise={given}"])
    assert RunConfig().with_overrides(["run.vectorise=12"]).run.vectorise == "12"
    assert RunConfig().with_overrides(["run.vectorise=auto"]).run.vectorise == "auto"
