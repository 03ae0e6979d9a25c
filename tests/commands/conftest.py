"""A world of seconds for the command line: 3 subjects, 400 voxels, written once a session; every test that changes it copies it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.commands import data as data_commands
from pulvinar.commands import fit as fitting

WORLD = (
    "n_voxels=400",
    "n_subjects=3",
    "n_trials=120",
    "n_pretraining_trials=120",
    "n_test_images=30",
    "embedding_dim=16",
    "image_size=24",
)
QUICK = (
    "n_voxels=40",
    "epochs=2",
    "n_rounds=2",
    "epochs_per_round=2",
    "n_folds=2",
    "backbone.epochs=2",
    "backbone.hidden=16",
)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny planted world."""
    folder = tmp_path_factory.mktemp("worlds") / "a world with blanks"
    data_commands.simulate(str(folder), assignments=WORLD)
    return folder


@pytest.fixture
def copy_of_world(world: Path, tmp_path: Path) -> Path:
    """A copy without images (they are slow to check), to be spoilt."""
    folder = tmp_path / "world"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("images"))
    return folder


@pytest.fixture(scope="session")
def plain_world(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world without images, as it is."""
    folder = tmp_path_factory.mktemp("worlds") / "plain"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("images"))
    return folder


@pytest.fixture(scope="session")
def finished(plain_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of troi with its backbone; tests that change it copy it."""
    run = tmp_path_factory.mktemp("runs") / "run"
    fitting.fit("troi", data=str(plain_world), out=str(run), assignments=QUICK)
    return run


@pytest.fixture
def change() -> Callable[..., None]:
    """Replace a dataset of an HDF5 file (None: remove it)."""

    def replace(path: Path, name: str, values: np.ndarray | list[str] | None) -> None:
        with h5py.File(path, "r+") as file:
            attributes = dict(file[name].attrs) if name in file else {}
            if name in file:
                del file[name]
            if isinstance(values, list):
                file.create_dataset(name, data=values, dtype=h5py.string_dtype())
            elif values is not None:
                file[name] = values
                file[name].attrs.update(attributes)

    return replace
