"""The images of an experiment: ids, source pictures, pixels on demand, and features (embeddings) by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.notebook import counted, listed
from pulvinar.data.pixels import require_pixels

ReadImage = Callable[[int], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stimuli:
    """One row per stimulus (image).

    ids: unique names. sources: the picture each was made from (crops of one picture share it); a split keeps a source
    on one side. features: name -> (stimulus, dim) or (stimulus, token, dim) float32. labels: category names, if any.
    read_image: row -> uint8 (height, width, 3), read when asked for.
    pixel_keys: one text per stimulus, the same where the pixels are the same, so that a split need not read them all: from the
    data set's own table (NSD: 73,000 different photographs), or made when an experiment folder was written; None where the
    pixels have to be looked at.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    read_image: ReadImage | None = None
    pixel_keys: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise InputError("stimulus ids: one or more are needed, none came")
        seen: set[str] = set()
        repeated = [name for name in self.ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        if repeated:
            raise InputError(f"stimulus ids: {len(repeated)} stand twice, among them {repeated[:3]}")
        for name, rows in {
            "sources": self.sources,
            "labels": self.labels,
            "pixel_keys": self.pixel_keys,
            **self.features,
        }.items():
            if rows is not None and len(rows) != len(self.ids):
                raise InputError(f"stimuli.{name}: {len(rows)} rows for {len(self.ids)} stimulus ids")
        for name, values in self.features.items():
            bad = ~np.isfinite(np.asarray(values).reshape(len(self.ids), -1)).all(1)
            if bad.any():
                raise InputError(f"feature '{name}': not finite for stimuli {[self.ids[i] for i in np.flatnonzero(bad)[:3]]}")

    def __repr__(self) -> str:
        features = [f"{name} {tuple(np.shape(values)[1:])}" for name, values in self.features.items()]
        images = " with images" if self.read_image is not None else " without images"
        return f"{counted(len(self), 'stimulus', 'stimuli')}{images}{f'; features {listed(features)}' if features else ''}"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def row_of(self) -> dict[str, int]:
        """Stimulus id -> row."""
        return {name: row for row, name in enumerate(self.ids)}

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """Rows of these stimulus ids; `NotFoundError` names the ones that are not there."""
        row_of = self.row_of
        missing = sorted({name for name in ids if name not in row_of})
        if missing:
            raise NotFoundError(f"{len(missing)} stimulus ids are not among the {len(self)} stimuli, e.g. {missing[:3]}")
        return np.array([row_of[name] for name in ids], dtype=np.int64)

    def take(self, ids: Sequence[str]) -> "Stimuli":
        """Some of the stimuli, in this order."""
        rows, read = self.rows(ids), self.read_image

        def taken(values: Sequence[str] | None) -> list[str] | None:
            return None if values is None else [values[row] for row in rows]

        return Stimuli(
            ids=list(ids),
            sources=[self.sources[row] for row in rows],
            features={name: np.asarray(values)[rows] for name, values in self.features.items()},
            labels=taken(self.labels),
            read_image=None if read is None else lambda row: read(int(rows[row])),
            pixel_keys=taken(self.pixel_keys),
        )

    def feature(self, name: str) -> np.ndarray:
        """One embedding (stimulus, ...) by name."""
        if name not in self.features:
            hint = suggest(name, list(self.features)) if self.features else "; there is none"
            raise NotFoundError(f"stimuli have no feature '{name}'{hint}")
        return self.features[name]

    def image(self, row: int) -> np.ndarray:
        """Pixels uint8 (height, width, 3) of a row; `InputError` where the source gives anything else."""
        if self.read_image is None:
            raise NotFoundError("these stimuli came without images")
        pixels = np.asarray(self.read_image(row))
        require_pixels(pixels, f"image of stimulus '{self.ids[row]}'", n_axes=3)
        return pixels


def image_notes(stimuli: Stimuli) -> list[str]:
    """What was done to the pictures that were read so far, where they are files: turned, put on a background, scaled."""
    notes = getattr(stimuli.read_image, "notes", None)
    return [] if notes is None else notes.lines(len(stimuli))
