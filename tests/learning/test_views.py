"""Views against torchvision's functional operations on the same parameters."""

import pytest
import torch
from torchvision.transforms.v2 import functional as oracle

from pulvinar.core.errors import ConfigError, InputError
from pulvinar.learning.views import (
    ViewSettings,
    apply,
    as_pixels,
    blur,
    brightness,
    contrast,
    draw,
    grey,
    hue,
    make_view,
    make_views,
    normalise,
    plain_view,
    resized_crop,
    saturation,
)


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth and noisy colour, some pixels grey, black and white."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (12, 24, 32, 3), generator=generator, dtype=torch.uint8)
    made[0] = made[0, :, :, :1]
    made[1, :4], made[1, 4:8] = 0, 255
    return made


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, 9])
def test_crop_equals_torchvisions_antialiased_resized_crop(images, interpolation, size):
    pixels = as_pixels(images).double()
    crops = draw(ViewSettings(), len(pixels), 24, 32, generator()).crops
    ours = resized_crop(pixels, crops, size, interpolation)
    mode = oracle.InterpolationMode(interpolation)
    for view, image, crop in zip(ours, pixels, crops.tolist(), strict=True):
        theirs = oracle.resized_crop(image, *crop, [size, size], interpolation=mode, antialias=True).clamp(0, 1)
        torch.testing.assert_close(view, theirs, atol=1e-6, rtol=0)


def test_flip_mirrors_the_resized_crop(images):
    pixels = as_pixels(images)
    crops = draw(ViewSettings(), len(pixels), 24, 32, generator()).crops
    flipped = torch.arange(len(pixels)) % 2 == 0
    plain = resized_crop(pixels, crops, 16, "bicubic")
    mirrored = resized_crop(pixels, crops, 16, "bicubic", flipped=flipped)
    torch.testing.assert_close(mirrored[flipped], oracle.horizontal_flip(plain[flipped]))
    torch.testing.assert_close(mirrored[~flipped], plain[~flipped])


def test_crop_of_the_whole_image_at_its_own_size_is_the_image(images):
    pixels = as_pixels(images[:, :, :24])
    crops = torch.tensor([[0, 0, 24, 24]]).expand(len(pixels), 4)
    torch.testing.assert_close(resized_crop(pixels, crops, 24, "bicubic"), pixels)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (brightness, oracle.adjust_brightness, 0.3, 1.8),
        (contrast, oracle.adjust_contrast, 0.3, 1.8),
        (saturation, oracle.adjust_saturation, 0.3, 1.8),
        (hue, oracle.adjust_hue, -0.5, 0.5),
    ],
)
def test_colour_operations_equal_torchvision(images, ours, theirs, low, high):
    pixels = as_pixels(images)
    strengths = torch.linspace(low, high, len(pixels))
    expected = torch.stack([theirs(image, float(s)) for image, s in zip(pixels, strengths, strict=True)])
    torch.testing.assert_close(ours(pixels, strengths), expected, atol=2e-6, rtol=0)


def test_grey_equals_torchvision(images):
    pixels = as_pixels(images)
    torch.testing.assert_close(grey(pixels), oracle.rgb_to_grayscale(pixels), atol=1e-6, rtol=0)


def test_blur_equals_torchvision(images):
    pixels = as_pixels(images)
    sigma = torch.linspace(0.1, 2.0, len(pixels))
    expected = torch.stack([oracle.gaussian_blur(x, [5, 5], [float(s)] * 2) for x, s in zip(pixels, sigma, strict=True)])
    torch.testing.assert_close(blur(pixels, sigma), expected, atol=1e-6, rtol=0)


