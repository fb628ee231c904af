"""What is learned: the loss, the score, and what outputs mean.

The one place that knows how a model's outputs are compared with targets. Training, evaluation, distillation,
forgetting and the audit take a `Task` and ask it; `CLASSIFICATION` is the one they take by default.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from strategies.core.examples import Inputs

FULL_SCORE = 100.0
"""What an output that is right scores."""
_LARGEST = float(torch.finfo(torch.float32).max)


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
    """What is learned. A task says how outputs are judged; what it leaves out has a default.

    Outputs have shape [n, ...] and targets shape [n, ...], with one example per row.
    """

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape [n]."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Return what a user reads, such as a class or a number, shape [n, ...]."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how good each output is, from 0 to 100, shape [n]; its mean is the figure of a model."""

    def forward(self, model: Callable[..., Tensor], inputs: Inputs) -> Tensor:
        """Return the model's outputs; inputs by name are passed as arguments by name."""
        return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the arithmetic mean of the losses, a scalar."""
        return self.losses(outputs, targets).mean()

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the losses, a scalar."""
        return self.losses(outputs, targets).sum()

    def margins(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return a number per example that is near Gaussian over models, shape [n], float32; minus the loss.

        The higher it is, the better the model knows the example.
        """
        return -self.losses(outputs, targets).float()

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

    def groups(self, targets: Tensor) -> Tensor | None:
        """Return the group of each example, shape [n], int64.

        None: there are none to partition or to forget by.
        """
        return None

    @abstractmethod
    def outputs(self, spec: OutputSpec) -> int:
        """Return the size of the last layer of a built-in model."""


@final
class Classification(Task):
    """One class of several: outputs are logits, shape [n, classes]; targets are labels, shape [n], int64."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each example, shape [n]."""
        return functional.cross_entropy(outputs, targets, reduction="none")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy; in one step, which is faster than the mean of many."""
        return functional.cross_entropy(outputs, targets)

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross-entropies."""
        return functional.cross_entropy(outputs, targets, reduction="sum")

    def predict(self, outputs: Tensor) -> Tensor:
        """Return the most likely class, shape [n], int64."""
        return outputs.argmax(dim=1)

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

    def groups(self, targets: Tensor) -> Tensor:
        """Return the labels."""
        return targets

    def outputs(self, spec: OutputSpec) -> int:
        """Return the number of classes."""
        return spec.num_groups


CLASSIFICATION = Classification()
