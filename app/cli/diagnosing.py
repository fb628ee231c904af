"""``lethe diagnose``."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import options, output
from app.cli.interrupts import interruptible
from app.config.run_config import RunConfig
from strategies.core.errors import BadInput

PAGE = "diagnosis.html"
"""Name of the page."""


def diagnose(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A finished run; without, one to be, by --config and --set.")
    ] = "",
    config: options.Config = None,
    overrides: options.Overrides = None,
    page: Annotated[
        Path | None,
        typer.Option("--output", "--out", help="Where the page goes; default: the run's folder, or here."),
    ] = None,
    home: options.Home = None,
    json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Measure how much the clients differ, in labels, gradients, drift, sizes and speeds; say what helps."""
    home, others = options.split_home(overrides, home)
    if run and (config is not None or others):
        raise BadInput("diagnose: a run has its config; leave out --config and --set, or the run")
    folder = options.open_run(run, home) if run else None
    from app.project.manifest import config_here
    from app.report.diagnosis import figure, render_diagnosis
    from app.workflows import diagnosing
    from strategies.runs.files import write_text

    if folder is None:
        resolved = config_here(Path.cwd(), config, others)
    else:
        resolved = RunConfig.resolve(folder.path / "config.toml")
    with interruptible("nothing of it was kept"), output.observed() as observer:
        found = diagnosing.diagnose(resolved, folder, observer)
    place = (page or (Path(PAGE) if folder is None else folder.path / PAGE)).absolute()
    title = f"Diagnosis of {folder.name}" if folder is not None else "Diagnosis before training"
    write_text(place, render_diagnosis(title, found))
    if json:
        output.print_json({**found.to_json(), "page": str(place)})
        return
    rows = [[f.name, figure(f.value), f.advice] for f in found.findings]
    output.print_table(["figure", "value", "advice"], rows, right=["value"])
    for fault in found.faults:
        output.print_line(f"note: {fault}")
    output.print_line(f"page: {place}")
