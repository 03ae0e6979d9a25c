"""NSD's official layout. Oracle: the arrays that were written with h5py, nibabel and scipy, indexed as its manual says."""

import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.core.config import describe
from pulvinar.core.errors import ConfigError, FileError, InputError, LeakError
from pulvinar.datasets import mindeye2
from pulvinar.datasets.nsd import files as nsd_files
from pulvinar.datasets.nsd import load, probes
from pulvinar.datasets.nsd import reader as dataset
from pulvinar.datasets.nsd import spaces as nsd_spaces
from pulvinar.datasets.nsd.spaces import VolumeSpace


def wrong_probes(written, query: str = "", n: int = 200) -> list[dict]:
    """Probes of the loader that differ from what was written."""
    experiment = load(f"{written.root}?{query}")
    wrong = []
    for probe in probes(experiment, n, seed=1):
        subject, (session, row) = probe["subject"], divmod(probe["trial"], 750)
        if "hemisphere" not in probe:
            x, y, z = probe["voxel"]
            beta = written.betas[subject][session, row, x, y, z] / 300
            labels = {name: int(volume[x, y, z]) for name, volume in written.labels[subject].items()}
        else:
            vertex = probe["vertex"] + (6 if probe["hemisphere"] == "rh" else 0)
            beta = written.surface[subject][session, vertex, row]
            labels = {"nsdgeneral": int(written.surface_labels[vertex])}
        right = abs(probe["beta"] - beta) < 1e-4 and probe["image"] == written.image(subject, probe["trial"])
        if not right or probe["roi"] != labels:
            wrong.append(probe)
    return wrong


@pytest.mark.parametrize(
    "query",
    [
        "",
        "format=nifti",
        "space=fsaverage",
        "box=3x2x4",
        "box=fit:nsdgeneral&others=nsdgeneral",
        "sessions=1",
        "voxels=nsdgeneral",
    ],
)
def test_every_value_image_and_label_is_the_written_one(nsd, query):
    assert wrong_probes(nsd, query) == []


def swapped_axes(path, betas, voxels, read=nsd_files._read_box):
    return read(path, betas, np.where(voxels.max() < min(betas.shape[1:]), voxels[:, ::-1], voxels))


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (nsd_files, "_read_box", swapped_axes),
        (nsd_files, "FIRST_INDEX", 0),
        (VolumeSpace, "scale", 1 / 100),
        (nsd_files, "TRIALS_PER_SESSION", 749),
    ],
    ids=["axis order", "tables from 0", "scale", "trials in a session"],
)
def test_the_round_trip_catches_an_error_in_each_convention(nsd, monkeypatch, owner, name, error):
    monkeypatch.setattr(owner, name, error)
    if name == "TRIALS_PER_SESSION":
        monkeypatch.setattr(dataset, name, error)
    try:
        assert wrong_probes(nsd, "voxels=nsdgeneral&box=1:5,0:5,0:5")
    except (InputError, IndexError):
        assert name in ("FIRST_INDEX", "TRIALS_PER_SESSION")  # out of range, or 750 trials where 749 were looked for


def test_a_mask_that_takes_what_is_not_cortex_is_noticed(nsd, monkeypatch):
    right = load(str(nsd.root)).subjects["subj01"].rois["nsdgeneral"]
    brain = nsd.betas["subj01"][0].any(0)
    labels = nsd.labels["subj01"]["nsdgeneral"][brain]
    np.testing.assert_array_equal(right, labels == 1)
    monkeypatch.setattr(nsd_files, "inside", lambda labels: labels != 0)
    assert load(str(nsd.root)).subjects["subj01"].rois["nsdgeneral"].sum() == (labels != 0).sum() > right.sum()


def test_labels_have_their_names_and_an_annotated_roi_is_there(nsd):
    responses = load(str(nsd.root)).subjects["subj03"]
    visual = nsd.labels["subj03"]["prf-visualrois"][nsd.betas["subj03"][0].any(0)]
    np.testing.assert_array_equal(responses.rois["prf-visualrois.V1d"], visual == 2)
    np.testing.assert_array_equal(responses.rois["annotated"], responses.rois["nsdgeneral"])


