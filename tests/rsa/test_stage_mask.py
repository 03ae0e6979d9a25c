"""Oracles: the explicit embedding of scaled features, numpy's correlation, equation 1 spelled out, penalties by hand."""

import numpy as np
import pytest
import torch

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.rsa.stage_mask import (
    feature_products,
    group_penalty,
    identity_penalty,
    per_stage,
    rdm_loss,
    reliability_weights,
    stage_mean_penalty,
    starting_scales,
)

SHAPES = {"early": (5, 6, 6), "middle": (7, 3, 4), "late": (4, 1, 1)}


def maps(n_images=8, seed=0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(n_images, *shape, generator=generator, dtype=torch.float64) + 1.5 for name, shape in SHAPES.items()
    }


def expanded(scales: torch.Tensor, resolution: str) -> torch.Tensor:
    """Scale of every feature of the concatenation."""
    parts, start = [], 0
    for n_channels, height, width in SHAPES.values():
        size = n_channels * height * width
        count = {"stage": 1, "channel": n_channels, "feature": size}[resolution]
        parts.append(scales[start : start + count].repeat_interleave(size // count))
        start += count
    return torch.cat(parts)


def explicit_rdm(features: dict[str, torch.Tensor], scales: torch.Tensor, resolution: str, centring="embedding") -> np.ndarray:
    if centring == "channel":
        features = {name: values - values.mean((2, 3), keepdim=True) for name, values in features.items()}
    embedding = torch.cat([values.flatten(1) for values in features.values()], dim=1) * expanded(scales, resolution)
    return (1 - np.corrcoef(embedding.numpy()))[np.triu_indices(len(embedding), 1)]


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
@pytest.mark.parametrize("centring", ["embedding", "channel"])
def test_closed_form_is_the_rdm_of_the_scaled_embedding_negative_scales_included(resolution, centring):
    features = feature_products(maps(), resolution=resolution, centring=centring)
    scales = torch.randn(features.n_scales, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert (scales < 0).any()
    predicted = features.rdm(scales).numpy()
    for column in range(3):
        expected = explicit_rdm(maps(), scales[:, column], resolution, centring)
        np.testing.assert_allclose(predicted[:, column], expected, atol=1e-10)


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
@pytest.mark.parametrize("centring", ["embedding", "channel"])
def test_products_per_stage_are_those_made_from_the_maps(resolution, centring):
    found = per_stage(feature_products(maps(), resolution=resolution, centring=centring))
    wanted = feature_products(maps(), resolution="stage", centring=centring)
    for name in ("between", "own", "sums", "lengths", "stage"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name))
    assert found.stages == wanted.stages


def test_the_sign_of_a_scale_matters_when_the_embedding_is_centred():
    features = feature_products(maps())
    ones = torch.ones(features.n_scales, 1, dtype=torch.float64)
    flipped = ones.clone()
    flipped[:4] = -1
    assert (features.rdm(ones) - features.rdm(flipped)).abs().max() > 1e-3
    centred = feature_products(maps(), centring="channel")
    torch.testing.assert_close(centred.rdm(ones), centred.rdm(flipped))


@pytest.mark.parametrize("resolution", ["channel", "feature"])
def test_chosen_pairs_are_entries_of_the_whole(resolution):
    features = feature_products(maps(), resolution=resolution)
    scales = torch.rand(features.n_scales, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    chosen = torch.tensor([3, 11, 27])
    torch.testing.assert_close(features.rdm(scales, chosen), features.rdm(scales)[chosen])


@pytest.mark.parametrize("resolution", ["channel", "feature"])
def test_gradient_against_finite_differences(resolution):
    features = feature_products(maps(5), resolution=resolution)
    scales = torch.rand(features.n_scales, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.3
    assert torch.autograd.gradcheck(features.rdm, (scales.requires_grad_(True),))


def test_only_some_stages_is_the_concatenation_of_those():
    features = feature_products(maps()).only(["early", "late"])
    rest = {name: values for name, values in maps().items() if name != "middle"}
    ones = torch.ones(features.n_scales, 1, dtype=torch.float64)
    torch.testing.assert_close(features.rdm(ones), feature_products(rest).rdm(ones))


def test_stages_balanced_have_equal_variance():
    features = feature_products({name: values * (place + 1) for place, (name, values) in enumerate(maps().items())})
    rows = torch.arange(6)
    start = starting_scales(features, "stage", rows)
    share = torch.zeros(3, dtype=torch.float64).index_add(0, features.stage, start.square() * features.variances(rows))
    torch.testing.assert_close(share, share[:1].expand(3))
    each = starting_scales(features, "channel", rows).square() * features.variances(rows)
    torch.testing.assert_close(each, each[:1].expand(16))
    by_hand = maps()["early"][:6, 2].numpy().var() * 36
    scale = features.variances(rows)[2] / by_hand
    torch.testing.assert_close(features.variances(rows)[12:] / scale, 9 * maps()["late"][:6].flatten(1).var(0, correction=0))
    torch.testing.assert_close(starting_scales(features, "none", rows), torch.ones(16, dtype=torch.float64))


def test_reliability_weights_are_equation_1():
    rdms = torch.rand(5, 20, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    noise = np.std(rdms.numpy(), axis=0, ddof=1)
    expected = 1 / (noise + 0.25 * noise.mean())
    torch.testing.assert_close(reliability_weights(rdms), torch.from_numpy(expected / expected.mean()))
    assert (reliability_weights(rdms[:1]) == 1).all()
    assert (reliability_weights(rdms[:1].repeat(3, 1)) == 1).all()


def test_losses_against_loops_and_numpy():
    generator = torch.Generator().manual_seed(5)
    predicted, measured = torch.rand(12, 2, generator=generator), torch.rand(3, 12, generator=generator)
    weights = torch.rand(12, 2, generator=generator)
    for loss, power in (("l1", 1), ("mse", 2)):
        ours = rdm_loss(predicted, measured, weights, loss)
        for column in range(2):
            total = sum(
                weights[p, column] * abs(predicted[p, column] - measured[s, p]) ** power for s in range(3) for p in range(12)
            )
            torch.testing.assert_close(ours[column], total / (3 * weights[:, column].sum()))
    even = torch.ones(12, 2)
    expected = 1 - np.corrcoef(predicted[:, 0].numpy(), measured.mean(0).numpy())[0, 1]
    assert float(rdm_loss(predicted, measured, even, "correlation")[0]) == pytest.approx(expected, abs=1e-5)


GAPS = [(0, 1), (1, 1), (2, 1), (0, 4), (2, 7), (1, 9), (2, 9)]  # (subject, pair) that is missing: nobody has pair 1


def with_gaps() -> torch.Tensor:
    measured = torch.rand(3, 12, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    for subject, pair in GAPS:
        measured[subject, pair] = torch.nan
    return measured


def test_reliability_is_over_the_subjects_that_have_a_pair():
    """Oracle: equation 1 pair by pair; pairs of fewer than two subjects (1 and 9) have the mean of the others' N."""
    measured = with_gaps().numpy()
    found = [column[np.isfinite(column)] for column in measured.T]
    noise = np.array([np.std(values, ddof=1) if len(values) > 1 else np.nan for values in found])
    assert np.flatnonzero(np.isnan(noise)).tolist() == [1, 9]
    noise[[1, 9]] = np.nanmean(noise)
    expected = 1 / (noise + 0.25 * noise.mean())
    torch.testing.assert_close(reliability_weights(with_gaps()), torch.from_numpy(expected / expected.mean()))
    alone = torch.full((2, 4), torch.nan, dtype=torch.float64)
    alone[0, :2], alone[1, 2:] = 0.5, 0.7
    torch.testing.assert_close(reliability_weights(alone), torch.ones(4, dtype=torch.float64))


def test_losses_leave_out_missing_pairs():
    """Oracle: loops over the entries that are there; numpy's correlation with the mean of those that have a pair."""
    generator = torch.Generator().manual_seed(9)
    predicted, weights = (torch.rand(12, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    measured = with_gaps()
    there = [(s, p) for s in range(3) for p in range(12) if (s, p) not in GAPS]
    for loss, power in (("l1", 1), ("mse", 2)):
        for column in range(2):
            total = sum(weights[p, column] * abs(predicted[p, column] - measured[s, p]) ** power for s, p in there)
            expected = total / sum(weights[p, column] for _, p in there)
            torch.testing.assert_close(rdm_loss(predicted, measured, weights, loss)[column], expected)
    rest = [pair for pair in range(12) if pair != 1]
    mean = measured.nanmean(0)[rest].numpy()
    found = rdm_loss(predicted, measured, weights, "correlation")
    for column in range(2):
        aweights = weights[rest, column].numpy()
        covariance = np.cov(predicted[rest, column].numpy(), mean, aweights=aweights)
        expected = 1 - covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert float(found[column]) == pytest.approx(expected)
    flat = rdm_loss(torch.ones(12, 1, dtype=torch.float64), measured, weights[:, :1], "correlation")
    assert float(flat) == pytest.approx(1.0)


@pytest.mark.parametrize("unit", [1e3, 1e-4])
@pytest.mark.parametrize("centring", ["embedding", "channel"])
def test_embeddings_have_a_mean_variance_of_one_whatever_the_network(unit, centring):
    """Closed form: mean over images of the sum of squares about the embedding's mean; one factor for all, so RDMs agree."""
    given = {name: unit * values for name, values in maps().items()}
    for resolution in ("stage", "channel"):
        features = feature_products(given, resolution=resolution, centring=centring)
        about = features.own.sum(1) - features.sums.sum(1).square() / features.lengths.sum()
        assert float(about.mean()) == pytest.approx(1)
        assert features.lengths.sum() == 5 * 36 + 7 * 12 + 4
        assert (features.n_images, features.n_scales) == (8, {"stage": 3, "channel": 16}[resolution])
    features = feature_products(given, resolution="feature", centring=centring)
    about = features.values - features.values.mean(1, keepdim=True)
    assert float(about.square().sum(1).mean()) == pytest.approx(1)
    assert (features.n_images, features.n_scales) == (8, 268)
    torch.testing.assert_close(features.variances(torch.arange(5)), features.values[:5].var(0, correction=0))


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
def test_an_embedding_of_zeros_is_as_far_from_all_as_uncorrelated_ones(resolution):
    features = feature_products(maps(), resolution=resolution)
    found = features.rdm(torch.zeros(features.n_scales, 1, dtype=torch.float64))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_a_silent_channel_is_not_blown_up():
    """By hand: variances 1, 4 and 0, of which the last counts as a thousandth of their mean; mean square 1 in the end."""
    values = torch.zeros(2, 3, 1, 1, dtype=torch.float64)
    values[:, 0, 0, 0], values[:, 1, 0, 0] = torch.tensor([1.0, -1.0]), torch.tensor([2.0, -2.0])
    factors = np.array([1, 4, (1 + 4) / 3 / 1000]) ** -0.5
    wanted = torch.from_numpy(factors / np.sqrt(np.mean(factors**2)))
    for resolution in ("channel", "feature"):
        features = feature_products({"only": values}, resolution=resolution)
        torch.testing.assert_close(starting_scales(features, "channel", torch.arange(2)), wanted)
        torch.testing.assert_close(starting_scales(features, "stage", torch.arange(2)), torch.ones(3, dtype=torch.float64))


def test_only_some_stages_of_single_features():
    whole = feature_products(maps(), resolution="feature")
    features = whole.only(["middle"])
    assert features.n_scales == 84
    assert features.stages == whole.stages == ("early", "middle", "late")
    assert (features.stage == 1).all()
    ones = torch.ones(84, 1, dtype=torch.float64)
    alone = feature_products({"middle": maps()["middle"]}, resolution="feature")
    torch.testing.assert_close(features.rdm(ones), alone.rdm(ones))


def test_a_pair_of_no_weight_does_not_count():
    generator = torch.Generator().manual_seed(6)
    predicted, measured = torch.rand(12, 1, generator=generator), torch.rand(3, 12, generator=generator)
    weights = torch.ones(12, 1)
    weights[5] = 0
    changed = predicted.clone()
    changed[5] = 40.0
    for loss in ("l1", "mse", "correlation"):
        torch.testing.assert_close(rdm_loss(predicted, measured, weights, loss), rdm_loss(changed, measured, weights, loss))


def test_penalties_by_hand():
    scales, stage = torch.tensor([[1.0], [3.0], [0.0], [4.0]]), torch.tensor([0, 0, 1, 2])
    assert float(identity_penalty(scales)) == pytest.approx((0 + 4 + 1 + 9) / 4)
    assert float(group_penalty(scales, stage)) == pytest.approx((np.sqrt((1 + 9) / 2) + 0 + 4) / 3, abs=1e-5)
    assert float(stage_mean_penalty(scales, stage)) == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_features_that_cannot_be_used_are_named():
    bad = maps()
    bad["middle"][2, 1, 0, 0] = float("nan")
    with pytest.raises(InputError, match="'middle'"):
        feature_products(bad)
    with pytest.raises(DegenerateError, match="variance"):
        feature_products({"flat": torch.ones(4, 2, 3, 3)})
    with pytest.raises(DegenerateError, match="variance"):
        feature_products({"flat": torch.ones(4, 2, 3, 3)}, resolution="feature")
    bad["middle"][2, 1, 0, 0] = float("inf")
    with pytest.raises(InputError, match="'middle'"):
        feature_products(bad, resolution="feature")


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_an_image_whose_embedding_does_not_vary_is_refused(resolution, value):
    """Its correlations are 0 / 0: distances of 1, or 2, came out of rounding."""
    features = {"late": torch.randn(6, 8, 1, 1, generator=torch.Generator().manual_seed(0))}
    feature_products(features, resolution=resolution)
    features["late"][3] = value
    with pytest.raises(DegenerateError, match=r"the embedding of image 3 \(from 0\) has no variance.*1 of 6 images"):
        feature_products(features, resolution=resolution)
