"""Oracles: scipy's Spearman in the loop that the challenge's readme describes, published numbers, the planted truth."""

import json
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from scipy.optimize import least_squares
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, DegenerateError, FileError, InputError, NotFoundError
from pulvinar.data import photographs
from pulvinar.data.image_files import read_image
from pulvinar.data.matlab_files import write_matlab_7_3
from pulvinar.data.planted_dissimilarities import embedding_rdm
from pulvinar.datasets import algonauts2019
from pulvinar.datasets.algonauts2019 import generate, inspect, load, load_all, load_truth, score
from pulvinar.networks.fixed_networks import RandomConvolutionNetwork
from pulvinar.scores.rdm_ceiling import algonauts2019_track

TINY = {"sets": (8, 10), "n_subjects": 4, "n_times": 5, "image_size": 32}
SMALL = "Training_Data/8_Image_Set"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A planted folder of two small sets, never changed."""
    folder = tmp_path_factory.mktemp("algonauts") / "world"
    generate(folder, seed=1, **TINY)
    return folder


@pytest.fixture
def own(world, tmp_path):
    """The small set of the world in a folder of the test's own."""
    return shutil.copytree(world / SMALL, tmp_path / "own")


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_set_is_read_as_h5py_shows_it_with_all_axes_turned(world):
    data = load(world / SMALL)
    assert list(data.targets) == ["evc", "it", "meg_early", "meg_late"]
    with h5py.File(world / SMALL / "target_fmri.mat") as fmri, h5py.File(world / SMALL / "target_meg.mat") as meg:
        assert fmri["EVC_RDMs"].shape == (8, 8, 4)
        assert meg["MEG_RDMs_late"].shape == (8, 8, 5, 4)
        assert np.array_equal(data.target("evc").rdms, np.transpose(fmri["EVC_RDMs"][...]))
        assert np.array_equal(data.target("meg_late").rdms, np.transpose(meg["MEG_RDMs_late"][...]))
    assert data.target("it").rdms.shape == (4, 8, 8)
    assert data.target("meg_early").rdms.shape == (4, 5, 8, 8)
    assert data.target("meg_early").times.tolist() == [70, 75, 80, 85, 90]
    assert data.target("meg_late").times[[0, -1]].tolist() == [140, 160]
    assert data.target("evc").times is None


def test_images_stand_in_the_order_of_the_rdms_and_are_those_of_the_folder(world):
    stimuli = load(world / SMALL).stimuli
    assert stimuli.ids == [f"image_{number:02d}" for number in range(1, 9)]
    truth = load_truth(world)
    assert stimuli.sources == truth["sets"]["8"]["sources"]
    for row, name in enumerate(stimuli.ids):
        assert np.array_equal(stimuli.image(row), read_image(world / SMALL / "8images" / f"{name}.jpg"))


def test_without_the_jpg_folder_pixels_come_from_the_matlab_file_and_without_both_there_are_none(world, own):
    expected = load(world / SMALL).stimuli
    shutil.rmtree(own / "8images")
    from_matlab = load(own).stimuli
    assert from_matlab.ids == expected.ids
    assert all(np.array_equal(from_matlab.image(row), expected.image(row)) for row in range(8))
    (own / "8images.mat").unlink()
    bare = load(own).stimuli
    assert bare.ids == expected.ids
    assert bare.read_image is None


def test_a_jpg_folder_alone_is_sorted_by_number(own):
    (own / "8images.mat").unlink()
    for number in range(1, 9):
        (own / "8images" / f"image_{number:02d}.jpg").rename(own / "8images" / f"image_{number + 4}.jpg")
    assert load(own).stimuli.ids == [f"image_{number}" for number in range(5, 13)]


def test_version_5_and_npz_and_any_subset_of_targets_give_the_same(world, own):
    expected = load(world / SMALL)
    arrays = {"EVC_RDMs": expected.target("evc").rdms, "IT_RDMs": expected.target("it").rdms}
    (own / "target_meg.mat").unlink()
    scipy.io.savemat(own / "target_fmri.mat", arrays)
    data = load(own)
    assert list(data.targets) == ["evc", "it"]
    assert np.array_equal(data.target("it").rdms, expected.target("it").rdms)
    (own / "target_fmri.mat").unlink()
    np.savez(own / "target_meg.npz", meg_late=expected.target("meg_late").rdms)
    data = load(own)
    assert list(data.targets) == ["meg_late"]
    assert np.array_equal(data.target("meg_late").rdms, expected.target("meg_late").rdms)
    np.savez(own / "all.npz", **arrays, MEG_RDMs_early=expected.target("meg_early").rdms)
    data = load(own / "all.npz")
    assert list(data.targets) == ["evc", "it", "meg_early"]


