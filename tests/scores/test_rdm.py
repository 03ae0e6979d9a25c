"""RDMs of patterns against rsatoolbox, scipy and loops spelled out; precision, gradients, degenerate input."""

import itertools
import sys

import numpy as np
import pytest
import rsatoolbox
import scipy.spatial.distance as distances
import torch

from pulvinar.core.errors import DegenerateError, InputError, MissingDependencyError
from pulvinar.scores.rdm import (
    ROWS_PER_PRODUCT,
    _check_precision,
    condense,
    correlation_rdm,
    count_images,
    crossnobis_rdm,
    euclidean_rdm,
    expand,
    pair_index,
    pair_rows,
    pairs_among,
    pairs_between,
    squared_euclidean_rdm,
    squared_mahalanobis_rdm,
)


@pytest.fixture
def patterns() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((12, 7)) + 2)


def by_rsatoolbox(patterns: torch.Tensor, method: str, **settings) -> torch.Tensor:
    dataset = rsatoolbox.data.Dataset(patterns.numpy().copy())
    return torch.from_numpy(rsatoolbox.rdm.calc_rdm(dataset, method=method, **settings).get_vectors()[0])


def test_correlation_rdm_is_that_of_rsatoolbox(patterns: torch.Tensor) -> None:
    torch.testing.assert_close(correlation_rdm(patterns), by_rsatoolbox(patterns, "correlation"))


def test_squared_euclidean_rdm_is_that_of_rsatoolbox(patterns: torch.Tensor) -> None:
    torch.testing.assert_close(squared_euclidean_rdm(patterns), by_rsatoolbox(patterns, "euclidean"))


def test_euclidean_rdm_is_that_of_scipy(patterns: torch.Tensor) -> None:
    torch.testing.assert_close(euclidean_rdm(patterns), torch.from_numpy(distances.pdist(patterns)) / 7**0.5)


