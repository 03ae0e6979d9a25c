"""What a planted world shows: crops of photographs, the features that areas follow, and the embedding to be decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.data.photographs import BUNDLED, TEST_CROPS, TRAINING_CROPS, bundled_path, crops, read_picture
from pulvinar.data.pictures import PictureOptions, find_pictures, say_left_out
from pulvinar.data.sessions import ShownImages
from pulvinar.data.source_options import parse_source
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.simulated.settings import Config
from pulvinar.networks.fixed_networks import (
    RandomConvolutionNetwork,
    colour,
    in_batches,
    oriented_energy,
    principal_components,
)
from pulvinar.networks.perturbed import driver_name, perturbed_features

# A world's test pictures are drawn from each kind of photograph in the stated number.
N_TEST_PICTURES = {"texture": 0, "grey": 1, "science": 1, "scene": 4}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Crops and who sees which: images uint8 (stimulus, size, size, 3); trials[subject] = list of (session, rows)."""

    images: np.ndarray
    sources: list[str]
    is_test: np.ndarray
    trials: list[list[tuple[int, np.ndarray]]]


# --- pictures and crops -----------------------------------------------------------------------------------------------


def _pictures(config: Config, rng: np.random.Generator) -> tuple[dict[str, Path], set[str], PictureOptions]:
    """Source pictures by name, the names of those kept for the test, and how their files are read."""
    if config.images is None:
        chosen = {kind: set(rng.choice(names, N_TEST_PICTURES[kind], replace=False)) for kind, names in BUNDLED.items()}
        paths = {name: bundled_path(name) for names in BUNDLED.values() for name in names}
        return paths, set().union(*chosen.values()), PictureOptions()
    folder, options = parse_source(config.images, PictureOptions, name="simulated.images")
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of pictures")
    found, left_out = find_pictures(folder)
    say_left_out(left_out)
    paths = {path.relative_to(folder).as_posix(): path for path in found}
    if len(paths) < 4:
        raise InputError(f"{folder}: {len(paths)} pictures; 4 or more are needed, for a split by picture")
    names = list(paths)
    return paths, set(rng.choice(names, max(1, round(0.3 * len(names))), replace=False)), options


