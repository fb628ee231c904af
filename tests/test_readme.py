"""The README's commands, each in a process of its own, in the README's order, by a user with a fresh home.

A test is a command. Later ones work on what earlier ones left, as they do for a reader.
"""

import re
from collections.abc import Iterator

import pytest

from app.cli.looking import METHOD_COLUMNS
from strategies.registry import all_traits
from tests.reader import ROOT, User, beginning, commands, reading
from unlearning.methods import METHODS

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = commands(README)
_MOST_LINES = 135
LEFT_OUT = {
    "make test": "runs all the other tests",
    "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1": "changes a shell; here it is set anyway",
    "flower-supernode": "needs other machines; tests/deployed/test_documented_steps.py walks docs/deploy.md",
}
"""Beginnings of commands that are not run here, and why."""
REPLACED = {"make demo": "lethe demo"}
"""Commands in whose place another one is run: the environment is there."""
PRINTED = {
    "make demo": "report: {home}/.lethe/runs/",
    "flwr run . --stream --run-config \"run.name='virtual'": "run folder: {home}/.lethe/runs/virtual",
    "lethe forget virtual": "client 3 of run virtual, forgotten by leave-out",
}
"""Beginnings of commands, and what is then printed."""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Return a user with an empty home."""
    with reading(tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")) as found:
        yield found


@pytest.mark.check
@pytest.mark.parametrize("command", [c for c in COMMANDS if beginning(c, LEFT_OUT) is None])
def test_the_command_does_what_the_readme_says(user: User, command: str) -> None:
    line = REPLACED.get(command, command)
    done = user.ran(line, ROOT if line.startswith("flwr run .") else user.folder)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if (key := beginning(command, PRINTED)) is not None:
        assert PRINTED[key].format(home=user.home) in done.stdout + done.stderr


def test_what_is_said_of_single_commands_is_said_of_commands_that_are_there() -> None:
    named = {*LEFT_OUT, *REPLACED, *PRINTED}
    assert {key for key in named if any(command.startswith(key) for command in COMMANDS)} == named


def test_every_command_of_the_readme_is_found() -> None:
    """A command in a block of another kind would be missed: none begins a line elsewhere."""
    shell = r"^ *(lethe|flwr|make|flower-supernode) [a-z.-]"
    everywhere = re.findall(shell, README, re.MULTILINE)
    blocks = re.findall(shell, "\n".join(COMMANDS), re.MULTILINE)
    assert sorted(everywhere) == sorted(blocks)


def test_it_stays_short_and_begins_with_two_commands() -> None:
    assert len(README.splitlines()) <= _MOST_LINES
    assert [command.split()[0] for command in COMMANDS[:2]] == ["make", "make"]
    assert README.index("```sh") < README.index("Lethe is") < README.index("![") < README.index("```text")


def test_the_table_of_methods_is_the_one_that_lethe_prints() -> None:
    """But for what the guarantee is in detail, and the source; all kinds of request are `any`."""
    table = README.partition("\n## Methods\n")[2].partition("\n\n[")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.strip().splitlines()
        if line[:1] == "|"
    ]
    assert tuple(head) == METHOD_COLUMNS[:4]
    everything = frozenset.union(*(m.serves for m in METHODS.values()))
    assert rows == [
        [
            f"`{m.name}`",
            "any" if m.serves == everything else ", ".join(sorted(m.serves)),
            m.summary,
            re.split(r"\W", m.guarantee)[0],
        ]
        for m in METHODS.values()
    ]


def test_every_strategy_is_named_on_the_page_of_strategies() -> None:
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert [t.name for t in all_traits() if f"`{t.shown_name}`" not in page] == []
