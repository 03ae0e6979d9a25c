"""Oracles: torch's CrossEntropyLoss, scipy's softmax, targets written out row by row."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from pulvinar.learning.contrastive import (
    Targets,
    info_nce,
    mixco_targets,
    similarities,
    similarity,
    soft_clip_targets,
    soft_cross_entropy,
)


def rows(n: int, *shape: int, seed: int) -> torch.Tensor:
    return torch.randn((n, *shape), generator=torch.Generator().manual_seed(seed))


def test_similarity_is_the_cosine_of_flattened_rows_over_the_temperature():
    predicted, true = rows(4, 3, 5, seed=0), rows(6, 3, 5, seed=1)
    expected = torch.nn.functional.cosine_similarity(predicted.flatten(1)[:, None], true.flatten(1)[None], dim=2) / 0.07
    torch.testing.assert_close(similarity(predicted, true, temperature=0.07), expected, rtol=1e-5, atol=1e-5)


def test_identity_targets_give_clip_the_mean_of_both_cross_entropies():
    logits, diagonal = rows(7, 7, seed=2), torch.arange(7)
    brain_to_image = torch.nn.CrossEntropyLoss()(logits, diagonal)
    image_to_brain = torch.nn.CrossEntropyLoss()(logits.T, diagonal)
    assert abs(brain_to_image - image_to_brain) > 0.01  # the two directions differ, so each is seen in the mean
    torch.testing.assert_close(
        soft_cross_entropy(logits, Targets(torch.eye(7), torch.eye(7))), (brain_to_image + image_to_brain) / 2
    )


def slow_loss(predicted, true, to_image, to_brain, temperature: float) -> float:
    """Every pair by itself, in float64; targets (row, row) as lists of what brain i and image i should answer."""
    p, c = (x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True) for x in (predicted, true))
    n, loss = len(p), 0.0
    for i in range(n):
        brain_i = [p[i] @ c[j] / temperature for j in range(n)]
        image_i = [c[i] @ p[j] / temperature for j in range(n)]
        for j in range(n):
            loss -= (to_image[i][j] * log_softmax(brain_i)[j] + to_brain[i][j] * log_softmax(image_i)[j]) / (2 * n)
    return loss


def clustered(seed: int) -> torch.Tensor:
    """24 unit rows in clusters of 1 to 8, wide and narrow ones, so that a softmax over rows is far from its transpose."""
    sizes = torch.tensor([1, 2, 3, 4, 6, 8])
    centres = rows(6, 16, seed=seed).repeat_interleave(sizes, 0)
    spread = torch.linspace(0.1, 1.5, 24)[:, None]
    return torch.nn.functional.normalize(centres + spread * rows(24, 16, seed=seed + 1), dim=1)


def test_soft_clip_is_the_slow_loop_with_the_images_own_answers_in_both_halves():
    predicted, true = rows(24, 16, seed=3), clustered(4)
    aims = [softmax(row) for row in true.double().numpy() @ true.double().numpy().T / 0.2]
    assert np.abs(np.sum(aims, axis=0) - 1).max() > 0.1  # columns do not sum to 1: a transpose would be seen
    targets = soft_clip_targets(true, temperature=0.2)
    for half in targets:
        torch.testing.assert_close(half.sum(1), torch.ones(24))
        np.testing.assert_allclose(half.numpy(), aims, rtol=1e-4)
    loss = soft_cross_entropy(similarity(predicted, true, temperature=0.2), targets).item()
    assert loss == pytest.approx(slow_loss(predicted, true, aims, aims, 0.2), rel=1e-5)
    assert loss != pytest.approx(slow_loss(predicted, true, aims, np.transpose(aims), 0.2), rel=1e-3)


def test_bimixco_is_the_slow_loop_with_the_targets_of_images_transposed():
    predicted, true = rows(9, 5, seed=3), rows(9, 5, seed=4)
    weight, partner = torch.rand(9, generator=torch.Generator().manual_seed(5)), [1, 0, 2, 5, 6, 3, 8, 4, 7]
    to_image, to_brain = np.zeros((9, 9)), np.zeros((9, 9))
    for row, (share, other) in enumerate(zip(weight.tolist(), partner, strict=True)):
        to_image[row, row] += share  # the brain of this row is so much its own image
        to_image[row, other] += 1 - share
        to_brain[row, row] += share  # and so much of the image is in this row
        to_brain[other, row] += 1 - share
    targets = mixco_targets(weight, torch.tensor(partner))
    loss = soft_cross_entropy(similarity(predicted, true, temperature=0.3), targets).item()
    assert loss == pytest.approx(slow_loss(predicted, true, to_image, to_brain, 0.3), rel=1e-5)
    assert loss != pytest.approx(slow_loss(predicted, true, to_image, to_image, 0.3), rel=1e-3)


@pytest.mark.parametrize("half", [0, 1])
def test_a_perfect_prediction_is_at_rest_in_each_half_of_soft_clip(half):
    """Closed form: dL/dS is softmax(S) - A, zero at P = Z, in both directions; the other half has no targets here."""
    true = clustered(7).double()
    predicted = true.clone().requires_grad_()
    targets = soft_clip_targets(true, temperature=0.2)
    only = Targets(*(own if place == half else torch.zeros_like(own) for place, own in enumerate(targets)))
    soft_cross_entropy(similarity(predicted, true, temperature=0.2), only).backward()
    assert predicted.grad.abs().max() < 1e-6
    other = true.roll(1, 0).clone().requires_grad_()
    soft_cross_entropy(similarity(other, true, temperature=0.2), only).backward()
    assert other.grad.abs().max() > 1e-2


def test_half_precision_logits_are_summed_in_float32():
    assert soft_cross_entropy(rows(5, 5, seed=3).bfloat16(), Targets(torch.eye(5), torch.eye(5))).dtype == torch.float32


def test_mixco_targets_are_the_slow_loop_and_every_row_sums_to_one():
    generator = torch.Generator().manual_seed(5)
    weight = torch.rand(9, generator=generator)
    partner = torch.tensor([1, 0, 2, 5, 4, 3, 8, 6, 7])  # rows 2 and 4 are mixed with themselves
    expected = np.zeros((9, 9))
    for row in range(9):
        expected[row, row] += weight[row].item()
        expected[row, partner[row]] += 1 - weight[row].item()
    targets, transposed = mixco_targets(weight, partner)
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-7)
    torch.testing.assert_close(targets.sum(1), torch.ones(9))
    assert targets[2, 2] == 1
    assert targets[4, 4] == 1
    assert torch.equal(transposed, targets.T)


@pytest.mark.parametrize("loss", ["bimixco", "soft_clip"])
def test_several_batches_are_each_of_them_alone(loss):
    """Oracle: a loop over the batches."""
    predicted, true, weight = rows(3, 5, 4, seed=7), rows(3, 5, 4, seed=8), torch.rand(3, 5)
    partner = torch.stack([torch.randperm(5) for _ in range(3)])

    def targets_of(*which: int) -> Targets:
        if loss == "bimixco":
            return mixco_targets(weight[which], partner[which])
        return soft_clip_targets(true[which], temperature=0.1)

    logits, targets = similarities(predicted, true, temperature=0.1), targets_of()
    losses = soft_cross_entropy(logits, targets)
    assert losses.shape == (3,)
    for batch in range(3):
        torch.testing.assert_close(logits[batch], similarity(predicted[batch], true[batch], temperature=0.1))
        for half, alone in zip(targets, targets_of(batch), strict=True):
            torch.testing.assert_close(half[batch], alone)
        torch.testing.assert_close(losses[batch], soft_cross_entropy(logits[batch], targets_of(batch)))


QUERIES = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
CANDIDATES = torch.tensor([[3.0, 0.0], [1.0, 1.0]])


def test_info_nce_of_a_hand_worked_case():
    """By hand: cosines 1, 1/sqrt 2 and 0, 1/sqrt 2; at temperature .5 the similarities are 2, sqrt 2 and 0, sqrt 2."""
    two, root = np.e**2, np.e ** np.sqrt(2)
    forward = (-np.log(two / (two + root)) - np.log(root / (1 + root))) / 2
    backward = (-np.log(two / (two + 1)) - np.log(root / (root + root))) / 2
    assert info_nce(QUERIES, CANDIDATES, temperature=0.5).item() == pytest.approx(forward, rel=1e-6)
    found = info_nce(QUERIES, CANDIDATES, temperature=0.5, symmetric=True).item()
    assert found == pytest.approx((forward + backward) / 2, rel=1e-6)
    assert abs(forward - backward) > 0.05


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_of_an_uninformative_model_is_log_batch(symmetric):
    same = torch.ones(37, 5)
    assert info_nce(rows(37, 5, seed=0), same, temperature=0.3).item() == pytest.approx(np.log(37), rel=1e-6)
    assert info_nce(same, same, temperature=0.3, symmetric=symmetric).item() == pytest.approx(np.log(37), rel=1e-6)


def test_the_two_directions_are_each_other_with_sides_exchanged():
    queries, candidates = rows(6, 4, seed=1), rows(6, 4, seed=2)
    forward = info_nce(queries, candidates, temperature=0.3)
    backward = info_nce(candidates, queries, temperature=0.3)
    assert abs(forward - backward) > 1e-3
    found = info_nce(queries, candidates, temperature=0.3, symmetric=True)
    torch.testing.assert_close(found, (forward + backward) / 2)


def test_the_gradient_of_info_nce_is_softmax_less_identity():
    """Closed form: dL/dS = (softmax(S) - I) / n, through the cosines by torch in float64."""
    queries, candidates = rows(5, 3, seed=3), rows(5, 3, seed=4)
    ours = queries.clone().requires_grad_()
    info_nce(ours, candidates, temperature=0.3).backward()
    double = queries.double().requires_grad_()
    logits = similarity(double, candidates.double(), temperature=0.3)
    logits.backward((logits.detach().softmax(1) - torch.eye(5)) / 5)
    torch.testing.assert_close(ours.grad.double(), double.grad, rtol=1e-5, atol=1e-6)
