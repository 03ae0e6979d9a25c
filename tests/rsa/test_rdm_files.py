"""Files of RDMs joined by name. Oracles: scipy's Spearman on the pairs that are meant; the same r for any order of a file."""

import json

import h5py
import numpy as np
import pytest
import scipy.stats

from pulvinar.cli import main

N, UPPER = 9, np.triu_indices(9, 1)
NAMES = [f"obj{number}.png" for number in range(N)]


def rdm(values):
    made = 1 - np.corrcoef(values)
    np.fill_diagonal(made, 0)
    return (made + made.T) / 2


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(3)
    latent = generator.normal(size=(N, 6))
    subjects = np.stack([rdm(latent + 0.7 * generator.normal(size=latent.shape)) for _ in range(4)])
    return rdm(latent), subjects, generator.permutation(N)


def compare(capsys, predicted, measured):
    few = ["--permutations", "9", "--bootstrap", "9", "--json", "--quiet"]
    code = main(["rsa", "compare", str(predicted), str(measured), *few])
    shown = capsys.readouterr()
    return (json.loads(shown.out) if code == 0 else code), shown.err


def spearman(model, subjects, pairs=UPPER):
    return np.mean([scipy.stats.spearmanr(model[pairs], own[pairs]).statistic for own in subjects])


def write_toolbox(path, rdms, names):
    with h5py.File(path, "w") as file:
        file["dissimilarities"] = rdms[:, *UPPER]
        file.attrs["dissimilarity_measure"] = "correlation"
        file["pattern_descriptors/conds"] = np.array(names, dtype="S")
        file["pattern_descriptors/index"] = np.arange(N)
        file["rdm_descriptors/index"] = np.arange(len(rdms))


def test_any_order_of_a_file_gives_the_same_r(capsys, tmp_path, data):
    model, subjects, order = data
    turned, names = model[np.ix_(order, order)], [NAMES[row] for row in order]
    np.savez(tmp_path / "measured.npz", fmri_it=subjects, ids=NAMES)
    np.savez(tmp_path / "same.npz", model=model, ids=NAMES)
    np.savez(tmp_path / "turned.npz", model=turned, conditions=[f"stimuli\\{name}" for name in names])
    write_toolbox(tmp_path / "turned.h5", turned[None], [name.removesuffix(".png") for name in names])
    np.savez(tmp_path / "other_key.npz", model=turned, image_names=names, category=["a", "b", "c"] * 3)
    np.savez(tmp_path / "images.npz", model=turned, images=names)
    np.save(tmp_path / "turned.npy", turned)
    (tmp_path / "turned.csv").write_text("row,file\n" + "".join(f"{row},{name}\n" for row, name in enumerate(names)))
    for name in ("same.npz", "turned.npz", "other_key.npz", "images.npz", "turned.h5", "turned.npy"):
        found, said = compare(capsys, tmp_path / name, tmp_path / "measured.npz")
        assert found["rows"][0]["r"] == pytest.approx(spearman(model, subjects), abs=1e-12)
        assert (found["joined"], said) == ({"predicted": "by name"}, "")


def test_other_and_missing_images_are_refused_by_name(capsys, tmp_path, data):
    model, subjects, _ = data
    np.savez(tmp_path / "measured.npz", fmri_it=subjects, ids=NAMES)
    np.savez(tmp_path / "other.npz", model=model, ids=[f"x{row}" for row in range(N)])
    np.savez(tmp_path / "fewer.npz", model=model[:-1, :-1], ids=NAMES[:-1])
    assert "9 images are not among the 9 of" in compare(capsys, tmp_path / "other.npz", tmp_path / "measured.npz")[1]
    assert "e.g. ['obj0.png', 'obj1.png', 'obj2.png']" in compare(capsys, tmp_path / "other.npz", tmp_path / "measured.npz")[1]
    for pair in (("fewer.npz", "measured.npz"), ("measured.npz", "fewer.npz")):
        assert "e.g. ['obj8.png']" in compare(capsys, *(tmp_path / name for name in pair))[1]


def test_without_names_the_order_is_taken_on_trust_and_said(capsys, tmp_path, data):
    model, subjects, _ = data
    np.save(tmp_path / "model.npy", model)
    np.savez(tmp_path / "measured.npz", fmri_it=subjects, ids=NAMES)
    found, said = compare(capsys, tmp_path / "model.npy", tmp_path / "measured.npz")
    assert found["joined"]["predicted"].startswith("on trust")
    assert "warning" in said
    assert "no names of the images in" in said


def changed(array, place, value):
    copy = array.copy()
    copy[place] = value
    return copy


