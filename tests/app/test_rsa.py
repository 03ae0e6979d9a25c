"""`pulvinar rsa`: numbers of the released data, one JSON object, and one line for bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import rsatoolbox
import scipy.stats

from pulvinar.app.data import open_data
from pulvinar.cli import main
from pulvinar.core.storage import read_arrays
from pulvinar.data.experiment import load, save
from pulvinar.datasets.arrays import from_arrays

N_IMAGES = 8


def patterns(seed: int, n: int = 4) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((N_IMAGES, 9)) + generator.standard_normal((n, N_IMAGES, 9)) * 0.7


def rdms(seed: int = 0) -> np.ndarray:
    made = np.stack([1 - np.corrcoef(rows) for rows in patterns(seed)])
    made[:, np.arange(N_IMAGES), np.arange(N_IMAGES)] = 0
    return made


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    np.savez(tmp_path / "measured.npz", fmri_evc=rdms(), fmri_it=rdms(1))
    return tmp_path / "measured.npz"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["rsa", *map(str, arguments), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def refuse(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["rsa", *map(str, arguments), "--quiet"]) == 2
    return capsys.readouterr().err


def test_ceiling_of_the_92_images(capsys: pytest.CaptureFixture[str], shared_data: Path) -> None:
    result = run(capsys, "ceiling", shared_data / "rdm92_algonauts" / "rdm92_algonauts2019.npz")
    rounded = {name: (round(row["upper"], 4), round(row["lower"], 4)) for name, row in result.items()}
    assert rounded == {"evc": (0.1589, 0.0686), "it": (0.3075, 0.2264)}
    assert (result["it"]["n_subjects"], result["it"]["n_images"]) == (15, 92)


def test_ceiling_of_every_kind_of_file(capsys: pytest.CaptureFixture[str], measured: Path, tmp_path: Path) -> None:
    expected = run(capsys, "ceiling", measured, "--target", "evc")["evc"]
    counts = ["n_images", "n_missing_pairs", "n_pairs", "n_subjects"]
    assert sorted(expected) == ["lower", "lower_r", "method", *counts, "upper", "upper_r"]
    np.save(tmp_path / "array.npy", rdms())
    rsatoolbox.rdm.RDMs(rdms()).save(str(tmp_path / "toolbox.h5"), file_type="hdf5")
    assert run(capsys, "ceiling", tmp_path / "array.npy")["array"] == pytest.approx(expected)
    assert run(capsys, "ceiling", tmp_path / "toolbox.h5")["toolbox"] == pytest.approx(expected)
    assert main(["rsa", "ceiling", str(measured)]) == 0
    assert f"{expected['upper']:.4f}" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize(("name", "tau"), [("kendall", "tau-a"), ("tau-a", "tau-a"), ("tau-b", "tau-b"), ("tau_b", "tau-b")])
def test_it_is_said_which_tau_it_is(capsys: pytest.CaptureFixture[str], measured: Path, name: str, tau: str) -> None:
    assert run(capsys, "ceiling", measured, "--target", "evc", "--method", name)["evc"]["method"] == tau
    assert main(["rsa", "ceiling", str(measured), "--method", name]) == 0
    assert capsys.readouterr().out.startswith(f"r: Kendall's {tau}\n")
    few = ("--permutations", "2", "--bootstrap", "2", "--method", name)
    assert run(capsys, "compare", measured, measured, *few)["method"] == tau
    assert main(["rsa", "compare", str(measured), str(measured), *few]) == 0
    assert capsys.readouterr().out.startswith(f"Kendall's {tau}; null")


def test_compare_is_scipy(capsys: pytest.CaptureFixture[str], measured: Path, tmp_path: Path) -> None:
    model = rdms(2)[0]
    np.save(tmp_path / "rdm.npy", model)
    result = run(capsys, "compare", tmp_path / "rdm.npy", measured, "--permutations", 50, "--bootstrap", 50)
    assert [(row["predicted"], row["target"]) for row in result["rows"]] == [("rdm", "evc"), ("rdm", "it")]
    upper = np.triu_indices(N_IMAGES, 1)
    rho = np.array([scipy.stats.spearmanr(model[upper], own[upper]).statistic for own in rdms()])
    row = result["rows"][0]
    assert row["r"] == pytest.approx(rho.mean())
    assert row["r2"] == pytest.approx((rho**2).mean())
    assert row["subject_r"] == pytest.approx(rho)
    assert row["r_interval"][0] <= row["r"] <= row["r_interval"][1]
    assert row["percent"] == pytest.approx(100 * row["r2"] / row["ceiling"]["upper"])
    assert row["percent_above_null"] < row["percent"]
    assert run(capsys, "compare", tmp_path / "rdm.npy", measured, "--permutations", 50, "--bootstrap", 50) == result
    assert main(["rsa", "compare", str(tmp_path / "rdm.npy"), str(measured), "--bootstrap", "9", "--permutations", "9"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rdm "))
    assert line.split()[:3] == ["rdm", "evc", f"{row['r']:+.4f}".replace("-", "−")]


def test_compare_models_and_confounds(capsys: pytest.CaptureFixture[str], measured: Path, tmp_path: Path) -> None:
    """Models of an .npz and of an rsatoolbox file by name; a model beyond itself has nothing left, beyond another it has."""
    np.savez(tmp_path / "models.npz", v1=rdms(2)[0], hmax=rdms(3)[0])
    np.savez(tmp_path / "one.npz", v1=rdms(2)[0])
    few = ("--permutations", 5, "--bootstrap", 5, "--target", "it", "--beyond", tmp_path / "one.npz")
    result = run(capsys, "compare", tmp_path / "models.npz", measured, *few)
    assert result["beyond"] == ["v1"]
    assert {row["predicted"]: row["partial_r"] is None for row in result["rows"]} == {"v1": True, "hmax": False}
    named = rsatoolbox.rdm.RDMs(rdms(2)[:2], rdm_descriptors={"name": ["v1", "mt"]})
    named.save(str(tmp_path / "named.h5"), file_type="hdf5")
    result = run(capsys, "compare", tmp_path / "named.h5", measured, *few)
    assert [row["predicted"] for row in result["rows"]] == ["v1", "mt"]
    result = run(capsys, "compare", measured, measured, "--method", "whitened_cosine", "--permutations", 5)
    assert result["rows"][0]["r_interval"] is None
    assert main(["rsa", "compare", *map(str, (tmp_path / "models.npz", measured, *few))]) == 0
    shown = capsys.readouterr().out
    assert "beyond them: beyond v1\n" in shown
    assert "explained by them" in shown


def test_meg_and_model_of_one_subject(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Time points are averaged; a single RDM on the measured side has no ceiling, and says so by null."""
    np.savez(tmp_path / "meg.npz", meg_early=np.stack([rdms(), rdms(1)], axis=1))
    np.save(tmp_path / "rdm.npy", rdms(2)[0])
    few = ("--permutations", 5, "--bootstrap", 5, "--beyond", tmp_path / "meg.npz")
    row = run(capsys, "compare", tmp_path / "rdm.npy", tmp_path / "meg.npz", *few)["rows"][0]
    assert (row["target"], row["n_subjects"]) == ("meg_early", 4)
    single = run(capsys, "compare", tmp_path / "meg.npz", tmp_path / "rdm.npy", "--permutations", 5, "--bootstrap", 5)["rows"][
        0
    ]
    assert (single["predicted"], single["ceiling"], single["percent"]) == ("meg_early", None, None)


