"""CIFAR-10 and CIFAR-100: oracle is the slow writer of the official formats in conftest.py."""

import numpy as np
import pytest

from pulvinar.core.errors import FileError
from pulvinar.datasets import cifar10, cifar100


def test_cifar10_is_read_as_it_was_written(cifar10_folder):
    folder, images, labels = cifar10_folder
    for place in (folder, folder.parent):
        read = cifar10.load(place)
        np.testing.assert_array_equal(read.train, images[:15])
        np.testing.assert_array_equal(read.test, images[15:])
        np.testing.assert_array_equal(read.train_labels, labels[:15])
        np.testing.assert_array_equal(read.test_labels, labels[15:])
        assert read.class_names[3] == "kind 3"


def test_cifar100_takes_the_fine_label(cifar100_folder):
    folder, images, fine = cifar100_folder
    read = cifar100.load(folder)
    np.testing.assert_array_equal(read.train, images[:6])
    np.testing.assert_array_equal(read.train_labels, fine[:6])
    np.testing.assert_array_equal(read.test_labels, fine[6:])
    assert read.class_names[99] == "fine 99"


@pytest.mark.parametrize(("module", "file"), [(cifar10, "data_batch_1"), (cifar100, "train")])
def test_the_pickled_version_is_refused_with_what_to_download(tmp_path, module, file):
    folder = tmp_path / "cifar-py"
    folder.mkdir()
    (folder / file).write_bytes(b"\x80\x02}q\x01")
    for place in (folder, tmp_path):
        with pytest.raises(FileError, match=r"another version.*binary\.tar\.gz"):
            module.load(place)


def test_an_empty_folder_and_no_folder_say_so(tmp_path):
    with pytest.raises(FileError, match=r"no data_batch_1\.bin"):
        cifar10.load(tmp_path)
    with pytest.raises(FileError, match="no such folder"):
        cifar100.load(tmp_path / "nothing")


def test_a_file_cut_short_is_named(cifar10_folder):
    folder, *_ = cifar10_folder
    content = (folder / "data_batch_3.bin").read_bytes()
    (folder / "data_batch_3.bin").write_bytes(content[:-5])
    with pytest.raises(FileError, match=r"data_batch_3\.bin.*records of 3073"):
        cifar10.load(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileError, match=r"data_batch_3\.bin: no such file"):
        cifar10.load(folder)


def test_copies_of_test_images_are_left_out_of_training(cifar10_folder, capsys):
    folder, images, _ = cifar10_folder
    (folder / "test_batch.bin").write_bytes((folder / "data_batch_2.bin").read_bytes())
    read = cifar10.load(folder)
    np.testing.assert_array_equal(read.train, np.delete(images[:15], [3, 4, 5], 0))
    assert "3 training images are in the test set" in capsys.readouterr().err
