"""Tasks besides classification, for tests."""

from collections.abc import Callable

from torch import Tensor

from strategies.task import FULL_SCORE, OutputSpec, Task


class Regression(Task):
    """Half the squared residual of the one output; targets are numbers, whole where examples have classes."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return ½ (f(x) − y)², shape [n]."""
        return (outputs.squeeze(1) - targets).square() / 2

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the number, shape [n]."""
        return outputs.squeeze(1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 100 (1 − min(1, residual²)), shape [n]."""
        residuals = self.predict(outputs) - targets
        return FULL_SCORE * (1 - residuals.square().clamp(max=1))

    def outputs(self, spec: OutputSpec) -> int:
        """Return 1."""
        return 1


class OwnLoss(Regression):
    """Any function of the outputs as the loss."""

    def __init__(self, loss: Callable[[Tensor], Tensor]) -> None:
        self._loss = loss

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what the function makes of the outputs."""
        return self._loss(outputs)
