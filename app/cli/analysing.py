"""``lethe analytics``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import options, output


def analytics(
    statistic: Annotated[
        str, typer.Argument(metavar="STATISTIC", help="histogram, mean, quantile, count or heavy-hitters.")
    ],
    column: Annotated[
        str, typer.Option("--column", metavar="NAME", help="label or brightness (analytics.column).")
    ] = "label",
    config: options.Config = None,
    overrides: options.Overrides = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Ask for a statistic of the clients' data; the server sees only the masked sum."""
    asked = ["run.workflow=analytics", f"analytics.statistic={statistic}", f"analytics.column={column}"]
    from app import workflows
    from app.project.manifest import config_here

    resolved = config_here(Path.cwd(), config, [*(overrides or []), *asked])

    with output.observed() as observer:
        answer = workflows.analyse(resolved, observer)
    if json:
        output.print_json(answer)
    else:
        _print(answer)


def _print(answer: dict[str, Any]) -> None:
    noise = f", ε = {answer['epsilon']:g} per example" if answer["epsilon"] else ""
    output.print_line(f"{answer['statistic']} of {answer['column']} over {answer['clients']} clients{noise}")
    rows = [
        (f"{edge:g}", count)
        for edge, count in zip(answer.get("bins", []), answer.get("counts", []), strict=True)
    ]
    rows += [(f"{row['value']:g}", row["count"]) for row in answer.get("heavy-hitters", [])]
    if rows:
        output.print_table(
            [answer["column"], "count"], [[value, str(n)] for value, n in rows], right=("count",)
        )
    for key in ("count", "mean", "value"):
        if key in answer:
            output.print_line(f"{key}: {answer[key]}")
