"""Levels and routes of images, counted. Oracles: counts by hand, a planted colour that decides the route."""

import numpy as np
import pytest
import torch

from pulvinar.core.errors import InputError
from pulvinar.data.image_set import ImageSet
from pulvinar.gating.backbone_scores import as_text, score_backbone
from pulvinar.gating.budget_controls import random_gates
from pulvinar.gating.choice_statistics import choice_statistics, choices_of, drawn_choices, in_words, masks_of
from pulvinar.gating.figures import draw_choices
from pulvinar.gating.settings import ScoreSettings
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

LEVELS = (0.0, 0.5, 1.0)


def network(**options) -> GatedResNet:
    shape = resnet_shape("resnet18", size=16, width=0.0625, **options)
    return GatedResNet(shape, size=16, gate_bias=0.3).initialise(torch.Generator().manual_seed(3)).eval()


@pytest.fixture(scope="module")
def routed() -> GatedResNet:
    """A network whose router sends red images to one route and blue ones to the other."""
    made = network(routes=2)
    stem = made.stem.convolution.weight.data
    stem.zero_()
    stem[0, 0, 1, 1], stem[1, 2, 1, 1] = 1.0, 1.0  # red into the first map, blue into the second
    made.router.reduce.weight.data = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
    made.router.norm.reset_running_stats()
    made.router.expand.weight.data = torch.tensor([[-1.0], [1.0]])  # blue is 0 on both, where the first wins
    return made


def colours(n_red: int, n_blue: int, seed: int = 0) -> np.ndarray:
    """Red images, then blue ones, with a little noise."""
    pixels = np.random.default_rng(seed).integers(0, 40, (n_red + n_blue, 16, 16, 3)).astype(np.uint8)
    pixels[:n_red, :, :, 0] += 200
    pixels[n_red:, :, :, 2] += 200
    return pixels


def test_shares_and_changes_are_counted_as_by_hand():
    made = network(levels=LEVELS)
    rows = torch.tensor([[0] * 8, [2] * 8, [2] * 8, [2] * 7 + [1]])
    found = choice_statistics(made, rows)
    assert found.shares[0].tolist() == [0.25, 0, 0.75]
    assert found.shares[7].tolist() == [0.25, 0.25, 0.5]
    assert found.changed == pytest.approx([0.25] * 7 + [0.5])
    assert found.changed_anywhere == 0.5  # the first and the last image
    assert found.options[0] == (0, 2, 4)
    assert found.as_dict()["changed"] == pytest.approx((7 * 0.25 + 0.5) / 8)
    assert "28 % of the images" in in_words(found.as_dict())
    with pytest.raises(InputError, match="no image"):
        choice_statistics(made, rows[:0])


@pytest.mark.parametrize("options", [{"levels": LEVELS}, {"routes": 3}])
def test_masks_of_the_choices_that_images_take_are_their_gates(options):
    made = network(**options)
    pixels = torch.randn(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = made(pixels, gated=True)
    for mask, gates in zip(masks_of(made, choices_of(made, output)), output.gates, strict=True):
        assert torch.equal(mask, gates)


def test_gates_of_channels_have_no_choices():
    made = network()
    with torch.no_grad():
        assert choices_of(made, made(torch.zeros(2, 3, 16, 16), gated=True)) is None


def test_choices_drawn_at_random_have_the_shares():
    drawn = drawn_choices([np.array([0.7, 0.3]), np.array([0.0, 1.0])], 5000, torch.Generator().manual_seed(0))
    assert float((drawn[:, 0] == 0).float().mean()) == pytest.approx(0.7, abs=0.03)
    assert bool((drawn[:, 1] == 1).all())


@pytest.mark.long
def test_an_evaluation_says_how_images_are_divided(routed):
    """Planted: a third of the images are blue."""
    labels = np.array([0] * 40 + [1] * 20)
    data = ImageSet(
        name="colours", train=colours(40, 20), test=colours(40, 20, seed=1), train_labels=labels, test_labels=labels
    )
    values = score_backbone(routed, data, settings=ScoreSettings(probe_seeds=1), controls=True).values
    (only,) = values["choices"]["choices"]
    assert sorted(only["shares"]) == pytest.approx([1 / 3, 2 / 3])
    assert values["choices"]["changed"] == pytest.approx(1 / 3)
    assert "routes: 33 %, 67 % of the images; 33 % of the images do not" in as_text(values)
    control = next(row for row in values["rows"] if row["name"] == "random_gates")
    assert "routes drawn at random" in control["description"]
    assert "33 %" in draw_choices(values["choices"]).axes[0].get_title()


def test_random_levels_are_levels():
    made = network(levels=LEVELS)
    seen = []
    made.register_forward_pre_hook(lambda _, __, kwargs: seen.append(kwargs["masks"]), with_kwargs=True)
    shares = [np.array([0.2, 0.3, 0.5])] * 8
    control = random_gates(made, [0.65] * 8, torch.Generator().manual_seed(0), choices=shares)
    control.forward(torch.zeros(200, 3, 16, 16))
    opened = torch.stack([mask.sum(1) / mask.shape[1] for mask in seen[0]])
    assert set(opened.unique().tolist()) == set(LEVELS)
    assert float(opened.mean()) == pytest.approx(0.65, abs=0.03)
