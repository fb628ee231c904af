"""``lethe report``, ``lethe runs``, ``lethe methods`` and ``lethe bench``."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.cli.filters import RunFilter
from app.cli.interrupts import interruptible
from app.report import wording
from strategies.core.errors import BadInput, LetheError

if TYPE_CHECKING:
    from strategies.runs.folder import RunFolder
    from unlearning.traits.base import Needs

Benchmark = Callable[..., Mapping[str, Any]]
"""An entry of ``benchmarks.BENCHMARKS``: measures, tells how far it is, and returns what `json` can write."""
METHOD_COLUMNS = ("method", "requests", "what it does", "guarantee", "source")
"""Headings of the table of methods, here and in the README."""


def report(
    runs: options.Runs,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "--out",
            metavar="FILE.html",
            help="With several runs: where the page goes; default: beside them.",
        ),
    ] = None,
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Rewrite a run's report, or show several runs side by side, and print where the page lies."""
    place = options.only_home("report", overrides, home)
    folders = [options.open_run(run, place) for run in runs]
    if len(folders) > 1:
        path = _side_by_side(folders, target)
        found: dict[str, Any] = {"runs": [folder.name for folder in folders], "report": str(path)}
    elif target is not None:
        raise BadInput(f"--output {target}: needs several runs; a run's own report lies in its folder")
    else:
        from app.report.page import write_report

        path = write_report(folders[0])
        found = output.paths(folders[0], path)
    if json:
        output.print_json(found)
    else:
        output.print_line(str(path))


def _side_by_side(folders: "Sequence[RunFolder]", target: Path | None) -> Path:
    from app.report.side_by_side import page_name, write_side_by_side

    if target is None:
        target = folders[0].path.parent / page_name([folder.name for folder in folders])
    elif not target.parent.is_dir():
        raise BadInput(f"--output {target}: {target.parent} is no folder")
    return write_side_by_side(folders, target)


def _strategies_beginning(incomplete: str) -> list[str]:
    from strategies.registry import all_traits

    return [traits.name for traits in all_traits() if traits.name.startswith(incomplete)]


def runs(  # noqa: PLR0913, PLR0917  # a parameter per option
    tree: Annotated[
        bool, typer.Option("--tree", help="List each run under the one that it comes from.")
    ] = False,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Only runs that this algorithm trained.",
            autocompletion=_strategies_beginning,
        ),
    ] = "",
    state: Annotated[
        str,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only finished, pruned or unfinished runs.",
            autocompletion=options.one_of("finished", "pruned", "unfinished"),
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="WHEN", help="Only runs begun since then: 2026-11-29, or 12h, 3d, 2w ago."
        ),
    ] = "",
    forgotten: Annotated[
        str, typer.Option("--forgotten", metavar="ID", help="Only runs that have forgotten this client.")
    ] = "",
    where: Annotated[
        str,
        typer.Option("--where", metavar="CONDITION", help="Only runs with such a figure: 'accuracy > 90'."),
    ] = "",
    overrides: options.HomeOverride = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """List the runs under a home, all of them or some."""
    place = options.home_path(options.only_home("runs", overrides, home))
    from app import workflows

    wanted = RunFilter(strategy, state, since, forgotten, where)
    if tree:
        if wanted != RunFilter():
            raise BadInput("--tree: lists all runs; leave out the other options, or --tree")
        _print_tree(place, json)
        return
    there = workflows.list_runs(place)
    found = wanted.chosen(there)
    if json:
        output.print_json({"home": str(place), "runs": found})
    elif not there:
        output.print_line(f"no runs in {place}; lethe train or lethe demo makes one")
    elif not found:
        output.print_line(f"none of the {wording.count(len(there), 'run')} in {place} is such a run")
    else:
        output.print_runs(found)


def _print_tree(place: Path, json: bool) -> None:
    from app import workflows

    found = workflows.tree_of_runs(place)
    if json:
        output.print_json({"home": str(place), "runs": [branch.to_json() for branch in found]})
        return
    for branch in found:
        name, _, _, rounds, *_, forgotten = output.run_cells(branch.row)
        about = [f"{rounds} rounds", *([f"forgotten: {forgotten}"] if branch.row.get("forgettings") else [])]
        said = ", ".join([*about, *([branch.said] if branch.said else [])])
        output.print_line(f"{'    ' * branch.depth}{name}: {said}")
    if not found:
        output.print_line(f"no runs in {place}; lethe train or lethe demo makes one")


