"""BIDS folders as they are. Oracles: nilearn's FirstLevelModel called plainly on the files; planted responses; the files
themselves.

A small study is written by hand here (series of noise, events, sidecars); each quirk that people report is then made in a copy
of it.
"""

import json
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.signal
import scipy.stats
from nilearn.glm.first_level import FirstLevelModel
from nilearn.interfaces.fmriprep import load_confounds
from PIL import Image

from pulvinar.app.data import inspect
from pulvinar.app.data import open_data as open_any
from pulvinar.cli import main
from pulvinar.core.config import describe
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError, PulvinarError
from pulvinar.data.confounds import ConfoundSettings, read_confounds
from pulvinar.data.matlab_files import write_matlab_7_3
from pulvinar.datasets import simulated
from pulvinar.datasets.bids import Generated, load, writer
from pulvinar.datasets.bids import Options as BidsOptions

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
GRID, STEP, N_VOLUMES = (4, 3, 2), 2.0, 60
pytestmark = pytest.mark.filterwarnings("ignore:.*Generation of a mask:RuntimeWarning")  # nilearn's, where a mask is given
ONSETS = [4.0 + 11.5 * number for number in range(9)]
SPACE = "T1w"
PREPROC = f"space-{SPACE}_desc-preproc_bold"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def series(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 20, (*GRID, N_VOLUMES))


def save(path: Path, values: np.ndarray, *, step: float = STEP, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    if values.ndim >= 4:
        image.header.set_zooms((3, 3, 3, step, *[1] * (values.ndim - 4)))
        image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def kind_of(number: int) -> str:
    return "face" if number % 2 else "house"


def events(run: int, rows: list[str] | None = None, header: str = "onset\tduration\ttrial_type\tstim_file") -> str:
    """Nine pictures of two types, each shown once in a run; and a button press, which is no trial."""
    usual = [f"{onset:g}\t2\t{kind_of(k)}\tset/img{k:02d}.png" for k, onset in enumerate(ONSETS)]
    return "\n".join([header, *(rows if rows is not None else [*usual, "50\t0.5\tbutton\tn/a"])]) + "\n"


def confounds(seed: int) -> str:
    """As fMRIPrep writes them: the first row of derivatives and displacement is n/a."""
    rng = np.random.default_rng([seed, 0xC0])
    columns: dict[str, np.ndarray] = {}
    for name in ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "csf", "white_matter", "global_signal"):
        values = rng.normal(size=N_VOLUMES)
        columns |= {name: values, f"{name}_power2": values**2}
        columns[f"{name}_derivative1"] = np.concatenate([[np.nan], np.diff(values)])
        columns[f"{name}_derivative1_power2"] = columns[f"{name}_derivative1"] ** 2
    columns["framewise_displacement"] = np.concatenate([[np.nan], np.where(np.arange(1, N_VOLUMES) == 30, 2.0, 0.1)])
    columns["std_dvars"] = np.concatenate([[np.nan], np.ones(N_VOLUMES - 1)])
    columns["cosine00"] = np.cos(np.pi * (np.arange(N_VOLUMES) + 0.5) / N_VOLUMES)
    columns["non_steady_state_outlier00"] = (np.arange(N_VOLUMES) == 0).astype(float)
    return pd.DataFrame(columns).to_csv(sep="\t", index=False, na_rep="n/a")


