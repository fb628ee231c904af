"""What happens on a client: seeded mini-batches, an optimiser, and a place to adjust gradients.

A strategy's client half is a function from a `ClientJob` to a `LocalResult`; most of them call `local_train`
with a gradient adjustment of their own.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from flwr.app import RecordDict
from torch import Tensor, nn

from strategies.client.precision import PRECISION, Precision, computed_in, forward
from strategies.client.settings import TrainSettings
from strategies.core import wire
from strategies.core.examples import Examples, Inputs
from strategies.models.neurons import Group
from strategies.settings import StrategySettings
from strategies.task import CLASSIFICATION, Task

_CHUNK = 512
"""Examples per forward pass of a full-batch gradient."""

Tensors = Sequence[Tensor]
"""One tensor for each trainable parameter, in their order; of several clients at once, along a first axis."""
GradientAdjustment = Callable[[Tensors, Tensors], Tensors]
"""From (parameters, gradients) to the gradients that the optimiser gets; changes neither."""
Batch = tuple[Inputs, Tensor]
"""Inputs and targets."""


@dataclass(frozen=True)
class TrainStats:
    """Optimiser steps taken and the mean loss over them (0.0 when there were none)."""

    num_steps: int
    mean_loss: float


class Trainer(Protocol):
    """Trains a model in place on a client, as `local_train` does."""

    def __call__(
        self,
        model: nn.Module,
        examples: Examples,
        settings: TrainSettings,
        generator: torch.Generator,
        *,
        rates: Sequence[float] | None = None,
        adjust: GradientAdjustment | None = None,
        task: Task = CLASSIFICATION,
    ) -> TrainStats:
        """Train; see `local_train`."""


class Scorer(Protocol):
    """Scores hidden neurons on a client's own examples; the scores may be released."""

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
    lineage
        Name of the lineage that the message belongs to; empty: the run's own.
    examples_of
        Returns the examples of any client, by client-id, where they lie in one place; None: they do not.
    rounds
        How many rounds the schedule of the learning rate lasts, at least 1.
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
    lineage: str = ""
    examples_of: Callable[[str], Examples] | None = None
    task: Task = CLASSIFICATION
    rounds: int = 1

    def rates(self, num_steps: int | None = None) -> list[float]:
        """Return the learning rate of each of the round's steps; None: as many as the settings plan."""
        steps = planned_steps(len(self.examples), self.train) if num_steps is None else num_steps
        return self.train.rates(self.server_round, self.rounds, steps)

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
            self.train,
            self.generator,
            rates=self.rates(num_steps),
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
    """Return the optimiser that the settings name, in torch's fused form where there is one."""
    optimizer = _optimizer(parameters, settings)
    if not all(parameter.is_contiguous() for parameter in parameters):
        optimizer.register_step_pre_hook(_order_gradients)
    return optimizer


def _optimizer(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            rate,
            settings.momentum,
            weight_decay=decay,
            nesterov=settings.nesterov,
            fused=True,
        )
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=decay)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, rate, weight_decay=decay, fused=True)


def _order_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Bring each gradient into the memory order of its parameter, such as channels last.

    Fused optimisers read both as they lie in memory, and compare no orders.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Have the next steps of an optimiser take another learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Tensors, settings: TrainSettings) -> None:
    """Scale the parameters' `.grad` down, together, to the norm that the settings allow, if they do."""
    if settings.max_gradient_norm > 0:
        nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm)


class Engine(Protocol):
    """Computes gradients and takes optimiser steps, for one client or for many at once."""

    def gradients(self, parameters: Tensors, batch: Batch) -> tuple[Tensors, Tensor]:
        """Return the gradients of the mean loss over a batch, and that loss."""

    def step(self, parameters: Tensors, gradients: Tensors, rate: float | None) -> Tensors:
        """Return the parameters after an optimiser step with a learning rate; None: the optimiser's own."""


@dataclass(frozen=True, eq=False)
class StepState:
    """An algorithm's part in local steps, a `GradientAdjustment`: ∇ becomes ∇ + μ (w − anchor) + correction.

    Parameters
    ----------
    anchor, mu
        Of the proximal term (μ/2) ‖w − anchor‖²; neutral μ = 0.
    correction
        Added to every gradient; empty: none.
    num_steps
        Instead of those of the section ``train``; None: those.
    before
        The model before the steps, as one vector, where it is needed after them.
    """

    anchor: Tensors = ()
    mu: float = 0.0
    correction: Tensors = ()
    num_steps: int | None = None
    before: Tensor = field(default_factory=lambda: torch.zeros(0))

    def __call__(self, parameters: Tensors, gradients: Tensors) -> Tensors:
        """Return the gradients with both terms."""
        if self.mu > 0:
            pairs = zip(parameters, self.anchor, gradients, strict=True)
            gradients = [g.add(w.detach() - a, alpha=self.mu) for w, a, g in pairs]
        if self.correction:
            gradients = [g + c for g, c in zip(gradients, self.correction, strict=True)]
        return gradients

    @property
    def adjustment(self) -> GradientAdjustment | None:
        """The state itself; None where it changes nothing."""
        return self if self.mu > 0 or self.correction else None


