"""``lethe predict`` and ``lethe export`` as a user types them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command

FORGOTTEN = "small/forget/client-2-subtract"


@pytest.fixture
def digits(tmp_path: Path, small: RunFolder) -> Path:
    np.savez(tmp_path / "digits.npz", x=np.random.default_rng(0).random((600, 1, 8, 8)))
    return tmp_path / "digits.npz"


def test_predictions_stream_to_stdout_and_notes_to_stderr(lethe: Command, digits: Path) -> None:
    ended = lethe("predict", "small", "--data", str(digits))
    assert ended.status == 0, ended.err
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert len(rows) == 600
    assert list(rows[0]) == ["row", "prediction", "probability", *(f"p({k})" for k in range(10))]
    assert sum(float(rows[0][f"p({k})"]) for k in range(10)) == pytest.approx(1, abs=1e-5)
    assert ended.err == (
        "note: this is the model from before the forgetting client-2-subtract; the one after it is "
        f"{FORGOTTEN}\n"
    )


def test_a_forgetting_is_used_by_name_and_files_hold_the_same(
    lethe: Command, digits: Path, tmp_path: Path
) -> None:
    shown = lethe("predict", FORGOTTEN, "--data", str(digits))
    assert shown.err == ""
    out = tmp_path / "found.csv"
    assert (
        lethe("predict", FORGOTTEN, "--data", str(digits), "--out", str(out)).out
        == f"600 predictions: {out}\n"
    )
    assert out.read_text(encoding="utf-8") == shown.out
    lines = tmp_path / "found.jsonl"
    answer = json.loads(lethe("predict", FORGOTTEN, "--data", str(digits), "--out", str(lines), "--json").out)
    assert (answer["model"], answer["predictions"], answer["client"]) == (FORGOTTEN, 600, None)
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert json.loads(lethe("predict", FORGOTTEN, "--data", str(digits), "--json").out)["predictions"] == rows
    assert [str(row["prediction"]) for row in rows] == [
        row["prediction"] for row in csv.DictReader(io.StringIO(shown.out))
    ]


def test_what_fails_is_one_line_and_leaves_nothing(
    lethe: Command, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.npz").write_bytes(b"")
    before = sorted(path.name for path in tmp_path.iterdir())
    for arguments, message in (
        (("--data", "nowhere.csv"), "nowhere.csv: no such file or folder"),
        (("--data", str(tmp_path / "wrong.npz")), "cannot be read as an npz file"),
        (
            ("--data", str(digits), "--out", "x.txt"),
            "--out: given x.txt, allowed a file that ends in .csv or",
        ),
        (("--data", str(digits), "--out", str(tmp_path / "no" / "x.csv")), "there is no folder"),
        (("--data", str(digits), "--client", "7"), "--client 7: no such client"),
    ):
        ended = lethe("predict", "small", *arguments)
        assert (ended.status, ended.out) == (2, "")
        assert message in ended.err
        assert ended.err.startswith("lethe: ")
        assert len(ended.err.splitlines()) == 1, ended.err
    monkeypatch.setattr("app.use.predicting.BATCH", 200)
    monkeypatch.setattr("app.cli.using._cell", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lethe("predict", "small", "--data", str(digits), "--out", str(tmp_path / "half.csv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_export_goes_where_it_is_told(lethe: Command, small: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "weights"
    ended = lethe("export", FORGOTTEN, "--format", "safetensors", "--out", str(out))
    assert ended.status == 0, ended.err
    assert ended.out.splitlines()[0] == (
        f"{FORGOTTEN}: exported as safetensors; {out / 'README.txt'} says how to load it"
    )
    assert len(ended.out.splitlines()) == 1 + len(list(out.iterdir())) == 5
    again = lethe("export", FORGOTTEN, "--format", "safetensors", "--out", str(out))
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "is there already" in again.err
    answer = json.loads(
        lethe("export", "small", "--format", "safetensors", "--out", str(tmp_path / "b"), "--json").out
    )
    assert (answer["forgetting"], answer["path"]) == (None, str(tmp_path / "b"))
