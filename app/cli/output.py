"""Prints results on stdout: one JSON object for machines, or tables and lines for people."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from app.cli.progress import TerminalObserver
from app.report.wording import (
    COLUMNS,
    MISSING,
    apart,
    attacks,
    cell,
    epsilon,
    figure,
    figure_name,
    headline,
    number,
    printable,
    scale,
    seconds,
    spread,
    verdict,
    wrapped,
)
from strategies.runs.files import to_json

if TYPE_CHECKING:
    from strategies.runs.folder import RunFolder

_LABELS = {"retrain": "retrained"}
_PIPED_WIDTH = 400
"""Characters to a line where no terminal sets a limit: rows should stay whole for the next program."""


@contextmanager
def observed() -> Iterator[TerminalObserver]:
    """Yield an observer on stderr; other output goes there too until it is closed."""
    with redirect_stdout(sys.stderr), TerminalObserver(Console(stderr=True)) as observer:
        yield observer


def paths(folder: "RunFolder", report: Path) -> dict[str, str]:
    """Return the name, the folder and the report of a run, as every command tells them to machines."""
    return {"run": folder.name, "path": str(folder.path), "report": str(report)}


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object, and nothing else."""
    typer.echo(to_json(document, indent=2))


def print_line(text: str) -> None:
    """Print a line, without markup; a terminal gets it broken between words, a pipe as it is."""
    console, shown = Console(), printable(text)
    shown = wrapped(shown, console.width) if console.is_terminal else shown
    console.print(shown, markup=False, highlight=False, soft_wrap=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[str] = (),
    *,
    keep_first: bool = False,
) -> None:
    """Print a table; the columns named in `right` hold numbers, and the first may not be broken up."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        side: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=side, overflow="fold", no_wrap=keep_first and place == 0)
    for row in rows:
        table.add_row(*map(_plain, row))
    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    console.print(table, highlight=False)


def print_comparison(models: Mapping[str, Mapping[str, Any]], notes: Iterable[str] = ()) -> None:
    """Print the figures of models, by name, in the columns TA, RA, UA, MIA, ASR and seconds."""
    names = [column.short for column in COLUMNS]
    rows = [
        [_LABELS.get(name, name), *(cell(column, figures) for column in COLUMNS)]
        for name, figures in models.items()
    ]
    print_table(["model", *names], rows, right=names)
    for note in notes:
        print_line(f"note: {note}")


def print_audit(audit: Mapping[str, Any]) -> None:
    """Print the results of the audit of one method, as in ``audit.json``."""
    models = ("before", "after", "retrain")
    print_comparison({key: audit[key] for key in models})
    if rows := apart(audit, {key: _LABELS.get(key, key) for key in models}):
        columns = ("examples", "UA", "MIA", "ASR")
        print_table(["forgotten", *columns], rows, right=columns)
    for note in audit["notes"]:
        print_line(f"note: {note}")
    print_line(f"disparity: {number(headline(audit))} points (mean distance to the retrained model)")
    if words := verdict(audit):
        print_line(f"verdict: {words}")
    for words in attacks(audit):
        print_line(words)
    if found := scale(audit):
        print_line(found)


def print_value(name: str, value: Any) -> None:
    """Print a measured value: a list of rows as a table, anything else on a line."""
    if not (isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value)):
        print_line(f"    {name}: {_figure(value)}")
        return
    columns = list(dict.fromkeys(key for row in value for key in row))
    print_line(f"    {name}:")
    print_table(columns, [[_figure(row.get(key)) for key in columns] for row in value])


def run_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a run in the list of runs."""
    rounds = row.get("rounds")
    return [
        str(row["name"]),
        run_state(row),
        str(row.get("strategy", MISSING)),
        MISSING if rounds is None else str(rounds),
        _headline_cell(row),
        seconds(row.get("seconds")),
        ", ".join(row.get("forgettings") or ()) or MISSING,
    ]


def run_state(row: Mapping[str, Any]) -> str:
    """Return whether a run is finished, and how it was pruned.

    >>> run_state({"state": "pruned", "prune": "omp", "sparsity": 0.95})
    'pruned (omp, 95 %)'
    """
    how = f" ({row['prune']}, {100 * row['sparsity']:g} %)" if "prune" in row else ""
    return f"{row.get('state', MISSING)}{how}"


def print_runs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the list of runs, with a column ε where one of them is private."""
    columns, cells = ["run", "state", "strategy", "rounds", "accuracy", "seconds", "forgotten"], run_cells
    if not any("epsilon" in row for row in rows):
        print_table(columns, map(cells, rows), right=("rounds", "accuracy", "seconds"))
        return
    spent = [epsilon(row["epsilon"]) if "epsilon" in row else MISSING for row in rows]
    table = [[*each[:5], value, *each[5:]] for each, value in zip(map(cells, rows), spent, strict=True)]
    print_table([*columns[:5], "ε", *columns[5:]], table, right=("rounds", "accuracy", "ε", "seconds"))


def _headline_cell(row: Mapping[str, Any]) -> str:
    """Return a run's headline figure; the accuracy without its name."""
    headline = row.get("headline") or {"name": "accuracy", "value": row.get("test-accuracy")}
    name, value = str(headline["name"]), headline["value"]
    shown = figure(name, value)
    return shown if name == "accuracy" or value is None else f"{figure_name(name)} {shown}"


def _figure(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and value.keys() == {"mean", "std"}:
        return spread(value)
    return to_json(value) if isinstance(value, Mapping | list) else str(value)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(printable(text))
