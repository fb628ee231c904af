"""What is said of a library that is not installed holds: the distribution and the extra are there."""

import re
import tomllib
from pathlib import Path

import pytest

from strategies.core.extras import DISTRIBUTION, not_installed

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_SAID = re.compile(r"\bnot_installed\(.+?, (?:'|\")?(\w+)(?:'|\")?\)")


def test_the_distribution_is_this_one() -> None:
    assert PROJECT["name"] == DISTRIBUTION


def test_every_extra_that_is_named_is_there() -> None:
    """In a call, by its name, or by a constant of the same file."""
    named = set()
    for package in ("app", "strategies", "unlearning"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            for extra in _SAID.findall(text):
                constant = re.search(rf'^{extra} = "(\w+)"$', text, re.MULTILINE)
                named.add(constant[1] if constant else extra)
    named.discard("extra")  # The function itself
    assert named == {"ckks", "onnx", "sweep", "tables", "timm", "tracking"}
    assert named <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", ["onnx", "sweep"])
def test_what_is_said_is_a_command(extra: str) -> None:
    assert not_installed("x", extra).endswith(f": pip install 'lethe-fl[{extra}]'")
