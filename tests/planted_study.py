"""A study whose every response is known: value(trial, voxel) is written by a formula into whatever format a test asks for.

Oracle of the readers of responses: `expected` below, which knows no reader.
"""

from pathlib import Path

import numpy as np

IDS = [f"img{number:02d}" for number in range(12)]
N_REPEATS = 2


def order() -> list[str]:
    """The stimulus of every trial, in no simple order."""
    generator = np.random.default_rng(5)
    return [IDS[row] for _ in range(N_REPEATS) for row in generator.permutation(len(IDS))]


N_TRIALS = N_REPEATS * len(IDS)


def expected(trial: np.ndarray, voxel: np.ndarray) -> np.ndarray:
    """A number that no other trial or voxel (below 500) has, exact in single precision."""
    return np.asarray(voxel) * 64.0 + np.asarray(trial) * 2.0 + 0.5


def values(n_voxels: int) -> np.ndarray:
    """(trial, voxel)."""
    return expected(np.arange(N_TRIALS)[:, None], np.arange(n_voxels)[None]).astype(np.float32)


def write(folder: Path, subject: str, *, trials: bool = True, name: str = "sub-01") -> Path:
    """study.toml, embeddings and the trial table; `subject` are the lines of the [[subject]] after its name."""
    folder.mkdir(parents=True, exist_ok=True)
    features = np.random.default_rng(0).normal(size=(len(IDS), 6)).astype(np.float32)
    np.savez(folder / "clip.npz", id=np.array(IDS), clip=features)
    rows = [f"{shown},{1 + trial // len(IDS)},1" for trial, shown in enumerate(order())]
    (folder / "trials.csv").write_text("\n".join(["stimulus,session,run", *rows, ""]))
    lines = ['[stimuli]\nfeatures.clip = { file = "clip.npz", array = "clip" }', "[split]\ntest_share = 0.25"]
    lines += [f'[[subject]]\nname = "{name}"', subject, 'trials = "trials.csv"' if trials else ""]
    (folder / "study.toml").write_text("\n".join(lines))
    return folder / "study.toml"


def probe(responses, voxels: np.ndarray, rois=None, *, seed: int = 0, n: int = 50) -> None:
    """50 random single values: the right trial, voxel, image, session and ROI. voxels: number in the formula of every voxel."""
    generator = np.random.default_rng(seed)
    assert (responses.n_trials, responses.n_voxels) == (N_TRIALS, len(voxels))
    for _ in range(n):
        trial, voxel = int(generator.integers(N_TRIALS)), int(generator.integers(len(voxels)))
        got = responses.read(np.array([trial]), np.array([voxel]))[0, 0]
        assert got == expected(trial, voxels[voxel]), (trial, voxel, got)
        assert responses.stimulus_ids[trial] == order()[trial]
        assert responses.sessions[trial] == 1 + trial // len(IDS)
        for name, inside in (rois or {}).items():
            assert responses.rois[name][voxel] == inside[voxel], (name, voxel)