def write_study(root: Path, *, sessions: tuple[str, ...] = ("",), runs: tuple[int, ...] = (1, 2), images: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    described = {"Name": "a study", "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC0"}
    (root / "dataset_description.json").write_text(json.dumps(described))
    (root / "task-look_bold.json").write_text(json.dumps({"TaskName": "look", "RepetitionTime": STEP}))  # inherited
    for session in sessions:
        for run in runs:
            place = Path("sub-01") / (f"ses-{session}" if session else "") / "func"
            stem = "_".join(part for part in ("sub-01", session and f"ses-{session}", "task-look", f"run-{run}") if part)
            func, prepared = root / place, root / "derivatives/fmriprep" / place
            func.mkdir(parents=True, exist_ok=True)
            (func / f"{stem}_events.tsv").write_text(events(run))
            save(prepared / f"{stem}_{PREPROC}.nii.gz", series(len(session) * 100 + run))
            save(prepared / f"{stem}_space-{SPACE}_desc-brain_mask.nii.gz", np.ones(GRID, np.uint8))
            (prepared / f"{stem}_desc-confounds_timeseries.tsv").write_text(confounds(run))
            (prepared / f"{stem}_{PREPROC}.json").write_text(json.dumps({"RepetitionTime": STEP, "StartTime": 0.0}))
    if images:
        (root / "stimuli/set").mkdir(parents=True)
        for number in range(9):
            pixels = np.random.default_rng(500 + number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"stimuli/set/img{number:02d}.png")
    return root


@pytest.fixture
def study(tmp_path) -> Path:
    return write_study(tmp_path / "study")


def run_file(root: Path, run: int, name: str = f"{PREPROC}.nii.gz") -> Path:
    return root / f"derivatives/fmriprep/sub-01/func/sub-01_task-look_run-{run}_{name}"


def events_file(root: Path, run: int) -> Path:
    return root / f"sub-01/func/sub-01_task-look_run-{run}_events.tsv"


def values_of(source: object) -> np.ndarray:
    own = load(str(source)).subjects["sub-01"]
    return own.read(np.arange(own.n_trials))


# --- betas ------------------------------------------------------------------------------------------------------------


def plain_nilearn(root: Path, run: int, trial: int, *, all_apart: bool = False, **settings: object) -> np.ndarray:
    """The beta of one trial as nilearn's users compute it, on all voxels in C order."""
    table = pd.read_csv(events_file(root, run), sep="\t", na_values="n/a")
    table = table[table.stim_file.notna()].reset_index(drop=True)
    names = [f"{kind}__{row:03d}" if all_apart or row == trial else kind for row, kind in enumerate(table.trial_type)]
    fit = settings.pop("fit", {})
    mask = nibabel.Nifti1Image(np.ones(GRID, np.uint8), AFFINE)
    usual = {"t_r": STEP, "mask_img": mask, "minimize_memory": False, "noise_model": "ols"}
    model = FirstLevelModel(**{**usual, **settings})
    model.fit(str(run_file(root, run)), events=table[["onset", "duration"]].assign(trial_type=names), **fit)
    columns = model.design_matrices_[0].columns
    own = np.eye(len(columns))[columns.get_loc(names[trial])]
    return model.compute_contrast(own, output_type="effect_size").get_fdata().reshape(-1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("query", "settings"),
    [
        ("estimate=lss", {}),
        ("estimate=lsa", {"all_apart": True}),
        ("noise=ar1", {"noise_model": "ar1"}),
        ("hrf=spm+derivative&drift=polynomial&drift_order=2", {"hrf_model": "spm + derivative", "drift_model": "polynomial",
        "drift_order": 2}), ("smoothing_mm=5&scale=none&high_pass_hz=0.02", {"smoothing_fwhm": 5, "signal_scaling": False,
        "high_pass": 0.02}),
    ],
)  # fmt: skip
def test_betas_are_those_of_nilearn(study, query, settings):
    found = values_of(f"{study}?{query}")
    assert found.shape == (18, 24)
    for run, trial in ((1, 0), (1, 4), (2, 8)):
        wanted = plain_nilearn(study, run, trial, **settings)
        np.testing.assert_allclose(found[(run - 1) * 9 + trial], wanted, rtol=1e-6, atol=1e-6 * max(1, np.abs(wanted).max()))


def test_betas_with_confounds_and_scrubbed_volumes_are_those_of_nilearn(study):
    """Volume 0 is not steady yet, and volume 30 moved; nilearn's sample masks leave both out."""
    found = values_of(f"{study}?confounds=motion,wm_csf,scrub&motion=derivatives&scrub=0")
    table, kept = load_confounds(str(run_file(study, 1)), strategy=("motion", "wm_csf", "scrub"), motion="derivatives", scrub=0)
    assert 30 not in kept
    assert 0 not in kept
    wanted = plain_nilearn(study, 1, 3, fit={"confounds": table, "sample_masks": [kept]})
    np.testing.assert_allclose(found[3], wanted, rtol=1e-6, atol=1e-5)


def test_other_trials_may_stand_in_one_column(study):
    """Oracle: nilearn with one name for all other trials."""
    found = values_of(f"{study}?others=together")
    table = pd.read_csv(events_file(study, 1), sep="\t", na_values="n/a").dropna(subset="stim_file")
    names = ["own" if row == 2 else "other" for row in range(9)]
    model = FirstLevelModel(t_r=STEP, mask_img=nibabel.Nifti1Image(np.ones(GRID, np.uint8), AFFINE), noise_model="ols")
    model.fit(str(run_file(study, 1)), events=table[["onset", "duration"]].assign(trial_type=names))
    wanted = model.compute_contrast("own", output_type="effect_size").get_fdata().reshape(-1)
    np.testing.assert_allclose(found[2], wanted, rtol=1e-6, atol=1e-5)


def test_nuisance_events_are_in_the_model(study):
    """Oracle: nilearn with the button press as one more condition."""
    found = values_of(f"{study}?nuisance=button")
    table = pd.read_csv(events_file(study, 1), sep="\t")
    names = [f"{kind}__own" if row == 5 else kind for row, kind in enumerate(table.trial_type)]
    model = FirstLevelModel(t_r=STEP, mask_img=nibabel.Nifti1Image(np.ones(GRID, np.uint8), AFFINE), noise_model="ols")
    model.fit(str(run_file(study, 1)), events=table[["onset", "duration"]].assign(trial_type=names))
    wanted = model.compute_contrast(names[5], output_type="effect_size").get_fdata().reshape(-1)
    np.testing.assert_allclose(found[5], wanted, rtol=1e-6, atol=1e-5)
    assert np.abs(found - values_of(study)).max() > 0.01


def test_start_time_of_slice_timing_is_nilearns_reference(study):
    for run in (1, 2):
        run_file(study, run, f"{PREPROC}.json").write_text(
            json.dumps({"RepetitionTime": STEP, "StartTime": 1.0, "SliceTimingCorrected": True})
        )
    wanted = plain_nilearn(study, 2, 1, slice_time_ref=0.5)
    np.testing.assert_allclose(values_of(study)[10], wanted, rtol=1e-6, atol=1e-5)


def test_a_pause_does_not_stretch_the_response(study):
    """Oracle: nilearn on the run without a pause, of which the volumes of the pause are scrubbed."""
    keep = np.setdiff1d(np.arange(N_VOLUMES), [20, 21, 22])
    whole = series(1)
    save(run_file(study, 1), whole[..., keep])
    run_file(study, 1, f"{PREPROC}.json").write_text(json.dumps({"VolumeTiming": (keep * STEP).tolist()}))
    (study / "task-look_bold.json").unlink()
    found = values_of(f"{study}?runs=1")
    save(run_file(study, 1), whole)
    wanted = plain_nilearn(study, 1, 6, fit={"sample_masks": [keep]})
    np.testing.assert_allclose(found[6], wanted, rtol=1e-6, atol=1e-5)


def test_a_trial_in_a_pause_is_refused_or_left_out(study, capsys):
    keep = np.setdiff1d(np.arange(N_VOLUMES), np.arange(13, 25))
    save(run_file(study, 1), series(1)[..., keep])
    run_file(study, 1, f"{PREPROC}.json").write_text(json.dumps({"VolumeTiming": (keep * STEP).tolist()}))
    (study / "task-look_bold.json").unlink()
    with pytest.raises(InputError, match=r"1 of 9 trials \(onsets 27 s\).*pause.*drop_unmeasured_trials=true"):
        load(f"{study}?runs=1")
    own = load(f"{study}?runs=1&drop_unmeasured_trials=true").subjects["sub-01"]
    assert "they are left out" in capsys.readouterr().err
    assert own.n_trials == 8
    assert "img02" not in own.stimulus_ids


def test_volumes_off_the_grid_have_a_window_only(study):
    times = np.sort(np.random.default_rng(0).uniform(0, 120, N_VOLUMES)).tolist()
    run_file(study, 1, f"{PREPROC}.json").write_text(json.dumps({"VolumeTiming": times}))
    (study / "task-look_bold.json").unlink()
    with pytest.raises(InputError, match=r"no multiple of .* estimate=window"):
        load(f"{study}?runs=1")


def test_a_window_is_the_mean_of_its_volumes(study):
    """Oracle: scipy's detrend and zscore, and a loop over volumes."""
    found = values_of(f"{study}?estimate=window&window_from_s=5&window_to_s=7.5")
    own = scipy.signal.detrend(series(2).reshape(-1, N_VOLUMES).T, axis=0)
    own = scipy.stats.zscore(own, axis=0, ddof=1)
    taken = [volume for volume in range(N_VOLUMES) if 5 <= volume * STEP - ONSETS[3] <= 7.5]
    np.testing.assert_allclose(found[9 + 3], own[taken].mean(0), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("form", ["int16 with slope and intercept", "trailing axis", "big endian"])
@pytest.mark.parametrize("smoothing", ["", "&smoothing_mm=4"])
def test_forms_of_nifti_give_the_betas_of_their_values(study, form, smoothing):
    """Oracle: the same betas from nibabel's get_fdata() in a plain float64 file."""
    path = run_file(study, 1)
    if form == "int16 with slope and intercept":
        image = nibabel.Nifti1Image(np.rint((series(1) - 1000) * 100).astype(np.int16), AFFINE)
        image.header.set_slope_inter(0.01, 1000)
        image.header.set_zooms((3, 3, 3, STEP))
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, path)
    elif form == "trailing axis":
        save(path, series(1)[..., None])
    else:
        save(path, series(1).astype(">f8"))
    found = values_of(f"{study}?runs=1{smoothing}")
    save(path, np.asarray(nibabel.load(path).get_fdata()).reshape(*GRID, N_VOLUMES))
    np.testing.assert_allclose(found, values_of(f"{study}?runs=1{smoothing}"), rtol=1e-6, atol=1e-5)


def test_planted_responses_are_found(tmp_path):
    """Planted truth: betas of a written world correlate with the responses that were planted (seen: .99, .88, .92)."""
    config = Generated(n_subjects=1, n_voxels=200, n_runs=2, n_trials=20, n_images=20, image_size=16, noise_percent=0.3)

    def plant(shown, **settings):
        return simulated.simulate(simulated.Config(**settings), shown=shown)

    planted = writer.write_world(tmp_path / "world", config, plant).subjects["subj01"]
    wanted = planted.read(np.arange(planted.n_trials))
    agreement = {}
    for estimate in ("lss", "lsa", "window"):
        experiment = load(f"{tmp_path / 'world'}?estimate={estimate}")
        found = experiment.subjects["sub-01"].read(np.arange(40))
        agreement[estimate] = np.corrcoef(found.ravel(), wanted.ravel())[0, 1]
    assert agreement["lsa"] > 0.97
    assert agreement["lss"] > 0.8
    assert agreement["lsa"] > agreement["window"] + 0.03
    assert experiment.subjects["sub-01"].rois["annotated"].sum() == planted.rois["annotated"].sum()
    assert (experiment.truth["sub-01"]["area"] == simulated_area(planted, tmp_path)).all()


def simulated_area(planted, tmp_path) -> np.ndarray:
    """The area of every voxel, from the file of truth, where the brain mask is."""
    volume = np.load(tmp_path / "world/derivatives/pulvinar/truth/sub-01.npz")["area"]
    mask = next((tmp_path / "world/derivatives/fmriprep").glob("**/*brain_mask.nii.gz"))
    return volume[np.asarray(nibabel.load(mask).dataobj) > 0]


# --- dead voxels, means -----------------------------------------------------------------------------------------------


def test_a_voxel_that_is_dead_in_one_run_is_nan_there(study, capsys):
    values = series(1)
    values[1, 1, 1] = 700.0
    values[2, 1, 0, 5] = np.nan
    values[3, 0, 0] -= 1100
    save(run_file(study, 1), values)
    found = values_of(study)
    assert "1 voxels have a mean below 1" in capsys.readouterr().err
    flat = np.ravel_multi_index([[1, 2, 3], [1, 1, 0], [1, 0, 0]], GRID)
    assert np.isnan(found[:9, flat]).all()
    assert np.isfinite(np.delete(found, flat, axis=1)).all()
    assert np.isfinite(found[9:]).all()


def test_centred_series_have_no_percent(study):
    save(run_file(study, 1), series(1) - 1000)
    with pytest.raises(InputError, match=r"have a mean below 1.*scale=none"):
        values_of(study)
    assert np.isfinite(values_of(f"{study}?scale=none")).all()


# --- the cache --------------------------------------------------------------------------------------------------------


def test_betas_are_kept_run_by_run_with_their_settings(study, cache, monkeypatch):
    own = load(str(study)).subjects["sub-01"]
    first = own.read(np.arange(9))  # the first run alone
    kept = sorted((cache / "betas").glob("*.json"))
    assert len(kept) == 1
    facts = json.loads(kept[0].read_text())
    assert facts["settings"]["model"]["hrf"] == "glover"
    assert facts["files"][0].endswith(f"run-1_{PREPROC}.nii.gz")
    own.read(np.arange(18))
    monkeypatch.setattr("pulvinar.datasets.bids.estimates.betas", lambda *args, **kwargs: pytest.fail("computed again"))
    np.testing.assert_array_equal(values_of(study)[:9], first)


@pytest.mark.parametrize("change", ["setting", "events", "series", "damage"])
def test_kept_betas_are_not_taken_for_others(study, cache, change, capsys):
    before = values_of(f"{study}?runs=1")
    query = "runs=1"
    if change == "setting":
        query = "runs=1&hrf=spm"
    elif change == "events":
        events_file(study, 1).write_text(events_file(study, 1).read_text().replace("15.5\t", "17\t"))
    elif change == "series":
        save(run_file(study, 1), series(77))
    else:
        place = next((cache / "betas").glob("*.npy"))
        content = bytearray(place.read_bytes())
        content[-3] ^= 4
        place.write_bytes(content)
        np.testing.assert_array_equal(values_of(f"{study}?{query}"), before)
        assert "computed again" in capsys.readouterr().err
        return
    assert np.abs(values_of(f"{study}?{query}") - before).max() > 1e-3


# --- which files ------------------------------------------------------------------------------------------------------


def test_runs_come_by_number_and_sessions_by_theirs(tmp_path):
    root = write_study(tmp_path / "study", sessions=("10", "02"), runs=(10, 2))
    own = load(str(root)).subjects["sub-01"]
    assert own.sessions.tolist() == [2] * 18 + [10] * 18
    assert own.runs.tolist() == ([2] * 9 + [10] * 9) * 2
    assert load(f"{root}?sessions=10&runs=2").subjects["sub-01"].n_trials == 9
    with pytest.raises(NotFoundError, match="there are: ses-02_task-look_run-10"):
        load(f"{root}?sessions=3")


def test_inspect_lists_runs_and_reads_no_series(study, monkeypatch, capsys):
    monkeypatch.setattr("pulvinar.datasets.bids.estimates.read_volume", lambda path: pytest.fail("read"))
    found = inspect(f"bids:{study}")
    assert found["subjects"]["sub-01"]["trials"] == 18
    assert found["subjects"]["sub-01"]["bad_voxels"] is None
    assert [run["run"] for run in found["runs"]] == ["run-1", "run-2"]
    assert found["runs"][0] | {} == {
        "subject": "sub-01",
        "run": "run-1",
        "series": run_file(study, 1).name,
        "events": events_file(study, 1).name,
        "volumes": N_VOLUMES,
        "step_s": STEP,
        "trials": 9,
        "types": "house, face",
    }
    assert found["facts"]["license"] == "CC0"
    assert "least squares separate" in found["facts"]["responses"]


def copied(root: Path, run: int, old: str, new: str) -> None:
    """The files of a run in another form."""
    for path in run_file(root, run).parent.glob(f"*run-{run}_*{old}*"):
        shutil.copy(path, path.with_name(path.name.replace(old, new)))


def two_spaces(root: Path) -> None:
    for run in (1, 2):
        copied(root, run, "space-T1w", "space-MNI152NLin2009cAsym")


def two_resolutions(root: Path) -> None:
    for run in (1, 2):
        for path in list(run_file(root, run).parent.glob(f"*run-{run}_space-T1w_desc*")):
            for res in ("1", "2"):
                shutil.copy(path, path.with_name(path.name.replace("space-T1w", f"space-T1w_res-{res}")))
            path.unlink()


def two_tasks(root: Path) -> None:
    shutil.copy(run_file(root, 1), Path(str(run_file(root, 1)).replace("task-look", "task-rest")))


def two_pipelines(root: Path) -> None:
    shutil.copytree(root / "derivatives/fmriprep", root / "derivatives/other")


def no_events(root: Path) -> None:
    events_file(root, 2).unlink()


def beyond_the_end(root: Path) -> None:
    events_file(root, 2).write_text(
        events(2, [f"{onset + 40:g}\t2\t{kind_of(k)}\tset/img{k:02d}.png" for k, onset in enumerate(ONSETS)])
    )


def milliseconds(root: Path) -> None:
    events_file(root, 2).write_text(
        events(2, [f"{onset * 1000:g}\t2\t{kind_of(k)}\tset/img{k:02d}.png" for k, onset in enumerate(ONSETS)])
    )


def another_shape(root: Path) -> None:
    save(run_file(root, 2), series(2)[:, :, :1])


def another_place(root: Path) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 3
    save(run_file(root, 2), series(2), affine=moved)


def other_time_in_json(root: Path) -> None:
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": 1.5}))


def other_time_in_header(root: Path) -> None:
    save(run_file(root, 2), series(2), step=2.5)


def no_mask(root: Path) -> None:
    run_file(root, 2, f"space-{SPACE}_desc-brain_mask.nii.gz").unlink()


def no_duration(root: Path) -> None:
    events_file(root, 1).write_text(events_file(root, 1).read_text().replace("\t2\thouse", "\tn/a\thouse"))


def same_stimulus_of_two_types(root: Path) -> None:
    text = events_file(root, 1).read_text()
    events_file(root, 1).write_text(text + "9.0\t1\tresponse\tset/img00.png\n")


def a_missing_picture(root: Path) -> None:
    (root / "stimuli/set/img03.png").unlink()


def a_backup_of_events(root: Path) -> None:
    place = root / "sub-01/func_old"
    place.mkdir()
    shutil.copy(events_file(root, 1), place)


def only_a_pickle(root: Path) -> None:
    place = root / "derivatives/glmsingle/sub-01/TYPED_FITHRF_GLMDENOISE_RR.npy"
    place.parent.mkdir(parents=True)
    np.save(place, {"betasmd": np.zeros(3)}, allow_pickle=True)


QUIRKS = {  # what is there -> what the refusal says, and an option with which it is read
    two_spaces: (r"several of 'space': MNI152NLin2009cAsym, T1w; choose one with space=\.\.\.", "space=T1w"),
    two_resolutions: (r"two series of one run; choose one with res=\.\.\.", "res=2"),
    two_tasks: (r"several of 'task': look, rest; choose one with task=", "task=look"),
    two_pipelines: (
        r"several folders of derivatives hold series: fmriprep, other; choose one with derivatives=",
        "derivatives=other",
    ),
    no_events: (r"no sub-01_task-look_run-2_events\.tsv .* missing=skip", "missing=skip"),
    beyond_the_end: (
        r"2 of 9 trials \(onsets 124\.5, 136 s\).*ends at 120 s \(60 volumes\).*drop_unmeasured",
        "drop_unmeasured_trials=true",
    ),
    milliseconds: (r"ends at 120 s .* are onsets in seconds\?", "runs=1"),
    another_shape: (r"run-2_.*not on the same grid: \(4, 3, 1\) and \(4, 3, 2\)", "runs=1"),
    another_place: (r"run-2_.*not in the same place", "affine_tolerance=0.9&runs=1"),
    other_time_in_json: (r"says RepetitionTime 2 s, .*task-look_bold\.json says 1\.5 s.*repetition_time", "repetition_time=2"),
    other_time_in_header: (r"header says 2\.5 s per volume.*repetition_time = 2 or 2\.5", "repetition_time=2"),
    no_mask: (r"brain mask .*run-2_space-T1w_desc-brain_mask\.nii\.gz is not beside it", "runs=1"),
    no_duration: (r"5 of 9 rows have no duration .*duration_s=", "duration_s=2"),
    same_stimulus_of_two_types: (r"stands on rows of the types 'house', 'response'", "trial_type=house,face"),
    a_missing_picture: (r"img03", "images=false"),
    a_backup_of_events: (r"2 events tables fit", "runs=2"),
    only_a_pickle: (r"opt\['wanthdf5'\] = 1[\s\S]*estimate=lss", "estimate=lss"),
}


@pytest.mark.long
@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.__name__)
def test_what_could_be_meant_in_two_ways_is_refused_and_an_option_chooses(study, quirk):
    message, way = QUIRKS[quirk]
    quirk(study)
    with pytest.raises(PulvinarError, match=message) as caught:
        load(str(study))
    assert str(study) in str(caught.value)
    own = load(f"{study}?{way}").subjects["sub-01"]
    assert np.isfinite(own.read(np.arange(own.n_trials))).all()


