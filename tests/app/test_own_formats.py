"""A lab's own study in each format, from files to pages: what was kept is where the signal was planted, left is left.

Oracle: half of the places of one hemisphere follow the embedding (and the pictures' colours); the others are noise.
"""

import importlib.util
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.io
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, ScalarAxis
from nibabel.gifti import GiftiDataArray, GiftiImage
from PIL import Image

from pulvinar.cli import main
from pulvinar.data.matlab_files import write_matlab_7_3

N_IMAGES, N_SIDE = 72, 36  # vertices of a hemisphere with values
FSAVERAGE5 = 10_242
SELECT = ["pretrain=false", "epochs=3", "hidden=16", "n_voxels=12", "n_rounds=3", "epochs_per_round=15", "n_folds=2"]
ENCODE = ["alphas=10,1000", "n_permutations=20", "folds=2", "baseline=none", "network=squeezenet1_1", "image_size=32"]
ENCODE += ["n_stages=2", "pool=4"]


def planted(folder: Path) -> np.ndarray:
    """Responses (trial, place): the first 18 places of the right hemisphere have the signal. Writes all but the responses."""
    rng = np.random.default_rng(0)
    ids = [f"img{row:02d}" for row in range(N_IMAGES)]
    pixels = np.kron(rng.integers(0, 255, (N_IMAGES, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    (folder / "images").mkdir()
    for name, picture in zip(ids, pixels, strict=True):
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
    halves = np.concatenate([pixels[:, :, :16].mean((1, 2)), pixels[:, :, 16:].mean((1, 2))], axis=1)
    halves = ((halves - halves.mean(0)) / halves.std(0)).astype(np.float32)
    np.savez(folder / "clip.npz", id=np.array(ids), clip=halves)
    order = rng.permutation(np.repeat(np.arange(N_IMAGES), 2))
    (folder / "trials.csv").write_text("stimulus\n" + "\n".join(ids[row] for row in order) + "\n")
    values = rng.standard_normal((len(order), 2 * N_SIDE))
    values[:, N_SIDE : N_SIDE + 18] += 4 * halves[order] @ rng.standard_normal((6, 18))
    return values.astype(np.float32)


def study(folder: Path, lines: str) -> Path:
    head = '[stimuli]\nimages = "images/"\nfeatures.clip = { file = "clip.npz", array = "clip" }\n[split]\ntest_share = 0.3\n'
    (folder / "study.toml").write_text(f'{head}[[subject]]\nname = "sub-01"\ntrials = "trials.csv"\n{lines}\n')
    return folder / "study.toml"


def on_fsaverage5(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(trial, vertex) of each hemisphere, values at every hundredth vertex and 0, as in a medial wall, elsewhere."""
    halves = [np.zeros((len(values), FSAVERAGE5), np.float32) for _ in "LR"]
    for half, own in zip(halves, np.split(values, 2, axis=1), strict=True):
        half[:, ::100][:, :N_SIDE] = own
    return halves[0], halves[1]


def write_gifti(folder, values):
    for side, half in zip(("lh", "rh"), on_fsaverage5(values), strict=True):
        nibabel.save(GiftiImage(darrays=[GiftiDataArray(row) for row in half]), folder / f"{side}.func.gii")
    return 'responses = { left = "lh.func.gii", right = "rh.func.gii" }\nsurface = "fsaverage5"\ndrop_bad_voxels = true'


def write_mgh(folder, values):
    for side, half in zip(("lh", "rh"), on_fsaverage5(values), strict=True):
        nibabel.save(nibabel.MGHImage(np.ascontiguousarray(half.T)[:, None, None], np.eye(4)), folder / f"{side}.mgh")
    return 'responses = { left = "lh.mgh", right = "rh.mgh" }\nsurface = "fsaverage5"\ndrop_bad_voxels = true'


def cortex() -> BrainModelAxis:
    rows = np.zeros(FSAVERAGE5, bool)
    rows[::100][:N_SIDE] = True
    parts = [BrainModelAxis.from_mask(rows, name) for name in ("CortexLeft", "CortexRight")]
    return parts[0] + parts[1]


def write_cifti(folder, values):
    volume = np.zeros((6, 6, 6), bool)
    volume[2:4, 2:4, 2:4] = True
    places = cortex() + BrainModelAxis.from_mask(volume, "Thalamus_left", affine=np.diag([2.0, 2, 2, 1]))
    below = np.random.default_rng(1).standard_normal((len(values), 8)).astype(np.float32)
    rows = ScalarAxis([f"trial {number}" for number in range(len(values))])
    Cifti2Image(np.hstack([values, below]), Cifti2Header.from_axes((rows, places))).to_filename(folder / "b.dscalar.nii")
    return 'responses = "b.dscalar.nii"\nsurface = "fsaverage5"\ngreyordinates = ["left", "right", "subcortex"]'


def points(folder):
    np.save(
        folder / "xyz.npy", np.stack([np.repeat([-30.0, 30], N_SIDE), np.tile(np.arange(N_SIDE) * 2.0, 2), np.zeros(72)], 1)
    )
    return '\ncoordinates = "xyz.npy"'


def write_matlab(folder, values):
    write_matlab_7_3(folder / "b.mat", {"betas": values.T})
    return 'responses = { file = "b.mat", array = "betas" }\naxes = "voxel,trial"' + points(folder)


def write_matlab_5(folder, values):
    scipy.io.savemat(folder / "b.mat", {"betas": values.T})
    return 'responses = "b.mat"\naxes = "voxel,trial"' + points(folder)


def write_parquet(folder, values):
    import pandas as pd

    names = {f"v{number:03d}": column for number, column in enumerate(values.T)}
    shown = (folder / "trials.csv").read_text().split()[1:]
    pd.DataFrame({"stimulus": shown, **names}).to_parquet(folder / "b.parquet")
    return 'responses = "b.parquet"' + points(folder)


WRITERS = {
    "gifti": write_gifti,
    "mgh": write_mgh,
    "cifti": write_cifti,
    "matlab 7.3": write_matlab,
    "matlab 5": write_matlab_5,
    "parquet": write_parquet,
}
pytestmark = pytest.mark.slow  # six fits each of a selection and of an encoding model


def kept_right(folder: Path, form: str) -> np.ndarray:
    """The right vertices that a run kept, from the files that it wrote in the format of the data."""
    if form == "gifti":
        assert not nibabel.load(folder / "lh.roi_selected.label.gii").agg_data()[1::100].any()
        return np.flatnonzero(nibabel.load(folder / "rh.roi_selected.label.gii").agg_data())
    if form == "mgh":
        return np.flatnonzero(np.asarray(nibabel.load(folder / "rh.roi_selected.mgh").dataobj).reshape(-1))
    image = nibabel.load(folder / "roi_selected.dscalar.nii")
    places = image.header.get_axis(1)
    return places.vertex[(places.name == "CIFTI_STRUCTURE_CORTEX_RIGHT") & (image.get_fdata()[0] > 0)]


@pytest.mark.parametrize("form", list(WRITERS))
def test_voxels_are_selected_where_the_signal_is(tmp_path, form):
    if form == "parquet" and importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow (extra tables) is not installed")
    source = study(tmp_path, WRITERS[form](tmp_path, planted(tmp_path)))
    assert main(["data", "convert", str(source), str(tmp_path / "kept"), "--quiet"]) == 0
    run, settings = tmp_path / "run", [part for pair in SELECT for part in ("--set", pair)]
    assert main(["fit", "troi", "--data", str(tmp_path / "kept"), "--out", str(run), *settings, "--quiet"]) == 0
    with np.load(run / "artifacts" / "maps.npz") as maps:
        selected = np.flatnonzero(maps["selected"])
    assert len(selected) == 12
    assert np.mean((selected >= N_SIDE) & (selected < N_SIDE + 18)) > 0.5  # of 18 in 72: a quarter by chance
    assert main(["report", str(run), "--quiet"]) == 0
    assert "data:image" in (run / "report.html").read_text()
    if form in ("gifti", "mgh", "cifti"):
        own = (selected[(selected >= N_SIDE) & (selected < 2 * N_SIDE)] - N_SIDE) * 100
        np.testing.assert_array_equal(kept_right(run / "artifacts", form), own)


@pytest.mark.parametrize("form", list(WRITERS))
def test_an_encoding_model_predicts_where_the_signal_is(tmp_path, form, monkeypatch):
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path / "cache"))
    source = study(tmp_path, WRITERS[form](tmp_path, planted(tmp_path)))
    run, settings = tmp_path / "run", [part for pair in ENCODE for part in ("--set", pair)]
    assert main(["fit", "ridge_encoding", "--data", str(source), "--out", str(run), *settings, "--quiet"]) == 0
    assert main(["evaluate", str(run), "--quiet"]) == 0
    with np.load(run / "artifacts" / "voxels-sub-01.npz") as found:
        r = found["r"]
    assert r[N_SIDE : N_SIDE + 18].mean() > 0.3 > abs(np.delete(r, np.arange(N_SIDE, N_SIDE + 18)).mean()) + 0.2
    assert main(["report", str(run), "--quiet"]) == 0
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    if form in ("gifti", "mgh", "cifti"):
        assert "On fsaverage5 (inflated" in (run / "report.html").read_text()
        assert {row.get("hemisphere") for row in rows} >= {"lh", "rh"}
        assert len([path for path in (run / "artifacts").iterdir() if "encoding-sub-01-r" in path.name]) in (1, 2)


@pytest.mark.long
def test_a_table_of_one_number_for_each_region_goes_from_its_documented_study_file_to_a_page(tmp_path, monkeypatch, capsys):
    """Planted: two of the four regions follow the embedding without noise, two are noise; the third person is not asked for."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (study,) = (block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "roi_responses.csv" in block)
    Path("study.toml").write_text(study)
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(40, 2)).astype(np.float32)
    Path("stim").mkdir()
    rows = ["participant,picture,V1,V2,V4,IT"]
    for number, (first, second) in enumerate(embedding):
        Image.fromarray(np.full((8, 8, 3), 5 * number, np.uint8)).save(f"stim/p{number:02d}.png")
        noise = rng.normal(size=(2, 2))
        rows += [f"P1,p{number:02d},{noise[trial][0]},{first},{noise[trial][1]},{second}" for trial in range(2)]
        rows.append(f"P2,p{number:02d},9,9,9,9")
    Path("roi_responses.csv").write_text("\n".join(rows) + "\n")
    np.savez("clip.npz", id=np.array([f"p{number:02d}" for number in range(40)]), clip=embedding)

    assert main(["data", "convert", "study.toml", "study"]) == 0
    settings = ["n_voxels=2", "feature=clip.npz"]
    assert main(["fit", "univariate", "--data", "study", "--out", "run", "--set", *settings]) == 2
    assert "set pretrain=false" in capsys.readouterr().err
    fit = [
        "fit",
        "univariate",
        "--data",
        "study",
        "--out",
        "run",
        "--set",
        *settings,
        "pretrain=false",
        "epochs=3",
        "hidden=16",
    ]
    assert main([*fit, "--evaluate", "--only-selection"]) == 0
    assert main(["report", "run", "--no-viewer"]) == 0
    with np.load("run/artifacts/maps.npz") as maps:
        assert maps["selected"].tolist() == [False, True, False, True]
    (row, *_) = json.loads(Path("run/evaluation.json").read_text())["rows"]
    assert row["n_voxels"] == 2
    assert "of 4 voxels kept" in Path("run/report.html").read_text(encoding="utf-8")
