"""Per-FedAvg: a model from which one gradient step on a client's own data leads to a good model for it.

Fallah, Mokhtari, Ozdaglar, "Personalized Federated Learning with Theoretical Guarantees: A Model-Agnostic
Meta-Learning Approach", NeurIPS 2020, arXiv 2002.08948, Algorithm 1. With inner rate α, step size β and three
batches D, D', D'' of a client's data, each local step is

    w̃ = w − α ∇f(w; D),    w ← w − β (I − α ∇²f(w; D'')) ∇f(w̃; D')

- ``first-order`` leaves α ∇²f out.
- ``hessian-free`` takes the product of the second derivative and g = ∇f(w̃; D') from two gradients,
  (∇f(w + δ g; D'') − ∇f(w − δ g; D'')) / 2δ, here with δ = 0.01 / ‖g‖.

The server averages as FedAvg does. Differs from the paper: the run's own optimiser takes the step with the
meta-gradient (plain SGD is ``train.momentum = 0``), and the average is weighted by examples. The batches D'
are those that FedAvg would draw, so α = 0 is FedAvg, to the bit.

Before it measures, a client takes ``personal-steps`` full-batch steps of size α from the round's model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from strategies import fedavg
from strategies.algorithm import Algorithm
from strategies.client.training import (
    Batch,
    ClientJob,
    LocalResult,
    TrainStats,
    batches,
    clip_gradients,
    gradients_in,
    make_optimizer,
    put_gradients,
    set_rate,
    summed_gradient,
    trained,
)
from strategies.core.examples import Examples
from strategies.core.seeds import torch_generator
from strategies.personal import measuring
from strategies.personal.settings import PersonalSettings
from strategies.task import CLASSIFICATION, Task

_RADIUS = 0.01
"""How far, in all, the two points of the difference quotient lie from w."""


@dataclass(frozen=True, eq=False)
class Objective:
    """The mean loss of a model over a batch, as a function of its parameters."""

    model: nn.Module
    task: Task = CLASSIFICATION

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def loss(self, batch: Batch) -> Tensor:
        """Return f(w; batch), a scalar."""
        inputs, targets = batch
        return self.task.loss(self.task.forward(self.model, inputs), targets)

    def gradients(self, batch: Batch) -> list[Tensor]:
        """Return ∇f(w; batch), by parameter."""
        return list(torch.autograd.grad(self.loss(batch), self.parameters))


@torch.no_grad()
def move(parameters: Sequence[nn.Parameter], direction: Sequence[Tensor], size: float) -> None:
    """Add size · direction to the parameters, in place."""
    for parameter, step in zip(parameters, direction, strict=True):
        parameter.add_(step, alpha=size)


@torch.no_grad()
def put_back(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Give the parameters earlier values, in place."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def hessian_product(objective: Objective, batch: Batch, vector: Sequence[Tensor]) -> list[Tensor]:
    """Return the product of the loss's second derivative and a vector, from a central difference.

    Parameters
    ----------
    objective
        Its parameters are as they were afterwards.
    batch
        On the model's device.
    """
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in vector])))
    if norm == 0:
        return [torch.zeros_like(v) for v in vector]
    delta = _RADIUS / norm
    parameters = objective.parameters
    start = [p.detach().clone() for p in parameters]
    move(parameters, vector, delta)
    ahead = objective.gradients(batch)
    put_back(parameters, start)
    move(parameters, vector, -delta)
    behind = objective.gradients(batch)
    put_back(parameters, start)
    return [(a - b) / (2 * delta) for a, b in zip(ahead, behind, strict=True)]


def meta_gradient(
    objective: Objective, inner: Batch, outer: Batch, second: Batch | None, rate: float
) -> Tensor:
    """Put the meta-gradient into the parameters' `.grad`; return the loss at w̃.

    Parameters
    ----------
    objective
        Its parameters are as they were afterwards.
    inner, outer, second
        The batches D, D' and D''; `second` None: the first-order form.
    """
    parameters = objective.parameters
    start = [p.detach().clone() for p in parameters]
    move(parameters, objective.gradients(inner), -rate)
    loss = objective.loss(outer)
    found = torch.autograd.grad(loss, parameters)
    put_back(parameters, start)
    put_gradients(parameters, found)
    if second is not None:
        product = hessian_product(objective, second, found)
        for gradient, term in zip(found, product, strict=True):
            gradient.sub_(term, alpha=rate)
    return loss.detach()


def train_client(job: ClientJob) -> LocalResult:
    """Run the client half: local steps with the meta-gradient."""
    rates = job.rates()
    objective = Objective(job.model, job.task)
    device = objective.parameters[0].device
    data = job.examples.to(device)
    optimizer = make_optimizer(objective.parameters, job.train)
    job.model.train()
    total, vary = torch.zeros((), device=device), data.variation_generator(job.generator)
    drawn = [
        batches(len(data), job.train.batch_size, len(rates), generator)
        for generator in (job.generator, _generator(job, "inner"), _generator(job, "second"))
    ]
    own = job.strategy.own(PersonalSettings)
    exact = own.meta_gradient == "hessian-free"
    for rate, *indices in zip(rates, *drawn, strict=True):
        outer, inner, second = (data.training_batch(index, vary) for index in indices)
        total += meta_gradient(objective, inner, outer, second if exact else None, own.inner_rate)
        clip_gradients(objective.parameters, job.train)
        set_rate(optimizer, rate)
        optimizer.step()
    return trained(job, TrainStats(len(rates), float(total) / len(rates)))


def _generator(job: ClientJob, purpose: str) -> torch.Generator:
    """Return a generator of the job's own that draws nothing from the one that FedAvg would use."""
    return torch_generator(job.generator.initial_seed(), "per-fedavg", purpose)


def personalise(job: ClientJob) -> nn.Module:
    """Take full-batch steps from the job's model on the client's examples, in place."""
    own = job.strategy.own(PersonalSettings)
    descend(job.model, job.examples, own.inner_rate, own.personal_steps, job.task)
    return job.model


def descend(
    model: nn.Module, examples: Examples, rate: float, steps: int, task: Task = CLASSIFICATION
) -> None:
    """Take full-batch gradient steps, in place.

    Parameters
    ----------
    rate
        Step size; neutral 0.
    steps
        At least 0; neutral 0.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(steps):
        summed_gradient(model, [examples], [1 / len(examples)], task)
        move(parameters, gradients_in(parameters), -rate)
    model.zero_grad(set_to_none=True)


ALGORITHM = Algorithm(
    "a model from which one gradient step on a client's own data leads to a good one for it",
    train_client,
    lambda side: measuring.MeasuredStrategy(fedavg.FedAvg()),
    personalise=personalise,
    returns=measuring.REPORTS,
)
