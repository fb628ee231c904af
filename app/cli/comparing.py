"""``lethe compare``."""

from typing import Annotated

import typer

from app.cli import options, output
from app.cli.forgetting import resolved
from app.cli.interrupts import interruptible
from app.report import comparison_tables


def compare(  # noqa: PLR0913, PLR0917  # a parameter per option
    run: options.Run,
    client: options.Clients = None,
    label: options.Classes = None,
    samples: options.Samples = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B,…", help="Methods; default: all that serve the request.")
    ] = "",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Runs with as many seeds; the first is the run itself.")
    ] = 1,
    prune: options.Prune = "",
    sparsity: options.Sparsity = None,
    relearn: Annotated[
        bool, typer.Option("--relearn/--no-relearn", help="Count the rounds until a model has relearned.")
    ] = True,
    overrides: options.Overrides = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Compare methods on one request, over several seeds, with retraining as the reference."""
    home, others = options.split_home(overrides, home)
    folder = options.open_run(run, home)
    request = options.read_request(folder, client, label, samples)
    chosen = [*others, *options.pruning(prune, sparsity)]
    config = resolved(folder, chosen, ("forget", "audit"))
    from app import workflows
    from app.report.page import write_report
    from strategies.core.settings import split_list

    plan = workflows.ComparisonPlan(request, split_list(methods), config.forget, config.audit, relearn)
    advice = "runs with other seeds are kept; give the same command again"
    with interruptible(advice), output.observed() as observer:
        document = workflows.compare(folder, plan, seeds, observer)
    report = write_report(folder)
    if json:
        output.print_json({key: document[key] for key in ("before", "retrain", "methods")})
        return
    output.print_line(
        f"{comparison_tables.title(document)} in run {folder.name}. {comparison_tables.over(document)}."
    )
    for table in comparison_tables.tables(document):
        output.print_line(table.caption)
        output.print_table(["model", *table.columns], table.rows, right=table.columns)
    for note in document["notes"]:
        output.print_line(f"note: {note}")
    output.print_line(f"report: {report}")
