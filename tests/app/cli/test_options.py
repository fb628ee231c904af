"""app/cli/options.py: an option means the same in every command, and shells complete what is asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.completion import completion_init, shell_complete

from app.cli.commands import app
from tests.app.report.run_folders import add_forgetting, add_rounds, finish, new_run

SEVERAL = {
    "--set": {"SECTION.KEY=VALUE", "run.home=FOLDER", "OPTION=VALUE"},
    "--client": {"A client to forget; repeatable.", "A client-id; repeatable.", "The model of one client"},
    "--port": {"As flower-supernode --port has it.", "Where; 0 takes a free one."},
    "--method": {"the best for this run", "A method that was used"},
}
"""Options that have more than one meaning, told apart by metavar or help: what each of them is."""
Complete = Callable[[str, str], str]
KINDS_OF_PLACE = {"--output", "--data"}
"""Options that name a file or folder, which each command says more of."""
ROOT_ONLY = {"--version", "--install-completion", "--show-completion", "--help"}


def commands(group: click.Group, path: str = "lethe") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


def shared_options() -> dict[str, dict[tuple[str, str, str, bool], list[str]]]:
    """Return by option what it says, its type, and whether it is repeatable, each with its commands."""
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    found: dict[str, dict[tuple[str, str, str, bool], list[str]]] = {}
    for path, command in commands(root):
        for option in command.params:
            if isinstance(option, click.Option) and not ROOT_ONLY & set(option.opts):
                about = (str(option.metavar), str(option.help), option.type.name, option.multiple)
                if option.opts[0] in KINDS_OF_PLACE:
                    about = ("", "", option.type.name, option.multiple)
                found.setdefault(option.opts[0], {}).setdefault(about, []).append(path)
    return found


def test_an_option_means_the_same_in_every_command() -> None:
    different = {
        option: meanings
        for option, meanings in shared_options().items()
        if len(meanings) > 1
        and not (
            option in SEVERAL
            and all(any(word in f"{about}" for word in SEVERAL[option]) for about in meanings)
            and len(meanings) <= len(SEVERAL[option])
        )
    }
    assert not different


def test_every_command_that_reads_runs_takes_home_and_prints_json() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    for path, command in commands(root):
        options = {option for each in command.params for option in each.opts}
        arguments = {str(each.metavar) for each in command.params if isinstance(each, click.Argument)}
        if any(metavar.startswith("RUN") for metavar in arguments):
            assert {"--home", "--set", "--json"} <= options, path
        if "--home" in options:
            assert "--set" in options, path
        assert ("--output" in options) == ("--out" in options), path


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Complete what is typed as a shell asks for it, by the protocol of ``--install-completion``."""
    folder = new_run(tmp_path / ".lethe" / "runs")
    add_rounds(folder)
    finish(folder)
    add_forgetting(folder, "subtract", audited=False)
    folder.write_nodes({"hospital-a": 1, "hospital-b": 2})
    monkeypatch.setenv("HOME", str(tmp_path))
    root = typer.main.get_command(app)
    completion_init()

    def complete(shell: str, typed: str) -> str:
        line = f"lethe {typed}"
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        assert shell_complete(root, {}, "lethe", "_LETHE_COMPLETE", f"complete_{shell}") == 0
        return capsys.readouterr().out

    return complete


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("sho", ["show"]),
        ("show stu", ["study"]),
        ("diff study stu", ["study"]),
        ("show study/forget/", ["study/forget/client-1-subtract"]),
        ("forget study --client ", ["hospital-a", "hospital-b"]),
        ("forget study --client hospital-a --after ", ["client-1-subtract"]),
        ("forget study --method fed", ["federaser", "fedosd"]),
        ("train --set train.lea", ["train.learning-rate="]),
        ("list me", ["methods"]),
        ("show study/", ["study/forget/client-1-subtract"]),
        ("train --continue study/f", ["study/forget/client-1-subtract"]),
        ("train --resume st", ["study"]),
        ("export study --format ", ["torch", "onnx", "safetensors"]),
        ("runs --strategy feda", ["fedavg", "fedadam"]),
        ("runs --state un", ["unfinished"]),
        ("new ward --template m", ["minimal"]),
    ],
)
def test_shells_complete(offered: Complete, shell: str, typed: str, wanted: list[str]) -> None:
    out = offered(shell, typed)
    assert all(word in out for word in wanted), out
    assert "retrain" not in out


def test_nothing_is_offered_for_a_run_that_is_damaged(offered: Complete, tmp_path: Path) -> None:
    (tmp_path / ".lethe" / "runs" / "study" / "nodes.json").write_text("{")
    assert offered("bash", "forget study --client ").strip() == ""
