"""Losses that make a student's features those of a teacher without labels: SimReg, SEED. The teacher has no gradient."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulvinar.learning.precision import precise


def simreg_loss(student: Float[Tensor, "image dim"], teacher: Float[Tensor, "image dim"]) -> Float[Tensor, ""]:
    """Mean over images of |s - t|^2 = 2 - 2 cos(s, t), both at length 1, in [0, 4]. Navaneet et al. 2021 (SimReg)."""
    return 2 - 2 * functional.cosine_similarity(precise(student), precise(teacher.detach())).mean()


def seed_loss(
    student: Float[Tensor, "image dim"],
    teacher: Float[Tensor, "image dim"],
    queue: Float[Tensor, "candidate dim"],
    *,
    student_temperature: float = 0.2,
    teacher_temperature: float = 0.01,
) -> Float[Tensor, ""]:
    """Cross-entropy between the similarities of teacher and student to the same candidates. Fang et al. 2021 (SEED).

    Candidates of image i: its own teacher embedding t_i, then the queue (teacher embeddings of earlier images), at length 1.

        L = -1/n sum_i sum_j softmax_j(t_i . c_j / teacher_temperature) log softmax_j(s_i . c_j / student_temperature).
    """
    student, teacher, queue = (functional.normalize(precise(part)) for part in (student, teacher.detach(), queue.detach()))

    def similarities(rows: Tensor) -> Tensor:
        return torch.cat([(rows * teacher).sum(1, keepdim=True), rows @ queue.T], 1)

    targets = (similarities(teacher) / teacher_temperature).softmax(1)
    return -(targets * (similarities(student) / student_temperature).log_softmax(1)).sum(1).mean()
