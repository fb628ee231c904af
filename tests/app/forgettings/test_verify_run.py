"""app/forgettings/verify_run.py: what `lethe verify RUN` notices."""

import sqlite3
from pathlib import Path

import pytest

from app.forgettings.verify_run import verify_run
from app.workflows import purge
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import RunFolder
from tests.strategies.update_logs import flip_byte

ANSWER = "client-2-subtract"


def failed(folder: RunFolder, head: str = "") -> list[str]:
    return [check.name for check in verify_run(folder, head) if check.status == "failed"]


def test_a_whole_run_holds_before_and_after_a_purge(small: RunFolder) -> None:
    checks = {check.name: check for check in verify_run(small)}
    assert {check.status for check in checks.values()} == {"ok"}
    assert set(checks) == {
        "config.toml", "initial model", "model", "update log", "log and summary",
        f"certificate forget/{ANSWER}",
    }  # fmt: skip
    head = UpdateLog.open(small.log_path).sha256()
    assert checks["update log"].detail == f"3 rounds, SHA-256 {head}"
    assert failed(small, head) == []
    purge(small, ANSWER)
    assert failed(small) == []
    assert failed(small, head) == ["log as noted"]


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("config.toml", ["config.toml", f"certificate forget/{ANSWER}"]),
        ("initial.safetensors", ["initial model"]),
        ("model.safetensors", ["model", f"certificate forget/{ANSWER}"]),
        ("log/00002/1.safetensors", ["update log", f"certificate forget/{ANSWER}"]),
        (f"forget/{ANSWER}/certificate.json", [f"certificate forget/{ANSWER}"]),
        (f"forget/{ANSWER}/model.safetensors", [f"certificate forget/{ANSWER}"]),
    ],
)
def test_a_flipped_byte(small: RunFolder, file: str, names: list[str]) -> None:
    flip_byte(small.path / file, 300)
    assert failed(small) == names


def test_a_log_that_was_made_anew_does_not_fit_the_summary(small: RunFolder) -> None:
    """Its chain is whole: the last round was taken back as the log itself would."""
    with UpdateLog.open(small.log_path, write=True) as log:
        log.rewind(2)
    assert failed(small) == ["log and summary", f"certificate forget/{ANSWER}"]


def test_an_entry_taken_from_the_index(small: RunFolder, tmp_path: Path) -> None:
    with sqlite3.connect(small.log_path / "index.sqlite") as connection:
        connection.execute("DELETE FROM entries WHERE round = 2 AND client_id = '1'")
    connection.close()
    assert failed(small) == ["update log", f"certificate forget/{ANSWER}"]


def test_a_run_that_is_not_finished(small: RunFolder) -> None:
    for name in ("model.safetensors", "summary.json"):
        (small.path / name).unlink()
    statuses = {check.name: check.status for check in verify_run(small)}
    assert statuses["model"] == statuses["log and summary"] == "not made"
