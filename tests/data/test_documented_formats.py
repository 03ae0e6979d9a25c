"""The study files of docs/data.md, each run over files of its format. Oracle: the formula of `planted_study`."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.io
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, LabelAxis, ScalarAxis
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

import planted_study as study
from pulvinar.data import named_meshes
from pulvinar.datasets.arrays import read_description

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"
N_SIDE = 44


def surfaces(folder):
    whole = study.values(2 * N_SIDE)
    whole[:, 3] = 0  # the medial wall
    for side, half in zip(("lh", "rh"), np.split(whole, 2, axis=1), strict=True):
        nibabel.save(GiftiImage(darrays=[GiftiDataArray(row) for row in half]), folder / f"{side}.betas.func.gii")
        nibabel.save(GiftiImage(darrays=[GiftiDataArray(np.ones(N_SIDE, np.float32))]), folder / f"{side}.V1.shape.gii")
    table = GiftiLabelTable()
    for key, name in ((0, "???"), (4, "FFA")):
        entry = GiftiLabel(key)
        entry.label = name
        table.labels.append(entry)
    keys = GiftiDataArray(np.where(np.arange(N_SIDE) < 9, 4, 0).astype(np.int32), intent="NIFTI_INTENT_LABEL")
    nibabel.save(GiftiImage(darrays=[keys], labeltable=table), folder / "rh.atlas.label.gii")
    return np.delete(np.arange(2 * N_SIDE), 3), {"V1": 2 * N_SIDE - 1, "FFA": 9}


def cifti(folder):
    halves = [BrainModelAxis.from_mask(np.arange(N_SIDE) > 1, name) for name in ("CortexLeft", "CortexRight")]
    axis = halves[0] + halves[1]
    voxels = axis.vertex + np.where(axis.name == "CIFTI_STRUCTURE_CORTEX_RIGHT", N_SIDE, 0)
    rows = ScalarAxis([f"trial {number}" for number in range(study.N_TRIALS)])
    values = study.values(2 * N_SIDE)[:, voxels]
    Cifti2Image(values, Cifti2Header.from_axes((rows, axis))).to_filename(folder / "sub-01_betas.dscalar.nii")
    labels = LabelAxis(["atlas"], [{0: ("???", (0, 0, 0, 0)), 2: ("V1", (1, 0, 0, 1))}])
    keys = np.where(np.arange(len(axis)) < 20, 2, 0)[None].astype(np.float32)
    Cifti2Image(keys, Cifti2Header.from_axes((labels, axis))).to_filename(folder / "atlas.dlabel.nii")
    return voxels, {"V1": 20}


def matlab(folder):
    scipy.io.savemat(folder / "betas.mat", {"betas": study.values(30).T})
    xyz = np.random.default_rng(0).normal(size=(30, 3))
    scipy.io.savemat(folder / "places.mat", {"xyz": xyz, "V1": np.arange(30) < 4})
    return np.arange(30), {"V1": 4}


def table(folder):
    lines = ["participant,stimulus,session," + ",".join(f"v{number}" for number in range(11))]
    for subject, offset in (("S1", 0.0), ("S2", 7.0)):
        for trial, row in enumerate(study.values(11) + offset):
            lines.append(f"{subject},{study.order()[trial]},{1 + trial // 12}," + ",".join(map(str, row.tolist())))
    (folder / "betas.csv").write_text("\n".join(lines) + "\n")
    np.save(folder / "places.npy", np.random.default_rng(0).normal(size=(11, 3)))
    return np.arange(11), {}


@pytest.mark.parametrize(("number", "make"), [(2, surfaces), (3, cifti), (4, matlab), (5, table)])
def test_the_study_of_each_format_reads(tmp_path, number, make, monkeypatch):
    for name in ("fsaverage5", "fs_LR_32k"):  # small meshes in their place
        monkeypatch.setitem(named_meshes.N_VERTICES, name, N_SIDE)
    points = np.stack([np.full(N_SIDE, -30.0), np.arange(N_SIDE), np.arange(N_SIDE) % 3], 1)
    rows = np.arange(N_SIDE - 2)[:, None] + np.arange(3)
    pair = (points, rows), (points * [-1, 1, 1], rows)
    monkeypatch.setattr(named_meshes, "_fs_lr_32k", lambda: pair)
    monkeypatch.setattr(named_meshes, "_fsaverage", lambda name: pair)
    monkeypatch.setattr("pulvinar.data.cifti_files.N_VERTICES", {"fs_LR_32k": N_SIDE})
    named_meshes.template.cache_clear()
    try:
        study.write(tmp_path, "")
        text = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[number]
        voxels, sizes = make(tmp_path)
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        found = read_description(tmp_path / "study.toml").subjects["sub-01"]
    finally:
        named_meshes.template.cache_clear()
    study.probe(found, voxels)
    assert {name: int(mask.sum()) for name, mask in found.rois.items()} == sizes


def test_the_xarray_of_the_document_opens():
    pytest.importorskip("xarray")
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    shown: dict = {}
    exec(next(block for block in blocks if "xarray" in block), shown)
    subject = shown["experiment"].subjects["subject"]
    assert (subject.n_trials, subject.n_voxels, sorted(subject.rois)) == (80, 30, ["IT", "V4"])
