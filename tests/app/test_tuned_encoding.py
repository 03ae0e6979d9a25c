"""contrastive_encoding and regression_tuning on small planted experiments: recovery, leaks, options, bad input."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from pulvinar.app import registry
from pulvinar.core.config import build, to_toml
from pulvinar.core.errors import ConfigError, InputError, LeakError
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split, require_apart
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding import page
from pulvinar.encoding.methods import tuning
from pulvinar.encoding.tuned_networks import load_tuned
from pulvinar.learning.backbone_runs import save_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.report import run_folder

N_IMAGES, N_TEST, N_VOXELS = 150, 50, 40
QUICK = {
    "alphas": "1,100,10000",
    "n_permutations": "100",
    "image_size": "32",
    "epochs": "3",
    "batch_size": "32",
    "learning_rate": "0.001",
    "baseline": "none",
    "validation_share": "0.25",
    "pool": "2",
}


def planted(*, shuffled=False, repeats=1, seed=0, subjects=("one", "two")) -> Experiment:
    """Gratings of random orientation and colour; voxels 0 to 29 ('V1') follow them, the others ('other') follow nothing."""
    rng = np.random.default_rng(seed)
    angle, tint = rng.uniform(0, np.pi, N_IMAGES), rng.uniform(0, 1, (N_IMAGES, 3))
    axis = np.arange(24) / 24
    waves = np.cos(2 * np.pi * 3 * (np.cos(angle)[:, None, None] * axis + np.sin(angle)[:, None, None] * axis[:, None]))
    pixels = (255 * (0.5 + 0.4 * waves[..., None] * tint[:, None, None])).astype(np.uint8)
    hidden = np.stack([np.cos(2 * angle), np.sin(2 * angle), *(2 * tint.T - 1)], axis=1)
    ids = [f"image-{number:03d}" for number in range(N_IMAGES)]
    shown = np.repeat(np.arange(N_IMAGES), repeats)
    given = {}
    for name in subjects:
        signal = np.zeros((N_IMAGES, N_VOXELS))
        signal[:, :30] = hidden @ rng.standard_normal((5, 30))
        if shuffled:
            signal = signal[rng.permutation(N_IMAGES)]
        values = signal[shown] + 0.7 * rng.standard_normal((len(shown), N_VOXELS))
        places = np.argwhere(np.ones((8, 5, 1), bool))
        follows = np.arange(N_VOXELS) < 30
        given[name] = Responses(
            subject=name,
            values=values.astype(np.float32),
            stimulus_ids=[ids[row] for row in shown],
            geometry=Geometry.from_index(places, shape=(8, 5, 1), affine=np.diag([2.0, 2, 2, 1])),
            rois=ROIs({"V1": follows, "other": ~follows}, n_voxels=N_VOXELS),
        )
    stimuli = Stimuli(ids=ids, sources=ids, read_image=pixels.__getitem__)
    split = Split(train=tuple(ids[N_TEST:]), test=tuple(ids[:N_TEST]))
    return Experiment(name="planted", stimuli=stimuli, subjects=given, split=split, target=subjects[0])


def fitted(path, experiment, method="contrastive_encoding", **settings):
    found = registry.method(method)
    config = build(found.config, QUICK | settings, name=method)
    facts = {"name": "planted", "path": "", "target": "one", "fingerprint": experiment.fingerprint()}
    folder = RunFolder.create(path, method=method, config_toml=to_toml(config), seed=0, data=facts)
    found.train(config, experiment, folder)
    return found, folder, config


def run(path, experiment, method="contrastive_encoding", *, controls=False, **settings):
    module, folder, config = fitted(path, experiment, method, **settings)
    return module.evaluate(folder, experiment, config, controls=controls), folder, config


def row_of(evaluation, roi, subject="one"):
    rows = evaluation["rows"]
    return next(row for row in rows if (row["roi"], row["hemisphere"], row["subject"]) == (roi, "both", subject))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["contrastive_encoding", "regression_tuning"])
def test_planted_responses_are_found_beside_the_untuned_network(tmp_path, method):
    """Planted truth: V1 follows the images, the other ROI does not. All that the rows promise is there.

    The tuned network encodes, whatever it gained: whether so short a tuning beats the untuned one by more than the margin of
    `fall_back` hangs on rounding.
    """
    experiment = planted(repeats=3)
    evaluation, folder, config = run(tmp_path / "run", experiment, method, roi="all", controls=True, fall_back="false")
    row = row_of(evaluation, "V1")
    assert row["r_nested"] > 0.5
    assert row["r_nested_low"] < row["r_nested"] < row["r_nested_high"]
    assert row["difference"] == pytest.approx(row["r_nested"] - row["r_untuned"], abs=1e-6)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert 0 <= row["share_improved_low"] <= row["share_improved"] <= row["share_improved_high"] <= 1
    assert abs(row["share_improved_chance"] - 0.5) < 0.1
    assert 20 < row["noise_normalised"] <= 100
    assert row["r_optimistic"] >= row["r_nested"] - 0.02
    assert abs(row_of(evaluation, "other")["r_nested"]) < 0.15
    assert row["tuned_on"] == ["one"]
    found = registry.method(method)
    assert "share improved" in found.table(evaluation)
    stimuli = experiment.stimuli
    predicted = found.predict(folder, stimuli, config)["one"]
    stored = np.load(folder.path / "predictions" / "one.npz")
    np.testing.assert_allclose(predicted[stimuli.rows(list(stored["id"]))], stored["predicted"], atol=1e-4)
    changed = [load_tuned(folder, tag).checksum() for tag in ("untuned", "one")]
    assert changed[0] != changed[1]


@pytest.mark.slow
def test_shuffled_responses_score_as_chance(tmp_path):
    """Leak test: responses shuffled over images, through the whole pipeline: mean r over three worlds within 2 s.e. of 0."""
    scores, errors = [], []
    for seed in (10, 11, 12):
        evaluation, _, _ = run(tmp_path / str(seed), planted(shuffled=True, seed=seed), roi="V1", pooled="true")
        row = row_of(evaluation, "V1")
        scores.append(row["r_nested"])
        errors.append((row["r_nested_high"] - row["r_nested_low"]) / (2 * 1.96))
    assert abs(np.mean(scores)) < 2 * np.sqrt(np.square(errors).sum()) / 3


@pytest.mark.long
def test_a_test_image_never_reaches_the_tuning(tmp_path, monkeypatch):
    """The pixels of outer test images are not read in a fit, and their responses do not change its weights, in any subject."""
    experiment = planted()
    spoiled = {
        name: dataclasses.replace(
            given,
            values=np.where(np.isin(given.stimulus_ids, experiment.split.test)[:, None], 1e4, given.values).astype(np.float32),
        )
        for name, given in experiment.subjects.items()
    }
    test_rows = set(experiment.stimuli.rows(experiment.split.test))
    read = experiment.stimuli.read_image

    def read_training_image(row):
        assert row not in test_rows, "a test image was read in the fit"
        return read(row)

    stimuli = dataclasses.replace(experiment.stimuli, read_image=read_training_image)
    guarded = dataclasses.replace(experiment, subjects=spoiled)
    object.__setattr__(guarded, "stimuli", stimuli)
    _, clean, _ = fitted(tmp_path / "clean", experiment, pooled="true", epochs="1")
    _, other, _ = fitted(tmp_path / "other", guarded, pooled="true", epochs="1")
    assert load_tuned(clean, "pooled").checksum() == load_tuned(other, "pooled").checksum()
    assert torch.equal(clean.read("encoder-one")["centre"], other.read("encoder-one")["centre"])


def test_planted_leaks_are_refused():
    """A picture of another subject's training that is a test image: by id, by source picture, by pixels under another id."""
    experiment = planted()
    stimuli, test = experiment.stimuli, experiment.split.test
    with pytest.raises(LeakError, match="are test images"):
        require_apart([*experiment.split.train, test[0]], test, stimuli)
    sources = [test[0] if name == experiment.split.train[0] else name for name in stimuli.ids]
    with pytest.raises(LeakError, match="are test images"):
        require_apart(experiment.split.train, test, dataclasses.replace(stimuli, sources=sources))
    first, twin = stimuli.rows([test[0], experiment.split.train[0]])
    leaking = dataclasses.replace(stimuli, read_image=lambda row: stimuli.image(int(first) if row == twin else row))
    with pytest.raises(LeakError, match="pixels"):
        dataclasses.replace(experiment, stimuli=leaking)


