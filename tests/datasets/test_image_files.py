"""Image folders and .npz files, and what is wrong with them: everything is named."""

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.config import build
from pulvinar.core.errors import ConfigError, FileError, InputError, LeakError, NotFoundError
from pulvinar.core.storage import write_arrays
from pulvinar.datasets import image_files, imagenet100


def test_npz_with_everything_and_with_images_alone(tmp_path, pictures):
    images = pictures(6, 8)
    write_arrays(
        tmp_path / "whole.npz",
        x_train=images[:4],
        x_test=images[4:],
        y_train=np.array([0, 1, 0, 1]),
        y_test=np.array([1, 0]),
        class_names=np.array(["a", "b"]),
    )
    whole = image_files.load(tmp_path / "whole.npz")
    np.testing.assert_array_equal(whole.test, images[4:])
    assert whole.class_names == ("a", "b")
    assert whole.n_classes == 2
    write_arrays(tmp_path / "alone.npz", x_train=images)
    alone = image_files.load(tmp_path / "alone.npz")
    assert alone.test.shape == (0, 8, 8, 3)
    assert alone.train_labels is None
    with pytest.raises(InputError, match="no training image has a label"):
        alone.labelled()
    write_arrays(tmp_path / "other.npz", pixels=images)
    with pytest.raises(NotFoundError, match=r"no array 'x_train'; there are: pixels"):
        image_files.load(tmp_path / "other.npz")


def test_real_images(shared_data):
    read = image_files.load(shared_data / "cifar10_small/cifar10_small_dev.npz")
    assert read.train.shape == (2500, 32, 32, 3)
    assert read.class_names[0] == "airplane"


def test_class_folders_are_read_in_order(class_folder):
    folder, images = class_folder
    read = image_files.load(folder)
    np.testing.assert_array_equal(read.train, images[:6])
    np.testing.assert_array_equal(read.test, images[6:])
    assert read.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert read.test_labels.tolist() == [0, 0, 1, 1]
    assert read.class_names == ("cat", "dog")
    (folder / "test").rename(folder / "val")
    assert len(image_files.load(folder).test) == 4


def test_a_flat_folder_has_no_labels(class_folder):
    folder, images = class_folder
    read = image_files.load(folder / "train" / "cat")
    np.testing.assert_array_equal(read.train, images[:3])
    assert read.train_labels is None
    assert len(read.test) == 0


def test_grey_pictures_become_three_equal_channels(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    read = image_files.load(tmp_path)
    assert (read.train == read.train[..., :1]).all()
    assert read.train.shape == (1, 8, 8, 3)


def test_the_first_image_of_another_size_is_named_and_a_size_mends_it(class_folder, pictures):
    folder, _ = class_folder
    Image.fromarray(pictures(1, 20, seed=5)[0]).save(folder / "train" / "dog" / "1.png")
    with pytest.raises(InputError, match=r"dog/1\.png: 20 x 20 px .* 0\.png is 10 x 8 px.*size=96"):
        image_files.load(folder)
    read = image_files.load(f"{folder}?size=6")
    assert read.train.shape == (6, 6, 6, 3)
    assert read.test.shape == (4, 6, 6, 3)


def test_the_first_image_of_another_mode_is_named(class_folder):
    folder, _ = class_folder
    path = folder / "test" / "cat" / "0.png"
    Image.open(path).convert("L").save(path)
    with pytest.raises(InputError, match=r"test/cat/0\.png: .*mode L, but 0\.png is .*mode RGB"):
        image_files.load(folder)
    assert image_files.load(f"{folder}?size=8").test.shape == (4, 8, 8, 3)


def test_a_resized_picture_is_pillows_resize_and_centre(tmp_path, pictures):
    picture = pictures(1, 30, width=45)[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = np.asarray(Image.fromarray(picture).resize((18, 12), Image.Resampling.BICUBIC))[:, 3:15]
    np.testing.assert_array_equal(image_files.load(f"{tmp_path}?size=12").train[0], expected)


def test_an_empty_class_is_named(class_folder):
    folder, _ = class_folder
    (folder / "train" / "eel").mkdir()
    with pytest.raises(InputError, match=r"train/eel: the class 'eel' is empty"):
        image_files.load(folder)


def test_classes_that_differ_between_the_sides_are_named(class_folder):
    folder, _ = class_folder
    (folder / "test" / "dog").rename(folder / "test" / "wolf")
    with pytest.raises(InputError, match="classes differ: dog, wolf"):
        image_files.load(folder)


@pytest.mark.parametrize("options", ["", "size=8"])
def test_a_corrupt_image_is_named_and_skipped_only_by_option(class_folder, options, capsys):
    folder, images = class_folder
    path = folder / "train" / "cat" / "2.png"
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"no image at all"):
        path.write_bytes(damage)
        with pytest.raises(FileError, match=r"cat/2\.png: cannot be read as an image.*skip_corrupt"):
            image_files.load(f"{folder}?{options}")
        read = image_files.load(f"{folder}?{options}&skip_corrupt=true")
        assert read.train_labels.tolist() == [0, 0, 1, 1, 1]
        assert "1 of 6 images cannot be read and are left out" in capsys.readouterr().err
    if not options:
        np.testing.assert_array_equal(read.train, np.delete(images[:6], 2, 0))


def test_the_cache_gives_the_same_pixels_mapped(class_folder, tmp_path):
    folder, images = class_folder
    (folder / "train" / "dog" / "0.png").write_bytes(b"damaged")
    for _ in range(2):
        read = image_files.load(f"{folder}?cache={tmp_path / 'cache'}&skip_corrupt=true")
        np.testing.assert_array_equal(read.train, np.delete(images[:6], 3, 0))
        assert read.train_labels.tolist() == [0, 0, 0, 1, 1]
    assert isinstance(read.train, np.memmap)


def test_other_folders_that_do_not_fit(class_folder, tmp_path):
    folder, _ = class_folder
    with pytest.raises(ConfigError, match=r"'scale' is not a setting of image_files"):
        image_files.load(f"{folder}?scale=3")
    with pytest.raises(ConfigError, match="size is a whole number"):
        image_files.load(f"{folder}?size=big")
    with pytest.raises(FileError, match="no such file or folder"):
        image_files.load(tmp_path / "nothing")
    Image.new("RGB", (8, 10)).save(folder / "train" / "loose.png")
    with pytest.raises(InputError, match=r"loose\.png\) and folders"):
        image_files.load(folder)
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileError, match="no image"):
        image_files.load(tmp_path / "bare")


