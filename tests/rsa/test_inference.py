"""Nulls and intervals against loops over resamples with scipy and rsatoolbox, and against planted truths."""

import copy
import itertools

import numpy as np
import pytest
import rsatoolbox
import scipy.stats
import torch
from rsatoolbox.util.inference_util import _dual_bootstrap

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.rsa import inference
from pulvinar.rsa.inference import (
    ResampledScores,
    bootstrap_interval,
    bootstrap_scores,
    image_permutation_null,
    model_difference,
    score_and_compare,
    score_rdm,
    score_rdms,
    standard_error,
)
from pulvinar.scores.rdm import condense, correlation_rdm, expand, pairs_among
from pulvinar.scores.rdm_ceiling import subject_scores
from pulvinar.scores.rdm_comparison import METHODS, compare

N_IMAGES, N_SUBJECTS = 12, 5


def world(seed: int, *, signal: float = 1.0, n_images: int = N_IMAGES) -> tuple[torch.Tensor, torch.Tensor]:
    """A model RDM, and subjects whose patterns are the model's times `signal` plus their own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(n_images, 20, generator=generator, dtype=torch.float64)
    own = torch.randn(N_SUBJECTS, n_images, 20, generator=generator, dtype=torch.float64)
    return correlation_rdm(shared), correlation_rdm(signal * shared + own)


def shuffled(rdms: torch.Tensor, order: np.ndarray) -> torch.Tensor:
    return condense(expand(rdms)[..., order, :][..., order])


@pytest.mark.parametrize("method", METHODS)
def test_null_is_the_loop_over_permutations(method: str) -> None:
    """The same permutations, each compared anew."""
    model, measured = world(0)
    orders = np.random.default_rng(1).permuted(np.tile(np.arange(N_IMAGES), (20, 1)), axis=1)
    expected = torch.stack([compare(shuffled(model, order), measured, method=method) for order in orders])
    null_r, null_r2 = image_permutation_null(
        model, measured, generator=np.random.default_rng(1), method=method, n_permutations=20
    )
    assert null_r.mean == pytest.approx(float(expected.mean()))
    assert null_r.percentile_95 == pytest.approx(np.percentile(expected.mean(1), 95))
    assert null_r2.mean == pytest.approx(float(expected.square().mean()))
    observed = compare(model, measured, method=method)
    assert null_r.p_value == pytest.approx((1 + int((expected.mean(1) >= observed.mean()).sum())) / 21)


def test_null_of_a_subset_is_the_loop() -> None:
    """The images of the subjects are permuted, and the subset is ranked anew; the model's other pairs are never looked at."""
    model, measured = world(0)
    pairs = pairs_among(torch.tensor([0, 2, 3, 7, 8]), N_IMAGES)
    orders = np.random.default_rng(2).permuted(np.tile(np.arange(N_IMAGES), (20, 1)), axis=1)
    expected = torch.stack([compare(model[pairs], shuffled(measured, order)[:, pairs]) for order in orders])
    hidden = torch.full_like(model, torch.nan)
    hidden[pairs] = model[pairs]
    null, _ = image_permutation_null(hidden, measured, generator=np.random.default_rng(2), pairs=pairs, n_permutations=20)
    assert null.mean == pytest.approx(float(expected.mean()))
    assert null.above_null == pytest.approx(float(compare(model[pairs], measured[:, pairs]).mean() - expected.mean()))


def test_null_of_time_points_averages_over_time() -> None:
    model, measured = world(0)
    movie = torch.stack([measured, measured.flip(0)], dim=1)  # subject time pair
    for pairs in (None, pairs_among(torch.arange(6), N_IMAGES)):
        one, other = (
            image_permutation_null(model, rdms, generator=np.random.default_rng(3), pairs=pairs, n_permutations=30)[0]
            for rdms in (movie, measured)
        )
        assert one.mean == pytest.approx(other.mean)  # the mean over subjects and times is over the same RDMs
        assert one.above_null == pytest.approx(other.above_null)
    whitened = image_permutation_null(
        model, movie, generator=np.random.default_rng(3), method="whitened_cosine", n_permutations=5
    )
    assert np.isfinite(whitened[0].mean)