@pytest.mark.parametrize("n_conditions", [3, ROWS_PER_PRODUCT, ROWS_PER_PRODUCT + 1, 2 * ROWS_PER_PRODUCT + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_and_blas_give_the_order_of_scipy(n_conditions: int, dtype: torch.dtype) -> None:
    """Without gradients large RDMs go through BLAS, with them through blocks; both in condensed order, batched too."""
    values = torch.randn(2, n_conditions, 9, dtype=dtype, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([torch.from_numpy(distances.pdist(rows.double(), "correlation")) for rows in values]).to(dtype)
    torch.testing.assert_close(correlation_rdm(values), expected, atol=1e-6, rtol=1e-5)
    with_gradient = correlation_rdm(values.clone().requires_grad_())
    torch.testing.assert_close(with_gradient.detach(), expected, atol=1e-6, rtol=1e-5)


def test_gradients_are_right(patterns: torch.Tensor) -> None:
    """Against finite differences."""
    small = patterns[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(correlation_rdm, (small,))
    assert torch.autograd.gradcheck(squared_euclidean_rdm, (small,))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_float32_is_accurate(offset: float) -> None:
    """Within 1e-6 of the RDM in float64 of the same float32 numbers, also under an offset of 100,000 standard deviations."""
    values = torch.randn(40, 5000, generator=torch.Generator().manual_seed(2)) + offset
    error = (correlation_rdm(values).double() - correlation_rdm(values.double())).abs().max()
    assert error < 1e-6


def test_near_pairs_keep_their_digits_in_float32() -> None:
    """Two patterns 1e-3 apart and both 1e2 from the origin: the plain formula in float32 has no digit left."""
    first = torch.randn(1, 50, generator=torch.Generator().manual_seed(3)) * 100
    patterns = torch.cat([first, first + 2**-10, -first])
    torch.testing.assert_close(
        squared_euclidean_rdm(patterns)[0], (patterns[1] - patterns[0]).square().mean(), rtol=1e-4, atol=0
    )


def test_autocast_does_not_round_the_products(patterns: torch.Tensor) -> None:
    values = patterns.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = correlation_rdm(values)
    assert torch.equal(inside, correlation_rdm(values))
    assert correlation_rdm(values.bfloat16()).dtype == torch.float32


def test_the_row_without_variance_is_named(patterns: torch.Tensor) -> None:
    for constant in (0.0, 0.1, 1e6):
        patterns[5] = constant
        with pytest.raises(DegenerateError, match="pattern 5 has no variance over its 7 features"):
            correlation_rdm(patterns)
        with pytest.raises(DegenerateError, match=r"pattern \(1, 5\) has no variance over its 7 features"):
            correlation_rdm(torch.stack([patterns.roll(1, 0) * 0 + torch.arange(7), patterns]).float())


@pytest.mark.parametrize("rdm", [correlation_rdm, squared_euclidean_rdm])
def test_the_row_that_is_not_finite_is_named(patterns: torch.Tensor, rdm) -> None:
    patterns[3, 2] = torch.nan
    with pytest.raises(InputError, match="pattern 3 is not finite"):
        rdm(patterns)


def test_one_feature_has_no_correlation() -> None:
    for shape in ((4, 1), (2, 4, 1)):
        with pytest.raises(InputError, match="2 features"):
            correlation_rdm(torch.randn(shape))
    assert correlation_rdm(torch.randn(3, 1, 2)).shape == (3, 0)


def covariance(n_features: int) -> torch.Tensor:
    values = torch.randn(n_features, 3 * n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return values @ values.mT / (3 * n_features)


def test_mahalanobis_is_the_loop(patterns: torch.Tensor) -> None:
    precision = torch.linalg.inv(covariance(7))
    pairs = itertools.combinations(patterns, 2)
    expected = torch.stack([(a - b) @ precision @ (a - b) / 7 for a, b in pairs])
    torch.testing.assert_close(squared_mahalanobis_rdm(patterns, precision), expected)
    torch.testing.assert_close(squared_mahalanobis_rdm(patterns, torch.eye(7).double()), squared_euclidean_rdm(patterns))


def test_crossnobis_is_the_loop() -> None:
    generator = np.random.default_rng(5)
    conditions, folds = np.tile(["b", "a", "c", "d"], 3), np.repeat([2, 0, 1], 4)
    order = generator.permutation(12)
    conditions, folds, values = conditions[order], folds[order], generator.standard_normal((12, 5))
    precision = torch.linalg.inv(covariance(5))
    expected = []
    for first, second in itertools.combinations("abcd", 2):
        products = []
        for fold in range(3):
            gap_in, gap_out = (
                values[(conditions == first) & side].mean(0) - values[(conditions == second) & side].mean(0)
                for side in (folds == fold, folds != fold)
            )
            products.append(gap_in @ precision.numpy() @ gap_out / 5)
        expected.append(np.mean(products))
    result = crossnobis_rdm(torch.from_numpy(values), conditions, folds, precision)
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
def test_crossnobis_of_folds_that_lack_conditions_is_that_of_the_toolbox(seed: int) -> None:
    """Conditions in two folds or more of five, some of them twice in a fold, whose patterns share an offset."""
    generator = np.random.default_rng(seed)
    conditions, folds = np.repeat(np.arange(7), 6), np.tile([0, 1, 2, 3, 4, 4], 7)
    kept = generator.random(42) < 0.6
    kept[::6], kept[1::6] = True, True
    conditions, folds = conditions[kept], folds[kept]
    values = generator.standard_normal((len(folds), 9)) + 3
    precision = torch.linalg.inv(covariance(9))
    data = rsatoolbox.data.Dataset(values, obs_descriptors={"condition": conditions, "fold": folds})
    for weights in (None, precision):
        noise = None if weights is None else weights.numpy()
        options = {"method": "crossnobis", "descriptor": "condition", "cv_descriptor": "fold", "noise": noise}
        expected = rsatoolbox.rdm.calc_rdm_unbalanced(data, **options).get_vectors()[0]
        found = crossnobis_rdm(torch.from_numpy(values), conditions, folds, weights).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_crossnobis_is_zero_on_average_without_a_difference() -> None:
    """Planted: no condition differs; the mean over 200 data sets is within 3 standard errors of 0, the Euclidean one is not."""
    generator = np.random.default_rng(6)
    conditions, folds = np.tile(np.arange(3), 2), np.repeat([0, 1], 3)
    worlds = [torch.from_numpy(generator.standard_normal((6, 8))) for _ in range(200)]
    crossed = torch.stack([crossnobis_rdm(world, conditions, folds).mean() for world in worlds])
    assert crossed.mean().abs() < 3 * crossed.std() / 200**0.5
    assert squared_euclidean_rdm(torch.stack(worlds)).mean() > 1


def test_crossnobis_refuses_what_does_not_fit(patterns: torch.Tensor) -> None:
    with pytest.raises(InputError, match="12 observations, but 3 conditions"):
        crossnobis_rdm(patterns, [0, 1, 2], [0] * 12)
    with pytest.raises(InputError, match="2 folds"):
        crossnobis_rdm(patterns, [0, 1, 2] * 4, [0] * 12)
    with pytest.raises(InputError, match="condition 1 lies in one fold only"):
        crossnobis_rdm(patterns, [0, 0, 0, 1, 1, 1] * 2, [0] * 3 + [1] * 9)
    with pytest.raises(InputError, match=r"symmetric \(7, 7\)"):
        squared_mahalanobis_rdm(patterns, torch.ones(7, 7).double().triu())


def test_square_and_condensed_are_those_of_scipy() -> None:
    condensed = torch.rand(2, 3, 10, generator=torch.Generator().manual_seed(7))
    square = expand(condensed)
    assert np.array_equal(square[1, 2], distances.squareform(condensed[1, 2].numpy()))
    assert torch.equal(condense(square), condensed)
    with pytest.raises(InputError, match="11 came"):
        count_images(11)


def test_pairs_of_chosen_images() -> None:
    """Against the names of all pairs, listed."""
    names = list(itertools.combinations(range(6), 2))
    first, second = pair_rows(6)
    assert torch.equal(pair_index(second, first, 6), torch.arange(15))
    assert [names[place] for place in pairs_among(torch.tensor([4, 1, 3]), 6)] == [(1, 4), (3, 4), (1, 3)]
    between = [names[place] for place in pairs_between(torch.tensor([5, 0]), torch.tensor([2, 4]), 6)]
    assert between == [(2, 5), (4, 5), (0, 2), (0, 4)]
    with pytest.raises(InputError, match="stands in both"):
        pairs_between(torch.tensor([5, 0]), torch.tensor([0, 1]), 6)


@pytest.mark.parametrize("rdm", [correlation_rdm, squared_euclidean_rdm, euclidean_rdm])
def test_a_batch_of_patterns_is_one_after_the_other(rdm) -> None:
    """Sizes all differ, so that no axis stands for another."""
    batch = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 5, 8)))
    wanted = torch.stack([torch.stack([rdm(patterns) for patterns in row]) for row in batch])
    torch.testing.assert_close(rdm(batch), wanted)
    square = expand(wanted)
    assert square.shape == (2, 3, 5, 5)
    torch.testing.assert_close(condense(square), wanted)
    spoilt = batch.clone()
    spoilt[1, 2, 4, 7] = torch.nan
    with pytest.raises(InputError, match=r"1, 2, 4"):
        rdm(spoilt)


def test_distances_far_from_the_origin_keep_their_digits() -> None:
    """The same patterns around 3e6, where squares lose 13 of 16 digits; oracle: around 0."""
    patterns = torch.from_numpy(np.random.default_rng(2).integers(-8, 8, (9, 6)).astype(float))
    for away in (torch.tensor(3e6), 3e6 * torch.arange(6)):
        torch.testing.assert_close(squared_euclidean_rdm(patterns + away), squared_euclidean_rdm(patterns), rtol=1e-9, atol=0)


def test_half_precision_around_it_changes_nothing(patterns: torch.Tensor) -> None:
    single = patterns.float()
    wanted = [rdm(single) for rdm in (correlation_rdm, squared_euclidean_rdm)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [rdm(single) for rdm in (correlation_rdm, squared_euclidean_rdm)]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, theirs)


def test_two_features_and_two_images_are_enough() -> None:
    torch.testing.assert_close(correlation_rdm(torch.tensor([[0.0, 1], [3, 5], [2, 0]])), torch.tensor([0.0, 2, 2]))
    assert [count_images(n) for n in (1, 3, 6, 4950, 499_999_500_000)] == [2, 3, 4, 100, 1_000_000]
    for n in (0, 2, 4, 4951):
        with pytest.raises(InputError, match=f"{n} came"):
            count_images(n)


def test_a_precision_is_symmetric_within_rounding_and_the_result_has_the_patterns_type(patterns: torch.Tensor) -> None:
    single, precision = patterns.float(), torch.eye(7)
    precision[0, 1], precision[1, 0] = 0.5, 0.5 * (1 + 2e-5)  # as an inverse in float32 leaves it
    conditions, folds = np.repeat(np.arange(6), 2), np.tile([0, 1], 6)
    for found in (squared_mahalanobis_rdm(single, precision), crossnobis_rdm(single, conditions, folds, precision)):
        assert found.dtype == torch.float32
    for lower in (0.5 * (1 + 1e-3), 0.2):
        precision[1, 0] = lower
        with pytest.raises(InputError, match="symmetric"):
            squared_mahalanobis_rdm(single, precision)


@pytest.mark.parametrize("n_features", [4, 400])
def test_a_spread_below_rounding_of_the_mean_is_none(n_features: int) -> None:
    """1000 + a and 1000 - a in turn have the length a root(n); four steps of the mean's relative precision are 7.8 of 2^-43."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(n_features // 2)
    varied = torch.randn(2, n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    for sign in (1, -1):
        below, above = (torch.cat([varied, sign * (1000 + k * 2.0**-43 * signs)[None]]) for k in (7, 9))
        with pytest.raises(DegenerateError, match=f"pattern 2 has no variance over its {n_features} features"):
            correlation_rdm(below)
        assert correlation_rdm(above)[1] == pytest.approx(1 - sign * float(np.corrcoef(varied[0], signs)[0, 1]), abs=1e-3)


def test_equal_patterns_are_at_distance_0_and_never_below() -> None:
    """Rounding leaves some products above the squares; a root of less than 0 would be NaN."""
    patterns = torch.randn(20, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(9)).repeat(2, 1)
    for values in (patterns, patterns.repeat(4, 1), patterns.clone().requires_grad_()):
        found = squared_euclidean_rdm(values).detach()
        assert found.min() == 0
        assert euclidean_rdm(values.detach()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_out_single(patterns: torch.Tensor, dtype: torch.dtype) -> None:
    """Oracle: the same numbers in single precision."""
    half = patterns.to(dtype)
    for rdm in (correlation_rdm, squared_euclidean_rdm):
        torch.testing.assert_close(rdm(half), rdm(half.float()), rtol=0, atol=0)


def test_the_first_of_several_bad_rows_is_named(patterns: torch.Tensor) -> None:
    conditions, folds = np.repeat(np.arange(6), 2), np.tile([0, 1], 6)
    flat = patterns.clone()
    flat[[8, 10]] = 0.5
    with pytest.raises(DegenerateError, match="pattern 8 has"):
        correlation_rdm(flat)
    patterns[[4, 9], [1, 0]] = torch.inf
    for name, rdm in (
        ("correlation", correlation_rdm),
        ("Euclidean", squared_euclidean_rdm),
        ("Mahalanobis", lambda rows: squared_mahalanobis_rdm(rows, torch.eye(7))),
        ("crossnobis", lambda rows: crossnobis_rdm(rows, conditions, folds)),
    ):
        with pytest.raises(InputError, match=f"^{name} RDM: pattern 4 is not finite"):
            rdm(patterns)


def test_crossnobis_without_a_precision_has_the_identity(patterns: torch.Tensor) -> None:
    """Names in any order are sorted; lengths that differ, in either list, are refused; so is a precision that is none."""
    conditions, folds = np.repeat(["c", "a", "b"], 4), np.tile([7, 7, 3, 3], 3)
    found = crossnobis_rdm(patterns, conditions, folds)
    torch.testing.assert_close(found, crossnobis_rdm(patterns, list(conditions), list(folds), torch.eye(7).double()))
    means = {(name, fold): patterns[(conditions == name) & (folds == fold)].mean(0) for name in "abc" for fold in (3, 7)}
    gaps = [[means[one, fold] - means[two, fold] for fold in (3, 7)] for one, two in ("ab", "ac", "bc")]
    torch.testing.assert_close(found, torch.stack([(a * b).mean() for a, b in gaps]))
    for names, parts in ((conditions[:-1], folds), (conditions, folds[:-1])):
        with pytest.raises(InputError, match="12 observations, but"):
            crossnobis_rdm(patterns, names.tolist(), parts.tolist())
    with pytest.raises(InputError, match="symmetric"):
        crossnobis_rdm(patterns, conditions, folds, torch.ones(7, 7).double().triu())
    for wrong in (torch.eye(6), torch.ones(7, 6)):
        with pytest.raises(InputError, match=r"symmetric \(7, 7\) matrix is needed"):
            _check_precision(wrong, 7)


def test_gradients_do_not_stand_in_the_way_of_the_toolbox(patterns: torch.Tensor) -> None:
    values, precision = patterns.clone().requires_grad_(), covariance(7).requires_grad_()
    conditions, folds = np.repeat(np.arange(6), 2), np.tile([0, 1], 6)
    assert torch.equal(squared_mahalanobis_rdm(values, precision), squared_mahalanobis_rdm(patterns, precision.detach()))
    found = crossnobis_rdm(values, conditions, folds, precision)
    assert torch.equal(found, crossnobis_rdm(patterns, conditions, folds, precision.detach()))


def test_without_the_toolbox_the_message_says_what_to_install(patterns: torch.Tensor, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rsatoolbox", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pulvinar\[rsa\]'"):
        squared_mahalanobis_rdm(patterns, torch.eye(7).double())
