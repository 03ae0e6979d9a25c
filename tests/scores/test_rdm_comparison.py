"""Similarity of RDMs against scipy and rsatoolbox."""

import numpy as np
import pytest
import rsatoolbox
import scipy.stats
import torch

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.rdm import correlation_rdm, squared_euclidean_rdm
from pulvinar.scores.rdm_comparison import (
    ALIASES,
    METHODS,
    average_ranks,
    check_method,
    compare,
    name_of,
    partial_spearman,
    tie_bounds,
    unit_vectors,
)

OF_RSATOOLBOX = {
    "spearman": "spearman",
    "pearson": "corr",
    "tau-a": "tau-a",
    "tau-b": "tau-b",
    "cosine": "cosine",
    "whitened_cosine": "cosine_cov",
    "whitened_pearson": "corr_cov",
}


@pytest.fixture
def rdms() -> torch.Tensor:
    """Five RDMs over nine images; the last has many ties."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(5, 9, 12, generator=generator, dtype=torch.float64)
    made = squared_euclidean_rdm(patterns + patterns[:1])
    made[-1] = made[-1].round()
    return made


def test_every_method_has_its_oracle() -> None:
    assert set(OF_RSATOOLBOX) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_similarity_is_that_of_rsatoolbox(rdms: torch.Tensor, method: str) -> None:
    expected = rsatoolbox.rdm.compare(rdms.numpy(), rdms.numpy(), method=OF_RSATOOLBOX[method])
    torch.testing.assert_close(compare(rdms[:, None], rdms, method=method), torch.from_numpy(np.asarray(expected)))


@pytest.mark.parametrize("method", ["whitened_cosine", "whitened_pearson"])
def test_whitening_by_a_noise_covariance_is_that_of_rsatoolbox(rdms: torch.Tensor, method: str) -> None:
    """Its exact (slow) form, solved by conjugate gradients."""
    values = torch.randn(9, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sigma = values @ values.mT / 20
    expected = rsatoolbox.rdm.compare(rdms.numpy(), rdms.numpy(), method=OF_RSATOOLBOX[method], sigma_k=sigma.numpy())
    found = compare(rdms[:, None], rdms, method=method, noise_covariance=sigma)
    torch.testing.assert_close(found, torch.from_numpy(np.asarray(expected)), atol=1e-4, rtol=1e-4)
    assert (found - compare(rdms[:, None], rdms, method=method)).abs().max() > 0.01


def test_spearman_and_ranks_are_those_of_scipy_with_ties() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 5, (3, 36)).astype(float), generator.integers(0, 4, (3, 36)).astype(float)
    assert np.array_equal(average_ranks(torch.from_numpy(first)), scipy.stats.rankdata(first, axis=1))
    expected = [scipy.stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    found = compare(torch.from_numpy(first), torch.from_numpy(second))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_kendall_is_tau_a_and_tau_b_is_scipys(rdms: torch.Tensor) -> None:
    """Of the RDM with ties, where the two differ; rsatoolbox's 'kendall' is tau-b."""
    first, second = rdms[0].numpy(), rdms[-1].numpy()
    found = {name: float(compare(rdms[0], rdms[-1], method=name)) for name in ("kendall", "tau-a", "tau_a", "tau-b", "tau_b")}
    tau_b = scipy.stats.kendalltau(first, second).statistic
    assert found["tau-b"] == found["tau_b"] == pytest.approx(tau_b)
    assert found["kendall"] == found["tau-a"] == found["tau_a"]
    assert abs(found["tau-a"] - tau_b) > 1e-3
    assert (name_of("kendall"), name_of("tau-b"), name_of("spearman")) == ("Kendall's tau-a", "Kendall's tau-b", "spearman")


def test_tau_a_is_the_count_of_pairs_of_pairs() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.integers(0, 5, 21).astype(float), generator.integers(0, 4, 21).astype(float)
    signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i in range(21) for j in range(i)]
    found = compare(torch.from_numpy(first), torch.from_numpy(second), method="kendall")
    assert float(found) == pytest.approx(np.mean(signs))


