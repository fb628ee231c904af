"""What is learned: the loss, the score, and what outputs mean.

The one place that knows how a model's outputs are compared with targets. Training, evaluation, distillation,
forgetting and the audit take a `Task` and ask it; `CLASSIFICATION` is the one they take by default, and the
other built-in ones lie in `strategies.tasks`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn import functional

from strategies.core.examples import Inputs

if TYPE_CHECKING:
    from torchmetrics import Metric

FULL_SCORE = 100.0
"""What an output that is right scores."""
AUROC_THRESHOLDS = 200
"""Thresholds of a binned curve, whose counts add up over clients."""
_LARGEST = float(torch.finfo(torch.float32).max)
_REGISTER = 16
"""Numbers that a processor takes at once, at most: torch's softmax over a shorter row takes one by one."""


@dataclass(frozen=True)
class OutputSpec:
    """What decides the size of a model's last layer.

    Parameters
    ----------
    num_groups
        Number of groups of the data, such as classes; 0 where there are none.
    """

    num_groups: int


class Task(ABC):
    """What is learned. A task says how outputs are judged, in three members; the rest has defaults.

    Outputs have shape [n, ...] and targets shape [n, ...], with one example per row.

    Attributes
    ----------
    name
        For messages and documents.
    labelled
        Whether targets are class labels, shape [n], int64, as a backdoor and statistics of labels need them.
    judges_each
        Whether `judged` gives one row per example, so that what metrics count are examples: a client's counts
        must then add up to the examples that it claims.
    vectors
        Whether the outputs of an example are one vector, so that those of n have shape [n, k].
    least_outputs
        The smallest size of the last layer with which there is something to learn.
    figure
        What the mean of the scores is called.
    meaning
        What the outputs are, in words.
    """

    name: ClassVar[str] = "own"
    labelled: ClassVar[bool] = False
    judges_each: ClassVar[bool] = False
    vectors: ClassVar[bool] = True
    least_outputs: ClassVar[int] = 1
    figure: ClassVar[str] = "score"
    meaning: ClassVar[str] = "what the project's own task takes"

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape [n]."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Return what a user reads, such as a class or a number, shape [n, ...]."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how good each output is, from 0 to 100, shape [n]; its mean is the figure of a model."""

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return the probability of each class or label, shape [n, classes, ...]; None: the task has none."""
        return None

    def forward(self, model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
        """Return the model's outputs; inputs by name are passed as arguments by name."""
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)

    def combined(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return the outputs of models that answer together, from those of each; here the mean of these."""
        return torch.stack(list(outputs)).mean(dim=0)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the arithmetic mean of the losses, a scalar."""
        return self.losses(outputs, targets).mean()

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the losses, a scalar."""
        return self.losses(outputs, targets).sum()

    def weighted_gradients(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate Σ_j weight_j · loss_j by the outputs of k models, each for itself.

        Parameters
        ----------
        outputs, targets, weights
            Shapes [k, n, ...], [k, n, ...] and [k, n].

        Returns
        -------
        tuple
            The gradients, of the shape of the outputs, and the sums, shape [k].
        """

        def loss_of(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
            return (self.losses(outputs, targets) * weights).sum()

        gradients, sums = vmap(grad_and_value(loss_of))(outputs, targets, weights)
        return gradients.contiguous(), sums

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a number per example that is near Gaussian over models, shape [n], float32; minus the loss.

        The higher it is, the better the model knows the example.
        """
        return -self.losses(outputs, targets).float()

    def confidences(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how well the model knows each example, shape [n], float32: what tells members from others.

        The higher, the better; here the margins, which do for every task whose margins say so.
        """
        return self.margins(outputs, targets)

    def divergences(self, outputs: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
        """Return how far a model's outputs lie from a reference's, per example, shape [n].

        0 where the two agree; here the mean squared difference, which no temperature changes.
        """
        return (outputs - reference).square().flatten(1).mean(dim=1)

    def expected_targets(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (weights of shape [n], targets): the targets that the model believes in, and how much.

        Averages over the model's own targets, such as the Fisher information, are sums over these pairs. Here
        it believes in its prediction alone.
        """
        yield torch.ones(len(outputs), dtype=torch.float64), self.predict(outputs)

    def curvature(self, num_outputs: int) -> float | None:
        """Return a bound on the second derivatives of a loss in the outputs, if it is convex in them.

        It is the largest eigenvalue of the Hessian over all outputs and targets. None: the loss is not known
        to be convex, or to have such a bound.

        Parameters
        ----------
        num_outputs
            Size of the model's output.
        """
        return None

    def groups(self, targets: Tensor) -> Tensor | None:
        """Return the group of each example, shape [n], int64.

        An example may be of several: shape [n, groups], bool. None: there are none to partition or to forget
        by.
        """
        return None

    @property
    def has_groups(self) -> bool:
        """Whether examples have groups: where `groups` is written."""
        return type(self).groups is not Task.groups

    def metrics(self, num_outputs: int) -> "Mapping[str, Metric]":
        """Return further figures by name: metrics of torchmetrics whose states are sums.

        Sums over clients are those of all their data in one place, so that a metric of them is exact.

        Parameters
        ----------
        num_outputs
            Size of the model's output.
        """
        return {}

    @property
    def headline(self) -> str:
        """The name of the figure that a model is judged by, of `metrics`; here the mean of the scores."""
        return self.figure

    def judged(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `metrics` compare; here the predictions and the targets."""
        return self.predict(outputs), targets

    def outputs(self, spec: OutputSpec) -> int:
        """Return the size of the last layer of a built-in model; here the number of groups, at least 1."""
        return max(spec.num_groups, 1)


class Classification(Task):
    """One class of several: outputs are logits, shape [n, classes]; targets are labels, shape [n], int64."""

    name = "classification"
    labelled = True
    judges_each = True
    figure = "accuracy"
    meaning = "a logit of each class, in the order of classes; softmax makes probabilities"

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each example, shape [n]."""
        return functional.cross_entropy(outputs, targets, reduction="none")

    def combined(self, outputs: Sequence[Tensor]) -> Tensor:
        """Return logits whose softmax is the mean of the models' probabilities, shape [n, classes, ...]."""
        logs = torch.stack([functional.log_softmax(each, dim=1) for each in outputs])
        return logs.logsumexp(dim=0) - math.log(len(logs))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy; in one step, which is faster than the mean of many."""
        return functional.cross_entropy(outputs, targets)

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross-entropies."""
        return functional.cross_entropy(outputs, targets, reduction="sum")

    def weighted_gradients(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight_j · (softmax − one-hot), and the sums; by autograd if a subclass has other losses."""
        if type(self).losses is not Classification.losses:
            return super().weighted_gradients(outputs, targets, weights)
        few = outputs.shape[2] < _REGISTER
        outputs, along = (outputs.transpose(1, 2).contiguous(), 1) if few else (outputs, 2)
        labels = targets.unsqueeze(along)
        logs = torch.log_softmax(outputs, along)
        sums = (logs.gather(along, labels).squeeze(along) * weights).sum(dim=1).neg_()
        found = logs.exp_().scatter_add_(along, labels, torch.full_like(labels, -1.0, dtype=logs.dtype))
        found.mul_(weights.unsqueeze(along))
        return found.transpose(1, 2).contiguous() if few else found, sums

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the most likely class, shape [n], int64."""
        return outputs.argmax(dim=1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the softmax, in float64, where two logits do not become one number, shape [n, classes]."""
        return outputs.double().softmax(dim=1)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 100 where the most likely class is the label, else 0; their mean is the accuracy."""
        return FULL_SCORE * (self.predict(outputs) == targets).float()

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return φ = log p − log(1 − p), with p of the label, shape [n], float32.

        It is the logit of the label minus the log-sum-exp of the others, computed in float64: from a float32
        p, which is 1 above 1 − 6e-8, all examples that the model is sure of would have the same.
        """
        label = targets.unsqueeze(1)  # [n, 1]
        others = outputs.double().scatter(1, label, -torch.inf).logsumexp(dim=1)  # [n]
        found = outputs.double().gather(1, label).squeeze(1) - others
        return found.clamp(-_LARGEST, _LARGEST).float()

    def divergences(self, outputs: Tensor, reference: Tensor, temperature: float = 1.0) -> Tensor:
        """Return KL(softmax(reference / T) ‖ softmax(outputs / T)) of each example in nats, shape [n]."""
        log_model = functional.log_softmax(outputs / temperature, dim=1)
        log_reference = functional.log_softmax(reference / temperature, dim=1)
        return functional.kl_div(log_model, log_reference, reduction="none", log_target=True).sum(dim=1)

    def expected_targets(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every class with its probability, in float64."""
        probabilities = outputs.double().softmax(dim=1)  # [n, classes]
        for label in range(probabilities.shape[1]):
            yield probabilities[:, label], torch.full((len(outputs),), label)

    def curvature(self, num_outputs: int) -> float | None:
        """Return ½, which diag(p) − p pᵀ has at most; None if a subclass has other losses."""
        return 0.5 if type(self).losses is Classification.losses else None

    def groups(self, targets: Tensor) -> Tensor:
        """Return the labels."""
        return targets

    def metrics(self, num_outputs: int) -> "Mapping[str, Metric]":
        """Return macro F1, AUROC of each class against the others, and the confusion matrix."""
        from torchmetrics import classification as of

        return {
            "f1": of.MulticlassF1Score(num_outputs, average="macro"),
            "auroc": of.MulticlassAUROC(num_outputs, thresholds=AUROC_THRESHOLDS),
            "confusion": of.MulticlassConfusionMatrix(num_outputs),
        }

    def judged(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the labels."""
        return self.probabilities(outputs), targets

    def outputs(self, spec: OutputSpec) -> int:
        """Return the number of classes."""
        return spec.num_groups


CLASSIFICATION = Classification()
