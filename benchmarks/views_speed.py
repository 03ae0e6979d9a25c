"""Views per second: ours for a batch at once, and lightly's transform image by image, with the same settings, in one process.

    python benchmarks/views_speed.py [--side 32] [--batch 256] [--repeats 5]

Both make two views an image, normalised, from uint8 pictures in memory; loading from disk is in neither. lightly's goes through
Pillow, one image at a time, as its data loaders do in each worker. Medians over interleaved repeats.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from lightly.transforms import SimCLRTransform
from PIL import Image

from pulvinar.learning.views import ViewSettings, make_views


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--side", type=int, default=32)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--device", default="cpu")
    given = arguments.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (given.batch, given.side, given.side, 3), dtype=np.uint8)
    settings = ViewSettings(solarise_probability=0.0)  # lightly's SimCLR transform has none
    theirs = SimCLRTransform(
        input_size=given.side,
        cj_strength=0.5,
        cj_bright=0.8,
        cj_contrast=0.8,
        cj_sat=0.4,
        cj_hue=0.2,
        min_scale=0.2,
        gaussian_blur=0.0,
    )
    pictures = [Image.fromarray(picture) for picture in pixels]
    images = torch.from_numpy(pixels).to(given.device)
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {"pulvinar": [], "lightly": []}
    for _ in range(given.repeats + 1):
        start = time.perf_counter()
        make_views(images, settings, generator)
        if images.is_cuda:
            torch.cuda.synchronize()
        seconds["pulvinar"].append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.stack([torch.stack(theirs(picture)) for picture in pictures])
        seconds["lightly"].append(time.perf_counter() - start)
    rates = {name: 2 * given.batch / statistics.median(values[1:]) for name, values in seconds.items()}
    for name, values in seconds.items():
        slow, fast = 2 * given.batch / max(values[1:]), 2 * given.batch / min(values[1:])
        print(f"{name:9} {rates[name]:8.0f} views/s (from {slow:.0f} to {fast:.0f})")
    where = f"{torch.get_num_threads()} thread(s), {given.side} px, {given.device}"
    print(f"ratio {rates['pulvinar'] / rates['lightly']:.1f}; {where}")


if __name__ == "__main__":
    main()
