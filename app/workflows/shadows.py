"""Shadow models of a finished run: the run again with other seeds, and what a method makes of each.

They lie in the run's folder, ``shadows/seed-<seed>/``, as runs of their own that were trained on the same
data (`data.seed`), and in each of them the models that methods left of it. All are made once and kept, so an
attack that was interrupted goes on where it stopped, and one with more pairs makes only those that lack.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid
from torch import Tensor

from app.config.run_config import RunConfig
from app.forgettings.folder import read_result
from app.workflows.observer import Observer, Quiet
from app.workflows.opened import OpenedRun, reporting_to
from app.workflows.training import resume, train
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import MODEL, PRUNING, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting
from unlearning.audit.margins import Margins
from unlearning.audit.measurement import Measurement, margins_under
from unlearning.audit.shadow_attack import Baselines, ShadowFindings, ShadowPair, findings
from unlearning.holdings import ask_holdings
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings

FOLDER = "shadows"
MODELS = "left"
"""Name of the folder in a shadow's with the models that methods left."""


def check_shadows(run: TrainedRun, folder: RunFolder, request: ForgetRequest, after: str) -> None:
    """Refuse shadow models of a run that cannot have them.

    Raises
    ------
    BadInput
        Naming the reason.
    """
    reasons = {
        "each client has a model, or layers, of its own": run.client_models
        or run.personal_models
        or run.local_layers,
        "the run is private, and its ε does not count what further trainings release": run.plan.privacy.on,
        "the server gets sums alone, and would get more of them": run.plan.privacy.hides_updates,
        "the run is pruned; audit the one that it was made of": (folder.path / PRUNING).exists(),
        "a shadow would not repeat the earlier forgetting": bool(after or run.forgotten),
    }
    for reason, holds in reasons.items():
        if holds:
            raise BadInput(f"audit.shadows: {request.name} cannot be attacked by shadow models: {reason}")


def seeds_of(config: RunConfig, count: int) -> list[int]:
    """Return the seeds of `count` shadows: those that follow the run's own."""
    return [config.run.seed + number for number in range(1, count + 1)]


def trained_with(
    folder: RunFolder,
    config: RunConfig,
    seed: int,
    observer: Observer,
    grid: Grid | None = None,
    *,
    inside: str = FOLDER,
    same_data: bool = True,
) -> RunFolder:
    """Return a run that differs from this one in its seed; trained, or resumed, if necessary.

    Parameters
    ----------
    folder, config
        The finished run.
    inside
        Folder in the run's that holds it.
    same_data
        Whether it is trained on the same data, or on a partition of its own.

    Raises
    ------
    BadInput
        If a client was purged from the run, and the other one is not there yet.
    """
    home = (folder.path / inside).absolute()
    path = home / f"seed-{seed}"
    if (path / MODEL).exists():
        return RunFolder.open(path)
    _check_not_purged(folder)
    if path.exists():
        return resume(RunFolder.open(path), observer, grid)
    placed: dict[str, Scalar] = {"run.seed": seed, "run.home": str(home), "run.name": path.name}
    placed["run.track"] = ""
    if same_data:
        placed["data.seed"] = config.data_seed
    told = RunConfig.from_flat({**config.to_flat(), **placed})
    return train(told, observer, grid, clients_have_it=False)


def _purged(folder: RunFolder) -> Collection[str]:
    """Return the clients that were purged from a run's log, if it has one."""
    return UpdateLog.open(folder.log_path).purged() if folder.log_path.is_dir() else ()


def _check_not_purged(folder: RunFolder) -> None:
    if purged := _purged(folder):
        raise BadInput(
            f"run '{folder.name}': client {', '.join(purged)} is purged; to train with another seed would "
            "ask for its updates again, and log them"
        )