def test_events_of_a_task_hold_for_all_its_runs(study):
    """BIDS' inheritance: one table at the root."""
    shutil.copy(events_file(study, 1), study / "task-look_events.tsv")
    before = values_of(study)
    for run in (1, 2):
        events_file(study, run).unlink()
    np.testing.assert_array_equal(values_of(study), before)


def test_derivatives_alone_find_their_raw_data(study, tmp_path):
    """fmriprep/ itself is named; its raw data are two folders above, or said."""
    before = values_of(study)
    np.testing.assert_array_equal(values_of(study / "derivatives/fmriprep"), before)
    (study / "derivatives/fmriprep").rename(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="without events; say with raw=DIR"):
        load(str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(values_of(f"{tmp_path / 'elsewhere'}?raw={study}"), before)


def test_raw_series_have_a_computed_mask(study, capsys):
    """Oracle: nilearn's compute_epi_mask on the same mean; a ball on a dark ground."""
    place = np.indices((12, 13, 11)) - 5.5
    inside = (place**2).sum(0) < 20
    for run in (1, 2):
        values = np.random.default_rng(run).normal(20, 2, (12, 13, 11, N_VOLUMES))
        values[inside] += 1000
        save(study / f"sub-01/func/sub-01_task-look_run-{run}_bold.nii.gz", np.rint(values).astype(np.int16))
    shutil.rmtree(study / "derivatives")
    own = load(str(study)).subjects["sub-01"]
    assert "raw: neither realigned" in capsys.readouterr().err
    assert 0.7 * inside.sum() < own.n_voxels <= inside.sum()
    assert own.read(np.array([0])).shape == (1, own.n_voxels)


def test_mask_and_rois_are_taken_on_the_grid(study):
    part, area = np.zeros(GRID, np.uint8), np.zeros(GRID, np.uint8)
    part[1:] = 1
    area[2] = 1
    save(study / "part.nii.gz", part)
    save(study / "derivatives/rois/sub-01/anat/sub-01_space-T1w_label-V1_mask.nii.gz", area)
    own = load(f"{study}?mask={study / 'part.nii.gz'}").subjects["sub-01"]
    assert own.n_voxels == 18
    np.testing.assert_array_equal(own.rois["V1"], area[part > 0] > 0)
    save(study / "derivatives/rois/sub-01/anat/sub-01_space-T1w_label-V2_mask.nii.gz", np.ones((5, 3, 2), np.uint8))
    with pytest.raises(InputError, match=r"V2_mask.*not on the same grid"):
        load(str(study))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("confounds=compcor,motion", "compcor components were made of series without their cosines"),
        ("confounds=simple", "two sets of cosines; take drift=none"),
        ("confounds=head", "confounds: head came; presets are simple"),
        ("estimate=window&hrf=spm", "does nothing here"),
        ("entities=acq", "entities: acq is not like acq-highres"),
        ("test_runs=1&test_share=0.2", "both choose the test"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(study, query, message):
    with pytest.raises(ConfigError, match=message):
        load(f"{study}?{query}")


def test_nothing_to_read_says_what_was_looked_for(study, tmp_path):
    with pytest.raises(NotFoundError, match="no series in derivatives/fmriprp; did you mean 'fmriprep'"):
        load(f"{study}?derivatives=fmriprp")
    with pytest.raises(FileError, match=r"of sub-02; there are those of sub-01"):
        load(f"{study}?subjects=02")
    (tmp_path / "sub-01/func").mkdir(parents=True)
    (tmp_path / "sub-01/func/sub-01_task-look_hemi-L_bold.func.gii").write_text("")
    with pytest.raises(FileError, match="only series on surfaces"):
        load(str(tmp_path))


# --- confounds --------------------------------------------------------------------------------------------------------


def test_confounds_are_found_by_their_entities(study):
    """Oracle: pandas on the table of that run; the first row of a derivative is the second one's, less the mean."""
    found = read_confounds(run_file(study, 2), ConfoundSettings(names=("motion",), motion="derivatives"), N_VOLUMES)
    table = pd.read_csv(run_file(study, 2, "desc-confounds_timeseries.tsv"), sep="\t")
    wanted = table["rot_y_derivative1"].to_numpy().copy()
    wanted[0] = wanted[1]
    kept = np.arange(1, N_VOLUMES)  # volume 0 is not steady yet
    np.testing.assert_allclose(found.table["rot_y_derivative1"], wanted - wanted[kept].mean(), atol=1e-9)
    np.testing.assert_array_equal(found.kept, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "Could not find associated confound file"),
        (lambda path: shutil.copy(path, str(path).replace("timeseries", "regressors")), "more than one confound file"),
        (
            lambda path: path.write_text("\n".join(path.read_text().splitlines()[:-3]) + "\n"),
            "60 volumes, but its confounds have 57",
        ),
        (lambda path: edit_cell(path, "csf", 20, np.nan), "confounds csf have n/a below the first row"),
        (lambda path: drop_column(path, "csf"), "not in the table: .*csf"),
        (
            lambda path: path.write_text(path.read_text().replace("csf", "CSF").replace("trans_x", "X")),
            "camel case|not in the table",
        ),
    ],
)
def test_confounds_that_do_not_fit_are_refused(study, change, message):
    change(run_file(study, 1, "desc-confounds_timeseries.tsv"))
    with pytest.raises(InputError, match=message) as caught:
        load(f"{study}?confounds=motion,wm_csf")
    assert run_file(study, 1).name in str(caught.value)


