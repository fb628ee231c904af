"""Shadow models of a finished run: the run again with other seeds, and what a method makes of each.

They lie in the run's folder, ``shadows/seed-<seed>/``, as runs of their own that were trained on the same
data (`data.seed`), and in each of them the models that methods left of it. All are made once and kept, so an
attack that was interrupted goes on where it stopped, and one with more pairs makes only those that lack. In
one process the shadows are made side by side (`app.workflows.workshop`).

The shadows of a pruned run are those of the run that it was made from, each pruned by the same rule. Each has
a mask of its own, so its retraining is its own as well; that of other shadows is the audited run's, retrained
with the shadow's seed.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from flwr.serverapp import Grid
from torch import Tensor

from app.config.run_config import RunConfig
from app.forgettings.folder import read_result, unpruned
from app.report.wording import count as count_of
from app.workflows.observer import Observer, Quiet
from app.workflows.opened import OpenedRun
from app.workflows.pruning import prune
from app.workflows.training import resume, train
from app.workflows.workshop import Counted, Workshop
from strategies.core.errors import BadInput
from strategies.core.settings import Scalar
from strategies.log.update_log import UpdateLog
from strategies.runs.folder import MODEL, PRUNING, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting
from unlearning.audit.margins import Margins
from unlearning.audit.measurement import Measurement, margins_under
from unlearning.audit.own_attack import AttackModels, OwnAttacks
from unlearning.audit.shadow_attack import Baselines, ShadowFindings, ShadowPair, combined, findings
from unlearning.holdings import ask_holdings
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings

FOLDER = "shadows"
RETRAIN = "retrain"
MODELS = "left"
"""Name of the folder in a shadow's with the models that methods left."""
_MOST_AT_ONCE = 16
_AT_ONCE_BYTES = 2**30
_MODELS_EACH = 8


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
        "the rule that it was pruned by is not known": (folder.path / PRUNING).exists()
        and run.pruned_by is None,
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


def purged(folder: RunFolder) -> Collection[str]:
    """Return the clients that were purged from a run's log, if it has one."""
    return UpdateLog.open(folder.log_path).purged() if folder.log_path.is_dir() else ()


