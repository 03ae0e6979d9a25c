"""Where planted voxels are: a head of its own proportions, and irregular regions in it."""

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from pulvinar.data.geometry import Geometry

VOXEL_MM = 1.8


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadGrid:
    """A head in a grid of three different sides: index (voxel, 3) of its voxels in it, shape, affine."""

    index: np.ndarray
    shape: tuple[int, int, int]
    affine: np.ndarray

    def fill(self, values: np.ndarray, outside: float = 0) -> np.ndarray:
        """Values (voxel,) in the grid (x, y, z)."""
        volume = np.full(self.shape, outside, values.dtype)
        volume[tuple(self.index.T)] = values
        return volume


def head_grid(geometry: Geometry, *, margin: int) -> HeadGrid:
    """The head with `margin` empty voxels around it; axes in another order would not fit the sides."""
    sides: list[int] = []
    for side in geometry.shape or ():
        size = side + 2 * margin
        while size in sides:
            size += 1
        sides.append(size)
    affine = np.array(geometry.affine)
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, margin)
    index = np.array(geometry.grid_place).T + margin
    return HeadGrid(index=index, shape=(sides[0], sides[1], sides[2]), affine=affine)


def head(n_voxels: int, rng: np.random.Generator) -> Geometry:
    """The `n_voxels` grid places nearest the centre of a superellipsoid of random proportions (about 60 : 40 : 40)."""
    proportions = np.array([60.0, 40.0, 40.0]) * rng.uniform(0.9, 1.1, 3)
    radii = proportions * (n_voxels / 6.4 / proportions.prod()) ** (1 / 3) * 1.35
    grid = np.indices(tuple(int(n) for n in np.ceil(2 * radii).astype(int) + 1)).reshape(3, -1).T
    centred = np.abs(grid - radii) / radii
    distance = (centred ** rng.uniform(2.5, 4.0)).sum(1)
    index = grid[np.sort(np.argsort(distance, kind="stable")[:n_voxels])]
    index = index - index.min(0)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    affine[:3, 3] = -VOXEL_MM * index.max(0) / 2
    return Geometry.from_index(index, shape=tuple(index.max(0) + 1), affine=affine)


def grow(
    geometry: Geometry, centre: np.ndarray, n: int, free: np.ndarray, rng: np.random.Generator, *, roughness: float
) -> np.ndarray:  # fmt: skip
    """The `n` free voxels nearest a centre under a bumpy metric: a contiguous, irregular region."""
    distance = np.linalg.norm(np.array(geometry.grid_place).T - centre, axis=1)
    bumps = scipy.ndimage.gaussian_filter(rng.standard_normal(geometry.shape), 1.5)[geometry.grid_place]
    bumpy = distance * np.exp(roughness * bumps / bumps.std())
    candidates = np.flatnonzero(free)
    return candidates[np.argsort(bumpy[candidates], kind="stable")[:n]]


def spread_places(geometry: Geometry, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` voxels (x, y, z index) far from each other and from the edge: the best of random draws."""
    middle = np.array(geometry.grid_place).mean(1)
    inside = middle + 0.75 * (np.array(geometry.grid_place).T - middle)
    draws = [inside[rng.choice(len(inside), n, replace=False)] for _ in range(200)]
    gaps = [min(np.linalg.norm(p[i] - p[j]) for i in range(n) for j in range(i)) for p in draws]
    return draws[int(np.argmax(gaps))]