@dataclass(frozen=True)
class Kept:
    """A model that a method left of a shadow, as a file that is made once.

    Parameters
    ----------
    shadow, request, method, settings
        The shadow run, what was forgotten of it, and how; another setting is another file.
    """

    shadow: RunFolder
    request: ForgetRequest
    method: str
    settings: ForgetSettings

    @property
    def path(self) -> Path:
        """Where it lies."""
        told = json.dumps([self.request.to_json(), self.settings.model_dump(by_alias=True)], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        return self.shadow.path / MODELS / f"{self.method}-{digest}.safetensors"

    def read(self, run: TrainedRun) -> Tensor | None:
        """Return its parameters, shape [run.layout.size]; None if it was not made yet."""
        return run.layout.flatten(read_sealed(self.path).tensors) if self.path.exists() else None

    def write(self, run: TrainedRun, flat: Tensor) -> None:
        """Keep it."""
        self.path.parent.mkdir(exist_ok=True)
        write_sealed(self.path, run.layout.unflatten(flat))


@dataclass(frozen=True, eq=False)
class Shadow:
    """A shadow of a run.

    Parameters
    ----------
    seed
        Of its training.
    final
        Its model, shape [layout.size].
    left
        What each method left of it, by method.
    """

    seed: int
    final: Tensor
    left: Mapping[str, Tensor]


def made(
    opened: OpenedRun, request: ForgetRequest, methods: Sequence[str], count: int, grid: Grid | None
) -> list[Shadow]:
    """Return shadows of a run with what each method leaves of them, made where they lack."""
    shadows = []
    for seed in seeds_of(opened.session.config, count):
        path = trained_with(opened.folder, opened.session.config, seed, opened.observer, grid)
        kept = [Kept(path, request, method, _settings_of(opened, request, method)) for method in methods]
        shadow = OpenedRun.of(path, Quiet())
        left = {each.method: found for each in kept if (found := each.read(shadow.run)) is not None}
        if lacking := [each for each in kept if each.method not in left]:
            with shadow.session.cohort(grid) as cohort:
                left |= {each.method: _left(shadow, each, cohort, opened.observer) for each in lacking}
        shadows.append(Shadow(seed, shadow.run.final, left))
    return shadows


def _settings_of(opened: OpenedRun, request: ForgetRequest, method: str) -> ForgetSettings:
    """Return the settings by which a method served a request."""
    result = read_result(opened.folder.forget_folder(opened.name_of(request, method)))
    return ForgetSettings.stored(result["settings"])


def _left(shadow: OpenedRun, kept: Kept, cohort: Cohort, observer: Observer) -> Tensor:
    """Return what a method leaves of a shadow, and keep it."""
    progress = reporting_to(observer, f"{kept.method} {kept.request.name}, {shadow.folder.name}")
    holdings = ask_holdings(shadow.run, kept.request, cohort)
    result = forgetting.forget(
        shadow.run, kept.request, kept.method, kept.settings, cohort, progress, holdings
    )
    kept.write(shadow.run, result.flat)
    return result.flat


def attacked(
    opened: OpenedRun,
    request: ForgetRequest,
    methods: Sequence[str],
    shadows: Sequence[Shadow],
    cohort: Cohort,
    measured: Mapping[str, Measurement],
) -> dict[str, ShadowFindings | None]:
    """Return what the attack with shadow models finds of each method, given what was measured of each."""
    if not shadows:
        return {}
    opened.observer.phase(f"attack {request.name} by {len(shadows)} pairs of shadow models", len(shadows))
    under = []
    for shadow in shadows:
        under.append(_margins(opened, request, shadow, cohort))
        opened.observer.advance(f"{len(under)} of {len(shadows)}")
    purged = _purged(opened.folder)
    baselines = Baselines(opened.run.seed)
    found = {
        method: findings(
            [ShadowPair(each["before"], each[method], each["retrain"]) for each in under],
            measured[method].margins,
            baselines,
        )
        for method in methods
    }
    return {method: None if each is None else each.silent_on(purged) for method, each in found.items()}


def _margins(opened: OpenedRun, request: ForgetRequest, shadow: Shadow, cohort: Cohort) -> dict[str, Margins]:
    """Return the margins under a shadow's models, and under the one that was retrained with its seed."""
    retrained = opened.retrained_with(request, shadow.seed, cohort).flat
    models = {"before": shadow.final, **shadow.left, "retrain": retrained}
    return {
        name: margins_under(opened.run, flat, request, cohort, f"{name}, seed {shadow.seed}")
        for name, flat in models.items()
    }
