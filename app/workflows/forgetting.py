"""Serves requests to forget on a finished run, and measures what the methods left of the forgotten data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid
from torch import Tensor

from app.client.audit_answers import check_answers
from app.forgettings.certify import certify
from app.forgettings.folder import forgetting_name, has_forgetting, lineage_of, read_forgetting, read_result
from app.forgettings.lineage import warnings_of
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT
from app.forgettings.signing_key import signing_key
from app.report.triggered import write_triggered
from app.simulation.kept_models import keep_states, restore_states
from app.workflows import other_seeds, session as sessions, shadows
from app.workflows.measured import method_audit, triggered_images
from app.workflows.observer import Observer, Quiet
from app.workflows.pruning import Preparation, prune
from app.workflows.recording import recorded, results_of_audit
from app.workflows.removing import on_run
from app.workflows.session import Session
from app.workflows.shadows import Kept
from app.workflows.trained import open_trained_run
from strategies.core.errors import BadInput, RunCorrupt
from strategies.models.mask import flat_mask_of, masks_in
from strategies.runs import files
from strategies.runs.folder import MODEL, PRUNING, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting, requirements
from unlearning.audit.audit import AuditedModel, AuditReport, audit as audit_models
from unlearning.audit.margins import Margins
from unlearning.audit.measurement import Measurement, margins_under
from unlearning.audit.shadow_attack import ShadowFindings, ShadowPair, findings
from unlearning.default_method import PREFERRED, with_method
from unlearning.holdings import ask_holdings
from unlearning.methods import METHODS
from unlearning.methods.base import Progress
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AUTO, AuditSettings, ForgetSettings

MASK = "mask.safetensors"
"""Name of the file in a forgetting's folder with its own mask, where it chose one."""


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