def test_noise_ceiling_of_mixed_repeats(nsd):
    """NC = ncsnr^2 / (ncsnr^2 + (A/3 + B/2 + C) / (A + B + C)), A, B, C images shown three, two times and once."""
    responses = load(str(nsd.root)).subjects["subj01"]
    shown = nsd.order[:1500]
    times = np.unique(shown[shown <= 1000], return_counts=True)[1]
    a, b, c = ((times == n).sum() for n in (3, 2, 1))
    power = nsd.ncsnr["subj01"][nsd.betas["subj01"][0].any(0)].astype(float) ** 2
    np.testing.assert_allclose(responses.noise_ceiling, power / (power + (a / 3 + b / 2 + c) / (a + b + c)), rtol=1e-5)
    three = load(f"{nsd.root}?repeats=3").subjects["subj01"].noise_ceiling
    np.testing.assert_allclose(three, power / (power + 1 / 3), rtol=1e-5)


def test_shared_images_are_the_test_and_nothing_else(nsd):
    experiment = load(str(nsd.root))
    shown = {subject: {nsd.image(subject, trial) for trial in range(1500)} for subject in nsd.betas}
    shared = set((nsd.images[0, :1000] - 1).tolist())
    seen = shown["subj01"] | shown["subj03"]
    assert set(experiment.split.test) == {f"nsd{row:05d}" for row in seen & shared}
    assert set(experiment.split.train) == {f"nsd{row:05d}" for row in seen - shared}
    assert experiment.target == "subj01"
    assert load(f"{nsd.root}?target=3").target == "subj03"


def test_the_first_session_trains_and_later_ones_test(nsd):
    responses = load(f"{nsd.root}?subjects=1&sessions=1").subjects["subj01"]
    later = nsd.order[750:1500] <= 1000
    numbers = responses.values.trial_numbers
    np.testing.assert_array_equal(numbers, [*range(750), *(750 + np.flatnonzero(later))])
    assert responses.sessions.tolist() == [1] * 750 + [2] * int(later.sum())
    assert load(f"{nsd.root}?subjects=1&sessions=1&test_sessions=same").subjects["subj01"].n_trials == 750


def test_the_older_test_set(nsd):
    """Shared images of the first 37 sessions; trials of all but a subject's last three sessions."""
    older = load(f"{nsd.root}?test=shared982")
    early = {int(column) for column in nsd.order[: 37 * 750] if column <= 1000}
    shown = {int(column) for column in nsd.order[:1500] if column <= 1000}
    rows = {int(nsd.images[0, column - 1]) - 1 for column in early & shown}
    assert set(older.split.test) == {f"nsd{row:05d}" for row in rows}


def test_the_older_test_set_has_no_trials_of_the_last_three_sessions(nsd, monkeypatch):
    monkeypatch.setattr(dataset, "SESSIONS", {1: 4, 3: 5, 2: 40})  # of two on disk, subj01 has one before its last three
    experiment = load(f"{nsd.root}?test=shared982")
    shared = nsd.order[:1500] <= 1000
    kept = [trial for trial in range(1500) if trial < 750 or not shared[trial]]
    assert experiment.subjects["subj01"].values.trial_numbers.tolist() == kept
    assert experiment.subjects["subj03"].n_trials == 1500


def test_runs_have_63_and_62_trials(nsd):
    responses = load(f"{nsd.root}?subjects=1&sessions=1&test_sessions=same").subjects["subj01"]
    assert np.bincount(responses.runs)[1:].tolist() == [63, 62] * 6


def test_features_and_images_are_those_of_the_row(nsd):
    stimuli = load(str(nsd.root)).stimuli
    rows = np.array([int(name[3:]) for name in stimuli.ids])
    np.testing.assert_array_equal(stimuli.feature("clip")[:, 0], rows.astype(np.float32))
    first = int(np.flatnonzero(rows < 40)[0])
    assert (stimuli.image(first) == rows[first]).all()
    assert stimuli.image(first).shape == (425, 425, 3)
    assert load(f"{nsd.root}?image_size=32").stimuli.image(first).shape == (32, 32, 3)