def test_one_line_for_bad_input(capsys: pytest.CaptureFixture[str], measured: Path, tmp_path: Path) -> None:
    def bad(name: str, values: np.ndarray) -> Path:
        np.save(tmp_path / name, values)
        return tmp_path / name

    model = rdms(2)[0]
    spoilt = model.copy()
    spoilt[0, 1] = 9
    assert "not symmetric" in refuse(capsys, "compare", bad("a.npy", spoilt), measured)
    assert "a square matrix" in refuse(capsys, "compare", bad("b.npy", model[:, :-1]), measured)
    assert "the diagonal must be zero" in refuse(capsys, "compare", bad("c.npy", 1 - model), measured)
    assert "every pair is missing" in refuse(capsys, "compare", bad("d.npy", model * np.nan), measured)
    assert "RDMs over 7 images, but" in refuse(capsys, "compare", bad("e.npy", model[:7, :7]), measured)
    flat = np.stack([model, np.ones_like(model) - np.eye(N_IMAGES)])
    assert "of subj02: all pairs have the same" in refuse(capsys, "ceiling", bad("f.npy", flat))
    assert "2 subjects or more" in refuse(capsys, "ceiling", bad("g.npy", model))
    assert "(image, image)" in refuse(capsys, "ceiling", bad("h.npy", np.zeros(29)))
    assert "did you mean 'evc'" in refuse(capsys, "ceiling", measured, "--target", "evcc")
    assert "did you mean 'kendall'" in refuse(capsys, "ceiling", measured, "--method", "kendal")
    assert "1 or more are needed" in refuse(capsys, "compare", measured, measured, "--bootstrap", 0)
    assert "no such file" in refuse(capsys, "ceiling", tmp_path / "none.npz")
    rsatoolbox.rdm.RDMs(rdms()).save(str(tmp_path / "toolbox.pkl"), file_type="pkl")
    assert "a pickle, which is never opened" in refuse(capsys, "ceiling", tmp_path / "toolbox.pkl")


