"""Files of RDMs joined by name. Oracles: scipy's Spearman on the pairs that are meant; the same r for any order of a file."""

import json

import h5py
import numpy as np
import pytest
import scipy.stats

from pulvinar.cli import main
from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.data.image_ids import ImageNames
from pulvinar.rsa.rdm_files import RDMFile, align, read_rdms

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


def test_a_file_is_read_as_models_or_as_subjects(tmp_path, data, capsys):
    """Matrices of any number of images, also one that is a number of pairs (6, 3); condensed ones only where they cannot be."""
    model, subjects, _ = data
    movie = np.stack([subjects, subjects[::-1]], axis=1)
    for n in (3, 6, 9):
        np.save(tmp_path / "m.npy", model[:n, :n])
        found = read_rdms(str(tmp_path / "m.npy"))
        assert (list(found.models), found.targets, found.names, found.n_images) == (["m"], {}, None, n)
        np.testing.assert_array_equal(found.models["m"], model[:n, :n])
    assert capsys.readouterr().err == ""
    for name, array in (("subjects", subjects), ("movie", movie)):
        np.save(tmp_path / f"{name}.npy", array)
        found = read_rdms(str(tmp_path / f"{name}.npy"))
        assert (list(found.targets), found.models, found.n_images) == ([name], {}, 9)
        np.testing.assert_array_equal(found.targets[name], array)
        (tmp_path / f"{name}.csv").write_text("row,file\n" + "".join(f"{row},{image}\n" for row, image in enumerate(NAMES)))
        known = read_rdms(str(tmp_path / f"{name}.npy")).names
        assert (list(known.names), known.origin) == (NAMES, str(tmp_path / f"{name}.npy"))
    for name, array, wanted in (("flat", model[UPPER], model), ("flats", subjects[:, *UPPER], subjects)):
        np.save(tmp_path / f"{name}.npy", array)
        found = read_rdms(str(tmp_path / f"{name}.npy"))
        np.testing.assert_array_equal((found.models or found.targets)[name], wanted)
        assert f"{array.shape} is read as condensed RDMs of 9 images" in capsys.readouterr().err
    for shape in ((10,), (4, 35), (2, 2, 2, 5, 5), ()):
        np.save(tmp_path / "wrong.npy", np.zeros(shape))
        with pytest.raises(InputError, match=r"wrong.npy"):
            read_rdms(str(tmp_path / "wrong.npy"))


def test_a_file_that_is_wrong_is_named(tmp_path, data):
    model, subjects, _ = data
    np.save(tmp_path / "m.npy", model)
    (tmp_path / "m.csv").write_text("row,file\n" + "".join(f"{row},{name}\n" for row, name in enumerate(NAMES[:-1])))
    with pytest.raises(InputError, match=r"m.npy: RDMs over 9 images, but 8 names|8"):
        read_rdms(str(tmp_path / "m.npy"))
    for name, array, error in (
        ("similar", (1 - model) * (1 - np.eye(N)), InputError),
        ("similars", (1 - subjects) * (1 - np.eye(N)), InputError),
        ("turned", changed(model, (0, 1), 5.0), InputError),
        ("constant", np.stack([subjects[0], changed(subjects[1], (2, 2), 1.0)]), InputError),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises((error, DegenerateError), match=f"{name}.npy: "):
            read_rdms(str(tmp_path / f"{name}.npy"))
        with pytest.raises((error, DegenerateError), match=f"'{name}'"):
            read_rdms(str(tmp_path / f"{name}.npy"))
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["dissimilarities"] = subjects[:, *UPPER]
        for name in ("first", "second"):
            file[f"pattern_descriptors/{name}"] = np.array([f"{name}{row}" for row in range(N)], dtype="S")
    with pytest.raises(InputError, match=r"two.h5: pattern_descriptors: first, second could each name"):
        read_rdms(str(tmp_path / "two.h5"))


def test_rdms_of_the_toolbox_are_subjects_and_models(tmp_path, data):
    """Each is a model, by its name or its number from 1; together they are the subjects of a target."""
    _, subjects, _ = data
    write_toolbox(tmp_path / "four.h5", subjects, NAMES)
    found = read_rdms(str(tmp_path / "four.h5"))
    assert (list(found.targets), list(found.models)) == (["four"], ["four_1", "four_2", "four_3", "four_4"])
    np.testing.assert_array_equal(found.targets["four"], subjects)
    np.testing.assert_array_equal(found.models["four_3"], subjects[2])
    assert (list(found.names.names), found.n_images) == (NAMES, 9)
    with h5py.File(tmp_path / "four.h5", "a") as file:
        file["rdm_descriptors/name"] = np.array(["a", "b", "c", "d"], dtype="S")
    named = read_rdms(str(tmp_path / "four.h5"))
    np.testing.assert_array_equal(named.models["b"], subjects[1])
    with h5py.File(tmp_path / "four.h5", "a") as file:
        del file["pattern_descriptors"]
        file["dissimilarities"][2] = 1 - file["dissimilarities"][2] * 1.9
    with pytest.raises(InputError, match=r"four.h5: 'c': .* similarities"):
        read_rdms(str(tmp_path / "four.h5"))
    with h5py.File(tmp_path / "four.h5", "a") as file:
        file.attrs["dissimilarity_measure"] = "crossnobis"
    assert read_rdms(str(tmp_path / "four.h5")).names is None


def test_files_are_joined_by_name_or_on_trust(data):
    model, subjects, order = data
    names = [NAMES[row] for row in order]

    def file(path, rows, given):
        turned = model[np.ix_(rows, rows)]
        own = subjects[:, rows][:, :, rows]
        known = None if given is None else ImageNames(given, path)
        return RDMFile(path=path, targets={"t": own}, models={"m": turned}, names=known)

    reference, plain = file("ref", np.arange(N), NAMES), file("plain", np.arange(N), None)
    joined, how = align(file("turned", order, names), reference)
    assert (how, joined.names, joined.path) == ("by name", reference.names, "turned")
    np.testing.assert_array_equal(joined.models["m"], model)
    np.testing.assert_array_equal(joined.targets["t"], subjects)
    for one, other, lacking in (
        (plain, reference, "plain"), (reference, plain, "plain"), (plain, plain, "plain and plain"),
    ):  # fmt: skip
        kept, how = align(one, other)
        assert kept is one
        assert how == f"on trust, in the order of the rows: no names of the images in {lacking}"
    few = file("few", np.arange(5), None)
    with pytest.raises(InputError, match="few: RDMs over 5 images, but ref is over 9"):
        align(few, reference)
    for one, other in ((file("part", np.arange(5), NAMES[:5]), reference), (reference, file("part", np.arange(5), NAMES[:5]))):
        with pytest.raises(NotFoundError, match=r"4 images are not among the 5 of part, e.g. \['obj5.png'"):
            align(one, other)
