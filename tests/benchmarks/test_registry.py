"""The registry of benchmarks: each can be run with the options that docs/benchmarks.md gives it."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS, module_of
from strategies.core.errors import BadInput

DOCUMENTED = Path(__file__).parents[2] / "docs" / "benchmarks.md"
COMMAND = re.compile(r"lethe bench ([a-z-]+) (?:[^`\n\\]|\\\n)*")


def options_of(name: str) -> list[str]:
    """Return the names of a benchmark's options."""
    return list(import_module(module_of(name)).Options.model_fields)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_does_and_lists_its_options(name: str) -> None:
    assert BENCHMARKS[name].__doc__
    with pytest.raises(
        BadInput, match=f"benchmark {name}: unknown option 'nope'; its options are "
    ) as raised:
        BENCHMARKS[name](nope=1)
    assert str(raised.value).endswith(", ".join(options_of(name)))


def test_a_value_that_an_option_does_not_take_is_refused_and_a_number_is_a_text() -> None:
    with pytest.raises(BadInput, match='benchmark gossip: seeds: given "many", allowed an integer'):
        BENCHMARKS["gossip"](seeds="many")
    with pytest.raises(BadInput, match="partitions: got '7', allowed some of iid"):
        BENCHMARKS["forgetting"](partitions=7)


def test_documented_commands_set_options_that_there_are() -> None:
    commands = list(COMMAND.finditer(DOCUMENTED.read_text(encoding="utf-8")))
    assert {command[1] for command in commands} == set(BENCHMARKS)
    for command in commands:
        told = [name.replace("-", "_") for name in re.findall(r"--set ([a-z-]+)=", command[0])]
        assert set(told) <= set(options_of(command[1])), command[0]
