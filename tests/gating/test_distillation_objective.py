"""Distillation losses against loops written from the equations, in float64 where the function keeps it."""

import math

import pytest
import torch

from pulvinar.gating.distillation_objective import seed_loss, simreg_loss


def rows(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_simreg_is_the_squared_distance_on_the_sphere():
    student, teacher = rows(7, 0), rows(7, 1)
    expected = sum(float(((s / s.norm() - t / t.norm()) ** 2).sum()) for s, t in zip(student, teacher, strict=True)) / 7
    assert float(simreg_loss(student, teacher)) == pytest.approx(expected, rel=1e-5)
    assert float(simreg_loss(3 * teacher, teacher)) == pytest.approx(0, abs=1e-6)
    assert float(simreg_loss(-teacher, teacher)) == pytest.approx(4, abs=1e-5)


def test_seed_equals_the_sum_spelled_out():
    student, teacher, queue = rows(4, 0), rows(4, 1), rows(6, 2)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        candidates = [c / c.norm() for c in (t, *queue)]
        of_teacher = [math.exp(float(t / t.norm() @ c) / 0.1) for c in candidates]
        of_student = [math.exp(float(s / s.norm() @ c) / 0.3) for c in candidates]
        total -= sum(p / sum(of_teacher) * math.log(q / sum(of_student)) for p, q in zip(of_teacher, of_student, strict=True))
    ours = seed_loss(student, teacher, queue, student_temperature=0.3, teacher_temperature=0.1)
    assert float(ours) == pytest.approx(total / 4, rel=1e-5)


def test_seed_reaches_the_teachers_entropy_at_the_teacher():
    """Oracle: cross-entropy is smallest, and the entropy, where both distributions agree; the gradient is 0 there."""
    teacher, queue = rows(3, 1), rows(8, 2)
    student = teacher.clone().requires_grad_()
    loss = seed_loss(student, teacher, queue, student_temperature=0.2, teacher_temperature=0.2)
    loss.backward()
    assert student.grad.abs().max() < 1e-6
    moved = teacher + 0.1 * rows(3, 5)
    assert float(seed_loss(moved, teacher, queue, student_temperature=0.2, teacher_temperature=0.2)) > float(loss.detach())


def test_no_gradient_reaches_the_teacher():
    for loss in (simreg_loss, lambda student, teacher: seed_loss(student, teacher, rows(4, 2))):
        student, teacher = rows(3, 0).requires_grad_(), rows(3, 1).requires_grad_()
        loss(student, teacher).backward()
        assert student.grad.abs().min() > 0
        assert teacher.grad is None


def test_seeds_temperatures_are_the_papers_unless_given():
    student, teacher, queue = rows(4, 0), rows(4, 1), rows(6, 2)
    papers = seed_loss(student, teacher, queue, student_temperature=0.2, teacher_temperature=0.01)
    assert seed_loss(student, teacher, queue) == papers


def test_half_precision_embeddings_give_float32_losses():
    student, teacher, queue = (rows(4, seed).bfloat16() for seed in range(3))
    for found, exact in (
        (simreg_loss(student, teacher), simreg_loss(student.double(), teacher.double())),
        (seed_loss(student, teacher, queue), seed_loss(student.double(), teacher.double(), queue.double())),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, check_dtype=False, rtol=1e-5, atol=1e-6)
