"""The examples of docs/, run as they stand there."""

import re
from pathlib import Path

import pytest

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_central_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints how many parameters the mlp has; the weights of its first layer alone are 64·128."""
    (example,) = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(METHODS), "exec"), {})
    assert int(capsys.readouterr().out) > 64 * 128
