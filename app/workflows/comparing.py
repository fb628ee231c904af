"""Compare methods on one request, over several seeds, with retraining as the reference.

For each seed there is a run like the one given, made once under ``seeds/``; the first is the run itself.
Every method forgets, perhaps several times with seeds of its own, the run is retrained, all models are
audited alike, and each may relearn. Nothing is written under ``forget/``: a comparison measures.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from app.client.audit_answers import check_answers
from app.report.comparison_tables import OTHER_SEED
from app.report.conclusions import conclusions
from app.workflows import other_seeds
from app.workflows.observer import Observer, Quiet
from app.workflows.opened import OpenedRun, reporting_to
from app.workflows.pruning import Preparation
from app.workflows.recording import recorded
from app.workflows.removing import on_run
from app.workflows.shadows import trained_with
from strategies.core.errors import BadInput, LetheError
from strategies.core.seeds import derive_seed
from strategies.runs import files
from strategies.runs.folder import RunFolder
from strategies.server.cohort import Cohort
from unlearning import forgetting, requirements
from unlearning.audit.audit import ORIGINAL, AuditedModel, AuditReport, audit as audit_models
from unlearning.audit.comparison import (
    DISPARITIES,
    Cost,
    Figures,
    Spread,
    figures_of,
    log_bytes,
    summarised,
)
from unlearning.audit.decisions import Decisions, by_seed, decisions
from unlearning.audit.relearning import Relearning
from unlearning.audit.single_examples import rmia_areas
from unlearning.audit.verdict import mia_counts
from unlearning.holdings import ask_holdings
from unlearning.methods import METHODS
from unlearning.pruning import sparse_name
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings
from unlearning.spending import spent_notes

RETRAIN = "retrain"
_AGAIN = " again "
"""In the name of a model: what stands between a method and the number of its further forgetting."""
FOLDER = "compare"
"""Name of the folder with the comparisons of a run."""


@dataclass(frozen=True)
class ComparisonPlan:
    """Which methods to compare on a request; without methods, all that can serve it on the run.

    `settings` and `audit` are the sections ``forget`` and ``audit``; with ``prune``, every run is pruned
    first. `relearn` counts the rounds to relearn, which takes rounds for every model. `forgettings` is how
    often each method forgets on each trained model, at least 1; the first time with the run's own seed.
    """

    request: ForgetRequest
    methods: tuple[str, ...] = ()
    settings: ForgetSettings = field(default_factory=ForgetSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    relearn: bool = True
    forgettings: int = 1

    @property
    def name(self) -> str:
        """Name of the comparison's file, without its ending."""
        pruned = [] if self.settings.prune == "none" else [sparse_name(self.settings)]
        return "-".join([self.request.name, *pruned])


def _checked(plan: ComparisonPlan, run: TrainedRun) -> ComparisonPlan:
    """Return the plan with its methods named, without retraining and repetitions."""
    request, settings = plan.request, plan.settings
    for name in (RETRAIN, *plan.methods):
        requirements.check_request(run, request, name, settings)
    methods = plan.methods or (
        name for name in METHODS if requirements.can_serve(run, request, name, settings)
    )
    return replace(plan, methods=tuple(dict.fromkeys(name for name in methods if name != RETRAIN)))


