"""``lethe train`` and ``lethe demo``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible, resumable
from app.config.run_config import RunConfig
from app.config.settings import RequestSettings
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


def train(  # noqa: PLR0913, PLR0917  # a parameter per option
    config: options.Config = None,
    overrides: options.Overrides = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with an interrupted run.",
            autocompletion=options.runs_beginning,
        ),
    ] = "",
    going_on: Annotated[
        str,
        typer.Option(
            "--continue",
            metavar="RUN",
            help="Go on, in a new run, with a finished one or RUN/forget/NAME.",
            autocompletion=options.places_beginning,
        ),
    ] = "",
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", help="With --continue: how many more; default: 10.")
    ] = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a model across clients that keep their data; leaves a run folder."""
    home, others = options.split_home(overrides, home)
    _check_alone(config, others, resume=resume, going_on=going_on, rounds=rounds)
    if resume:
        folder = _resume(resume, home)
    elif going_on:
        folder = _go_on(going_on, RequestSettings().rounds if rounds is None else rounds, others, home)
    else:
        folder = _train(config, others, home)
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
    """Train on digits with a poisoned client of ten and one with rare examples, and forget each."""
    home, others = options.split_home(overrides, home)
    placed = _placed(others, home)
    runs = RunConfig().with_overrides(placed).run.home_path
    from app import workflows

    with resumable(runs), output.observed() as observer:
        result = workflows.demo(observer, placed)
    if json:
        output.print_json({"audits": dict(result.audits), **output.paths(result.folder, result.report)})
    else:
        for found in result.audits.values():
            subject = wording.capital(wording.subject(found["request"]))
            output.print_line(f"{subject}, forgotten by {found['method']}:")
            output.print_audit(found)
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


def _check_alone(
    config: Path | None, overrides: Sequence[str], *, resume: str, going_on: str, rounds: int | None
) -> None:
    """Refuse options that do not go together."""
    if resume and going_on:
        raise BadInput("--continue: a finished run; --resume: an interrupted one; give one of them")
    if resume and (config is not None or overrides):
        raise BadInput("--resume: an interrupted run keeps its config; leave out --config and --set")
    if going_on and config is not None:
        raise BadInput("--continue: the run keeps its config; leave out --config")
    if rounds is not None and not going_on:
        raise BadInput(f"--rounds {rounds}: only with --continue; a new run has --set run.rounds={rounds}")


def _go_on(place: str, rounds: int, overrides: Sequence[str], home: Path | None) -> "RunFolder":
    from app import workflows

    folder, forgetting = workflows.find_place(place, options.home_path(home))
    placed = _placed(overrides, home)
    runs = folder.path.parent if home is None else home
    with resumable(runs), output.observed() as observer:
        return workflows.go_on(folder, rounds, forgetting, placed, observer)


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
    output.print_table(["run", *numbers], [[name, wording.rounds_of(summary), *figures]], right=numbers)
    if judged := summary.get("judged"):
        output.print_line(f"model: {wording.kept_round(judged)}")
    if privacy:
        output.print_line(f"privacy: {wording.private(privacy)}")
