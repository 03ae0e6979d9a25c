"""In what kinds of planted worlds cortex is unkind to a selection of voxels; of each the setting `kind` makes a whole world.

All strengths are ours. They were fixed before any selector ran on these worlds.

plain      nothing of what follows
unequal    early areas follow 4 dimensions each with twice the signal; the others follow what these do not say, with .7 of
           their signal
redundant  the core of each area is patches of 15 neighbours tuned alike, with 2.5 times the signal and half their variance a
           noise that the patch shares; the scattered voxels are as in plain
suppress   half the variance of each responsive voxel is an echo: noise along the 8 leading dimensions of its own tuning; a
           tenth of the head carries the same echoes (.7 of the variance, other tunings) and no image; 1.5 times the signal
hidden     in two fifths of the responsive voxels a quarter of the signal lies under a noise of 8 factors (.85 of the variance),
           which they can cancel together
apart      each subject lacks one area, and the cores of the others are in two pieces far apart (areas lie elsewhere in every
           subject of every kind)
drift      slow drifts of the whole head and movements of its edge (.35 of the variance), and a gain of the signal that wanders
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pulvinar.data.geometry import Geometry
from pulvinar.datasets.simulated.settings import Kind

EARLY = ("energy", "colour", "early")
EARLY_DIMS, EARLY_SIGNAL, LATE_SIGNAL = 4, 2.0, 0.7
PATCH, PATCH_SIGNAL, PATCH_NOISE = 15, 2.5, 0.5
NEAR, ENOUGH_NEAR = 1.8, 6  # voxel spacings; neighbours within them, of 18, that make a voxel one of a core
ECHO_DIMS, ECHO, ECHO_SIGNAL, CARRIERS, CARRIED = 8, 0.5, 1.5, 0.1, 0.7
HIDDEN, HIDDEN_SIGNAL, HIDDEN_NOISE, N_FACTORS = 0.4, 0.25, 0.85, 8
DRIFT, N_DRIFTS, DRIFT_CARRY, MOVES, MOVE_SIZE, GAIN_SPREAD, GAIN_CARRY = 0.35, 6, 0.98, 0.03, 4.0, 0.5, 0.97
LARGEST_SIGNAL = 0.6  # of the variance of a voxel whose signal was raised


@dataclass(kw_only=True, eq=False)
class Voxels:
    """What is known of a subject's voxels: area numbers from 1, 0 for none; signal's share of the variance of single trials."""

    geometry: Geometry
    area: np.ndarray
    irrelevant: np.ndarray
    signal: np.ndarray
    areas: Mapping[str, np.ndarray]


@dataclass(kw_only=True, eq=False)
class Unkind:
    """Noise (trial, voxel) of unit variance that voxels share, and its share of their variance (voxel,); gain of the signal
    (trial, 1); voxels that carry the noise and no image (voxel,)."""

    noise: np.ndarray | None = None
    share: np.ndarray | float = 0.0
    gain: np.ndarray | float = 1.0
    carrier: np.ndarray | None = None


def features_of(kind: Kind, areas: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features (stimulus, dim) of areas as voxels follow them."""
    early = [name for name in areas if name in EARLY]
    if kind != "unequal" or not early:
        return areas
    found = {name: areas[name][:, :EARLY_DIMS] for name in early}
    known = np.column_stack([np.ones(len(areas[early[0]])), *found.values()])
    for name, features in areas.items():
        if name not in found:
            found[name] = features - known @ np.linalg.lstsq(known, features, rcond=None)[0]
    return {name: found[name] for name in areas}


def raise_signal(kind: Kind, voxels: Voxels, rng: np.random.Generator) -> np.ndarray:
    """Patch numbers or hidden voxels (voxel,), as the kind has them; `voxels.signal` is changed in place."""
    factor, marked = np.ones(len(voxels.area)), np.zeros(len(voxels.area), np.int64)
    if kind == "unequal":
        early = np.array([name in EARLY for name in voxels.areas])
        factor = np.where(np.isin(voxels.area, 1 + np.flatnonzero(early)), EARLY_SIGNAL, LATE_SIGNAL)
    elif kind == "redundant":
        marked = _patches(voxels)
        factor = np.where(marked > 0, PATCH_SIGNAL, 1.0)
    elif kind == "suppress":
        factor[:] = ECHO_SIGNAL
    elif kind == "hidden":
        responsive = np.flatnonzero(voxels.area)
        marked[rng.choice(responsive, round(HIDDEN * len(responsive)), replace=False)] = 1
        factor = np.where(marked > 0, HIDDEN_SIGNAL, 1.0)
    raised = np.where(voxels.area > 0, voxels.signal * factor, voxels.signal)
    voxels.signal = np.minimum(raised, np.maximum(voxels.signal, LARGEST_SIGNAL))
    return marked


