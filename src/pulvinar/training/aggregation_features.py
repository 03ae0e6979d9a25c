"""From pictures to the inner products that learning to aggregate is trained on: backgrounds, crops, pooling, starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch

from pulvinar.data.background import on_grey
from pulvinar.data.stimuli import Stimuli
from pulvinar.errors import InputError
from pulvinar.models.backbones import Backbone, extract
from pulvinar.selection.stage_mask import Balance, Centring, Features, Resolution, feature_products
from pulvinar.training.aggregation import Layout

Background = Literal["on_grey", "as_is"]


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How features are laid out. layouts: see `parse_layout`.

    n_crops: cached random crops beside the whole pictures; a crop's side is crop_share of the picture's.
    """

    resolution: Resolution
    centring: Centring
    layouts: Sequence[str]
    background: Background
    n_crops: int
    crop_share: float
    seed: int


def pictures(stimuli: Stimuli, background: Background) -> list[np.ndarray]:
    """All pictures, uint8 (height, width, 3) of any size; with uniform backgrounds made grey if so set."""
    images = [stimuli.image(row) for row in range(len(stimuli))]
    return [on_grey(image) for image in images] if background == "on_grey" else images


def parse_layout(name: str) -> tuple[Balance, int]:
    """What has equal variance at the start, and to how many places a side maps are averaged (0: not): 'channel:3', 'none:7'.

    Raises `InputError` for anything else.
    """
    balance, _, pool = name.partition(":")
    if balance not in get_args(Balance) or not pool.isdecimal():
        raise InputError(f"layout '{name}': none, stage or channel, a colon and a whole number are needed, such as 'channel:3'")
    return cast(Balance, balance), int(pool)


def layouts(backbone: Backbone, images: Sequence[np.ndarray], settings: FeatureSettings) -> dict[str, Layout]:
    """Every layout by name, over the whole pictures and the cached crops; what inner folds choose among."""
    generator = np.random.default_rng(settings.seed)
    views = [images]
    for down, right in generator.random((settings.n_crops, 2)):
        views.append(crop(images, down, right, settings.crop_share))
    parsed = {name: parse_layout(name) for name in settings.layouts}
    variants = {
        pool: [products(backbone, view, pool, settings) for view in views]
        for pool in dict.fromkeys(pool for _, pool in parsed.values())
    }
    return {name: Layout(variants=variants[pool], balance=balance) for name, (balance, pool) in parsed.items()}


def crop(images: Sequence[np.ndarray], down: float, right: float, share: float) -> list[np.ndarray]:
    """The same window of every picture; down, right: its place in 0..1; share: its side, of the picture's."""
    cut = []
    for image in images:
        height, width = (max(1, round(share * side)) for side in image.shape[:2])
        top, left = round(down * (image.shape[0] - height)), round(right * (image.shape[1] - width))
        cut.append(image[top : top + height, left : left + width])
    return cut


def products(backbone: Backbone, images: Sequence[np.ndarray], pool: int, settings: FeatureSettings) -> Features:
    """Inner products of the pictures' features per scale; maps averaged to pool x pool places, 0: as they are."""
    maps = extract(backbone, images, pool=pool or None)
    tensors = {name: torch.from_numpy(values) for name, values in maps.items()}
    return feature_products(tensors, resolution=settings.resolution, centring=settings.centring)
