"""NOD: a folder in its layout (CIFTI, runs, receptive fields, atlas), written here and read."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis
from PIL import Image

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.datasets import nod

N_LEFT, N_RIGHT, N_MESH = 40, 44, 60
RUNS = {1: "1", 2: "02", 3: "3"}  # names that do not sort as their numbers


def places() -> BrainModelAxis:
    """Both cortices, without some vertices of the mesh (a medial wall), and a subcortical structure."""
    left = BrainModelAxis.from_surface(np.arange(10, 10 + N_LEFT), N_MESH, "CortexLeft")
    right = BrainModelAxis.from_surface(np.arange(N_RIGHT), N_MESH, "CortexRight")
    volume = BrainModelAxis.from_mask(np.ones((2, 2, 1), bool), name="thalamus_left", affine=np.eye(4))
    return left + volume + right


def write_scalars(path: Path, values: np.ndarray, names: list[str], axis: BrainModelAxis | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = (ScalarAxis(names), axis or places())
    nibabel.save(nibabel.Cifti2Image(values.astype(np.float32), nibabel.Cifti2Header.from_axes(axes)), path)


def write_atlas(path: Path) -> None:
    """V1 to V4 in both hemispheres, on the whole mesh (medial wall too): label k of side s on every fourth vertex."""
    axis = BrainModelAxis.from_surface(np.arange(N_MESH), N_MESH, "CortexLeft") + BrainModelAxis.from_surface(
        np.arange(N_MESH), N_MESH, "CortexRight"
    )
    names = [f"{side}_{area}_ROI" for side in "LR" for area in ("V1", "V2", "V3", "V4")]
    table = {0: ("???", (0, 0, 0, 0)), **{key: (name, (1, 0, 0, 1)) for key, name in enumerate(names, start=1)}}
    labels = np.concatenate([np.arange(N_MESH) % 4 + 1, np.arange(N_MESH) % 4 + 5])[None].astype(np.float32)
    header = nibabel.Cifti2Header.from_axes((LabelAxis(["atlas"], [table]), axis))
    nibabel.save(nibabel.Cifti2Image(labels, header), path)


def write_folder(root: Path) -> tuple[np.ndarray, list[str]]:
    """One subject in the layout: its betas (trial, cortical vertex) in the order of sessions and runs, and its pictures."""
    rng, number = np.random.default_rng(0), 0
    results = root / "derivatives/ciftify/sub-03/results"
    written, shown = [], []
    for session in (1, 2):
        for run in RUNS.values():
            folder = results / f"ses-imagenet{session:02d}_task-imagenet_run-{run}"
            names = []
            for _ in range(5):
                names.append(f"n0144{session}764_{number:04d}")
                picture = root / "stimuli/imagenet" / names[-1].split("_")[0] / f"{names[-1]}.JPEG"
                picture.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (9, 8, 3)).astype(np.uint8)).save(picture)
                number += 1
            values = 3 + 2 * rng.standard_normal((5, N_LEFT + 4 + N_RIGHT))
            write_scalars(folder / f"{folder.name}_beta.dscalar.nii", values, names)
            written.append(np.delete(values, slice(N_LEFT, N_LEFT + 4), axis=1))
            shown += names
            (folder / f"{folder.name}_label.txt").write_text(
                "\n".join(f"{name.split('_')[0]}/{name}.JPEG" for name in names) + "\n"
            )
    fields = rng.random((4, N_LEFT + 4 + N_RIGHT))
    write_scalars(results / "ses-prf_task-prf/ses-prf_task-prf_params.dscalar.nii", fields, ["ang", "ecc", "rfsize", "R2"])
    write_atlas(root / "atlas.dlabel.nii")
    return np.concatenate(written), shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def betas(root: Path, session: int, run: int) -> np.ndarray:
    name = f"ses-imagenet{session:02d}_task-imagenet_run-{RUNS[run]}"
    folder = root / "derivatives/ciftify/sub-03/results" / name
    values = np.asarray(nibabel.load(folder / f"{name}_beta.dscalar.nii").dataobj)
    return np.delete(values, slice(N_LEFT, N_LEFT + 4), axis=1)


def test_runs_are_scored_over_all_their_values_in_their_order(root):
    """Oracle: numpy on the files: run 02 comes after run 1, subcortex is left out, z over the cortex of a run."""
    experiment = nod.load(f"{root}?images=false")
    responses = experiment.subjects["sub-03"]
    assert responses.n_trials == 30
    assert responses.runs[:15].tolist() == [1] * 5 + [2] * 5 + [3] * 5
    values = betas(root, 2, 2).astype(np.float64)
    wanted = (values - values.mean()) / values.std()
    np.testing.assert_allclose(
        responses.values[(responses.sessions == 2) & (responses.runs == 2)], wanted, rtol=1e-5, atol=1e-6
    )
    by_vertex = nod.load(f"{root}?images=false&zscore=vertex").subjects["sub-03"].values[:5]
    values = betas(root, 1, 1).astype(np.float64)
    np.testing.assert_allclose(by_vertex, (values - values.mean(0)) / values.std(0), rtol=1e-4, atol=1e-5)


def test_vertices_of_the_largest_receptive_field_r2_are_kept(root):
    """Oracle: argsort of the R2 row within an area, by vertex number and hemisphere."""
    experiment = nod.load(f"{root}?atlas={root / 'atlas.dlabel.nii'}&n_vertices=3")
    responses = experiment.subjects["sub-03"]
    file = root / "derivatives/ciftify/sub-03/results/ses-prf_task-prf/ses-prf_task-prf_params.dscalar.nii"
    r2 = np.delete(np.asarray(nibabel.load(file).dataobj)[3], slice(N_LEFT, N_LEFT + 4))
    right = np.flatnonzero(np.arange(N_RIGHT) % 4 == 1)  # V2
    wanted = right[np.argsort(-r2[N_LEFT:][right])[:3]]
    kept = responses.geometry.coordinates[responses.rois["rh.V2"]]
    assert (kept[:, 0] == 1).all()
    assert set(kept[:, 1]) == set(wanted)
    assert responses.n_voxels == 24
    assert sorted(responses.rois) == sorted(f"{side}.V{area}" for side in ("lh", "rh") for area in range(1, 5))
    left = 10 + np.flatnonzero((10 + np.arange(N_LEFT)) % 4 == 0)
    assert set(responses.geometry.coordinates[responses.rois["lh.V1"], 1]) <= set(left)
    values = betas(root, 1, 1)
    column = N_LEFT + sorted(wanted)[0]
    found = responses.values[:5, np.flatnonzero(responses.rois["rh.V2"])[0]]
    np.testing.assert_allclose(found, (values[:, column] - values.mean(dtype=float)) / values.std(dtype=float), rtol=1e-4)


def test_pictures_and_categories_are_found(root):
    experiment = nod.load(str(root))
    assert experiment.stimuli.image(0).shape == (9, 8, 3)
    assert set(experiment.stimuli.labels) == {"n01441764", "n01442764"}
    assert len(experiment.split.test) == 5
    next((root / "stimuli").rglob("*.JPEG")).unlink()
    with pytest.raises(NotFoundError, match="1 pictures are not among the 29 of"):
        nod.load(str(root))


def test_files_that_do_not_fit_are_named(root):
    folder = root / "derivatives/ciftify/sub-03/results/ses-imagenet01_task-imagenet_run-02"
    label = folder / f"{folder.name}_label.txt"
    label.write_text(label.read_text().rpartition("n01441764/")[0])
    with pytest.raises(InputError, match="4 pictures for the 5 trials"):
        nod.load(f"{root}?images=false")
    label.unlink()
    with pytest.raises(FileError, match=r"_label\.txt"):
        nod.load(f"{root}?images=false")
    file = folder / f"{folder.name}_beta.dscalar.nii"
    file.write_bytes(file.read_bytes()[:1000])
    label.write_text("\n".join("abcde"))
    with pytest.raises(FileError, match="run-02_beta"):
        nod.load(f"{root}?images=false")
    with pytest.raises(FileError, match="sub-XX/results"):
        nod.load(str(root / "stimuli"))


def test_an_atlas_without_the_areas_is_refused(root):
    write_scalars(root / "plain.dscalar.nii", np.zeros((1, N_LEFT + 4 + N_RIGHT)), ["zero"])
    with pytest.raises(InputError, match="no labels"):
        nod.load(f"{root}?images=false&atlas={root / 'plain.dscalar.nii'}")


def test_two_folders_of_one_run_and_two_receptive_fields_are_refused(root):
    results = root / "derivatives/ciftify/sub-03/results"
    copy = results / "ses-imagenet1_task-imagenet_run-01"
    shutil.copytree(results / "ses-imagenet01_task-imagenet_run-1", copy)
    with pytest.raises(InputError, match="run-1 and ses-imagenet1_task-imagenet_run-01 are one run; keep one of them"):
        nod.load(str(root))
    shutil.rmtree(copy)
    fields = next(results.rglob("*_params.dscalar.nii"))
    shutil.copy(fields, fields.with_name("old_params.dscalar.nii"))
    with pytest.raises(InputError, match="one file of receptive fields is needed"):
        nod.load(f"{root}?atlas={root / 'atlas.dlabel.nii'}")
