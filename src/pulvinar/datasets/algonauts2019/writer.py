"""Writes planted RDMs in the challenge's layout: a fixed random network's stages, each with a known scale."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pulvinar.core.config import LARGEST_SEED, build, setting
from pulvinar.core.errors import NotFoundError
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, refuse_existing, write_json
from pulvinar.data import photographs
from pulvinar.data.dissimilarity_files import image_ids
from pulvinar.data.planted_dissimilarities import embedding_rdm, gaussian_course, subject_rdms, timed_subject_rdms
from pulvinar.datasets.algonauts2019.layout import (
    TARGETS,
    TRUTH,
    WINDOW_MS,
    SetContent,
    as_jpeg,
    set_folder,
    write_set,
)
from pulvinar.networks.fixed_networks import RandomConvolutionNetwork

IMAGE_PIXELS = {92: 175, 118: 300}  # along an edge; the 78 set's are taken as they come
STAGE_WIDTHS, STAGE_GRIDS, STAGE_KERNEL, STAGE_PIXELS = (8, 8, 8, 8, 8), (8, 5, 3, 2, 1), 3, 96
LEVELS = (1.0, 0.75, 0.5, 0.3, 0.15)  # of the planted scales, dealt to the stages at random
SHARED_SCALES = (("evc", "meg_early"), ("it", "meg_late"))  # the paper pairs fMRI and MEG like this
FeatureFunction = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What world `generate` plants."""

    seed: int = setting(0, "changes pictures, scales, network and noise", at_least=0, below=LARGEST_SEED)
    sets: tuple[int, ...] = setting((92, 118), "numbers of images, one set each; the sets share no photograph")
    n_subjects: int = setting(15, "people, each with noise of their own", at_least=2)
    n_times: int = setting(20, "time points of MEG, spread evenly over each window", at_least=1)
    noise: float = setting(1.5, "fMRI: standard deviation of a subject's noise, in units of the RDM's over pairs", at_least=0)
    meg_noise: float = setting(1.5, "MEG: the same at each time point, in units of the RDM's at the peak", at_least=0)
    noise_autocorrelation: float = setting(
        0.7, "MEG: correlation of the noise between successive time points", at_least=0, below=1
    )
    signal_window: float = setting(
        0.25, "MEG: width (standard deviation) of the signal around mid-window, in window lengths", above=0
    )
    image_size: int = setting(0, "pixels along an edge; 0 takes the distributed sizes (92 set: 175, others 300)", at_least=0)

    def problems(self) -> list[str]:
        """What does not fit together."""
        lines = []
        if not self.sets or min(self.sets) < 3 or len(set(self.sets)) != len(self.sets) or len(self.sets) > 8:
            lines.append(f"sets: 1 to 8 different numbers of images, each 3 or more, not {list(self.sets)}")
        if 0 < self.image_size < 16:
            lines.append(f"image_size is 16 or more (or 0), not {self.image_size}")
        return lines


