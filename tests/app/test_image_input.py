"""Bad images at the command line: exit code 2, one line that names what is wrong, and no run folder."""

import json

import numpy as np
import pytest
from PIL import Image

from pulvinar.cli import main


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight training and four test pictures of 16 pixels."""
    generator = np.random.default_rng(0)
    for side, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            place = tmp_path / "images" / side / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "images"


def mixed_sizes(folder):
    Image.new("RGB", (20, 20)).save(folder / "train" / "dog" / "5.png")
    return r"dog/5.png: 20 x 20 px"


def mixed_modes(folder):
    Image.new("L", (16, 16)).save(folder / "train" / "cat" / "7.png")
    return "cat/7.png: 16 x 16 px (height x width), mode L"


def empty_class(folder):
    (folder / "train" / "eel").mkdir()
    return "the class 'eel' is empty"


def corrupt(folder):
    (folder / "test" / "dog" / "2.png").write_bytes(b"damaged")
    return "test/dog/2.png: cannot be read as an image"


def too_few(folder):
    return "16 training images"


def copied(folder):
    (folder / "test" / "cat" / "0.png").write_bytes((folder / "train" / "cat" / "3.png").read_bytes())
    return "1 training images stand in the test set too"


@pytest.mark.parametrize("damage", [mixed_sizes, mixed_modes, empty_class, corrupt, copied, too_few])
def test_images_that_do_not_fit_are_refused_before_anything_is_written(folder, tmp_path, damage, capsys):
    words = damage(folder)
    out = tmp_path / "run"
    code = main(["fit", "dense_ssl", "--data", str(folder), "--set", "batch_size=256", "--out", str(out), "--quiet"])
    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert not out.exists()


def test_inspect_of_pictures_of_several_sizes_counts_them_and_says_what_methods_need(tmp_path, capsys, monkeypatch):
    for number, (height, name) in enumerate([(8, "cat"), (8, "cat"), (12, "dog")]):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(np.full((height, 10, 3), number, np.uint8)).save(tmp_path / name / f"{number}.png")
    assert main(["data", "inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["folders"], found["sizes"]) == (3, {"cat": 2, "dog": 1}, {"8 x 10": 2, "12 x 10": 1})
    assert "size" in found["refused_by_methods"]
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["data", "inspect", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "8 x 10: 2; 12 x 10: 1" in shown
    assert max(map(len, shown.splitlines())) <= 60 or str(tmp_path) in shown


def test_inspect_lists_what_is_in_an_image_set_and_what_was_left_out(folder, tmp_path, capsys):
    (folder / "train" / "cat" / "notes.txt").write_text("x")
    (folder / "__MACOSX").mkdir()
    for source in (str(folder), f"image_files:{folder}", f"{folder}?size=16"):
        assert main(["data", "inspect", source, "--json", "--quiet"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["train"], found["test"], found["height"], found["width"]) == (16, 8, 16, 16)
        assert found["classes"] == {"cat": {"train": 8, "test": 4}, "dog": {"train": 8, "test": 4}}
        assert [note.partition("cat: ")[2] for note in found["notes"]] == [
            "1 files that are no pictures, or folders: notes.txt"
        ]
    np.savez(
        tmp_path / "few.npz",
        x_train=np.arange(3 * 192, dtype=np.uint16).reshape(3, 8, 8, 3).astype(np.uint8),
        y_train=np.array([[1], [2], [2]]),
    )
    assert main(["data", "inspect", str(tmp_path / "few.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"] == {"1": {"train": 1, "test": 0}, "2": {"train": 2, "test": 0}}
    assert found["notes"] == ["labels 1, 2 are 2 classes, named by these numbers"]
