"""How near the test images of a split are to its training images, by embeddings or small pictures.

Nearness is the cosine of two embeddings (of tokens: their mean) less the mean embedding of the experiment's images, so that
what all images share does not count; small pictures are correlated. Images of the same source picture or the same pixels are
never on both sides of a split (`splits.check_split`); near ones may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import track
from pulvinar.core.sampling import blocks_of, evenly_spaced
from pulvinar.data.feature_tables import feature_values
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

PIXELS = "pixels"  # in place of an embedding
SMALL = 16  # pixels along an edge of a small picture
COSINES_AT_ONCE = 2**25
IMAGES_OF_MEAN = 10_000
LARGEST_UNASKED = 2**31  # bytes of an embedding that is read without being asked for
NEAR_FACT = "near"  # the fact of an experiment that keeps what counts as near


@dataclass(frozen=True, kw_only=True)
class NearOptions:
    """What counts as near; given after the folder as ?name=value&name=value, with any data set."""

    near: float = setting(
        0.82,
        "cosine from which two images are near, of embeddings less their mean (MOSAIC: .82 of DreamSim)",
        above=0,
        at_most=1,
    )
    near_by: tuple[str, ...] = setting(
        (), "embeddings that say what is near, the first of them for clusters; or pixels (16 x 16); none: the first embedding"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Nearest:
    """Of every test image the nearest training image: ids, their cosine (test image,), and what was compared.

    Where several embeddings are compared, the largest cosine counts.
    """

    test: tuple[str, ...]
    neighbour: tuple[str, ...]
    cosine: np.ndarray
    by: tuple[str, ...]
    near: float

    @property
    def is_near(self) -> np.ndarray:
        """(test image,) bool: whether a training image is near."""
        return self.cosine >= self.near

    @property
    def apart(self) -> list[str]:
        """The test images without a near training image."""
        return [name for name, near in zip(self.test, self.is_near, strict=True) if not near]

    def summary(self) -> dict[str, Any]:
        """As `data inspect` and evaluations say it."""
        first = int(self.cosine.argmax())
        return {
            "by": list(self.by),
            "near_from_cosine": self.near,
            "n_test_images": len(self.test),
            "n_near": int(self.is_near.sum()),
            "largest_cosine": round(float(self.cosine[first]), 4),
            "median_cosine": round(float(np.median(self.cosine)), 4),
            "nearest_pair": [self.test[first], self.neighbour[first]],
        }


def kept(options: NearOptions) -> dict[str, Any]:
    """As the fact `near` of an experiment."""
    return {name: value for name, value in asdict(options).items() if name in NearOptions.__dataclass_fields__}


def near_options(facts: Mapping[str, Any]) -> NearOptions:
    """What an experiment with these facts says counts as near; the defaults where it says nothing."""
    stated = facts.get(NEAR_FACT) or {}
    return NearOptions(near=float(stated.get("near", NearOptions.near)), near_by=tuple(stated.get("near_by", ())))


def nearest_in_training(
    stimuli: Stimuli, split: Split, options: NearOptions, *, otherwise: Sequence[str] = ()
) -> Nearest | None:
    """The nearest training image of each test image; None where there is nothing to compare by.

    otherwise: embeddings to compare by where none is named and the stimuli have none. An embedding of more than 2 GB is read
    only where it is named. Raises `NotFoundError` for an embedding that is not there.
    """
    by = compared_by(stimuli, options, otherwise=otherwise)
    if not by:
        return None
    best, place = np.full(len(split.test), -np.inf), np.zeros(len(split.test), np.int64)
    for name in by:
        every = directions(stimuli, [*split.train, *split.test], name)
        train, test = every[: len(split.train)], every[len(split.train) :]
        for block in blocks_of(len(test), max(1, COSINES_AT_ONCE // len(train))):
            cosine = test[block] @ train.T
            nearest = cosine.argmax(1)
            found = cosine[np.arange(len(nearest)), nearest]
            better = found > best[block]
            place[block] = np.where(better, nearest, place[block])
            best[block] = np.where(better, found, best[block])
    neighbour = tuple(split.train[row] for row in place)
    return Nearest(test=split.test, neighbour=neighbour, cosine=np.clip(best, -1.0, 1.0), by=by, near=options.near)


def compared_by(stimuli: Stimuli, options: NearOptions, *, otherwise: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of what is compared; empty where nothing is there."""
    if options.near_by:
        return tuple(options.near_by)
    for name in (*stimuli.features, *otherwise):
        if int(np.prod(feature_values(stimuli, name).shape)) * 4 <= LARGEST_UNASKED:
            return (name,)
    return ()


def directions(stimuli: Stimuli, ids: Sequence[str], name: str) -> np.ndarray:
    """float32 (image, dim) of length 1: an embedding less its mean over all stimuli (10,000 of them, evenly, where there are
    more), whatever the split; or a small picture less its own mean."""
    rows = stimuli.rows(ids)
    if name == PIXELS:
        found = _small_pictures(stimuli, rows)
        found -= found.mean(1, keepdims=True)
    else:
        values = feature_values(stimuli, name)
        found = _pooled(values, rows)
        found -= _pooled(values, evenly_spaced(len(stimuli), IMAGES_OF_MEAN)).mean(0, dtype=np.float64).astype(np.float32)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _pooled(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    found = np.empty((len(rows), values.shape[-1]), np.float32)
    for block in blocks_of(len(rows), 256):
        read = np.asarray(values[rows[block]], np.float32)
        found[block] = read.mean(1) if read.ndim == 3 else read
    if not np.isfinite(found).all():
        raise InputError("near_by: an embedding has a value that is not finite")
    return found


def _small_pictures(stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    from PIL import Image

    if stimuli.read_image is None:
        raise NotFoundError("near_by=pixels: these stimuli came without images; name an embedding")
    found = np.empty((len(rows), SMALL * SMALL * 3), np.float32)
    for place, row in enumerate(track(rows, "comparing pictures", len(rows))):
        picture = Image.fromarray(stimuli.image(int(row))).resize((SMALL, SMALL), Image.Resampling.BOX)
        found[place] = np.asarray(picture, np.float32).ravel() / 255
    return found
