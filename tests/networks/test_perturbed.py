"""Perturbed copies of a network: what subjects share of the change, and what is their own."""

import numpy as np
import pytest
import torch
from torch import nn

from pulvinar.core.config import mistakes_of
from pulvinar.datasets.simulated import Config, simulate
from pulvinar.networks.perturbed import perturb
from pulvinar.networks.staged import load_network


def log_gains(own, number):
    """n of every channel: what the change multiplied its weights by."""
    network = load_network("squeezenet1_0", image_size=32, seed=4)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    before = [module.weight.detach().flatten(1).norm(dim=1) for module in convolutions]
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    perturb(network, network.preprocess(images), strength=0.3, seed=4, own=own, number=number)
    after = [module.weight.detach().flatten(1).norm(dim=1) for module in convolutions]
    return torch.cat([(b / a).log() for a, b in zip(before, after, strict=True)]).numpy() / 0.3


@pytest.mark.long
@pytest.mark.parametrize(("own", "expected"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
def test_subjects_share_the_change_in_the_share_that_is_asked(own, expected):
    pytest.importorskip("torchvision")
    first, second = log_gains(own, 0), log_gains(own, 1)
    assert len(first) > 2000
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(expected, abs=0.06)  # standard error at most 1 / sqrt(2000) = .022
    assert first.std() == pytest.approx(1, abs=0.06)


@pytest.mark.slow
def test_with_a_share_of_their_own_subjects_follow_other_features():
    """Planted: voxels of a later subject change with `driver_own`, those of the first with a share of 0 do not."""
    pytest.importorskip("torchvision")
    given = {
        "n_subjects": 2,
        "n_voxels": 200,
        "n_trials": 30,
        "n_pretraining_trials": 30,
        "n_test_images": 10,
        "image_size": 32,
    }
    worlds = [simulate(Config(**given, driver="perturbed:squeezenet1_0", driver_own=own)) for own in (0.0, 0.5)]
    responsive = worlds[0].truth["subj02"]["responsive"]
    first, second = (world.subjects["subj02"].values for world in worlds)
    assert not np.array_equal(first[:, responsive], second[:, responsive])
    np.testing.assert_array_equal(first[:, ~responsive], second[:, ~responsive])


def test_a_share_above_one_is_refused():
    assert mistakes_of(Config(driver="perturbed:squeezenet1_0", driver_own=1.5), "simulated") == [
        "simulated.driver_own lies in [0, 1], not 1.5"
    ]
    assert "driver is fixed" in Config(driver_own=0.5).problems()[0]
