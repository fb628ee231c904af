"""A finished run, opened for forgetting and audits: the steps that the workflows are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.serverapp import Grid
from torch import Tensor

from app.client.audit_answers import check_answers
from app.forgettings.certify import certify
from app.forgettings.folder import (
    forgetting_name,
    is_retrained,
    lineage_of,
    read_audit,
    read_forgetting,
    read_result,
)
from app.forgettings.lineage import warnings_of
from app.forgettings.names import AUDIT, CERTIFICATE, RESULT
from app.forgettings.signing_key import signing_key
from app.report.triggered import write_triggered
from app.simulation.kept_models import keep_states, restore_states
from app.workflows import other_seeds, session as sessions
from app.workflows.measured import Tries, method_audit, triggered_images, with_earlier
from app.workflows.observer import Observer, Quiet
from app.workflows.other_seeds import OtherSeed
from app.workflows.pruning import Preparation, prune
from app.workflows.session import Session
from app.workflows.trained import open_trained_run
from strategies.core.errors import BadInput, RunCorrupt
from strategies.models.mask import flat_mask_of, masks_in
from strategies.runs import files
from strategies.runs.folder import MODEL, PRUNING, RunFolder
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting, requirements
from unlearning.audit.audit import AuditedModel, AuditReport, audit as audit_models
from unlearning.audit.measurement import Measurement
from unlearning.audit.relearning import Relearned, Relearning
from unlearning.audit.rounding import measure_rounded
from unlearning.audit.shadow_attack import ShadowFindings
from unlearning.holdings import ask_holdings
from unlearning.methods import METHODS
from unlearning.methods.base import Progress
from unlearning.pruning import sparse_path
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.settings import AuditSettings, ForgetSettings
from unlearning.spending import spent_notes

Attack = Callable[[Mapping[str, Measurement]], Mapping[str, ShadowFindings | None]]
MASK = "mask.safetensors"
"""Name of the file in a forgetting's folder with its own mask, where it chose one."""


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
            final = run.layout.vector_of(read_sealed(earlier.model_path).tensors)
            forgotten = (*earlier.forgotten, earlier.request)
            own_mask = own_mask_of(earlier.path, run)
            lineage = lineage_of(self.folder, after)
            run = replace(
                run,
                final=final,
                train_seconds=earlier.seconds,
                forgotten=forgotten,
                lineage=lineage,
                all_groups=not is_retrained(self.folder, after),
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
        progress = reporting_to(self.observer, title_of(method, request, settings))
        keeps_states = self.run.client_models or self.run.personal_models
        if keeps_states and cohort is not None:
            restore_states(self.folder, cohort.grid, besides=name)
            cohort = cohort.on_lineage(name)
        holdings = None if cohort is None else ask_holdings(self.run, request, cohort)
        result = forgetting.forget(self.run, request, method, settings, cohort, progress, holdings)
        path = self.folder.forget_folder(name)
        (path / CERTIFICATE).unlink(missing_ok=True)
        replaced = () if self._is_again(path, result.flat) else _replacing(path, name)
        write_sealed(path / MODEL, self.run.layout.unflatten(result.flat))
        if result.mask is not None:
            write_sealed(path / MASK, masks_in(result.mask, self.run.layout))
        if keeps_states and cohort is not None:
            keep_states(path, cohort.grid, name)
        before = {"after": self.after, "forgotten": [each.to_json() for each in self.run.forgotten]}
        document = self._with_preparation(result.to_json())
        document["notes"] = [*document["notes"], *replaced]
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
        return torch.equal(self.run.layout.vector_of(read_sealed(path / MODEL).tensors), flat)

    def audit(
        self,
        request: ForgetRequest,
        methods: Sequence[str],
        settings: AuditSettings,
        cohort: Cohort,
        attack: Attack = lambda measured: {},
    ) -> AuditReport:
        """Measure models that were made for a request; retrain first if necessary.

        `attack` says what shadow models tell of each method, given what was measured.
        """
        key = self.key()
        self.retrain(request, cohort)
        spent = self.run.spending.known()
        if self.run.client_models:
            restore_states(self.folder, cohort.grid)
        holdings = ask_holdings(self.run, request, cohort)
        models = {"before": AuditedModel(self.run.final, self.run.train_seconds, self.run.lineage)}
        models |= {method: self.left_by(request, method) for method in [*methods, "retrain"]}
        models |= self._with_kept(request, self.other_seeds(request, settings.seeds, cohort))
        self.observer.phase(f"audit {request.name}", 1)
        run = self._run_of_masks(methods)
        report = audit_models(run, request, models, cohort, settings)
        report = replace(report, notes=(*holdings.warnings, *report.notes, *holdings.notes))
        self.observer.advance("measured")
        attacked = attack(report.measurements)
        tried = (
            {} if run.client_models else {name: models[name].flat for name in ("before", *methods, "retrain")}
        )
        rounded = measure_rounded(run, tried, request, cohort, settings)
        relearned = self._relearned(run, request, settings.relearn, report, tried, cohort)
        report = replace(report, notes=(*report.notes, *spent_notes(run, spent)))
        for method in methods:
            path = self.folder.forget_folder(self.name_of(request, method))
            tries = Tries(attacked.get(method), rounded, relearned.get(method))
            document = with_earlier(method_audit(report, method, run.task, tries), read_audit(path))
            files.write_json(path / AUDIT, document)
            certify(self.folder, path.name, key)
            names = {"before": "before", "after": method, "retrain": "retrain"}
            shown = {role: models[name].flat for role, name in names.items()}
            if images := triggered_images(run, shown):
                write_triggered(path, images)
        for note in report.notes:
            self.observer.note(note)
        return report

    def _run_of_masks(self, methods: Sequence[str]) -> TrainedRun:
        """Return the run without its mask where a method makes another: each model has its own zeros then."""
        anew = any(METHODS[method].prunes_anew for method in methods)
        return replace(self.run, mask=None) if anew else self.run

    def _relearned(
        self,
        run: TrainedRun,
        request: ForgetRequest,
        most: int,
        report: AuditReport,
        models: Mapping[str, Tensor],
        cohort: Cohort,
    ) -> dict[str, Relearned]:
        """Return how fast models relearn what was forgotten, by method; nothing if it is not to be tried."""
        original = report.measurements["before"].unlearning_accuracy
        if not most or original is None:
            return {}
        found = {}
        for name, flat in models.items():
            if name != "before":
                progress = reporting_to(self.observer, f"relearn {request.name} after {name}")
                found[name] = Relearning(run, request, original, cohort, most, progress=progress).rounds(flat)
        return {name: Relearned(most, rounds, found["retrain"]) for name, rounds in found.items()}

    def other_seeds(self, request: ForgetRequest, count: int, cohort: Cohort) -> dict[str, AuditedModel]:
        """Return retrainings for a request with other seeds, by their name in an audit."""
        if count > 0 and self.run.client_models:
            raise BadInput(
                f"audit.seeds: given {count}, but other seeds need one model that all clients share"
            )
        return {
            f"{other_seeds.PREFIX}{seed}": self.retrained_with(request, seed, cohort)
            for seed in other_seeds.seeds_of(self.run, count)
        }

    def _with_kept(
        self, request: ForgetRequest, others: Mapping[str, AuditedModel]
    ) -> dict[str, AuditedModel]:
        """Return retrainings with other seeds, and some that earlier audits made; none if none is given."""
        found = dict(others)
        for seed in other_seeds.kept_seeds(self._retraining(request)) if others else ():
            kept = self.kept_retraining(request, seed)
            if kept is not None and len(found) < other_seeds.MOST_REUSED:
                found.setdefault(f"{other_seeds.PREFIX}{seed}", kept)
        return found

    def retrain(self, request: ForgetRequest, cohort: Cohort) -> None:
        """Serve a request by retraining, if that was not done."""
        if not (self._retraining(request) / RESULT).exists():
            self.forget(request, "retrain", self.session.config.forget, cohort)

    def retrained_with(
        self, request: ForgetRequest, seed: int, cohort: Cohort, *, timed: bool = True
    ) -> AuditedModel:
        """Return the retraining for a request with another seed; made once and kept.

        Without `timed`, its wall-clock is not its own alone.
        """
        progress = reporting_to(self.observer, f"{other_seeds.PREFIX}{seed} {request.name}")
        other = self._other_seed(request, seed)
        return other.made(self.session, request, cohort, progress, timed=timed)

    def kept_retraining(self, request: ForgetRequest, seed: int) -> AuditedModel | None:
        """Return the retraining for a request with another seed; None if it was not made yet."""
        return self._other_seed(request, seed).read()

    def _other_seed(self, request: ForgetRequest, seed: int) -> OtherSeed:
        return OtherSeed(self._retraining(request), self.run, seed)

    def _retraining(self, request: ForgetRequest) -> Path:
        return self.folder.forget_folder(self.name_of(request, "retrain"))

    def check_made(self, request: ForgetRequest, method: str) -> None:
        """Raise `BadInput` if a request was not served by a method."""
        if not (self.folder.path / "forget" / self.name_of(request, method) / RESULT).exists():
            raise BadInput(
                f"run '{self.folder.name}': {request.name} was not forgotten by {method}; do that first"
            )

    def left_by(self, request: ForgetRequest, method: str) -> AuditedModel:
        """Return what a method left when it served a request."""
        path = self.folder.forget_folder(self.name_of(request, method))
        flat = self.run.layout.vector_of(read_sealed(path / MODEL).tensors)
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


def title_of(method: str, request: ForgetRequest, settings: ForgetSettings) -> str:
    """Return the title of a method's progress; where data say when to stop, the steps are a cap."""
    by_rule = METHODS[method].needs(settings).held_out
    return f"{method} {request.name}, at most" if by_rule else f"{method} {request.name}"


def _replacing(path: Path, name: str) -> tuple[str, ...]:
    """Remove what was measured of another model in a forgetting's folder; return a note if there was one."""
    if not (path / MODEL).exists():
        return ()
    audited = (path / AUDIT).exists()
    (path / AUDIT).unlink(missing_ok=True)
    gone = "that model and its audit are gone" if audited else "that model is gone"
    return (f"this replaces an earlier {name}, which had given another model: {gone}",)


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
