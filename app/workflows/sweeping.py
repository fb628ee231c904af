"""Sweeps: many runs of one config with different values, chosen by Optuna, and a table of what they gave.

The study lies in a file beside the runs, so that a sweep that was interrupted goes on. Each trial is a run
like any other, which can be looked at, forgotten from, and removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

from app.config.run_config import RunConfig
from app.workflows.judging import VALIDATION, Criterion, criterion_named
from app.workflows.observer import Observer
from app.workflows.session import Session
from app.workflows.sweep_file import TEST, Range, Sweep, check_values, refuse_private
from app.workflows.training import resume, train
from strategies.core.conditions import shown
from strategies.core.errors import BadInput, LetheError
from strategies.core.extras import not_installed
from strategies.core.settings import Scalar
from strategies.runs.file_lock import locked
from strategies.runs.folder import MODEL, RunFolder
from strategies.runs.home import MARKER

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

_REASON = "reason"
_DIGEST = "digest"


@dataclass(frozen=True)
class Tried:
    """A trial: its run, its values by key, its figure, and how it ended.

    Parameters
    ----------
    state
        ``complete``, ``failed`` or ``pruned``.
    reason
        Why it failed; empty where it did not.
    """

    run: str
    values: Mapping[str, Scalar]
    figure: float | None
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Swept:
    """The outcome of a sweep.

    Parameters
    ----------
    metric
        The figure that was searched by, as ``metrics.jsonl`` names it.
    on_report
        Whether it was measured on the data that reports are about, so that the best figure flatters.
    tried
        The trials, the best first, then those that did not end.
    base
        The keys that are the same in all of them and not at their default.
    """

    name: str
    metric: str
    higher_is_better: bool
    on_report: bool
    tried: Sequence[Tried]
    base: Mapping[str, Scalar]

    @property
    def best(self) -> Tried | None:
        """The best trial; None where all failed."""
        return next((each for each in self.tried if each.state == "complete"), None)

    @property
    def command(self) -> list[str]:
        """The command line that trains with the best values; empty where all failed."""
        if (best := self.best) is None:
            return []
        keys = {**self.base, **best.values}.items()
        settings = [f"{key}={value if isinstance(value, str) else shown(value)}" for key, value in keys]
        return ["lethe", "train", *(word for setting in settings for word in ("--set", setting))]


def sweep(wanted: Sweep, base: RunConfig, observer: Observer) -> Swept:
    """Run what is left of a sweep's trials, and return all of them.

    Parameters
    ----------
    base
        The run config of all trials, with the keys of the sweep's file.

    Raises
    ------
    BadInput
        If Optuna is not installed, a value or the metric is not one of the config's, the runs would be
        private, or there is another sweep of this name. Nothing is left behind.
    LetheError
        If another process works on the sweep.
    """
    optuna = _optuna()
    check_values(wanted, base)
    criterion, on_report = _criterion(wanted, base)
    home = base.run.home_path
    home.mkdir(parents=True, exist_ok=True)
    busy = f"another process is working on sweep '{wanted.name}'"
    with closing(locked(home, f"sweep-{wanted.name}.lock", busy)):
        study = _study(optuna, wanted, criterion, home / f"sweep-{wanted.name}.journal")
        _Trials(optuna, study, wanted, base, criterion, observer).run()
    changed = {key: value for key, value in base.to_flat().items() if value != RunConfig().to_flat().get(key)}
    changed = {key: value for key, value in changed.items() if key not in {"run.name", "run.home"}}
    tried = _sorted(study, wanted, criterion)
    return Swept(wanted.name, criterion.key, criterion.higher_is_better, on_report, tried, changed)


def run_name(sweep_name: str, number: int) -> str:
    """Return the name of a trial's run.

    >>> run_name("rates", 3)
    'sweep-rates-003'
    """
    return f"sweep-{sweep_name}-{number:03d}"


@dataclass(frozen=True)
class _Reported(Criterion):
    """A criterion that is measured on the data of the report."""

    @property
    def key(self) -> str:
        return f"{TEST}{self.name}"


def _criterion(wanted: Sweep, base: RunConfig) -> tuple[Criterion, bool]:
    given = wanted.settings.metric
    on_report = given.startswith(TEST)
    if not on_report and not base.data.validation_share:
        raise BadInput(
            f"sweep.metric: given {shown(given)}, but data.validation-share is 0: trials must be judged on "
            "examples that no report is about; allowed with a share above 0, or as "
            f'"{TEST}{given or "accuracy"}", which chooses on the data of the report and flatters it'
        )
    name = given.removeprefix(TEST).removeprefix(f"{VALIDATION}-")
    figures = Session.of(base).figures
    found = criterion_named(name or figures.headline, figures, "sweep.metric")
    if wanted.settings.direction != "auto":
        found = replace(found, higher_is_better=wanted.settings.direction == "maximize")
    return (_Reported(found.name, found.higher_is_better) if on_report else found), on_report


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise BadInput(f"lethe sweep: {not_installed('optuna', 'sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: ModuleType, wanted: Sweep, criterion: Criterion, file: Path) -> "Study":
    """Return the study in a file, made where it is missing."""
    from optuna.storages.journal import JournalFileBackend

    median = wanted.settings.pruning == "median"
    study: Study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(file))),
        pruner=optuna.pruners.MedianPruner() if median else optuna.pruners.NopPruner(),
        study_name=wanted.name,
        direction="maximize" if criterion.higher_is_better else "minimize",
        load_if_exists=True,
    )
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    chosen = samplers.get(wanted.settings.sampler, optuna.samplers.RandomSampler)
    study.sampler = chosen(seed=wanted.settings.seed + len(study.trials))  # going on, it draws other values
    begun = study.user_attrs.get(_DIGEST)
    if begun not in {None, wanted.digest}:
        raise BadInput(
            f"sweep '{wanted.name}' was begun with other values or another config; give another sweep.name, "
            f"or remove {file}"
        )
    study.set_user_attr(_DIGEST, wanted.digest)
    return study


@final
class _Trials:
    """Runs the trials of a study that are not yet done."""

    def __init__(
        self,
        optuna: ModuleType,
        study: "Study",
        wanted: Sweep,
        base: RunConfig,
        criterion: Criterion,
        observer: Observer,
    ) -> None:
        self._optuna, self._study, self._wanted = optuna, study, wanted
        self._base, self._criterion, self._observer = base, criterion, observer
        self._states = optuna.trial.TrialState

    def run(self) -> None:
        """Finish what was interrupted, then go on to as many trials as are wanted."""
        for stale in self._study.get_trials(states=(self._states.RUNNING,)):
            self._tell(self._optuna.trial.Trial(self._study, stale._trial_id), reports=False)
        if self._wanted.settings.sampler == "grid":
            self._enqueue()
        waiting = len(self._study.get_trials(states=(self._states.WAITING,)))
        for _ in range(self._wanted.trials - len(self._study.trials) + waiting):
            self._tell(self._study.ask(_distributions(self._optuna, self._wanted)), reports=True)

    def _enqueue(self) -> None:
        """Put the combinations of a grid that are still to come into the study, in their order."""
        keys = list(self._wanted.space)
        lists = [values for values in self._wanted.space.values() if not isinstance(values, Range)]
        for values in list(product(*lists))[len(self._study.trials) : self._wanted.trials]:
            self._study.enqueue_trial(dict(zip(keys, values, strict=True)))

    def _tell(self, trial: "Trial", *, reports: bool) -> None:
        """Run a trial and record how it ended: a failure ends that trial only."""
        number = trial.number
        self._observer.note(f"trial {number + 1} of {self._wanted.trials}: {in_words(trial.params)}")
        try:
            figure = self._figure(trial, reports)
        except _Pruned:
            self._study.tell(number, state=self._states.PRUNED)
        except (LetheError, RuntimeError) as error:
            self._observer.note(f"trial {number + 1} failed: {error}")
            trial.set_user_attr(_REASON, str(error))
            self._study.tell(number, state=self._states.FAIL)
        else:
            self._study.tell(number, figure)

    def _figure(self, trial: "Trial", reports: bool) -> float:
        values, name = dict(trial.params), run_name(self._wanted.name, trial.number)
        if values.keys() != self._wanted.space.keys():
            raise LetheError("interrupted before its values were chosen")
        folder = RunFolder(self._base.run.home_path / name)
        observer = _Reporting(self._observer, self._criterion, trial if reports else None)
        if not (folder.path / MARKER).exists():
            config = RunConfig.from_flat({**self._base.to_flat(), **values, "run.name": name})
            refuse_private(config)
            folder = train(config, observer)
        elif not (folder.path / MODEL).exists():
            resume(folder, observer)
        figure = folder.read_summary()["final"].get(self._criterion.key)
        if figure is None:
            raise LetheError(f"{self._criterion.key} was not measured, or is no number")
        return float(figure)


class _Pruned(Exception):
    """Ends a trial that is worse than most were."""


@final
class _Reporting:
    """Hands on a run's progress, and tells Optuna a trial's figure after each round."""

    def __init__(self, observer: Observer, criterion: Criterion, trial: "Trial | None") -> None:
        self._observer, self._criterion, self._trial = observer, criterion, trial
        self._round = 0

    def phase(self, title: str, total: int) -> None:
        """Hand it on."""
        self._observer.phase(title, total)

    def advance(self, message: str = "", values: Mapping[str, float] | None = None) -> None:
        """Hand it on; raise `_Pruned` if the trial is to end."""
        self._observer.advance(message, values)
        self._round += 1
        figure = (values or {}).get(self._criterion.key)
        if self._trial is None or figure is None:
            return
        self._trial.report(figure, self._round)
        if self._trial.should_prune():
            raise _Pruned

    def answered(self, scope: str, done: int, total: int) -> None:
        """Hand it on."""
        self._observer.answered(scope, done, total)

    def note(self, text: str) -> None:
        """Hand it on."""
        self._observer.note(text)


def _distributions(optuna: ModuleType, wanted: Sweep) -> dict[str, "BaseDistribution"]:
    made = optuna.distributions
    found: dict[str, BaseDistribution] = {}
    for key, values in wanted.space.items():
        if not isinstance(values, Range):
            found[key] = made.CategoricalDistribution(values)
        elif values.whole:
            found[key] = made.IntDistribution(int(values.low), int(values.high), log=values.log)
        else:
            found[key] = made.FloatDistribution(values.low, values.high, log=values.log)
    return found


def _sorted(study: "Study", wanted: Sweep, criterion: Criterion) -> list[Tried]:
    """Return the trials, the best first, then those that were pruned or failed."""
    sign = -1 if criterion.higher_is_better else 1
    found = list(_tried(study, wanted))
    complete = [each for each in found if each.state == "complete"]
    return [
        *sorted(complete, key=lambda each: sign * (each.figure or 0.0)),
        *(each for each in found if each.state != "complete"),
    ]


def _tried(study: "Study", wanted: Sweep) -> Iterator[Tried]:
    words = {"COMPLETE": "complete", "FAIL": "failed", "PRUNED": "pruned"}
    for trial in study.get_trials():
        if (state := words.get(trial.state.name)) is not None:
            reason = str(trial.user_attrs.get(_REASON, ""))
            figure = trial.value if state == "complete" else None
            yield Tried(run_name(wanted.name, trial.number), dict(trial.params), figure, state, reason)


def in_words(values: Mapping[str, Any]) -> str:
    """Return the values of a trial, by key, in words.

    >>> in_words({"train.learning-rate": 0.1, "strategy.name": "fedavg"})
    'train.learning-rate = 0.1, strategy.name = "fedavg"'
    """
    return ", ".join(f"{key} = {shown(value)}" for key, value in values.items())
