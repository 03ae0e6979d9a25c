"""Planted cortex: several subjects who see real photographs, with known responsive voxels. The embedded default.

Stimuli are crops of the photographs that ship inside scikit-image and scikit-learn (or of a folder of your own); training
and test crops come from different pictures. What is planted, per subject:

- A head: a superellipsoid of its own proportions in a grid, `n_voxels` places.
- Areas of responsive voxels, each a contiguous core and voxels scattered around it. Early areas follow oriented energy and
  colour, late ones a fixed random network that is *not* the one that gives the decoder's target. Neighbours in a core are
  tuned alike. `driver=perturbed:NAME` has two areas instead, 'early' and 'higher', that follow stages of a perturbed copy of a
  backbone (networks/perturbed.py), so that tuning that backbone has something to find; each has a loose ROI of its name.
- Reliable but irrelevant blobs: a response that repeats with the stimulus, but is drawn at random for each stimulus.
- Noise: partly smooth in space, partly autocorrelated over trials, partly shared by the whole head.
- A loose 'annotated' ROI: the areas grown outward; it misses scattered voxels and takes many silent ones.

The noise ceiling of a responsive voxel is for the mean of three repeats, as in NSD: s / (s + (1 - s) / 3), s the signal's
share of single-trial variance. The truth travels in `Experiment.truth`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import torch

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import track
from pulvinar.data.dataset import Dataset
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.photographs import BUNDLED, TEST_CROPS, TRAINING_CROPS, bundled_path, crops, read_picture
from pulvinar.data.pictures import PictureOptions, find_pictures, say_left_out
from pulvinar.data.planted_head import grow, head, spread_places
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.sessions import ShownImages
from pulvinar.data.source_options import parse_source
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.fixed_networks import (
    RandomConvolutionNetwork,
    colour,
    in_batches,
    oriented_energy,
    principal_components,
)
from pulvinar.networks.perturbed import driver_name, perturbed_features

N_REPEATS_OF_CEILING = 3
SCALE = 1 / 2000  # int16 steps per standard deviation

# A world's test pictures are drawn from each kind of photograph in the stated number.
N_TEST_PICTURES = {"texture": 0, "grey": 1, "science": 1, "scene": 4}


def _driver(text: str) -> str | None:
    """The network that areas follow; None for the fixed ones."""
    return None if text == "fixed" else driver_name(text)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What world to plant."""

    seed: int = setting(0, "changes pictures, heads, areas, tuning and noise", at_least=0, below=LARGEST_SEED)
    n_subjects: int = setting(4, "the last one is the new subject", at_least=1)
    n_voxels: int = setting(8000, "places in the new subject's head; the others' differ by up to 10 %", at_least=200)
    responsive_share: float = setting(0.1, "share of voxels that respond to images", at_least=0, below=1)
    irrelevant_share: float = setting(
        0.03, "share of voxels that are reliable but carry no image information", at_least=0, below=1
    )
    scattered_share: float = setting(
        0.25, "share of each area's voxels that lie scattered around its core", at_least=0, below=1
    )
    ceiling_median: float = setting(
        0.35, "median r^2 noise ceiling of responsive voxels, mean of three repeats", at_least=0, below=1
    )
    ceiling_spread: float = setting(1.2, "standard deviation of the log odds of the ceiling over voxels", at_least=0)
    tuning_dim: int = setting(24, "feature dimensions each area encodes", at_least=1)
    n_trials: int = setting(600, "single training trials of the new subject (one session)", at_least=20)
    n_pretraining_trials: int = setting(1000, "training trials of each other subject", at_least=20)
    repeated_share: float = setting(0.1, "share of the new subject's training images that are shown twice", at_least=0, below=1)
    n_test_images: int = setting(300, "test images, shown to the new subject", at_least=10)
    n_test_repeats: int = setting(3, "presentations of each test image", at_least=1)
    noise_smoothness: float = setting(1.2, "width (voxels) of the spatially smooth noise", at_least=0)
    noise_autocorrelation: float = setting(0.3, "correlation of the noise between successive trials", at_least=0, below=1)
    embedding_dim: int = setting(64, "dimensions of the target embedding", at_least=2)
    image_size: int = setting(64, "pixels along an edge of a stimulus", at_least=16)
    images: str | None = setting(None, "a folder of your own pictures (FOLDER?background=black) instead of the bundled ones")
    driver: str = setting(
        "fixed", "what areas follow: fixed networks, or perturbed:NAME, a changed copy of a backbone", reads=_driver
    )
    driver_weights: str | None = setting(
        None, "weights of that backbone, as `load_backbone` takes them; none: random", counts="driver!=fixed"
    )
    driver_strength: float = setting(
        0.6, "how much it is changed: spread of log gains of its channels", at_least=0, counts="driver!=fixed"
    )
    driver_own: float = setting(
        0.0,
        "share of the change's variance that is each subject's own; 0: all follow one copy",
        at_least=0,
        at_most=1,
        counts="driver!=fixed",
    )

    def problems(self) -> list[str]:
        """What does not fit together."""
        lines = []
        if self.responsive_share + self.irrelevant_share > 1:
            lines.append("responsive_share and irrelevant_share are shares of the same voxels; their sum is above 1")
        if self.driver == "fixed" and (self.driver_own or self.driver_weights):
            lines.append("driver_own and driver_weights are of a perturbed backbone; driver is fixed")
        return lines


