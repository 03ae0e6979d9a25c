"""STL-10: oracle is the slow column-by-column writer in conftest.py."""

import numpy as np
import pytest

from pulvinar.core.errors import FileError
from pulvinar.datasets import stl10


def test_columns_come_back_as_rows_and_unlabelled_images_have_no_label(stl10_folder):
    folder, images = stl10_folder
    read = stl10.load(folder.parent)
    np.testing.assert_array_equal(read.train, images[:7])
    np.testing.assert_array_equal(read.test, images[7:])
    assert read.train_labels.tolist() == [-1, -1, -1, -1, 0, 9, 2]
    assert read.test_labels.tolist() == [1, 1]
    labelled, labels = read.labelled()
    np.testing.assert_array_equal(labelled, images[4:7])
    assert labels.tolist() == [0, 9, 2]


def test_labels_that_do_not_fit_the_images_are_named(stl10_folder):
    folder, _ = stl10_folder
    (folder / "train_y.bin").write_bytes(bytes([1, 2]))
    with pytest.raises(FileError, match=r"train_y\.bin: 2 labels for 3 images"):
        stl10.load(folder)


def test_the_matlab_version_and_a_file_cut_short_are_refused(stl10_folder, tmp_path):
    folder, _ = stl10_folder
    content = (folder / "test_X.bin").read_bytes()
    (folder / "test_X.bin").write_bytes(content[:-1])
    with pytest.raises(FileError, match=r"test_X\.bin.*27648"):
        stl10.load(folder)
    other = tmp_path / "stl10_matlab"
    other.mkdir()
    (other / "train.mat").write_bytes(b"MATLAB")
    with pytest.raises(FileError, match=r"another version of STL-10.*stl10_binary\.tar\.gz"):
        stl10.load(other)
