"""A subject of a planted world: a head, areas in it, and what its voxels do."""

from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from pulvinar.data.geometry import Geometry
from pulvinar.data.planted_head import grow, head, spread_places
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.datasets.simulated.kinds import Voxels, features_of, raise_signal, unkind
from pulvinar.datasets.simulated.settings import Config

N_REPEATS_OF_CEILING = 3
SCALE = 1 / 2000  # int16 steps per standard deviation
MOST_EXPLAINED = 0.98  # of a voxel's variance, by signal and shared noise


def _place_areas(
    config: Config, geometry: Geometry, areas: Sequence[str], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Area number per voxel (0 none), irrelevant blobs (bool), and per area the loose annotated ROI (bool)."""
    n_voxels = geometry.n_voxels
    area, free = np.zeros(n_voxels, np.int16), np.ones(n_voxels, bool)
    apart = config.kind == "apart"
    centres = spread_places(geometry, (2 if apart else 1) * len(areas) + 3, rng)
    second = centres[len(areas) + 3 :]
    n_each = max(4, round(config.responsive_share * n_voxels / len(areas)))
    annotated = {name: np.zeros(n_voxels, bool) for name in areas}
    for number, name in enumerate(areas, start=1):
        scattered_share = min(0.95, config.scattered_share * (2.5 if "scattered" in name else 1.0))
        n_scattered = round(scattered_share * n_each)
        n_core = n_each - n_scattered
        core = grow(geometry, centres[number - 1], n_core - n_core // 2 if apart else n_core, free, rng, roughness=0.15)
        area[core], free[core] = number, False
        if apart:
            core = grow(geometry, second[number - 1], n_core // 2, free, rng, roughness=0.15)
            area[core], free[core] = number, False
        around = grow(geometry, centres[number - 1], 6 * n_each, free, rng, roughness=0.05)
        loose = rng.choice(around, n_scattered, replace=False)
        area[loose], free[loose] = number, False
        shifted = centres[number - 1] + rng.normal(0, 0.15 * n_each ** (1 / 3), 3)
        loose = grow(geometry, shifted, round(1.8 * n_each), np.ones(n_voxels, bool), rng, roughness=0.1)
        annotated[name][loose] = True
    irrelevant = np.zeros(n_voxels, bool)
    n_blob = round(config.irrelevant_share * n_voxels / 3)
    for centre in centres[len(areas) : len(areas) + 3]:
        blob = grow(geometry, centre, n_blob, free, rng, roughness=0.15)
        irrelevant[blob], free[blob] = True, False
    if apart:
        area[area == 1 + rng.integers(len(areas))] = 0
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
    """One planted subject: responses, and the truth per voxel: responsive, area, irrelevant, noise_ceiling, and carrier where a
    kind of world has voxels that carry noise alone.

    sessions: (session number, stimulus rows, one per trial); more than one session, or a world of one subject, makes the
    new subject, with exactly `config.n_voxels` places. ids: of all stimuli. areas: name -> features (stimulus, dim) that the
    area's voxels follow; 'scattered' in a name plants more of them outside the core.
    """
    is_target = len(sessions) > 1 or config.n_subjects == 1
    areas = features_of(config.kind, areas)
    geometry = head(config.n_voxels if is_target else round(config.n_voxels * rng.uniform(0.9, 1.1)), rng)
    area, irrelevant, annotated = _place_areas(config, geometry, list(areas), rng)
    rows = np.concatenate([session_rows for _, session_rows in sessions])
    values = _noise(config, geometry, len(rows), rng)
    share = _signal_share(config, geometry, area, rng) + _signal_share(config, geometry, irrelevant.astype(int), rng)
    known = Voxels(geometry=geometry, area=area, irrelevant=irrelevant, signal=share, areas=areas)
    marked = raise_signal(config.kind, known, rng)
    tuning = {}
    for number, features in enumerate(areas.values(), start=1):
        if (area == number).any():
            tuning[number] = _tuning(geometry, np.flatnonzero(area == number), features.shape[1], rng)
            _copy_within_patches(tuning[number], marked[area == number] if config.kind == "redundant" else None)
    blob = np.flatnonzero(irrelevant)
    code = rng.standard_normal((len(ids), 8)) @ _tuning(geometry, blob, 8, rng) if len(blob) else None
    spoiled = unkind(config.kind, known, marked, tuning, len(rows), rng)
    share, shared = known.signal, np.minimum(spoiled.share, MOST_EXPLAINED - known.signal)
    values *= np.sqrt(1 - share - shared).astype(np.float32)
    if spoiled.noise is not None:
        values += spoiled.noise * np.sqrt(shared).astype(np.float32)
    for number, weights in tuning.items():
        voxels = np.flatnonzero(area == number)
        signal = list(areas.values())[number - 1] @ weights
        signal /= signal.std(axis=0, keepdims=True) + 1e-9
        values[:, voxels] += (spoiled.gain * (signal[rows] * np.sqrt(share[voxels]))).astype(np.float32)
    if code is not None:
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
    truth = {"responsive": area > 0, "area": area, "irrelevant": irrelevant, "noise_ceiling": ceiling}
    return responses, truth if spoiled.carrier is None else truth | {"carrier": spoiled.carrier}


def _copy_within_patches(tuning: np.ndarray, patch: np.ndarray | None) -> None:
    """The weights (dim, voxel) of a patch's first voxel for all of its voxels, in place."""
    for number in np.unique(patch[patch > 0]) if patch is not None else ():
        inside = np.flatnonzero(patch == number)
        tuning[:, inside] = tuning[:, inside[:1]]
