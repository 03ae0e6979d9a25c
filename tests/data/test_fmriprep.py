"""Trial responses from fMRIPrep folders. Oracles: scipy's detrend and zscore in a slow loop over volumes; planted responses."""

import json

import nibabel
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from pulvinar.data.brain_files import read_mask
from pulvinar.data.fmriprep import detrended_zscores, find_runs, read_responses, trials_of
from pulvinar.errors import FileError, InputError, NotFoundError

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
GRID, STEP, N_VOLUMES = (4, 3, 2), 2.0, 40
SPACE = "space-MNI152NLin2009cAsym"
ONSETS = [3.0, 15.5, 28.0, 40.0, 76.0]  # the last window ends at 84 s, after the run's 80 s


def series(seed):
    return np.random.default_rng(seed).normal(1000, 10, (*GRID, N_VOLUMES)).astype(np.float32)


def write_run(folder, name, *, seed=0, mask=None, step=STEP, sidecar=None, space=f"_{SPACE}"):
    functional = folder / "func"
    functional.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(series(seed), AFFINE)
    image.header.set_zooms((3, 3, 3, step))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, functional / f"{name}{space}_desc-preproc_bold.nii.gz")
    mask = np.ones(GRID) if mask is None else mask
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE), functional / f"{name}{space}_desc-brain_mask.nii.gz")
    if sidecar is not None:
        (functional / f"{name}{space}_desc-preproc_bold.json").write_text(json.dumps(sidecar))


