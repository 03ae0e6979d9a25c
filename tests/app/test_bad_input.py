"""Bad input: one message that names what is wrong, exit code 2, nothing written."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import pulvinar
from pulvinar.cli import main
from pulvinar.core.errors import FileError, InputError
from pulvinar.learning import checkpoints

NEW = "responses/sub-03.h5"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The message of a command that must be refused."""
    assert main([*map(str, arguments), "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    return said.err


def values_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["values"][...]


def _too_few_ids(world: Path, change) -> None:
    change(world / NEW, "stimulus", [f"image-{number:03d}" for number in range(100)])


def _nan_voxel(world: Path, change) -> None:
    values = values_of(world / NEW)
    values[3, 7] = np.nan
    change(world / NEW, "values", values)


def _constant_voxel(world: Path, change) -> None:
    values = values_of(world / NEW)
    values[:, 11] = 4
    change(world / NEW, "values", values)


def _nan_in_a_test_trial(world: Path, change) -> None:
    values = values_of(world / NEW)
    values[-1, 5] = np.nan
    change(world / NEW, "values", values)


def _nan_of_another_subject(world: Path, change) -> None:
    values = values_of(world / "responses/sub-01.h5")
    values[3, 9] = np.nan
    change(world / "responses/sub-01.h5", "values", values)


def _in_both_sides(world: Path, change) -> None:
    split = json.loads((world / "split.json").read_text())
    (world / "split.json").write_text(json.dumps({**split, "test": [*split["test"], "image-004"]}))


def _same_source(world: Path, change) -> None:
    change(world / "stimuli.h5", "source", ["one picture", *map(str, range(128)), "one picture"])


def _same_image(world: Path, change) -> None:
    with h5py.File(world / "stimuli.h5", "r+") as file:
        file["features/clip"][120] = file["features/clip"][6]


def _no_geometry(world: Path, change) -> None:
    change(world / NEW, "geometry", None)


def _truncated(world: Path, change) -> None:
    content = (world / NEW).read_bytes()
    (world / NEW).write_bytes(content[: len(content) // 2])


def _not_json(world: Path, change) -> None:
    (world / "split.json").write_text("{'train': ")


def _no_features(world: Path, change) -> None:
    change(world / "stimuli.h5", "features", None)


def _two_features(world: Path, change) -> None:
    change(world / "stimuli.h5", "features/dino", np.random.default_rng(1).normal(size=(130, 4)))


def _one_value_feature(world: Path, change) -> None:
    features = np.ones((130, 12), np.float32)
    features[100:] = 2
    change(world / "stimuli.h5", "features/clip", features)


def _no_test_trials(world: Path, change) -> None:
    change(world / NEW, "stimulus", [f"image-{number % 100:03d}" for number in range(160)])


def _no_roi_to_pretrain_on(world: Path, change) -> None:
    change(world / "responses/sub-02.h5", "rois", None)


def _another_subjects_responses(world: Path, change) -> None:
    shutil.copy(world / "responses/sub-01.h5", world / NEW)


SPOILT = [
    (_another_subjects_responses, "responses of sub-03 are those of sub-01; one of them holds another subject's data"),
    (_too_few_ids, "160 trials but 100 stimulus ids (sub-03)"),
    (_nan_voxel, "responses of sub-03: 1 voxels are constant, NaN or infinite over the 100 trials in use: [7]"),
    (_constant_voxel, "[11]. Drop them with drop_bad_voxels=true"),
    (_nan_in_a_test_trial, "responses of sub-03: 1 voxels are NaN or infinite in the 60 test trials: [5]"),
    (_nan_of_another_subject, "responses of sub-01: 1 voxels are constant, NaN or infinite"),
    (_in_both_sides, "1 stimuli stand in training and test, among them ['image-004']"),
    (_same_source, "'image-000' (training) and 'image-129' (test)"),
    (_same_image, "'image-006' (training) and 'image-120' (test)"),
    (_no_geometry, "sub-03.h5: a group 'geometry' is needed"),
    (_truncated, "sub-03.h5: cannot be read as HDF5"),
    (_not_json, "split.json: cannot be read as JSON"),
    (_no_features, "the stimuli have no feature (embedding) to decode"),
    (_two_features, "the stimuli have several features (clip, dino); choose one with feature=NAME"),
    (_one_value_feature, "feature 'clip': the same for every training stimulus"),
    (_no_test_trials, "responses of sub-03: no trial shows a test stimulus"),
    (_no_roi_to_pretrain_on, "sub-02 has no ROI 'annotated'; there are: none"),
]


@pytest.mark.long
@pytest.mark.parametrize(("spoil", "expected"), SPOILT, ids=[spoil.__name__[1:] for spoil, _ in SPOILT])
def test_spoilt_data_are_refused_by_name_and_nothing_is_written(spoil, expected, spoilt, change, tmp_path, capsys):
    spoil(spoilt, change)
    before = sorted(tmp_path.rglob("*"))
    assert expected in refusal(capsys, "fit", "troi", "--data", spoilt, "--out", tmp_path / "new" / "run")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.long
@pytest.mark.parametrize("spoil", [_nan_voxel, _constant_voxel, _nan_in_a_test_trial, _nan_of_another_subject])
def test_drop_bad_voxels_makes_them_usable(spoil, spoilt, change, tmp_path, quick, capsys):
    spoil(spoilt, change)
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "fit",
                "troi",
                "--data",
                str(spoilt),
                "--out",
                run,
                "--set",
                *quick,
                "drop_bad_voxels=true",
                "--quiet",
            ]
        )
        == 0
    )
    assert main(["evaluate", run, "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert np.isfinite([row["brain_to_image_top1"] for row in rows if row["n_voxels"]]).all()


SETTINGS = [
    (["n_voxels=121"], "n_voxels: a budget of 1 to 120 (the voxels there are) is needed, 121 came"),
    (["n_voxels=0"], "troi.n_voxels is 1 or more, not 0"),
    (["n_voxels=-3"], "troi.n_voxels is 1 or more, not -3"),
    (["n_voxels=1.5"], "troi.n_voxels is a count (whole number) or a share in (0, 1], not 1.5"),
    (["n_voxels=nan"], "troi.n_voxels is a whole number or a number, not 'nan'"),
    (["learning_rate=inf"], "troi.learning_rate is finite, not inf"),
    (["seed=-1"], "troi.seed lies in [0, 2^48), not -1"),
    (["n_sessions=3"], "n_sessions: 1 to 2 for sub-03, 3 came"),
    (["n_sessions=0"], "troi.n_sessions is 1 or more, or none, not 0"),
    (["scaling=per_session"], "session 1 of sub-03 has 0 non-test trials"),
    (["scaling=per_session", "pretrain=false"], "session 1 of sub-03 has 0 non-test trials"),
    (["n_folds=90"], "n_folds: 100 trials in 90 folds leave a fold with 1; 2 or more are needed"),
    (["feature=dino"], "stimuli have no feature 'dino'; did you mean"),
    (
        ["pretrain=false", "pretrained.epochs=3"],
        "pretrain=false trains no pretrained run and starts from none; leave out pretrained.epochs",
    ),
    (["pretrained.n_blocks=-1"], "cross_subject_decoder.n_blocks is 0 or more, not -1"),
    (["lora_rank=2", "pretrain=false"], "troi.lora_rank updates a pretrained decoder; leave it at 0 with pretrain=false"),
    (["micro_batches=25"], "troi.micro_batches is at most batch_size (24), not 25"),
    (["clip_norm=0"], "troi.clip_norm is above 0, or none, not 0"),
    (["feature=none.npy"], "none.npy: no such file of embeddings"),
    (["epochs"], "settings are given as key=value; these are not: 'epochs'"),
]


@pytest.mark.parametrize(("settings", "expected"), SETTINGS, ids=[",".join(settings) for settings, _ in SETTINGS])
def test_settings_that_do_not_fit(settings, expected, world, tmp_path, capsys):
    said = refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run", "--set", *settings)
    assert expected in said.replace("there are: clip", "did you mean")
    assert not list(tmp_path.iterdir())


def test_all_mistakes_of_the_method_and_its_pretrained_are_reported_at_once(world, tmp_path, capsys):
    wrong = ("low_pas=none", "epochs=many", "n_rounds=0", "pretrained.hiden=3", "pretrained.epochs=-1")
    said = refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run", "--set", *wrong)
    assert "'low_pas' is not a setting of troi; did you mean 'low_pass'?" in said
    assert "troi.epochs is a whole number, not 'many'" in said
    assert "troi.n_rounds is above 0, not 0" in said
    assert "'hiden' is not a setting of cross_subject_decoder; did you mean 'hidden'?" in said
    assert "cross_subject_decoder.epochs is above 0, not -1" in said


def test_unknown_method_dataset_and_missing_arguments(world, tmp_path, capsys):
    assert "'troj' is not one of the methods; did you mean 'troi'?" in refusal(
        capsys, "fit", "troj", "--data", "x", "--out", "y"
    )
    assert "--data and --out are needed" in refusal(capsys, "fit", "troi")
    assert "'simulatd' is not one of the datasets" in refusal(capsys, "data", "inspect", "simulatd:x")
    assert "is not opened by name" in refusal(capsys, "data", "inspect", "simulated:x")
    assert "no such folder" in refusal(capsys, "fit", "troi", "--data", tmp_path / "none", "--out", tmp_path / "run")
    assert "starts from no pretrained run" in refusal(
        capsys, "fit", "cross_subject_decoder", "--data", world, "--out", tmp_path / "run", "--pretrained", "x"
    )


def test_target_that_is_not_there(world, tmp_path, capsys):
    said = refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run", "--target", "sub-4")
    assert "target: no subject named 'sub-4'; did you mean" in said


def test_existing_run_is_refused_and_left_alone(world, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert "exists already" in refusal(capsys, "fit", "troi", "--data", world, "--out", finished)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


def test_truncated_and_missing_images_are_named(write_world, tmp_path, capsys):
    world = write_world(tmp_path / "world", images=True)
    picture = world / "images" / "image-003.png"
    picture.write_bytes(picture.read_bytes()[:200])
    assert "image-003.png: cannot be read as an image" in refusal(
        capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run"
    )
    picture.unlink()
    assert "image-003.png: no such image" in refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run")


KINDS = ["no run", "another method", "trained on the target", "trained on test images", "unfinished"]
KINDS += ["another version", "damaged", "another network", "another size"]


@pytest.mark.parametrize("kind", KINDS)
def test_pretraineds_that_do_not_fit(kind, world, spoilt, finished, change, tmp_path, capsys):
    pretrained, target, data = tmp_path / "pretrained", "sub-03", world
    shutil.copytree(finished / "pretrained", pretrained)
    facts = json.loads((pretrained / "run.json").read_text())
    expected = {
        "no run": "not a run folder",
        "another method": "a finished run of cross_subject_decoder is needed; this is a finished troi",
        "trained on the target": "the pretrained decoder was trained on sub-01, the new subject",
        "trained on test images": "the pretrained decoder was trained on 1 of the test images, among them ['image-004']",
        "unfinished": "a finished run of cross_subject_decoder is needed; this is a running cross_subject_decoder",
        "another version": "decoder.safetensors: a decoder of version 1, version 2 is needed; fit it again",
        "damaged": "decoder.safetensors: not a decoder of this version",
        "another network": "feature 'clip': embeddings of another network than the decoder was trained on",
        "another size": "feature 'clip': 7 numbers a stimulus, the decoder has 12",
    }[kind]
    if kind == "no run":
        (pretrained / "run.json").unlink()
    elif kind == "another method":
        pretrained = finished
    elif kind == "trained on the target":
        target = "sub-01"
    elif kind == "trained on test images":
        split = json.loads((spoilt / "split.json").read_text())
        moved = {"train": [name for name in split["train"] if name != "image-004"], "test": [*split["test"], "image-004"]}
        (spoilt / "split.json").write_text(json.dumps(moved))
        data = spoilt
    elif kind in ("another version", "damaged"):
        path = pretrained / "checkpoints" / "decoder.safetensors"
        state = checkpoints.load(path)
        state.pop("version" if kind == "another version" else "embedding")
        checkpoints.save(path, state)
    elif kind in ("another network", "another size"):
        change(
            spoilt / "stimuli.h5", "features/clip", np.random.default_rng(9).normal(size=(130, 12 if "network" in kind else 7))
        )
        data = spoilt
    else:
        (pretrained / "run.json").write_text(json.dumps({**facts, "status": "running"}))
    before = {path: path.read_bytes() for path in pretrained.rglob("*") if path.is_file()}
    new_run = tmp_path / "run"
    told = ("--data", data, "--out", new_run, "--pretrained", pretrained, "--target", target)
    # sub-01 as the target has a ROI, so that only the leak is wrong
    assert expected in refusal(capsys, "fit", "troi", *told)
    assert not new_run.exists()
    assert before == {path: path.read_bytes() for path in pretrained.rglob("*") if path.is_file()}


def test_evaluate_and_report_of_what_is_no_finished_run(world, finished, spoilt, change, tmp_path, capsys):
    assert "not a run folder" in refusal(capsys, "evaluate", tmp_path)
    assert "not a run folder" in refusal(capsys, "report", spoilt)
    assert "no such run folder" in refusal(capsys, "report", tmp_path / "none")
    assert "has no evaluation of its own" in refusal(capsys, "evaluate", finished / "pretrained")
    unfinished = Path(shutil.copytree(finished, tmp_path / "unfinished"))
    facts = json.loads((unfinished / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps({**facts, "status": "running"}))
    assert "the fit has not finished; continue it with `pulvinar fit troi" in refusal(capsys, "evaluate", unfinished)
    (unfinished / "run.json").write_text('{"method": "troi"}')
    assert "status, seed, data missing" in refusal(capsys, "evaluate", unfinished)
    values = values_of(spoilt / NEW)
    change(spoilt / NEW, "values", values + 1)
    assert "the data are not the ones this run began with" in refusal(capsys, "evaluate", finished, "--data", spoilt)


def test_run_whose_data_have_gone(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text())
    facts["data"]["path"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    assert "say where they are with --data" in refusal(capsys, "evaluate", run)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written(world, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "cannot be written" in refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run")


@pytest.mark.parametrize("what", ["checkpoint", "text"])
def test_full_disk_is_said_and_leaves_no_partial_file(what, world, tmp_path, quick, capsys, monkeypatch):
    import errno

    from safetensors import SafetensorError

    if what == "checkpoint":

        def full(tensors, path, metadata):  # what safetensors raises on a full tmpfs
            Path(path).write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(checkpoints, "save_file", full)
    else:

        def full_text(self, content):
            raise OSError(errno.ENOSPC, "No space left on device", str(self))

        monkeypatch.setattr(Path, "write_bytes", full_text)
    said = refusal(capsys, "fit", "troi", "--data", world, "--out", tmp_path / "run", "--set", *quick)
    assert "the disk is full" in said
    assert not [path for path in tmp_path.rglob("*") if ".partial-" in path.name]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: pulvinar.fit(pulvinar.load, "troi", out="x"), r"method: a name is needed, as in fit\('troi', data, ...\)"),
        (lambda: pulvinar.fit("troi", "world", out=3), "out: the folder to write is needed, int came"),
        (lambda: pulvinar.fit("troi", "world", pretrained=3, out="x"), "pretrained: a run or its folder is needed, int came"),
        (lambda: pulvinar.open_data(np.zeros((3, 4))), "source: a path, dataset:path or an xarray object .* ndarray came"),
        (lambda: pulvinar.load(3), "run: the folder of a run is needed, int came"),
        (lambda: pulvinar.load_backbone(None), "run: the folder of a run is needed, NoneType came"),
        (lambda: pulvinar.plot.scores(3), "run: a run .* or its folder is needed, int came"),
    ],
)
def test_arguments_of_python_that_are_something_else_are_named(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_a_figure_that_there_is_not():
    with pytest.raises(AttributeError, match="has no attribute 'score'; did you mean 'scores'"):
        _ = pulvinar.plot.score


def test_a_run_in_the_place_of_data_is_told(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileError, match=r"a run, not an experiment folder; .*pulvinar\.load"):
        pulvinar.open_data(tmp_path)