def test_a_view_is_its_operations_in_order(images):
    """The whole chain spelled out image by image, with torchvision's operations in the drawn order."""
    settings = ViewSettings(size=20, blur_probability=0.5, order_groups=3, solarise_probability=0.5)
    parameters = draw(settings, len(images), 24, 32, generator(3))
    pixels = as_pixels(images)
    ours = apply(pixels, parameters, settings)
    operations = [oracle.adjust_brightness, oracle.adjust_contrast, oracle.adjust_saturation, oracle.adjust_hue]
    assert len({tuple(order) for order in parameters.orders}) > 1
    assert parameters.orders == [order for order in parameters.orders[::4] for _ in range(4)]  # 12 images, 3 groups
    for row, image in enumerate(pixels):
        top, left, height, width = parameters.crops[row].tolist()
        expected = oracle.resized_crop(
            image, top, left, height, width, [20, 20], interpolation=oracle.InterpolationMode.BICUBIC, antialias=True
        ).clamp(0, 1)
        if parameters.flipped[row]:
            expected = oracle.horizontal_flip(expected)
        if parameters.jittered[row]:
            strengths = [*parameters.factors[row].tolist(), float(parameters.hue[row])]
            for number in parameters.orders[row]:
                expected = operations[number](expected, strengths[number])
        if parameters.grey[row]:
            expected = oracle.rgb_to_grayscale(expected, 3)
        if parameters.blurred[row]:
            expected = oracle.gaussian_blur(expected, [3, 3], [float(parameters.sigma[row])] * 2)
        if parameters.solarised[row]:
            expected = oracle.solarize(expected, settings.solarise_threshold)
        different = (ours[row] - expected).abs() > 1e-5
        assert different.float().mean() < 0.01  # a value within rounding of the solarise threshold may fall on either side
        if not parameters.solarised[row]:
            assert not different.any()


def test_strengths_and_shares_are_those_asked_for():
    """Uniform ranges and probabilities; tolerances are four standard errors of 20,000 draws."""
    settings = ViewSettings(blur_probability=0.3)
    drawn = draw(settings, 20_000, 32, 32, generator())
    for name, probability in (("flipped", 0.5), ("jittered", 0.8), ("grey", 0.2), ("blurred", 0.3), ("solarised", 0.1)):
        assert getattr(drawn, name).float().mean() == pytest.approx(probability, abs=0.015)
    for column, strength in enumerate((0.4, 0.4, 0.2)):
        values = drawn.factors[:, column]
        assert 1 - strength <= values.min() < 1 - 0.99 * strength
        assert 1 + 0.99 * strength < values.max() <= 1 + strength
    assert drawn.hue.abs().max() <= 0.1
    top, left, height, width = drawn.crops.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    share = (height * width) / 32**2
    assert share.min() > 0.17  # .2 before rounding to whole pixels


def test_crops_are_distributed_as_torchvisions():
    """Kolmogorov-Smirnov on area and left edge against RandomResizedCrop.get_params. Its draws come from torch's own seed."""
    import scipy.stats
    from torchvision.transforms import RandomResizedCrop

    ours = draw(ViewSettings(), 3000, 32, 32, generator()).crops.double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.zeros(3, 32, 32)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]).double()
    for value in (lambda crops: crops[:, 2] * crops[:, 3], lambda crops: crops[:, 1]):
        assert scipy.stats.ks_2samp(value(ours), value(theirs)).pvalue > 0.01


def test_same_generator_same_bits(images):
    settings = ViewSettings(blur_probability=0.5)
    one, two = (make_views(images, settings, generator(5)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one[0], one[1])
    assert one[0].shape == (12, 3, 24, 24)
    assert one[0].dtype == torch.float32


@pytest.mark.parametrize("n_parts", [2, 3, 4])
def test_views_of_parts_of_a_batch_are_those_of_the_whole(images, n_parts):
    """As processes make them that all draw for the whole batch; 5 groups do not end where the parts do."""
    settings = ViewSettings(blur_probability=0.5, order_groups=5)
    whole = make_view(images, settings, generator(5))
    parts = [make_view(rows, settings, generator(5), part=(index, n_parts)) for index, rows in enumerate(images.chunk(n_parts))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)


def test_everything_off_is_the_crop_alone(images):
    settings = ViewSettings(
        size=24, jitter_probability=0, grey_probability=0, solarise_probability=0, flip_probability=0, crop_scale=(1, 1)
    )
    square = images[:, :, :24]
    torch.testing.assert_close(
        make_view(square, settings, generator()), plain_view(square, settings), atol=1e-5, rtol=0
    )  # area 1 and ratio 1 alone fit: the image itself


def test_normalise_equals_torchvision(images):
    settings = ViewSettings()
    pixels = as_pixels(images)
    expected = oracle.normalize(pixels, list(settings.mean), list(settings.sd))
    torch.testing.assert_close(normalise(pixels, settings), expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"hue lies in.*crop_scale"):
        ViewSettings(hue=0.7, crop_scale=(0.0, 1.0))
    with pytest.raises(InputError, match="uint8"):
        make_view(torch.zeros(2, 3, 8, 8), ViewSettings(), generator())
