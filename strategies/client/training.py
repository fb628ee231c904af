"""What happens on a client: seeded mini-batches, an optimiser, and a place to adjust gradients.

A strategy's client half is a function from a `ClientJob` to a `LocalResult`; most of them call `local_train`
with a gradient adjustment of their own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples
from strategies.models.neurons import Group
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task

_CHUNK = 512
"""Examples per forward pass of a full-batch gradient."""

GradientAdjustment = Callable[[Sequence[nn.Parameter]], None]
"""Called between backward pass and optimiser step with the trainable parameters; changes their `.grad`."""


@dataclass(frozen=True)
class TrainStats:
    """Optimiser steps taken and the mean loss over them (0.0 when there were none)."""

    num_steps: int
    mean_loss: float


class Trainer(Protocol):
    """What trains a model in place on a client, as `local_train` does."""

    def __call__(
        self,
        model: nn.Module,
        examples: Examples,
        settings: TrainSettings,
        generator: torch.Generator,
        *,
        num_steps: int | None = None,
        adjust: GradientAdjustment | None = None,
        task: Task = CLASSIFICATION,
    ) -> TrainStats:
        """Train; see `local_train`."""


class Scorer(Protocol):
    """What scores hidden neurons by a client's own examples, so that the scores may be acted upon openly."""

    def __call__(
        self,
        model: nn.Module,
        groups: Sequence[Group],
        examples: Examples,
        generator: torch.Generator,
        task: Task = CLASSIFICATION,
    ) -> Sequence[Tensor]:
        """Return a score for each neuron of each group, shape [size] each."""


@dataclass(frozen=True)
class ClientJob:
    """All that a client half is given.

    Parameters
    ----------
    model
        Holds the global parameters and is on the device to use; the client half may train it in place.
    examples
        The client's own data, on the CPU, without what it was told to leave out.
    train, strategy
        Settings of local training and of the strategy.
    client_id
        The client's stable name.
    server_round
        From 1.
    generator
        Seeded by run, client and round.
    trainer
        Trains the model on the examples; None: `local_train`. A client half must train with nothing else,
        so that what trains privately can take its place.
    keep
        Share of the neurons of every hidden layer that the client is to choose by its own data; neutral 0:
        none, the model is trained as it is.
    scorer
        Scores them; None: nothing may be chosen by the examples.
    state
        What the client keeps between messages, changed in place; empty where nothing is kept.
    received
        The message itself, for client halves that are sent more than a model.
    course
        Name of the course of training that the message belongs to; empty: the run's own.
    examples_of
        Returns the examples of any client, by client-id, where they lie in one place; None: they do not.
    task
        What is learned.
    """

    model: nn.Module
    examples: Examples
    train: TrainSettings
    strategy: StrategySettings
    client_id: str
    server_round: int
    generator: torch.Generator
    trainer: Trainer | None = None
    keep: float = 0.0
    scorer: Scorer | None = None
    state: RecordDict = field(default_factory=RecordDict)
    received: RecordDict = field(default_factory=RecordDict)
    course: str = ""
    examples_of: Callable[[str], Examples] | None = None
    task: Task = CLASSIFICATION

    @property
    def learning_rate(self) -> float:
        """The round's learning rate."""
        return self.train.in_round(self.server_round).learning_rate

    def train_model(
        self,
        model: nn.Module,
        *,
        num_steps: int | None = None,
        adjust: GradientAdjustment | None = None,
    ) -> TrainStats:
        """Train a model on the job's examples with the job's trainer; see `local_train`."""
        trainer = self.trainer or local_train
        return trainer(
            model,
            self.examples,
            self.train.in_round(self.server_round),
            self.generator,
            num_steps=num_steps,
            adjust=adjust,
            task=self.task,
        )


@dataclass(frozen=True)
class LocalResult:
    """What a client half returns: the trained model, the weight of its update, and numbers about the work.

    Parameters
    ----------
    model
        As trained; where a part of the job's model was trained, that part.
    num_examples
        The weight of the update.
    metrics
        Numbers about the work.
    start
        What the model was before training, as one vector; None: what the job's model was.
    records
        Further records of the reply that have the model's layout, by name, shape [size] each.
    positions
        Which neurons the client chose (see `strategies.models.subnetwork.pack_kept`); empty where it chose
        none.
    """

    model: nn.Module
    num_examples: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    start: Tensor | None = None
    positions: bytes = b""
    records: Mapping[str, Tensor] = field(default_factory=dict)


ClientHalf = Callable[[ClientJob], LocalResult]


def planned_steps(num_examples: int, settings: TrainSettings) -> int:
    """Return how many optimiser steps the settings ask of a client with that many examples.

    Examples
    --------
    >>> planned_steps(100, TrainSettings(batch_size=32, local_epochs=2))
    8
    """
    return settings.local_steps or settings.local_epochs * math.ceil(num_examples / settings.batch_size)


