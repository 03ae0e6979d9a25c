"""The rule of image ids. Oracle: the ids that the names mean, spelled out."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.image_files import find_images
from pulvinar.data.image_ids import ImageNames, ids_of, ids_of_mentions, row_order
from pulvinar.datasets.arrays import from_arrays, read_description

CAFE = "caf\u00e9"


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a/cat.png", "b/dog.jpg"], ["cat", "dog"]),
        (["faces/01.png", "houses/01.png", "02.png"], ["faces/01", "houses/01", "02"]),
        (["cat.jpg", "cat.png"], ["cat.jpg", "cat.png"]),
        (["a/cat.jpg", "a/cat.png", "b/cat.png"], ["a/cat.jpg", "a/cat.png", "b/cat.png"]),
        (["x/a/1.png", "y/a/1.png"], ["x/a/1", "y/a/1"]),
        (["C:\\stim\\cat.PNG", ".\\dog.v2"], ["cat", "dog.v2"]),
        ([unicodedata.normalize("NFD", CAFE) + ".png"], [CAFE]),
    ],
)
def test_an_id_is_as_short_as_tells_the_images_apart(names, ids):
    assert ids_of(names, origin="x") == ids
    assert ImageNames(names, "x").rows(ids, origin="y").tolist() == list(range(len(ids)))
    assert ImageNames(ids, "x").rows(names, origin="y").tolist() == list(range(len(ids)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.png", "b.png", "a.png"], r"stand twice \(1 of one name\): \['a.png', 'a.png'\]"),
        (["img 1", "img\u00a01"], "signs that are not seen"),
        (["img\u200b1", "img1"], "signs that are not seen"),
    ],
)
def test_one_image_twice_is_refused(names, message):
    with pytest.raises(InputError, match=message):
        ids_of(names, origin="list.csv")


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (["IMG1"], NotFoundError, "'IMG1' and 'img1' differ in upper and lower case"),
        (["1.0"], NotFoundError, "'1.0' and '0001' differ in leading zeros or a decimal point"),
        (["q", "r", "s", "t"], NotFoundError, r"y: 4 stimulus ids are not among the 5 of x, e\.g\. \['q', 'r', 's'\]"),
        (["01"], InputError, "'01' could be each of"),
        (["img1.jpg", "img1.png"], InputError, "are two images, but x has one for both"),
        (["a/img1", "b/img1"], InputError, "are two images, but x has one for both"),
    ],
)
def test_what_names_no_image_or_two_is_refused(wanted, error, message):
    known = ImageNames(["img1.png", "0001", "faces/01", "houses/01", "other"], "x")
    with pytest.raises(error, match=message):
        known.rows(wanted, origin="y")


def test_suffixes_are_compared_by_what_they_mean():
    known = ImageNames(["cat.jpg", "cat.png", "dog.tif", "dog.png"], "x")
    assert known.rows(["cat.JPEG", "cat.PNG", "dog.tiff"], origin="y").tolist() == [0, 1, 2]


def test_images_of_a_list_have_a_row_each():
    known = ImageNames(["cat.png", "01.png"], "x")
    for listed in (["cat", "cat.png"], ["01", "faces/01"]):
        with pytest.raises(InputError, match="are two images, but x has one for both"):
            known.order_of(ImageNames(listed, "y"))
    assert known.rows(["cat", "cat.png"], origin="y").tolist() == [0, 0]


def test_a_folder_is_compared_as_far_as_both_have_one():
    known = ImageNames(["faces/01.png", "houses/01.png", "pear.png"], "x")
    wanted = ["stimuli\\houses\\01.png", "/data/faces/01", "pear", "set1/pear.jpg"]
    assert known.rows(wanted, origin="y").tolist() == [1, 0, 2, 2]
    assert not known.has("cars/01.png")
    assert ImageNames(["b/a/01", "a/01"], "x").rows(["a/01"], origin="y").tolist() == [1]


def test_mentions_of_one_image_are_one_id():
    found = ids_of_mentions(["01.png", "01", "faces/01", "02", "a/x.png", "b/x.png"], origin="t")
    assert found == {"01.png": "01", "01": "01", "faces/01": "01", "02": "02", "a/x.png": "a/x", "b/x.png": "b/x"}
    for several in (["a/x", "b/x", "x"], ["01", "faces/01", "houses/01"]):
        with pytest.raises(InputError, match="could be each of"):
            ids_of_mentions(several, origin="t")
    assert len(set(ids_of_mentions(["a/x", "x.jpg", "x.png"], origin="t").values())) == 2
    with pytest.raises(InputError, match=r"t: '\.' names no image"):
        ids_of_mentions(["a", "."], origin="t")
    for one, other in (("3", "0003"), ("img3", "IMG3"), ("12", "12.0")):
        with pytest.raises(InputError, match="one image"):
            ids_of_mentions([one, other], origin="t")


def test_rows_without_names_need_a_single_order():
    assert row_order(ImageNames(["a.png", "b.png"], "x"), rows_of="f") == "the sorted image names"
    assert "sorted without regard to case would be 'a'" in row_order(ImageNames(["a.png", "B.png"], "x"), rows_of="f")
    assert "'img10'" in row_order(ImageNames(["img1.png", "img2.png", "img10.png"], "x"), rows_of="f")
    for names in (
        ["cat.png", "cat-2.png"],
        ["cat.png", "cat (3).png"],
        ["a/1.png", "b/0.png"],
        ["a/1.png", "a!/2.png"],
        ["a-b/1.png", "a/2.png"],
        ["a/1.png", "a/2.png", "b/1.png", "b/2.png"],
        ["a.b.png", "a.jpg"],
    ):
        with pytest.raises(InputError, match=r"f: its rows have no names.*array 'id'"):
            row_order(ImageNames(names, "x"), rows_of="f")


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def test_images_of_folders_inside_a_folder_stay_two(tmp_path):
    for value, name in enumerate(("faces/01.png", "houses/01.png", "houses/02.png", "__MACOSX/._01.png", ".old/01.png")):
        save(tmp_path / "images" / name, value)
    found = find_images(tmp_path / "images")
    assert list(found) == ["02", "faces/01", "houses/01"]
    save(tmp_path / "images" / "02.png", 9)
    with pytest.raises(InputError, match="both named '02'"):
        find_images(tmp_path / "images")


def study(folder, features, names):
    generator = np.random.default_rng(0)
    np.save(folder / "r.npy", generator.normal(size=(2 * len(names), 4)).astype(np.float32))
    np.save(folder / "xyz.npy", generator.normal(size=(4, 3)))
    rows = "".join(f"{name},ses-{number}\n" for number in (10, 2) for name in names)
    (folder / "t.csv").write_text("stimulus,session\n" + rows)
    (folder / "s.toml").write_text(
        f'[stimuli]\nimages = "images"\nfeatures.f = "{features}"\n[split]\ntest_share = 0.4\n[[subject]]\nname = "s"\n'
        'responses = "r.npy"\ncoordinates = "xyz.npy"\ntrials = "t.csv"\n'
    )
    return folder / "s.toml"


def test_a_description_joins_files_of_features_by_name(tmp_path, capsys):
    names = ["cat.png", "cat-2.png", "faces/01.png", "houses/01.png", "pear.png"]
    for value, name in enumerate(names):
        save(tmp_path / "images" / "x" / name, value)
    values = np.arange(10.0).reshape(5, 2)
    np.savez(tmp_path / "f.npz", f=values[::-1], ids=np.array([f"x\\{name}" for name in names[::-1]]))
    experiment = read_description(study(tmp_path, "f.npz", names))
    stimuli, responses = experiment.stimuli, experiment.subjects["s"]
    assert list(responses.stimulus_ids[:5]) == ["cat", "cat-2", "faces/01", "houses/01", "pear"]
    assert responses.sessions.tolist() == [10] * 5 + [2] * 5
    for value, row in enumerate(stimuli.rows(responses.stimulus_ids[:5])):
        assert stimuli.image(int(row))[0, 0, 0] == value
        assert stimuli.features["f"][row].tolist() == values[value].tolist()
    assert "on_trust" not in experiment.facts
    np.save(tmp_path / "g.npy", values)
    with pytest.raises(InputError, match=r"g\.npy: feature 'f': its rows have no names"):
        read_description(study(tmp_path, "g.npy", names))
    (tmp_path / "g.csv").write_text("row,id\n" + "".join(f"{row},{name}\n" for row, name in enumerate(names)))
    again = read_description(study(tmp_path, "g.npy", names)).stimuli
    np.testing.assert_array_equal(again.features["f"], stimuli.features["f"])


def test_an_order_on_trust_is_said_and_kept(tmp_path, capsys):
    for value, name in enumerate("abcde"):
        save(tmp_path / "images" / f"{name}.png", value)
    np.save(tmp_path / "g.npy", np.arange(10.0).reshape(5, 2))
    experiment = read_description(study(tmp_path, "g.npy", "abcde"))
    assert "on trust" in experiment.facts["on_trust"]["rows of feature f"]
    assert "on trust" in capsys.readouterr().err


def test_arrays_in_memory_follow_the_same_rule():
    responses = {"s": np.random.default_rng(0).normal(size=(4, 3))}
    given = {"responses": responses, "geometry": {"s": np.eye(3)}, "sessions": {"s": ["ses-10", "ses-10", "ses-2", "ses-2"]}}
    made = from_arrays(stimulus_ids={"s": ["a.png", "x/b", "a", "b"]}, stimuli=["b", "a"], test_share=0.5, **given)
    assert list(made.subjects["s"].stimulus_ids) == ["a", "b", "a", "b"]
    assert made.subjects["s"].sessions.tolist() == [10, 10, 2, 2]