@pytest.mark.long
def test_p_values_are_uniform_without_a_relation() -> None:
    """Planted null: over 200 worlds the share of p <= .2 is .2 within 3 standard errors (.085)."""
    p_values = []
    for seed in range(200):
        model, measured = world(1000 + seed, signal=0.0)
        null = image_permutation_null(model, measured, generator=np.random.default_rng(seed), n_permutations=49)[0]
        p_values.append(null.p_value)
    assert abs(np.mean(np.array(p_values) <= 0.2) - 0.2) < 3 * (0.2 * 0.8 / 200) ** 0.5


@pytest.mark.parametrize(("method", "name"), [("spearman", "spearman"), ("pearson", "corr"), ("cosine", "cosine")])
@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_is_that_of_rsatoolbox(method: str, name: str, ties: bool) -> None:
    """Its resampled RDMs repeat pairs and mark those of an image with itself; the same draws, one by one."""
    model, measured = world(4)
    if ties:
        model = (model * 4).round()
    generator = np.random.default_rng(5)
    images = generator.multinomial(N_IMAGES, np.full(N_IMAGES, 1 / N_IMAGES), size=15)
    subjects = generator.multinomial(N_SUBJECTS, np.full(N_SUBJECTS, 1 / N_SUBJECTS), size=15) / N_SUBJECTS
    expected_r, expected_r2, expected_images = [], [], []
    for counts, shares in zip(images, subjects, strict=True):
        drawn = np.repeat(np.arange(N_IMAGES), counts)
        resampled = [
            rsatoolbox.rdm.RDMs(np.atleast_2d(rdms)).subsample_pattern("index", drawn)
            for rdms in (model.numpy(), measured.numpy())
        ]
        rho = rsatoolbox.rdm.compare(*resampled, method=name)[0]
        expected_r.append(shares @ rho)
        expected_r2.append(shares @ rho**2)
        expected_images.append(rho.mean())
    r, r2 = bootstrap_scores(model[None], measured, generator=np.random.default_rng(5), method=method, n_bootstrap=15)
    np.testing.assert_allclose(r.both[:, 0], expected_r)
    np.testing.assert_allclose(r2.both[:, 0], expected_r2)
    np.testing.assert_allclose(r.images[:, 0], expected_images)
    np.testing.assert_allclose(r.subjects[:, 0], subjects @ subject_scores(model, measured, method=method).numpy())


def test_bootstrap_of_a_subset_and_of_time_points() -> None:
    """A pair outside the subset weighs nothing: the loop with scipy over repeated pairs."""
    model, measured = world(6)
    chosen = torch.arange(0, 66, 2)
    first, second = np.triu_indices(N_IMAGES, 1)
    counts = np.random.default_rng(7).multinomial(N_IMAGES, np.full(N_IMAGES, 1 / N_IMAGES), size=8)
    expected = []
    for count in counts:
        weight = (count[first] * count[second])[chosen]
        rho = [
            scipy.stats.spearmanr(np.repeat(model[chosen].numpy(), weight), np.repeat(own[chosen].numpy(), weight)).statistic
            for own in measured
        ]
        expected.append(rho)
    for row, own in enumerate(measured):  # one subject at a time: no draw of subjects
        found, _ = bootstrap_scores(model[None], own[None], generator=np.random.default_rng(7), pairs=chosen, n_bootstrap=8)
        np.testing.assert_allclose(found.both[:, 0], np.array(expected)[:, row])
    movie = torch.stack([measured[:1], measured[1:2]], dim=1)
    found, _ = bootstrap_scores(model[None], movie, generator=np.random.default_rng(7), pairs=chosen, n_bootstrap=8)
    np.testing.assert_allclose(found.both[:, 0], np.array(expected)[:, :2].mean(1))


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    model, measured = world(8)
    for pairs in (None, torch.arange(40)):
        results = []
        for entries in (2**19, 1):
            monkeypatch.setattr(inference, "ENTRIES_PER_BLOCK", entries)
            settings = {"generator": np.random.default_rng(9), "method": method, "pairs": pairs}
            results.append(score_rdm(model, measured, n_permutations=12, n_bootstrap=12, **settings))
        assert results[0].null_r.mean == pytest.approx(results[1].null_r.mean)
        assert results[0].r_interval == pytest.approx(results[1].r_interval)


