"""Trial responses from fMRIPrep folders. Oracles: scipy's detrend and zscore in a slow loop over volumes; planted responses."""

import json

import nibabel
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.bids import entities, of_scan
from pulvinar.data.brain_files import read_mask
from pulvinar.data.fmriprep import detrended_zscores, find_runs, read_responses, trials_of

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
    capsys.readouterr()


def timed(tmp_path, *, step=2.0, sidecar=None, **settings):
    """The first volume of each trial's window, in a run whose header and sidecar say this."""
    write_run(tmp_path / "d", "sub-01_task-look", step=step, sidecar=sidecar)
    write_events(tmp_path / "b", "sub-01_task-look")
    return [int(volumes[0]) for volumes in find_runs(tmp_path / "d", events=tmp_path / "b", **settings)[0].volumes]


FIRST = [4, 10, 16, 22]  # volumes every 2 s: the first at or after onset + 4 s
PLAIN = {"RepetitionTime": 2.0}


@pytest.mark.parametrize(
    ("step", "sidecar", "given"),
    [
        (2.0, None, None),
        (2000.0, None, None),
        (2.0, {"RepetitionTime": 2000}, None),
        (0.0, PLAIN, None),
        (2.0004, PLAIN, None),
        (2.0, {"RepetitionTime": 1.9999999}, None),
        (1.0, None, 2.0),
        (0.0, None, 2000),
        (1.0, PLAIN, 2.0),
        (2.0, {"RepetitionTime": "soon"}, 2.0),
        (2.0, {"VolumeTiming": [2.0 * volume for volume in range(N_VOLUMES)]}, None),
        (7.0, {"VolumeTiming": [2000 * volume for volume in range(N_VOLUMES)]}, None),
        (2.0, PLAIN | {"VolumeTiming": [2.0 * volume for volume in range(N_VOLUMES)]}, 2.0),
    ],
)
def test_two_seconds_are_understood(tmp_path, step, sidecar, given):
    assert timed(tmp_path, step=step, sidecar=sidecar, repetition_time=given) == FIRST


@pytest.mark.parametrize(
    ("step", "sidecar", "given", "message"),
    [
        (1.0, None, None, r"bold\.nii\.gz: the repetition time is not known: the header says 1 s.*repetition_time = "),
        (0.0, None, None, "the repetition time is not known: the header says 0 s"),
        (1.0, PLAIN, None, r"header says 1 s per volume, .*bold\.json says 2.*repetition_time = 2 or 1"),
        (2.02, PLAIN, None, "which is right"),
        (2.0, {"RepetitionTime": 50}, None, r"bold\.json: RepetitionTime 50 cannot be"),
        (2.0, {"RepetitionTime": True}, None, "RepetitionTime True cannot be"),
        (2.0, {"RepetitionTime": "soon"}, None, "RepetitionTime 'soon' cannot be"),
        (2.0, PLAIN, 60, "repetition_time 60 cannot be"),
        (2.0, PLAIN | {"StartTime": "0"}, None, "StartTime '0' cannot be"),
        (2.0, {"RepetitionTime": 2000, "StartTime": 0.5}, None, "its unit cannot be told"),
        (2.0, {"VolumeTiming": [0, 2, 4]}, None, "VolumeTiming is a list of 40 times, one for each volume; 3 entries came"),
        (2.0, {"VolumeTiming": [0.0] * N_VOLUMES}, None, "must be increasing"),
        (2.0, {"VolumeTiming": [3.0 * volume for volume in range(N_VOLUMES)]}, 2.0, "not one volume every 2 s"),
        (2.0, PLAIN | {"VolumeTiming": [3.0 * volume for volume in range(N_VOLUMES)]}, None, "they exclude each other"),
    ],
)
def test_times_that_cannot_be_or_contradict_are_refused(tmp_path, step, sidecar, given, message):
    with pytest.raises(InputError, match=message):
        timed(tmp_path, step=step, sidecar=sidecar, repetition_time=given)


