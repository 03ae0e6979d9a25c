"""Oracles: the paper's points of SE-ResNeXt-50, timm's feature_info and forward_intermediates, shapes written out."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.networks.staged import load_network, stage_names
from pulvinar.networks.stages import channels_first, choose_stages, find_points, outputs

BLOCKS = [f"layer{layer}.{block}" for layer, count in ((1, 3), (2, 4), (3, 6), (4, 3)) for block in range(count)]


def points_of(network: nn.Module, side: int, head: str):
    found = outputs(network.eval(), side)
    return find_points(network, found, head=head), found


@pytest.mark.long
@pytest.mark.parametrize(("name", "stem"), [("seresnext50_32x4d", "act1"), ("legacy_seresnext50_32x4d", "layer0")])
def test_seresnext_has_the_papers_five_and_seventeen_points(name: str, stem: str):
    network = timm.create_model(name)
    points, found = points_of(network, 64, network.pretrained_cfg["classifier"])
    assert [point.name for point in points] == [stem, *BLOCKS]
    assert choose_stages(points, found, 17, network=name) == (stem, *BLOCKS)
    five = (stem, "layer1", "layer2", "layer3", "layer4")
    assert choose_stages(points, found, None, network=name) == choose_stages(points, found, 5, network=name) == five
    assert five == tuple(info["module"] for info in network.feature_info)
    assert [found[stage].shape[1] for stage in five] == [64, 256, 512, 1024, 2048]


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "edgenext_xx_small"])
def test_default_stages_are_among_timms_own_where_blocks_end_at_a_resolution(name: str):
    network = timm.create_model(name)
    points, found = points_of(network, 64, network.pretrained_cfg["classifier"])
    assert set(choose_stages(points, found, None, network=name)) <= {info["module"] for info in network.feature_info}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("alexnet", 224, [1, 4, 7, 9, 11]),  # the five activations
        ("squeezenet1_0", 96, [1, 5, 10, 12]),  # the stem, and the last fire module at each resolution
        ("mobilenet_v2", 64, [1, 3, 6, 13, 18]),
    ],
)
def test_default_stages_of_torchvision_networks(name: str, side: int, expected: list[int]):
    network = torchvision.models.get_model(name)
    points, found = points_of(network, side, "classifier.6")
    assert choose_stages(points, found, None, network=name) == tuple(f"features.{number}" for number in expected)


@pytest.mark.long
def test_a_number_of_stages_spreads_them_from_first_to_last():
    names = stage_names("squeezenet1_0")
    assert names == tuple(f"features.{number}" for number in (1, 3, 4, 5, 7, 8, 9, 10, 12))
    for count in (1, 3, 5, 9):
        taken = load_network("squeezenet1_0", stages=count, image_size=64).stages
        assert len(taken) == len(set(taken)) == count
        assert taken[-1] == names[-1]
        assert count == 1 or taken[0] == names[0]
        assert sorted(taken, key=names.index) == list(taken)


def test_stages_do_not_depend_on_the_image_size():
    small, usual = (load_network("resnet18", image_size=side) for side in (32, None))
    assert small.stages == usual.stages == ("relu", "layer1", "layer2", "layer3", "layer4")
    assert small.shapes["layer4"] == (512, 1, 1)
    assert usual.shapes["layer4"] == (512, 7, 7)


@pytest.mark.long
def test_transformers_give_their_layers():
    names = stage_names("vit_tiny_patch16_224")
    assert names == ("patch_embed", *(f"blocks.{layer}" for layer in range(12)))
    assert len(load_network("vit_tiny_patch16_224", image_size=32).stages) == 5


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 32), ("deit_tiny_distilled_patch16_224", 32), ("swin_tiny_patch4_window7_224", 224)],
)
def test_tokens_and_channels_last_become_the_maps_that_timm_gives(name: str, size: int):
    network = load_network(name, image_size=size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        taken = network.features(images)
        expected = network.module.forward_intermediates(images, norm=False, intermediates_only=True)
    matched = 0
    for stage, maps in taken.items():
        assert maps.shape[2] == maps.shape[3]
        same = [other for other in expected if other.shape == maps.shape and torch.allclose(other, maps, atol=1e-5)]
        matched += bool(same) or stage == "patch_embed"
    assert matched == len(taken)


def test_maps_of_hand_made_outputs():
    tokens = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    maps = channels_first(tokens, n_prefix=1)
    assert maps.shape == (2, 3, 2, 2)
    torch.testing.assert_close(maps[1, 2].flatten(), tokens[1, 1:, 2])
    square = torch.arange(9.0)[None, :, None]  # nine tokens are a square too, but five of them stand for no place
    torch.testing.assert_close(channels_first(square, n_prefix=5).flatten(), torch.arange(5.0, 9.0))
    assert channels_first(tokens, n_prefix=0).shape == (2, 3, 5, 1)  # 5 tokens are no square
    assert channels_first(torch.zeros(2, 7)).shape == (2, 7, 1, 1)
    last = torch.randn(2, 4, 4, 6)
    torch.testing.assert_close(channels_first(last), last.movedim(3, 1))
    with pytest.raises(InputError, match=r"\(2,\)"):
        channels_first(torch.zeros(2))


class Shared(nn.Module):
    """One activation that runs twice, a layer that never runs, and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.activation, self.pair = nn.ReLU(), nn.MaxPool2d(2, return_indices=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.activation(self.second(self.activation(self.first(images))))
        return self.pair(maps)[0].mean((2, 3))


def test_stages_that_cannot_be_tapped_are_refused():
    points, found = points_of(Shared(), 16, "")
    assert [point.name for point in points] == ["first", "second"]

    def choose(stages):
        return choose_stages(points, found, stages, network="shared")

    assert choose("second") == ("second",)
    with pytest.raises(InputError, match="'activation' of shared runs 2 times"):
        choose(["activation"])
    with pytest.raises(InputError, match="'pair' of shared gives no maps"):
        choose(["pair"])
    with pytest.raises(NotFoundError, match="no module 'secnd' that runs; did you mean 'second'"):
        choose(["secnd"])
    with pytest.raises(NotFoundError, match="unused"):
        choose(["unused"])
    with pytest.raises(InputError, match="stands twice"):
        choose(["first", "first"])
    with pytest.raises(InputError, match="none came"):
        choose([])
    for count in (0, 3):
        with pytest.raises(InputError, match=f"has 2 points to tap, {count} came"):
            choose(count)
    with pytest.raises(InputError, match="no blocks that give maps"):
        choose_stages([], found, 5, network="shared")


def test_modes_survive_the_look_at_a_network():
    network = Shared().train()
    network.second.eval()
    outputs(network, 16)
    assert network.training
    assert not network.second.training
    assert not network.first._forward_hooks
    with pytest.raises(InputError, match="does not take 2 x 2 pixels"):
        outputs(network, 2)
    assert not network.first._forward_hooks