def test_score_is_complete_and_repeats_bit_by_bit() -> None:
    model, measured = world(10)
    one, other = (
        score_rdm(model.requires_grad_(), measured, generator=np.random.default_rng(0), n_permutations=99, n_bootstrap=99)
        for _ in range(2)
    )
    assert (one.r, one.null_r, one.r_interval, one.r2_interval) == (other.r, other.null_r, other.r_interval, other.r2_interval)
    rho = subject_scores(model.detach(), measured)
    assert one.r == pytest.approx(float(rho.mean()))
    assert one.r2 == pytest.approx(float(rho.square().mean()))
    np.testing.assert_allclose(one.subject_r, rho)
    assert one.r_interval is not None
    assert one.r_interval[0] < one.r < one.r_interval[1]
    assert one.null_r.p_value == 0.01
    assert (one.n_subjects, one.n_images, one.n_pairs) == (N_SUBJECTS, N_IMAGES, 66)
    whitened = score_rdm(model, measured, generator=np.random.default_rng(0), method="whitened_cosine", n_permutations=9)
    assert whitened.r_interval is None


def test_difference_is_paired() -> None:
    """A model against itself differs by exactly 0; a better one by its scores' difference, with an interval above 0."""
    model, measured = world(11, n_images=20)
    worse = model + torch.rand(190, generator=torch.Generator().manual_seed(12), dtype=torch.float64) * 2
    same = model_difference(model, model, measured, generator=np.random.default_rng(0), n_bootstrap=50)
    assert (same.difference, same.low, same.high, same.p_value, same.p_value_subjects) == (0, 0, 0, 1, 1)
    for squared in (False, True):
        better = model_difference(model, worse, measured, generator=np.random.default_rng(0), squared=squared)
        scores = [subject_scores(rdm, measured) for rdm in (model, worse)]
        expected = [float((rho.square() if squared else rho).mean()) for rho in scores]
        assert better.difference == pytest.approx(expected[0] - expected[1])
        assert 0 < better.low < better.difference < better.high
        assert better.p_value < 0.05
        assert better.p_value_subjects == 2 / 2**N_SUBJECTS  # every subject prefers it: the smallest there is
    alone = model_difference(model, worse, measured[:1], generator=np.random.default_rng(0), n_bootstrap=50)
    assert alone.p_value_subjects is None


def test_standard_error_is_that_of_rsatoolbox() -> None:
    """Its correction of the dual bootstrap, on variances in every order, so that each bound is met."""
    generator, inside = np.random.default_rng(14), 0
    for scales in itertools.chain(*map(itertools.permutations, ([1.0, 1.3, 2.0], [1.0, 1.05, 1.52]))):
        draws = np.array(scales)[:, None] * generator.standard_normal((3, 50))
        parts = dict(zip(("both", "images", "subjects"), draws, strict=True))
        variances = np.array([parts[name].var() for name in ("both", "subjects", "images")])
        expected = _dual_bootstrap(variances, n_rdm=5, n_pattern=12)
        assert standard_error(ResampledScores(**parts, n_images=12, n_subjects=5)) == pytest.approx(expected**0.5)
        inside += max(variances[1] * 5 / 4, variances[2] * 12 / 11) < expected < variances[0]
        alone = standard_error(ResampledScores(**parts, n_images=12, n_subjects=1))
        assert alone == pytest.approx((variances[2] * 12 / 11) ** 0.5)
    assert inside  # the formula itself, not one of its bounds


def test_interval_is_that_of_the_t_distribution() -> None:
    ends = np.array([0.0, 1.0])
    parts = ResampledScores(both=2 * ends, images=ends, subjects=ends, n_images=9, n_subjects=4)
    expected = scipy.stats.t.interval(0.9, 3, loc=0.5, scale=standard_error(parts))
    assert bootstrap_interval(0.5, parts, level=0.9) == pytest.approx(expected)
    with pytest.raises(InputError, match="level"):
        bootstrap_interval(0.5, parts, level=95.0)


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.5, 1.0])
def test_intervals_cover_the_truth(signal: float) -> None:
    """Planted: 95 % intervals hold the mean score over images and subjects in 95 % of 200 worlds or more (measured: 100)."""
    truth = np.mean([float(subject_scores(*world(seed, signal=signal, n_images=25)).mean()) for seed in range(5000, 5400)])
    held = []
    for seed in range(200):
        model, measured = world(seed, signal=signal, n_images=25)
        resampled, _ = bootstrap_scores(model[None], measured, generator=np.random.default_rng(seed), n_bootstrap=400)
        low, high = bootstrap_interval(float(subject_scores(model, measured).mean()), resampled.of_model(0))
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.95