def without_test_trials(experiment, name):
    """The experiment with a subject who saw training images alone, as subjects do that are there to learn from."""
    given = experiment.subjects[name]
    kept = np.isin(given.stimulus_ids, experiment.split.train)
    ids = [one for one, stays in zip(given.stimulus_ids, kept, strict=True) if stays]
    changed = Responses(subject=name, values=given.values[kept], stimulus_ids=ids, geometry=given.geometry, rois=given.rois)
    return dataclasses.replace(experiment, subjects={**experiment.subjects, name: changed})


@pytest.mark.slow
def test_pooled_and_transferred_networks_are_tuned_on_whom_they_say(tmp_path):
    experiment = without_test_trials(planted(), "two")
    evaluation, folder, _ = run(tmp_path / "pooled", experiment, pooled="true", epochs="1")
    assert {row["subject"] for row in evaluation["rows"]} == {"one"}
    assert row_of(evaluation, "V1")["tuned_on"] == ["one", "two"]
    assert {path.stem for path in (folder.path / "checkpoints").glob("network-*")} == {"network-untuned", "network-pooled"}
    evaluation, folder, _ = run(tmp_path / "transfer", planted(), tuned_on="two", epochs="1")
    assert row_of(evaluation, "V1")["tuned_on"] == ["two"]
    assert (folder.path / "checkpoints" / "network-two.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"symmetric": "true", "learn_temperature": "true", "precision": "bfloat16"}, {"voxels": "selected:12", "epochs": "1"},
     {"validation_share": "0", "patience": "none", "epochs": "1"}],
)  # fmt: skip
def test_settings_all_find_the_planted_responses(tmp_path, settings):
    evaluation, folder, _ = run(tmp_path / "run", planted(), **settings)
    assert row_of(evaluation, "V1")["r_nested"] > 0.3
    if "voxels" in settings:
        kept = folder.read("network-one")["voxels"]["one"].numpy()
        assert len(kept) == 12
        assert (kept < 30).mean() > 0.9