@pytest.mark.parametrize("method", METHODS)
def test_invariances(rdms: torch.Tensor, method: str) -> None:
    """Itself gives 1 (tau-a only without ties); neither scale nor the order of the two matters; single precision is close."""
    torch.testing.assert_close(compare(rdms[:4], rdms[:4], method=method), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(compare(3 * rdms[0], rdms[1], method=method), compare(rdms[1], rdms[0], method=method))
    torch.testing.assert_close(
        compare(rdms[0].float(), rdms[1].float(), method=method), compare(rdms[0], rdms[1], method=method), atol=1e-6, rtol=0
    )


def test_partial_spearman_is_the_inverse_of_the_correlation_matrix(rdms: torch.Tensor) -> None:
    """Partial correlation given all others: -P_ij / sqrt(P_ii P_jj), P the inverse of scipy's Spearman matrix."""
    inverse = np.linalg.inv(scipy.stats.spearmanr(rdms.numpy(), axis=1).statistic)
    expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    assert float(partial_spearman(rdms[0], rdms[1], rdms[2:])) == pytest.approx(expected)


def test_nothing_is_left_beyond_itself(rdms: torch.Tensor) -> None:
    with pytest.raises(DegenerateError, match="confounds explain all"):
        partial_spearman(rdms[0], rdms[1], rdms[:1])


def test_a_pure_confound_vanishes() -> None:
    """Planted: model and measurement share only the confound; rho is high, partial rho within 3 s.e. of 0."""
    generator = torch.Generator().manual_seed(4)
    confound, model, brain = torch.randn(3, 4950, generator=generator, dtype=torch.float64)
    model, brain = model + confound, brain + confound
    assert compare(model, brain) > 0.4
    assert partial_spearman(model, brain, confound[None]).abs() < 3 / 4950**0.5


@pytest.mark.parametrize("method", METHODS)
def test_refused(rdms: torch.Tensor, method: str) -> None:
    with pytest.raises(InputError, match="36 predicted pairs, 28 measured"):
        compare(rdms[0], rdms[:, :28], method=method)
    flat = rdms.clone()
    flat[3] = 0.0 if method.endswith("cosine") else 0.7
    with pytest.raises(DegenerateError, match="measured RDM 3: all pairs have the same"):
        compare(rdms[0], flat, method=method)
    flat[2, 7] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        compare(rdms[0], flat, method=method)


def test_refused_names_and_covariances(rdms: torch.Tensor) -> None:
    with pytest.raises(InputError, match="did you mean 'spearman'"):
        compare(rdms[0], rdms[1], method="spearmann")
    with pytest.raises(InputError, match="RDMs over 9 images"):
        compare(rdms[0], rdms[1], method="whitened_cosine", noise_covariance=torch.eye(8).double())
    with pytest.raises(DegenerateError, match="positive definite"):
        compare(rdms[0], rdms[1], method="whitened_cosine", noise_covariance=torch.zeros(9, 9).double())


def test_unit_vectors_give_the_similarity(rdms: torch.Tensor) -> None:
    units = unit_vectors(rdms, method="spearman")
    torch.testing.assert_close(units @ units.mT, compare(rdms[:, None], rdms))


def test_linear_cka_is_the_whitened_cosine() -> None:
    """With the identity: <K, K'> / |K| |K'| of centred kernels (Kornblith et al. 2019)."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.randn(2, 8, 6, generator=generator, dtype=torch.float64)
    centred = patterns - patterns.mean(1, keepdim=True)
    first, second = centred @ centred.mT
    expected = (first * second).sum() / first.norm() / second.norm()
    torch.testing.assert_close(compare(*squared_euclidean_rdm(patterns), method="whitened_cosine"), expected)
    assert compare(*correlation_rdm(patterns), method="whitened_cosine") != expected


def test_ties_take_the_places_between_those_below_and_those_above() -> None:
    """Oracle: numpy's counts; leading axes of other sizes, a single entry, and single precision."""
    values = torch.from_numpy(np.random.default_rng(6).integers(0, 4, (2, 3, 7)).astype(np.float32))
    first, last = tie_bounds(values)
    pairwise = values[..., None, :], values[..., None]
    assert torch.equal(first, (pairwise[0] < pairwise[1]).sum(-1))
    assert torch.equal(last, (pairwise[0] <= pairwise[1]).sum(-1) - 1)
    ranks = average_ranks(values)
    assert ranks.dtype == torch.float64
    assert np.array_equal(ranks, scipy.stats.rankdata(values, axis=-1))
    assert average_ranks(torch.tensor([[3.0], [4.0]])).tolist() == [[1], [1]]


@pytest.mark.parametrize("method", METHODS)
def test_leading_axes_broadcast(rdms: torch.Tensor, method: str) -> None:
    """Model, subject and time of other sizes; oracle: one pair after the other. Gradients do not stand in the way."""
    models, measured = rdms[:2, None, None].clone().requires_grad_(), rdms.flip(-1)[torch.tensor([[1, 2, 3], [4, 0, 1]])]
    found = compare(models, measured, method=method).detach()
    assert (found.shape, found.dtype) == ((2, 2, 3), torch.float64)
    for place in np.ndindex(2, 2, 3):
        one = compare(models[place[0], 0, 0].detach(), measured[place[1:]], method=method)
        torch.testing.assert_close(found[place], one)
        assert one.shape == ()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_spread_below_rounding_is_none(rdms: torch.Tensor, scale: float) -> None:
    """f (1 + a) and f (1 - a) in turn over 36 pairs have the length 6 f a: none below 1e-10 of the largest value.

    A second RDM of another scale stands beside it; ranks know no scale.
    """
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(18)
    others = torch.stack([1e6 * rdms[0], 1e-6 * rdms[1]])
    below, above = (torch.cat([others, scale * (1 + a * signs)[None]]) for a in (1.6e-11, 1.7e-11))
    for method in ("pearson", "whitened_pearson"):
        with pytest.raises(DegenerateError, match="RDM 2: all pairs have the same"):
            unit_vectors(below, method=method)
        assert unit_vectors(above, method=method).isfinite().all()
    expected = scipy.stats.pearsonr(signs, rdms[0]).statistic
    assert float(compare(above, rdms[0])[2]) == pytest.approx(scipy.stats.spearmanr(signs, rdms[0]).statistic)
    assert float(compare(above, rdms[0], method="pearson")[2]) == pytest.approx(expected, abs=1e-4)
    assert float(compare(below, rdms[0])[2]) == pytest.approx(scipy.stats.spearmanr(signs, rdms[0]).statistic)


def test_partial_spearman_of_many_and_beyond_nothing(rdms: torch.Tensor) -> None:
    """One after the other; confounds are ranked in double precision; without a confound it is Spearman's."""
    found = partial_spearman(rdms[:2, None], rdms[2:4], rdms[4:])
    for place in np.ndindex(2, 2):
        torch.testing.assert_close(found[place], partial_spearman(rdms[place[0]], rdms[2 + place[1]], rdms[4:]))
    torch.testing.assert_close(partial_spearman(rdms[0], rdms[1], rdms[:0]), compare(rdms[0], rdms[1]))
    torch.testing.assert_close(partial_spearman(rdms[0], rdms[1], rdms[2:].float()), partial_spearman(*rdms[:2], rdms[2:]))
    with pytest.raises(DegenerateError, match="measured RDM"):
        partial_spearman(rdms[0], rdms[1], rdms[1:2])
    almost = torch.arange(36.0).double()
    swapped = almost[[1, 0, *range(2, 36)]]
    assert float(partial_spearman(swapped, swapped, almost[None])) == pytest.approx(1)


def test_the_methods_names(rdms: torch.Tensor) -> None:
    assert {name: check_method(name) for name in (*METHODS, *ALIASES)} == {name: name for name in METHODS} | ALIASES
    for name in ("tau-c", "kendal"):
        with pytest.raises(InputError, match="is not a way to compare RDMs"):
            compare(rdms[0], rdms[1], method=name)
    torch.testing.assert_close(unit_vectors(rdms, method="pearson").norm(dim=-1), torch.ones(5, dtype=torch.float64))
    covariance = torch.eye(9) + 0.5
    for kind in (covariance, covariance.double()):
        found = compare(rdms[0], rdms[1], method="whitened_cosine", noise_covariance=kind)
        torch.testing.assert_close(found, compare(rdms[0], rdms[1], method="whitened_cosine"))  # no contrast sees a constant
    spoilt = rdms.clone()
    spoilt[3, 4], spoilt[4, 0] = torch.inf, torch.nan
    with pytest.raises(InputError, match=r"measured RDM \(3,\): not finite"):
        compare(rdms[0], spoilt)
    with pytest.raises(DegenerateError, match=r"predicted RDM \(0, 1\): all pairs"):
        compare(torch.stack([rdms[0], torch.ones_like(rdms[0])])[None], rdms[0])
    with pytest.raises(DegenerateError, match="predicted RDM: all pairs"):
        compare(torch.ones_like(rdms[0]), rdms[0])
    with pytest.raises(DegenerateError, match="RDM: all pairs"):
        unit_vectors(torch.ones(1), method="pearson")