def test_opening_reads_no_betas_and_no_pixels(nsd, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("read")

    monkeypatch.setattr(nsd_spaces.nsd_files, "read_hdf5_session", refuse)
    monkeypatch.setattr(dataset.HDF5Images, "__call__", refuse)
    assert load(str(nsd.root)).subjects["subj01"].values.shape == (1500, 4 * 7 * 6)


@pytest.mark.long
def test_black_images_are_told_apart_by_the_table_unless_pixels_are_asked_for(spoilt_nsd):
    path = spoilt_nsd.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["imgBrick"] = np.zeros((73_000, 4, 4, 3), np.uint8)
    load(f"{spoilt_nsd.root}?subjects=1&sessions=1")
    with pytest.raises(LeakError, match="share their pixels"):
        load(f"{spoilt_nsd.root}?check_pixels=true&subjects=1&sessions=1")


def test_sources_are_coco_photographs(spoilt_nsd):
    table = spoilt_nsd.root / "nsddata" / "experiments" / "nsd" / "nsd_stim_info_merged.csv"
    table.write_text("\n".join([",cocoId,nsdId", *(f"{row},{row + 500_000},{row}" for row in range(73_000))]) + "\n")
    stimuli = load(str(spoilt_nsd.root)).stimuli
    assert stimuli.sources[0] == f"coco{int(stimuli.ids[0][3:]) + 500_000}"


def test_a_folder_of_surface_betas_alone_opens_as_such_even_without_meshes(spoilt_nsd, capsys):
    for subject in ("subj01", "subj03"):
        shutil.rmtree(spoilt_nsd.betas_folder(subject))
    assert wrong_probes(spoilt_nsd) == []
    assert load(str(spoilt_nsd.root)).subjects["subj01"].geometry.kind == "surface"
    shutil.rmtree(spoilt_nsd.root / "nsddata" / "freesurfer" / "fsaverage" / "surf")
    assert wrong_probes(spoilt_nsd) == []
    assert "low_pass=none" in capsys.readouterr().err


def test_a_folder_without_stimuli_opens_without_images(spoilt_nsd):
    (spoilt_nsd.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5").unlink()
    assert load(str(spoilt_nsd.root)).stimuli.read_image is None


def test_what_has_seen_the_annotation_is_labelled(nsd):
    oracles = load(f"{nsd.root}?box=3x3x3@nsdgeneral").facts["oracles"]
    assert any("box 3x3x3@nsdgeneral" in line for line in oracles)
    assert not any("box" in line for line in load(f"{nsd.root}?box=3x3x3").facts["oracles"])


def test_a_subject_with_the_voxels_of_others_is_no_target(nsd):
    experiment = load(f"{nsd.root}?others=nsdgeneral")
    assert experiment.subjects["subj03"].n_voxels < experiment.subjects["subj01"].n_voxels
    with pytest.raises(InputError, match=r"nsd:FOLDER\?target=3"):
        dataclasses.replace(experiment, target="subj03")
    assert dataclasses.replace(load(str(nsd.root)), target="subj03").target == "subj03"


def test_mistakes_in_the_options_are_listed_together(nsd):
    with pytest.raises(ConfigError) as caught:
        load(f"{nsd.root}?subject=1&sessions=0&subjects=1,9&box=3x3&test=shared900")
    for part in ("did you mean 'subjects'", "sessions is 1 or more", "'9'", "60x40x40", "'shared1000', 'shared982'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("options", "heading"), [(dataset.Options, "nsd:"), (mindeye2.Options, "mindeye2:")])
def test_the_table_of_options_is_up_to_date(options, heading):
    page = (Path(__file__).resolve().parents[2] / "docs" / "nsd.md").read_text(encoding="utf-8")
    lines = [f"| option of `{heading}` | default | what |", "|---|---|---|"]
    for name, _, default, text in describe(options):
        shown = {None: "none", (): "none"}.get(default, str(default).lower() if isinstance(default, bool) else default)
        lines.append(f"| `{name}` | {shown} | {text} |")
    table = "\n".join(lines)
    assert table in page, f"the table that belongs into docs/nsd.md:\n{table}"


def test_other_folders_and_absent_subjects_are_refused(nsd, tmp_path):
    with pytest.raises(FileError, match="not a folder of the Natural Scenes Dataset"):
        load(str(tmp_path))
    with pytest.raises(FileError, match=r"subj02.*no sessions of betas"):
        load(f"{nsd.root}?subjects=2")
    with pytest.raises(InputError, match="target: subj02 is not among"):
        load(f"{nsd.root}?target=2")
    with pytest.raises(FileError, match=r"no subject .subj01 to subj08. has such a folder"):
        load(f"{nsd.root}?betas=betas_assumehrf")