def test_refused() -> None:
    model, measured = world(13)
    generator = np.random.default_rng(0)
    with pytest.raises(InputError, match="have a weighted form, kendall came"):
        bootstrap_scores(model[None], measured, generator=generator, method="kendall")
    with pytest.raises(InputError, match="66 predicted pairs, 55 measured"):
        image_permutation_null(model, measured[:, :55], generator=generator)
    with pytest.raises(InputError, match="4 images or more"):
        image_permutation_null(model[:3], measured[:, :3], generator=generator)
    with pytest.raises(InputError, match="at least one permutation"):
        image_permutation_null(model, measured, generator=generator, n_permutations=0)
    flat = measured.clone()
    flat[1] = 0.5
    with pytest.raises(DegenerateError, match="measured RDM 1"):
        bootstrap_scores(model[None], flat, generator=generator)
    almost_flat = torch.zeros_like(model)
    almost_flat[0] = 1.0
    with pytest.raises(DegenerateError, match="have no variance"):
        bootstrap_scores(almost_flat[None], measured, generator=generator, n_bootstrap=200)


def test_models_are_scored_one_by_one_in_the_same_resamples() -> None:
    """Oracle: the parts called one after the other with the same generator: resamples first, then the null of all."""
    model, measured = world(20)
    models, pairs = torch.stack([model, model.flip(0) + model]), pairs_among(torch.tensor([0, 1, 4, 5, 8, 9, 11]), N_IMAGES)
    settings = {"method": "pearson", "pairs": pairs}
    found = score_rdms(
        models, measured, generator=np.random.default_rng(1), n_permutations=15, n_bootstrap=25, level=0.8, **settings
    )
    generator = np.random.default_rng(1)
    r, r2 = bootstrap_scores(models, measured, generator=generator, n_bootstrap=25, **settings)
    assert len(found) == 2
    for row, one in enumerate(found):
        rho = subject_scores(models[row, pairs], measured[:, pairs], method="pearson")
        own = copy.deepcopy(generator)
        null_r, null_r2 = image_permutation_null(models[row], measured, generator=own, n_permutations=15, **settings)
        assert vars(one.null_r) == pytest.approx(vars(null_r))
        assert vars(one.null_r2) == pytest.approx(vars(null_r2))
        assert one.r == pytest.approx(float(rho.mean()))
        assert one.r_interval == pytest.approx(bootstrap_interval(one.r, r.of_model(row), level=0.8))
        assert one.r2_interval == pytest.approx(bootstrap_interval(one.r2, r2.of_model(row), level=0.8))
        assert (one.n_subjects, one.n_images, one.n_pairs) == (N_SUBJECTS, N_IMAGES, 21)


@pytest.mark.long
@pytest.mark.parametrize("method", ["spearman", "cosine", "tau-b"])
@pytest.mark.parametrize("subset", [False, True])
def test_a_table_of_models_is_each_scored_and_compared_alone(method: str, subset: bool) -> None:
    """Oracle: `score_rdm` and `model_difference` of each model with a generator of its own in the same state."""
    model, measured = world(22)
    models = torch.stack([model, model.flip(0), model.roll(5) + model])
    settings = {"method": method, "pairs": pairs_among(torch.arange(1, 9), N_IMAGES) if subset else None, "n_bootstrap": 30}
    scores, differences = score_and_compare(models, measured, generator=np.random.default_rng(3), n_permutations=15, **settings)
    for row, one in zip(models, scores, strict=True):
        alone = score_rdm(row, measured, generator=np.random.default_rng(3), n_permutations=15, **settings)
        assert vars(one.null_r2) == pytest.approx(vars(alone.null_r2), abs=1e-12)
        assert one.r == pytest.approx(alone.r)
        assert one.r_interval == (alone.r_interval and pytest.approx(alone.r_interval))
    for row, one in zip(models[1:], differences, strict=method != "tau-b"):
        alone = model_difference(model, row, measured, generator=np.random.default_rng(3), **settings)
        assert vars(one) == pytest.approx(vars(alone), abs=1e-12)


