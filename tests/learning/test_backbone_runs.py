"""A backbone comes back from its run folder as it was: same bits out, same description."""

import numpy as np
import pytest
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.learning import checkpoints
from pulvinar.learning.backbone_runs import load_backbone, save_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.narrow import narrowed
from pulvinar.networks.resnet_shape import resnet_shape


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", method="some", config_toml="", seed=0, data={})


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dense", "gated", "all norms", "bottleneck", "narrowed"])
def test_the_network_gives_the_same_bits(run, kind):
    name = "resnet50" if kind == "bottleneck" else "resnet18"
    shape = resnet_shape(name, size=16, width=0.125, gated_convs="both")
    options = {"all norms": {"separate_norms": "all", "gate_bias": 2.0, "temperature": 0.5}, "dense": {"passes": ("dense",)}}
    network = GatedResNet(shape, size=16, **options.get(kind, {})).initialise(torch.Generator().manual_seed(0))
    network.logit_shift.fill_(0.25)
    if kind == "narrowed":
        network = narrowed(network, [torch.arange(1 + gate % 3) for gate in range(8)])
    pixels = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network(pixels, gated="gated" in network.passes)  # running statistics of its own
    network.eval()
    views = ViewSettings(size=16, mean=(0.1, 0.2, 0.3))
    save_backbone(run, network, views)
    run.finish()
    loaded = load_backbone(RunFolder.reopen(run.path))
    assert loaded.views == views
    assert loaded.network.shape == network.shape
    for gated in {False, "gated" in network.passes}:
        with torch.no_grad():
            ours, theirs = (each(pixels, gated=gated) for each in (loaded.network, network))
        assert torch.equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.densities, theirs.densities)


def test_runs_without_a_backbone_are_refused(run):
    with pytest.raises(InputError, match="has not finished"):
        load_backbone(run)
    run.finish()
    with pytest.raises(InputError, match="a run of some keeps no backbone"):
        load_backbone(run)
    checkpoints.save(run.path / "checkpoints" / "backbone.safetensors", {"weights": {}, "records": []})
    with pytest.raises(FileError, match=r"backbone\.safetensors: not a backbone of this version"):
        load_backbone(run)
