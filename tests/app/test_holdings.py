"""What is asked before any work: do clients hold the data of the run, and would any client remain?"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.config.run_config import RunConfig
from app.forgettings.folder import read_result
from app.workflows import audit, forget, train
from strategies.core.errors import BadInput
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import AuditSettings, ForgetSettings

CLASSES = 4
FIRST_FIVE = ForgetRequest(samples={"0": (0, 1, 2, 3, 4)})
RETRAIN = ForgetSettings(method="retrain")
FINETUNE = ForgetSettings.of("finetune", epochs=1)


def write_data(path: Path, order: np.ndarray | None = None, more: int = 0) -> None:
    """Write four classes, the fourth of test data only, in some order, with more examples at the end."""
    generator = np.random.default_rng(3)
    y = np.arange(900 + more) % (CLASSES - 1)
    x = generator.normal(size=(len(y), 5)).astype(np.float32) + y[:, None]
    order = np.arange(len(y)) if order is None else order
    x_test = generator.normal(size=(40, 5)).astype(np.float32)
    np.savez(path, x_train=x[order], y_train=y[order], x_test=x_test, y_test=np.arange(40) % CLASSES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run of clients 0 and 1, each with a file of its own shape, and 2, who was never drawn."""
    home = tmp_path_factory.mktemp("holdings")
    write_data(home / "data.npz")
    keys = (
        f"run.home={home}",
        "run.name=run",
        f"run.certificate-key={home / 'key.pem'}",
        f"data.name=npz:{home / 'data.npz'}",
        "data.public=0",
        "data.clients=3",
        "data.partition=iid",
        "run.rounds=2",
        "run.workers=1",
        "model.name=mlp",
        "model.hidden=4",
    )
    return train(RunConfig().with_overrides(list(keys)))


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """Return a copy of the run; its data lie as they were."""
    write_data(trained.path.parent / "data.npz")
    return RunFolder(Path(shutil.copytree(trained.path, tmp_path / "run")))


def change_data(run: RunFolder, order: np.ndarray | None = None, more: int = 0) -> None:
    """Exchange the file that the run was trained on."""
    name = RunConfig.from_toml(run.path / "config.toml").data.name
    write_data(Path(name.removeprefix("npz:")), order, more)


def answer(run: RunFolder, request: ForgetRequest, settings: ForgetSettings) -> tuple[dict, dict]:
    """Return ``result.json`` and what the certificate states."""
    path = run.forget_folder(forget(run, request, settings))
    certificate = json.loads((path / "certificate.json").read_bytes())["certificate"]
    return read_result(path), certificate


def test_positions_in_the_data_of_the_run_are_served(run: RunFolder) -> None:
    """Nothing is said where the tags hold."""
    result, _ = answer(run, FIRST_FIVE, FINETUNE)
    assert not result["warnings"]
    assert not result["notes"]


def test_positions_in_other_data_are_refused(run: RunFolder) -> None:
    """The same examples in another order: the positions name others; nothing is left behind."""
    change_data(run, np.random.default_rng(5).permutation(900))
    with pytest.raises(BadInput, match="client 0 are not those of the run any more"):
        forget(run, FIRST_FIVE, RETRAIN)
    assert not (run.path / "forget").exists()


@pytest.mark.parametrize(
    "request_", [ForgetRequest(clients=("0",)), ForgetRequest(classes=(1,))], ids=lambda r: r.kind
)
def test_a_client_or_class_is_served_with_a_warning(run: RunFolder, request_: ForgetRequest) -> None:
    """In the result, and among what the certificate says must not be concluded."""
    change_data(run, np.random.default_rng(5).permutation(900))
    result, certificate = answer(run, request_, FINETUNE)
    warned = [line for line in result["warnings"] if "not those that it trained on" in line]
    assert [line.split()[4] for line in warned] == ["0", "1", "2"]
    assert certificate["warnings"] == result["warnings"]
    assert set(warned) <= set(certificate["limits"])