@on_run
def compare(
    folder: RunFolder, plan: ComparisonPlan, seeds: int = 1, observer: Observer | None = None
) -> dict[str, Any]:
    """Compare methods on a finished dense run; write ``compare/<request>.json`` and return its content.

    `seeds` is the number of runs, at least 1; the first is the run itself.

    Raises
    ------
    BadInput
        If a method cannot serve the request, before any work.
    """
    opened = OpenedRun.of(folder, observer)
    check_answers(opened.session.config.model_copy(update={"audit": plan.audit}))
    if opened.run.client_models:
        raise BadInput(
            f"run '{folder.name}': compare needs one model that all clients share; use lethe forget --audit"
        )
    if opened.run.mask is not None:
        raise BadInput(f"run '{folder.name}' is pruned; compare the run it came from, with --prune")
    if opened.session.forgotten and seeds > 1:
        raise BadInput(
            f"run '{folder.name}' went on from a forgetting, which runs with other seeds would not repeat: "
            "compare it with one seed"
        )
    plan = _checked(plan, opened.run)
    with recorded(folder, opened.session.config, "compare", plan.name, observer or Quiet()) as recorder:
        work = _Work(plan, recorder)
        _warm_up()
        work.run_seed(replace(opened, observer=recorder))
        for number in range(1, seeds):
            work.run_seed(OpenedRun.of(_with_seed(folder, opened, number, recorder), recorder))
    path = folder.path / FOLDER
    path.mkdir(exist_ok=True)
    document = work.document()
    files.write_json(path / f"{plan.name}.json", document)
    return document


def _with_seed(folder: RunFolder, opened: OpenedRun, number: int, observer: Observer) -> RunFolder:
    """Return a run that differs from this one only in its seed; trained, or resumed, if necessary."""
    config = opened.session.config
    return trained_with(folder, config, config.run.seed + number, observer, inside="seeds", same_data=False)


def _seeded(run: TrainedRun, cohort: Cohort, number: int) -> tuple[TrainedRun, Cohort]:
    """Return a run and its clients with the seed of a further forgetting; as they are for the first."""
    if not number:
        return run, cohort
    seed = derive_seed(run.seed, "forgetting", number)
    return replace(run, plan=replace(run.plan, seed=seed)), cohort.seeded(seed)


