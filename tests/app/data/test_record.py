"""What a run notes down of its data, end to end: where they lie, that they are the same, whose classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.client_app import describe
from app.config.run_config import RunConfig
from app.data.record import DATA, classes_in, with_absolute_paths
from app.workflows import forget, train
from app.workflows.session import open_session
from benchmarks.inline import InlineGrid
from strategies.core import wire
from strategies.core.errors import BadInput, LetheError
from strategies.runs.folder import RunFolder
from unlearning.request import ForgetRequest
from unlearning.settings import ForgetSettings

LABELS = np.array([1, 5, 9])


def written(path: Path, labels: np.ndarray = LABELS) -> Path:
    """Write a table of 60 examples whose labels come in turn."""
    x = np.random.default_rng(0).normal(size=(60, 4))
    np.savez(path, x=x, y=labels[np.arange(60) % len(labels)])
    return path


def config(home: Path, *overrides: str) -> RunConfig:
    small = ("run.rounds=1", "data.clients=3", "model.name=mlp", "model.hidden=8", "run.name=small")
    key = f"run.certificate-key={home / 'keys' / 'certificate.pem'}"
    return RunConfig().with_overrides([f"run.home={home}", key, *small, *overrides])


def trained(home: Path, *overrides: str) -> RunFolder:
    wanted = config(home, *overrides)
    return train(wanted, None, InlineGrid(wanted))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Return a run of a table that was named by a relative path; its labels are 1, 5 and 9."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "table.npz")
    return trained(tmp_path / "runs", "data.name=npz:table.npz", "run.home=runs")


def test_a_run_is_not_tied_to_the_folder_that_it_was_made_in(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    session = open_session(run)

    assert session.config.data.name == f"npz:{tmp_path / 'table.npz'}"
    assert session.config.run.home == str(tmp_path / "runs")
    assert session.notes == []


def test_what_has_no_path_stays_as_it_is() -> None:
    assert with_absolute_paths(RunConfig()) == RunConfig()


def test_a_file_that_changed_is_noted_when_the_run_is_used_again(run: RunFolder, tmp_path: Path) -> None:
    arrays = dict(np.load(tmp_path / "table.npz"))
    np.savez(tmp_path / "table.npz", x=arrays["x"][::-1], y=arrays["y"][::-1])

    (note,) = open_session(run).notes

    assert note.startswith(
        f"data.name: {tmp_path / 'table.npz'} is not the file that the run was made with (SHA-"
    )


def test_data_of_other_classes_are_refused(run: RunFolder, tmp_path: Path) -> None:
    written(tmp_path / "table.npz", np.array([1, 5, 7]))
    # What is in memory is kept by name; the file is another under the same name only in a new process
    from app.data import sources

    sources._load_own.cache_clear()
    from app.data import split

    split._shaped.cache_clear()
    with pytest.raises(
        BadInput, match=r"its classes are 1, 5, 9, those of the data are 1, 5, 7 now; restore"
    ):
        open_session(run)


def test_the_labels_are_said_and_kept(run: RunFolder, tmp_path: Path) -> None:
    summary = run.read_summary()
    assert summary["data"]["class-names"] == ["1", "5", "9"]
    assert summary["notes"] == [
        f"{tmp_path / 'table.npz'}: the labels 1, 5, 9 are the model's classes 0 to 2"
    ]
    assert json.loads((run.path / DATA).read_text())["class-names"] == ["1", "5", "9"]


def test_a_class_is_forgotten_by_its_own_label(run: RunFolder) -> None:
    classes, names = classes_in(run, ["9"])
    assert (classes, names) == ((2,), ("9",))
    request = ForgetRequest(classes=classes, class_names=names)
    settings = ForgetSettings.of("negate", epochs=1)

    name = forget(run, request, settings, None, InlineGrid(open_session(run).config))

    assert name == "class-9-negate"
    result = json.loads((run.path / "forget" / name / "result.json").read_text())
    assert result["request"]["classes"] == [2]
    assert result["request"]["class-names"] == ["9"]


@pytest.mark.parametrize("label", ["0", "2", "dog"])
def test_a_label_that_is_none_of_the_runs_is_refused(run: RunFolder, label: str) -> None:
    with pytest.raises(BadInput, match=f"^unknown class {label}; the run has classes 1, 5, 9$"):
        classes_in(run, [label])


def described(tmp_path: Path, *overrides: str) -> Message:
    """Return what a node with a label of its own answers to the question who it is."""
    own = written(tmp_path / "own.npz", np.array([1, 4]))
    wanted = config(tmp_path, "log.enabled=false", *overrides)
    told = ConfigRecord({wire.NUM_GROUPS: 2, wire.CLASS_NAMES: ["1", "5"], wire.INPUT_SHAPE: [4]})
    message = Message(RecordDict({wire.CONFIG: told}), 1, wire.DESCRIBE)
    node = {"client-id": "a", "data.path": str(own)}
    return describe(message, Context(1, 1, node, RecordDict(), wanted.to_flat()))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "label 4 is no class of the run, which has 1, 5; data.classes can name all that there are"),
        (
            ("privacy.unit=client-local", "privacy.epsilon=1"),
            "a label is no class of the run, which has 1, 5",
        ),
        (("privacy.secure-aggregation=true",), "a label is no class of the run, which has 1, 5"),
    ],
)
def test_a_nodes_wrong_labels_are_told_at_once_and_by_name_only_where_nothing_is_private(
    tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    reply = described(tmp_path, *overrides).content

    detail = str(reply.config_records[wire.CONFIG][wire.DETAIL])
    assert said in detail
    assert ("4" in detail.replace(str(tmp_path), "")) == (not overrides)
    assert reply.metric_records[wire.METRICS][wire.NUM_EXAMPLES] == 0


def test_a_run_that_never_learned_fails_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reply is refused, as the learning rate makes the parameters infinite."""
    with pytest.raises(
        LetheError, match=r"^run 'small': no reply of a client could be used, so the model is .*\(client 0: "
    ) as failed:
        trained(tmp_path, "train.learning-rate=1e38", "data.train-limit=60", "data.test-limit=20")
    assert not isinstance(failed.value, BadInput)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("privacy.secure-aggregation=true", "data.clients=1"), "data.clients: given 1, so that one client"),
        (
            ("privacy.secure-aggregation=true", "data.clients=3", "data.without=0,2"),
            "data.clients: given 3, so that one client",
        ),
        (
            ("privacy.secure-aggregation=true", "selection.fraction=0.1", "data.clients=10"),
            "selection.fraction: given 0.1, so that one client",
        ),
        (("privacy.encryption=ckks", "data.clients=1"), "data.clients: given 1, so that one client"),
        (
            ("privacy.unit=client-local", "privacy.epsilon=1", "data.scale=standard"),
            'data.scale: given "standard", whose means',
        ),
    ],
)
def test_what_can_never_work_is_refused_first(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadInput, match=f"^{message}"):
        config(tmp_path, "log.enabled=false", *overrides)


def test_one_file_for_all_clients_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    own = written(tmp_path / "one.npz")

    with pytest.raises(BadInput, match=r"^data\.path: given .*one\.npz, which every client of a simulation"):
        train(config(tmp_path / "runs", f"data.name=npz:{own}", f"data.path={own}"))
    assert not (tmp_path / "runs").exists()