def test_one_label_is_enough(run: RunFolder) -> None:
    """A change of one example of one client concerns that client alone."""
    name = RunConfig.from_toml(run.path / "config.toml").data.name.removeprefix("npz:")
    data = dict(np.load(name))
    data["x_train"][0, 0] += 1
    np.savez(name, **data)
    result, _ = answer(run, ForgetRequest(classes=(1,)), FINETUNE)
    assert len(result["warnings"]) == 1


def test_without_tags_nothing_can_be_checked(run: RunFolder) -> None:
    """A run from before there were tags, or whose clients lost them: served, and said."""
    run.erase_checkpoint()
    result, certificate = answer(run, FIRST_FIVE, FINETUNE)
    assert result["notes"] == certificate["notes"]
    assert ["no client can check" in note for note in result["notes"]] == [True]


def test_an_audit_of_positions_in_other_data_is_refused(run: RunFolder) -> None:
    forget(run, FIRST_FIVE, FINETUNE)
    change_data(run, np.random.default_rng(5).permutation(900))
    with pytest.raises(BadInput, match="not those of the run any more"):
        audit(run, FIRST_FIVE, ["finetune"], AuditSettings())


@pytest.mark.parametrize(
    "method", ["retrain", "finetune", "l1-sparse", "negate", "fisher", "ascent", "influence", "fedosd"]
)
def test_a_class_that_nobody_holds_changes_nothing(run: RunFolder, method: str) -> None:
    """The model comes back as it was, with a note in result and certificate."""
    request = ForgetRequest(classes=(3,))
    result, certificate = answer(run, request, ForgetSettings(method=method))
    path = run.forget_folder(f"class-3-{method}")
    assert (path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    assert result["notes"][0].endswith("holds an example of class-3: nothing to forget")
    assert certificate["notes"] == result["notes"]
    assert certificate["method"]["guarantee"].startswith("exact: nothing was to be forgotten")


def everything(run: RunFolder) -> ForgetRequest:
    """Return the request for all examples of all clients."""
    clients = run.read_summary()["clients"]
    return ForgetRequest(samples={i: tuple(range(known["num-examples"])) for i, known in clients.items()})


@pytest.mark.parametrize("method", ["retrain", "finetune", "ascent", "influence"])
@pytest.mark.parametrize("kind", ["held classes", "all classes", "all samples", "all clients"])
def test_what_leaves_nobody_is_refused(run: RunFolder, kind: str, method: str) -> None:
    """Before any work, and nothing is left behind."""
    request = {
        "held classes": ForgetRequest(classes=(0, 1, 2)),
        "all classes": ForgetRequest(classes=(0, 1, 2, 3)),
        "all samples": everything(run),
        "all clients": ForgetRequest(clients=("0", "1", "2")),
    }[kind]
    with pytest.raises(BadInput, match="nobody would remain"):
        forget(run, request, ForgetSettings(method=method))
    assert not (run.path / "forget").exists()


def test_what_leaves_nobody_is_refused_before_pruning(run: RunFolder) -> None:
    with pytest.raises(BadInput, match="nobody would remain"):
        forget(run, ForgetRequest(classes=(0, 1, 2)), ForgetSettings(method="retrain", prune="imp"))
    assert not (run.path / "pruned").exists()


def test_who_has_nothing_left_is_not_asked_to_retrain(run: RunFolder) -> None:
    """As if that client were forgotten: the same bits, and no failure is told."""
    count = run.read_summary()["clients"]["0"]["num-examples"]
    result, _ = answer(run, ForgetRequest(samples={"0": tuple(range(count))}), RETRAIN)
    assert not result["warnings"]
    assert not result["notes"]
    answer(run, ForgetRequest(clients=("0",)), RETRAIN)
    models = [
        (folder / "model.safetensors").read_bytes() for folder in sorted((run.path / "forget").iterdir())
    ]
    assert len(models) == 2
    assert models[0] == models[1]