def _warm_up() -> None:
    """Let torch import its compiler, which it does with the first optimiser, before anything is timed."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.0)


@dataclass
class _Work:
    """A comparison at work: the measurements so far."""

    plan: ComparisonPlan
    observer: Observer
    seeds: list[int] = field(default_factory=list)
    samples: dict[str, dict[int, list[Figures]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mia_counts: bool = True

    def run_seed(self, dense: OpenedRun) -> None:
        """Measure every method on one run."""
        plan = self.plan
        seed = dense.run.seed
        dense = dense.auditing(plan.audit)
        self.seeds.append(seed)
        with dense.session.local_grid() as grid:
            opened = dense.pruned(plan.settings, grid).auditing(plan.audit)
            if plan.settings.prune != "none":
                took = Preparation.of(opened.folder).seconds
                self._note(seed, [f"pruning and training on the mask took {took:.1f} s, not counted here"])
            spent = opened.run.spending.known()
            with opened.session.cohort(grid) as cohort:
                cohort.tell(self.observer.answered)
                models, costs = self._forgotten(opened, cohort)
                models |= self._other_seeds(opened, cohort, costs)
                self.observer.phase(f"audit {plan.request.name}, seed {seed}", 1)
                report = audit_models(opened.run, plan.request, models, cohort, plan.audit)
                self.observer.advance("measured")
                relearned = self._relearned(opened, report, models, cohort) if plan.relearn else {}
        self._note(seed, [*report.notes, *spent_notes(opened.run, spent)])
        self.mia_counts = self.mia_counts and mia_counts(report.measurements[ORIGINAL])
        margins = {name: measured.margins for name, measured in report.measurements.items()}
        others = [name for name in margins if name.startswith(other_seeds.PREFIX)]
        areas = rmia_areas(margins, others, opened.run.task)
        for name, figures in figures_of(report, costs, relearned, areas).items():
            pooled = OTHER_SEED if name.startswith(other_seeds.PREFIX) else name.partition(_AGAIN)[0]
            self.samples.setdefault(pooled, {}).setdefault(seed, []).append(figures)

    def document(self) -> dict[str, Any]:
        """Return what was compared and measured; a method that never succeeded has no figures."""
        plan = self.plan
        others = [OTHER_SEED] if OTHER_SEED in self.samples else []
        found = self._decisions().to_json()
        return {
            "request": plan.request.to_json(),
            "settings": plan.settings.model_dump(by_alias=True),
            "seeds": self.seeds,
            "forgettings": plan.forgettings,
            "notes": self.notes,
            "mia_counts": self.mia_counts,
            "before": self._summary(ORIGINAL),
            "retrain": self._summary(RETRAIN),
            "methods": {name: self._summary(name) for name in (*plan.methods, *others)},
            "decisions": found,
            "conclusions": conclusions(found),
        }

    def _summary(self, name: str) -> dict[str, Spread]:
        return summarised(self.samples.get(name, {}).values())

    def _decisions(self) -> Decisions:
        """Return what is decided by the disparity that counts."""
        figure = DISPARITIES[0 if self.mia_counts else 1]
        found = {name: by_seed(of, figure) for name, of in self.samples.items()}
        return decisions(
            {name: found.get(name, {}) for name in self.plan.methods},
            (ORIGINAL, found[ORIGINAL]),
            (OTHER_SEED, found.get(OTHER_SEED, {})),
            len(self.seeds),
        )

    def _forgotten(
        self, opened: OpenedRun, cohort: Cohort
    ) -> tuple[dict[str, AuditedModel], dict[str, Cost]]:
        run, plan = opened.run, self.plan
        traffic = opened.folder.read_summary().get("traffic") or {}
        stored = run.log.stored_bytes() if run.log is not None else 0
        models = {ORIGINAL: AuditedModel(run.final, run.train_seconds)}
        up, down, visits = (traffic.get(key) for key in ("bytes-up", "bytes-down", "visits"))
        costs = {ORIGINAL: Cost(run.train_seconds, up, down, visits, stored)}
        holdings = ask_holdings(run, plan.request, cohort)
        for method, number in self._each():
            name = f"{method}{_AGAIN}{number}" if number else method
            progress = reporting_to(self.observer, f"{name} {plan.request.name}, seed {run.seed}")
            again, asked = _seeded(run, cohort, number)
            try:
                made = forgetting.forget(
                    again, plan.request, method, plan.settings, asked, progress, holdings
                )
            except LetheError as error:
                if method == RETRAIN:
                    raise
                self._note(run.seed, [f"{name} failed: {error}"])
                continue
            self._note(run.seed, (f"{name}: {note}" for note in (*made.warnings, *made.notes)))
            models[name] = AuditedModel(made.flat, made.seconds)
            sent = (made.traffic.bytes_up, made.traffic.bytes_down, made.traffic.visits)
            needed = log_bytes(run.log, METHODS[method].needs(plan.settings))
            costs[name] = Cost(made.seconds, *sent, needed)
        return models, costs

    def _each(self) -> Iterator[tuple[str, int]]:
        """Yield each method and the number of its forgetting, from 0; retraining, the reference, once."""
        for method in self.plan.methods:
            for number in range(self.plan.forgettings):
                yield method, number
        yield RETRAIN, 0

    def _other_seeds(
        self, opened: OpenedRun, cohort: Cohort, costs: dict[str, Cost]
    ) -> dict[str, AuditedModel]:
        models = opened.other_seeds(self.plan.request, self.plan.audit.seeds, cohort)
        costs |= {name: Cost(model.seconds) for name, model in models.items()}
        return models

    def _relearned(
        self, opened: OpenedRun, report: AuditReport, models: dict[str, AuditedModel], cohort: Cohort
    ) -> dict[str, int | None]:
        original = report.measurements[ORIGINAL].unlearning_accuracy
        if original is None:
            return {}
        run, found = opened.run, {}
        for name, model in models.items():
            progress = reporting_to(self.observer, f"relearn after {name}, seed {run.seed}")
            relearning = Relearning(
                run, self.plan.request, original, cohort, run.plan.rounds, progress=progress
            )
            found[name] = relearning.rounds(model.flat)
        return found

    def _note(self, seed: int, notes: Iterable[str]) -> None:
        for note in notes:
            self.notes.append(f"seed {seed}: {note}")
            self.observer.note(self.notes[-1])