def methods(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A method, to be told all of it.")] = "",
    json: options.Json = False,
) -> None:
    """List the forgetting methods: what each serves, does and promises, and where it comes from."""
    from unlearning.registry import all_traits
    from unlearning.settings import ForgetSettings

    known = all_traits()
    if name and name not in known:
        raise BadInput(f"unknown method '{name}'; known methods: {', '.join(known)}")
    found = [
        {
            "name": method.name,
            "summary": method.summary,
            "serves": sorted(method.serves),
            "needs": needs_in_words(method.needs(ForgetSettings())),
            "cost": method.cost,
            "guarantee": method.guarantee,
            "source": method.source,
        }
        for method in known.values()
        if name in {"", method.name}
    ]
    if json:
        output.print_json({"methods": found})
    elif name:
        _print_method(found[0])
    else:
        output.print_table(METHOD_COLUMNS, [_method_row(method) for method in found])


def _method_row(method: Mapping[str, Any]) -> list[str]:
    served = ", ".join(method["serves"])
    return [method["name"], served, method["summary"], method["guarantee"], method["source"]]


def _print_method(method: Mapping[str, Any]) -> None:
    output.print_line(f"{method['name']}: {method['summary']}")
    for key in ("serves", "needs", "cost", "guarantee", "source"):
        value = method[key]
        words = value if isinstance(value, str) else wording.listed(value) or "nothing"
        output.print_line(f"    {key + ':':<11}{words}")


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Benchmarks to run; without, they are listed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the benchmarks."),
    ] = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Run benchmarks."""
    known = _benchmarks()
    for name in names or ():
        if name not in known:
            raise BadInput(f"unknown benchmark '{name}'; known benchmarks: {', '.join(known)}")
    if not names:
        _list_benchmarks(known, json)
        return
    with interruptible("nothing of it was kept"), output.observed() as observer:
        results = {name: known[name](observer, **_benchmark_options(set_)) for name in dict.fromkeys(names)}
    if json:
        output.print_json({"benchmarks": results})
        return
    for name, result in results.items():
        output.print_line(f"{name}:")
        for key, value in result.items():
            output.print_value(key, value)


def _benchmark_options(given: Sequence[str] | None) -> Mapping[str, Any]:
    from app.config.run_config import parse_overrides

    return {key.replace("-", "_"): value for key, value in parse_overrides(given or ()).items()}


def _list_benchmarks(known: Mapping[str, Benchmark], json: bool) -> None:
    if json:
        output.print_json({"benchmarks": list(known)})
        return
    for name, benchmark in known.items():
        summary = (benchmark.__doc__ or "").strip().partition("\n")[0]
        output.print_line(f"{name}: {summary}" if summary else name)


def _benchmarks() -> Mapping[str, Benchmark]:
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "benchmarks" / "__init__.py").exists():
        raise LetheError("benchmarks are not installed; run lethe bench from a source checkout")
    if sys.path[0] != str(checkout):
        sys.path.insert(0, str(checkout))  # before site-packages, where others have a `benchmarks` as well
    known: Mapping[str, Benchmark] = import_module("benchmarks").BENCHMARKS
    return known


def needs_in_words(needs: "Needs") -> list[str]:
    """Return a method's needs in words.

    >>> from unlearning.methods import Needs
    >>> needs_in_words(Needs(log="sum", public=True))
    ['an update log (any retention that keeps sums)', 'public data on the server']
    """
    logs = {
        "norms": "an update log",
        "sum": "an update log (any retention that keeps sums)",
        "full": "an update log of every round",
    }
    return [
        *([logs.get(needs.log, f"an update log ({needs.log})")] if needs.log != "none" else []),
        *(["public data on the server"] if needs.public else []),
        *(["the remaining clients online"] if needs.remaining else []),
        *(["the forgotten client online"] if needs.forgotten else []),
        *([f"public data that nobody trained on, or {needs.held_out} given"] if needs.held_out else []),
    ]
