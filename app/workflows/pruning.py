"""Prunes a run before a forgetting: the sparse run lies in the run's folder and is made once.

It is a run folder itself, ``pruned/<how>/``, with a mask, an update log of its own, and its own forgettings.
An interrupted training on the mask is resumed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid
from torch import Tensor

from app.config.run_config import RunConfig, default_values
from app.workflows.observer import Observer
from app.workflows.removing import removed_if_refused
from app.workflows.session import Session
from app.workflows.training import resume, train_in
from strategies.core.errors import BadInput
from strategies.models.mask import masks_in
from strategies.runs import files
from strategies.runs.files import read_json
from strategies.runs.folder import MODEL, PRUNED, PRUNING, RunFolder
from strategies.server.cohort import Traffic
from unlearning.pruning import CHOOSING, Pruning, sparse_name, sparse_path
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings


def prune(
    folder: RunFolder,
    session: Session,
    run: TrainedRun,
    settings: ForgetSettings,
    observer: Observer,
    grid: Grid | None = None,
) -> RunFolder:
    """Return the folder of a dense run pruned as the section ``forget`` says; made if necessary.

    The dense run is not altered; without a grid, the clients start in this process tree.

    Raises
    ------
    BadInput
        If the run is pruned already.
    LetheError
        If another process is making the sparse run.
    """
    path = sparse_path(folder, settings)
    if path == folder.path:
        return folder
    if run.mask is not None:
        raise BadInput(f"forget.prune: run '{folder.name}' is pruned already; name the run it came from")
    if path.exists():
        found = RunFolder.open(path)
        return found if (path / MODEL).exists() else resume(found, observer, grid)
    return _made(folder, session, run, settings, observer, grid)


def _made(
    folder: RunFolder,
    session: Session,
    run: TrainedRun,
    settings: ForgetSettings,
    observer: Observer,
    grid: Grid | None,
) -> RunFolder:
    if session.isolation > 1:
        raise BadInput(
            f'forget.prune: given "{settings.prune}", but train.isolation is {session.isolation}, and a mask '
            'is of one model that all clients share; allowed "none"'
        )
    pruning = Pruning(run, settings, session.server_data.input_shape)
    name = sparse_name(settings)
    observer.phase(f"prune {name}", pruning.num_rounds)
    config = _config(session.config, folder.path / PRUNED, name)
    with session.cohort(grid) as connected:
        cohort = session.in_training(connected)
        cohort.tell(observer.answered)
        began, traffic = time.perf_counter(), cohort.traffic.copy()
        mask = pruning.mask(
            cohort, lambda done, total, values: observer.advance(f"{done} of {total}", values)
        )
        spent = cohort.traffic.since(traffic)
        made = RunFolder.create(config.run.home, name, config.to_toml())
        with removed_if_refused(made):
            made.write_mask(masks_in(mask, run.layout), settings.prune)
            spent_seconds = time.perf_counter() - began
            files.write_json(made.path / PRUNING, _described(settings, spent_seconds, spent, mask))
            initial = run.layout.unflatten(run.initial * mask)
            begun = Session(config, session.work, session.server_data, folder=session.folder)
            begun.forgotten = session.forgotten
            train_in(made, begun, cohort, lambda: initial, observer)
    return made


@dataclass(frozen=True)
class Preparation:
    """The cost of a pruned run, of its mask and the training on it: wall-clock seconds, bytes and visits."""

    seconds: float
    traffic: Traffic

    @staticmethod
    def of(folder: RunFolder) -> "Preparation":
        """Read the cost from the folder of a finished pruned run."""
        mask, summary = read_json(folder.path / PRUNING), folder.read_summary()
        training: Mapping[str, Any] = summary.get("traffic") or {}
        spent = {
            key: int(mask[key]) + int(training.get(key) or 0) for key in ("bytes-up", "bytes-down", "visits")
        }
        return Preparation(
            float(mask["seconds"]) + float(summary["seconds"]),
            Traffic(bytes_up=spent["bytes-up"], bytes_down=spent["bytes-down"], visits=spent["visits"]),
        )

    def added_to(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``result.json`` with this cost added to its seconds and its traffic."""
        sent, own = self.traffic, result["traffic"]
        more = {"bytes-up": sent.bytes_up, "bytes-down": sent.bytes_down, "visits": sent.visits}
        note = (
            f"{self.seconds:.1f} of the {result['seconds'] + self.seconds:.1f} s went into pruning and into "
            "training on the mask, on all data, those to be forgotten included"
        )
        return {
            **result,
            "seconds": result["seconds"] + self.seconds,
            "traffic": {key: own[key] + more[key] for key in own},
            "notes": [*result["notes"], note],
            "details": {**result["details"], "preparation-seconds": self.seconds},
        }

    @property
    def not_counted(self) -> str:
        """A note for a result that does not count this cost."""
        return f"the pruned run was there; to make it took {self.seconds:.1f} s, which are not counted here"


def _config(config: RunConfig, home: Path, name: str) -> RunConfig:
    defaults = {f"forget.{key}": default_values()[f"forget.{key}"] for key in CHOOSING}
    placed = {"run.home": str(home.absolute()), "run.name": name}
    return RunConfig.from_flat({**config.to_flat(), **defaults, **placed})


def _described(settings: ForgetSettings, seconds: float, traffic: Traffic, mask: Tensor) -> dict[str, object]:
    return {
        **{key: value for key, value in settings.model_dump(by_alias=True).items() if key in CHOOSING},
        "parameters": len(mask),
        "kept": int(mask.sum()),
        "seconds": seconds,
        "bytes-up": traffic.bytes_up,
        "bytes-down": traffic.bytes_down,
        "visits": traffic.visits,
    }