def test_one_target_file_is_read_over_the_images_beside_it(world, own):
    (own / "target_meg.mat").rename(own / "target_meg_TS2.mat")
    data = load(own / "target_meg_TS2.mat")
    assert list(data.targets) == ["meg_early", "meg_late"]
    assert data.stimuli.ids == load(world / SMALL).stimuli.ids


def test_a_folder_above_needs_one_set_or_a_choice(world, tmp_path):
    with pytest.raises(InputError, match=r"2 sets.*algonauts2019:.*10_Image_Set.*algonauts2019:.*8_Image_Set"):
        load(world)
    both = load_all(world)
    assert sorted(both) == [8, 10]
    assert [len(data.stimuli) for data in both.values()] == list(both)
    only = tmp_path / "only"
    shutil.copytree(world / SMALL, only / SMALL)
    assert load(only).fingerprint() == load(only / SMALL).fingerprint()
    with pytest.raises(FileError, match="no target_fmri or target_meg"):
        load(only / SMALL / "8images")
    with pytest.raises(FileError, match="no such file or folder"):
        load(tmp_path / "none")


# --- bad input --------------------------------------------------------------------------------------------------------

BAD_RDMS = {
    "square": (lambda x: x[:, :, :7], InputError, "square matrix is needed"),
    "symmetric": (lambda x: x + np.triu(np.ones((8, 8)), 1) * 0.1, InputError, "not symmetric"),
    "nan": (lambda x: np.where(x == x.max(), np.nan, x), InputError, "missing"),
    "diagonal": (lambda x: x + np.eye(8), InputError, "diagonal must be zero"),
    "flat": (lambda x: np.concatenate([x[:3], 1 - np.eye(8)[None]]), DegenerateError, "subj04.*same dissimilarity"),
    "axes": (lambda x: x.T, InputError, "mixed them up"),
    "dimensions": (lambda x: x[0], InputError, r"\(subject, image, image\) is needed"),
}


@pytest.mark.long
@pytest.mark.parametrize("version", ["5", "7.3", "npz"])
@pytest.mark.parametrize("kind", BAD_RDMS)
def test_rdms_that_are_none_are_refused_naming_the_file_and_the_target(own, kind, version):
    change, error, text = BAD_RDMS[kind]
    arrays = {"EVC_RDMs": change(load(own).target("evc").rdms)}
    path = own / "target_fmri.mat"
    if version == "5":
        scipy.io.savemat(path, arrays)
    elif version == "7.3":
        write_matlab_7_3(path, arrays)
    else:
        path.unlink()
        np.savez(own / "target_fmri.npz", **arrays)
    with pytest.raises(error, match=rf"target_fmri.*(evc|EVC).*{text}"):
        load(own)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_target_file_is_refused(own, share):
    path = own / "target_meg.mat"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FileError, match=r"target_meg\.mat"):
        load(own)


def test_images_must_be_those_of_the_rdms(own):
    (own / "8images" / "image_03.jpg").rename(own / "8images" / "other.jpg")
    with pytest.raises(NotFoundError, match=r"8images\.mat: 1 images are not among the 8 of .*8images, .*image_03"):
        load(own)
    (own / "8images.mat").unlink()
    (own / "8images" / "other.jpg").unlink()
    with pytest.raises(InputError, match="7 images for RDMs over 8"):
        load(own)
    (own / "8images").rename(own / "9images")
    with pytest.raises(InputError, match="RDMs over 8 images, but the images are 9images"):
        load(own)


def test_targets_over_different_images_twice_or_of_another_kind_are_refused(world, own):
    other = load_all(world)[10].target("meg_early").rdms
    write_matlab_7_3(own / "target_meg.mat", {"MEG_RDMs_early": other})
    with pytest.raises(InputError, match=r"different numbers of images.*'evc': 8.*'meg_early': 10"):
        load(own)
    write_matlab_7_3(own / "target_meg.mat", {"EVC_RDMs": load(own / "target_fmri.mat").target("evc").rdms})
    with pytest.raises(InputError, match="evc stands in another file"):
        load(own)
    write_matlab_7_3(own / "target_meg.mat", {"RDM": other})
    with pytest.raises(InputError, match="it holds RDM"):
        load(own)
    np.savez(own / "target_meg.npz", meg_early=other)
    with pytest.raises(InputError, match=r"target_meg\.mat and target_meg\.npz are both there"):
        load(own)


