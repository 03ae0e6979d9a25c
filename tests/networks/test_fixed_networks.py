"""Oracles: gratings of known orientation, torch pooling written out, scikit-learn's PCA, zero mean and unit norm."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from pulvinar.networks.fixed_networks import (
    RandomConvolutionNetwork,
    colour,
    gabor_filters,
    in_batches,
    oriented_energy,
    principal_components,
)


def pictures(n: int = 6, size: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def grating(angle: float, wavelength: float, size: int = 64) -> torch.Tensor:
    axis = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    wave = torch.sin(2 * torch.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength)
    return (127 + 120 * wave).to(torch.uint8)[None, :, :, None].expand(1, size, size, 3).contiguous()


def test_gabor_filters_have_zero_mean_and_unit_norm():
    filters = gabor_filters(9, 4.0, 6)
    assert filters.shape == (12, 1, 9, 9)
    torch.testing.assert_close(filters.sum((1, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(filters.square().sum((1, 2, 3)), torch.ones(12))


def test_the_filter_of_the_gratings_orientation_answers_most():
    for place in range(4):
        energy = oriented_energy(grating(np.pi * place / 4, 4.0), n_octaves=1, grid=1)
        assert energy.shape == (1, 4)
        assert energy.argmax().item() == place


def test_energy_does_not_depend_on_the_phase():
    shifted = torch.roll(grating(0.0, 4.0), 1, dims=2)  # a quarter of a period
    inside = [
        oriented_energy(image, n_octaves=1, grid=4).reshape(4, 4, 4)[0, 1:3, 1:3] for image in (grating(0.0, 4.0), shifted)
    ]
    torch.testing.assert_close(inside[0], inside[1], rtol=0.02, atol=0)


def test_each_octave_prefers_its_own_wavelength():
    answers = [oriented_energy(grating(0.0, wavelength), grid=1).reshape(3, 4)[:, 0] for wavelength in (4.0, 8.0, 16.0)]
    assert [int(answer.argmax()) for answer in answers] == [0, 1, 2]


def test_a_uniform_image_has_no_energy_inside():
    grey = torch.full((1, 64, 64, 3), 200, dtype=torch.uint8)
    inside = oriented_energy(grey, n_octaves=1, grid=8).reshape(4, 8, 8)[:, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.zeros_like(inside), atol=1e-6, rtol=0)


def test_colour_is_the_mean_of_opponent_channels_per_place():
    images = pictures(3, 16)
    pixels = images.double().numpy() / 255
    red, green, blue = (pixels[..., channel].reshape(3, 2, 8, 2, 8).mean((2, 4)) for channel in range(3))
    expected = np.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], axis=1).reshape(3, -1)
    np.testing.assert_allclose(colour(images, grid=2).numpy(), expected, atol=1e-6)


def network(seed: int, **changes) -> RandomConvolutionNetwork:
    settings = {"seed": seed, "widths": (4, 6, 8), "kernel": 3, "nonlinearity": "relu", "grid": 2, **changes}
    return RandomConvolutionNetwork(**settings)


def test_random_network_depends_on_its_seed_alone():
    images, answers = pictures(), []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(global_seed)
        net = network(seed)
        net.calibrate(images)
        answers.append(net(images))
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


def test_random_network_is_never_trained_and_gives_the_last_two_stages():
    net = network(0)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert net(pictures()).shape == (6, (6 + 8) * 2 * 2)
    for weight in net.weights:
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(len(weight)))


def test_calibrated_channels_have_mean_zero_and_spread_one_before_the_nonlinearity():
    images, net = pictures(), network(0, nonlinearity="tanh")
    net.calibrate(images)
    net.nonlinearity = lambda maps: maps
    first = net._stage(images.permute(0, 3, 1, 2).float() / 255 - 0.5, 0)
    torch.testing.assert_close(first.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


def test_features_do_not_depend_on_the_batch_they_came_in():
    net, images = network(0), pictures(7)
    torch.testing.assert_close(in_batches(net, images, batch_size=3), net(images))


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dim", [8, 70])  # fewer and more than the 40 fit rows
def test_components_are_those_of_scikit_learn_up_to_sign(whitening, dim):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim) * 3
    fit_rows = np.arange(40)
    scaler = StandardScaler().fit(features[fit_rows])
    scale = np.sqrt(40 / 39)  # StandardScaler divides by n, ours by n - 1
    model = PCA(5, svd_solver="full").fit(scaler.transform(features[fit_rows]) / scale)
    expected = model.transform(scaler.transform(features) / scale)
    expected /= expected[fit_rows].std(0) ** whitening
    found = principal_components(
        torch.from_numpy(features).float(), fit_rows=torch.from_numpy(fit_rows), n_components=5, whitening=whitening
    ).numpy()
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-4)


def test_components_are_estimated_on_the_fit_rows_alone():
    features, fit_rows = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20)
    changed = features.clone()
    changed[20:] *= 50
    given = {"fit_rows": fit_rows, "n_components": 3, "whitening": 0.5}
    assert torch.equal(principal_components(features, **given)[:20], principal_components(changed, **given)[:20])
