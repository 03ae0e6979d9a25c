"""Oracle: torchvision's transforms with antialiasing on float images; means by hand."""

import numpy as np
import pytest
import torch
from torchvision.models import SqueezeNet1_0_Weights
from torchvision.transforms import v2

from pulvinar.core.errors import InputError
from pulvinar.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(300, 200), (97, 250), (20, 31), (64, 64)])
def test_squash_is_torchvisions_resize(height: int, width: int):
    image = picture(height, width)
    transform = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((64, 64), interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    expected = transform(torch.from_numpy(image).permute(2, 0, 1))
    torch.testing.assert_close(Preprocessing(image_size=64)([image])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(300, 451), (451, 300), (256, 256), (100, 333), (256, 387)])
def test_crop_is_the_transform_of_torchvisions_weights(height: int, width: int):
    image = picture(height, width)
    expected = SqueezeNet1_0_Weights.IMAGENET1K_V1.transforms()(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
    ours = Preprocessing(resize="crop", crop_share=224 / 256)([image])[0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_mixed_sizes_give_what_each_gives_alone():
    images = [picture(40, 60, 1), picture(33, 20, 2), picture(32, 32, 3)]
    transform = Preprocessing(image_size=32)
    together = transform(images)
    assert together.shape == (3, 3, 32, 32)
    for image, pixels in zip(images, together, strict=True):
        torch.testing.assert_close(transform(torch.from_numpy(image[None]))[0], pixels)
    by_hand = (images[2].astype(np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(together[2].permute(1, 2, 0).numpy(), by_hand, atol=1e-6)


def test_read_only_and_strided_arrays_are_taken():
    image = picture(16, 16)
    image.flags.writeable = False
    flipped = image[:, ::-1]
    torch.testing.assert_close(Preprocessing(image_size=16)([flipped])[0], Preprocessing(image_size=16)([image])[0].flip(2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "none came"),
        (np.zeros((0, 4, 4, 3), np.uint8), "none came"),
        (np.zeros((2, 4, 4, 3), np.float32), r"float32 \(2, 4, 4, 3\) came"),
        (np.zeros((2, 3, 4, 4), np.uint8), r"uint8 \(2, 3, 4, 4\) came"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"\(4, 4, 3\) came"),
        ([picture(4, 4), np.zeros((4, 4), np.uint8)], r"image 1: .* uint8 \(4, 4\) came"),
        ([picture(4, 4), "picture.png"], "image 1: .* a str came"),
        (np.zeros((1, 0, 4, 3), np.uint8), r"\(1, 0, 4, 3\) came"),
    ],
)
def test_other_images_are_refused(images, message: str):
    with pytest.raises(InputError, match=message):
        Preprocessing(image_size=8)(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 0}, "image_size"),
        ({"std": (0.2, 0.0, 0.2)}, "std: three numbers above 0"),
        ({"mean": (0.5, 0.5)}, "mean: three finite numbers"),
        ({"resize": "stretch"}, "resize: one of squash, crop"),
        ({"crop_share": 1.5}, "crop_share"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message: str):
    with pytest.raises(InputError, match=message):
        Preprocessing().changed(**settings)
