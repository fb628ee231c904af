"""A class for each pixel."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional

from strategies.task import CLASSIFICATION, FULL_SCORE, OutputSpec, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


@final
class Segmentation(Task):
    """One class of each pixel: outputs [n, classes, h, w] are logits; targets [n, h, w] are labels, int64.

    Parameters
    ----------
    ignore
        Label of pixels that count neither way.
    """

    name = "segmentation"
    meaning = "a logit of each class in each pixel; the largest is the pixel's class"
    vectors = False
    least_outputs = 2

    def __init__(self, ignore: int = 255) -> None:
        self._ignore = ignore

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy over the pixels that count, shape [n]; 0 where none does."""
        each = functional.cross_entropy(outputs, targets, ignore_index=self._ignore, reduction="none")
        return self._mean(each, targets)

    def combined(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return logits whose softmax is the mean of the models' probabilities in each pixel."""
        return CLASSIFICATION.combined(outputs)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the most likely class of each pixel, shape [n, h, w], int64."""
        return outputs.argmax(dim=1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probability of each class in each pixel, shape [n, classes, h, w]."""
        return outputs.softmax(dim=1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the intersection over union of each image in percent, shape [n].

        It is the mean over the classes that the image or its prediction has; 100 if no pixel counts.
        """
        counted = targets != self._ignore
        labels = range(outputs.shape[1])
        truth, found = (
            torch.stack([(each == label) & counted for label in labels], dim=1).flatten(2)
            for each in (targets, self.predict(outputs))
        )
        both, either = (truth & found).sum(dim=2), (truth | found).sum(dim=2)  # [n, classes]
        present = (either > 0).sum(dim=1)
        shares = (both / either.clamp(min=1)).sum(dim=1) / present.clamp(min=1)
        return FULL_SCORE * torch.where(present > 0, shares, 1.0).float()

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the pixels that count of log p − log(1 − p), shape [n], float32."""
        classes = outputs.shape[1]
        labels = targets.where(targets != self._ignore, 0)
        pixels = CLASSIFICATION.margins(outputs.movedim(1, -1).reshape(-1, classes), labels.flatten())
        return self._mean(pixels.view(targets.shape), targets)

    def divergences(self, outputs: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean over the pixels of KL(softmax(reference / T) ‖ softmax(outputs / T)), nats, [n]."""
        return CLASSIFICATION.divergences(outputs, reference, temperature).flatten(1).mean(dim=1)

    def metrics(self, num_outputs: int) -> "Mapping[str, Metric]":
        """Return intersection over union of all pixels, the mean and of each class, and the pixels right."""
        from torchmetrics import classification as of

        return {
            "iou": of.MulticlassJaccardIndex(num_outputs, ignore_index=self._ignore),
            "iou-each": of.MulticlassJaccardIndex(num_outputs, ignore_index=self._ignore, average=None),
            "pixel-accuracy": of.MulticlassAccuracy(num_outputs, average="micro", ignore_index=self._ignore),
        }

    @property
    def headline(self) -> str:
        """The intersection over union of all pixels, as papers have it."""
        return "iou"

    def outputs(self, spec: OutputSpec) -> int:
        """Return the number of classes of pixels."""
        return spec.num_groups

    def _mean(self, pixels: Tensor, targets: Tensor) -> Tensor:
        counted = targets != self._ignore
        return (pixels * counted).flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp(min=1)