def edit_cell(path: Path, column: str, row: int, value: float) -> None:
    table = pd.read_csv(path, sep="\t")
    table.loc[row, column] = value
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")


def drop_column(path: Path, column: str) -> None:
    pd.read_csv(path, sep="\t").drop(columns=column).to_csv(path, sep="\t", index=False, na_rep="n/a")


# --- GLMsingle --------------------------------------------------------------------------------------------------------


def glmsingle(root: Path, *, matlab: bool = False, session: str = "", n_trials: int = 18) -> np.ndarray:
    values = np.random.default_rng(3).normal(size=(*GRID, n_trials)).astype(np.float32)
    folder = root / "derivatives/glmsingle/sub-01" / session
    folder.mkdir(parents=True)
    path = folder / f"TYPED_FITHRF_GLMDENOISE_RR.{'mat' if matlab else 'hdf5'}"
    if matlab:
        write_matlab_7_3(path, {"modelmd": values, "R2": values[..., 0]})
    else:
        with h5py.File(path, "w") as file:
            file["betasmd"], file["R2"] = values, values[..., 0]
    return values


@pytest.mark.parametrize("matlab", [False, True])
def test_betas_of_glmsingle_are_found_by_themselves(study, matlab):
    """Trials are in the order of their onsets: those of a table in another order go back to their rows."""
    rows = [f"{onset:g}\t2\tface\tset/img{k:02d}.png" for k, onset in enumerate(ONSETS)]
    events_file(study, 2).write_text(events(2, rows[::-1]))
    values = glmsingle(study, matlab=matlab)
    experiment = load(f"{study}?trial_type=face,house")
    found = experiment.subjects["sub-01"].read(np.arange(18))
    np.testing.assert_array_equal(found[:9], values.reshape(-1, 18).T[:9])
    np.testing.assert_array_equal(found[9:], values.reshape(-1, 18).T[9:][::-1])
    assert "GLMsingle" in experiment.facts["responses"]
    assert np.abs(values_of(f"{study}?estimate=lss&trial_type=face,house")[0] - found[0]).max() > 0.01


