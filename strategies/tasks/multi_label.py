"""Any number of labels for each example."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor
from torch.nn import functional

from strategies.task import AUROC_THRESHOLDS, FULL_SCORE, OutputSpec, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


@final
class MultiLabel(Task):
    """Each label is there or not: outputs are logits, shape [n, labels]; targets shape [n, labels], bool.

    The score of an example is the share of its labels that are right, in percent.
    """

    name = "multi-label"
    judges_each = True
    meaning = "a logit of each label, in the order of classes; above 0 it is more likely there than not"

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy of each example, the mean over its labels, shape [n]."""
        each = functional.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), reduction="none"
        )
        return each.mean(dim=1)

    def combined(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return logits whose sigmoid is the mean of the models' probabilities, shape [n, labels]."""
        logits = torch.stack(list(outputs))
        yes, no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        return yes.logsumexp(dim=0) - no.logsumexp(dim=0)

    def predict(self, outputs: Tensor) -> Tensor:
        """Return which labels are more likely there than not, shape [n, labels], bool."""
        return outputs > 0

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, in float64, shape [n, labels]."""
        return outputs.double().sigmoid()

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the share of the labels that are right, in percent, shape [n]."""
        return FULL_SCORE * (self.predict(outputs) == targets.bool()).float().mean(dim=1)

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the labels of log p − log(1 − p), with p of what is so, shape [n], float32."""
        return torch.where(targets.bool(), outputs, -outputs).float().mean(dim=1)

    def divergences(self, outputs: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
        """Return Σ over the labels of KL(reference ‖ outputs) of the two-valued distributions, nats, [n]."""
        ours, theirs = (
            torch.stack([functional.logsigmoid(z / temperature), functional.logsigmoid(-z / temperature)])
            for z in (outputs, reference)
        )
        return (theirs.exp() * (theirs - ours)).sum(dim=(0, 2))

    def expected_targets(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, label by label, the target whose squared gradient is that label's share of the expectation.

        The labels are independent, each residual with mean 0 and variance p (1 − p), so the expected square
        of a gradient is a sum over labels; one label's residual is its deviation here, all others' are 0.
        """
        probabilities = outputs.double().sigmoid()
        deviations = (probabilities * (1 - probabilities)).sqrt()
        for label in range(probabilities.shape[1]):
            targets = probabilities.clone()
            targets[:, label] -= deviations[:, label]
            yield torch.ones(len(outputs), dtype=torch.float64), targets

    def groups(self, targets: Tensor) -> Tensor:
        """Return the labels of each example, shape [n, labels], bool."""
        return targets.bool()

    def curvature(self, num_outputs: int) -> float:
        """Return 1 / (4 k), as p (1 − p) is at most ¼ and the loss is the mean over k labels."""
        return 0.25 / num_outputs

    def metrics(self, num_outputs: int) -> "Mapping[str, Metric]":
        """Return macro F1 and that of each label, macro AUROC, and the share of examples all right.

        A single label has the figures of a yes or no: there is nothing to take a mean of.
        """
        from torchmetrics import classification as of

        if num_outputs == 1:
            return {
                "f1": of.BinaryF1Score(),
                "auroc": of.BinaryAUROC(thresholds=AUROC_THRESHOLDS),
                "exact-match": of.BinaryAccuracy(),
            }
        return {
            "f1": of.MultilabelF1Score(num_outputs, average="macro"),
            "f1-each": of.MultilabelF1Score(num_outputs, average=None),
            "auroc": of.MultilabelAUROC(num_outputs, thresholds=AUROC_THRESHOLDS),
            "exact-match": of.MultilabelExactMatch(num_outputs),
        }

    @property
    def headline(self) -> str:
        """Macro F1: most labels of most examples are absent, and to predict none scores high."""
        return "f1"

    def judged(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities in float64, and the labels as numbers."""
        return self.probabilities(outputs), targets.long()

    def outputs(self, spec: OutputSpec) -> int:
        """Return the number of labels."""
        return spec.num_groups
