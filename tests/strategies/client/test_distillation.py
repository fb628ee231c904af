"""strategies/client/distillation.py: what a student minimises."""

import math

import pytest
import torch

from strategies.client.distillation import distillation_loss
from strategies.core.seeds import torch_generator


def test_loss_worked_by_hand() -> None:
    """One example, two classes, T = 2; teacher logits (2 ln 3, 0), student (0, 0).

    Teacher at T: softmax(ln 3, 0) = (3/4, 1/4); student (1/2, 1/2).
    KL = 3/4·ln(3/2) + 1/4·ln(1/2); times T² = 4.
    """
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_loss_against_a_slow_loop() -> None:
    """Mean over the batch of Σ_c p_c (ln p_c − ln q_c), in Python floats."""
    generator = torch_generator(0, "logits")
    student, teacher = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(v / 3) / sum(math.exp(w / 3) for w in t) for v in t]
        q = [math.exp(v / 3) / sum(math.exp(w / 3) for w in s) for v in s]
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    assert distillation_loss(student, teacher, 3.0).item() == pytest.approx(9 * total / 5, rel=1e-5)


def test_the_direction_of_the_divergence_is_pinned() -> None:
    """KL(teacher ‖ student), not the other way round: the two differ here, so the swap would be noticed."""
    teacher, student = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    forward, backward = distillation_loss(student, teacher, 1.0), distillation_loss(teacher, student, 1.0)
    p, q = teacher.softmax(1), student.softmax(1)
    assert forward.item() == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert not math.isclose(forward.item(), backward.item(), rel_tol=0.05)


def test_gradient_size_does_not_depend_on_the_temperature() -> None:
    """For large T the gradient of T²·KL tends to (s − t)/classes (Hinton et al., equation 4)."""
    student = torch.tensor([[0.3, -0.3]], requires_grad=True)
    teacher = torch.tensor([[-0.2, 0.2]])
    distillation_loss(student, teacher, 100.0).backward()
    assert student.grad is not None
    assert student.grad.tolist()[0] == pytest.approx([0.25, -0.25], rel=1e-2)
