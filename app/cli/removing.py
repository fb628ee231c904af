"""``lethe rm``."""

from typing import TYPE_CHECKING, Annotated

import click
import typer

from app.cli import options, output
from app.report import wording
from strategies.core.errors import BadInput

if TYPE_CHECKING:
    from app.workflows.removing import RunContents


def rm(
    run: options.Run,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Remove a run for good, with its forgettings and the keys of its update log."""
    place = options.home_path(options.only_home("rm", overrides, home))
    if json and not yes:
        raise BadInput("rm --json: add --yes, as nobody is asked")
    from app import workflows

    folder = workflows.find_removable(run, place)
    if not yes:
        _print_contents(workflows.run_contents(folder))
        _ask(folder.name)
    contents = workflows.remove(folder)
    if json:
        output.print_json(contents.to_json())
        return
    output.print_line(f"run {folder.name} was removed: {wording.size(contents.num_bytes)} in {folder.path}")
    for keys in contents.keys:
        output.print_line(f"keys of its update log destroyed: {keys}")
    for sentence in contents.remains:
        output.print_line(f"note: {sentence}")


def _ask(run: str) -> None:
    try:
        agreed = typer.confirm(f"Remove run {wording.printable(run)} for good?", err=True)
    except click.Abort:
        raise BadInput("rm: nobody answered, nothing was removed; add --yes") from None
    if not agreed:
        raise BadInput("rm: nothing was removed")


def _print_contents(contents: "RunContents") -> None:
    output.print_line(f"run {contents.path.name}: {wording.size(contents.num_bytes)} in {contents.path}")
    for phrase in contents.inside:
        output.print_line(f"- goes with it: {phrase}")
    for keys in contents.keys:
        output.print_line(f"- goes with it: the keys of its update log, {keys}")
    for sentence in contents.remains:
        output.print_line(f"- note: {sentence}")
