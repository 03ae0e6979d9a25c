"""From pictures to the inner products that learning to aggregate is trained on: backgrounds, crops, pooling, starts."""

from collections.abc import Sequence

import numpy as np

from pulvinar.data.background import on_grey
from pulvinar.data.stimuli import Stimuli
from pulvinar.rsa.aggregation import Layout
from pulvinar.rsa.aggregation_settings import AggregationConfig, Background, parse_layout
from pulvinar.rsa.side_by_side import SideBySide
from pulvinar.rsa.stage_mask import Features, feature_products


def pictures(stimuli: Stimuli, background: Background) -> list[np.ndarray]:
    """All pictures, uint8 (height, width, 3) of any size; with uniform backgrounds made grey if so set."""
    images = [stimuli.image(row) for row in range(len(stimuli))]
    return [on_grey(image) for image in images] if background == "on_grey" else images


def layouts(networks: SideBySide, images: Sequence[np.ndarray], config: AggregationConfig) -> dict[str, Layout]:
    """Every layout by name, over the whole pictures and the cached crops; what inner folds choose among."""
    generator = np.random.default_rng(config.seed)
    views = [images]
    for down, right in generator.random((config.n_cached_crops, 2)):
        views.append(crop(images, down, right, config.crop_share))
    parsed = {name: parse_layout(name) for name in config.layouts}
    variants = {
        pool: [products(networks, view, pool, config) for view in views]
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


def products(networks: SideBySide, images: Sequence[np.ndarray], pool: int, config: AggregationConfig) -> Features:
    """Inner products of the pictures' features per scale; maps averaged to pool x pool places, 0: as they are."""
    return feature_products(networks.maps(images, pool=pool or None), resolution=config.resolution, centring=config.centring)