@pytest.mark.long
def test_voxels_above_a_ceiling_are_those_that_follow_the_images(tmp_path):
    _, folder, _ = fitted(tmp_path / "run", planted(repeats=3), voxels="ceiling:0.5", epochs="1")
    kept = folder.read("network-one")["voxels"]["one"].numpy()
    assert len(kept) > 15
    assert (kept < 30).all()
    with pytest.raises(InputError, match="no noise ceiling"):
        fitted(tmp_path / "none", planted(), voxels="ceiling:0.5", epochs="1")


@pytest.mark.long
@pytest.mark.parametrize("tuned", ["last:1", "after:features.5", "lora:2"])
def test_parts_of_a_library_network_are_tuned(tmp_path, tuned):
    """The stages before the cut keep their weights; adapters become weights of the network's own names."""
    _, folder, _ = fitted(
        tmp_path / "run", planted(subjects=("one",)), network="squeezenet1_1", image_size="32", tuned=tuned, epochs="1"
    )
    before, after = (load_tuned(folder, tag).module.state_dict() for tag in ("untuned", "one"))
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert ("features.0.weight" in changed) == (tuned == "lora:2")


def gated_run(path) -> RunFolder:
    """A finished run of dual gating with random weights."""
    run = RunFolder.create(path, method="dual_gating", config_toml="", seed=0, data={})
    shape = resnet_shape("resnet18", size=24, width=0.125)
    network = GatedResNet(shape, size=24).initialise(torch.Generator().manual_seed(0)).eval()
    save_backbone(run, network, ViewSettings())
    run.finish()
    return run


@pytest.mark.slow
def test_a_gated_network_is_tuned_under_a_budget(tmp_path):
    """The MAC share on training images is the budget, by a shift of all gates; that of the test images is near it."""
    gated_run(tmp_path / "gated")
    evaluation, folder, _ = run(
        tmp_path / "run", planted(), network=str(tmp_path / "gated"), image_size="none", mac_budget="0.45", epochs="2"
    )
    tuned = [record for record in folder.records if record.get("mac_share")]
    assert tuned or folder.load() is not None
    assert row_of(evaluation, "V1")["mac_share"] == pytest.approx(0.45, abs=0.03)
    assert row_of(evaluation, "V1")["r_nested"] > 0.3


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"voxels": "best"}, "ceiling:SHARE"), ({"tuned": "first:2"}, "last:STAGES"), ({"validation_share": "0.9"}, "0.5"),
     ({"tuned_on": "one,two"}, "pooled=true"), ({"temperature": "0"}, "above 0"), ({"batch_size": "1"}, "2 or more")],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        build(tuning.ContrastiveConfig, settings, name="contrastive_encoding")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"mac_budget": "0.5"}, "only a network with channel gates"), ({"tuned": "last:2"}, "all weights are tuned"),
     ({"weights": "default"}, "leave out weights"), ({"network": "no/such/run"}, "no run folder"),
     ({"tuned_on": "three"}, "not among one, two")],
)  # fmt: skip
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(settings, words):
    config = build(tuning.ContrastiveConfig, QUICK | settings, name="contrastive_encoding")
    with pytest.raises((InputError, OSError), match=words):
        tuning.prepare(config, planted())


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"subjects": "one,two", "pooled": "true"}, {"tuned_on": "two"}])
def test_a_fit_looks_at_every_trial_of_a_subject_once(settings, tmp_path, monkeypatch):
    """All voxels of each training trial are read once, for checks and scaling; then only the voxels asked for."""
    experiment, reads, read = planted(), Counter(), Responses.read

    def count(self, trials, voxels=None):
        if voxels is None:
            reads.update((self.subject, trial) for trial in np.asarray(trials).tolist())
        return read(self, trials, voxels)

    monkeypatch.setattr(Responses, "read", count)
    fitted(tmp_path / "run", experiment, **({"roi": "V1", "epochs": "1"} | settings))
    opened = {name for name, _ in reads}
    assert opened == set(settings.get("subjects", "one").split(",")) | set(settings.get("tuned_on", "one").split(","))
    for name in opened:
        train = experiment.subjects[name].trials_of(experiment.split.train)
        assert {reads[name, trial] for trial in train} == {1}


