"""Grad-CAM against its formula by hand, and a planted lateralised world: hemispheres that read one half of the maps each."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pulvinar.core.errors import InputError
from pulvinar.encoding.encoder import EncoderSettings, EncoderTrainer
from pulvinar.encoding.salience import PatternScore, hemisphere_salience, last_convolution, read_by_most, salience_maps
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.staged import StagedNetwork
from pulvinar.scores.lateralisation import left_share

SIZE, N_TRAIN, N_TEST = 32, 160, 24


class Small(nn.Module):
    """Two convolutions with a ReLU that works in place after each, and a head that nothing here reads."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(12, 4)

    def forward(self, images):
        return self.head(self.second(self.first(images)).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> StagedNetwork:
    torch.manual_seed(0)
    network = Small()
    return StagedNetwork(network, name="small", stages=("first", "second"), preprocessing=Preprocessing(image_size=SIZE)).eval()


def pictures(n: int, seed: int, *, bright_left: bool = False) -> np.ndarray:
    """Blotches of colour; with something bright in the left half of every picture, if asked."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 160, (n, 8, 8, 3))
    if bright_left:
        made[:, 2:6, 1:3] = 255
    return np.kron(made, np.ones((1, 4, 4, 1))).astype(np.uint8)


def planted(network: StagedNetwork, *, sides: dict[str, slice], seed: int) -> dict:
    """Fitted encoders of both hemispheres: 12 voxels each, driven by some columns of the second stage's maps, and noise."""
    rng, images = np.random.default_rng(seed), pictures(N_TRAIN, seed)
    with torch.no_grad():
        maps = network.features(network.preprocess(images), stages=["second"])["second"].numpy()
    found = {}
    for side, columns in sides.items():
        part = maps[:, :, :, columns].mean((2,))
        part = part.reshape(N_TRAIN, -1)
        signal = (part - part.mean(0)) @ rng.standard_normal((part.shape[1], 12))
        responses = (signal / signal.std(0) + 0.5 * rng.standard_normal(signal.shape)).astype(np.float32)
        trainer = EncoderTrainer(
            {"second": maps},
            lambda voxels, responses=responses: responses[:, voxels],
            n_voxels=12,
            sources=[str(row) for row in range(N_TRAIN)],
            settings=EncoderSettings(alphas=(1.0, 10.0, 100.0), pca=None),
        )
        list(trainer.run())
        found[side] = (network, PatternScore(trainer.fit(), np.arange(12)), None)
    return found


def test_maps_are_grad_cam_by_hand(network):
    """Oracle: the formula with autograd, on the maps of the last convolution (before its ReLU)."""
    images = pictures(3, 5)
    weights = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))

    def score(maps):
        return (maps["second"].sum(1) * weights).sum((1, 2)) ** 2

    found = salience_maps(network, score, images, batch_size=2)
    pixels = network.preprocess(images)
    convolved = network.module.second[0](network.module.first(pixels)).detach().requires_grad_()
    score({"second": convolved.relu()}).sum().backward()
    wanted = (convolved.grad.mean((2, 3), keepdim=True) * convolved).sum(1).relu().detach()
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-6)
    assert network.module.second[1].inplace


def test_last_convolution_is_the_last_before_the_stage(network):
    assert last_convolution(network) == "second.0"
    assert last_convolution(network, ["first"]) == "first.0"


def test_the_convolution_is_one_that_half_of_the_voxels_need(network):
    """By hand: three of four voxels read the second stage, then one of four; of two models the earlier counts."""

    def reading(*names):
        return SimpleNamespace(reads=list(names))

    late, early = reading("first", "second", "second", "second"), reading("first", "first", "first", "second")
    assert read_by_most(network, [late]) == "second"
    assert read_by_most(network, [early]) == read_by_most(network, [late, early]) == "first"


def test_mirror_images_are_flipped(network):
    images = pictures(4, 6)

    def score(maps):
        return maps["second"].square().sum((1, 2, 3))

    mirrored = salience_maps(network, score, images, mirrored=True)
    np.testing.assert_allclose(mirrored, salience_maps(network, score, images[:, :, ::-1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bright_left", [False, True])
def test_a_lateralised_world_has_the_right_sign(network, bright_left):
    """Planted truth: each hemisphere reads the opposite half of the maps, whatever the pictures hold."""
    models = planted(network, sides={"lh": slice(4, 8), "rh": slice(0, 4)}, seed=1)
    images = pictures(N_TEST, 9, bright_left=bright_left)
    found = hemisphere_salience(models, images, generator=np.random.default_rng(0), n_permutations=2000)
    assert found.index.low > 0
    assert found.index.p_value < 0.01
    swapped = {"lh": models["rh"], "rh": models["lh"]}
    other = hemisphere_salience(swapped, images, generator=np.random.default_rng(0), n_permutations=100)
    assert other.index.index == pytest.approx(-found.index.index)


@pytest.mark.long
def test_without_lateralisation_the_index_is_0(network):
    """Null: both hemispheres read the whole maps: a world's weights may lean to a side, the mean over 5 worlds does not."""
    indices = []
    for seed in range(5):
        models = planted(network, sides={"lh": slice(0, 8), "rh": slice(0, 8)}, seed=seed)
        images = pictures(N_TEST, 20 + seed, bright_left=True)
        found = hemisphere_salience(models, images, generator=np.random.default_rng(0), n_permutations=100)
        indices.append(found.index.index)
        assert left_share(found.maps["lh"]).mean() != pytest.approx(0.5, abs=1e-3)  # the pictures are not symmetric
    assert abs(np.mean(indices)) < 0.03


def test_both_hemispheres_are_needed(network):
    with pytest.raises(InputError, match="'lh' and 'rh'"):
        hemisphere_salience({"lh": (network, lambda maps: maps["second"].sum((1, 2, 3)), None)}, pictures(3, 0),
                            generator=np.random.default_rng(0))  # fmt: skip