def test_a_copy_of_a_test_picture_is_refused_but_left_out_of_imagenet(class_folder, tmp_path, capsys):
    folder, images = class_folder
    (folder / "test" / "cat" / "0.png").write_bytes((folder / "train" / "dog" / "1.png").read_bytes())
    with pytest.raises(LeakError, match=r"1 training images stand in the test set too, e\.g\. training row 4"):
        image_files.load(folder)
    (tmp_path / "list.txt").write_text("cat\ndog\n")
    read = imagenet100.load(f"{folder}?classes={tmp_path / 'list.txt'}&size=8")
    np.testing.assert_array_equal(read.train, np.delete(images[:6, 1:9], 4, 0))
    assert "1 training images are in the test set" in capsys.readouterr().err


def test_imagenet100_takes_the_classes_of_the_list_in_its_order(class_folder, tmp_path):
    folder, images = class_folder
    (folder / "test").rename(folder / "val")
    (tmp_path / "list.txt").write_text("# two of them\ndog hund\n\ncat\n")
    read = imagenet100.load(f"{folder}?classes={tmp_path / 'list.txt'}&size=8")
    assert read.class_names == ("dog", "cat")
    np.testing.assert_array_equal(read.test[:2], images[8:, 1:9])
    (tmp_path / "list.txt").write_text("dog\nowl\n")
    with pytest.raises(InputError, match="no folder of class 'owl'"):
        imagenet100.load(f"{folder}?classes={tmp_path / 'list.txt'}")
    (tmp_path / "list.txt").write_text("dog\ndog\n")
    with pytest.raises(InputError, match="listed twice: dog"):
        imagenet100.load(f"{folder}?classes={tmp_path / 'list.txt'}")
    with pytest.raises(InputError, match="which classes"):
        imagenet100.load(folder)


def test_what_counts_as_a_class_and_what_is_left_out(class_folder, capsys):
    """Hidden folders, __MACOSX and thumbnails are no classes; every suffix counts; what is not read is listed."""
    folder, images = class_folder
    train = folder / "train"
    (train / "cat" / "0.png").rename(train / "cat" / "0.bak")
    Image.fromarray(images[0]).save(train / "cat" / "0.TIF")
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        (train / name).mkdir()
        (train / name / "0.png").write_bytes((train / "dog" / "0.png").read_bytes())
    (train / "dog" / "Thumbs.db").write_bytes(b"x")
    (train / "dog" / "._0.png").write_bytes(b"x")
    (train / "dog" / "more").mkdir()
    (folder / "extra").mkdir()
    read = image_files.load(folder)
    np.testing.assert_array_equal(read.train, images[:6])
    assert read.class_names == ("cat", "dog")
    said = capsys.readouterr().err
    for words in ("extra, beside train/", ".ipynb_checkpoints, __MACOSX", "._0.png, Thumbs.db", "or folders: more", "0.bak"):
        assert words in said
        assert any(words in note for note in read.notes)


def test_numbered_classes_are_in_the_order_of_their_numbers_on_both_sides(tmp_path, pictures):
    images = pictures(24, 8)
    for number in range(24):
        side, name = ("train", "test")[number >= 12], str(number % 12 + 1)
        (tmp_path / side / name).mkdir(parents=True)
        Image.fromarray(images[number]).save(tmp_path / side / name / "0.png")
    read = image_files.load(tmp_path)
    assert read.class_names == tuple(str(number) for number in range(1, 13))
    np.testing.assert_array_equal(read.train, images[:12])
    np.testing.assert_array_equal(read.test, images[12:])
    assert read.test_labels.tolist() == list(range(12))


