"""Images per second of self-supervised training, loading and views included: ours, and lightly's VICReg example, in one run.

    python benchmarks/ssl_speed.py [--width 1.0] [--batch 256] [--steps 6] [--repeats 5] [--data FILE.npz]

Both train the same ResNet-18 and projector (2048 x 3) with VICReg and SGD on images in memory. lightly's side is its documented
example: its VICReg transform on Pillow images, a DataLoader (as many workers as cores), VICRegLoss, torch's SGD. First line in
float32 for both; then, beside the same peer, ours with its default settings (bfloat16 where the machine computes in it), and
dual gating with them: what its step costs beside plain VICReg's.
Turns are interleaved; medians, with the slowest and the fastest turn. An image counts once, though two views are made of it.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from lightly.loss import VICRegLoss
from lightly.transforms import VICRegTransform
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pulvinar.gating.methods.self_supervised import DualConfig
from pulvinar.gating.settings import SelfSupervisedConfig
from pulvinar.gating.siamese import make_network
from pulvinar.gating.siamese_training import SiameseTrainer
from pulvinar.networks.gated_resnet import GatedResNet


class Pictures(Dataset):
    """As torchvision's CIFAR10: Pillow images from an array, then the transform."""

    def __init__(self, pixels: np.ndarray, transform: VICRegTransform) -> None:
        self.pixels, self.transform = pixels, transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> list[torch.Tensor]:
        return self.transform(Image.fromarray(self.pixels[place]))


def lightly_turns(config: SelfSupervisedConfig, pixels: np.ndarray, n_steps: int, workers: int) -> Iterator[float]:
    """Seconds of so many steps, turn after turn; the workers wait between turns with full queues, which is to their favour."""
    size = pixels.shape[1]
    backbone = GatedResNet(config.shape(size), size=size, passes=("dense",)).initialise(torch.Generator().manual_seed(0))
    width = config.projector_width
    layers: list[nn.Module] = []
    for inputs in (backbone.shape.n_features, width):
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    head = nn.Sequential(*layers, nn.Linear(width, width))
    criterion = VICRegLoss()
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.06)
    loader = DataLoader(
        Pictures(pixels, VICRegTransform(input_size=size)),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def batches() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    source = batches()
    while True:
        start = time.perf_counter()
        for _ in range(n_steps):
            views = next(source)
            first, second = (head(backbone(view).features) for view in views[:2])
            loss = criterion(first, second)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        yield time.perf_counter() - start


def our_turns(config: SelfSupervisedConfig, pixels: np.ndarray, n_steps: int) -> Iterator[float]:
    """Seconds of so many steps, turn after turn."""
    size = pixels.shape[1]
    network = make_network(config, size)
    trainer = SiameseTrainer(network, pixels, config)
    while True:
        start, before = time.perf_counter(), trainer.step_number
        while trainer.step_number < before + n_steps:
            trainer.run_steps(before + n_steps - trainer.step_number)
        yield time.perf_counter() - start


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--width", type=float, default=1.0)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--steps", type=int, default=6, help="in a turn")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--size", type=int, default=32)
    arguments.add_argument("--data", help=".npz with x_train (default: random pictures)")
    given = arguments.parse_args()
    if given.data:
        with np.load(given.data, allow_pickle=False) as archive:
            pixels = archive["x_train"]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (4096, given.size, given.size, 3), dtype=np.uint8)
    shared = {"width": given.width, "batch_size": given.batch, "optimizer": "sgd", "epochs": 1000}
    workers = os.cpu_count() or 1
    turns = {
        "lightly's example, float32": lightly_turns(SelfSupervisedConfig(**shared), pixels, given.steps, workers),
        "pulvinar, float32": our_turns(SelfSupervisedConfig(**shared, precision="float32"), pixels, given.steps),
        "pulvinar, default": our_turns(SelfSupervisedConfig(**shared), pixels, given.steps),
        "pulvinar, default, dual": our_turns(DualConfig(**shared), pixels, given.steps),
    }
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(given.repeats + 1):
        for name, source in turns.items():
            seconds[name].append(next(source))
    images = given.batch * given.steps
    middles = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    peer = middles["lightly's example, float32"]
    ratio = middles["pulvinar, default, dual"] / middles["pulvinar, default"]
    print(f"ResNet-18 width {given.width:g}, {pixels.shape[1]} px, batch {given.batch}, {torch.get_num_threads()} thread(s)")
    for name, values in seconds.items():
        middle = middles[name]
        spread = f"{images / max(values[1:]):.0f} to {images / min(values[1:]):.0f}"
        print(f"  {name:28}{images / middle:7.0f} images/s ({spread}), {peer / middle:.2f} x the example")
    print(f"  a dual-gating step takes {ratio:.2f} x a plain VICReg step (same network, batch and type)")


if __name__ == "__main__":
    main()
