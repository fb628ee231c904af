"""app/cli/removing.py: asks before it removes a run."""

import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.commands import app
from tests.app.cli.conftest import Command
from tests.app.report.run_folders import add_forgetting, finish, new_run


def test_rm_asks_and_says_what_goes(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    finish(folder)
    add_forgetting(folder)
    asked = ["rm", "study", "--home", str(tmp_path)]
    declined = CliRunner().invoke(app, asked, input="n\n")
    assert "goes with it: 1 forgetting: client-1-distill" in declined.output.replace("\n", " ")
    assert "Remove run study for good?" in declined.output
    assert folder.path.exists()
    agreed = CliRunner().invoke(app, asked, input="y\n")
    assert agreed.exit_code == 0, agreed.output
    assert not folder.path.exists()


@pytest.mark.usefixtures("_nobody")
def test_rm_where_nobody_can_be_asked(lethe: Command, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    ended = lethe("rm", "study")
    assert ended.status == 2
    assert ended.err.endswith("lethe: rm: nobody answered, nothing was removed; add --yes\n")
    ended = lethe("rm", "study", "--json")
    assert (ended.status, ended.err) == (2, "lethe: rm --json: add --yes, as nobody is asked\n")
    assert folder.path.exists()
    told = json.loads(lethe("rm", "study", "--yes", "--json").out)
    assert (told["run"], told["path"], told["keys"]) == ("study", str(folder.path), [])
    assert not folder.path.exists()
    assert lethe("rm", "study", "--yes").status == 2


@pytest.fixture
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