def test_glmsingle_that_does_not_fit_is_refused(study):
    glmsingle(study, n_trials=20)
    with pytest.raises(InputError, match="20 betas, but the events of its 2 runs have 18 trials"):
        load(str(study))
    with pytest.raises(InputError, match="for which hrf says nothing; choose with estimate=lss"):
        load(f"{study}?hrf=spm")
    path = next(study.glob("derivatives/glmsingle/**/*.hdf5"))
    path.unlink()
    with h5py.File(path, "w") as file:
        file["betasmd"] = np.zeros((24, 1, 1, 18), np.float32)
    with pytest.raises(InputError, match="a list of voxels, and the file does not say which"):
        load(str(study))


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_pictures_are_those_that_the_events_name(study):
    experiment = load(str(study))
    assert experiment.stimuli.ids == [f"img{number:02d}" for number in range(9)]
    assert experiment.stimuli.labels[:2] == ["house", "face"]
    pixels = np.asarray(Image.open(study / "stimuli/set/img04.png"))
    np.testing.assert_array_equal(experiment.stimuli.image(4), pixels)
    assert len(experiment.split.test) == 2


def test_a_table_says_the_split_and_embeddings_their_rows(study):
    (study / "mine.csv").write_text("id,split\n" + "".join(f"img{k:02d},{'test' if k > 6 else 'train'}\n" for k in range(9)))
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    (study / "derivatives/pulvinar/features").mkdir(parents=True)
    np.savez(
        study / "derivatives/pulvinar/features/clip.npz", clip=rows[::-1], id=[f"img{k:02d}.png" for k in range(8, -1, -1)]
    )
    experiment = load(f"{study}?table={study / 'mine.csv'}")
    assert experiment.split.test == ("img07", "img08")
    np.testing.assert_array_equal(next(iter(experiment.stimuli.features.values())), rows)


