"""A small study whose answer is known, for the tutorials: three subjects who see pictures of a coloured shape.

    python examples/plant_study.py

writes `study/` (an experiment folder: responses, pictures, ROIs) and `pictures.npz` (the same kind of pictures in
three classes, for a network that learns without labels). Every number is made up, in about a second.
"""

import sys
from pathlib import Path

import numpy as np

from pulvinar.data.experiment import save
from pulvinar.data.geometry import Geometry
from pulvinar.datasets.arrays import from_arrays

N_IMAGES, N_TEST, DIM, SIZE, SHAPE = 280, 60, 12, 32, (16, 18, 12)
AREAS = {
    "early": (0.0, -0.55, -0.05),
    "ventral": (0.45, -0.2, -0.4),
}  # centre in a head of half width 1; mirrored left and right
AFFINE = np.array([[3.0, 0, 0, -24], [0, 3.0, 0, -27], [0, 0, 3.0, -18], [0, 0, 0, 1]])


def pictures(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (image, 32, 32, 3), and what varies (image, 9): colours of ground and shape, where it is, how large."""
    facts = rng.uniform(-1, 1, (n, 9))
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    ground, shape = 0.55 + 0.3 * facts[:, :3], 0.45 - 0.4 * facts[:, 3:6]
    centre, radius = 0.5 + 0.2 * facts[:, 6:8], 0.22 + 0.1 * facts[:, 8]
    inside = np.hypot(x - centre[:, 0, None, None], y - centre[:, 1, None, None]) < radius[:, None, None]
    made = np.where(inside[..., None], shape[:, None, None], ground[:, None, None])
    return np.clip(255 * made, 0, 255).astype(np.uint8), facts


def head(rng: np.random.Generator) -> tuple[Geometry, np.ndarray]:
    """Voxels of an ellipsoid 48 mm wide, and the area that each is in (0: none)."""
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    place = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    mask = (place**2).sum(-1) < 1
    place = place[mask] + rng.normal(0, 0.03, 3)  # heads differ
    area = np.zeros(len(place), int)
    for number, centre in enumerate(AREAS.values(), 1):
        for side in (-1, 1):
            area[((place - np.array(centre) * [side, 1, 1]) ** 2).sum(1) < 0.045] = number
    return Geometry.from_mask(mask, AFFINE), area


def plant(folder: Path) -> Path:
    """Write study/ below the folder; where it is."""
    rng = np.random.default_rng(0)
    images, facts = pictures(N_IMAGES, rng)
    embedding = np.tanh(facts @ rng.normal(0, 1, (9, DIM)))
    ids = [f"image-{number:03d}" for number in range(N_IMAGES)]
    responses, shown, geometry, rois = {}, {}, {}, {}
    for subject in ("sub-01", "sub-02", "sub-03"):
        geometry[subject], area = head(rng)
        rows = np.concatenate([np.arange(N_IMAGES), np.arange(N_IMAGES - N_TEST, N_IMAGES)])  # test images twice
        signal = np.zeros((N_IMAGES, len(area)))
        for number in (1, 2):
            signal[:, area == number] = embedding @ rng.normal(0, 1 / DIM**0.5, (DIM, int((area == number).sum())))
        responses[subject] = (signal[rows] + rng.normal(0, 1.5, (len(rows), len(area)))).astype(np.float32)
        shown[subject] = [ids[row] for row in rows]
        rois[subject] = {"annotated": area > 0} | {name: area == n for n, name in enumerate(AREAS, 1)}
    made = from_arrays(
        name="planted study",
        responses=responses,
        stimulus_ids=shown,
        geometry=geometry,
        rois=rois,
        stimuli=ids,
        features={"embedding": embedding.astype(np.float32)},
        images=list(images),
        test_share=N_TEST / N_IMAGES,
        facts={"simulated": True},
        target="sub-03",
    )
    return save(made, folder / "study")


def plant_pictures(folder: Path) -> Path:
    """Write pictures.npz below the folder: 480 to train, 120 to test, three classes by the colour of the shape; where it is."""
    rng = np.random.default_rng(1)
    images, facts = pictures(600, rng)
    labels = facts[:, 3:6].argmin(1)
    parts = {"x_train": images[:480], "y_train": labels[:480], "x_test": images[480:], "y_test": labels[480:]}
    np.savez_compressed(folder / "pictures.npz", **parts)
    return folder / "pictures.npz"


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    place.mkdir(parents=True, exist_ok=True)
    print(plant(place), plant_pictures(place))
