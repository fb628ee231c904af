"""The README's commands, each in a process of its own, in the README's order, by a user with a fresh home.

A test is a command. Later ones work on what earlier ones left, as they do for a reader.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli.looking import METHOD_COLUMNS
from benchmarks.deployed.processes import free_port
from strategies.core.seeds import numpy_generator
from strategies.registry import all_traits
from unlearning.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = ROOT.parent / "shared" / "data"
_LONGEST = 1800
"""Seconds after which a command hangs, however busy the machine is."""

_MOST_STARTS = 20


def commands() -> list[str]:
    """Return the README's shell commands in order, continuation lines joined, without comments."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)).replace(
        "\\\n", " "
    )
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in blocks.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line]


COMMANDS = commands()
LEFT_OUT = {
    "make test": "runs all the other tests",
    ". .venv/bin/activate": "changes a shell, and so puts first on the PATH what is first there already",
    "export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1": "changes a shell; here it is set anyway",
    "flower-supernode": "needs other machines; tests/deployed/test_documented_steps.py walks docs/deploy.md",
}
"""Beginnings of commands that are not run here, and why."""
REPLACED = {
    "make demo": ("make demo", "lethe demo"),  # The environment is there
    "lethe train --set data.name=mnist": (  # The data as well: nothing is downloaded here
        "--set data.root=/data --set data.download=true",
        f"--set data.root={DATA} --set run.rounds=1 --set data.train-limit=400 --set data.test-limit=100",
    ),
}
"""Beginnings of commands of which a part is replaced: the part, and what stands in its place."""
PRINTED = {
    "make demo": "report: {home}/.lethe/runs/",
    "lethe forget first --client 3 --audit": "retrained",
    "lethe report first": "{home}/.lethe/runs/first/report.html",
    "lethe runs": "first",
    "lethe forget first --client 3 --purge": "client 3 purged from log",
    "lethe verify": "Verdict of the audit: the forgetting brought the model closer to retraining",
    "flwr run . --stream --run-config \"run.name='virtual'": "run folder: {home}/.lethe/runs/virtual",
    "lethe forget virtual": "client 3 of run virtual, forgotten by fast-distill",
    "flwr run . --stream --run-config \"run.workflow='forget'": "run folder: {home}/.lethe/runs/virtual",
    "lethe analytics": "histogram of label over 10 clients",
    "lethe diagnose": "label divergence",
}
"""Beginnings of commands, and what is then printed."""


@dataclass(frozen=True)
class User:
    """Somebody who follows the README: where their home and their own data are, and what their shell sets."""

    home: Path
    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Return a user with an empty home and data of their own; stop the SuperLink that `flwr run` leaves."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": path,
        "FLWR_HOME": str(home / "flwr"),
        **ports(),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    write_table(folder / "patients.npz")
    write_images(folder / "scans")
    yield User(home, folder, environment)
    stop_processes_of(home)


def ports() -> dict[str, str]:
    """Return where Flower's local SuperLink listens."""
    names = ("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")
    return {name: str(free_port()) for name in names}


def write_table(path: Path) -> None:
    """Write a table with labels, as the README's example reads it."""
    rng = numpy_generator(0, "readme")
    table = {"x": rng.normal(size=(300, 6)).astype(np.float32), "y": rng.integers(0, 3, 300)}
    train = {f"{key}_train": values[:240] for key, values in table.items()}
    test = {f"{key}_test": values[240:] for key, values in table.items()}
    np.savez(path, allow_pickle=False, **train, **test)


def write_images(folder: Path) -> None:
    """Write images in a folder for each class, as the README's example reads them."""
    rng = numpy_generator(0, "readme", "images")
    for part, count in (("train", 30), ("test", 6)):
        for label in ("healthy", "ill"):
            place = folder / part / label
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(place / f"{i}.png")


def stop_processes_of(home: Path) -> None:
    """End every process whose environment names this home."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found = f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone by now, or not ours
        if found:
            os.kill(int(entry.name), 9)


def beginning(command: str, known: dict[str, object]) -> str | None:
    """Return the longest of the known beginnings that a command has."""
    return max((key for key in known if command.startswith(key)), key=len, default=None)


def ran(line: str, folder: Path, user: User) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end.

    Flower gives the SuperLink that `flwr run` starts 15 s to come up. On a busy machine it takes more, and a
    reader, too, would give the command again; what is left of the first one holds its ports.
    """
    for _ in range(_MOST_STARTS):
        done = subprocess.run(
            line,
            shell=True,
            cwd=folder,
            env=user.environment,
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        if "Failed to start local SuperLink within" not in done.stderr:
            break
        stop_processes_of(user.home)
        user.environment.update(ports())
    return done


@pytest.mark.check
@pytest.mark.parametrize("command", [c for c in COMMANDS if beginning(c, {**LEFT_OUT}) is None])
def test_the_command_does_what_the_readme_says(user: User, command: str) -> None:
    line = command
    if (key := beginning(command, {**REPLACED})) is not None:
        old, new = REPLACED[key]
        assert old in line
        line = line.replace(old, new)
        if str(DATA) in line and not DATA.is_dir():
            pytest.skip("the shared copy of MNIST is not here")
    folder = ROOT if line.startswith("flwr run .") else user.folder
    done = ran(line, folder, user)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    if (key := beginning(command, {**PRINTED})) is not None:
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


def test_the_table_of_methods_is_the_one_that_lethe_prints() -> None:
    """But for what the guarantee is in detail, and the source."""
    table = README.partition("\n## Methods\n")[2].partition("\n\n`")[0]
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.strip().splitlines()
        if line[:1] == "|"
    ]
    assert tuple(head) == METHOD_COLUMNS[:4]
    assert rows == [
        [f"`{m.name}`", ", ".join(sorted(m.serves)), m.summary, re.split(r"\W", m.guarantee)[0]]
        for m in METHODS.values()
    ]


def test_every_strategy_is_named() -> None:
    table = README.partition("\n### Strategies\n")[2].partition("\n\nEach")[0]
    assert all(f"`{traits.shown_name}`" in table for traits in all_traits())