def test_a_start_in_milliseconds_goes_with_such_a_repetition_time(tmp_path):
    sidecar = {"RepetitionTime": 2000, "StartTime": 1000}  # volumes at 1, 3, 5 ... s, windows from 7, 19.5, 32, 44 s
    assert timed(tmp_path, sidecar=sidecar) == [3, 10, 16, 22]


def test_a_slice_time_that_is_not_stated_is_said(tmp_path, capsys):
    for sidecar, said in (
        (PLAIN, 0),
        (PLAIN | {"SliceTimingCorrected": False}, 0),
        (PLAIN | {"SliceTimingCorrected": True}, 1),
    ):
        assert timed(tmp_path, sidecar=sidecar) == FIRST
        assert capsys.readouterr().err.count("says SliceTimingCorrected, but no StartTime") == said
    timed(tmp_path, sidecar=PLAIN | {"SliceTimingCorrected": True, "StartTime": 1.0})
    assert "SliceTimingCorrected" not in capsys.readouterr().err


def test_volumes_of_a_run_with_a_pause_are_taken_at_their_own_times(tmp_path, capsys):
    """Oracle: volumes are averaged in a slow loop over the times that VolumeTiming states."""
    times = [2.0 * volume + (20.0 if volume >= 20 else 0.0) for volume in range(N_VOLUMES)]  # 0 to 38 s, 60 to 98 s
    write_run(tmp_path / "d", "sub-01_task-look", seed=3, sidecar={"VolumeTiming": times, "StartTime": 0.5})
    onsets = [3.0, 33.0, 37.0, 76.0, 90.0, 95.0]  # the third in the pause, the last after the run's 100.5 s
    rows = [f"{onset}\t1\tx\ti{row}.png" for row, onset in enumerate(onsets)]
    write_events(tmp_path / "b", "sub-01_task-look", rows)
    runs = find_runs(tmp_path / "d", events=tmp_path / "b")
    with pytest.raises(
        InputError, match=r"events\.tsv: no volume of .* 1 of 5 trials \(onsets 37 s\).*drop_unmeasured_trials = true"
    ):
        trials_of(runs)
    with pytest.raises(InputError, match="onsets 37 s"):
        read_responses(runs)
    runs = find_runs(tmp_path / "d", events=tmp_path / "b", drop_unmeasured_trials=True)
    assert list(trials_of(runs).stimulus_ids) == ["i0.png", "i1.png", "i3.png", "i4.png"]
    assert capsys.readouterr().err.count("the run paused in their window") == 1
    own = scipy.signal.detrend(series(3).reshape(-1, N_VOLUMES).T.astype(float), axis=0)
    own = scipy.stats.zscore(own, axis=0, ddof=1)
    for row, onset in enumerate((3.0, 33.0, 76.0, 90.0)):
        taken = [own[volume] for volume in range(N_VOLUMES) if onset + 4 <= times[volume] + 0.5 <= onset + 8]
        np.testing.assert_allclose(read_responses(runs)[0][row], sum(taken) / len(taken), atol=1e-5)


def test_a_trial_before_the_run_is_left_out(tmp_path, capsys):
    write_run(tmp_path / "d", "sub-01_task-look", sidecar=PLAIN)
    write_events(tmp_path / "b", "sub-01_task-look", ["-3\t1\tx\ta.png", "3\t1\tx\tb.png"])
    assert list(find_runs(tmp_path / "d", events=tmp_path / "b")[0].stimulus_ids) == ["b.png"]
    assert "1 of 2 trials are left out; they are not inside the run" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["n/a", "N/A", "nan", "NaN", "NAN", "", " ", '""', "NA", "none", "-", "#NA", "<undefined>"])
