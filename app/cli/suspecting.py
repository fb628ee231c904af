"""``lethe suspects``."""

from typing import Annotated

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible


def suspects(
    run: options.Run,
    level: Annotated[
        float,
        typer.Option("--level", metavar="SHARE", help="False-alarm rate: of runs without a bad client."),
    ] = 0.05,
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Rank a run's clients by how bad they look, from the update log alone; name one only on evidence."""
    home = options.only_home("suspects", overrides, home)
    folder = options.open_run(run, home)
    from app import workflows
    from app.report.suspects_view import COLUMNS, cells, command, sentences

    with interruptible("nothing of it was kept"), output.observed() as observer:
        found = workflows.suspects(folder, level, observer)
    called = run if home is None else str(folder.path)
    if json:
        named = [
            {**each, "command": command(called, [each["client"]], found["method"])}
            for each in found["clients"]
        ]
        output.print_json({**found, "clients": named})
        return
    rows = [[each["client"], *cells(each)] for each in found["clients"]]
    output.print_table(["client", *COLUMNS], rows, right=COLUMNS)
    for sentence in sentences(found, called):
        output.print_line(sentence)
