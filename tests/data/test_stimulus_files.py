"""Stimuli from files. Oracles: the pixels and rows that were written, found again under their ids."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.image_files import find_images, read_image
from pulvinar.data.stimulus_files import read_stimuli
from pulvinar.data.tables import Trials

GENERATOR = np.random.default_rng(0)
PIXELS = {name: GENERATOR.integers(0, 255, (4 + row, 5, 3), dtype=np.uint8) for row, name in enumerate("cab")}


def write_images(tmp_path):
    (tmp_path / "images").mkdir()
    for name, pixels in PIXELS.items():
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    (tmp_path / "images" / "._a.png").write_bytes(b"left by a file manager")
    return tmp_path / "images"


def shown(*ids, **attributes):
    numbers = np.zeros(len(ids), int)
    return {"sub-01": Trials(origin="trials.csv", stimulus_ids=ids, sessions=numbers, runs=numbers, attributes=attributes)}


def read(*, images=None, features=(), table=None, trials=None):
    found = read_stimuli(images=images, features=dict(features), table=table, trials=trials or shown("a"))
    return found.stimuli, found.sides


def table(tmp_path, text):
    (tmp_path / "stimuli.csv").write_text(text)
    return tmp_path / "stimuli.csv"


def test_images_are_listed_by_name_and_may_differ_in_size(tmp_path):
    stimuli, sides = read(images=write_images(tmp_path))
    assert (list(stimuli.ids), list(stimuli.sources), stimuli.labels, sides) == (list("abc"), list("abc"), None, {})
    for row, name in enumerate("abc"):
        assert np.array_equal(stimuli.image(row), PIXELS[name])


def test_a_table_gives_order_sources_labels_and_split(tmp_path, capsys):
    given = table(tmp_path, "id,source,label,split\nc,p,x,test\na,,y,train\n")
    values = GENERATOR.normal(size=(2, 3))
    np.save(tmp_path / "clip.npy", values)
    stimuli, sides = read(images=write_images(tmp_path), features={"clip": (tmp_path / "clip.npy", None)}, table=given)
    assert (list(stimuli.ids), list(stimuli.sources), list(stimuli.labels)) == (["c", "a"], ["p", "a"], ["x", "y"])
    assert sides == {"c": "test", "a": "train"}
    assert np.array_equal(stimuli.image(0), PIXELS["c"])
    assert np.array_equal(stimuli.features["clip"], values.astype(np.float32))
    assert "1 of 3 images are not in the stimulus table" in capsys.readouterr().err


def test_features_that_carry_ids_are_put_in_order(tmp_path):
    values = np.arange(8.0).reshape(4, 2)
    np.savez(tmp_path / "clip.npz", clip=values, id=np.array(["b", "z", "c", "a"]))
    stimuli, _ = read(images=write_images(tmp_path), features={"clip": (tmp_path / "clip.npz", "clip")})
    assert stimuli.features["clip"].tolist() == [[6, 7], [0, 1], [4, 5]]
    alone, _ = read(features={"clip": (tmp_path / "clip.npz", None)})
    assert list(alone.ids) == ["b", "z", "c", "a"]
    np.savez(tmp_path / "clip.npz", clip=values, id=np.array(["b", "z", "c", "d"]))
    with pytest.raises(
        NotFoundError, match=r"1 stimuli \(feature 'clip'\) are not among the 4 of .*clip\.npz, e\.g\. \['a\.png'\]"
    ):
        read(images=tmp_path / "images", features={"clip": (tmp_path / "clip.npz", None)})
    np.savez(tmp_path / "clip.npz", clip=values, id=np.array(["b", "b", "c", "a"]))
    with pytest.raises(InputError, match=r"clip\.npz: ids stand twice \(1 of one name\): \['b', 'b'\]"):
        read(images=tmp_path / "images", features={"clip": (tmp_path / "clip.npz", None)})


def test_rows_without_ids_need_an_order(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"clip\.npy: which stimulus is in which row"):
        read(features={"clip": (tmp_path / "clip.npy", None)})
    with pytest.raises(InputError, match="has 3 rows for 1 stimuli"):
        read(features={"clip": (tmp_path / "clip.npy", None)}, table=table(tmp_path, "id\na\n"))
    np.save(tmp_path / "clip.npy", np.zeros(1))
    with pytest.raises(InputError, match=r"must be \(stimulus, dim\)"):
        read(features={"clip": (tmp_path / "clip.npy", None)}, table=table(tmp_path, "id\na\n"))


def test_trial_tables_alone_name_the_stimuli_and_their_attributes():
    trials = shown("b", "a", "b", label=["x", "", "x"], split=["train", "test", "train"], source=["p", "q", "p"])
    stimuli, sides = read(trials=trials)
    assert (list(stimuli.ids), list(stimuli.sources), list(stimuli.labels)) == (["a", "b"], ["q", "p"], ["", "x"])
    assert sides == {"a": "test", "b": "train"}


def test_contradictions_and_strange_sides_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"label of stimulus 'b': 'x' in trials\.csv, but 'y' in"):
        read(trials=shown("b", "b", label=["x", "y"]))
    with pytest.raises(InputError, match=r"stimuli\.csv: column 'split' says 'validation' for stimulus 'a'"):
        read(table=table(tmp_path, "id,split\na,validation\n"))


def test_unknown_stimuli_name_the_trial_table(tmp_path):
    with pytest.raises(NotFoundError, match=r"trials\.csv: 1 stimulus ids are not among the 3 of .*images, e\.g\. \['z'\]"):
        read(images=write_images(tmp_path), trials=shown("a", "z", "z"))
    stimuli, _ = read(images=tmp_path / "images", trials=shown("images/a.png"))
    assert list(stimuli.ids) == ["a", "b", "c"]


def test_what_is_wrong_with_several_tables_or_features_is_said_at_once(tmp_path):
    images = write_images(tmp_path)
    tables = {name: replace(shown(f"not {name}")["sub-01"], origin=f"{name}.csv") for name in ("one", "two")}
    with pytest.raises(NotFoundError, match=r"(?s)one\.csv: 1 stimulus ids.*two\.csv: 1 stimulus ids"):
        read(images=images, trials=tables)
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 2)))
    features = {name: (tmp_path / f"{name}.npy", None) for name in ("one", "two")}
    with pytest.raises(InputError, match=r"(?s)feature 'one' has 2 rows for 3.*feature 'two' has 2 rows for 3"):
        read(images=images, features=features)


def test_missing_and_doubled_images_are_refused(tmp_path):
    images = write_images(tmp_path)
    with pytest.raises(NotFoundError, match=r"1 stimuli are not among the 3 of .*images, e\.g\. \['d'\]"):
        read(images=images, table=table(tmp_path, "id\na\nd\n"))
    Image.fromarray(PIXELS["a"]).save(images / "a.jpg")
    assert list(find_images(images)) == ["a.jpg", "a.png", "b", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="empty: no image"):
        find_images(tmp_path / "empty")
    with pytest.raises(FileError, match="no such folder"):
        find_images(tmp_path / "nowhere")


def test_image_modes(tmp_path):
    grey = GENERATOR.integers(0, 255, (4, 5), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    transparent = np.concatenate([PIXELS["a"], PIXELS["a"][..., :1]], axis=2)
    Image.fromarray(transparent).save(tmp_path / "rgba.png")
    share = transparent[..., 3:] / 255
    assert np.array_equal(read_image(tmp_path / "rgba.png"), np.rint(PIXELS["a"] * share + 255 * (1 - share)))
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png")[..., 0], np.rint(grey * 200.0 / 257))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_truncated_images_are_refused(tmp_path, suffix):
    Image.fromarray(np.kron(PIXELS["a"], np.ones((9, 9, 1), np.uint8))).save(tmp_path / f"x{suffix}")
    whole = (tmp_path / f"x{suffix}").read_bytes()
    for length in range(0, len(whole) * 9 // 10, len(whole) // 20):
        (tmp_path / f"cut{suffix}").write_bytes(whole[:length])
        with pytest.raises(FileError, match="cut"):
            read_image(tmp_path / f"cut{suffix}")
