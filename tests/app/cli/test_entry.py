"""app/cli/entry.py: exit statuses, one line on stderr for what is wrong, and a quick --help."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from app.config.catalogue import KINDS
from strategies.core.errors import LetheError, RunCorrupt
from strategies.runs.folder import RunFolder
from tests.app.cli.conftest import Command, Workflows
from tests.app.report.run_folders import add_forgetting, add_rounds, finish, new_run
from tests.fresh_starts import FreshStarts

ROOT = Path(__file__).parents[3]
SLOW = ("torch", "flwr", "numpy", "matplotlib", "sklearn", "ray")
"""What a command that only looks should not import."""
COMMANDS = [
    "train",
    "forget",
    "audit",
    "verify",
    "compare",
    "report",
    "runs",
    "rm",
    "methods",
    "list",
    "show",
    "diff",
    "sweep",
    "demo",
    "diagnose",
    "suspects",
    "bench",
]


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_command(lethe: Command, arguments: list[str]) -> None:
    ended = lethe(*arguments, home=False)
    assert ended.status == 0
    assert all(command in ended.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(lethe: Command, command: str) -> None:
    ended = lethe(command, "--help", home=False)
    assert (ended.status, ended.err) == (0, "")
    assert "--json" in ended.out


def test_a_misspelt_command_is_suggested_once(lethe: Command) -> None:
    assert lethe("trian", home=False).err == (
        "lethe: No such command 'trian'. Did you mean 'train'? (see lethe --help)\n"
    )


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tra", ["train"]),
        ("report stu", ["study"]),
        ("train --set data.public-l", ["data.public-labels=", "data.public-limit="]),
    ],
)
def test_bash_completes_without_waiting_for_torch(tmp_path: Path, typed: str, offered: list[str]) -> None:
    """The script is the one that ``--install-completion`` installs; commands, runs and keys are offered."""
    new_run(tmp_path / ".lethe" / "runs")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")  # Import fails
    script = f"""
        eval "$(_LETHE_COMPLETE=source_bash lethe)"
        COMP_WORDS=(lethe {typed}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        $(complete -p lethe | grep -o -- '-F [^ ]*' | cut -c4-) lethe
        printf '%s\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_version(lethe: Command) -> None:
    assert lethe("--version", home=False).out == f"lethe {version('lethe-fl')}\n"


def test_help_does_not_wait_for_torch() -> None:
    code = f"import sys, app.cli; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_quick_commands_import_nothing_that_takes_seconds(small: RunFolder) -> None:
    """They read a finished run with a certificate; each is what it would be in a process of its own."""
    certificate = str(small.path / "forget" / "client-2-subtract")
    commands = [
        *(["list", kind] for kind in KINDS),
        ["config"],
        ["config", "explain", "forget.distill.start"],
        ["config", "check", str(small.path / "config.toml")],
        ["methods"],
        ["methods", "fast-distill"],
        *([*command, "--home", str(small.path.parent)] for command in (["runs"], ["runs", "--tree"])),
        *([command, str(small.path)] for command in ("verify", "show")),
        ["verify", certificate],
        ["show", f"{small.path}/forget/client-2-subtract"],
        ["diff", str(small.path), str(small.path)],
    ]
    code = (
        "import sys; from app.cli.entry import run\n"
        f"slow = {SLOW}; found = {{}}\n"
        f"for command in {commands!r}:\n"
        "    before = {name for name in slow if name in sys.modules}\n"
        "    found[str(command)] = run(command), [n for n in slow if n in sys.modules and n not in before]\n"
        "print([each for each in found.items() if each[1] != (0, [])])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "[]")


BAD = [
    (["nonsense"], "No such command 'nonsense'"),
    (["train", "--nonsense"], "No such option '--nonsense'"),
    (["train", "surplus"], "Got unexpected extra argument (surplus)"),
    (["train", "--set", "run.rounds"], "has no '='"),
    (["train", "--set", "run.rouns=3"], "run.rouns: unknown key, given 3; did you mean 'run.rounds'?"),
    (["train", "--set", "run.rounds=-3"], "run.rounds: given -3, allowed an integer >= 1"),
    (["train", "--config", "missing.toml"], "missing.toml: cannot be read"),
    (
        ["train", "--resume", "study", "--set", "run.rounds=3"],
        "--resume: an interrupted run keeps its config",
    ),
    (["train", "--resume", "nothing"], "run 'nothing': no such run"),
    (["forget"], "Missing argument 'RUN'"),
    (["forget", "nothing", "--client", "1"], "run 'nothing': no such run or folder; the last runs in"),
    (["forget", "study"], "what to forget: give --client, --class or --samples, exactly one"),
    (["forget", "study", "--client", "1", "--class", "2"], "exactly one kind"),
    (["forget", "study", "--class", "x"], "class x: wanted a number from 0"),
    (["forget", "study", "--class", "-1"], "class -1: wanted a number from 0"),
    (["forget", "study", "--samples", "missing.json"], "missing.json"),
    (["forget", "study", "--client", "1", "--method", "magic"], 'given "magic", allowed ascent'),
    (["forget", "study", "--client", "1", "--set", "data.name=x"], "allowed here: forget.*"),
    (
        ["forget", "study", "--client", "1", "--set", "forget.finetune.epochs=-2"],
        "forget.finetune.epochs: given -2, allowed",
    ),
    (["audit", "study", "--client", "0"], "client-0 was not forgotten yet; use lethe forget first"),
    (["audit", "study", "--client", "1", "--set", "forget.prune=omp"], "allowed here: audit.*"),
    (["verify"], "Missing argument 'CERTIFICATE|RUN'"),
    (["verify", "missing.json"], "run 'missing.json': no such run or folder"),
    (["verify", "pyproject.toml"], "pyproject.toml: this is no certificate: expected JSON"),
    (["verify", __file__, "--public-key", "no.pem"], "no.pem: cannot be read"),
    (["report", "nothing\nat\x1b[31mall"], "run 'nothing at·[31mall': no such run"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_status_2_and_one_line(
    lethe: Command, workflows: Workflows, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = new_run(tmp_path)
    finish(folder)
    add_forgetting(folder)
    ended = lethe(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert message in ended.err
    assert ended.err.startswith("lethe: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    assert workflows.calls == []


def test_an_unknown_run_lists_the_known_ones(lethe: Command, tmp_path: Path) -> None:
    new_run(tmp_path, "first")
    new_run(tmp_path, "second")
    assert "first, second" in lethe("report", "third").err


@pytest.mark.parametrize("error", [LetheError("the disk is full"), RunCorrupt("log: damaged")])
def test_failure_is_status_1_and_one_line(
    lethe: Command, workflows: Workflows, tmp_path: Path, error: LetheError
) -> None:
    finish(new_run(tmp_path))
    workflows.fails = error
    ended = lethe("forget", "study", "--client", "1")
    assert ended.status == 1
    assert ended.out == ""
    assert ended.err.splitlines()[-1] == f"lethe: {error}"


def test_an_unforeseen_error_keeps_its_traceback(
    lethe: Command, workflows: Workflows, tmp_path: Path
) -> None:
    finish(new_run(tmp_path))
    workflows.fails = ZeroDivisionError("a fault of the program")
    with pytest.raises(ZeroDivisionError):
        lethe("forget", "study", "--client", "1")


def test_interrupted_training_says_how_to_go_on(lethe: Command, workflows: Workflows, tmp_path: Path) -> None:
    new_run(tmp_path, "older")
    workflows.fails = KeyboardInterrupt()
    ended = lethe("train", "--set", "run.name=newer")
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == (
        f"lethe: interrupted; continue with: lethe train --resume newer --home {tmp_path}"
    )
    workflows.fails = None
    assert lethe("train", "--resume", "newer").status == 0
    assert workflows.calls[-1] == ("resume", "newer")


def test_training_interrupted_twice_is_resumed_by_its_path(
    lethe: Command, workflows: Workflows, tmp_path: Path
) -> None:
    folder = new_run(tmp_path)
    workflows.fails = KeyboardInterrupt()
    ended = lethe("train", "--resume", "study")
    assert ended.status == 130
    assert f"continue with: lethe train --resume {folder.path}" in ended.err


def test_interrupted_forgetting_says_that_nothing_happened(
    lethe: Command, workflows: Workflows, tmp_path: Path
) -> None:
    finish(new_run(tmp_path))
    workflows.fails = KeyboardInterrupt()
    ended = lethe("forget", "study", "--client", "1")
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == (
        "lethe: interrupted; the run is not altered; give the same command again"
    )


def test_a_damaged_run_fails(lethe: Command, tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    add_rounds(folder)
    (folder.path / "summary.json").write_text("[]")
    ended = lethe("report", "study")
    assert ended.status == 1
    assert "summary.json: damaged, expected a JSON object" in ended.err
    assert ended.err.count("\n") == 1


def test_the_installed_command_runs(tmp_path: Path) -> None:
    """Exit statuses reach the shell."""
    lethe = Path(sys.executable).parent / "lethe"
    assert subprocess.run([lethe, "--help"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        [lethe, "report", "x", "--home", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_what_a_training_and_a_forgetting_import(fresh_starts: FreshStarts) -> None:
    """Torch and flwr, in two processes, are its fixed cost; what a plain run has no use for stays away."""
    heavy = {"matplotlib", "sklearn", "scipy", "pandas", "opacus", "torchvision", "torchmetrics", "ray"}
    workflows = "app.workflows, app.workflows.training, app.workflows.forgetting"
    parts = f"app.simulation.starter, app.client_app, {workflows}, app.report.page"
    code = (
        f"import sys, {parts}\n"
        "from app.config.run_config import RunConfig\n"
        "from app.data import load_server_data\n"
        "load_server_data(RunConfig().data, RunConfig().run.seed)\n"
        f"print(*{heavy} & set(sys.modules))"
    )
    assert fresh_starts.run(code).split() == []
