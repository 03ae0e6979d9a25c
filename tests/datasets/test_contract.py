"""What every file in datasets/ keeps: facts, a way in, and layouts whose values, shapes and one damage each are told apart."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.commands import registry
from pulvinar.commands.data import open_data
from pulvinar.errors import PulvinarError

DATASETS = registry.names("datasets")
OURS = ("arrays", "image_files", "simulated")  # layouts of this project, not somebody's data


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_says_what_it_is_and_where_it_comes_from(name):
    module = registry.module("datasets", name)
    assert DATASETS[name].endswith(".")
    ways_in = [way for way in ("load", "read_description", "simulate") if hasattr(module, way)]
    assert ways_in, "no function opens it"
    assert all(getattr(module, way).__doc__ for way in ways_in)
    if name not in OURS:
        assert all(isinstance(getattr(module, fact), str) and getattr(module, fact) for fact in ("CITATION", "URL", "LICENCE"))
        assert module.URL.startswith(("https://", "http://"))


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in OURS])
def test_nothing_there_and_an_empty_folder_are_refused_by_name(name, tmp_path):
    """Through the door of the command line: no traceback of another kind, no empty data."""
    kind = {"algonauts2019": "dissimilarities"}.get(name, "experiment" if _gives_experiment(name) else "images")
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(PulvinarError) as caught:
            open_data(kind, f"{name}:{place}")
        assert str(tmp_path) in str(caught.value) or name == "imagenet100"  # which asks for its list of classes first


def _gives_experiment(name: str) -> bool:
    tree = ast.parse(Path(registry.module("datasets", name).__file__).read_text(encoding="utf-8"))
    load = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load")
    return "Experiment" in ast.unparse(load.returns)


def _cifar10(request) -> tuple[Path, np.ndarray, np.ndarray, str]:
    folder, images, labels = request.getfixturevalue("cifar10_folder")
    return folder, images, labels, "data_batch_3.bin"


def _cifar100(request) -> tuple[Path, np.ndarray, np.ndarray, str]:
    folder, images, labels = request.getfixturevalue("cifar100_folder")
    return folder, images, labels, "test.bin"


def _stl10(request) -> tuple[Path, np.ndarray, np.ndarray, str]:
    """Labels of its labelled images, which count from 1 in the files."""
    folder, images = request.getfixturevalue("stl10_folder")
    return folder, images, np.array([0, 9, 2, 1, 1]), "train_X.bin"


def _class_folder(request) -> tuple[Path, np.ndarray, np.ndarray, str]:
    folder, images = request.getfixturevalue("class_folder")
    return folder, images, np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1]), "train/cat/1.png"


IMAGES = {"cifar10": _cifar10, "cifar100": _cifar100, "stl10": _stl10, "image_files": _class_folder}
NOT_BY_BYTES = {"imagenet100"}  # a class folder with a list of its classes; tests/datasets/test_image_files.py


def test_every_dataset_of_images_is_walked_here():
    kinds = {name for name in DATASETS if hasattr(registry.module("datasets", name), "load") and not _gives_experiment(name)}
    assert kinds - {"algonauts2019"} == set(IMAGES) | NOT_BY_BYTES


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_and_labels_are_those_that_were_written(name, request):
    """Oracle: what the writers of the layouts (spelled out byte by byte in conftest) were given; probes of single values."""
    folder, images, labels, _ = IMAGES[name](request)
    data = open_data("images", f"{name}:{folder}")
    pixels = np.concatenate([np.asarray(part) for part in (data.train, data.test)])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, images)
    for row, y, x, colour in np.random.default_rng(0).integers(0, [len(images), 8, 8, 3], (20, 4)):
        assert pixels[row, y, x, colour] == images[row, y, x, colour]
    known = [np.asarray(part) for part in (data.train_labels, data.test_labels) if part is not None]
    found = np.concatenate(known)
    np.testing.assert_array_equal(found[found >= 0], labels)  # -1: an image without one
    assert max(labels) < len(data.class_names)


@pytest.mark.parametrize("name", IMAGES)
def test_a_file_that_was_cut_short_is_refused_by_name(name, request):
    folder, _, _, file = IMAGES[name](request)
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2 - 7])
    with pytest.raises(PulvinarError, match=path.name.replace(".", r"\.")):
        open_data("images", f"{name}:{folder}")


def test_an_axis_turned_round_would_be_seen(request):
    """The probes can fail: rows for columns, and blue for red, give other values at most of their places."""
    folder, images, _, _ = _class_folder(request)
    for turned in (images[:, :8, :8].transpose(0, 2, 1, 3), images[:, :8, :8, ::-1]):
        assert (turned != images[:, :8, :8]).mean() > 0.6
    assert Image.open(folder / "train/cat/0.png").size == (8, 10)  # width first