def test_rows_without_a_stimulus_are_no_trials(tmp_path, word):
    write_run(tmp_path / "d", "sub-01_task-look", sidecar=PLAIN)
    write_events(tmp_path / "b", "sub-01_task-look", ["3\t1\tx\ta.png", f"9\t1\tfix\t{word}", f"n/a\t1\tbutton\t{word}"])
    assert list(find_runs(tmp_path / "d", events=tmp_path / "b")[0].stimulus_ids) == ["a.png"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("n/a\t1\tx\tb.png", "onset 'n/a' in line 3 is not a time"),
        ("NaN\t1\tx\tb.png", "onset 'NaN' in line 3"),
        ("\t1\tx\tb.png", "onset '' in line 3"),
        ("inf\t1\tx\tb.png", "onset 'inf' in line 3"),
        ("14,5\t1\tx\tb.png", "onset '14,5' in line 3"),
        ("1_4\t1\tx\tb.png", "onset '1_4' in line 3"),
        ("3\t1\tx\ta.png", "two rows show 'a.png' at 3 s"),
        ("3.05\t1\tx\ta.png", "two rows show 'a.png' at 3 and 3.05 s"),
        ("20000\t1\tx\tb.png", "1 of 2 trials have their window.*the last onset is 20000. Are onsets in seconds"),
        ("5\t1\tresponse\ta.png", r"'a\.png' stands on rows of the types 'x', 'response'.*trial_type = \['x'\]"),
    ],
)
def test_rows_that_cannot_be_trials_are_refused(tmp_path, row, message):
    write_run(tmp_path / "d", "sub-01_task-look", sidecar=PLAIN)
    write_events(tmp_path / "b", "sub-01_task-look", ["3\t1\tx\ta.png", row])
    with pytest.raises(InputError, match=message):
        find_runs(tmp_path / "d", events=tmp_path / "b")


@pytest.mark.parametrize("column", ["trial_type", "event_type", "type", "Event", "condition"])
def test_rows_of_responses_are_seen_by_any_column_of_kinds(tmp_path, column):
    """Beside a column of categories too, and where that one is filtered; a column of codes is none."""
    write_run(tmp_path / "d", "sub-01_task-look", sidecar=PLAIN)
    (tmp_path / "b").mkdir()
    rows = "".join(
        f"{onset}\tface\t{kind}\ta.png\n" for onset, kind in ((3, "stim"), (6, "press"), (20, "stim"), (23, "press"))
    )
    for other in ("category", "trial_type"):
        if other == column:
            continue
        (tmp_path / "b" / "sub-01_task-look_events.tsv").write_text(f"onset\t{other}\t{column}\tstim_file\n{rows}")
        for settings in ({}, {"trial_type": ["face"]} if other == "trial_type" else {}):
            with pytest.raises(InputError, match=r"of the types 'stim', 'press'.*trial_type = \['stim'\]"):
                find_runs(tmp_path / "d", events=tmp_path / "b", **settings)
        chosen = find_runs(tmp_path / "d", events=tmp_path / "b", type_column=column, trial_type=["stim"])
        assert list(chosen[0].onsets) == [3.0, 20.0]
        every = find_runs(tmp_path / "d", events=tmp_path / "b", type_column=other, trial_type=["face"])
        assert list(every[0].onsets) == [3.0, 6.0, 20.0, 23.0]
    codes = rows.replace("stim\ta", "1\ta").replace("press", "2")
    if column in ("Event", "condition"):
        (tmp_path / "b" / "sub-01_task-look_events.tsv").write_text(f"onset\tcategory\t{column}\tstim_file\n{codes}")
        assert len(find_runs(tmp_path / "d", events=tmp_path / "b")[0].onsets) == 4


def test_rows_close_to_each_other_are_said(tmp_path, capsys):
    write_run(tmp_path / "d", "sub-01_task-look", sidecar=PLAIN)
    write_events(tmp_path / "b", "sub-01_task-look", ["3\t1\tx\ta.png", "3\t1\tx\tb.png", "4.5\t1\tx\ta.png", "7\t1\tx\ta.png"])
    assert len(find_runs(tmp_path / "d", events=tmp_path / "b")[0].onsets) == 4
    said = capsys.readouterr().err
    assert "1 rows show the stimulus of a row less than 2 s before" in said
    assert "1 rows show another stimulus at the time of a row before" in said


