"""Writes planted betas on an fsaverage of the Natural Scenes Dataset's layout: one small mesh that all subjects share.

The mesh is the surface of the first head, one part for each side of its middle. A vertex takes the betas of the voxel nearest
to it after the heads have been stretched onto each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.data.planted_head import HeadGrid
from pulvinar.datasets.nsd.files import HEMISPHERES, STEPS_PER_PERCENT, TRIALS_PER_SESSION


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume(HeadGrid):
    """A subject's grid, betas int16 (trial, voxel), labels by file."""

    subject: str
    betas: np.ndarray
    labels: dict[str, np.ndarray]
    label_names: dict[str, list[str]]


def write_surface(folder: Path, volumes: Sequence[Volume], *, betas_name: str, missing: Sequence[str]) -> None:
    """fsaverage's white surfaces, its labels (of the first subject), and every subject's betas as .mgh."""
    import nibabel

    first = volumes[0]
    meshes = [_mesh(first, side) for side in range(2)]
    surfaces, labels = (folder / "nsddata" / "freesurfer" / "fsaverage" / name for name in ("surf", "label"))
    surfaces.mkdir(parents=True)
    labels.mkdir(parents=True, exist_ok=True)
    for side, (points, faces) in zip(HEMISPHERES, meshes, strict=True):
        millimetres = points @ first.affine[:3, :3].T + first.affine[:3, 3]
        nibabel.freesurfer.write_geometry(str(surfaces / f"{side}.white"), millimetres, faces)
        for name, values in first.labels.items():
            _save(labels / f"{side}.{name}.mgz", values[_nearest(first, first, points)].astype(np.int32))
    for volume in volumes:
        _write_subject(folder, first, volume, meshes, betas_name, missing)


def _write_subject(
    folder: Path,
    first: Volume,
    volume: Volume,
    meshes: Sequence[tuple[np.ndarray, np.ndarray]],
    betas_name: str,
    missing: Sequence[str],
) -> None:
    place = folder / "nsddata_betas" / "ppdata" / volume.subject / "fsaverage" / betas_name
    place.mkdir(parents=True)
    for side, (points, _) in zip(HEMISPHERES, meshes, strict=True):
        betas = volume.betas[:, _nearest(first, volume, points)]  # (trial, vertex)
        for session in range(1, len(betas) // TRIALS_PER_SESSION + 1):
            if f"{volume.subject}:{session}" not in missing:
                rows = betas[(session - 1) * TRIALS_PER_SESSION : session * TRIALS_PER_SESSION]
                _save(place / f"{side}.betas_session{session:02d}.mgh", rows.T.astype(np.float32) / STEPS_PER_PERCENT)


def _mesh(volume: Volume, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices in voxel units and faces of the surface of one half of the head."""
    from skimage.measure import marching_cubes

    head = volume.fill(np.ones(len(volume.index), np.float32))
    middle = volume.shape[0] // 2
    head[(slice(middle, None) if side == 0 else slice(0, middle))] = 0
    points, faces, _, _ = marching_cubes(np.pad(head, 1), 0.5)
    return points - 1, faces


def _nearest(first: Volume, volume: Volume, points: np.ndarray) -> np.ndarray:
    """Per vertex of the first head's surface, the voxel of this head nearest to it after stretching."""
    from scipy.spatial import cKDTree

    low, high = first.index.min(0), first.index.max(0)
    own_low, own_high = volume.index.min(0), volume.index.max(0)
    stretched = (points - low) / (high - low) * (own_high - own_low) + own_low
    return np.asarray(cKDTree(volume.index).query(stretched)[1])


def _save(path: Path, values: np.ndarray) -> None:
    """Values (vertex,) or (vertex, trial) as .mgh or .mgz (vertex, 1, 1[, trial])."""
    import nibabel

    shaped = values.reshape(len(values), 1, 1, *values.shape[1:])
    nibabel.freesurfer.MGHImage(shaped, np.eye(4)).to_filename(str(path))
