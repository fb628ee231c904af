"""Distillation: a student is trained to answer as a teacher does, on inputs that the server has.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2. On inputs
X the student minimises

    T² · KL( softmax(teacher(X) / T) ‖ softmax(student(X) / T) )  [ + λ · cross-entropy(student(X), y) ]

by SGD. The teacher is only known by its answers, so it may as well be an ensemble.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strategies.client.settings import DistillationSettings, TrainSettings
from strategies.client.training import batches, make_optimizer, set_rate
from strategies.core.examples import Examples, on_device
from strategies.task import CLASSIFICATION, Task


def distillation_loss(
    student: Tensor, teacher: Tensor, temperature: float, task: Task = CLASSIFICATION
) -> Tensor:
    """Return T²·KL(softmax(teacher/T) ‖ softmax(student/T)), the mean over the batch, a scalar.

    Parameters
    ----------
    student, teacher
        Outputs, shape [n, classes] for classification.
    temperature
        T > 0. The factor T² keeps the gradient's size independent of T (Hinton, Vinyals, Dean, arXiv
        1503.02531, section 2).
    """
    return temperature**2 * task.divergences(student, teacher, temperature).mean()


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a student learns from.

    Parameters
    ----------
    data
        The server's inputs; the targets count only where ``hard-label-weight`` is above 0.
    outputs
        The teacher's outputs for them, on the CPU.
    """

    data: Examples
    outputs: Tensor


def distil(
    student: nn.Module,
    lesson: Lesson,
    settings: DistillationSettings,
    momentum: float,
    generator: torch.Generator,
    *,
    fading: bool = False,
    task: Task = CLASSIFICATION,
) -> None:
    """Train the student in place to answer as the teacher does.

    Parameters
    ----------
    student
        On the device to use.
    fading
        Whether the step size falls linearly, to 0 after the last step.
    """
    device = next(student.parameters()).device
    how = TrainSettings(momentum=momentum, learning_rate=settings.learning_rate)
    optimizer = make_optimizer([p for p in student.parameters() if p.requires_grad], how)
    data = lesson.data
    steps = settings.epochs * -(-len(data) // settings.batch_size)
    student.train()
    for step, batch in enumerate(batches(len(data), settings.batch_size, steps, generator)):
        if fading:
            set_rate(optimizer, settings.learning_rate * (1 - step / steps))
        inputs, targets = data.batch(batch)
        outputs = task.forward(student, on_device(inputs, device))
        loss = distillation_loss(outputs, lesson.outputs[batch].to(device), settings.temperature, task)
        if settings.hard_label_weight > 0:
            loss = loss + settings.hard_label_weight * task.loss(outputs, targets.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)  # As large as the student