@dataclass
class OpenedRun:
    """A finished run, opened for forgetting and audits.

    `after` names the forgetting whose model it starts from; empty: the run's own model. `preparation` is the
    cost of pruning the run for this request; None if it was not pruned for it.
    """

    folder: RunFolder
    session: Session
    run: TrainedRun
    observer: Observer
    after: str = ""
    preparation: Preparation | None = None

    @staticmethod
    def of(folder: RunFolder, observer: Observer | None) -> "OpenedRun":
        """Open a finished run."""
        session, observer = sessions.open_session(folder), observer or Quiet()
        for note in session.notes:
            observer.note(note)
        return OpenedRun(folder, session, open_trained_run(folder, session), observer)

    def pruned(self, settings: ForgetSettings, grid: Grid | None) -> "OpenedRun":
        """Return the run that a method works on: itself, or pruned as the settings say."""
        was_there = (sparse_path(self.folder, settings) / MODEL).exists()
        folder = prune(self.folder, self.session, self.run, settings, self.observer, grid)
        if folder is self.folder:
            return self
        made = OpenedRun.of(folder, self.observer)
        return made if was_there else replace(made, preparation=Preparation.of(folder))

    def auditing(self, settings: AuditSettings) -> "OpenedRun":
        """Return the run with the settings of an audit.

        Raises
        ------
        BadInput
            If its clients were promised that they answer no audits, or the model that forgot a client cannot
            run on that client's data.
        """
        if self.run.local_layers:
            raise BadInput(
                'audit: with model.batch-norm = "local" layers stay with each client, and a forgotten client '
                "has none that go with the model after, so that nothing can be measured on its data"
            )
        config = self.session.config.model_copy(update={"audit": settings})
        check_answers(config)
        return replace(self, session=replace(self.session, config=config))

    def check_before_pruning(
        self, request: ForgetRequest, settings: ForgetSettings, grid: Grid | None, after: str
    ) -> None:
        """Raise `BadInput` if a request cannot be served on a pruned run that does not exist yet."""
        path = sparse_path(self.folder, settings)
        if path.exists():
            return
        if after:
            raise BadInput(f"run '{path.name}': no forgetting '{after}'; known: none so far")
        with self.session.cohort(grid) as cohort:
            ask_holdings(self.run, request, cohort)

    def following(self, after: str) -> "OpenedRun":
        """Return the run as an earlier forgetting left it; unchanged if the name is empty.

        Raises
        ------
        BadInput
            If there is no forgetting of that name.
        """
        run = self.run
        if after:
            earlier = read_forgetting(self.folder, after)
            final = run.layout.flatten(read_sealed(earlier.model_path).tensors)
            forgotten = (*earlier.forgotten, earlier.request)
            own_mask = own_mask_of(earlier.path, run)
            lineage = lineage_of(self.folder, after)
            run = replace(
                run, final=final, train_seconds=earlier.seconds, forgotten=forgotten, lineage=lineage
            )
            if own_mask is not None:
                initial = run.layout.flatten(run.build_model().state_dict())
                run = replace(run, mask=own_mask, initial=initial * own_mask)
        return replace(self, run=run, after=after)

    def name_of(self, request: ForgetRequest, method: str) -> str:
        """Return the name of the folder under ``forget/`` with the answer to a request."""
        return forgetting_name(request, method, self.after)

    def key(self) -> Ed25519PrivateKey:
        """Return the key that signs certificates; made on first use."""
        return signing_key(self.session.config.run.certificate_key_path)

    def serve(self, request: ForgetRequest, settings: ForgetSettings, grid: Grid | None) -> str:
        """Serve a request with the clients that it needs; return the name of its folder."""
        needed = requirements.check_request(self.run, request, settings.method, settings)
        self.key()
        if not (needed.remaining or needed.forgotten):
            return self.forget(request, settings.method, settings, None)
        with self.session.cohort(grid) as cohort:
            cohort.tell(self.observer.answered)
            return self.forget(request, settings.method, settings, cohort)

    def forget(
        self, request: ForgetRequest, method: str, settings: ForgetSettings, cohort: Cohort | None
    ) -> str:
        """Serve a request, write its folder and return the folder's name."""
        name, key = self.name_of(request, method), self.key()
        progress = reporting_to(self.observer, f"{method} {request.name}")
        keeps_states = self.run.client_models or self.run.personal_models
        if keeps_states and cohort is not None:
            restore_states(self.folder, cohort.grid, besides=name)
            cohort = cohort.on_lineage(name)
        holdings = None if cohort is None else ask_holdings(self.run, request, cohort)
        result = forgetting.forget(self.run, request, method, settings, cohort, progress, holdings)
        path = self.folder.forget_folder(name)
        (path / CERTIFICATE).unlink(missing_ok=True)
        if not self._is_again(path, result.flat):
            (path / AUDIT).unlink(missing_ok=True)
        write_sealed(path / MODEL, self.run.layout.unflatten(result.flat))
        if result.mask is not None:
            write_sealed(path / MASK, masks_in(result.mask, self.run.layout))
        if keeps_states and cohort is not None:
            keep_states(path, cohort.grid, name)
        before = {"after": self.after, "forgotten": [each.to_json() for each in self.run.forgotten]}
        document = self._with_preparation(result.to_json())
        document["warnings"] = [*document["warnings"], *warnings_of(self.folder, request)]
        files.write_json(path / RESULT, {**document, **before})
        certify(self.folder, name, key)
        for note in (*(f"WARNING: {warning}" for warning in document["warnings"]), *document["notes"]):
            self.observer.note(note)
        return name

    def _with_preparation(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return a result with the cost of pruning if the run was pruned for this request, else a note."""
        if self.preparation is not None:
            return self.preparation.added_to(result)
        if not (self.folder.path / PRUNING).exists():
            return result
        return {**result, "notes": [*result["notes"], Preparation.of(self.folder).not_counted]}

    def _is_again(self, path: Path, flat: Tensor) -> bool:
        """Whether the request was served before with the very same model, so that its audit still holds."""
        if not (path / MODEL).exists():
            return False
        return torch.equal(self.run.layout.flatten(read_sealed(path / MODEL).tensors), flat)

    def audit(
        self,
        request: ForgetRequest,
        methods: Sequence[str],
        settings: AuditSettings,
        cohort: Cohort,
        made: Sequence["Shadow"] = (),
    ) -> AuditReport:
        """Measure models that were made for a request, and attack them; retrain first if necessary."""
        retrained, key = self.name_of(request, "retrain"), self.key()
        if not (self.folder.forget_folder(retrained) / RESULT).exists():
            self.forget(request, "retrain", self.session.config.forget, cohort)
        if self.run.client_models:
            restore_states(self.folder, cohort.grid)
        holdings = ask_holdings(self.run, request, cohort)
        models = {"before": AuditedModel(self.run.final, self.run.train_seconds, self.run.lineage)}
        models |= {method: self._made(request, method) for method in [*methods, "retrain"]}
        models |= self.other_seeds(request, settings.seeds, cohort)
        self.observer.phase(f"audit {request.name}", 1)
        run = self.run
        if any(METHODS[method].prunes_anew for method in methods):
            run = replace(run, mask=None)  # Models of several masks: each has its zeros in itself
        report = audit_models(run, request, models, cohort, settings)
        report = replace(report, notes=(*holdings.warnings, *report.notes, *holdings.notes))
        self.observer.advance("measured")
        inexact = [method for method in methods if method != "retrain"]
        attacked = self.attacked(request, inexact, made, report.measurements, cohort)
        for method in methods:
            path = self.folder.forget_folder(self.name_of(request, method))
            document = method_audit(report, method, run.task, attacked.get(method))
            files.write_json(path / AUDIT, document)
            certify(self.folder, path.name, key)
            shown = {
                "before": models["before"].flat,
                "after": models[method].flat,
                "retrain": models["retrain"].flat,
            }
            if images := triggered_images(run, shown):
                write_triggered(path, images)
        for note in report.notes:
            self.observer.note(note)
        return report

    def other_seeds(self, request: ForgetRequest, count: int, cohort: Cohort) -> dict[str, AuditedModel]:
        """Return retrainings for a request with other seeds, by their name in an audit."""
        if count > 0 and self.run.client_models:
            raise BadInput(
                f"audit.seeds: given {count}, but other seeds need one model that all clients share"
            )
        return {
            f"{other_seeds.PREFIX}{seed}": self._retrained_with(request, seed, cohort)
            for seed in other_seeds.seeds_of(self.run, count)
        }

    def _retrained_with(self, request: ForgetRequest, seed: int, cohort: Cohort) -> AuditedModel:
        progress = reporting_to(self.observer, f"{other_seeds.PREFIX}{seed} {request.name}")
        path = self.folder.forget_folder(self.name_of(request, "retrain"))
        return other_seeds.retrained_with(path, self.session, self.run, request, seed, cohort, progress)

    def shadows(
        self, request: ForgetRequest, methods: Sequence[str], count: int, grid: Grid | None
    ) -> list["Shadow"]:
        """Return shadows of the run with what each method leaves of them, made where they lack."""
        made = []
        for seed in shadows.seeds_of(self.session.config, count):
            path = shadows.trained_with(self.folder, self.session.config, seed, self.observer, grid)
            kept = {
                method: Kept(path, request, method, self._settings_of(request, method)) for method in methods
            }
            shadow = OpenedRun.of(path, Quiet())
            left = {
                method: found for method in methods if (found := kept[method].read(shadow.run)) is not None
            }
            if lacking := [method for method in methods if method not in left]:
                with shadow.session.cohort(grid) as cohort:
                    for method in lacking:
                        left[method] = shadow._left(kept[method], cohort, self.observer)
            made.append(Shadow(seed, shadow.run.final, left))
        return made

    def _settings_of(self, request: ForgetRequest, method: str) -> ForgetSettings:
        """Return the settings by which a method served a request."""
        result = read_result(self.folder.forget_folder(self.name_of(request, method)))
        return ForgetSettings.stored(result["settings"])

    def _left(self, kept: Kept, cohort: Cohort, observer: Observer) -> Tensor:
        """Return what a method leaves of this shadow, and keep it."""
        progress = reporting_to(observer, f"{kept.method} {kept.request.name}, {self.folder.name}")
        holdings = ask_holdings(self.run, kept.request, cohort)
        result = forgetting.forget(
            self.run, kept.request, kept.method, kept.settings, cohort, progress, holdings
        )
        kept.write(self.run, result.flat)
        return result.flat

    def attacked(
        self,
        request: ForgetRequest,
        methods: Sequence[str],
        made: Sequence["Shadow"],
        audited: Mapping[str, Measurement],
        cohort: Cohort,
    ) -> dict[str, ShadowFindings | None]:
        """Return what the attack with shadow models finds of each method."""
        if not made:
            return {}
        self.observer.phase(f"attack {request.name} with {len(made)} pairs of shadow models", len(made))
        under: list[dict[str, Margins]] = []
        for shadow in made:
            models = {"before": shadow.final, **shadow.left}
            models["retrain"] = self._retrained_with(request, shadow.seed, cohort).flat
            names = {name: f"{name}, seed {shadow.seed}" for name in models}
            under.append(
                {
                    name: margins_under(self.run, flat, request, cohort, names[name])
                    for name, flat in models.items()
                }
            )
            self.observer.advance()
        return {
            method: findings(
                [ShadowPair(each["before"], each[method], each["retrain"]) for each in under],
                audited[method].margins,
                self.run.seed,
            )
            for method in methods
        }

    def check_made(self, request: ForgetRequest, method: str) -> None:
        """Raise `BadInput` if a request was not served by a method."""
        if not (self.folder.path / "forget" / self.name_of(request, method) / RESULT).exists():
            raise BadInput(
                f"run '{self.folder.name}': {request.name} was not forgotten by {method}; do that first"
            )

    def _made(self, request: ForgetRequest, method: str) -> AuditedModel:
        path = self.folder.forget_folder(self.name_of(request, method))
        flat = self.run.layout.flatten(read_sealed(path / MODEL).tensors)
        return AuditedModel(flat, read_result(path)["seconds"], lineage_of(self.folder, path.name))


def own_mask_of(path: Path, run: TrainedRun) -> Tensor | None:
    """Return the mask that a forgetting chose anew, shape [P], bool; None if it kept that of the run.

    Raises
    ------
    RunCorrupt
        If the file is damaged, or is of another model.
    """
    if not (path / MASK).exists():
        return None
    try:
        return flat_mask_of(read_sealed(path / MASK).tensors, run.layout)
    except ValueError as error:
        raise RunCorrupt(f"{path / MASK}: {error}") from None


def reporting_to(observer: Observer, title: str) -> Progress:
    """Return a method's progress callback that reports to an observer, as a phase with this title."""
    began = False

    def progress(done: int, total: int, values: Mapping[str, float]) -> None:
        nonlocal began
        if not began:
            observer.phase(title, total)
            began = True
        observer.advance(f"{done} of {total}", values)

    return progress


@on_run
def forget(
    folder: RunFolder,
    request: ForgetRequest,
    settings: ForgetSettings,
    observer: Observer | None = None,
    grid: Grid | None = None,
    after: str = "",
) -> str:
    """Serve a request to forget on a finished run; return the name of its folder under ``forget/``.

    The run itself is not altered. With ``prune``, the method works on the pruned run, which is made if
    necessary (see `app.workflows.pruning`), and the forgetting lies under ``forget/`` in that run's folder. A
    signed certificate of what was done lies beside the model. `after` names an earlier forgetting, whose
    model is started from and whose requests stay served; empty: the run's own model. Without a grid, the
    clients start in this process tree.

    Raises
    ------
    BadInput
        If the request cannot be served, before any work.
    """
    opened = OpenedRun.of(folder, observer)
    settings = choose_method(folder, request, settings, after)
    if settings.prune != "none":
        to_be = replace(opened.run, mask_origin=settings.prune, pruned_by=settings)
        requirements.check_request(to_be, request, settings.method, settings)
        opened.check_before_pruning(request, settings, grid, after)
        opened.key()  # Said before any work, and made for nothing that is refused
    name = forgetting_name(request, settings.method, after)
    with recorded(folder, opened.session.config, "forget", name, opened.observer) as recorder:
        opened = replace(opened, observer=recorder).pruned(settings, grid).following(after)
        opened.serve(request, settings, grid)
        result = read_result(opened.folder.forget_folder(name))
        recorder.results({key: result[key] for key in ("method", "seconds", "traffic")})
    return name


def choose_method(
    folder: RunFolder, request: ForgetRequest, settings: ForgetSettings, after: str = ""
) -> ForgetSettings:
    """Return the section ``forget`` with the method named that serves, or has served, a request on a run.

    A request that was served keeps its method, even if a purge has erased what that needs. With ``prune``,
    `folder` is the run to prune. `after` is as for `forget`.

    Raises
    ------
    BadInput
        If the request cannot be served.
    """
    if settings.method != AUTO:
        return settings
    sparse = RunFolder(sparse_path(folder, settings))
    for method in PREFERRED:
        named = settings.model_copy(update={"method": method})
        if has_forgetting(sparse, forgetting_name(request, method, after), named):
            return named
    opened = OpenedRun.of(sparse if after else folder, None).following(after)
    return with_method(opened.run, request, settings)


@on_run
def audit(
    folder: RunFolder,
    request: ForgetRequest,
    methods: Sequence[str],
    settings: AuditSettings,
    observer: Observer | None = None,
    grid: Grid | None = None,
    after: str = "",
) -> AuditReport:
    """Measure what methods left of the forgotten data, against retraining without it.

    Retrains first if that was not done for this request; writes ``audit.json`` into each method's folder, and
    the certificate anew. After an earlier forgetting, all models are also measured on what that forgot.

    Raises
    ------
    BadInput
        If a method has not been run for the request, or the request is not one of this run.
    """
    opened = OpenedRun.of(folder, observer).following(after).auditing(settings)
    requirements.check_request(opened.run, request, "retrain", opened.session.config.forget)
    for method in methods:
        requirements.find_method(method)
        if method != "retrain":
            opened.check_made(request, method)
    inexact = [method for method in methods if method != "retrain"]
    if settings.shadows:
        shadows.check_shadows(opened.run, folder, request, after)
    with recorded(folder, opened.session.config, "audit", request.name, opened.observer) as recorder:
        opened = replace(opened, observer=recorder)
        made = opened.shadows(request, inexact, settings.shadows if inexact else 0, grid)
        with opened.session.cohort(grid) as cohort:
            cohort.tell(recorder.answered)
            report = opened.audit(request, methods, settings, cohort, made)
        recorder.results(
            {each: results_of_audit(method_audit(report, each, opened.run.task)) for each in methods}
        )
    return report
