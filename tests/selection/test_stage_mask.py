"""Oracles: the explicit embedding of scaled features, numpy's correlation, equation 1 spelled out, penalties by hand."""

import numpy as np
import pytest
import torch

from pulvinar.errors import DegenerateError, InputError
from pulvinar.selection.stage_mask import (
    feature_products,
    group_penalty,
    identity_penalty,
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
    scales, stage = torch.tensor([[1.0], [3.0], [0.0]]), torch.tensor([0, 0, 1])
    assert float(identity_penalty(scales)) == pytest.approx((0 + 4 + 1) / 3)
    assert float(group_penalty(scales, stage)) == pytest.approx((np.sqrt((1 + 9) / 2) + 0) / 2, abs=1e-5)
    assert float(stage_mean_penalty(scales, stage)) == pytest.approx((1 + 1 + 0) / 3)


def test_features_that_cannot_be_used_are_named():
    bad = maps()
    bad["middle"][2, 1, 0, 0] = float("nan")
    with pytest.raises(InputError, match="'middle'"):
        feature_products(bad)
    with pytest.raises(DegenerateError, match="variance"):
        feature_products({"flat": torch.ones(4, 2, 3, 3)})


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_an_image_whose_embedding_does_not_vary_is_refused(resolution, value):
    """Its correlations are 0 / 0: distances of 1, or 2, came out of rounding."""
    features = {"late": torch.randn(6, 8, 1, 1, generator=torch.Generator().manual_seed(0))}
    feature_products(features, resolution=resolution)
    features["late"][3] = value
    with pytest.raises(DegenerateError, match=r"the embedding of image 3 \(from 0\) has no variance.*1 of 6 images"):
        feature_products(features, resolution=resolution)
