"""The examples of docs/, run as they stand there."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unlearning.central.influence import InfluenceSettings

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_central_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The one goes on where the other ended.

    The first prints the length of the step, one of those to try or 0, and that of 64·10 weights and 10
    biases; the second the gradient that is left and the ε that one result costs.
    """
    examples = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(METHODS), "exec"), names)
    alpha, size, residual, epsilon = capsys.readouterr().out.split()
    assert 0.0 <= float(alpha) <= max(InfluenceSettings().alphas)
    assert int(size) == 650
    assert 0.0 <= float(residual) < 0.01
    assert float(epsilon) == 1.0


def test_the_example_of_a_task_runs() -> None:
    assert doctest.testfile(str(METHODS.parent / "tasks.md"), module_relative=False) == (0, 5)


THREATS = Path(__file__).parents[1] / "docs" / "threats.md"


def test_every_test_that_a_threat_is_shown_by_exists() -> None:
    """Named as file::test; each cell of a last column names one, or says that there is none."""
    text, tests = THREATS.read_text(encoding="utf-8"), Path(__file__).parent
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (tests / file).is_file() or f"\ndef {name}(" not in (tests / file).read_text(encoding="utf-8")
    ]
    assert missing == []
    rows = [
        line.strip("| ").rsplit("|", 1)[-1].strip() for line in text.splitlines() if line.startswith("| ")
    ]
    shown = [cell for cell in rows if cell != "shown by"]
    assert [cell for cell in shown if cell != "none" and "::" not in cell] == []


@pytest.mark.check
def test_the_readmes_own_work_in_ten_lines(tmp_path: Path) -> None:
    """Pasted into a script, as a reader does; no other process could import its objects."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len([line for line in lines.splitlines() if line.strip()]) <= 10
    (tmp_path / "own.py").write_text(lines, encoding="utf-8")
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "own.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "retraining" in ended.stdout