def batches(
    num_examples: int, batch_size: int, num_steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield `num_steps` index batches, going through a fresh permutation in every epoch.

    Parameters
    ----------
    num_examples
        At least 1.
    batch_size
        The last batch of an epoch may be smaller.
    num_steps
        Number of batches in all.
    generator
        On the CPU.
    """
    done = 0
    while done < num_steps:
        for batch in torch.split(torch.randperm(num_examples, generator=generator), batch_size):
            yield batch
            done += 1
            if done == num_steps:
                return


def make_optimizer(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name, in torch's fused form."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, settings.momentum, weight_decay=decay, fused=True)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def local_train(
    model: nn.Module,
    examples: Examples,
    settings: TrainSettings,
    generator: torch.Generator,
    *,
    num_steps: int | None = None,
    adjust: GradientAdjustment | None = None,
    task: Task = CLASSIFICATION,
) -> TrainStats:
    """Train a model in place on labelled examples, in mini-batches.

    Parameters
    ----------
    model
        On any device.
    examples
        At least one; moved to the model's device once.
    settings
        Optimiser, batch size, epochs or steps.
    generator
        Draws the batches; on the CPU.
    num_steps
        Instead of the settings' own; 0 leaves the model as it is.
    adjust
        Changes the gradients before each step; None for plain training.
    task
        What is learned.

    Raises
    ------
    ValueError
        If there is no example.
    """
    if not len(examples):
        raise ValueError("local training needs at least one example")
    parameters = [p for p in model.parameters() if p.requires_grad]
    steps = planned_steps(len(examples), settings) if num_steps is None else num_steps
    if steps == 0:
        return TrainStats(0, 0.0)
    device = parameters[0].device
    data = examples.to(device)
    optimizer = make_optimizer(parameters, settings)
    model.train()
    total = torch.zeros((), device=device)
    for index in batches(len(data), settings.batch_size, steps, generator):
        inputs, targets = data.batch(index)
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(task.forward(model, inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        if adjust is not None:
            adjust(parameters)
        optimizer.step()
        total += loss.detach()
    return TrainStats(steps, float(total) / steps)


def proximal_adjustment(anchor: Sequence[Tensor], mu: float) -> GradientAdjustment:
    """Return the adjustment that adds μ (w − anchor) to every gradient.

    Parameters
    ----------
    anchor
        The parameters that the round started from, in the order of the trainable parameters.
    mu
        At least 0; 0 changes nothing.
    """

    def adjust(parameters: Sequence[nn.Parameter]) -> None:
        for parameter, start in zip(parameters, anchor, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(parameter.detach() - start, alpha=mu)

    return adjust


def summed_gradient(
    model: nn.Module, parts: Sequence[Examples], coefficients: Sequence[float], task: Task = CLASSIFICATION
) -> None:
    """Put Σ_j c_j ∇L_j into the parameters' `.grad`, with L_j the summed loss of part j.

    Parameters
    ----------
    model
        On any device.
    parts, coefficients
        As many of both.
    task
        What is learned.
    """
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    model.train()
    for part, coefficient in zip(parts, coefficients, strict=True):
        for inputs, targets in part.to(device).batches(_CHUNK):
            loss = task.summed_loss(task.forward(model, inputs), targets)
            (coefficient * loss).backward()  # type: ignore[no-untyped-call]


def train_near(job: ClientJob, mu: float, num_steps: int | None = None) -> LocalResult:
    """Train a job's model with the proximal term (μ/2) ‖w − w_t‖².

    Parameters
    ----------
    job
        With the round's model w_t.
    mu
        At least 0; neutral 0.
    num_steps
        Instead of those of the job's settings.
    """
    anchor = [p.detach().clone() for p in job.model.parameters() if p.requires_grad]
    adjust = proximal_adjustment(anchor, mu) if mu > 0 else None
    stats = job.train_model(job.model, num_steps=num_steps, adjust=adjust)
    metrics = {wire.TRAIN_LOSS: stats.mean_loss, wire.NUM_STEPS: stats.num_steps}
    return LocalResult(job.model, len(job.examples), metrics)


def linear_adjustment(model: nn.Module, flat: Tensor, layout: wire.Layout) -> GradientAdjustment:
    """Return the adjustment that adds a vector to the gradients.

    Parameters
    ----------
    model
        Whose trainable parameters are adjusted, in their order.
    flat
        Shape [layout.size].
    layout
        Of the model.
    """
    entries = layout.unflatten(flat)
    terms = [entries[name].to(p.device) for name, p in model.named_parameters() if p.requires_grad]

    def adjust(parameters: Sequence[nn.Parameter]) -> None:
        for parameter, term in zip(parameters, terms, strict=True):
            parameter.grad = term.clone() if parameter.grad is None else parameter.grad.add_(term)

    return adjust


def joined(*adjustments: GradientAdjustment) -> GradientAdjustment:
    """Return the adjustment that makes several, one after the other."""

    def adjust(parameters: Sequence[nn.Parameter]) -> None:
        for each in adjustments:
            each(parameters)

    return adjust