def test_trials_are_chosen_by_their_type(tmp_path):
    """A stimulus may be on rows of several types over runs too."""
    for run in "12":
        write_run(tmp_path / "d", f"sub-01_task-look_run-{run}", sidecar=PLAIN)
    shown = ["3\t1\tstim\ta.png", "5\t1\tresponse\ta.png", "7\t1\tfix\tNA"]
    write_events(tmp_path / "b", "sub-01_task-look_run-1", shown)
    write_events(tmp_path / "b", "sub-01_task-look_run-2", ["3\t1\tcatch\ta.png"])

    def ids(types, **settings):
        runs = find_runs(tmp_path / "d", events=tmp_path / "b", trial_type=types, **settings)
        return [list(run.onsets) for run in runs]

    assert ids(["stim", "catch"]) == [[3.0], [3.0]]
    assert ids(["stim", "response", "catch"]) == [[3.0, 5.0], [3.0]]
    with pytest.raises(NotFoundError, match=r"run-2_events\.tsv: no row has one of the types stim; there are: catch, fixation"):
        ids(["stim"])
    with pytest.raises(NotFoundError, match="no column 'kind'"):
        ids(["stim"], type_column="kind")
    write_events(tmp_path / "b", "sub-01_task-look_run-1", ["3\t1\tstim\ta.png"])
    with pytest.raises(InputError, match="of the types 'stim', 'catch'"):
        ids([])
    (tmp_path / "b" / "sub-01_task-look_run-2_events.tsv").write_text("onset\tevent_type\tstim_file\n3\tresponse\ta.png\n")
    with pytest.raises(InputError, match="of the types 'stim', 'response'"):
        ids([])


def named(tmp_path, bolds=("run-1",), tables=(), sidecars=(), folder="b/sub-01", **settings):
    """find_runs on a tree of empty-handed files: series `sub-01_task-look_*`, tables and sidecars by path."""
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in bolds:
        write_run(tmp_path / "d" / "sub-01", f"sub-01_task-look_{name}", sidecar=None)
    for number, path in enumerate(tables):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"onset\tduration\tstim_file\n3\t1\ttable{number}.png\n")
    for path, step in sidecars:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(json.dumps({"RepetitionTime": step}))
    return find_runs(tmp_path / "d" / "sub-01", events=tmp_path / folder, **settings)


OWN = "b/sub-01/func/sub-01_task-look_run-1_events.tsv"


@pytest.mark.parametrize(
    "tables",
    [
        ["b/task-look_events.tsv"],
        ["b/sub-01/sub-01_task-look_events.tsv"],
        ["b/sub-01/func/task-look_events.tsv"],
        ["b/sub-01/func/sub-01_task-look_run-001_events.tsv"],
        [OWN, "b/task-look_events.tsv"],
        [OWN, "b/sub-01/sub-01_task-look_events.tsv"],
        [OWN, "b/sub-01/func/._sub-01_task-look_run-1_events.tsv"],
        [OWN, "b/sub-01/func/.backup/sub-01_task-look_run-1_events.tsv"],
        [OWN, "b/sub-01/func/sub-01_task-look_run-2_events.tsv"],
        [OWN, "b/sub-01/func/sub-02_task-look_run-1_events.tsv"],
        [OWN, "b/sub-02/func/task-look_run-1_events.tsv"],
    ],
)
def test_the_nearest_table_that_holds_for_a_run_counts(tmp_path, tables):
    assert list(named(tmp_path, tables=tables)[0].stimulus_ids) == ["table0.png"]


def test_tables_are_found_from_the_root_of_the_data_too(tmp_path):
    runs = named(tmp_path, tables=[OWN, "b/derivatives/sub-01/func/sub-01_task-look_run-1_events.tsv"], folder="b")
    assert list(runs[0].stimulus_ids) == ["table0.png"]


