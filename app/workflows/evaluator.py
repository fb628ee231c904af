"""The server's evaluation of a model during training."""

from collections.abc import Mapping
from typing import Any, final

from flwr.app import ArrayRecord
from torch import nn

from app.workflows.judging import LOSS, VALIDATION
from strategies.client.backdoor import Trigger, triggered_test
from strategies.client.evaluation import evaluate_by
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.figures import Figures
from strategies.models import travelling
from strategies.server.evaluations import evaluation_json
from unlearning.audit.measurement import success_rate


@final
class Evaluator:
    """The server's evaluation: score, loss and metrics on test data, and the backdoor's success, if any.

    `model` is on the device to use, and its weights are overwritten; `test` has at least one example, and so
    has `validation`, by whose figures, which no other use is made of, rounds are judged; None: by nothing.
    `tables` holds the figures of the model that was evaluated last, with those by group, as plain data.
    """

    def __init__(
        self,
        model: nn.Module,
        test: Examples,
        figures: Figures,
        trigger: Trigger | None,
        validation: Examples | None = None,
    ) -> None:
        self._model, self._test, self._validation = model, test, validation
        self._figures = figures.confusing()
        self._layout = travelling.layout_of(model)
        wire.give_up(model, self._layout)
        self.tables: Mapping[str, Any] | None = None
        self._trigger = trigger
        self._triggered = None if trigger is None else triggered_test(test, trigger)

    def __call__(self, arrays: ArrayRecord) -> dict[str, float]:
        """Return the metrics of a model, by the names of metrics.jsonl."""
        with wire.lent(self._model, wire.flat_of(arrays, self._layout), self._layout):
            return self._measured()

    def _measured(self) -> dict[str, float]:
        result, sums = evaluate_by(self._figures, self._model, self._test)
        task = self._figures.task
        found = evaluation_json(self._figures, sums, {task.figure: result.accuracy, "loss": result.loss})
        self.tables = {"examples": result.num_examples, **found}
        metrics = {f"test-{name}": value for name, value in found["figures"].items()}
        if self._validation is not None:
            metrics |= self._judged(self._validation)
        if self._trigger is None or self._triggered is None:
            return metrics
        rate = success_rate(self._model, self._triggered, self._trigger.target, task)
        return metrics if rate is None else metrics | {"attack-success-rate": rate}

    def _judged(self, validation: Examples) -> dict[str, float]:
        """Return the figures by which rounds are judged, of the model that is loaded."""
        result, sums = evaluate_by(self._figures, self._model, validation)
        values = {self._figures.task.figure: result.accuracy, LOSS: result.loss, **self._figures.values(sums)}
        return {f"{VALIDATION}-{name}": value for name, value in values.items()}
