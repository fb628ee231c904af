"""The examples of docs/, run as they stand there."""

import re
from pathlib import Path

import pytest

from unlearning.central.influence import InfluenceSettings

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_central_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the length of the step, one of those to try or 0, and that of 64·10 weights and 10 biases."""
    (example,) = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(METHODS), "exec"), {})
    alpha, size = capsys.readouterr().out.split()
    assert 0.0 <= float(alpha) <= max(InfluenceSettings().alphas)
    assert int(size) == 650
