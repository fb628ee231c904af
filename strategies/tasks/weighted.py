"""Classification whose classes weigh differently, or whose labels are smoothed."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from strategies.core.errors import BadInput
from strategies.task import Classification, Task


@final
class WeightedClassification(Classification):
    """Cross-entropy with class weights and label smoothing.

    The loss of an example of class y is (1 − ε) w_y · −log p_y + ε / C · Σ_c w_c · −log p_c. Means are
    arithmetic ones, 1/n Σ, where torch divides by the sum of the weights: its mean over a batch depends on
    the labels in it, so that the means of batches, of clients and of private training would not agree.

    Parameters
    ----------
    weights
        By label; those left out are 1.
    smoothing
        ε in [0, 1).
    """

    def __init__(self, weights: Mapping[int, float], smoothing: float = 0.0) -> None:
        self._weights = dict(weights)
        self._smoothing = smoothing

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted cross-entropy of each example, shape [n]."""
        return functional.cross_entropy(
            outputs,
            targets,
            weight=self._weight(outputs),
            label_smoothing=self._smoothing,
            reduction="none",
        )

    def curvature(self, num_outputs: int) -> float:
        """Return ½ · ((1 − ε) max w + ε / C · Σ w): a weighted sum of cross-entropies of one softmax."""
        weights = self._weight(torch.zeros(1, num_outputs, dtype=torch.float64))
        return 0.5 * float((1 - self._smoothing) * weights.max() + self._smoothing * weights.mean())

    loss = Task.loss
    summed_loss = Task.summed_loss

    def _weight(self, outputs: Tensor) -> Tensor:
        weight = outputs.new_ones(outputs.shape[1])
        for label, factor in self._weights.items():
            if label >= len(weight):
                raise BadInput(
                    f"task.class-weights: given a weight of class {label}, the model has classes 0 to "
                    f"{len(weight) - 1}"
                )
            weight[label] = factor
        return weight
