"""Retrainings with other seeds: they all differ, and their distance is the scale for other methods."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from app.workflows.session import Session
from strategies.runs.folder import OTHER_SEED
from strategies.runs.tensor_file import read_sealed, write_sealed
from strategies.server.cohort import Cohort
from unlearning import forgetting
from unlearning.audit.audit import AuditedModel, AuditReport
from unlearning.holdings import ask_holdings
from unlearning.methods.base import Progress
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun

PREFIX = OTHER_SEED
"""Begins the name of such a model in an audit; the seed follows."""
ENDING = ".safetensors"
MOST_REUSED = 4
"""Retrainings with other seeds that an audit measures, where more than it asks for are there already."""


def seeds_of(run: TrainedRun, count: int) -> list[int]:
    """Return the seeds of `count` retrainings: those that follow the run's own.

    -1 means one if it costs nothing but time. It is impossible if clients have models of their own, and if
    the run is private it would be another release, which ε does not count.
    """
    if count < 0:
        count = 0 if run.client_models or run.personal_models or run.privacy is not None else 1
    return [run.seed + number for number in range(1, count + 1)]


def with_seed(run: TrainedRun, session: Session, seed: int) -> TrainedRun:
    """Return a run that starts from other weights and selects other clients, on the same data.

    A pruned run keeps its initial weights: a mask fits those that it was found with, and others train badly
    on it (Frankle and Carbin, ICLR 2019, arXiv 1803.03635, section 2).
    """
    plan = replace(run.plan, seed=seed)
    if run.mask is not None:
        return replace(run, plan=plan)
    initial = run.layout.flatten(session.model_of(seed).state_dict())
    return replace(run, plan=plan, initial=initial, all_groups=True)


def kept_seeds(folder: Path) -> list[int]:
    """Return the seeds of the retrainings that lie beside the one with the run's own seed, ascending."""
    names = [
        path.name.removeprefix(PREFIX).removesuffix(ENDING) for path in folder.glob(f"{PREFIX}*{ENDING}")
    ]
    return sorted(int(name) for name in names if name.isdecimal())


@dataclass(frozen=True)
class OtherSeed:
    """A run retrained for a request with another seed, which is made once and kept.

    Parameters
    ----------
    folder
        That of the model retrained with the run's own seed, beside which it lies.
    run
        The run.
    seed
        Decides the weights, the selection and the clients' batches.
    """

    folder: Path
    run: TrainedRun
    seed: int

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / f"{PREFIX}{self.seed}{ENDING}"

    def read(self) -> AuditedModel | None:
        """Return it; None if it was not made yet."""
        if not self.path.exists():
            return None
        found = read_sealed(self.path)
        seconds = found.metadata.get("seconds")
        return AuditedModel(
            self.run.layout.flatten(found.tensors), None if seconds is None else float(seconds)
        )

    def made(
        self,
        session: Session,
        request: ForgetRequest,
        cohort: Cohort,
        progress: Progress,
        *,
        timed: bool = True,
    ) -> AuditedModel:
        """Return it, made if necessary with all clients, which are the cohort.

        With `timed`, its wall-clock is its own; if not, as where several are made together, it is unknown.
        """
        if (found := self.read()) is not None:
            return found
        run, settings = self.run, session.config.forget
        holdings, seeded = ask_holdings(run, request, cohort), cohort.seeded(self.seed)
        other = with_seed(run, session, self.seed)
        result = forgetting.forget(other, request, "retrain", settings, seeded, progress, holdings)
        known = {"seconds": repr(result.seconds)} if timed else {}
        write_sealed(self.path, run.layout.unflatten(result.flat), known)
        return AuditedModel(result.flat, result.seconds if timed else None)


def scale(report: AuditReport) -> dict[str, Mapping[str, float | None]]:
    """Return how far the retrainings with other seeds are from the one with the run's own seed, by name."""
    return {
        name: {
            "disparity": comparison.disparity,
            "disparity_without_mia": comparison.disparity_without_mia,
            "parameter_distance": comparison.parameter_distance,
            "last_layer_angle": comparison.last_layer_angle,
        }
        for name, comparison in report.comparisons.items()
        if name.startswith(PREFIX)
    }
