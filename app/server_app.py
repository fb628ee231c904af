"""The ServerApp: runs the workflow that the run config names, over the grid that Flower hands in."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from app.config.run_config import RunConfig
from app.messages.packing import PackingGrid
from app.project.manifest import with_config_file
from app.report.page import write_report
from app.workflows import analyse, find_place, go_on, resume, serve, train
from strategies.runs.files import to_json
from strategies.runs.folder import RunFolder
from strategies.server.grids import SteadyGrid

_logger = logging.getLogger("flwr")

app = ServerApp()


class LogObserver:
    """Writes progress to Flower's log, which `flwr run --stream` shows."""

    def phase(self, title: str, total: int) -> None:
        """Log the title."""
        _logger.info("%s (%d steps)", title, total)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Log the numbers of a step."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in (values or {}).items())
        _logger.info("%s", ": ".join(filter(None, (message, numbers))))

    def answered(self, scope: str, done: int, total: int) -> None:
        """Log nothing: Flower's own log has the messages."""

    def note(self, text: str) -> None:
        """Log a remark."""
        _logger.warning("%s", text)


def _resume(config: RunConfig, observer: LogObserver, grid: Grid) -> RunFolder:
    return resume(RunFolder.open(config.request.run, config.run.home), observer, grid)


def _go_on(config: RunConfig, observer: LogObserver, grid: Grid) -> RunFolder:
    folder, forgetting = find_place(config.request.run, config.run.home_path)
    forgetting = forgetting or config.request.after
    named = [f"run.name={config.run.name}"] if config.run.name else []
    return go_on(folder, config.request.rounds, forgetting, named, observer, grid)


_WORK = {"train": train, "resume": _resume, "continue": _go_on}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the workflow that ``run.workflow`` names and print where the results lie."""
    values: dict[str, Any] = dict(context.run_config)
    config = RunConfig.from_flat(with_config_file(values, Path.cwd()))
    steady = SteadyGrid(PackingGrid(grid))
    if config.run.workflow == "analytics":
        _logger.info("answer: %s", to_json(analyse(config, LogObserver(), steady)))
        return
    folder = _WORK.get(config.run.workflow, serve)(config, LogObserver(), steady)
    write_report(folder)
    _logger.info("run folder: %s", folder.path)