def unkind(
    kind: Kind, voxels: Voxels, marked: np.ndarray, tuning: Mapping[int, np.ndarray], n_trials: int, rng: np.random.Generator
) -> Unkind:
    """The noise of a kind. marked: as `raise_signal` gives it. tuning: area number -> weights (dim, voxel of the area)."""
    if kind == "redundant":
        noise = rng.standard_normal((n_trials, marked.max() + 1), np.float32)[:, marked]
        return Unkind(noise=noise, share=np.where(marked > 0, PATCH_NOISE, 0.0))
    if kind == "hidden":
        noise = np.zeros((n_trials, len(marked)), np.float32)
        some = np.flatnonzero(marked)
        noise[:, some] = _unit(rng.standard_normal((n_trials, N_FACTORS)) @ rng.standard_normal((N_FACTORS, len(some))))
        return Unkind(noise=noise, share=np.where(marked > 0, HIDDEN_NOISE, 0.0))
    if kind == "suppress":
        return _echo(voxels, tuning, n_trials, rng)
    if kind == "drift":
        return _drift(voxels.geometry, n_trials, rng)
    return Unkind()


def _patches(voxels: Voxels) -> np.ndarray:
    """Patch numbers from 1 (voxel,): of those with enough neighbours in their area, 0 for the scattered ones."""
    found, place = np.zeros(len(voxels.area), np.int64), np.array(voxels.geometry.grid_place).T
    for number in range(1, len(voxels.areas) + 1):
        inside = np.flatnonzero(voxels.area == number)
        near = (
            [len(around) - 1 for around in cKDTree(place[inside]).query_ball_point(place[inside], NEAR)] if len(inside) else []
        )
        core = inside[np.array(near, int) >= ENOUGH_NEAR]
        found[core] = found.max() + 1 + _in_order(place[core].astype(np.float64)) // PATCH
    return found


def _echo(voxels: Voxels, tuning: Mapping[int, np.ndarray], n_trials: int, rng: np.random.Generator) -> Unkind:
    n_voxels = len(voxels.area)
    free = np.flatnonzero((voxels.area == 0) & ~voxels.irrelevant)
    carriers = rng.choice(free, min(len(free), round(CARRIERS * n_voxels)), replace=False)
    noise, share = np.zeros((n_trials, n_voxels)), np.zeros(n_voxels)
    for number, features in enumerate(voxels.areas.values(), start=1):
        if number in tuning:
            echo = rng.standard_normal((n_trials, features.shape[1]))[:, :ECHO_DIMS] * features.std(0)[:ECHO_DIMS]
            noise[:, voxels.area == number] = echo @ tuning[number][:ECHO_DIMS]
            noise[:, carriers] += echo @ rng.standard_normal((echo.shape[1], len(carriers)))
    share[voxels.area > 0], share[carriers] = ECHO, CARRIED
    return Unkind(noise=_unit(noise), share=share, carrier=np.isin(np.arange(n_voxels), carriers))


def _drift(geometry: Geometry, n_trials: int, rng: np.random.Generator) -> Unkind:
    place = np.array(geometry.grid_place).T.astype(np.float64)
    place = (place - place.mean(0)) / place.std(0)
    waves = np.sin(place @ rng.standard_normal((3, N_DRIFTS)) + rng.uniform(0, 2 * np.pi, N_DRIFTS))  # (voxel, drift)
    edge = np.linalg.norm(place, axis=1)[:, None] ** 2 * np.sin(place @ rng.standard_normal((3, 3)))
    moved = (rng.random((n_trials, 1)) < MOVES) * MOVE_SIZE * rng.standard_normal((n_trials, 3))
    slow = np.stack([_wandering(n_trials, DRIFT_CARRY, rng) for _ in range(N_DRIFTS)], axis=1)
    noise = slow @ waves.T + moved @ (edge / edge.std()).T
    gain = np.exp(GAIN_SPREAD * _wandering(n_trials, GAIN_CARRY, rng) - GAIN_SPREAD**2)  # its mean square is 1
    return Unkind(noise=_unit(noise), share=DRIFT, gain=gain[:, None])


def _wandering(n: int, carry: float, rng: np.random.Generator) -> np.ndarray:
    """An autoregression (n,) of unit variance."""
    steps, out = rng.standard_normal(n), np.empty(n)
    out[0] = steps[0]
    for row in range(1, n):
        out[row] = carry * out[row - 1] + (1 - carry**2) ** 0.5 * steps[row]
    return out


def _unit(noise: np.ndarray) -> np.ndarray:
    spread = noise.std(0)
    return (noise / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def _in_order(place: np.ndarray) -> np.ndarray:
    """Of each place (row, 3) its number in a walk from one to the nearest that is left: neighbours stand beside each other."""
    order, left, here = np.empty(len(place), np.int64), np.ones(len(place), bool), 0
    for step in range(len(place)):
        order[here], left[here] = step, False
        here = int(np.argmin(np.where(left, np.linalg.norm(place - place[here], axis=1), np.inf)))
    return order