def test_what_is_done_where_nothing_is_said() -> None:
    """Spearman, 1,000 permutations (the smallest p is 1 / 1,001), 1,000 resamples, 95 %."""
    model, measured = world(21)
    other = model + torch.rand(66, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spelled = {"method": "spearman", "n_bootstrap": 1000, "level": 0.95}
    one, same = (
        score_rdm(model, measured, generator=np.random.default_rng(0), **settings)
        for settings in ({}, {**spelled, "n_permutations": 1000})
    )
    assert (one.r, one.null_r, one.r_interval, one.r2_interval) == (same.r, same.null_r, same.r_interval, same.r2_interval)
    assert one.null_r.p_value == 1 / 1001
    nulls = [
        image_permutation_null(model, measured, generator=np.random.default_rng(0), **s) for s in ({}, {"method": "spearman"})
    ]
    assert nulls[0] == nulls[1]
    assert nulls[0][0].p_value == 1 / 1001
    differences = [
        model_difference(model, other, measured, generator=np.random.default_rng(0), **settings)
        for settings in ({}, {**spelled, "squared": False})
    ]
    assert differences[0] == differences[1]
    draws = [
        bootstrap_scores(model[None], measured, generator=np.random.default_rng(0), **settings)[0]
        for settings in ({}, {"method": "spearman"})
    ]
    assert draws[0].both.shape == (1000, 1)
    np.testing.assert_array_equal(draws[0].both, draws[1].both)
    parts = draws[0].of_model(0)
    assert bootstrap_interval(0.3, parts) == bootstrap_interval(0.3, parts, level=0.95)


@pytest.mark.parametrize("entries", [2**19, 1])
@pytest.mark.parametrize("where", ["measured", "model", "both"])
@pytest.mark.parametrize("n_times", [0, 2])
def test_null_where_pairs_are_missing_is_the_loop(
    monkeypatch: pytest.MonkeyPatch, entries: int, where: str, n_times: int
) -> None:
    """The images of the side that has all pairs are permuted; where both lack some, on the pairs that both then have."""
    monkeypatch.setattr(inference, "ENTRIES_PER_BLOCK", entries)
    model, measured = world(22)
    if n_times:
        measured = torch.stack([measured, measured.roll(1, 0) ** 2], dim=1)
    lacking = torch.zeros(66, dtype=torch.bool)
    if where in ("measured", "both"):
        measured[..., [3, 40]] = torch.nan
        lacking[[3, 40]] = True
    if where in ("model", "both"):
        model[[11, 40]] = torch.nan
        lacking[[11, 40]] = True
    pairs = torch.nonzero(~lacking)[:, 0]
    nulls = image_permutation_null(
        model, measured, generator=np.random.default_rng(4), pairs=pairs, n_permutations=6, method="pearson"
    )
    expected = []
    for order in np.random.default_rng(4).permuted(np.tile(np.arange(N_IMAGES), (6, 1)), axis=1):
        one, other = model[pairs], measured[..., pairs]
        if where == "model":
            other = shuffled(measured, order)[..., pairs]
        else:
            one = shuffled(model, order)[pairs]
        known = ~one.isnan()
        rho = compare(one[known], other[..., known], method="pearson")
        expected.append(rho.mean(1) if n_times else rho)
    expected = torch.stack(expected)
    observed = subject_scores(model[pairs], measured[..., pairs], method="pearson")
    for null, values, score in zip(nulls, (expected, expected**2), (observed, observed**2), strict=True):
        assert null.mean == pytest.approx(float(values.mean()))
        assert null.percentile_95 == pytest.approx(np.percentile(values.mean(1), 95))
        assert null.above_null == pytest.approx(float(score.mean() - values.mean()))
        assert null.p_value == (1 + int((values.mean(1) >= score.mean()).sum())) / 7


@pytest.mark.parametrize("method", ["spearman", "whitened_cosine"])
def test_null_of_time_points_is_the_loop_also_of_squares(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, measured = world(23)
    movie = torch.stack([measured, measured.roll(1, 0) ** 2, measured.flip(0).sqrt()], dim=1)
    orders = np.random.default_rng(5).permuted(np.tile(np.arange(N_IMAGES), (7, 1)), axis=1)
    expected = torch.stack([subject_scores(shuffled(model, order), movie, method=method) for order in orders])
    for entries in (2**19, 3 * 66 * 15):
        monkeypatch.setattr(inference, "ENTRIES_PER_BLOCK", entries)
        nulls = image_permutation_null(model, movie, generator=np.random.default_rng(5), method=method, n_permutations=7)
        for null, values in zip(nulls, (expected, expected**2), strict=True):
            assert null.mean == pytest.approx(float(values.mean()))
            assert null.percentile_95 == pytest.approx(np.percentile(values.mean(1), 95))


def test_resamples_of_very_few_images_without_variance_are_dropped() -> None:
    """4 images: a third of the resamples have fewer than 3 different ones. Oracle: scipy over repeated pairs, one by one."""
    generator = torch.Generator().manual_seed(2)
    models, measured = torch.rand(2, 6, generator=generator).double(), torch.rand(3, 6, generator=generator).double()
    drawn = np.random.default_rng(6)
    images = drawn.multinomial(4, np.full(4, 1 / 4), size=60)
    subjects = drawn.multinomial(3, np.full(3, 1 / 3), size=60) / 3
    first, second = np.triu_indices(4, 1)
    rho, shares = [], []
    for count, share in zip(images, subjects, strict=True):
        weight = count[first] * count[second]
        if (weight > 0).sum() < 2:
            continue
        drawn_pairs = np.repeat(np.arange(6), weight)
        rho.append([[scipy.stats.spearmanr(m[drawn_pairs], o[drawn_pairs]).statistic for o in measured] for m in models])
        shares.append(share)
    rho, shares = np.array(rho), np.array(shares)
    assert 30 < len(rho) < 60
    whole = np.array([[scipy.stats.spearmanr(m, o).statistic for o in measured] for m in models])
    for found, change in zip(
        bootstrap_scores(models, measured, generator=np.random.default_rng(6), n_bootstrap=60),
        (np.array, np.square),
        strict=True,
    ):
        np.testing.assert_allclose(found.both, np.einsum("kms,ks->km", change(rho), shares), atol=1e-12)
        np.testing.assert_allclose(found.images, change(rho).mean(-1), atol=1e-12)
        np.testing.assert_allclose(found.subjects, shares @ change(whole).T, atol=1e-12)
        assert (found.n_images, found.n_subjects) == (4, 3)
        np.testing.assert_array_equal(found.of_difference(1, 0).images, found.images[:, 1] - found.images[:, 0])
        np.testing.assert_array_equal(found.of_model(1).subjects, found.subjects[:, 1])


@pytest.mark.parametrize("squared", [False, True])
def test_a_difference_has_the_interval_and_the_p_of_the_t_distribution(squared: bool) -> None:
    """Oracle: scipy's t with n_subjects - 1 degrees of freedom on the standard error of the resampled difference."""
    model, measured = world(24)
    other = model + torch.rand(66, generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 3
    pairs = torch.arange(0, 66, 2)
    settings = {"method": "cosine", "pairs": pairs, "n_bootstrap": 30}
    found = model_difference(other, model, measured, generator=np.random.default_rng(7), squared=squared, level=0.7, **settings)
    both = torch.stack([other, model])
    parts = bootstrap_scores(both, measured, generator=np.random.default_rng(7), **settings)[squared].of_difference(0, 1)
    rho = [subject_scores(one[pairs], measured[:, pairs], method="cosine").numpy() for one in both]
    by_subject = rho[0] ** 2 - rho[1] ** 2 if squared else rho[0] - rho[1]
    error = standard_error(parts)
    assert found.difference == pytest.approx(by_subject.mean())
    ends = scipy.stats.t.interval(0.7, N_SUBJECTS - 1, loc=by_subject.mean(), scale=error)
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(by_subject.mean()) / error, N_SUBJECTS - 1))
    assert 0 < found.p_value < 1
    signs = np.array(list(itertools.product([1, -1], repeat=N_SUBJECTS)))
    as_extreme = (np.abs(signs @ by_subject) >= abs(by_subject.sum()) - 1e-12).mean()
    assert found.p_value_subjects == pytest.approx(as_extreme)
    two = model_difference(other, model, measured[:2], generator=np.random.default_rng(7), n_bootstrap=5)
    assert two.p_value_subjects in (0.5, 1.0)


@pytest.mark.parametrize(("n_images", "n_subjects", "df"), [(9, 4, 3), (9, 2, 1), (9, 1, 8), (5, 30, 4)])
def test_degrees_of_freedom_are_those_of_the_fewer(n_images: int, n_subjects: int, df: int) -> None:
    ends = np.array([0.0, 0.2, 1.0])
    parts = ResampledScores(both=2 * ends, images=ends, subjects=ends, n_images=n_images, n_subjects=n_subjects)
    expected = scipy.stats.t.interval(0.95, df, loc=0.5, scale=standard_error(parts))
    assert bootstrap_interval(0.5, parts) == pytest.approx(expected)
    for level in (0.0, 1.0):
        with pytest.raises(InputError, match="level: between 0 and 1"):
            bootstrap_interval(0.5, parts, level=level)