@pytest.mark.parametrize(
    "other",
    [
        "b/sub-01/func/sub-01_task-look_run-01_events.tsv",
        "b/sub-01/func_old/sub-01_task-look_run-1_events.tsv",
        "b/sub-01/func/old/sub-01_task-look_run-1_events.tsv",
        "b/sub-01/func/old/task-look_events.tsv",
        "b/sub-01/func/sub-01_task-look_events.tsv",
        "b/sub-01/func/sub-01_task-look_run-1_desc-clean_events.tsv",
        "b/sub-01/func/sub-01_task-look_run-1_events.tsv.gz",
        "b/sub-01/func/sub-01_task-look_run-01_events.TSV",
        "b/sub-01/func/sub-01_task-look_run-1_events.csv",
    ],
)
def test_two_tables_for_one_run_are_refused(tmp_path, other):
    with pytest.raises(InputError, match=r"2 events tables fit .*: .*run-1_events\.tsv.*One run has one table"):
        named(tmp_path, tables=[OWN, other])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("run-01", "run-01_.* and .*run-1_.* are two series of one run; keep one of them"),
        ("run-1_rec-dico", "two series of one run; choose one with entities.rec = "),
        ("run-2_res-2", "several of 'res': 2, none; choose one with entities.res = "),
        ("run-1_res-2", "two series of one run; choose one with entities.res = "),
    ],
)
def test_two_series_for_one_run_are_refused(tmp_path, second, message):
    with pytest.raises(InputError, match=message):
        named(tmp_path, ("run-1", second), ["b/task-look_events.tsv"])


def test_two_series_with_one_table_are_said(tmp_path, capsys):
    tables = ["b/task-look_events.tsv"]
    assert len(named(tmp_path, ("run-1", "run-2"), tables)) == 2
    assert capsys.readouterr().err == ""
    assert len(named(tmp_path, ("acq-b_run-1",))) == 3
    assert "acq-b_run-1" in (said := capsys.readouterr().err)
    assert "which are taken for two runs" in said


@pytest.mark.parametrize("key", ["space", "res", "den", "desc", "cohort", "label", "hemi", "part", "echo", "rec"])
def test_forms_of_a_scan_are_one_scan(key):
    assert of_scan(entities(f"sub-01_acq-a_run-01_{key}-x_bold.nii.gz")) == {"sub": "01", "acq": "a", "run": "1"}


def test_a_form_is_chosen_by_its_entities(tmp_path):
    runs = named(tmp_path, ("run-1", "run-01_res-2", "run-2_res-2"), ["b/task-look_events.tsv"], entities={"res": "2"})
    assert ["res-2" in run.bold.name for run in runs] == [True, True]
    assert len(named(tmp_path, (), entities={"res": "2", "run": "02"})) == 1
    assert ["res-2" in run.bold.name for run in named(tmp_path, (), entities={"res": "none"})] == [False]
    with pytest.raises(NotFoundError, match="with res '3'; there are: 2, none"):
        named(tmp_path, (), entities={"res": "3"})
    with pytest.raises(FileError, match=r"no func/\*_desc-denoised_bold.*there are desc preproc"):
        named(tmp_path, (), entities={"desc": "denoised"})
    for path in (tmp_path / "d" / "sub-01" / "func").glob("*_run-1_*preproc*"):
        path.rename(path.with_name(path.name.replace("preproc", "denoised")))
    assert ["desc-denoised" in run.bold.name for run in named(tmp_path, (), entities={"desc": "denoised"})] == [True]


def test_unpacked_series_are_read_and_a_second_copy_is_refused(tmp_path):
    named(tmp_path, tables=[OWN])
    packed = next((tmp_path / "d").rglob("*bold.nii.gz"))
    nibabel.save(nibabel.load(packed), packed.with_suffix(""))
    with pytest.raises(InputError, match="are two series of one run; keep one of them"):
        named(tmp_path, ())
    packed.unlink()
    assert named(tmp_path, ())[0].bold.name.endswith("_bold.nii")


