"""app/workflows/sweeping.py: trials are runs; they are counted, resumed and sorted."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.config.run_config import RunConfig
from app.workflows import sweeping
from app.workflows.observer import Quiet
from app.workflows.sweep_file import read_sweep
from strategies.core.errors import BadInput, LetheError
from strategies.runs.folder import MODEL, RunFolder

SPACE = "[sweep.space]\ntrain.momentum = [0.1, 0.2, 0.3]\n[data]\nclients = 2\nvalidation-share = 0.3\n"
Sweep = Callable[..., sweeping.Swept]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Put runs that do no work in the place of real ones; their figure is 100 · momentum. Lists momenta."""
    done: list[float] = []

    def finish(folder: RunFolder, momentum: float, observer: Any) -> RunFolder:
        done.append(momentum)
        if momentum == 0.9:
            raise LetheError("the disk is full")
        if momentum == 0.8:
            raise KeyboardInterrupt
        observer.advance("round 1", {"validation-accuracy": 100 * momentum})
        (folder.path / MODEL).touch()
        final = {"validation-accuracy": 100 * momentum, "test-accuracy": 90 - momentum}
        folder.write_summary(
            {"strategy": "fedavg", "rounds": 1, "seconds": 1.0, "final": final, "clients": {}}
        )
        return folder

    def train(config: RunConfig, observer: Any) -> RunFolder:
        folder = RunFolder.create(config.run.home, config.run.name, config.to_toml())
        return finish(folder, config.train.momentum, observer)

    def resume(folder: RunFolder, observer: Any) -> RunFolder:
        return finish(folder, 0.4, observer)

    monkeypatch.setattr(sweeping, "train", train)
    monkeypatch.setattr(sweeping, "resume", resume)
    return done


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Run the sweep of a file with this text."""

    def run(text: str) -> sweeping.Swept:
        (tmp_path / "momenta.toml").write_text(text)
        wanted = read_sweep(tmp_path / "momenta.toml").with_base({"run.home": str(tmp_path / "runs")})
        return sweeping.sweep(wanted, RunConfig.from_flat(wanted.base), Quiet())

    return run


GRID = '[sweep]\nsampler = "grid"\n' + SPACE


def test_a_grid_tries_every_value_once_and_the_best_comes_first(sweep: Sweep, trained: list[float]) -> None:
    found = sweep(GRID)
    assert trained == [0.1, 0.2, 0.3]
    assert [each.figure for each in found.tried] == pytest.approx([30, 20, 10])
    assert found.best is not None
    assert (found.best.run, found.metric, found.on_report) == (
        "sweep-momenta-002",
        "validation-accuracy",
        False,
    )
    assert found.command[-2:] == ["--set", "train.momentum=0.3"]
    assert "data.validation-share=0.3" in found.command
    assert not any("run.home" in word for word in found.command)


def test_the_same_command_goes_on_and_does_nothing_twice(sweep: Sweep, trained: list[float]) -> None:
    sweep(GRID.replace("[sweep]\n", "[sweep]\ntrials = 2\n"))
    assert trained == [0.1, 0.2]
    assert len(sweep(GRID).tried) == 3
    assert trained == [0.1, 0.2, 0.3]
    sweep(GRID)
    assert trained == [0.1, 0.2, 0.3]


def test_a_failed_trial_is_counted_and_named(sweep: Sweep, trained: list[float]) -> None:
    found = sweep(GRID.replace("0.1,", "0.9,"))
    assert [each.state for each in found.tried] == ["complete", "complete", "failed"]
    assert (found.tried[-1].run, found.tried[-1].reason) == ("sweep-momenta-000", "the disk is full")


def test_an_interrupted_trial_is_resumed(sweep: Sweep, trained: list[float]) -> None:
    text = GRID.replace("0.2,", "0.8,")
    with pytest.raises(KeyboardInterrupt):
        sweep(text)
    found = sweep(text)
    assert trained == [0.1, 0.8, 0.4, 0.3]
    assert sorted(each.figure or 0 for each in found.tried) == pytest.approx([10, 30, 40])


def test_a_sampler_draws_other_values_when_it_goes_on(sweep: Sweep, trained: list[float]) -> None:
    text = '[sweep]\nsampler = "random"\ntrials = 2\n' + SPACE.replace(
        "[0.1, 0.2, 0.3]", "{ low = 0.0, high = 0.5 }"
    )
    sweep(text)
    sweep(text.replace("trials = 2", "trials = 4"))
    assert len(set(trained)) == 4
    assert all(0 <= momentum <= 0.5 for momentum in trained)


def test_a_minimised_figure(sweep: Sweep, trained: list[float]) -> None:
    found = sweep(GRID.replace("[sweep]\n", '[sweep]\ndirection = "minimize"\n'))
    assert found.best is not None
    assert found.best.values == {"train.momentum": 0.1}


def test_the_data_of_the_report_must_be_asked_for(sweep: Sweep, trained: list[float], tmp_path: Path) -> None:
    text = GRID.replace("validation-share = 0.3\n", "")
    with pytest.raises(BadInput, match=r"data\.validation-share is 0"):
        sweep(text)
    assert not (tmp_path / "runs").exists()
    found = sweep(text.replace("[sweep]\n", '[sweep]\nmetric = "test-accuracy"\n'))
    assert (found.metric, found.on_report) == ("test-accuracy", True)
    assert found.best is not None
    assert found.best.values == {"train.momentum": 0.1}


def test_an_unknown_metric_is_refused_before_any_trial(sweep: Sweep, trained: list[float]) -> None:
    with pytest.raises(BadInput, match=r"has accuracy, loss"):
        sweep(GRID.replace("[sweep]\n", '[sweep]\nmetric = "f1"\n'))
    assert trained == []


def test_another_sweep_of_the_name_is_refused(sweep: Sweep, trained: list[float]) -> None:
    sweep(GRID)
    with pytest.raises(BadInput, match="begun with other values"):
        sweep(GRID.replace("0.3]", "0.4]"))


def test_without_optuna_the_extra_is_named(
    sweep: Sweep, trained: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match=r"optuna is not installed: pip install 'lethe-fl\[sweep\]'"):
        sweep(GRID)


@pytest.mark.check
def test_a_whole_sweep(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GRID + "[run]\nrounds = 1\n")
    wanted = read_sweep(tmp_path / "a.toml").with_base({"run.home": str(tmp_path)})
    found = sweeping.sweep(wanted, RunConfig.from_flat(wanted.base), Quiet())
    assert [each.state for each in found.tried] == ["complete"] * 3
    assert found.best is not None
    summary = RunFolder(tmp_path / found.best.run).read_summary()
    assert summary["final"]["validation-accuracy"] == found.best.figure
