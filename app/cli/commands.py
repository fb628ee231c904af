"""The command ``lethe`` with its subcommands.

A subcommand imports what it needs inside its function: torch alone takes seconds, and ``lethe --help`` should
not wait for it.
"""

from typing import Annotated

import typer

from app.cli import (
    analysing,
    comparing,
    configuring,
    creating,
    diagnosing,
    executing,
    finding,
    forgetting,
    keying,
    looking,
    removing,
    suspecting,
    sweeping,
    training,
    using,
    verifying,
    watching,
)
from app.version import version

app = typer.Typer(
    help="Federated learning that can forget: train, forget, audit, report.",
    suggest_commands=False,  # click suggests them already
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    creating.new,
    training.train,
    forgetting.forget,
    forgetting.audit,
    analysing.analytics,
    verifying.verify,
    keying.keys,
    executing.executor,
    comparing.compare,
    using.predict,
    using.export,
    watching.watch,
    looking.report,
    looking.runs,
    removing.rm,
    looking.methods,
    finding.show,
    finding.diff,
    training.demo,
    sweeping.sweep,
    diagnosing.diagnose,
    suspecting.suspects,
    looking.bench,
):
    app.command()(_command)
app.command("list")(finding.listing)
app.add_typer(configuring.config, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lethe {version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
