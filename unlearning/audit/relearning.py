"""Relearning: how many rounds with the forgotten data back a model needs to know them as well as before.

A model that only hides what it learned relearns it faster than one that never had it. The effort of a
retrained model is the scale (see `unlearning.audit.metrics.relearn_effort`).
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from strategies.core import wire
from strategies.plan import RoundResult
from strategies.server.cohort import Cohort
from strategies.server.exclusion import Drop
from unlearning.audit import metrics
from unlearning.audit.gathering import Questions, gather
from unlearning.methods.base import Progress
from unlearning.request import ForgetRequest
from unlearning.run import TrainedRun
from unlearning.spending import train_after


class _Relearned(Exception):
    """Ends the rounds."""


@dataclass(frozen=True)
class Relearned:
    """How many rounds models needed to know the forgotten data as well as the model before.

    Parameters
    ----------
    most
        Rounds after which relearning was given up.
    after, retrained
        Rounds of the model after forgetting, and of the retrained one; None: more than `most`.
    """

    most: int
    after: int | None
    retrained: int | None

    def to_json(self) -> dict[str, int | None]:
        """Return the rounds as a mapping that `json` can write."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Relearning:
    """What relearning is measured with.

    Parameters
    ----------
    run, request
        The run whose rounds go on, and what was forgotten, and is back.
    original
        UA of the model before forgetting, in percent.
    cohort
        All clients, the forgotten ones included; those that the run had forgotten earlier stay out.
    max_rounds
        Rounds after which to give up.
    tolerance
        Points above `original` that count as relearned.
    progress
        Called after every round.
    """

    run: TrainedRun
    request: ForgetRequest
    original: float
    cohort: Cohort
    max_rounds: int
    tolerance: float = 1.0
    progress: Progress = field(default=lambda done, total, values: None)

    def rounds(self, flat: Tensor) -> int | None:
        """Return after how many rounds a model of shape [P] has relearned; None if not in `max_rounds`."""
        run, first = self.run, self.run.plan.rounds
        seen: list[float] = []

        def look(result: RoundResult, _: Strategy) -> None:
            seen.append(self._unlearning_accuracy(wire.flat_of(result.arrays, run.layout)))
            self.progress(result.round - first, self.max_rounds, {"unlearning-accuracy": seen[-1]})
            if self._relearned(seen) is not None:
                raise _Relearned

        seen.append(self._unlearning_accuracy(flat))
        if self._relearned(seen) is None:
            plan = replace(
                run.plan.going_on(self.max_rounds),
                federated_evaluation=False,
                drop=Drop.joined(request.drop for request in run.forgotten),
            )
            cohort = self.cohort.masked(run.mask).without(run.forgotten_clients)
            if run.plan.privacy.hides_updates:
                cohort = cohort.seeded(run.fresh_seed())
            with suppress(_Relearned):
                train_after(run, plan, cohort, flat, look, completed_rounds=first)
        return self._relearned(seen)

    def _relearned(self, seen: list[float]) -> int | None:
        return metrics.rounds_to_relearn(seen, self.original, self.tolerance)

    def _unlearning_accuracy(self, flat: Tensor) -> float:
        questions = Questions(
            self.request, self.run.layout, flat, earlier=self.run.forgotten, task=self.run.task
        )
        return metrics.unlearning_accuracy(gather(self.cohort, questions, "relearning").correct[0])