def test_the_same_picture_under_two_names_is_refused(study):
    shutil.copy(study / "stimuli/set/img00.png", study / "stimuli/set/img08.png")
    (study / "mine.csv").write_text("id,split\n" + "".join(f"img{k:02d},{'test' if k > 6 else 'train'}\n" for k in range(9)))
    with pytest.raises(InputError, match="share their pixels"):
        load(f"{study}?table={study / 'mine.csv'}")


def blocks(run: int) -> str:
    """Two blocks of each of two labels, as rows of single images; the order changes with the run."""
    kinds = ["face", "house", "house", "face"] if run % 2 else ["house", "face", "face", "house"]
    rows = [f"{4 + 26 * block + 2 * row}\t0.5\t{kind}" for block, kind in enumerate(kinds) for row in range(6)]
    return "\n".join(["onset\tduration\ttrial_type", *rows]) + "\n"


@pytest.fixture
def block_study(tmp_path) -> Path:
    root = write_study(tmp_path / "blocks", runs=(1, 2, 3), images=False)
    for run in (1, 2, 3):
        events_file(root, run).write_text(blocks(run))
    return root


def test_blocks_of_labels_alone_are_trials(block_study):
    """Oracle: nilearn with each block as one event from its first onset to its last end."""
    experiment = load(f"{block_study}?block_gap_s=4")
    own = experiment.subjects["sub-01"]
    assert list(own.stimulus_ids[:4]) == ["run-1_face_1", "run-1_house_1", "run-1_house_2", "run-1_face_2"]
    assert set(experiment.split.test) == {f"run-3_{kind}_{k}" for kind in ("face", "house") for k in (1, 2)}
    table = pd.DataFrame(
        {"onset": [4.0, 30.0, 56.0, 82.0], "duration": 10.5, "trial_type": ["face__own", "house", "house", "face"]}
    )
    model = FirstLevelModel(t_r=STEP, mask_img=nibabel.Nifti1Image(np.ones(GRID, np.uint8), AFFINE), noise_model="ols")
    model.fit(str(run_file(block_study, 1)), events=table)
    wanted = model.compute_contrast("face__own", output_type="effect_size").get_fdata().reshape(-1)
    np.testing.assert_allclose(own.read(np.array([0]))[0], wanted, rtol=1e-6, atol=1e-5)