def write_events(folder, name, rows=None):
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows or [f"{onset}\t1.0\timage\timages/{name[-1]}{row}.png" for row, onset in enumerate(ONSETS)]
    lines = ["onset\tduration\ttrial_type\tstim_file", *rows, "50.0\t1.0\tfixation\tn/a"]
    (folder / f"{name}_events.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def study(tmp_path):
    derivatives, bids = tmp_path / "fmriprep" / "sub-01", tmp_path / "bids" / "sub-01"
    outside = np.ones(GRID)
    outside[0] = 0
    for session, run, mask in (("01", "1", None), ("02", "1", outside), ("02", "2", None)):
        name = f"sub-01_ses-{session}_task-look_run-{run}"
        seed = int(session) * 10 + int(run)
        write_run(
            derivatives / f"ses-{session}", name, seed=seed, mask=mask, sidecar={"RepetitionTime": STEP, "StartTime": 1.0}
        )
        write_events(bids / f"ses-{session}" / "func", name.replace("run-", "run-0"))
    return derivatives, bids


def test_responses_against_a_slow_loop(study, capsys):
    derivatives, bids = study
    runs = find_runs(derivatives, events=bids)
    values, mask = read_responses(runs)
    trials = trials_of(runs)
    inside = np.ones(GRID, bool)
    inside[0] = False  # outside one run's mask: outside all
    assert np.array_equal(mask.inside, inside)
    row = 0
    for session, run in ((1, 1), (2, 1), (2, 2)):
        own = scipy.signal.detrend(series(session * 10 + run)[inside].T.astype(float), axis=0)
        own = scipy.stats.zscore(own, axis=0, ddof=1)
        for onset in ONSETS[:4]:
            total, count = np.zeros(own.shape[1]), 0
            for volume in range(N_VOLUMES):
                if 4.0 <= 1.0 + volume * STEP - onset <= 8.0:  # StartTime 1 s
                    total, count = total + own[volume], count + 1
            np.testing.assert_allclose(values[row], total / count, atol=1e-5)
            row += 1
    assert row == len(values) == 12
    assert values.dtype == np.float32
    assert list(trials.stimulus_ids) == [f"images/{run}{row}.png" for run in "112" for row in range(4)]
    assert trials.sessions.tolist() == [1] * 4 + [2] * 8
    assert trials.runs.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert capsys.readouterr().err.count("1 of 5 trials are left out") == 3


def test_a_mask_of_your_own_narrows_the_brain(study, tmp_path):
    derivatives, bids = study
    own = np.zeros(GRID)
    own[0:2, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(own, AFFINE), tmp_path / "own.nii.gz")
    values, mask = read_responses(find_runs(derivatives, events=bids), within=read_mask(tmp_path / "own.nii.gz"))
    assert np.argwhere(mask.inside).tolist() == [[1, 0, 0]]
    assert values.shape == (12, 1)
    nibabel.save(nibabel.Nifti1Image(own, AFFINE * 2), tmp_path / "away.nii.gz")
    with pytest.raises(InputError, match=r"away\.nii\.gz and .*brain_mask\.nii\.gz are not in the same place"):
        read_responses(find_runs(derivatives, events=bids), within=read_mask(tmp_path / "away.nii.gz"))


def test_a_planted_response_is_found_in_its_window():
    time = np.arange(60)
    one = (np.abs(time - 22) <= 1).astype(np.float32)[:, None] * np.array([[5.0, 0.0]], np.float32)
    cleaned = detrended_zscores(one + 3 * time[:, None].astype(np.float32) + np.sin(time)[:, None].astype(np.float32))
    assert np.argmax(cleaned[:, 0]) in (21, 22, 23)
    np.testing.assert_allclose(cleaned.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(cleaned.std(0, ddof=1), 1, atol=1e-5)


def test_constant_and_broken_series_do_not_become_noise():
    given = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    given[:, 1] = 1000.3
    given[7, 2] = np.nan
    cleaned = detrended_zscores(given)
    assert np.array_equal(cleaned[:, 1], np.zeros(30))
    assert np.isnan(cleaned[:, 2]).all()
    assert np.isfinite(cleaned[:, [0, 3]]).all()


def test_the_header_tells_the_repetition_time_without_a_sidecar(tmp_path, capsys):
    write_run(tmp_path / "d", "sub-01_task-look", step=4.0)
    write_events(tmp_path / "b", "sub-01_task-look")
    runs = find_runs(tmp_path / "d", events=tmp_path / "b", window_s=(4.0, 7.9))
    assert [volumes.tolist() for volumes in runs[0].volumes] == [[2], [5], [8], [11], [20]]  # 8, 20, 32, 44, 80 s
    write_run(tmp_path / "d", "sub-01_task-look", step=1.0, sidecar={"RepetitionTime": 4.0})
    assert len(find_runs(tmp_path / "d", events=tmp_path / "b")[0].stimulus_ids) == 5
    assert "the header says 1 s per volume" in capsys.readouterr().err
    write_run(tmp_path / "d", "sub-01_task-look", sidecar={"RepetitionTime": "soon"})
    with pytest.raises(InputError, match=r"repetition time 'soon' s.*write RepetitionTime \(s\) into sub-01"):
        find_runs(tmp_path / "d", events=tmp_path / "b")


def test_spaces_and_tasks_are_chosen(study):
    derivatives, bids = study
    for name in ("sub-01_ses-01_task-look_run-1", "sub-01_ses-01_task-rest_run-1"):
        write_run(derivatives / "ses-01", name, space="_space-T1w")
    with pytest.raises(InputError, match="several of 'space': MNI152NLin2009cAsym, T1w; choose one with space"):
        find_runs(derivatives, events=bids)
    with pytest.raises(InputError, match="several of 'task': look, rest; choose one with task"):
        find_runs(derivatives, events=bids, space="T1w")
    with pytest.raises(NotFoundError, match="with space 'T2w'; there are: MNI152NLin2009cAsym, T1w"):
        find_runs(derivatives, events=bids, space="T2w")
    assert len(find_runs(derivatives, events=bids, space="T1w", task="look")) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda d, b: next(d.rglob("*brain_mask*")).unlink(),
            "its brain mask sub-01_ses-0.*brain_mask.nii.gz is not beside it",
        ),
        (lambda d, b: next(b.rglob("*events.tsv")).unlink(), r"no sub-01_ses-0.*_task-look_run-.*_events\.tsv for"),
        (
            lambda d, b: write_events(b / "ses-01" / "func", "sub-01_ses-01_task-look_run-01", ["soon\t1\tx\ta.png"]),
            "onset 'soon' in line 2",
        ),
        (
            lambda d, b: write_events(b / "ses-01" / "func", "sub-01_ses-01_task-look_run-01", ["3\t1\tx\tn/a"]),
            "no row has a stimulus",
        ),
        (
            lambda d, b: write_events(b / "ses-01" / "func", "sub-01_ses-01_task-look_run-01", ["99\t1\tx\ta.png"]),
            "no trial has its window",
        ),
        (
            lambda d, b: next(b.rglob("*events.tsv")).write_text("onset\tduration\n1\t1\n"),
            "no column 'stimulus' or 'stim_file'",
        ),
        (lambda d, b: next(b.rglob("*events.tsv")).write_text("stimulus\tduration\na\t1\n"), "no column 'onset'"),
    ],
)
def test_missing_and_broken_parts_are_named(study, damage, message):
    derivatives, bids = study
    damage(derivatives, bids)
    with pytest.raises((FileError, InputError, NotFoundError), match=message):
        find_runs(derivatives, events=bids)


def test_other_refusals(study, tmp_path):
    derivatives, bids = study
    with pytest.raises(FileError, match="is this a subject's folder of fMRIPrep"):
        find_runs(tmp_path, events=bids)
    with pytest.raises(InputError, match="no volume within"):
        find_runs(derivatives, events=bids, window_s=(4.0, 4.5))
    with pytest.raises(NotFoundError, match="no column 'image'"):
        find_runs(derivatives, events=bids, stimulus_column="image")
    assert set(find_runs(derivatives, events=bids, stimulus_column="trial_type")[0].stimulus_ids) == {"image", "fixation"}
    whole = next(derivatives.rglob("*bold.nii.gz"))
    whole.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(FileError, match=r"bold\.nii\.gz: cannot be read as NIfTI"):
        read_responses(find_runs(derivatives, events=bids))
