"""Responses whose left and right hemisphere lie in two files: one array of both, read when asked for."""

from typing import Any

import numpy as np

from pulvinar.data.geometry import Geometry


class TwoHemispheres:
    """Two arrays (trial, vertex) side by side, left first; rows are read when they are indexed (float32).

    Has what `Responses` asks of its values: shape, dtype, ndim and indexing by trials, or by trials and vertices.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray) -> None:
        self.left, self.right = left, right
        self.shape = (left.shape[0], left.shape[1] + right.shape[1])
        self.dtype, self.ndim = np.dtype(np.float32), 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        both = np.concatenate([self.left[rows], self.right[rows]], axis=-1, dtype=np.float32)
        return both[..., columns]


def vertex_points(left: np.ndarray, right: np.ndarray, *, template: str = "") -> Geometry:
    """Stand-in positions where no mesh is at hand: x = -1 (left) or 1 (right), y = vertex number, z = 0.

    They tell the hemispheres apart and name the vertex; they are not millimetres, and nothing should be smoothed over them.
    template: the mesh that the numbers count in ('fsaverage', 'fs_LR_32k').
    """
    side = np.concatenate([np.full(len(left), -1.0), np.full(len(right), 1.0)])
    places = np.stack([side, np.concatenate([left, right]).astype(float), np.zeros(len(side))], axis=1)
    return Geometry.from_points(places, template=template)