def plan_stimuli(config: Config, rng: np.random.Generator, shown: ShownImages | None = None) -> Plan:
    """Crops for all subjects, and who sees which; shown: as `simulate` takes it."""
    paths, test_names, options = _pictures(config, rng)
    n_repeated = round(config.repeated_share * config.n_trials / (1 + config.repeated_share))
    n_own = [config.n_pretraining_trials] * (config.n_subjects - 1) + [config.n_trials - n_repeated]
    if shown is not None:
        n_own = [max(int(numbers.max()) for own in shown for _, numbers in own) + 1 - config.n_test_images]
    images, sources, is_test = [], [], []
    for names, n_wanted in ((sorted(set(paths) - test_names), sum(n_own)), (sorted(test_names), config.n_test_images)):
        shares = np.full(len(names), n_wanted // len(names))
        shares[: n_wanted % len(names)] += 1
        for name, n in zip(names, shares, strict=True):
            if not n:  # more pictures than images are asked for
                continue
            picture = read_picture(paths[name], options)
            limits = TEST_CROPS if name in test_names else TRAINING_CROPS
            images.append(crops(picture, int(n), config.image_size, rng, **limits))
            sources += [name] * int(n)
            is_test += [name in test_names] * int(n)
    test_mask = np.array(is_test)
    order = rng.permutation(np.flatnonzero(~test_mask))
    if shown is not None:
        row_of = np.concatenate([np.flatnonzero(test_mask), order])
        asked = [[(session, row_of[numbers]) for session, numbers in subject] for subject in shown]
        return Plan(images=np.concatenate(images), sources=sources, is_test=test_mask, trials=asked)
    own = np.split(order, np.cumsum(n_own)[:-1])
    trials: list[list[tuple[int, np.ndarray]]] = [[(1, rows)] for rows in own[:-1]]
    first_session = rng.permutation(np.concatenate([own[-1], rng.choice(own[-1], n_repeated, replace=False)]))
    test_rows = np.flatnonzero(test_mask)
    trials.append([(1, first_session), *((2 + r, rng.permutation(test_rows)) for r in range(config.n_test_repeats))])
    return Plan(images=np.concatenate(images), sources=sources, is_test=test_mask, trials=trials)


# --- what areas follow, and what the decoder is asked for --------------------------------------------------------------


def _random_network(images: torch.Tensor, fit_rows: torch.Tensor, **kwargs) -> torch.Tensor:
    network = RandomConvolutionNetwork(**kwargs)
    network.calibrate(images[fit_rows[:: max(1, len(fit_rows) // 256)]])
    return in_batches(network, images)


def embed(images: np.ndarray, *, fit_rows: np.ndarray, dim: int) -> np.ndarray:
    """The embedded default embedding of images uint8 (image, h, w, 3): a fixed random network, components of `fit_rows`."""
    pixels, rows = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(fit_rows)
    features = _random_network(pixels, rows, seed=11, widths=(32, 64, 128), kernel=5, nonlinearity="relu", grid=4)
    return principal_components(features, fit_rows=rows, n_components=dim, whitening=0.5).numpy()


def _fixed_features(images: np.ndarray, fit_rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Area -> features (stimulus, dim) of networks that are never trained."""
    pixels = torch.from_numpy(images)
    deep = _random_network(pixels, fit_rows, seed=23, widths=(48, 96, 160), kernel=3, nonlinearity="tanh", grid=2)
    half = deep.shape[1] // 2
    return {
        "energy": in_batches(oriented_energy, pixels),
        "colour": in_batches(colour, pixels),
        "middle": deep[:, :half],
        "late": deep[:, half:],
        "late scattered": deep,
    }


def _driven_features(config: Config, plan: Plan, fit_rows: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
    """Area -> features of a subject's perturbed network: of its second stage, 'early', and its last but one, 'higher'."""
    found = perturbed_features(
        plan.images,
        name=driver_name(config.driver),
        weights=config.driver_weights,
        strength=config.driver_strength,
        seed=config.seed,
        fit_rows=fit_rows.numpy(),
        own=config.driver_own,
        number=number,
    )
    stages = list(found.values())
    if len(stages) < 4:
        raise InputError(f"driver: {config.driver} has {len(stages)} stages; 4 or more are needed for early and higher areas")
    return {"early": stages[1], "higher": stages[-2]}


def area_features(config: Config, plan: Plan, number: int) -> dict[str, np.ndarray]:
    """Area -> the features (stimulus, dim) that its voxels follow in this subject."""
    fit_rows = torch.from_numpy(np.flatnonzero(~plan.is_test))
    if config.driver == "fixed":
        raw = _fixed_features(plan.images, fit_rows)
    else:
        raw = _driven_features(config, plan, fit_rows, number)
    areas, n_components = {}, min(config.tuning_dim, len(fit_rows) - 1)
    for name, features in raw.items():
        scores = principal_components(features, fit_rows=fit_rows, n_components=n_components, whitening=0.5)
        areas[name] = (scores / scores[fit_rows].std(0).square().sum().sqrt()).numpy()
    return areas


def shown_stimuli(config: Config, plan: Plan) -> Stimuli:
    """Stimuli with the target embedding."""
    fit_rows = np.flatnonzero(~plan.is_test)
    width = len(str(len(plan.images)))
    ids = [f"image{row:0{width}d}" for row in range(len(plan.images))]
    embedding = embed(plan.images, fit_rows=fit_rows, dim=min(config.embedding_dim, len(fit_rows) - 1))
    return Stimuli(ids=ids, sources=plan.sources, features={"embedding": embedding}, read_image=lambda row: plan.images[row])
