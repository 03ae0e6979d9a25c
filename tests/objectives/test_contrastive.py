"""Oracles: torch's CrossEntropyLoss, scipy's softmax, targets written out row by row."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from pulvinar.objectives.contrastive import (
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
    torch.testing.assert_close(soft_cross_entropy(logits, torch.eye(7)), (brain_to_image + image_to_brain) / 2)


def test_soft_targets_weigh_both_directions_by_the_same_matrix():
    logits, targets = rows(5, 5, seed=3), rows(5, 5, seed=4).softmax(1)
    numbers, weights = logits.double().numpy(), targets.double().numpy()
    expected = 0.0
    for i in range(5):
        for j in range(5):
            expected -= weights[i, j] * (log_softmax(numbers[i])[j] + log_softmax(numbers[:, j])[i]) / (2 * 5)
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_logits_are_summed_in_float32():
    assert soft_cross_entropy(rows(5, 5, seed=3).bfloat16(), torch.eye(5)).dtype == torch.float32


def test_mixco_targets_are_the_slow_loop_and_every_row_sums_to_one():
    generator = torch.Generator().manual_seed(5)
    weight = torch.rand(9, generator=generator)
    partner = torch.tensor([1, 0, 2, 5, 4, 3, 8, 6, 7])  # rows 2 and 4 are mixed with themselves
    expected = np.zeros((9, 9))
    for row in range(9):
        expected[row, row] += weight[row].item()
        expected[row, partner[row]] += 1 - weight[row].item()
    targets = mixco_targets(weight, partner)
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-7)
    torch.testing.assert_close(targets.sum(1), torch.ones(9))
    assert targets[2, 2] == 1
    assert targets[4, 4] == 1


def test_soft_clip_targets_are_the_softmax_of_the_images_own_similarities():
    true = rows(6, 4, seed=6)
    unit = true.double().numpy() / np.linalg.norm(true.double().numpy(), axis=1, keepdims=True)
    targets = soft_clip_targets(true, temperature=0.2)
    np.testing.assert_allclose(targets.numpy(), softmax(unit @ unit.T / 0.2, axis=1), rtol=1e-4)
    assert (targets.argmax(1) == torch.arange(6)).all()


def test_several_batches_are_each_of_them_alone():
    """Oracle: a loop over the batches."""
    predicted, true, weight = rows(3, 5, 4, seed=7), rows(3, 5, 4, seed=8), torch.rand(3, 5)
    partner = torch.stack([torch.randperm(5) for _ in range(3)])
    logits, targets = similarities(predicted, true, temperature=0.1), mixco_targets(weight, partner)
    losses = soft_cross_entropy(logits, targets)
    assert losses.shape == (3,)
    for batch in range(3):
        torch.testing.assert_close(logits[batch], similarity(predicted[batch], true[batch], temperature=0.1))
        torch.testing.assert_close(targets[batch], mixco_targets(weight[batch], partner[batch]))
        torch.testing.assert_close(losses[batch], soft_cross_entropy(logits[batch], targets[batch]))


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