def test_stimuli_without_images_are_refused():
    experiment = planted()
    stimuli = dataclasses.replace(experiment.stimuli, read_image=None)
    config = build(tuning.ContrastiveConfig, QUICK, name="contrastive_encoding")
    with pytest.raises(InputError, match="needs the images"):
        tuning.prepare(config, dataclasses.replace(experiment, stimuli=stimuli))


@pytest.mark.slow
def test_the_network_to_tune_may_be_a_run(tmp_path):
    """A config.toml that such a run wrote is read again."""
    from pulvinar.app import evaluate as evaluating
    from pulvinar.app import fit as fitting
    from pulvinar.app import method_settings
    from pulvinar.data import experiment as folders

    folders.save(planted(subjects=("one",)), tmp_path / "world")
    gated_run(tmp_path / "gated")
    quick = [f"{key}={value}" for key, value in (QUICK | {"image_size": "none", "epochs": "1", "roi": "V1"}).items()]
    out = tmp_path / "run"
    data, gated = str(tmp_path / "world"), str(tmp_path / "gated")
    fitting.fit("contrastive_encoding", data=data, out=str(out), assignments=[*quick, f"network={gated}"])
    assert RunFolder.reopen(out).settings()["network"] == gated
    again, _ = method_settings.configs("contrastive_encoding", str(out / "config.toml"), [])
    assert again.network == gated
    row = evaluating.evaluate(str(out))["rows"][0]
    assert {"r_nested", "r_optimistic", "noise_normalised", "share_improved"} <= set(row)


@pytest.mark.slow
def test_the_untuned_network_encodes_where_tuning_does_not_help(tmp_path):
    """Planted truth: tuned towards noise at a rate that ruins the network, r falls; then the untuned one's r is the result."""
    experiment, ruinous = planted(), {"learning_rate": "0.1", "epochs": "2", "tuned_on": "two", "controls": True}
    noise = np.random.default_rng(0).standard_normal(experiment.subjects["two"].values.shape).astype(np.float32)
    other = dataclasses.replace(experiment.subjects["two"], values=noise)
    experiment = dataclasses.replace(experiment, subjects={**experiment.subjects, "two": other})
    kept, folder, config = run(tmp_path / "kept", experiment, **ruinous)
    taken, _, _ = run(tmp_path / "taken", experiment, fall_back="false", **ruinous)
    row, bad = row_of(kept, "V1"), row_of(taken, "V1")
    assert (row["encoded_with"], bad["encoded_with"]) == ("untuned", "tuned")
    assert row["r_nested"] == pytest.approx(row["r_untuned"], abs=1e-12)  # the same sums, in another order
    assert row["r_untuned"] == pytest.approx(bad["r_untuned"], abs=1e-6)
    assert row["difference"] == row["share_improved"] == 0
    assert row["r_tuned"] == pytest.approx(bad["r_nested"], abs=1e-6)
    assert bad["r_nested"] < bad["r_untuned"]
    assert row["r_optimistic"] >= row["r_nested"] - 0.02
    choice = kept["choices"]["one"]
    assert choice["tuned"] <= choice["untuned"]
    assert choice["n_images"] == (N_IMAGES - N_TEST) // 4
    found = registry.method("contrastive_encoding")
    assert "the untuned network encodes" in found.table(kept)
    assert "the untuned network encodes" in "".join(page.content(run_folder.read(folder.path), {})["notes"])
    assert "worse than the untuned network" in found.table(taken)
    stimuli, stored = experiment.stimuli, np.load(folder.path / "predictions" / "one.npz")
    predicted = found.predict(folder, stimuli, config)["one"]
    np.testing.assert_allclose(predicted[stimuli.rows(list(stored["id"]))], stored["predicted"], atol=1e-4)