def generate(
    out: str | os.PathLike[str],
    config: Config | None = None,
    *,
    scales: Mapping[str, Mapping[str, float | np.ndarray]] | None = None,
    features: FeatureFunction | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write a folder of the distributed layout (MATLAB 7.3 targets, images as .mat and .jpg) whose stage scales are known.

    Images are crops of bundled photographs. A target's RDM is the correlation distance of the images' features, each stage
    times its scale, concatenated; each subject shows it through noise of its own. MEG RDMs follow it in time as a Gaussian
    around the middle of the window: at the edges there is noise only.

    scales: target -> stage -> scale (or one per channel); only these targets are written. Without it all four are, with
    `LEVELS` dealt to the stages by the seed, the same for evc and meg_early, and for it and meg_late.
    features: uint8 (image, height, width, 3) -> stage -> (image, ..., channel), of any network, called once per set. Without
    it `stage_features` of a fixed random network; those are written as features.npz beside each set.
    settings: the fields of `Config`, over those of `config`.

    What comes out, also as truth.json in the folder: scales, signal course, settings, per set the folder and each image's
    source photograph, and the network's specification; `folder` and `name` beside. `load` reads sources and features.npz.
    Raises `ConfigError`, `FileError` if the folder exists, `NotFoundError` or `InputError` for scales that do not fit.
    """
    config = build(Config, (asdict(config) if config else {}) | settings, name="algonauts2019")
    refuse_existing(out)
    rng = np.random.default_rng([config.seed, 0xA16])
    images, sources = _draw_images(config, rng)
    jpegs = {n: [as_jpeg(image) for image in images[n]] for n in config.sets}
    pixels = {n: np.stack([decoded for _, decoded in jpegs[n]]) for n in config.sets}
    by_set = {n: features(pixels[n]) for n in config.sets} if features else stage_features(pixels, seed=config.seed)
    stages = list(by_set[config.sets[0]])
    planted = scales if scales is not None else _deal_scales(stages, rng)
    if unknown := sorted(set(planted) - set(TARGETS)):
        raise NotFoundError(f"scales: {', '.join(unknown)} is no target; there are: {', '.join(TARGETS)}")
    truth = {
        "layout": "algonauts2019",
        "settings": asdict(config),
        "scales": {target: dict(by_stage) for target, by_stage in planted.items()},
        "course": gaussian_course(config.n_times, config.signal_window),
        "times_ms": {name: np.linspace(*window, config.n_times) for name, window in WINDOW_MS.items()},
        "network": _network_specification(config) if features is None else "features came from the caller",
        "sets": {str(n): {"folder": set_folder(n), "sources": sources[n]} for n in config.sets},
    }
    with atomic_folder(out) as temporary:
        for n in track(config.sets, "writing sets", len(config.sets)):
            content = SetContent(
                ids=image_ids(n),  # image_01 ... image_92, image_001 ... image_118
                jpegs=[jpeg for jpeg, _ in jpegs[n]],
                images=pixels[n],
                targets=_plant(config, by_set[n], planted, np.random.default_rng([config.seed, 0x5EE, n])),
                features=by_set[n] if features is None else {},
            )
            write_set(temporary / set_folder(n), content)
        write_json(temporary / TRUTH, truth)
    return {"folder": str(out), "name": f"planted RDMs in the layout of algonauts2019 (seed {config.seed})", **truth}


def _draw_images(config: Config, rng: np.random.Generator) -> tuple[dict[int, np.ndarray], dict[int, list[str]]]:
    """Per set: crops uint8 (image, size, size, 3) of its own photographs, and the photograph of each."""
    names = rng.permutation([name for kind in photographs.BUNDLED.values() for name in kind])
    shares = np.cumsum([n / sum(config.sets) for n in config.sets])[:-1]
    groups = np.split(names, np.clip(np.rint(shares * len(names)), 1, len(names) - 1).astype(int))
    images, sources = {}, {}
    for n, group in zip(config.sets, groups, strict=True):
        counts = np.full(len(group), n // len(group)) + (np.arange(len(group)) < n % len(group))
        size = config.image_size or IMAGE_PIXELS.get(n, 300)
        drawn = [
            photographs.crops(
                photographs.read_picture(photographs.bundled_path(str(name))),
                int(count),
                size,
                rng,
                **photographs.TRAINING_CROPS,
            )
            for name, count in track(list(zip(group, counts, strict=True)), f"cutting {n} images", len(group))
            if count
        ]
        order = rng.permutation(n)
        images[n] = np.concatenate(drawn)[order]
        sources[n] = [str(name) for name in np.repeat(group, counts)[order]]
    return images, sources


def _network_specification(config: Config) -> dict[str, Any]:
    return {
        "class": "pulvinar.networks.fixed_networks.RandomConvolutionNetwork",
        "seed": config.seed,
        "widths": STAGE_WIDTHS,
        "kernel": STAGE_KERNEL,
        "nonlinearity": "relu",
        "grids": STAGE_GRIDS,
        "input_pixels": STAGE_PIXELS,
        "calibrated_on": "the images of all sets, in the order of settings.sets",
        "normalised": "each feature less its mean, each stage divided by the root of its summed variance, over the same images",
    }


def stage_features(images: Mapping[int, np.ndarray], *, seed: int) -> dict[int, dict[str, np.ndarray]]:
    """Set -> stage -> float32 (image, place, channel): a fixed random network of five stages, on all sets at once.

    Images uint8 (image, height, width, 3), as decoded from the .jpg, are reduced to 96 pixels. Each feature's mean over all
    images is taken off, and each stage divided by the root of its variance over them, summed over places and channels: equal
    scales mean equal weight. Few channels and coarse grids keep the stages' RDMs apart, and each about as wide as the others.
    """
    reduced = {n: torch.from_numpy(_reduce(pixels)) for n, pixels in images.items()}
    network = RandomConvolutionNetwork(
        seed=seed, widths=STAGE_WIDTHS, kernel=STAGE_KERNEL, nonlinearity="relu", grid=STAGE_GRIDS[-1]
    )
    together = torch.cat(list(reduced.values()))
    network.calibrate(together)
    out: dict[int, dict[str, np.ndarray]] = {n: {} for n in images}
    for number, grids in enumerate(network.stages(together, grids=STAGE_GRIDS), start=1):
        maps = grids.flatten(2).transpose(1, 2).double()  # image place channel
        maps = maps - maps.mean(0)
        norm = maps.square().mean(0).sum().sqrt()
        parts = (maps / norm).float().split([len(pixels) for pixels in reduced.values()])
        for n, part in zip(images, parts, strict=True):
            out[n][f"stage{number}"] = part.numpy()
    return out


def _reduce(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    size = (STAGE_PIXELS, STAGE_PIXELS)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in pixels])


def _deal_scales(stages: list[str], rng: np.random.Generator) -> dict[str, dict[str, float]]:
    levels = np.interp(np.linspace(0, 1, len(stages)), np.linspace(0, 1, len(LEVELS)), LEVELS)
    scales: dict[str, dict[str, float]] = {}
    for targets in SHARED_SCALES:
        dealt = {stage: float(level) for stage, level in zip(stages, rng.permutation(levels), strict=True)}
        scales |= dict.fromkeys(targets, dealt)
    return scales


def _plant(
    config: Config,
    features: Mapping[str, np.ndarray],
    scales: Mapping[str, Mapping[str, float | np.ndarray]],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Target -> RDMs (subject, image, image), of MEG (subject, time, image, image)."""
    course = gaussian_course(config.n_times, config.signal_window)
    targets = {}
    for target, by_stage in scales.items():
        rdm = embedding_rdm(features, by_stage)
        if target in WINDOW_MS:
            targets[target] = timed_subject_rdms(
                rdm,
                n_subjects=config.n_subjects,
                course=course,
                noise=config.meg_noise,
                carry=config.noise_autocorrelation,
                rng=rng,
            )
        else:
            targets[target] = subject_rdms(rdm, n_subjects=config.n_subjects, noise=config.noise, rng=rng)
    return targets
