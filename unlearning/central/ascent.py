"""Gradient ascent (GA): move up the loss on the forgotten data, freely or near a reference model.

Central form: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, "Model Sparsity Can Simplify Machine Unlearning",
NeurIPS 2023, arXiv 2304.04934, section 3 (method after Graves et al. 2021 and Thudi et al. 2022), with the
paper's 5 epochs at η = 1e-4:

    θ ← θ + η ∇L(θ; D_f).

That number of steps is right for one model only; `ascend_until` goes on until D_f meets a goal, by steps and
a loss that do not fade where the model is sure (`unlearning.central.stopping`).

Projected form, run by the client that leaves: Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to
Efficiently Erase a Client in FL?", arXiv 2207.05521:

    w_ref = (N·w − w_i) / (N − 1),
    max_w L(w; D_i)  subject to  ‖w − w_ref‖₂ ≤ δ,
    δ = ⅓ of the mean distance from w_ref to models with random weights,

by projected SGD from w_ref, with gradient clipping, until the accuracy on D_i is below τ; here that is
checked after each epoch (`projected_ascent`), or steps go on in the ball until D_f meets the goal
(`ascend_until`). The released code averages squared distances and projects onto the root of a third of their
mean, a ball √3 times wider; the paper's δ is used here. w_ref holds for uniform weights: N is the number of
clients averaged in the last round.

Guarantee: none; ascent destroys what the model says about D_f, which retraining would not, so it must stay
short or confined.
Needs: the forgotten data; the projected form also the client's last model, and recovery by the others.
Cost: a few epochs over the forgotten data.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from strategies.client.evaluation import evaluate
from strategies.client.training import Tensors, batches, make_optimizer
from strategies.core.examples import Inputs
from strategies.task import CLASSIFICATION, Task
from unlearning.central.data import Data, gathered
from unlearning.central.gradients import Objective, gradient_sum
from unlearning.central.masks import Masks, flat_mask
from unlearning.central.parameters import copied, flat_parameters, load_parameters, trainable
from unlearning.central.stopping import Goal, Standing, StepSettings, steps_until, unsaturated
from unlearning.central.training import SgdSettings, trained


class AscentSettings(SgdSettings):
    """Gradient ascent; fields and their meaning as in `SgdSettings`."""

    epochs: int = Field(default=5, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0)


class ProjectedAscentSettings(SgdSettings):
    """Projected gradient ascent; the other fields as in `SgdSettings`.

    Attributes
    ----------
    clip_norm : float
        Largest norm of a batch's gradient, above 0.
    stop_accuracy : float
        τ: ascent ends after an epoch with an accuracy on D_f below it, in percent; neutral 0, which never
        stops.
    """

    epochs: int = Field(default=5, ge=0)
    clip_norm: float = Field(default=5.0, gt=0)
    stop_accuracy: float = Field(default=12.0, ge=0, le=100)


def negate_gradients(parameters: Tensors, gradients: Tensors) -> Tensors:
    """Turn descent into ascent: the gradient adjustment g ← −g."""
    return [-gradient for gradient in gradients]


def ascend(
    model: nn.Module,
    forget: Data,
    settings: AscentSettings,
    generator: Generator,
    *,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model θo, moved up the loss on the forgotten data D_f; see `trained`."""
    adjustments = [negate_gradients]
    return trained(model, forget, settings, generator, adjustments=adjustments, masks=masks, task=task)


@dataclass(frozen=True, eq=False)
class Ascended:
    """The model after some steps, and where D_f stands then: unless the goal is met, the cap ended it."""

    model: nn.Module
    steps: int
    standing: Standing


