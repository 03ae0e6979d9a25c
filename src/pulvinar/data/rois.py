"""Named sets of voxels of one subject."""

import difflib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.notebook import listed


class ROIs(Mapping[str, np.ndarray]):
    """Regions of interest: name -> boolean mask (voxel,)."""

    def __init__(self, masks: Mapping[str, np.ndarray], *, n_voxels: int) -> None:
        self._masks = {}
        for name, given in masks.items():
            mask = np.asarray(given)
            if mask.shape != (n_voxels,):
                raise InputError(f"ROI '{name}': {mask.shape} came for {n_voxels} voxels")
            if mask.dtype.kind not in "biuf" or not np.isin(np.unique(mask), (0, 1)).all():
                raise InputError(f"ROI '{name}': true or false per voxel is needed, values {np.unique(mask)[:5]} came")
            self._masks[name] = mask.astype(bool)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._masks:
            raise NotFoundError(
                f"no ROI named '{name}'{suggest(name, list(self._masks)) if self._masks else '; existing is none'}"
            )
        return self._masks[name]

    def __contains__(self, name: object) -> bool:
        return name in self._masks

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"ROIs: {listed(f'{name} ({int(mask.sum()):,} voxels)' for name, mask in self.items()) or 'none'}"


def missing_roi(existing: Iterable[str], roi: str, subject: str) -> str:
    """What is said where the setting `roi` names none of a subject's ROIs: those that are there, and how one is chosen."""
    names = list(existing)
    message = f"roi: {subject} has no ROI '{roi}'; there are: {', '.join(names) or 'none'}"
    if not names:
        return f"{message} (rois of a description, docs/data.md)"
    close = difflib.get_close_matches(roi.lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    meant = next((name for name in names if close and name.lower() == close[0]), "NAME")
    return f"{message}; choose one with --set roi={meant}"
