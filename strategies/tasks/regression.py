"""Numbers that are predicted."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor

from strategies.core.errors import BadInput
from strategies.task import FULL_SCORE, OutputSpec, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


@final
class Regression(Task):
    """One number of each example, or several: outputs and targets have shape [n, k], or [n] for one.

    Where there are several, losses and scores are of the mean over them.

    Parameters
    ----------
    scale
        Residual from which on the score is 0, in units of the target; 0: not known, and nothing is scored.
    num_outputs
        k.
    squared_error
        ``half`` or ``full``: the loss is ½ r² or r².
    """

    name = "regression"
    judges_each = True
    meaning = "the predicted numbers"

    def __init__(
        self, scale: float = 0.0, num_outputs: int = 1, squared_error: Literal["half", "full"] = "half"
    ) -> None:
        self.scale = scale
        self._num_outputs = num_outputs
        self._squared_error: Literal["half", "full"] = squared_error
        self._factor = {"half": 0.5, "full": 1.0}[squared_error]

    def scaled(self, scale: float) -> "Regression":
        """Return the same with another scale."""
        return Regression(scale, self._num_outputs, self._squared_error)

    def residuals(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return outputs minus targets, shape [n, k]; BadInput if they are not equally many."""
        given, wanted = _rows(outputs), _rows(targets)
        if given.shape != wanted.shape:
            raise BadInput(
                f"task.outputs: the model gives {given.shape[1]} numbers of each example, the targets have "
                f"{wanted.shape[1]}"
            )
        return given - wanted.to(given.dtype)

    def check_scale(self) -> None:
        """Refuse to score without a scale."""
        if self.scale <= 0:
            raise BadInput(
                "task.scale: given 0, and the server has no data to take it from; allowed the residual, "
                'above 0, from which on the score is 0, or task.scale-from = "federated"'
            )

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ½ r², or r², of each example, shape [n]."""
        return self._factor * self.residuals(outputs, targets).square().mean(dim=1)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the numbers, shape [n], or [n, k] if there are several."""
        rows = _rows(outputs)
        return rows.squeeze(1) if rows.shape[1] == 1 else rows

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 100 · (1 − min(1, r² / scale²)), shape [n]; BadInput where the scale is not known."""
        self.check_scale()
        squares = self.residuals(outputs, targets).square().mean(dim=1) / self.scale**2
        return FULL_SCORE * (1 - squares.clamp(max=1)).float()

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the residual, with its sign, which is near Gaussian; of several the mean, shape [n]."""
        return self.residuals(outputs, targets).mean(dim=1).float()

    def confidences(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return minus the size of the residual, the root mean square of several, shape [n], float32."""
        return -self.residuals(outputs, targets).square().mean(dim=1).sqrt().float()

    def divergences(self, outputs: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean squared difference, in units of the scale where it is known, shape [n]."""
        return super().divergences(outputs, reference) / (self.scale or 1.0) ** 2

    def expected_targets(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, number by number, the target that lies one standard deviation below it.

        Squared error is the likelihood of independent Gaussian noise, of variance 1 for ½ r² and ½ for r²:
        the expected square of a gradient is that at one standard deviation, summed over the numbers.
        """
        believed = _rows(outputs).double()
        for place in range(believed.shape[1]):
            targets = believed.clone()
            targets[:, place] -= (0.5 / self._factor) ** 0.5
            yield torch.ones(len(outputs), dtype=torch.float64), targets

    def curvature(self, num_outputs: int) -> float:
        """Return 1 / k for ½ r², or 2 / k for r²."""
        return 2 * self._factor / num_outputs

    def metrics(self, num_outputs: int) -> "Mapping[str, Metric]":
        """Return the coefficient of determination and the mean absolute and root mean square residual."""
        from torchmetrics import regression as of

        return {
            "r2": of.R2Score(),
            "rmse": of.MeanSquaredError(squared=False),
            "mae": of.MeanAbsoluteError(),
        }

    @property
    def headline(self) -> str:
        """R², which needs no scale."""
        return "r2"

    def judged(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers and the targets, in float64."""
        return self.predict(outputs).double(), self.predict(targets).double()

    def outputs(self, spec: OutputSpec) -> int:
        """Return k."""
        return self._num_outputs


def _rows(values: Tensor) -> Tensor:
    return values.unsqueeze(1) if values.dim() == 1 else values.flatten(1)
