"""Levels and routes. Oracles: blocks cut to a width, masks imposed by hand, closed forms of chances and multiply-adds."""

import math

import pytest
import torch

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import LevelGate, Router, chosen_levels
from pulvinar.networks.macs import count_macs
from pulvinar.networks.narrow import narrowed
from pulvinar.networks.plain_resnet import plain_resnet
from pulvinar.networks.resnet_shape import resnet_shape, shape_of
from pulvinar.selection.route_choice import gumbel_noise, one_sided, straight_through_choice, usage

LEVELS = (0.0, 0.25, 0.5, 1.0)
SIZE = 16


def made(name: str = "resnet18", *, width: float = 0.125, seed: int = 0, **options) -> GatedResNet:
    """An untrained network whose choices depend on the image; float64."""
    generator = torch.Generator().manual_seed(seed)
    network = GatedResNet(resnet_shape(name, size=SIZE, width=width, **options), size=SIZE, gate_bias=0.0)
    network.initialise(generator).double()
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.1, 0.5, generator=generator)
        if isinstance(module, LevelGate):
            module.expand.weight.data.mul_(8)
            module.expand.bias.data.fill_(0.5)
            module.expand.bias.data[1:] = -1.0
    return network.eval()


def images(n: int = 24, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    colours = 2 * torch.randn(n, 3, 1, 1, generator=generator, dtype=torch.float64)
    return colours + torch.randn(n, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", {}), pytest.param("resnet50", {"gated_convs": "conv1"}, marks=pytest.mark.slow)]
)
def test_an_image_at_some_levels_gets_what_a_network_cut_to_those_widths_gives(name, options):
    network = made(name, levels=LEVELS, **options)
    batch = images()
    found = network(batch, gated=True)
    widths = [block.level_widths(block.gated[0]) for block in network.shape.blocks]
    chosen = torch.stack([chosen_levels(part, each) for part, each in zip(found.logits, widths, strict=True)], 1)
    assert len(chosen.unique()) > 2  # several levels are met
    for row in range(0, len(batch), 6):
        kept = [torch.arange(each[level]) for each, level in zip(widths, chosen[row].tolist(), strict=True)]
        cut = narrowed(network, kept).eval()
        torch.testing.assert_close(cut(batch[row : row + 1]).features[0], found.features[row], rtol=1e-10, atol=1e-10)
    opened = torch.stack([part.sum(1) for part in found.gates], 1).long()
    assert all(set(opened[:, n].tolist()) <= set(each) for n, each in enumerate(widths))


def test_in_training_too_a_wider_level_never_opens_without_the_narrower_ones():
    network = made(levels=LEVELS).train()
    found = network(images(), gated=True, generator=torch.Generator().manual_seed(0))
    for gates, logits in zip(found.gates, found.logits, strict=True):
        assert bool((gates[:, 1:] <= gates[:, :-1]).all())
        assert bool((logits[:, 1:] <= logits[:, :-1]).all())
        assert 0 < gates.mean().item() < 1
    found.mac_share.backward()
    assert all(
        float(gate.expand.weight.grad.abs().min(1).values.max()) > 0
        for gate in network.modules()
        if isinstance(gate, LevelGate)
    )


@pytest.mark.parametrize("group", [1, 3])
def test_the_route_of_an_image_is_its_mask_and_no_other(group):
    network = made(routes=3, gate_group=group)
    batch = images(40)
    found = network(batch, gated=True)
    route = found.chances.argmax(1)
    assert len(route.unique()) > 1
    masks = network.router.by_gate((network.router.masks.detach() >= 0).double())
    for gates, mask in zip(found.gates, masks, strict=True):
        assert torch.equal(gates, mask[route])
    imposed = network(batch, gated=True, masks=[mask[route] for mask in masks])
    torch.testing.assert_close(imposed.features, found.features, rtol=0, atol=0)
    for number in range(3):
        cut = narrowed(network, [mask[number].nonzero()[:, 0] for mask in masks]).eval()
        torch.testing.assert_close(
            cut(batch).features[route == number], found.features[route == number], rtol=1e-10, atol=1e-10
        )


def test_the_share_of_inference_is_that_of_the_routes_without_noise():
    network = made(routes=3)
    plain = network(images(40), gated=True)
    noisy = network(images(40), gated=True, generator=torch.Generator().manual_seed(0))
    assert float(noisy.hard_share) == pytest.approx(float(plain.hard_share))
    assert noisy.mac_share.item() != pytest.approx(plain.mac_share.item())
    noisy.mac_share.backward()
    router = network.router
    assert all(float(p.grad.abs().sum()) > 0 for p in (router.masks, router.expand.weight, router.reduce.weight))


def test_multiply_adds_of_levels_and_routes():
    """Closed form by hand: gates of L - 1 outputs a block; one router of C r + r K; the lowest level is the floor."""
    plain, levels, routes = (
        count_macs(resnet_shape("resnet18", size=32, **options), 32)
        for options in ({}, {"levels": (0.25, 0.5, 1.0)}, {"routes": 4})
    )
    assert plain.dense == levels.dense == routes.dense == 555_417_600
    assert plain.gates == 240_640  # as published
    inputs = [64, 64, 64, 128, 128, 256, 256, 512]
    assert levels.gates == sum(n // 4 * (n + 2) for n in inputs)
    assert routes.gates == 16 * (64 + 4)
    quarter = [torch.tensor([float(n // 4)]) for n in levels.shape.gate_channels]
    assert levels.floor == int(levels.per_image(quarter)[0])
    assert routes.floor == plain.floor - plain.gates + routes.gates
    half = [torch.full((1,), 0.5)] * 8
    assert float(routes.share(half)) == pytest.approx(float(plain.share(half)) - (plain.gates - routes.gates) / plain.dense)


def test_choices_are_drawn_as_often_as_their_chances_say():
    logits = torch.tensor([[1.0, 0.0, -1.0]]).expand(20_000, 3)
    noise = gumbel_noise(20_000, 3, torch.Generator().manual_seed(0))
    drawn = straight_through_choice(logits, noise)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), torch.softmax(logits[0], 0), atol=0.01, rtol=0)


def test_the_term_of_routes_is_one_minus_the_mutual_information():
    sure = torch.eye(4).repeat(5, 1)
    one = torch.eye(4)[:1].repeat(8, 1)
    assert float(one_sided(usage(sure))) == pytest.approx(0, abs=1e-6)
    assert float(one_sided(usage(one))) == pytest.approx(1, abs=1e-6)
    assert float(one_sided(usage(torch.full((6, 4), 0.25)))) == pytest.approx(1, abs=1e-6)
    halves = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    expected = 1 - (-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) - math.log(2) / 2) / math.log(2)
    assert float(one_sided(usage(halves))) == pytest.approx(expected, abs=1e-6)


def test_a_shape_with_levels_or_routes_survives_its_plain_values():
    from dataclasses import asdict

    for options in ({"levels": LEVELS}, {"routes": 4}):
        shape = resnet_shape("resnet18", size=32, **options)
        assert (
            shape_of({**asdict(shape), "blocks": [{**b, "levels": list(b["levels"])} for b in asdict(shape)["blocks"]]})
            == shape
        )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"levels": (0.5, 0.25, 1.0)}, "gate_levels"),
        ({"levels": (0.25, 0.5)}, "gate_levels"),
        ({"levels": (0.0, 0.01, 1.0)}, "different widths"),
        ({"levels": LEVELS, "gate_group": 4}, "no groups"),
        ({"routes": 1}, "routes: 2 or more"),
        ({"routes": 2, "levels": LEVELS}, "without levels"),
    ],
)
def test_levels_and_routes_that_cannot_be_had_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        resnet_shape("resnet18", size=32, width=0.25, **options)


def test_what_does_not_know_the_form_says_so():
    network = made(routes=2)
    with pytest.raises(InputError, match="form routes have no plain modules"):
        plain_resnet(network, source="gated", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert isinstance(network.router, Router)
    plain_resnet(network, source="dense", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