def test_names_of_sides_and_accents_may_be_written_otherwise(class_folder):
    folder, images = class_folder
    for side in ("train", "test"):
        (folder / side / "cat").rename(folder / side / ("caf\u00e9" if side == "train" else "cafe\u0301"))
        (folder / side).rename(folder / side.capitalize())
    read = image_files.load(folder)
    assert read.class_names == ("caf\u00e9", "dog")
    np.testing.assert_array_equal(read.test, images[6:])


def test_options_of_pictures_reach_the_files_and_the_cache(tmp_path, pictures, capsys):
    colours = pictures(1, 8)[0]
    share = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    (tmp_path / "set").mkdir()
    Image.fromarray(np.dstack([colours, share])).save(tmp_path / "set" / "a.png")
    found = {}
    for background in ("white", "black"):
        for _ in range(2):  # made, and taken from the cache
            read = image_files.load(f"{tmp_path / 'set'}?background={background}&cache={tmp_path / 'cache'}")
            assert read.notes[-1].endswith(f"1 of 1 pictures: transparent pixels put on {background} (e.g. a.png)")
        found[background] = np.array(read.train[0])
    np.testing.assert_array_equal(found["white"][0, 0], [255] * 3)
    np.testing.assert_array_equal(found["black"][0, 0], [0] * 3)
    with pytest.raises(ConfigError, match="background: white, black"):
        image_files.load(f"{tmp_path / 'set'}?background=pink")


def test_folders_that_read_like_sides_are_no_classes(class_folder):
    folder, _ = class_folder
    for side in ("train", "test"):
        (folder / side / "cat").rename(folder / f"{side}_images")
        (folder / side / "dog").rename(folder / f"{side}-dogs")
        (folder / side).rmdir()
    with pytest.raises(InputError, match="'test_images' reads like a side, not like a class; name it train or test"):
        image_files.load(folder)


def test_options_that_stand_twice_and_names_with_a_question_mark(tmp_path, pictures):
    write_arrays(tmp_path / "a?b.npz", x_train=pictures(4, 8), class_names=np.array([b"cat", b"dog"]), y_train=np.arange(4) % 2)
    assert image_files.load(tmp_path / "a?b.npz").class_names == ("cat", "dog")
    with pytest.raises(ConfigError, match="is given as 8 and 9"):
        image_files.load(f"{tmp_path}?size=8&size=9")
    write_arrays(tmp_path / "bytes.npz", x_train=pictures(4, 8))
    with pytest.raises(ConfigError, match="white counts for images of uint16, uint8 came"):
        image_files.load(f"{tmp_path / 'bytes.npz'}?white=255")


def test_arrays_of_an_npz_in_other_numbers(tmp_path, pictures, capsys):
    images = pictures(6, 8)
    write_arrays(tmp_path / "unit.npz", x_train=(images / 255).astype(np.float32), labels=np.arange(6))
    read = image_files.load(tmp_path / "unit.npz")
    np.testing.assert_array_equal(read.train, images)
    assert "left out of" in capsys.readouterr().err
    assert any("labels; read are x_train" in note for note in read.notes)
    write_arrays(tmp_path / "twelve.npz", x_train=images.astype(np.uint16) * 16)
    with pytest.raises(InputError, match=r"twelve\.npz: x_train: 16 bits, but nothing is above"):
        image_files.load(tmp_path / "twelve.npz")
    np.testing.assert_array_equal(image_files.load(f"{tmp_path / 'twelve.npz'}?white=4080").train, images)
    np.save(tmp_path / "bare.npy", images)
    with pytest.raises(FileError, match=r"bare\.npy: holds one array without a name.*x_train=numpy\.load"):
        image_files.load(tmp_path / "bare.npy")


def test_a_planted_set_is_read_back_with_its_classes_and_shares_no_crop(tmp_path):
    made = image_files.generate(str(tmp_path / "set"), image_files.Config(n_classes=3, n_train=31, n_test=9, image_size=16))
    read = image_files.load(tmp_path / "set")
    assert (len(read.train), len(read.test), read.size) == (31, 9, (16, 16))
    assert list(read.class_names) == sorted(name.partition("/")[2].rpartition(".")[0] for name in made["classes"])
    assert np.bincount(read.train_labels).tolist() == [11, 10, 10]
    assert np.bincount(read.test_labels).tolist() == [3, 3, 3]
    again = image_files.generate(str(tmp_path / "again"), image_files.Config(n_classes=3, n_train=31, n_test=9, image_size=16))
    np.testing.assert_array_equal(image_files.load(tmp_path / "again").train, read.train)
    assert again["classes"] == made["classes"]
    with pytest.raises(ConfigError, match="n_train is n_classes or more, not 2"):
        build(image_files.Config, {"n_train": 2}, name="image_files")
