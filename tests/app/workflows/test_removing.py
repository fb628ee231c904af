"""Removing runs: what goes, what stays, what is refused; and that a refused training leaves nothing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.config.run_config import RunConfig
from app.workflows import find_removable, forget, remove, train, training_rounds
from strategies.core.errors import BadInput, LetheError
from strategies.runs.folder import RunFolder
from strategies.runs.home import make
from strategies.runs.run_lock import in_use
from tests.app.conftest import CLIENT_2, SMALL, SUBTRACT


def config(home: Path, *overrides: str, encrypted: bool = True) -> RunConfig:
    keys = ["log.encrypted=true", f"log.keys={home / 'keys'}"] if encrypted else []
    placed = [f"run.home={home / 'runs'}", *keys]
    return RunConfig().with_overrides([*SMALL, *placed, *overrides])


def left_in(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name != "runs")


def test_a_run_whose_model_does_not_fit_its_data_leaves_nothing(tmp_path: Path) -> None:
    table, labels = np.zeros((60, 5), dtype=np.float32), np.arange(60) % 3
    place = tmp_path / "table.npz"
    np.savez(place, allow_pickle=False, x_train=table, y_train=labels, x_test=table, y_test=labels)
    with pytest.raises(BadInput, match=r"model\.name"):
        train(
            config(
                tmp_path, f"data.name=npz:{place}", "data.train-limit=0", "model.name=cnn", encrypted=False
            )
        )
    assert left_in(tmp_path) == ["table.npz"]


@pytest.mark.parametrize(("error", "stays"), [(BadInput("no"), False), (LetheError("a full disk"), True)])
def test_a_refusal_while_training_leaves_nothing_and_a_failure_what_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: LetheError, stays: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(training_rounds, "train_rounds", fail)
    with pytest.raises(type(error), match=str(error)):
        train(config(tmp_path))
    assert (tmp_path / "runs" / "small" / "log").exists() == stays
    assert any((tmp_path / "keys").iterdir()) == stays
    assert (tmp_path / "runs" / "small").exists() == stays


def test_a_run_goes_with_all_that_lies_in_it(small: RunFolder) -> None:
    held = remove(small)
    assert not small.path.exists()
    assert held.inside == ("1 forgetting, 1 certificate among them: client-2-subtract",)
    assert held.keys == ()
    assert held.remains == ("Copies of its certificates elsewhere can no longer be compared with its files.",)
    assert held.num_bytes > 10_000


def test_the_keys_of_an_encrypted_log_go_too(tmp_path: Path) -> None:
    folder = train(config(tmp_path, "run.rounds=1"))
    (keys,) = (tmp_path / "keys").iterdir()
    assert len(list(keys.iterdir())) == 3
    assert remove(folder).keys == (keys,)
    assert left_in(tmp_path) == ["keys"]


@pytest.mark.parametrize("alone", [False, True])
def test_a_run_that_is_worked_on_stays(small: RunFolder, alone: bool) -> None:
    """The worker is another process, and its death ends its claim."""
    code = (
        "import sys; from pathlib import Path; from strategies.runs.run_lock import in_use\n"
        f"with in_use(Path(sys.argv[1]), alone={alone}): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(small.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        with pytest.raises(LetheError, match="another process is working on this run"):
            remove(small)
        assert (small.path / "model.safetensors").exists()
        if alone:
            with pytest.raises(LetheError, match="another process is working on this run"):
                forget(small, CLIENT_2, SUBTRACT)
        worker.kill()
    remove(small)
    assert not small.path.exists()


def test_several_may_forget_at_once(small: RunFolder) -> None:
    with in_use(small.path):
        assert forget(small, CLIENT_2, SUBTRACT) == "client-2-subtract"


def test_a_run_in_a_run_stays_while_the_outer_is_worked_on(small: RunFolder) -> None:
    inner = RunFolder.create(small.path / "pruned", "omp-0.5", small.read_config())
    with in_use(small.path), pytest.raises(LetheError, match="another process is working"):
        remove(inner)
    held = remove(inner)
    assert held.remains == ("Run 'small', which this one lies in, keeps what was made of both.",)
    assert (small.path / "model.safetensors").exists()


def test_only_runs_are_removed(tmp_path: Path) -> None:
    """A run that was begun and got no further is one where runs lie; elsewhere such a folder is not."""
    begun = make(tmp_path / "runs" / "begun")
    (begun / "config.toml").write_text("")
    remove(find_removable("begun", tmp_path / "runs"))
    assert not begun.exists()
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.toml").write_text("")
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "paper.txt").write_text("")
    for run in (str(project), "notes"):
        with pytest.raises(BadInput, match="is not the folder of a run; it is left alone"):
            find_removable(run, tmp_path / "runs")
    with pytest.raises(BadInput, match="no such run or folder"):
        find_removable("none", tmp_path / "runs")