def local_steps(
    parameters: Tensors,
    drawn: Iterable[Batch],
    adjust: GradientAdjustment | None,
    engine: Engine,
    rates: Sequence[float] | None = None,
) -> tuple[Tensors, Tensor]:
    """Take one step per batch; return the parameters after them, and the sum of the losses.

    A pure function of its arguments as far as the engine is: `OneModel` steps in place, which is faster.

    Parameters
    ----------
    rates
        The learning rate of each step; None: the engine's own in all.
    """
    total = torch.zeros(())
    for number, batch in enumerate(drawn):
        gradients, loss = engine.gradients(parameters, batch)
        if adjust is not None:
            gradients = adjust(parameters, gradients)
        parameters = engine.step(parameters, gradients, None if rates is None else rates[number])
        total = loss if number == 0 else total + loss
    return parameters, total


@dataclass(frozen=True, eq=False)
class OneModel:
    """The engine of a single model, whose parameters change in place.

    Parameters
    ----------
    model
        In training mode.
    optimizer
        Of its trainable parameters.
    settings
        Say how long a gradient may be.
    """

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    settings: TrainSettings = field(default_factory=TrainSettings)

    def gradients(self, parameters: Tensors, batch: Batch) -> tuple[Tensors, Tensor]:
        """Differentiate; a parameter that the loss does not touch has a gradient of zero."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs, targets = batch
        loss = self.task.loss(forward(self.task, self.model, inputs, parameters[0].device), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(parameters, self.settings)
        return gradients_in(parameters), loss.detach()

    def step(self, parameters: Tensors, gradients: Tensors, rate: float | None) -> Tensors:
        """Take the optimiser's step."""
        if rate is not None:
            set_rate(self.optimizer, rate)
        put_gradients(parameters, gradients)
        self.optimizer.step()
        return parameters


def gradients_in(parameters: Tensors) -> Tensors:
    """Return the parameters' `.grad`; zeros where it is None."""
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def put_gradients(parameters: Tensors, gradients: Tensors) -> None:
    """Put gradients into the parameters' `.grad`."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


class ExampleMechanism(Protocol):
    """What private training takes of single examples: it draws batches, bounds and hides what each adds.

    It belongs to one training; see `strategies.layers.privacy.training`.
    """

    clip_norm: float
    """C: of the sum of the examples' gradients, each is scaled down to this norm where it is longer."""

    def batches(self, training: "Training") -> Iterator[Batch | None]:
        """Draw the batch of each step, on the model's device; None: it is empty."""

    def release(self, clipped_sum: Tensor) -> Tensor:
        """Return the gradient that may be used instead of the sum of clipped gradients; shape [P] both."""

    def alone(self, training: "Training") -> str:
        """Return why the training is to be carried out by `run` only; empty if it is not."""

    def run(self, training: "Training") -> TrainStats:
        """Train the model in place."""


@dataclass(frozen=True, eq=False)
class Training:
    """A training as `local_train` is asked for it, of at least one example.

    Parameters
    ----------
    steps
        At least 1.
    precision
        By default that of the work which asks for the training, whoever carries it out.
    mechanism
        Of a private training; None: it is not private.
    """

    model: nn.Module
    examples: Examples
    settings: TrainSettings
    generator: torch.Generator
    steps: int
    rates: Sequence[float] | None = None
    adjust: GradientAdjustment | None = None
    task: Task = CLASSIFICATION
    precision: Precision = field(default_factory=PRECISION.get)
    mechanism: ExampleMechanism | None = None

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where it is trained."""
        return next(p.device for p in self.model.parameters() if p.requires_grad)

    def batches(self) -> Iterator[Batch]:
        """Draw the batch of each step, on the model's device."""
        data = self.examples.to(self.device)
        vary = data.variation_generator(self.generator)
        indices = batches(len(data), self.settings.batch_size, self.steps, self.generator)
        return (data.training_batch(index, vary) for index in indices)

    def run(self) -> TrainStats:
        """Train the model in place."""
        if self.mechanism is not None:
            return self.mechanism.run(self)
        parameters = self.parameters
        optimizer = make_optimizer(parameters, self.settings)
        engine = OneModel(self.model.train(), self.task, optimizer, self.settings)
        with computed_in(self.precision, self.device):
            _, total = local_steps(parameters, self.batches(), self.adjust, engine, self.rates)
        return TrainStats(self.steps, float(total) / self.steps)


HANDED_OVER: ContextVar[Callable[[Training], TrainStats]] = ContextVar("handed_over", default=Training.run)
"""What carries out the trainings of `local_train`: each by itself, or those of many clients at once (see
`strategies.client.side_by_side`)."""