# --- scores -----------------------------------------------------------------------------------------------------------


def challenge_score(predicted, measured):
    """rho of every subject (of MEG: the mean over times), squared, averaged; the same of the mean RDM is the ceiling."""

    def rho(model, subject):
        times = subject if subject.ndim == 3 else subject[None]
        return np.mean([spearmanr(squareform(rdm, checks=False), squareform(model, checks=False))[0] for rdm in times])

    with_all = measured.mean(0) if measured.ndim == 3 else None
    ceiling = None if with_all is None else np.mean([rho(with_all, subject) ** 2 for subject in measured])
    return [rho(predicted, subject) for subject in measured], ceiling


def test_score_is_that_of_the_challenges_loop(world):
    data = load(world / SMALL)
    predicted = {target: data.target(target).rdms.reshape(-1, 8, 8)[:2].mean(0) for target in data.targets}
    result = score(predicted, data)
    for target in data.targets:
        rho, ceiling = challenge_score(predicted[target], data.target(target).rdms)
        np.testing.assert_allclose(list(result[target]["rho"].values()), rho, atol=1e-12)
        np.testing.assert_allclose(result[target]["r"], np.mean(rho), atol=1e-12)
        np.testing.assert_allclose(result[target]["r2"], np.mean(np.square(rho)), atol=1e-12)
        if ceiling is not None:
            np.testing.assert_allclose(result[target]["ceiling"], ceiling, atol=1e-12)
        assert result[target]["lower_ceiling"] < result[target]["ceiling"]
    for track, pair in {"fmri": ("evc", "it"), "meg": ("meg_early", "meg_late")}.items():
        r2, top = (sum(result[target][key] for target in pair) for key in ("r2", "ceiling"))
        np.testing.assert_allclose(result[track]["percent"], 100 * r2 / top)
    assert list(result["evc"]["rho"]) == ["subj01", "subj02", "subj03", "subj04"]


def test_the_sign_stands_beside_the_square(world):
    data = load(world / SMALL)
    rdm = data.target("evc").rdms.mean(0)
    upside_down = np.where(np.eye(8) > 0, 0, 2 - rdm)
    right, wrong = score({"evc": rdm}, data)["evc"], score({"EVC_RDMs": upside_down}, data)["evc"]
    np.testing.assert_allclose(wrong["percent"], right["percent"])
    np.testing.assert_allclose(wrong["r"], -right["r"])
    np.testing.assert_allclose(right["percent"], 100)  # the mean of all subjects is the upper ceiling itself


def test_published_and_recomputed_ceilings_agree_on_the_released_fmri_rdms(shared_data):
    data = load(shared_data / "rdm92_algonauts" / "rdm92_algonauts2019.npz")
    predicted = {"evc": data.target("evc").rdms[0], "it": data.target("it").rdms[0]}
    recomputed, published = score(predicted, data), score(predicted, data, ceilings="published")
    for target in predicted:
        assert round(recomputed[target]["ceiling"], 4) == algonauts2019.CEILINGS[92][target] == published[target]["ceiling"]
        assert round(recomputed[target]["lower_ceiling"], 4) == algonauts2019.LOWER_CEILINGS[92][target]


def test_track_formula_gives_the_papers_headlines():
    ceilings = algonauts2019.CEILINGS[78]
    for targets, percent, headline in (
        (("evc", "it"), (24.93, 15.55), 20.21),
        (("meg_early", "meg_late"), (51.21, 35.10), 42.26),
    ):
        tops = [ceilings[target] for target in targets]
        r2 = [part * top / 100 for part, top in zip(percent, tops, strict=True)]
        assert round(algonauts2019_track(r2, tops), 2) == headline


def test_predictions_must_fit_the_set(world):
    data = load(world / SMALL)
    rdm = load_all(world)[10].target("evc").rdms[0]
    with pytest.raises(InputError, match="over 10 images, 8 are needed"):
        score({"evc": rdm}, data)
    with pytest.raises(NotFoundError, match="published for sets of 92, 118, 78 images, not of 8"):
        score({"evc": data.target("evc").rdms[0]}, data, ceilings="published")