def _check_not_purged(folder: RunFolder) -> None:
    if gone := purged(folder):
        raise BadInput(
            f"run '{folder.name}': client {', '.join(gone)} is purged; to train with another seed would "
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

    def read(self, run: TrainedRun) -> Tensor:
        """Return its parameters, shape [run.layout.size]."""
        return run.layout.flatten(read_sealed(self.path).tensors)

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
    retrained
        The model that was retrained with its seed.
    """

    seed: int
    final: Tensor
    left: Mapping[str, Tensor]
    retrained: Tensor


def made(
    opened: OpenedRun,
    request: ForgetRequest,
    methods: Sequence[str],
    settings: AuditSettings,
    grid: Grid | None,
) -> list[Shadow]:
    """Return as many shadows of a run as the settings say, with what each method leaves of them.

    They are made where they lack.
    """
    seeds = seeds_of(opened.session.config, settings.shadows)
    if not seeds:
        return []
    with Workshop(opened.session, grid, at_once(opened, len(seeds)), settings.vectorise) as shop:
        folders = _trained(opened, request, seeds, shop)
        if opened.run.pruned_by is not None:
            folders = _pruned(opened, folders, opened.run.pruned_by, shop)
        left = _left(opened, request, methods, folders, shop)
        retrained = _retrained(opened, request, seeds, shop) if opened.run.pruned_by is None else []
        if shop.notes:
            opened.observer.note(shop.notes)
    vector_of = opened.run.layout.vector_of
    return [
        Shadow(
            seed, vector_of(folder.read_model()), models, retrained[place] if retrained else models[RETRAIN]
        )
        for place, (seed, folder, models) in enumerate(zip(seeds, folders, left, strict=True))
    ]


def at_once(opened: OpenedRun, count: int) -> int:
    """Return how many of so many shadows are worked on together: as many as the memory is surely there for.

    A shadow takes a few models, such as the present one and those that are averaged, and the server's data.
    """
    data = opened.session.server_data
    own = sum(part.held_bytes for part in (data.test, data.public) if part is not None)
    each = _MODELS_EACH * opened.run.final.nbytes + own
    return max(1, min(count, _MOST_AT_ONCE, _AT_ONCE_BYTES // each))


def _check_told(opened: OpenedRun, request: ForgetRequest, grid: Grid | None) -> None:
    """Refuse, before anything is trained, where no client tells of forgotten examples, or can attack them."""
    with opened.session.cohort(grid) as cohort:
        told = margins_under(opened.run, opened.run.final, request, cohort, "before")
    if not len(told.all_forgotten) and not told.summed:
        raise BadInput(
            f"audit.shadows: {request.name} cannot be attacked by shadow models: no client that holds an "
            "example to be forgotten answers; allowed 0"
        )


def _trained(
    opened: OpenedRun, request: ForgetRequest, seeds: Sequence[int], shop: Workshop
) -> list[RunFolder]:
    """Return the shadows' runs, trained where they lack."""
    folder, config = unpruned(opened.folder), opened.session.config
    lacking = [seed for seed in seeds if not (folder.path / FOLDER / f"seed-{seed}" / MODEL).exists()]
    if lacking:
        shop.each([partial(_check_told, opened, request)])
        title = f"train {count_of(len(lacking), 'shadow run')}"
        opened.observer.phase(title, len(lacking) * config.run.rounds)
    works = [
        partial(trained_with, folder, config, seed, Counted(opened.observer, f"seed-{seed}"))
        for seed in lacking
    ]
    shop.each(works)
    return [RunFolder.open(folder.path / FOLDER / f"seed-{seed}") for seed in seeds]


def _pruned(
    opened: OpenedRun, folders: Sequence[RunFolder], rule: ForgetSettings, shop: Workshop
) -> list[RunFolder]:
    """Return shadows pruned by the rule of the run, trained on their masks where that lacks."""
    lacking = [folder for folder in folders if not (sparse_path(folder, rule) / MODEL).exists()]
    if lacking:
        title = f"prune {count_of(len(lacking), 'shadow run')}"
        opened.observer.phase(title, len(lacking) * opened.run.plan.rounds)
    shop.each([partial(_prune, opened, folder, rule) for folder in lacking])
    return [RunFolder.open(sparse_path(folder, rule)) for folder in folders]


def _prune(opened: OpenedRun, folder: RunFolder, rule: ForgetSettings, grid: Grid | None) -> None:
    shadow = OpenedRun.of(folder, Quiet())
    prune(folder, shadow.session, shadow.run, rule, Counted(opened.observer, folder.name), grid)


def _left(
    opened: OpenedRun,
    request: ForgetRequest,
    methods: Sequence[str],
    folders: Sequence[RunFolder],
    shop: Workshop,
) -> list[dict[str, Tensor]]:
    """Return what each method leaves of each shadow, and, of a pruned one, retraining on its mask."""
    settings = {method: _settings_of(opened, request, method) for method in methods}
    if opened.run.pruned_by is not None:
        settings[RETRAIN] = opened.session.config.forget
    for method, own in settings.items():
        lacking = [
            made for folder in folders if not (made := Kept(folder, request, method, own)).path.exists()
        ]
        if lacking:
            name = f"{method} {request.name} of {count_of(len(lacking), 'shadow run')}"
            opened.observer.phase(name, len(lacking))
        shop.each([partial(_forget, opened, each) for each in lacking])
    return [
        {method: Kept(folder, request, method, own).read(opened.run) for method, own in settings.items()}
        for folder in folders
    ]


def _settings_of(opened: OpenedRun, request: ForgetRequest, method: str) -> ForgetSettings:
    """Return the settings by which a method served a request."""
    result = read_result(opened.folder.forget_folder(opened.name_of(request, method)))
    return ForgetSettings.stored(result["settings"])


def _forget(opened: OpenedRun, kept: Kept, grid: Grid | None) -> None:
    """Have a method serve a request on a shadow, and keep the model that it leaves."""
    shadow = OpenedRun.of(kept.shadow, Quiet())
    with shadow.session.cohort(grid) as cohort:
        holdings = ask_holdings(shadow.run, kept.request, cohort)
        result = forgetting.forget(
            shadow.run, kept.request, kept.method, kept.settings, cohort, holdings=holdings
        )
    kept.write(shadow.run, result.flat)
    opened.observer.advance(shadow.folder.name)


def _retrained(
    opened: OpenedRun, request: ForgetRequest, seeds: Sequence[int], shop: Workshop
) -> list[Tensor]:
    """Return the run retrained with each of the seeds; those that lack are made and kept."""
    lacking = [seed for seed in seeds if opened.kept_retraining(request, seed) is None]
    if lacking:
        shop.each([partial(_retrain, opened, request)])
        title = f"retrain {count_of(len(lacking), 'shadow run')} without {request.name}"
        opened.observer.phase(title, len(lacking) * opened.run.plan.rounds)
    shop.each([partial(_retrain_with, opened, request, seed) for seed in lacking])
    found = [opened.kept_retraining(request, seed) for seed in seeds]
    return [each.flat for each in found if each is not None]


def _retrain(opened: OpenedRun, request: ForgetRequest, grid: Grid | None) -> None:
    """Retrain with the run's own seed, if that was not done: the others lie beside it."""
    with opened.session.cohort(grid) as cohort:
        opened.retrain(request, cohort)


def _retrain_with(opened: OpenedRun, request: ForgetRequest, seed: int, grid: Grid | None) -> None:
    observed = replace(opened, observer=Counted(opened.observer, f"seed-{seed}"))
    with opened.session.cohort(grid) as cohort:
        observed.retrained_with(request, seed, cohort, timed=False)


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
    margins = {method: measured[method].margins for method in methods}
    told = next((each for each in margins.values() if each is not None), None)
    holders = {} if told is None else told.summed  # Who tells sums attacks by itself
    under = []
    for shadow in shadows if told is None or len(told.all_forgotten) else ():
        under.append(_margins(opened, request, shadow, cohort))
        opened.observer.advance(f"{len(under)} of {len(shadows)}")
    found, tests, gone = {}, len(holders) + bool(under), purged(opened.folder)
    baselines, asked = Baselines(opened.run.seed, tests=tests), _asked(request, measured, under)
    own = _by_themselves(opened, request, methods, shadows, cohort, holders, tests) if holders else {}
    for method in methods:
        pairs = [ShadowPair(each["before"], each[method], each[RETRAIN]) for each in under]
        attacks = {}
        if (together := findings(pairs, margins[method], baselines)) is not None:
            attacks[",".join(together.clients)] = together
        attacks |= own.get(method, {})
        each = combined(attacks) if holders else together
        found[method] = (
            None if each is None else each.without_word_of(asked.difference(each.clients)).silent_on(gone)
        )
    return found


def _asked(
    request: ForgetRequest,
    measured: Mapping[str, Measurement],
    under: Sequence[Mapping[str, Margins]],
) -> set[str]:
    """Return the clients that hold something to be forgotten, as far as they said, or that never said it."""
    told = [each.margins for each in measured.values() if each.margins is not None]
    told += [margins for models in under for margins in models.values()]
    holders = {client for margins in told for client in (*margins.forgotten, *margins.summed)}
    missing = {client for each in measured.values() for client in each.missing}
    return holders | (missing.intersection(request.named_clients) if request.named_clients else missing)


def _by_themselves(
    opened: OpenedRun,
    request: ForgetRequest,
    methods: Sequence[str],
    shadows: Sequence[Shadow],
    cohort: Cohort,
    holders: Mapping[str, int],
    tests: int,
) -> dict[str, dict[str, ShadowFindings]]:
    """Return what clients that tell sums find of each method by attacking their own examples."""
    run = opened.run
    models = AttackModels(
        [each.final for each in shadows],
        [each.retrained for each in shadows],
        {method: [each.left[method] for each in shadows] for method in methods},
        {method: opened.left_by(request, method).flat for method in methods},
    )
    attacks = OwnAttacks(request, run.layout, holders, run.forgotten, run.seed, tests)
    return attacks.carry_out(models, cohort)


def _margins(opened: OpenedRun, request: ForgetRequest, shadow: Shadow, cohort: Cohort) -> dict[str, Margins]:
    """Return the margins under a shadow's models, and under the one that was retrained with its seed."""
    run = replace(opened.run, mask=None)  # A pruned shadow's models have its zeros in themselves
    models = {"before": shadow.final, **shadow.left, RETRAIN: shadow.retrained}
    return {
        name: margins_under(run, flat, request, cohort, f"{name}, seed {shadow.seed}")
        for name, flat in models.items()
    }