def test_rest_is_no_label_and_runs_are_held_out_whole(block_study):
    events_file(block_study, 2).write_text(blocks(2) + "110\t2\trest\n")
    with pytest.raises(InputError, match=r"type 'rest' show nothing.*trial_type=face,house"):
        load(f"{block_study}?block_gap_s=4")
    way = "block_gap_s=4&trial_type=face,house"
    assert load(f"{block_study}?{way}&test_runs=1").split.test[0].startswith("run-1_")
    with pytest.raises(InputError, match="there is no run 7; there are: 1, 2, 3"):
        load(f"{block_study}?{way}&test_runs=7")
    with pytest.raises(InputError, match="two or more numbered runs"):
        load(f"{block_study}?{way}&runs=1")


@pytest.mark.slow
def test_methods_work_from_labels(block_study, tmp_path):
    """A planted pattern for each label is decoded on the held-out run, through fit and evaluate."""
    rng = np.random.default_rng(0)
    pattern = {kind: rng.normal(0, 30, GRID) for kind in ("face", "house")}
    for run in (1, 2, 3):
        values = series(run)
        table = pd.read_csv(events_file(block_study, run), sep="\t")
        for row in table.itertuples():
            first = int((row.onset + 5) // STEP)
            values[..., first : first + 2] += pattern[row.trial_type][..., None] / 2
        save(run_file(block_study, run), values)
    source, out = f"bids:{block_study}?block_gap_s=4", str(tmp_path / "run")
    assert (
        main(
            [
                "fit",
                "anova",
                "--data",
                source,
                "--out",
                out,
                "--set",
                "pretrain=false",
                "--set",
                "n_voxels=12",
                "--set",
                "epochs=3",
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["evaluate", out, "--quiet"]) == 0
    scored = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert scored["identified"].startswith("the label, among 2")


def test_options_are_all_listed():
    """Every option has its line of help, as `pulvinar` lists them."""
    assert all(line for _, _, _, line in describe(BidsOptions))


def test_the_door_of_the_command_line_opens_it(study):
    assert open_any("experiment", f"bids:{study}").target == "sub-01"
