"""Real photographs that need no download, and square crops of them that can be told apart: stimuli of planted worlds.

The photographs ship inside scikit-image and scikit-learn (their data READMEs state the licences).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.storage import reads
from pulvinar.data.pictures import PictureOptions, decode

TEST_CROPS = {"largest_overlap": 0.35, "contrast": 0.12}
TRAINING_CROPS = {"largest_overlap": 0.7, "contrast": 0.04}
LARGEST_PICTURE = 640  # pixels along the longer edge; larger ones are reduced before cropping

FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}  # where each library keeps its photographs
# by kind
BUNDLED = {
    "texture": ("skimage/brick.png", "skimage/grass.png", "skimage/gravel.png"),
    "grey": ("skimage/camera.png", "skimage/coins.png", "skimage/moon.png"),
    "science": ("skimage/hubble_deep_field.jpg", "skimage/ihc.png", "skimage/retina.jpg"),
    "scene": (
        "skimage/astronaut.png",
        "skimage/chelsea.png",
        "skimage/coffee.png",
        "skimage/motorcycle_left.png",
        "skimage/rocket.jpg",
        "sklearn/china.jpg",
        "sklearn/flower.jpg",
    ),
}


def bundled_path(name: str) -> Path:
    """Where a bundled photograph lies inside the installed library, which is not imported for it."""
    library, file = name.split("/")
    found = find_spec(library)
    if found is None or found.origin is None:
        raise NotFoundError(f"{library} is not installed; its photographs are the stimuli of planted worlds")
    return Path(found.origin).parent / FOLDERS[library] / file


@reads("an image")
def read_picture(path: Path, options: PictureOptions | None = None) -> np.ndarray:
    """A picture uint8 (height, width, 3), its longer edge reduced to `LARGEST_PICTURE` pixels; `FileError` if it is none."""
    picture = Image.fromarray(decode(path, options).pixels)
    picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    return np.asarray(picture)


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of square boxes (top, left, size)."""
    top, left = np.maximum(box[:2], boxes[:, :2]).T
    bottom, right = np.minimum(box[:2] + box[2], boxes[:, :2] + boxes[:, 2:]).T
    shared = np.maximum(bottom - top, 0) * np.maximum(right - left, 0)
    return shared / (box[2] ** 2 + boxes[:, 2] ** 2 - shared)


def _cut(image: Image.Image, box: np.ndarray, size: int) -> np.ndarray:
    """One box (top, left, size) of a picture at `size` pixels."""
    top, left, edge = box
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + edge, top + edge)))


def crops(
    picture: np.ndarray, n: int, size: int, rng: np.random.Generator, *, largest_overlap: float, contrast: float
) -> np.ndarray:
    """`n` square crops of a picture at `size` pixels: uint8 (crop, size, size, 3).

    A crop is refused when it overlaps an earlier one by more than `largest_overlap` (intersection over union), is nearly
    blank (standard deviation below `contrast`), or looks like an earlier one (8 x 8 thumbnails closer than `contrast`).
    Limits relax when no room is left.
    """
    image, short = Image.fromarray(picture), min(picture.shape[:2])
    boxes, thumbnails, strictness = np.zeros((0, 3)), np.zeros((0, 8, 8, 3)), 1.0
    taken: list[np.ndarray] = []
    while len(taken) < n:
        for _ in range(60):
            edge = short * np.exp(rng.uniform(np.log(0.18), np.log(0.75)))
            box = np.array([rng.uniform(0, picture.shape[0] - edge), rng.uniform(0, picture.shape[1] - edge), edge])
            if len(boxes) and _overlap(box, boxes).max() > 1 - strictness * (1 - largest_overlap):
                continue
            thumbnail = _cut(image, box, 8) / 255
            close = len(boxes) and np.sqrt(((thumbnails - thumbnail) ** 2).mean((1, 2, 3))).min() < contrast * strictness
            if close or thumbnail.std() < contrast * strictness:
                continue
            boxes, thumbnails = np.vstack([boxes, box]), np.concatenate([thumbnails, thumbnail[None]])
            taken.append(_cut(image, box, size))
            break
        else:
            strictness *= 0.9
            if strictness < 1e-3:
                raise InputError(f"a picture of {image.width} x {image.height} pixels is blank; no crops can be told apart")
    return np.stack(taken)