def local_train(
    model: nn.Module,
    examples: Examples,
    settings: TrainSettings,
    generator: torch.Generator,
    *,
    rates: Sequence[float] | None = None,
    adjust: GradientAdjustment | None = None,
    task: Task = CLASSIFICATION,
) -> TrainStats:
    """Train a model in place on labelled examples, in mini-batches.

    A gradient is clipped before `adjust` sees it: an algorithm's own terms stay as long as they are.

    Parameters
    ----------
    model
        On any device.
    examples
        At least one; moved to the model's device once.
    rates
        The learning rate of each step; none leaves the model as it is; None: the settings say how many steps
        there are, and their rate.

    Raises
    ------
    ValueError
        If there is no example.
    """
    training = training_of(model, examples, settings, generator, rates, adjust, task)
    return TrainStats(0, 0.0) if training is None else HANDED_OVER.get()(training)


def training_of(
    model: nn.Module,
    examples: Examples,
    settings: TrainSettings,
    generator: torch.Generator,
    rates: Sequence[float] | None,
    adjust: GradientAdjustment | None,
    task: Task,
) -> Training | None:
    """Return what `local_train` carries out; None if there is no step to take."""
    if not len(examples):
        raise ValueError("local training needs at least one example")
    steps = planned_steps(len(examples), settings) if rates is None else len(rates)
    return Training(model, examples, settings, generator, steps, rates, adjust, task) if steps else None


@dataclass(frozen=True, eq=False)
class LocalTraining:
    """A client half made of local steps on the round's model, with a preparation and a finish.

    Before and after are apart from the steps, so that those of many clients can be taken at once.

    Parameters
    ----------
    prepare
        Returns what the steps of a job know; the job's model holds the round's parameters.
    finish
        Returns the result of a job whose model was trained, from what `prepare` returned; None: the model and
        its loss.
    """

    prepare: Callable[[ClientJob], StepState] = lambda job: StepState()
    finish: Callable[[ClientJob, StepState, TrainStats], LocalResult] | None = None

    def __call__(self, job: ClientJob) -> LocalResult:
        """Run the client half."""
        state = self.prepare(job)
        stats = job.train_model(job.model, num_steps=state.num_steps, adjust=state.adjustment)
        return self.result(job, state, stats)

    def training(self, job: ClientJob, state: StepState) -> Training | None:
        """Return what a call of the client half trains by `local_train`; None if it takes no step."""
        rates = job.rates(state.num_steps)
        return training_of(
            job.model, job.examples, job.train, job.generator, rates, state.adjustment, job.task
        )

    def result(self, job: ClientJob, state: StepState, stats: TrainStats) -> LocalResult:
        """Return the result of a job whose model was trained."""
        return trained(job, stats) if self.finish is None else self.finish(job, state, stats)


def trained(job: ClientJob, stats: TrainStats, records: Mapping[str, Tensor] | None = None) -> LocalResult:
    """Return the result of a job whose model was trained, with its loss and number of steps."""
    metrics = {wire.TRAIN_LOSS: stats.mean_loss, wire.NUM_STEPS: stats.num_steps}
    return LocalResult(job.model, len(job.examples), metrics, records=records or {})


def near(model: nn.Module, mu: float, num_steps: int | None = None) -> StepState:
    """Return the state for the proximal term (μ/2) ‖w − w_t‖², with w_t the model's present weights."""
    anchor = [p.detach().clone() for p in model.parameters() if p.requires_grad] if mu > 0 else ()
    return StepState(anchor, mu, num_steps=num_steps)


def by_parameter(model: nn.Module, flat: Tensor, layout: wire.Layout) -> Tensors:
    """Return a vector's entries for each trainable parameter of a model.

    They have the parameters' order and device; the vector has shape [layout.size]. A parameter that the
    layout lacks, as it stays with the client, has zeros.
    """
    entries = layout.unflatten(flat)
    return [
        entries[name].to(p.device) if name in entries else torch.zeros_like(p)
        for name, p in model.named_parameters()
        if p.requires_grad
    ]


def joined(*adjustments: GradientAdjustment) -> GradientAdjustment:
    """Return one adjustment that applies several in order."""

    def adjust(parameters: Tensors, gradients: Tensors) -> Tensors:
        for each in adjustments:
            gradients = each(parameters, gradients)
        return gradients

    return adjust


def summed_gradient(
    model: nn.Module, parts: Sequence[Examples], coefficients: Sequence[float], task: Task = CLASSIFICATION
) -> None:
    """Put Σ_j c_j ∇L_j into the parameters' `.grad`, with L_j the summed loss of part j."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    model.train()
    for part, coefficient in zip(parts, coefficients, strict=True):
        for inputs, targets in part.to(device).batches(_CHUNK):
            loss = task.summed_loss(task.forward(model, inputs), targets)
            (coefficient * loss).backward()  # type: ignore[no-untyped-call]