# --- planted worlds ---------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_bytes_and_another_seed_another_world(world, tmp_path):
    generate(tmp_path / "again", seed=1, **TINY)
    names = sorted(path.relative_to(world) for path in world.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file())
    for name in names:
        if name.suffix != ".npz":  # a .npz states when it was written
            assert (world / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    generate(tmp_path / "other", seed=2, **TINY)
    assert load_truth(tmp_path / "other")["scales"] != load_truth(world)["scales"]
    assert not np.array_equal(load_all(tmp_path / "other")[8].target("it").rdms, load_all(world)[8].target("it").rdms)


def test_features_follow_from_the_images_on_disk_and_the_specification_in_the_truth(world):
    both, specification = load_all(world), load_truth(world)["network"]
    size = (specification["input_pixels"],) * 2
    reduced = [
        np.asarray(Image.fromarray(both[n].stimuli.image(row)).resize(size, Image.Resampling.BICUBIC))
        for n in TINY["sets"]
        for row in range(n)
    ]
    images = torch.from_numpy(np.stack(reduced))
    network = RandomConvolutionNetwork(
        **{key: specification[key] for key in ("seed", "widths", "kernel", "nonlinearity")}, grid=1
    )
    network.calibrate(images)
    for stage, maps in enumerate(network.stages(images, grids=specification["grids"]), start=1):
        expected = maps - maps.mean(0)
        expected = (expected / expected.square().mean(0).sum().sqrt()).flatten(2).transpose(1, 2).numpy()
        stored = np.concatenate([both[n].stimuli.features[f"stage{stage}"] for n in TINY["sets"]])
        np.testing.assert_allclose(stored, expected, atol=1e-5)


def test_every_image_has_the_source_it_was_cut_from_and_sets_share_none(monkeypatch):
    grey = {}
    monkeypatch.setattr(
        photographs, "read_picture", lambda path: np.full((9, 9, 3), grey.setdefault(path.name, 10 * len(grey)))
    )
    monkeypatch.setattr(photographs, "crops", lambda picture, n, size, rng, **limits: np.repeat(picture[None], n, axis=0))
    images, sources = algonauts2019.writer._draw_images(algonauts2019.Config(sets=(40, 30)), np.random.default_rng(0))
    for n in (40, 30):
        assert images[n].shape[0] == len(sources[n]) == n
        assert [grey[source.split("/")[1]] for source in sources[n]] == images[n][:, 0, 0, 0].tolist()
    assert not set(sources[40]) & set(sources[30])


def test_stages_weigh_the_same_at_equal_scales(world):
    both = load_all(world)
    for stage in both[8].stimuli.features:
        together = np.concatenate([data.stimuli.features[stage].reshape(len(data.stimuli), -1) for data in both.values()])
        np.testing.assert_allclose(together.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(together.var(0).sum(), 1, atol=1e-5)


def test_without_noise_the_rdms_are_those_of_the_scaled_stages(tmp_path):
    planted = {"it": {"a": 1.0, "b": 0.25}, "meg_late": {"a": 0.5, "b": 2.0}}

    def network(images):
        small = images[:, ::8, ::8].astype(np.float32)
        return {"a": small, "b": small[:, :2] ** 2 / 255}

    generate(tmp_path / "w", seed=3, **TINY, noise=0, meg_noise=0, scales=planted, features=network)
    data = load_all(tmp_path / "w")[10]
    assert list(data.targets) == ["it", "meg_late"]
    features = network(np.stack([data.stimuli.image(row) for row in range(10)]))
    for subject in range(4):
        np.testing.assert_allclose(data.target("it").rdms[subject], embedding_rdm(features, planted["it"]), atol=1e-6)
        np.testing.assert_allclose(
            data.target("meg_late").rdms[subject, 2], embedding_rdm(features, planted["meg_late"]), atol=1e-6
        )
    spread = data.target("meg_late").rdms[0][:, *np.triu_indices(10, 1)].std(1)
    np.testing.assert_allclose(spread / spread[2], load_truth(tmp_path / "w")["course"], rtol=1e-6)


def fitted_scales(sets, target, weights):
    """Stage scales by plain least squares on the mean RDM of all sets, length 1; weights: of the time points of MEG."""
    features = [{stage: x.astype(float) for stage, x in data.stimuli.features.items()} for data in sets]
    rdms = [data.target(target).rdms.mean(0) for data in sets]
    rdms = rdms if weights is None else [np.tensordot(weights / weights.sum(), rdm, 1) for rdm in rdms]

    def residuals(scales):
        predicted = [embedding_rdm(x, dict(zip(x, scales, strict=True))) for x in features]
        return np.concatenate([(p - r)[np.triu_indices(len(r), 1)] for p, r in zip(predicted, rdms, strict=True)])

    fit = np.abs(least_squares(residuals, np.ones(len(features[0]))).x)
    return fit / np.linalg.norm(fit)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 7])
