"""Oracles: lightly's losses (mind the factor of two), loops from the equations."""

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss

from pulvinar.core.errors import DegenerateError
from pulvinar.gating.objectives import (
    barlow_twins_terms,
    covariance_term,
    simclr_terms,
    simsiam_terms,
    variance_term,
    vicreg_terms,
)

SHAPES = [(6, 20), (20, 6)]  # fewer images than dimensions, and more: two ways to the same sums


def rows(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    mixing = torch.randn((dim, dim), generator=torch.Generator().manual_seed(seed + 100), dtype=torch.float64) / dim**0.5
    return torch.randn((n, dim), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ mixing


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg_is_lightlys_with_the_variance_weight_doubled(shape):
    first, second = rows(*shape, seed=1), rows(*shape, seed=2)
    theirs = VICRegLoss(lambda_param=25, mu_param=50, nu_param=1)(first, second)
    torch.testing.assert_close(sum(vicreg_terms(first, second).values()), theirs)
    halved = VICRegLoss(lambda_param=25, mu_param=25, nu_param=1)(first, second)
    assert abs(halved - theirs) > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_covariance_and_variance_terms_by_loops(shape):
    x = rows(*shape, seed=3)
    covariance = torch.cov(x.T)
    expected = sum(covariance[i, j] ** 2 for i in range(shape[1]) for j in range(shape[1]) if i != j) / shape[1]
    torch.testing.assert_close(covariance_term(x), expected)
    spread = [max(0.0, 1 - (x[:, i].var().item() + 1e-4) ** 0.5) for i in range(shape[1])]
    assert variance_term(x).item() == pytest.approx(sum(spread) / shape[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_is_lightlys_times_the_scale(shape):
    first, second = rows(*shape, seed=4), rows(*shape, seed=5)
    theirs = 0.024 * BarlowTwinsLoss(lambda_param=0.0051)(first, second)
    torch.testing.assert_close(sum(barlow_twins_terms(first, second).values()), theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_barlow_twins_by_a_loop(shape):
    first, second = rows(*shape, seed=4), rows(*shape, seed=5)
    a, b = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in (first, second))
    diagonal = other = 0.0
    for i in range(shape[1]):
        for j in range(shape[1]):
            c = float((a[:, i] * b[:, j]).mean())
            diagonal, other = (diagonal + (1 - c) ** 2, other) if i == j else (diagonal, other + c**2)
    terms = barlow_twins_terms(first, second)
    assert terms["invariance"].item() == pytest.approx(0.024 * diagonal)
    assert terms["redundancy"].item() == pytest.approx(0.024 * 0.0051 * other)


def test_simsiam_is_lightlys_and_stops_the_gradient():
    first, second, p, q = (rows(5, 8, seed=seed).requires_grad_() for seed in range(4))
    loss = simsiam_terms(first, second, predicted_first=p, predicted_second=q)["invariance"]
    cosine = NegativeCosineSimilarity()
    torch.testing.assert_close(loss, (cosine(p, second.detach()) + cosine(q, first.detach())) / 2)
    loss.backward()
    assert first.grad is None
    assert second.grad is None
    assert p.grad.abs().sum() > 0


def test_simclr_is_lightlys():
    first, second = rows(7, 8, seed=1), rows(7, 8, seed=2)
    theirs = NTXentLoss(temperature=0.5)(first, second)
    torch.testing.assert_close(simclr_terms(first, second)["contrast"], theirs)


def test_both_ways_have_the_same_gradient():
    """Wide rows padded by constant columns change the way, not the sum of squares."""
    x = rows(10, 8, seed=6).requires_grad_()
    narrow = covariance_term(x) * 8
    wide = covariance_term(torch.cat([x, torch.ones((10, 8), dtype=torch.float64)], dim=1)) * 16
    torch.testing.assert_close(narrow, wide)
    torch.testing.assert_close(torch.autograd.grad(narrow, x)[0], torch.autograd.grad(wide, x)[0])


def test_half_precision_embeddings_give_float32_losses():
    first, second = (rows(6, 5, seed=seed).bfloat16() for seed in (1, 2))
    for terms in (vicreg_terms(first, second), barlow_twins_terms(first, second), simclr_terms(first, second)):
        assert all(term.dtype == torch.float32 for term in terms.values())


def test_a_single_image_is_refused():
    for terms in (vicreg_terms, barlow_twins_terms, simclr_terms):
        with pytest.raises(DegenerateError, match="2 or more"):
            terms(rows(1, 4), rows(1, 4))
        assert all(term.isfinite() for term in terms(rows(2, 4), rows(2, 4, seed=1)).values())


def test_terms_of_vicreg_go_by_their_names():
    first, second = rows(6, 4, seed=1), rows(6, 4, seed=2)
    terms = vicreg_terms(first, second, invariance_weight=3.0, variance_weight=5.0, covariance_weight=7.0)
    wanted = {
        "invariance": 3 * (first - second).square().mean(),
        "variance": 5 * (variance_term(first) + variance_term(second)),
        "covariance": 7 * (covariance_term(first) + covariance_term(second)),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(terms[name], value)
