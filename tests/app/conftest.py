"""A world of seconds for the command line, written with h5py as docs/folder.md says, the way an outsider would."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.app import fit as fitting

QUICK = (
    "n_voxels=20",
    "epochs=3",
    "n_rounds=2",
    "epochs_per_round=2",
    "n_folds=2",
    "pretrained.epochs=3",
    "pretrained.hidden=16",
    "beside=usual",
)
N_TRAIN, N_TEST, DIM = 100, 30, 12
WriteWorld = Callable[..., Path]
Change = Callable[..., None]


def _write_geometry(file: h5py.File, kind: str) -> None:
    index = np.argwhere(np.ones((6, 5, 4)))  # 120 voxels
    if kind == "volume":
        file["geometry/index"], file["geometry/shape"], file["geometry/affine"] = index, (6, 5, 4), np.diag([2.0, 2, 2, 1])
    elif kind == "points":
        file["geometry/coordinates"] = 2.0 * index
    elif kind == "surface":
        places = np.argwhere(np.ones((12, 12)))
        corner = np.array([place[0] * 12 + place[1] for place in places if place[0] < 11 and place[1] < 11])
        file["geometry/vertex"] = np.arange(120)
        file["geometry/mesh_coordinates"] = np.column_stack([places, np.zeros(144)]).astype(float)
        faces = [[corner, corner + 1, corner + 12], [corner + 1, corner + 13, corner + 12]]
        file["geometry/mesh_faces"] = np.concatenate([np.stack(face, 1) for face in faces])


def _write_world(folder: Path, *, geometry: str = "volume", images: bool = False, target_rois: bool = False) -> Path:
    """sub-01 and sub-02 with a ROI, sub-03 new. The first 24 of 120 voxels are linear in the embedding, the rest noise."""
    generator = np.random.default_rng(0)
    ids = [f"image-{number:03d}" for number in range(N_TRAIN + N_TEST)]
    text = h5py.string_dtype()
    embedding = generator.normal(size=(len(ids), DIM)).astype(np.float32)
    (folder / "responses").mkdir(parents=True)
    with h5py.File(folder / "stimuli.h5", "w") as file:
        file.create_dataset("id", data=ids, dtype=text)
        file["features/clip"] = embedding
    for subject in ("sub-01", "sub-02", "sub-03"):
        shown = np.concatenate([np.arange(len(ids)), np.arange(N_TRAIN, len(ids))])  # test images twice
        values = generator.normal(size=(len(shown), 120))
        values[:, :24] += embedding[shown] @ generator.normal(size=(DIM, 24))
        with h5py.File(folder / "responses" / f"{subject}.h5", "w") as file:
            file["values"] = values.astype(np.float32)
            file.create_dataset("stimulus", data=[ids[row] for row in shown], dtype=text)
            file["session"] = np.repeat([0, 1], [N_TRAIN, 2 * N_TEST])  # the test has a session of its own
            _write_geometry(file, geometry)
            if subject != "sub-03" or target_rois:
                file["rois/annotated"] = np.arange(120) < 40
    if images:
        from PIL import Image

        (folder / "images").mkdir()
        for name in ids:
            pixels = generator.integers(0, 255, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    (folder / "split.json").write_text(json.dumps({"train": ids[:N_TRAIN], "test": ids[N_TRAIN:]}))
    names = ["sub-01", "sub-02", "sub-03"]
    head = {"format": "pulvinar-experiment", "version": 1, "name": "tiny", "subjects": names, "target": "sub-03"}
    (folder / "experiment.json").write_text(json.dumps(head))
    return folder


@pytest.fixture(scope="session")
def write_world() -> WriteWorld:
    """Write a world: (folder, geometry=, images=, target_rois=) -> folder."""
    return _write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world as it should be; its path has blanks. Not to be changed."""
    return _write_world(tmp_path_factory.mktemp("worlds") / "a tiny world")


@pytest.fixture
def spoilt(world: Path, tmp_path: Path) -> Path:
    """A copy of the world, to be changed."""
    return Path(shutil.copytree(world, tmp_path / "spoilt"))


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """Settings of troi and its pretrained run that take a second."""
    return QUICK


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of troi, its pretrained run inside. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    fitting.fit("troi", data=str(world), out=str(run), assignments=QUICK)
    return run


@pytest.fixture(scope="session")
def change() -> Change:
    """(path, dataset, values) replaces a dataset or group of an HDF5 file; None removes it."""

    def replace(path: Path, name: str, values: np.ndarray | list[str] | None) -> None:
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            if isinstance(values, list):
                file.create_dataset(name, data=values, dtype=h5py.string_dtype())
            elif values is not None:
                file[name] = values

    return replace