def simulate(config: Config | None = None, *, shown: ShownImages | None = None) -> Experiment:
    """Plant a world. The same settings give the same world, bit for bit, on the same machine.

    shown: per subject, the images of each session (session, image numbers), where it is not the world's own plan: numbers
    below `config.n_test_images` are test images, all others training images; n_trials and n_pretraining_trials are then unused.
    """
    config = config or Config()
    rng = np.random.default_rng([config.seed, 0x9D1])
    plan = _plan_stimuli(config, rng, shown)
    stimuli, areas = _stimuli(config, plan), _areas(config, plan, 0)
    subjects, truth = {}, {}
    for number in track(range(config.n_subjects), "planting subjects", config.n_subjects):
        name = f"subj{number + 1:02d}"
        own = np.random.default_rng([config.seed, 0xB0D, number])
        if number and config.driver_own:
            areas = _areas(config, plan, number)
        subjects[name], truth[name] = plant_subject(config, name, plan.trials[number], stimuli.ids, areas, own)
    train = tuple(stimuli.ids[int(row)] for row in np.flatnonzero(~plan.is_test))
    test = tuple(stimuli.ids[int(row)] for row in np.flatnonzero(plan.is_test))
    return Experiment(
        name=f"simulated cortex (seed {config.seed})",
        stimuli=stimuli,
        subjects=subjects,
        split=Split(train=train, test=test),
        target=list(subjects)[-1],
        truth=truth,
        facts={"citation": "pulvinar, planted world", "licence": "stimuli: crops of pictures bundled with scikit-image, "
               "scikit-learn (see their data READMEs), or your own"},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Plan:
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


def _plan_stimuli(config: Config, rng: np.random.Generator, shown: ShownImages | None = None) -> _Plan:
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
        return _Plan(images=np.concatenate(images), sources=sources, is_test=test_mask, trials=asked)
    own = np.split(order, np.cumsum(n_own)[:-1])
    trials: list[list[tuple[int, np.ndarray]]] = [[(1, rows)] for rows in own[:-1]]
    first_session = rng.permutation(np.concatenate([own[-1], rng.choice(own[-1], n_repeated, replace=False)]))
    test_rows = np.flatnonzero(test_mask)
    trials.append([(1, first_session), *((2 + r, rng.permutation(test_rows)) for r in range(config.n_test_repeats))])
    return _Plan(images=np.concatenate(images), sources=sources, is_test=test_mask, trials=trials)


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


def _driven_features(config: Config, plan: _Plan, fit_rows: torch.Tensor, number: int) -> dict[str, torch.Tensor]:
    """Area -> features of a subject's perturbed backbone: of its second stage, 'early', and its last but one, 'higher'."""
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


def _areas(config: Config, plan: _Plan, number: int) -> dict[str, np.ndarray]:
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


def _stimuli(config: Config, plan: _Plan) -> Stimuli:
    """Stimuli with the target embedding."""
    fit_rows = np.flatnonzero(~plan.is_test)
    width = len(str(len(plan.images)))
    ids = [f"image{row:0{width}d}" for row in range(len(plan.images))]
    embedding = embed(plan.images, fit_rows=fit_rows, dim=min(config.embedding_dim, len(fit_rows) - 1))
    return Stimuli(ids=ids, sources=plan.sources, features={"embedding": embedding}, read_image=lambda row: plan.images[row])


# --- a subject ------------------------------------------------------------------------------------------------------


def _place_areas(
    config: Config, geometry: Geometry, areas: Sequence[str], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Area number per voxel (0 none), irrelevant blobs (bool), and per area the loose annotated ROI (bool)."""
    n_voxels = geometry.n_voxels
    area, free = np.zeros(n_voxels, np.int16), np.ones(n_voxels, bool)
    centres = spread_places(geometry, len(areas) + 3, rng)
    n_each = max(4, round(config.responsive_share * n_voxels / len(areas)))
    annotated = {name: np.zeros(n_voxels, bool) for name in areas}
    for number, name in enumerate(areas, start=1):
        scattered_share = min(0.95, config.scattered_share * (2.5 if "scattered" in name else 1.0))
        n_scattered = round(scattered_share * n_each)
        core = grow(geometry, centres[number - 1], n_each - n_scattered, free, rng, roughness=0.15)
        area[core], free[core] = number, False
        around = grow(geometry, centres[number - 1], 6 * n_each, free, rng, roughness=0.05)
        loose = rng.choice(around, n_scattered, replace=False)
        area[loose], free[loose] = number, False
        shifted = centres[number - 1] + rng.normal(0, 0.15 * n_each ** (1 / 3), 3)
        loose = grow(geometry, shifted, round(1.8 * n_each), np.ones(n_voxels, bool), rng, roughness=0.1)
        annotated[name][loose] = True
    irrelevant = np.zeros(n_voxels, bool)
    n_blob = round(config.irrelevant_share * n_voxels / 3)
    for centre in centres[len(areas) :]:
        blob = grow(geometry, centre, n_blob, free, rng, roughness=0.15)
        irrelevant[blob], free[blob] = True, False
    return area, irrelevant, annotated


def _tuning(geometry: Geometry, voxels: np.ndarray, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Weights (dim, voxel): smooth over the area plus each voxel's own, unit length."""
    smooth = geometry.take(voxels).low_pass(1.5) @ rng.standard_normal((len(voxels), dim))
    smooth /= smooth.std(axis=0, keepdims=True) + 1e-9
    weights = smooth + 0.7 * rng.standard_normal((len(voxels), dim))
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T


def _signal_share(config: Config, geometry: Geometry, number_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Single-trial signal share (voxel,) of the voxels with a number (area or blob) above 0; 0 elsewhere.

    The three-repeat ceiling has the asked median over them, and the asked spread of log odds: a quarter of its variance
    between areas, half smooth inside an area (ceilings are smooth over cortex), a quarter alone.
    """
    share, some = np.zeros(geometry.n_voxels), np.flatnonzero(number_of)
    if not len(some) or config.ceiling_median == 0:
        return share
    odds = 0.5 * rng.standard_normal(len(some))
    for number in np.unique(number_of[some]):
        inside = number_of[some] == number
        smooth = geometry.take(some[inside]).low_pass(1.5) @ rng.standard_normal(int(inside.sum()))
        odds[inside] += 0.5 * rng.standard_normal() + 0.5**0.5 * (smooth - smooth.mean()) / (smooth.std() + 1e-9)
    odds = np.log(config.ceiling_median / (1 - config.ceiling_median)) + config.ceiling_spread * (odds - np.median(odds))
    ceiling = 1 / (1 + np.exp(-odds))
    share[some] = ceiling / (N_REPEATS_OF_CEILING - (N_REPEATS_OF_CEILING - 1) * ceiling)
    return share


def _noise(config: Config, geometry: Geometry, n_trials: int, rng: np.random.Generator) -> np.ndarray:
    """Noise (trial, voxel) of unit variance: half smooth in space, a tenth shared, the rest alone; autocorrelated."""
    place = geometry.grid_place
    shared_maps = rng.standard_normal((3, geometry.n_voxels)).astype(np.float32)
    smooth_sd, out = None, np.empty((n_trials, geometry.n_voxels), np.float32)
    carry = config.noise_autocorrelation
    for trial in range(n_trials):
        field = scipy.ndimage.gaussian_filter(
            rng.standard_normal(geometry.shape, np.float32), config.noise_smoothness, truncate=3
        )
        smooth_sd = smooth_sd or float(field.std())
        shared = rng.standard_normal(3).astype(np.float32) @ shared_maps / 3**0.5
        alone = rng.standard_normal(geometry.n_voxels, np.float32)
        fresh = 0.5**0.5 * field[place] / smooth_sd + 0.1**0.5 * shared + 0.4**0.5 * alone
        out[trial] = fresh if trial == 0 else carry * out[trial - 1] + (1 - carry**2) ** 0.5 * fresh
    return out


def plant_subject(
    config: Config,
    name: str,
    sessions: list[tuple[int, np.ndarray]],
    ids: Sequence[str],
    areas: dict[str, np.ndarray],
    rng: np.random.Generator,
) -> tuple[Responses, dict[str, np.ndarray]]:
    """One planted subject: responses, and the truth per voxel (responsive, area, irrelevant, noise_ceiling).

    sessions: (session number, stimulus rows, one per trial); more than one session, or a world of one subject, makes the
    new subject, with exactly `config.n_voxels` places. ids: of all stimuli. areas: name -> features (stimulus, dim) that the
    area's voxels follow; 'scattered' in a name plants more of them outside the core.
    """
    is_target = len(sessions) > 1 or config.n_subjects == 1
    geometry = head(config.n_voxels if is_target else round(config.n_voxels * rng.uniform(0.9, 1.1)), rng)
    area, irrelevant, annotated = _place_areas(config, geometry, list(areas), rng)
    rows = np.concatenate([session_rows for _, session_rows in sessions])
    values = _noise(config, geometry, len(rows), rng)
    share = _signal_share(config, geometry, area, rng) + _signal_share(config, geometry, irrelevant.astype(int), rng)
    values *= np.sqrt(1 - share).astype(np.float32)
    for number, features in enumerate(areas.values(), start=1):
        voxels = np.flatnonzero(area == number)
        signal = features @ _tuning(geometry, voxels, features.shape[1], rng)
        signal /= signal.std(axis=0, keepdims=True) + 1e-9
        values[:, voxels] += (signal[rows] * np.sqrt(share[voxels])).astype(np.float32)
    blob = np.flatnonzero(irrelevant)
    if len(blob):
        code = rng.standard_normal((len(ids), 8)) @ _tuning(geometry, blob, 8, rng)
        values[:, blob] += (code[rows] * np.sqrt(share[blob])).astype(np.float32)
    rois = {"annotated": np.any(list(annotated.values()), axis=0)} | (annotated if config.driver != "fixed" else {})
    quantised = np.clip(np.rint(values / SCALE), -32768, 32767).astype(np.int16)
    responses = Responses(
        subject=name,
        values=quantised,
        scale=SCALE,
        stimulus_ids=[ids[row] for row in rows],
        sessions=np.concatenate([np.full(len(session_rows), number) for number, session_rows in sessions]),
        runs=np.arange(len(rows)) // 60,
        geometry=geometry,
        rois=ROIs(rois, n_voxels=geometry.n_voxels),
    )
    ceiling = share / (share + (1 - share) / N_REPEATS_OF_CEILING)
    return responses, {"responsive": area > 0, "area": area, "irrelevant": irrelevant, "noise_ceiling": ceiling}


DATASET = Dataset(name="simulated")
