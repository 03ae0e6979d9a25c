"""Peaks of resident memory (ru_maxrss of a child) under `--memory`: conversions of large NIfTI series, a ridge of many voxels,
decoders of more trials than fit.

    python benchmarks/memory.py series DIR     a series of 143^3 x 120 float32 (1.4 GB unpacked), without a limit and with 1 GB
    python benchmarks/memory.py session DIR    143^3 x 1,032 float32 (12 GB unpacked, .6 GB packed) within 4 GB: as a session of
                                               LAION-fMRI, and through a description; are the values the same?
    python benchmarks/memory.py ridge DIR      10,000 images x 40,000 voxels, 1,000 features, fitted and scored within 4 GB
    python benchmarks/memory.py decoders DIR   pretraining and TROI on 4 subjects x 20,000 voxels x 2,000, 4,000 and 8,000
                                               trials, without a limit and within 1.7 GB; are the weights the same?

DIR: an empty folder with 20 GB of room; what is written stays there. Minutes to hours, on one thread.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nibabel
import numpy as np
import torch
from safetensors.torch import load_file

from pulvinar.data.experiment import save
from pulvinar.datasets.arrays import from_arrays

SIDE, SHARE = 143, 0.25  # voxels along an edge; share of the volume that the mask takes (a cube in a corner)
STUDY = """[[subject]]
name = "sub-01"
responses = "bold.nii.gz"
mask = "mask.nii.gz"
trials = "trials.csv"
drop_bad_voxels = true
"""
PULVINAR = (sys.executable, "-m", "pulvinar", "--quiet")
N_IMAGES, N_VOXELS, N_FEATURES = 10_000, 40_000, 1_000


def peak_of(*command: str) -> None:
    """Run `pulvinar` and print its peak."""
    began = time.monotonic()
    child = subprocess.Popen([*PULVINAR, *command], env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"pulvinar {' '.join(command)}\n  peak {used.ru_maxrss * 1024 / 1e9:.2f} GB, exit code {code}")
    print(f"  {time.monotonic() - began:.0f} s, of which {used.ru_utime + used.ru_stime:.0f} s of a processor")


def brain() -> np.ndarray:
    """Mask (x, y, z) bool."""
    edge = int(SIDE * SHARE ** (1 / 3))
    inside = np.zeros((SIDE,) * 3, bool)
    inside[:edge, :edge, :edge] = True
    return inside


def write_series(path: Path, n_volumes: int, affine: np.ndarray, corner: np.ndarray | None = None) -> None:
    """Volumes whose values in the mask have a pattern, and noise in an eighth of it; `corner` (x, y, z, n) over them."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((SIDE, SIDE, SIDE, n_volumes))
    header.set_sform(affine, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    rng, places = np.random.default_rng(0), np.flatnonzero(brain().ravel(order="F"))
    base = np.zeros(SIDE**3, np.float32)
    base[places] = 1 + np.arange(len(places)) % 7
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for number in range(n_volumes):
            volume, some = base.copy(), places[number % 8 :: 8]
            volume[some] += rng.integers(0, 16, len(some)).astype(np.float32)
            volume[places] += number % 5
            if corner is not None:
                grid = volume.reshape((SIDE,) * 3, order="F")
                grid[tuple(slice(0, side) for side in corner.shape[:3])] = corner[..., number]
                volume = grid.ravel(order="F")
            file.write(volume.tobytes())


def write_study(folder: Path, n_trials: int) -> None:
    """A description beside bold.nii.gz and mask.nii.gz."""
    lines = [f"i{trial:04d},{'test' if trial % 5 == 0 else 'train'}" for trial in range(n_trials)]
    (folder / "trials.csv").write_text("stimulus,split\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")


def series(place: Path) -> None:
    """1.4 GB unpacked."""
    affine = np.diag([2.0, 2, 2, 1])
    nibabel.save(nibabel.Nifti1Image(brain().astype(np.uint8), affine), place / "mask.nii.gz")
    write_series(place / "bold.nii.gz", 120, affine)
    write_study(place, 120)
    for name, limit in (("free", ()), ("limited", ("--memory", "1GB"))):
        peak_of("data", "convert", str(place / "study.toml"), str(place / name), *limit)


def session(place: Path) -> None:
    """12 GB unpacked: a planted session of LAION-fMRI on a larger grid."""
    source = place / "laion"
    sizes = ("n_subjects=1", "n_sessions=1", "n_trials=86", "n_voxels=200", "image_size=16", "n_ood=40", "n_shared=10")
    command = (*PULVINAR, "data", "simulate", "--layout", "laion_fmri", "--out", str(source), "--set", *sizes)
    subprocess.run(command, check=True)
    shutil.rmtree(source / "truth")
    for path in source.rglob("*.nii.gz"):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
        if values.ndim == 4:
            betas, n_trials = path, values.shape[3]
            write_series(path, n_trials, image.affine, values.astype(np.float32))
            continue
        larger = np.zeros((SIDE,) * 3, values.dtype)
        larger[tuple(slice(0, side) for side in values.shape)] = values
        if "desc-brain" in path.name:
            larger[brain()], mask = 1, path
        nibabel.save(nibabel.Nifti1Image(larger, image.affine), path)
    peak_of("data", "convert", f"laion_fmri:{source}?images=false", str(place / "as_session"), "--memory", "4GB")
    (place / "study").mkdir()
    (place / "study" / "bold.nii.gz").symlink_to(betas.resolve())
    (place / "study" / "mask.nii.gz").symlink_to(mask.resolve())
    write_study(place / "study", n_trials)
    peak_of("data", "convert", str(place / "study" / "study.toml"), str(place / "as_study"), "--memory", "4GB")
    with h5py.File(place / "as_session/responses/sub-01.h5") as one, h5py.File(place / "as_study/responses/sub-01.h5") as other:
        at, kept = (np.ravel_multi_index(tuple(file["geometry/index"][:].T), (SIDE,) * 3) for file in (one, other))
        columns = np.searchsorted(at, kept)  # the description drops voxels that are constant
        same = all(np.array_equal(one["values"][trial][columns], other["values"][trial]) for trial in range(n_trials))
        print(f"values {one['values'].shape} {other['values'].shape}, the same: {same}")


def ridge(place: Path) -> None:
    """10,000 images x 40,000 voxels."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((N_IMAGES, N_FEATURES)).astype(np.float32)
    seen = features @ (rng.standard_normal((N_FEATURES, 40)) / np.sqrt(N_FEATURES)).astype(np.float32)
    weights = rng.standard_normal((40, N_VOXELS)).astype(np.float32) / 6
    responses = np.memmap(place / "responses.tmp", np.float32, "w+", shape=(N_IMAGES, N_VOXELS))
    for start in range(0, N_IMAGES, 200):
        rows = slice(start, start + 200)
        responses[rows] = seen[rows] @ weights + 2 * rng.standard_normal((200, N_VOXELS), dtype=np.float32)
    ids = [f"i{number:05d}" for number in range(N_IMAGES)]
    made = from_arrays(
        responses={"one": responses},
        stimulus_ids={"one": ids},
        geometry={"one": rng.random((N_VOXELS, 3)) * 100 - 50},
        stimuli=ids,
        labels=[f"kind {number % 12}" for number in range(N_IMAGES)],
        features={"clip": features},
        test_share=0.1,
    )
    save(made, place / "data")
    (place / "responses.tmp").unlink()
    settings = ("--set", "n_permutations=100", "baseline=category")
    fit = ("fit", "ridge_encoding", "--data", str(place / "data"), "--out", str(place / "run"), *settings)
    peak_of(*fit, "--memory", "4GB")
    peak_of("evaluate", str(place / "run"), "--memory", "4GB")


def planted(place: Path, n_trials: int, n_subjects: int = 4, n_voxels: int = 20_000) -> Path:
    """Subjects who all saw the same images once; a tenth of these are test images."""
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_trials, 200), dtype=np.float32)
    weights = rng.standard_normal((20, n_voxels), dtype=np.float32) / 5
    names, ids = [f"s{number}" for number in range(n_subjects)], [f"i{number:05d}" for number in range(n_trials)]
    files = {name: np.memmap(place / f"{name}.tmp", np.float32, "w+", shape=(n_trials, n_voxels)) for name in names}
    for responses in files.values():
        for start in range(0, n_trials, 200):
            seen = features[start : start + 200, :20] @ weights
            responses[start : start + 200] = seen + 2 * rng.standard_normal(seen.shape, dtype=np.float32)
    made = from_arrays(
        responses=files,
        stimulus_ids=dict.fromkeys(names, ids),
        geometry=dict.fromkeys(names, rng.random((n_voxels, 3)) * 100 - 50),
        rois={name: {"annotated": np.ones(n_voxels, bool)} for name in names},
        stimuli=ids,
        features={"clip": features},
        test_share=0.1,
    )
    save(made, place / "data")
    for name in names:
        (place / f"{name}.tmp").unlink()
    return place / "data"


def decoders(place: Path) -> None:
    """1, 2 and 4 billion bytes of training responses in all."""
    troi = ("n_voxels=2000", "n_folds=2", "n_rounds=3", "epochs_per_round=1", "epochs=1", "low_pass=none")
    for n_trials in (2000, 4000, 8000):
        data = planted(place / str(n_trials), n_trials)
        for method, settings in (("cross_subject_decoder", ("epochs=1",)), ("troi", (*troi, "pretrained.epochs=1"))):
            weights = []
            for name, limit in (("free", ()), ("limited", ("--memory", "1.7GB"))):
                run = data.with_name(f"{method}-{name}")
                peak_of("fit", method, "--data", str(data), "--out", str(run), *limit, "--set", *settings)
                weights.append(load_file(run / "checkpoints" / "decoder.safetensors"))
            print(f"  {n_trials} trials, the same weights: {all(torch.equal(x, weights[1][n]) for n, x in weights[0].items())}")
        shutil.rmtree(data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("series", "session", "ridge", "decoders"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    {"series": series, "session": session, "ridge": ridge, "decoders": decoders}[given.what](given.folder)
