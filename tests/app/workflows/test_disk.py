"""A log that does not fit on the disk is refused before any work, with what fits."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from app.config.run_config import RunConfig
from app.workflows import go_on, resume, train
from strategies.core.errors import BadInput
from strategies.log.estimate import LogEstimate
from strategies.runs.folder import RunFolder
from tests.app.runs import StopAfter, Stopped


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def _config(home: Path, *more: str) -> RunConfig:
    small = ("data.clients=10", "data.train-limit=200", "model.name=mlp", "model.hidden=16", "run.rounds=100")
    return RunConfig().with_overrides([f"run.home={home}", *small, "train.local-steps=1", *more])


def _have_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10**12, 0, free))


@pytest.mark.parametrize(
    ("free", "allowed"),
    [
        (3_000_000, r'"interval:3" \(.*\) or "sum" \('),
        (400_000, r'"interval:\d+" \(.*\) or "sum" \('),
        (10_000, "log.enabled = false"),
    ],
)
def test_what_fits_is_said_and_nothing_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, allowed: str
) -> None:
    """Ten clients, a hundred rounds, 7 kB each."""
    _have_free(monkeypatch, free)
    with pytest.raises(BadInput, match=rf'^log.retention: given "full", 10 clients.*; allowed {allowed}'):
        train(_config(tmp_path / "home"))
    assert not list(tmp_path.rglob("config.toml"))


def test_sums_lie_twice_with_a_round_of_updates() -> None:
    """Four entries of 4 bytes and a header; two clients, of which one takes part in each of three rounds."""
    run = LogEstimate(size=4, clients=2, per_round=1, rounds=3)
    update = 4 * 4 + 256
    assert run.log_bytes("full") == 3 * update
    assert run.log_bytes("interval:2") == 2 * update
    assert run.log_bytes("sum") == (2 * 2 + 1) * update
    assert run.log_bytes("full", "float16") == 3 * (8 + 256)


def test_a_log_is_not_larger_than_said(tmp_path: Path) -> None:
    """What a log really takes, its index aside, for each retention."""
    for retention in ("full", "interval:2", "sum"):
        chosen = (f"run.name={retention.partition(':')[0]}", f"log.retention={retention}", "run.rounds=3")
        folder = train(_config(tmp_path, *chosen))
        taken = sum(path.stat().st_size for path in folder.log_path.glob("0*/*"))
        parameters = int(folder.read_summary()["model"]["parameters"])
        said = LogEstimate(parameters, 10, 10, 3).log_bytes(retention)
        assert 0.3 * said < taken <= said


def test_what_a_log_still_takes() -> None:
    """Three of seven rounds are done: of rounds 1, 3, 5, 7, two are to come; all sums lie there once."""
    run = LogEstimate(size=4, clients=2, per_round=1, rounds=7)
    update = 4 * 4 + 256
    assert run.bytes_after(3, "full") == 4 * update
    assert run.bytes_after(3, "interval:2") == 2 * update
    assert run.bytes_after(3, "sum") == (2 + 1) * update
    assert run.bytes_after(0, "sum") == run.log_bytes("sum")
    assert run.bytes_after(7, "full") == 0


def test_a_run_that_goes_on_is_refused_where_its_rest_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten updates of 6.4 kB a round: after two of four rounds two are to come, in a copy five."""
    with pytest.raises(Stopped):
        train(_config(tmp_path, "run.name=cut", "run.rounds=4"), StopAfter(2))
    cut = RunFolder.open("cut", tmp_path)
    there = sorted(tmp_path.rglob("*"))
    _have_free(monkeypatch, 50_000)
    said = r'^log.retention: "full" in this run, 10 clients.* 2 of them done: about 128.8 kB more, 50.0 kB '
    with pytest.raises(BadInput, match=said):
        resume(cut)
    assert sorted(tmp_path.rglob("*")) == there
    _have_free(monkeypatch, 150_000)
    resume(cut)
    with pytest.raises(BadInput, match=r"5 rounds, .* each, 4 of them done and copied: about"):
        go_on(cut, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]
