"""``lethe sweep``."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible
from app.config.run_config import RunConfig, parse_overrides
from app.report import wording
from strategies.core.conditions import shown

if TYPE_CHECKING:
    from app.workflows.sweeping import Swept


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="A run config with the tables sweep and sweep.space.")
    ],
    overrides: options.Overrides = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Train many runs with different values of some keys, and say which were best."""
    home, others = options.split_home(overrides, home)
    from app.project.manifest import config_here
    from app.workflows.sweep_file import read_sweep

    placed = {} if home is None else {"run.home": str(home)}
    wanted = read_sweep(file).with_base({**parse_overrides(others), **placed})
    base = RunConfig.from_flat({**config_here(Path.cwd(), None, []).to_flat(), **wanted.base})
    from app.workflows import sweeping

    with interruptible("the sweep goes on with the same command"), output.observed() as observer:
        found = sweeping.sweep(wanted, base, observer)
    if not json:
        _print(found)
        return
    document = {"sweep": found.name, "metric": found.metric, "chosen-on-report-data": found.on_report}
    best = None if found.best is None else asdict(found.best)
    output.print_json(
        {**document, "trials": list(map(asdict, found.tried)), "best": best, "command": found.command}
    )


def _print(found: "Swept") -> None:
    keys = list(dict.fromkeys(key for each in found.tried for key in each.values))
    rows = [
        [
            each.run,
            *(wording.MISSING if key not in each.values else shown(each.values[key]) for key in keys),
            each.state if each.figure is None else f"{each.figure:.4g}",
        ]
        for each in found.tried
    ]
    output.print_table(["run", *keys, found.metric], rows, right=(*keys, found.metric))
    failed = [each for each in found.tried if each.state == "failed"]
    if failed:
        output.print_line(f"{len(failed)} of {wording.count(len(found.tried), 'trial')} failed:")
    for each in failed:
        output.print_line(f"  {each.run}: {each.reason}")
    if found.on_report:
        output.print_line(
            f"WARNING: chosen by {found.metric}, on the data of the reports: the best figure flatters; "
            "set data.validation-share and a metric without test-"
        )
    if found.best is not None:
        output.print_line(f"best: {found.best.run}; to train with its values: {shlex.join(found.command)}")