def ascend_until(
    model: nn.Module,
    forget: Data,
    goal: Goal,
    settings: StepSettings,
    *,
    within: Callable[[Tensor], Tensor] = lambda flat: flat,
    masks: Masks | None = None,
    task: Task = CLASSIFICATION,
) -> Ascended:
    """Return a copy of the model, moved by steps of one length until D_f meets the goal.

    Parameters
    ----------
    model
        Where the steps begin; the goal is that of the model before forgetting.
    forget
        D_f, at least one example; each step is along the gradient over all of it.
    within
        Maps the parameters after a step, shape [P], to where they may be.
    masks
        Pruned weights, which do not move.

    Raises
    ------
    ValueError
        If the goal says nothing about some of the examples.
    """
    twin, examples, free = copied(model), gathered(forget), flat_mask(model, masks)
    objective = Objective(task, unsaturated(task))

    def ask(flat: Tensor) -> tuple[None, Standing]:
        load_parameters(twin, flat)
        standing = Standing.of(twin, examples, goal, task)
        standing.check()
        return None, standing

    def gradient(_: None) -> Tensor:
        return gradient_sum(twin, examples, objective).mean * free

    reached = steps_until(flat_parameters(model), settings, ask, gradient, within=within)
    load_parameters(twin, reached.flat)
    return Ascended(twin, reached.steps, reached.standing)


def reference_model(average: Tensor, client: Tensor, num_clients: int) -> Tensor:
    """Return w_ref = (N·w − w_i) / (N − 1), shape [P]: the average w without the client's model w_i.

    w is the uniform average over N clients. ValueError if N is below 2.
    """
    if num_clients < 2:
        raise ValueError(f"a reference model needs at least 2 clients, got {num_clients}")
    return (num_clients * average - client) / (num_clients - 1)


def ball_radius(reference: Tensor, random_models: Sequence[Tensor]) -> float:
    """Return δ, a third of the mean distance from w_ref to models with random weights (paper: 10), all [P].

    ValueError if there is no random model.
    """
    if not random_models:
        raise ValueError("the radius needs at least 1 random model, got none")
    distances = [
        float(torch.linalg.vector_norm(reference.double() - each.double())) for each in random_models
    ]
    return sum(distances) / len(distances) / 3


def project(point: Tensor, center: Tensor, radius: float) -> Tensor:
    """Return the point of the ball ‖w − center‖ ≤ radius nearest to a given point, all of shape [P]."""
    offset = point - center
    distance = float(torch.linalg.vector_norm(offset.double()))
    return point if distance <= radius else center + offset * (radius / distance)


def projected_ascent(
    model: nn.Module,
    forget: Data,
    reference: Tensor,
    radius: float,
    settings: ProjectedAscentSettings,
    generator: Generator,
    task: Task = CLASSIFICATION,
) -> nn.Module:
    """Return a copy of the model, moved from the reference up the loss on D_f, inside the ball.

    Parameters
    ----------
    model
        Gives the architecture and the device.
    forget
        D_i, the leaving client's data, at least one example.
    reference
        w_ref, shape [P]: where ascent starts and the centre of the ball.
    radius
        δ, at least 0; 0 returns the reference.
    settings
        Epochs, optimiser, clipping and early stop.
    generator
        Draws the batches; on the CPU.
    """
    twin = copied(model)
    load_parameters(twin, reference)
    center = flat_parameters(twin)
    parameters = list(trainable(twin).values())
    optimizer = make_optimizer(parameters, settings.train)
    data = gathered(forget).to(parameters[0].device)
    for _ in range(settings.epochs):
        twin.train()
        for index in batches(len(data), settings.batch_size, settings.steps_per_epoch(len(data)), generator):
            _ascent_step(twin, data.batch(index), optimizer, settings.clip_norm, task)
            load_parameters(twin, project(flat_parameters(twin), center, radius))
        if evaluate(twin, data, task=task).accuracy < settings.stop_accuracy:
            break
    twin.zero_grad(set_to_none=True)
    return twin.train(model.training)


def _ascent_step(
    model: nn.Module,
    batch: tuple[Inputs, Tensor],
    optimizer: torch.optim.Optimizer,
    clip_norm: float,
    task: Task,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    inputs, targets = batch
    loss = -task.loss(task.forward(model, inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(list(model.parameters()), clip_norm)
    optimizer.step()