def test_ceiling_says_where_similarities_were_handed_in(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clusters = np.repeat(np.arange(2), N_IMAGES // 2)
    similar = np.where(np.equal.outer(clusters, clusters), 0.9, 0.1) * (1 - np.eye(N_IMAGES)) + 0.01 * rdms()
    np.save(tmp_path / "similar.npy", similar)
    np.save(tmp_path / "different.npy", rdms())
    assert main(["rsa", "ceiling", str(tmp_path / "similar.npy"), "--quiet"]) == 0
    assert "'similar' has the signs of similarities" in capsys.readouterr().err
    assert main(["rsa", "ceiling", str(tmp_path / "different.npy"), "--quiet"]) == 0
    assert "similarities" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects who see 16 crops of 8 pictures in three runs; early voxels follow their colour."""
    generator, ids = np.random.default_rng(0), [f"crop-{number:02d}" for number in range(16)]
    images = generator.integers(0, 255, (16, 4, 4, 3)).astype(np.uint8).repeat(16, 1).repeat(16, 2)
    colour = images.reshape(16, -1).astype(float) @ generator.standard_normal((images[0].size, 20))
    subjects, order = ("sub-01", "sub-02", "sub-03"), np.concatenate([generator.permutation(16) for _ in range(3)])
    noise = generator.standard_normal((3, 48, 20))
    experiment = from_arrays(
        name="study",
        responses={name: 3 * (colour / colour.std())[order] + own for name, own in zip(subjects, noise, strict=True)},
        stimulus_ids={name: [ids[image] for image in order] for name in subjects},
        geometry=dict.fromkeys(subjects, generator.standard_normal((20, 3))),
        stimuli=ids,
        sources=[f"picture-{number // 2}" for number in range(16)],
        labels=["odd" if number % 2 else "even" for number in range(16)],
        images=list(images),
        runs=dict.fromkeys(subjects, np.repeat([1, 2, 3], 16)),
        rois={name: {"V1": np.arange(20) < 12} for name in subjects},
        facts={"simulated": True},
    )
    return save(experiment, tmp_path_factory.mktemp("study") / "study")


@pytest.mark.long
def test_rdms_of_responses_are_compared_and_fitted(
    capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/rsa.md: what is built is joined by name, has pictures and their sources, and says what it is."""
    monkeypatch.chdir(tmp_path)
    built = run(capsys, "build", study, "--roi", "V1", "--out", "rdms.npz")
    assert (built["targets"], built["n_images"], built["folds"], built["distance"]) == (["V1"], 16, None, "crossnobis")
    assert built["subjects"]["sub-03"]["folds"] == "runs"
    run(capsys, "build", study, "--subject", "sub-01", "--distance", "correlation", "--out", "model.npz")
    again = run(capsys, "compare", "model.npz", "rdms.npz", "--permutations", 100, "--bootstrap", 20)
    assert again["joined"] == {"predicted": "by name"}
    assert again["rows"][0]["r"] > 0.3
    data = open_data("dissimilarities", "rdms.npz")
    assert data.simulated
    assert data.target("V1").subjects == ("sub-01", "sub-02", "sub-03")
    assert (data.stimuli.sources[4], data.stimuli.labels[4]) == ("picture-2", "even")
    kept = load(study).stimuli
    assert all(
        np.array_equal(data.stimuli.image(row), kept.image(kept.row_of[name])) for row, name in enumerate(data.stimuli.ids)
    )
    stored = read_arrays("rdms.npz")
    assert (str(stored["measure"]), json.loads(str(stored["made_from"]))["subjects"]["sub-01"]["n_voxels"]) == (
        "crossnobis",
        12,
    )
    few = ["network=squeezenet1_0", "image_size=64", "stages=2", "layouts=none:3", "epochs=3", "n_inner_folds=2", "crops=none"]
    assert main(["fit", "learning_to_aggregate", "--data", "rdms.npz", "--out", "run", "--set", "roi=V1", *few, "--quiet"]) == 0
    assert json.loads(Path("run/run.json").read_text())["data"]["simulated"] is True  # its page says so


def test_building_refuses_what_does_not_fit(capsys: pytest.CaptureFixture[str], study: Path, tmp_path: Path) -> None:
    assert "has no ROI 'IT'; there are: V1" in refuse(capsys, "build", study, "--roi", "IT", "--out", tmp_path / "a.npz")
    assert "written as .npz" in refuse(capsys, "build", study, "--out", tmp_path / "a.npy")
    (tmp_path / "b.npz").touch()
    assert "b.npz" in refuse(capsys, "build", study, "--out", tmp_path / "b.npz")
    assert main(["rsa", "build", str(study), "--out", str(tmp_path / "c.npz"), "--image-size", "8", "--quiet"]) == 0
    assert "16 images" in capsys.readouterr().out
    assert read_arrays(tmp_path / "c.npz")["images"].shape == (16, 8, 8, 3)
    assert not (tmp_path / "a.npy").exists()
