"""Prune before forgetting, over a federation: which weights of a run's model are left, and where they start.

Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023,
arXiv 2304.04934, section 4: the error of approximate forgetting on a mask m is O(η²t ‖m ⊙ (θ_t − θ_0)‖₂
σ(m)), so prune first. The scores are those of `unlearning.central.prune`; training is that of the run, in
federated rounds, with the pruned weights of every client held at zero:

    omp      the run's final weights give the mask
    imp      the same in rounds of 20 %: train on the mask, prune, rewind to the initial weights
    synflow  the initial weights give the mask; no data, no client

What is trained on the mask, from the run's initial weights on, is a run of its own, and any method works on
it as on a dense one; `retrain` on the same mask is what the others are compared with.

Cost: no round (omp, synflow), or those of the run for every further pruning step (imp); and the training on
the mask, which is the caller's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.models.mask import flat_mask_of
from strategies.plan import RoundResult
from strategies.runs.files import read_json
from strategies.runs.folder import PRUNED, PRUNING, RunFolder
from strategies.server.cohort import Cohort
from unlearning.central.masks import Masks
from unlearning.central.prune import PruneSettings, imp_schedule, magnitude_masks, synflow_masks
from unlearning.run import TrainedRun
from unlearning.settings import ForgetSettings
from unlearning.spending import train_after

if TYPE_CHECKING:
    from unlearning.methods.base import Progress

CHOOSING = ("prune", "sparsity", "prune-iterations", "prune-round-share")
"""Keys of the section ``forget`` that choose a mask."""


@dataclass(frozen=True, eq=False)
class Pruning:
    """How a dense run is pruned: the settings are the section ``forget``, `input_shape` is of one example."""

    run: TrainedRun
    settings: ForgetSettings
    input_shape: tuple[int, ...]

    def mask(self, cohort: Cohort, progress: "Progress") -> Tensor:
        """Return which parameters are left, shape [P], bool; only ``imp`` asks the clients of the cohort."""
        run, settings = self.run, self._prune_settings
        if self.settings.prune == "synflow":
            masks = synflow_masks(run.model(run.initial), self.input_shape, settings)
        else:
            masks = self._by_magnitude(cohort, progress)
        return flat_mask_of(masks, run.layout)

    @property
    def num_rounds(self) -> int:
        """Federated rounds that `mask` takes."""
        return max(0, len(self._schedule) - 1) * self.run.plan.rounds

    @property
    def _prune_settings(self) -> PruneSettings:
        given = self.settings
        return PruneSettings(
            rate=given.sparsity, iterations=given.prune_iterations, round_rate=given.prune_round_share
        )

    @property
    def _schedule(self) -> Sequence[float]:
        """The sparsity after each pruning by magnitude; the first follows the run's own training."""
        settings = self._prune_settings
        if self.settings.prune == "imp":
            return imp_schedule(settings.rate, settings.round_rate)
        return [settings.rate] if self.settings.prune == "omp" else []

    def _by_magnitude(self, cohort: Cohort, progress: "Progress") -> Masks:
        run = self.run
        masks: Masks = {}
        for done, sparsity in enumerate(self._schedule):
            end = run.final if done == 0 else self._trained(masks, cohort, progress, done - 1)
            masks = magnitude_masks(run.model(end), sparsity, masks)
        return masks

    def _trained(self, masks: Masks, cohort: Cohort, progress: "Progress", trainings_before: int) -> Tensor:
        """Return the weights after training on masks from the run's initial weights, shape [P]."""
        run, mask = self.run, flat_mask_of(masks, self.run.layout)
        before = trainings_before * run.plan.rounds

        def report(result: RoundResult, _: Strategy) -> None:
            progress(before + result.round, self.num_rounds, result.metrics)

        if run.plan.privacy.hides_updates:
            cohort = cohort.seeded(run.fresh_seed())
        return train_after(run, run.plan, cohort.masked(mask), run.initial * mask, report)


def sparse_name(settings: ForgetSettings) -> str:
    """Return the name of the folder of a run pruned with these settings.

    Examples
    --------
    >>> sparse_name(ForgetSettings(prune="omp"))
    'omp-0.95'
    >>> sparse_name(ForgetSettings(prune="imp", sparsity=0.9, prune_round_share=0.5))
    'imp-0.9-0.5'
    """
    defaults = ForgetSettings()
    parts: list[object] = [settings.prune, settings.sparsity]
    if settings.prune == "synflow" and settings.prune_iterations != defaults.prune_iterations:
        parts.append(settings.prune_iterations)
    if settings.prune == "imp" and settings.prune_round_share != defaults.prune_round_share:
        parts.append(settings.prune_round_share)
    return "-".join(map(str, parts))


def sparse_path(folder: RunFolder, settings: ForgetSettings) -> Path:
    """Return the folder of the run that a method works on: that of the run itself if nothing is pruned."""
    return folder.path if settings.prune == "none" else folder.path / PRUNED / sparse_name(settings)


def read_pruning(folder: RunFolder) -> ForgetSettings | None:
    """Return the settings by which a run was pruned; None for a dense run, or if some are not known."""
    if not (folder.path / PRUNING).exists():
        return None
    stored = read_json(folder.path / PRUNING)
    settings = ForgetSettings.model_validate({key: stored[key] for key in CHOOSING if key in stored})
    return settings if sparse_name(settings) == folder.path.name else None
