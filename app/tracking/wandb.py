"""Weights & Biases: a run of the project ``lethe``, and one of the same group for each work on it.

Without ``WANDB_MODE`` it stays offline, under ``track/wandb``; ``wandb sync`` uploads it when you want it.
"""

import logging
import os
from collections.abc import Mapping
from typing import final

from app.tracking.tracker import Tracked
from strategies.core.settings import Scalar

PROJECT = "lethe"


@final
class WeightsAndBiases:
    """Logs figures to a run; nothing of the machine, the code or the terminal goes with them."""

    def __init__(self, tracked: Tracked) -> None:
        import wandb

        tracked.folder.mkdir(parents=True, exist_ok=True)
        # On a full disk each line of W&B's own log would print a traceback; what matters is raised as well.
        self._prints, logging.raiseExceptions = logging.raiseExceptions, False
        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            host=PROJECT,
            silent=True,
            init_timeout=30,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=tracked.id,
            name=tracked.name,
            group=tracked.parent or tracked.id,
            job_type=tracked.kind,
            dir=str(tracked.folder),
            mode=None if "WANDB_MODE" in os.environ else "offline",
            config=dict(tracked.config),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures of a step."""
        self._run.log(dict(values), step=step)

    def end(self, outcome: str, summary: Mapping[str, Scalar]) -> None:
        """Log the results, and finish the run."""
        self._run.summary.update({"outcome": outcome, **{f"summary/{k}": v for k, v in summary.items()}})
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
        logging.raiseExceptions = self._prints


def begin(tracked: Tracked) -> WeightsAndBiases:
    """Return the tracker of a piece of work."""
    if "WANDB_MODE" not in os.environ:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    return WeightsAndBiases(tracked)
