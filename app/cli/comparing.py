"""``lethe compare``."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli import options, output
from app.cli.forgetting import resolved
from app.cli.interrupts import interruptible
from app.report import comparison_tables

_KEYS = (
    "request",
    "seeds",
    "forgettings",
    "mia_counts",
    "before",
    "retrain",
    "methods",
    "decisions",
    "conclusions",
)
"""What ``--json`` tells of a comparison."""


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
    forgettings: Annotated[
        int, typer.Option("--forgettings", min=1, help="Forgettings by each method on each trained model.")
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
    """Compare methods over several seeds, with retraining as the reference, and say what that decides.

    Without a request, those clients are forgotten that attack, and then an honest one.
    """
    home, others = options.split_home(overrides, home)
    folder = options.open_run(run, home)
    given = bool(client or label) or samples is not None
    request = options.read_request(folder, client, label, samples) if given else None
    chosen = [*others, *options.pruning(prune, sparsity)]
    config = resolved(folder, chosen, ("forget", "audit"))
    from app import workflows
    from app.report.page import write_report
    from strategies.core.settings import split_list

    requests = (request,) if request is not None else workflows.standard_requests(folder)
    advice = "runs with other seeds are kept; give the same command again"
    documents = []
    with interruptible(advice), output.observed() as observer:
        for each in requests:
            plan = workflows.ComparisonPlan(
                each, split_list(methods), config.forget, config.audit, relearn, forgettings
            )
            documents.append(workflows.compare(folder, plan, seeds, observer))
    report = write_report(folder)
    if json:
        found = [{key: document[key] for key in _KEYS} for document in documents]
        output.print_json(found[0] if given else {"comparisons": found})
        return
    for document in documents:
        _print_comparison(folder.name, document)
    output.print_line(f"report: {report}")


def _print_comparison(run: str, document: Mapping[str, Any]) -> None:
    output.print_line(
        f"{comparison_tables.title(document)} in run {run}. {comparison_tables.over(document)}."
    )
    for table in comparison_tables.tables(document):
        output.print_line(table.caption)
        output.print_table(["model", *table.columns], table.rows, right=table.columns, keep_first=True)
    for words in document["conclusions"]:
        output.print_line(words)
    for note in document["notes"]:
        output.print_line(f"note: {note}")