@pytest.mark.parametrize(
    "sidecars",
    [
        [("d/task-look_bold.json", 4.0)],
        [("d/sub-01/sub-01_task-look_bold.json", 4.0)],
        [("d/sub-01/func/sub-01_task-look_run-01_desc-preproc_bold.json", 4.0)],
        [("d/sub-01/func/task-look_bold.json", 4.0), ("d/task-look_bold.json", 3.0)],
        [("b/task-look_bold.json", 4.0)],
        [("b/bold.json", 4.0)],
        [("b/sub-01/func/sub-01_task-look_run-1_echo-1_part-mag_bold.json", 4.0)],
        [("b/sub-01/func/sub-01_task-look_run-1_bold.json", 4.0), ("b/task-look_bold.json", 3.0)],
    ],
)
def test_sidecars_are_inherited(tmp_path, sidecars):
    named(tmp_path, tables=[OWN])
    for path in (tmp_path / "d").rglob("*bold.nii.gz"):  # a header that does not say it
        image = nibabel.load(path)
        image.header.set_zooms((3, 3, 3, 0))
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), AFFINE, image.header), path)
    runs = named(tmp_path, (), sidecars=sidecars)
    assert [volumes.tolist() for volumes in runs[0].volumes] == [[2]]  # volumes every 4 s: at 8 s


def test_sidecars_that_disagree_are_refused(tmp_path):
    named(tmp_path, tables=[OWN])
    with pytest.raises(
        InputError, match=r"task-look_bold\.json says RepetitionTime 2 s, .*bold\.json says 4 s; which is right"
    ):
        named(tmp_path, (), sidecars=[("d/task-look_bold.json", 2.0), ("b/task-look_bold.json", 4.0)])
    assert len(named(tmp_path, (), repetition_time=2.0)) == 1
    (tmp_path / "d" / "task-look_bold.json").write_text("[2.0]")
    with pytest.raises(FileError, match=r"task-look_bold\.json: a sidecar is a JSON object.*\[2\.0\] came"):
        named(tmp_path, ())
    (tmp_path / "d" / "task-look_bold.json").write_text('{"RepetitionTime": 2.0}')
    with pytest.raises(InputError, match=r"says RepetitionTime = .* beside it says .*keep one of them"):
        named(tmp_path, (), sidecars=[("d/bold.json", 4.0)], repetition_time=None)


def test_sessions_whose_names_are_one_number_are_not_put_together(tmp_path):
    for session in ("1", "01"):
        write_run(tmp_path / "d" / f"ses-{session}", f"sub-01_ses-{session}_task-look", sidecar=PLAIN)
        write_events(tmp_path / "b", f"sub-01_ses-{session}_task-look")
    with pytest.raises(InputError, match="are sessions 01, 1 one"):
        trials_of(find_runs(tmp_path / "d", events=tmp_path / "b"))


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
            r"0 of 1 trials have their window of 4 to 8 s inside the run.*the last onset is 99\. Are onsets in seconds",
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
    with pytest.raises(InputError, match="widen window_s"):
        trials_of(find_runs(derivatives, events=bids, window_s=(4.0, 4.5)))
    with pytest.raises(NotFoundError, match="no column 'image'"):
        find_runs(derivatives, events=bids, stimulus_column="image")
    assert set(find_runs(derivatives, events=bids, stimulus_column="trial_type")[0].stimulus_ids) == {"image", "fixation"}
    whole = next(derivatives.rglob("*bold.nii.gz"))
    whole.write_bytes(whole.read_bytes()[:1500])
    with pytest.raises(FileError, match=r"bold\.nii\.gz: cannot be read as NIfTI"):
        read_responses(find_runs(derivatives, events=bids))