def test_forms_that_are_meant_give_the_same_r(capsys, tmp_path, data):
    model, subjects, _ = data
    np.save(tmp_path / "model.npy", model)
    np.save(tmp_path / "subjects.npy", subjects)
    forms = {
        "flat_model": (model[UPPER], subjects),
        "flat_subjects": (model, subjects[:, *UPPER]),
        "lower": (np.tril(model), subjects),
        "upper": (np.where(np.tri(N, k=-1), np.nan, model), subjects),
        "nan_diagonal": (model, changed(subjects, (slice(None), np.arange(N), np.arange(N)), np.nan)),
    }
    for name, (one, other) in forms.items():
        np.save(tmp_path / f"{name}_m.npy", one)
        np.save(tmp_path / f"{name}_s.npy", other)
        found, _ = compare(capsys, tmp_path / f"{name}_m.npy", tmp_path / f"{name}_s.npy")
        assert found["rows"][0]["r"] == pytest.approx(spearman(model, subjects), abs=1e-12), name
    np.savez(tmp_path / "extra.npz", fmri_it=subjects, confusion=np.arange(N * N).reshape(N, N), rotation=np.eye(3))
    found, said = compare(capsys, tmp_path / "model.npy", tmp_path / "extra.npz")
    assert found["rows"][0]["r"] == pytest.approx(spearman(model, subjects), abs=1e-12)
    assert "'confusion' is left out" in said
    assert "'rotation' is left out" in said


@pytest.mark.parametrize("where", ["subject", "model", "both", "image"])
def test_missing_pairs_are_left_out_of_all_and_counted(capsys, tmp_path, data, where):
    model, subjects, _ = data
    model, subjects = model.copy(), subjects.copy()
    lacking = np.zeros((N, N), bool)
    if where in ("subject", "both"):
        subjects[2, [3, 5], [5, 3]] = np.nan
        lacking[3, 5] = True
    if where in ("model", "both"):
        model[[0, 7], [7, 0]] = np.nan
        lacking[0, 7] = True
    if where == "image":
        subjects[1, 4], subjects[1, :, 4] = np.nan, np.nan
        lacking[4], lacking[:, 4] = True, True
    np.save(tmp_path / "m.npy", model)
    np.save(tmp_path / "s.npy", subjects)
    found, _ = compare(capsys, tmp_path / "m.npy", tmp_path / "s.npy")
    known = tuple(rows[~lacking[UPPER]] for rows in UPPER)
    row = found["rows"][0]
    assert row["r"] == pytest.approx(spearman(model, subjects, known), abs=1e-12)
    assert (row["n_missing_pairs"], row["n_pairs"]) == (int(lacking[UPPER].sum()), len(known[0]))
    assert np.isfinite(row["null_r"]["mean"])


def test_turned_axes_and_similarities_are_refused(capsys, tmp_path, data):
    model, subjects, _ = data
    generator = np.random.default_rng(0)
    square = np.stack([rdm(generator.normal(size=(N, 6))) for _ in range(N)])
    cases = {
        "last": (np.moveaxis(subjects, 0, -1), "on the last axis"),
        "last_square": (np.moveaxis(square, 0, -1), "on the last axis"),
        "similar": (1 - subjects, "the diagonal must be zero"),
        "similar_0": ((1 - subjects) * (1 - np.eye(N)), "are below 0: similarities, not dissimilarities"),
        "one_side": (changed(subjects, (0, 2, 3), np.nan), "is missing (NaN) on one side only"),
        "pairs_first": (subjects[:3, *UPPER].T, "or 3 RDMs of 9 images with the pairs on the first axis"),
        "infinite": (changed(subjects, (0, [2, 3], [3, 2]), np.inf), "infinite"),
    }
    np.save(tmp_path / "m.npy", model)
    for name, (array, message) in cases.items():
        np.save(tmp_path / f"{name}.npy", array)
        code, said = compare(capsys, tmp_path / "m.npy", tmp_path / f"{name}.npy")
        assert code == 2, name
        assert message in said, name
    np.savez(tmp_path / "crossed.npz", fmri_it=(1 - subjects) * (1 - np.eye(N)), measure="crossnobis")
    found, _ = compare(capsys, tmp_path / "m.npy", tmp_path / "crossed.npz")
    assert found["rows"][0]["r"] == pytest.approx(-spearman(model, subjects), abs=1e-12)
    assert "r is far below 0" in found["cautions"][-1]


def test_models_of_one_name_are_told_apart(capsys, tmp_path, data):
    model, subjects, _ = data
    np.savez(tmp_path / "measured.npz", fmri_it=subjects, ids=NAMES)
    write_toolbox(tmp_path / "models.h5", np.stack([model, subjects[0]]), NAMES)
    for names, told in ((["a", "a"], ["a_1", "a_2"]), (["a", "b"], ["a", "b"])):
        with h5py.File(tmp_path / "models.h5", "a") as file:
            file["rdm_descriptors"].pop("name", None)
            file["rdm_descriptors/name"] = np.array(names, dtype="S")
        rows = compare(capsys, tmp_path / "models.h5", tmp_path / "measured.npz")[0]["rows"]
        assert [row["predicted"] for row in rows] == told
        assert rows[0]["r"] == pytest.approx(spearman(model, subjects), abs=1e-12)
