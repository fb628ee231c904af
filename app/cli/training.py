"""``lethe train`` and ``lethe demo``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible, resumable
from app.config.run_config import RunConfig
from app.report import wording
from app.report.headline import headline_of
from strategies.core.errors import BadInput

if TYPE_CHECKING:
    from strategies.runs.folder import RunFolder

_SHOWN = (
    "personal-accuracy",
    "test-accuracy",
    "attack-success-rate",
    "test-loss",
    "member-accuracy",
    "ensemble-accuracy",
    "global-accuracy",
    "global-worst",
    "personal-worst",
    "consensus-distance",
)


def train(
    config: options.Config = None,
    overrides: options.Overrides = None,
    resume: Annotated[
        str, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")
    ] = "",
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a model across clients that keep their data; leaves a run folder."""
    home, others = options.split_home(overrides, home)
    if not resume:
        folder = _train(config, others, home)
    elif config is None and not others:
        folder = _resume(resume, home)
    else:
        raise BadInput("--resume: an interrupted run keeps its config; leave out --config and --set")
    from app.report.page import write_report

    summary, report = folder.read_summary(), write_report(folder)
    if json:
        output.print_json({**summary, "path": str(folder.path), "report": str(report)})
    else:
        _print_training(folder.name, summary)
        output.print_line(f"folder: {folder.path}")
        output.print_line(f"report: {report}")


def demo(
    overrides: options.Overrides = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Train on digits with one poisoned client of ten, forget it, and compare with retraining."""
    home, others = options.split_home(overrides, home)
    placed = _placed(others, home)
    runs = RunConfig().with_overrides(placed).run.home_path
    from app import workflows

    with resumable(runs), output.observed() as observer:
        result = workflows.demo(observer, placed)
    if json:
        output.print_json({**result.audit, **output.paths(result.folder, result.report)})
    else:
        output.print_audit(result.audit)
        output.print_line("one run with one seed: differences of a point or so may be chance")
        output.print_line(f"report: {result.report}")


def _train(config: Path | None, overrides: Sequence[str], home: Path | None) -> "RunFolder":
    from app import workflows
    from app.project.manifest import config_here

    resolved = config_here(Path.cwd(), config, _placed(overrides, home))
    with resumable(resolved.run.home_path), output.observed() as observer:
        return workflows.train(resolved, observer)


def _resume(run: str, home: Path | None) -> "RunFolder":
    folder = options.open_run(run, home)
    from app import workflows

    with interruptible(f"continue with: lethe train --resume {folder.path}"), output.observed() as observer:
        return workflows.resume(folder, observer)


def _placed(overrides: Sequence[str], home: Path | None) -> list[str]:
    return [*overrides, *([] if home is None else [f"run.home={home}"])]


def _print_training(name: str, summary: Mapping[str, Any]) -> None:
    final = summary["final"]
    found = headline_of(summary)
    first = () if found is None or found.key in _SHOWN else (found.key,)
    shown = [key for key in (*first, *_SHOWN) if final.get(key) is not None]
    spent = [] if not (privacy := summary.get("privacy")) else [wording.most_spent(privacy)]
    figures = [*(f"{final[key]:.4g}" for key in shown), *spent, f"{summary['seconds']:.1f}"]
    numbers = ["rounds", *shown, *(["ε"] if spent else []), "seconds"]
    output.print_table(["run", *numbers], [[name, str(summary["rounds"]), *figures]], right=numbers)
    if privacy:
        output.print_line(f"privacy: {wording.private(privacy)}")