def test_planted_scales_are_found_from_fmri_and_from_meg_near_mid_window(tmp_path, seed):
    """Over eight seeds: rank correlations .9 or 1.0 for fMRI and for MEG near mid-window; .3 to .9 for its plain average."""
    truth = generate(tmp_path / "w", seed=seed, image_size=64)
    sets = list(load_all(tmp_path / "w").values())
    middle = np.exp(-(np.linspace(-0.5, 0.5, 20) ** 2) / (2 * 0.15**2))
    for target in ("evc", "it", "meg_early", "meg_late"):
        planted = np.array(list(truth["scales"][target].values()))
        found = fitted_scales(sets, target, middle if "meg" in target else None)
        assert spearmanr(found, planted)[0] >= 0.89
        if "meg" in target:
            plain = fitted_scales(sets, target, np.ones(20))
            error, error_plain = (np.abs(x - planted / np.linalg.norm(planted)).mean() for x in (found, plain))
            assert error < error_plain


def test_inspect_counts_what_is_there(world):
    result = inspect(world)
    assert sorted(entry["images"] for entry in result["sets"]) == [8, 10]
    entry = result["sets"][1]
    assert entry["targets"]["evc"]["subjects"] == 4
    assert entry["targets"]["meg_early"]["times_ms"] == [70, 75, 80, 85, 90]
    assert entry["targets"]["it"]["published_upper"] is None
    assert result["truth"] is True
    assert inspect(world / SMALL / "target_fmri.mat")["sets"][0]["images"] == 8


def test_worlds_that_cannot_be_planted_are_refused_before_anything_is_written(tmp_path, world):
    with pytest.raises(ConfigError) as caught:
        generate(tmp_path / "w", sets=(2,), n_subjects=1, noise_autocorrelation=1.0, signal_window=0.0, colour=3)
    for text in (
        "sets",
        "n_subjects is 2 or more",
        "noise_autocorrelation lies in",
        "signal_window is above",
        "'colour' is not",
    ):
        assert text in str(caught.value)
    with pytest.raises(NotFoundError, match="v1 is no target"):
        generate(tmp_path / "w", **TINY, scales={"v1": {}})
    with pytest.raises(NotFoundError, match="stages are stage1"):
        generate(tmp_path / "w", **TINY, scales={"evc": {"layer1": 1.0}})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileError, match="exists already"):
        generate(world)
    with pytest.raises(FileError, match=r"no truth\.json"):
        load_truth(tmp_path)


def test_the_command_line_plants_and_inspects(tmp_path, capsys):
    out, settings = str(tmp_path / "w"), [f"{key}={value}" for key, value in TINY.items() if key != "sets"]
    assert (
        main(["data", "simulate", "--layout", "algonauts2019", "--out", out, "--seed", "1", "--set", "sets=8,10", *settings])
        == 0
    )
    assert load(tmp_path / "w" / SMALL).stimuli.ids[0] == "image_01"
    capsys.readouterr()
    assert main(["data", "inspect", f"algonauts2019:{out}/{SMALL}", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["sets"][0]["targets"]) == ["evc", "it", "meg_early", "meg_late"]
    assert main(["data", "simulate", "--layout", "arrays", "--out", str(tmp_path / "x")]) == 2
    assert "nothing is written in the layout" in capsys.readouterr().err


def test_the_command_line_submits_and_scores(world, tmp_path, capsys):
    data = load(world / SMALL)
    for target in data.targets:
        np.save(tmp_path / f"{target}.npy", data.target(target).rdms.reshape(-1, 8, 8)[0])
    pairs = [f"{target}={tmp_path / target}.npy" for target in data.targets]
    assert main(["rsa", "submit", *pairs, "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    assert main(["rsa", "score", str(tmp_path / "out"), f"algonauts2019:{world / SMALL}", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = score(algonauts2019.read_submission(tmp_path / "out"), data)
    assert {row.pop("joined")[:8] for row in shown.values()} == {"on trust"}
    assert shown == expected
    assert main(["rsa", "score", str(tmp_path / "out" / "submit_fmri.zip"), str(world / SMALL)]) == 0
    printed = capsys.readouterr()
    table = printed.out.splitlines()
    assert [line.split()[0] for line in table[-3:]] == ["evc", "it", "fmri"]
    assert "on trust" in printed.err
    assert float(table[-1].split()[-1]) == pytest.approx(expected["fmri"]["percent"], abs=0.006)
    assert main(["rsa", "score", str(tmp_path / "out"), str(world / SMALL), "--published"]) == 2
    assert "not of 8" in capsys.readouterr().err
