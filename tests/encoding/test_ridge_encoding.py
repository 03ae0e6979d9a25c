"""ridge_encoding on small planted experiments: recovery, null, ceilings, regions, bad input."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from pulvinar.core.config import build, to_toml
from pulvinar.core.errors import ConfigError, DegenerateError, InputError, NotFoundError
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.methods import ridge_encoding
from pulvinar.learning.runs import RunFolder

N_IMAGES, N_TEST, N_VOXELS = 140, 60, 80
QUICK = {"alphas": "1,10,100,1000", "n_permutations": "100"}


def planted(*, repeats=1, noise=1.5, shuffled=False, images=False, ceiling=None, seed=0) -> Experiment:
    """80 voxels on a grid; the first 40 follow an embedding ('lh.V1' and 'rh.V1'), the others do not ('other')."""
    rng = np.random.default_rng(seed)
    ids = [f"image-{number:03d}" for number in range(N_IMAGES)]
    pixels = rng.integers(0, 255, (N_IMAGES, 24, 24, 3)).astype(np.uint8)
    embedding = rng.standard_normal((N_IMAGES, 10)).astype(np.float32)
    signal = np.zeros((N_IMAGES, N_VOXELS))
    signal[:, :40] = embedding @ rng.standard_normal((10, 40)) / np.sqrt(10)
    if shuffled:
        signal = signal[rng.permutation(N_IMAGES)]
    shown = np.repeat(np.arange(N_IMAGES), repeats)
    values = (signal[shown] + noise * rng.standard_normal((len(shown), N_VOXELS))).astype(np.float32)
    places = np.argwhere(np.ones((8, 10, 1), bool))
    left, follows = places[:, 0] < 4, np.arange(N_VOXELS) < 40
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -7
    rois = {"lh.V1": follows & left, "rh.V1": follows & ~left, "other": ~follows, "small": np.arange(N_VOXELS) < 5}
    rng.shuffle(follows)
    responses = Responses(
        subject="one",
        values=values,
        stimulus_ids=[ids[row] for row in shown],
        geometry=Geometry.from_index(places, shape=(8, 10, 1), affine=affine),
        rois=ROIs(rois, n_voxels=N_VOXELS),
        noise_ceiling=ceiling,
    )
    stimuli = Stimuli(
        ids=ids,
        sources=ids,
        features={"clip": embedding, "junk": rng.standard_normal((N_IMAGES, 6)).astype(np.float32)},
        read_image=pixels.__getitem__ if images else None,
    )
    split = Split(train=tuple(ids[N_TEST:]), test=tuple(ids[:N_TEST]))
    return Experiment(name="planted", stimuli=stimuli, subjects={"one": responses}, split=split, target="one")


def run(path, experiment, *, controls=True, **settings):
    config = build(ridge_encoding.Config, QUICK | {"feature": "clip,junk"} | settings, name="ridge_encoding")
    facts = {"name": "planted", "path": "", "target": "one", "fingerprint": experiment.fingerprint()}
    folder = RunFolder.create(path, method="ridge_encoding", config_toml=to_toml(config), seed=0, data=facts)
    ridge_encoding.METHOD.train(config, experiment, folder)
    return ridge_encoding.evaluate(folder, experiment, config, controls=controls), folder, config


@pytest.mark.parametrize("scaling", ["train_stats", "per_session"])
def test_a_fit_looks_at_every_trial_once(scaling, tmp_path, monkeypatch):
    """All voxels of each training and test trial are read once, for checks and scaling; then only the voxels asked for."""
    experiment, reads, read = planted(repeats=2), Counter(), Responses.read
    sessions = np.arange(2 * N_IMAGES) // N_IMAGES
    experiment = dataclasses.replace(
        experiment, subjects={"one": dataclasses.replace(experiment.subjects["one"], sessions=sessions)}
    )

    def count(self, trials, voxels=None):
        if voxels is None:
            reads.update(np.asarray(trials).tolist())
        return read(self, trials, voxels)

    config = build(ridge_encoding.Config, QUICK | {"feature": "clip", "scaling": scaling}, name="ridge_encoding")
    facts = {"name": "planted", "path": "", "target": "one", "fingerprint": experiment.fingerprint()}
    folder = RunFolder.create(tmp_path / "run", method="ridge_encoding", config_toml=to_toml(config), seed=0, data=facts)
    monkeypatch.setattr(Responses, "read", count)
    ridge_encoding.METHOD.train(config, experiment, folder)
    assert [reads[trial] for trial in range(2 * N_IMAGES)] == [1] * 2 * N_IMAGES


def row_of(evaluation, roi, side="both"):
    return next(row for row in evaluation["rows"] if (row["roi"], row["hemisphere"]) == (roi, side))


def test_planted_responses_are_found_per_region_and_hemisphere(tmp_path):
    """Planted truth: V1 follows the embedding, in both hemispheres; the rest do not."""
    evaluation, folder, _ = run(tmp_path / "run", planted())
    for side, count in (("both", 40), ("lh", 40), ("rh", 0)):
        if count:
            assert row_of(evaluation, "V1", side)["r_nested"] > 0.35
    other = row_of(evaluation, "other")
    assert abs(other["r_nested"]) < 0.1
    assert other["r_optimistic"] > other["r_nested"]
    assert evaluation["rows"][0]["roi"] == "all"
    maps = dict(np.load(folder.path / "artifacts" / "voxels-one.npz"))
    assert (maps["layer"][:40] == 0).mean() > 0.9
    assert (maps["q_value"][:40] < 0.05).mean() > 0.8
    assert "optimistic" in ridge_encoding.METHOD.table(evaluation)


def test_what_cannot_be_said_is_null_with_the_reason(tmp_path):
    evaluation, _, _ = run(tmp_path / "run", planted())
    row = evaluation["rows"][0]
    assert row["noise_normalised"] is None
    assert "0 stimuli have repeats" in row["noise_normalised_reason"]
    assert row["share_improved"] is None
    assert "images" in row["share_improved_reason"]
    without, _, _ = run(tmp_path / "other", planted(), controls=False)
    assert without["rows"][0]["r_optimistic"] is None


@pytest.mark.slow
def test_shuffled_responses_score_as_chance(tmp_path):
    """Leak test: responses shuffled over images, through the whole pipeline, over three worlds: within 2 s.e. of 0."""
    scores = []
    for seed in range(3):
        evaluation, _, _ = run(tmp_path / str(seed), planted(shuffled=True, noise=0.3, seed=seed), controls=False)
        scores.append(evaluation["rows"][0]["r_nested"])
    assert abs(np.mean(scores)) < 2 / np.sqrt(N_TEST * 3)


def test_ceilings_from_repeats_normalise(tmp_path):
    """Planted truth: with noise 1.5 and three repeats, a voxel's ceiling is 1 / (1 + 1.5^2 / 3) = .57 of the variance."""
    evaluation, folder, _ = run(tmp_path / "run", planted(repeats=3))
    maps = dict(np.load(folder.path / "artifacts" / "voxels-one.npz"))
    assert abs(maps["ceiling"][:40].mean() - 1 / 1.75) < 0.06
    row = row_of(evaluation, "V1")
    assert 60 < row["noise_normalised"] <= 100
    assert "repeats of 140 stimuli" in evaluation["ceilings"]["one"]


def test_stated_ceilings_above_1_are_refused(tmp_path):
    with pytest.raises(InputError, match="outside"):
        run(tmp_path / "run", planted(ceiling=np.full(N_VOXELS, 35.0)))
    evaluation, _, _ = run(tmp_path / "good", planted(ceiling=np.full(N_VOXELS, 0.35)))
    assert evaluation["ceilings"]["one"] == "stated by the data set"


def test_the_baseline_is_beaten_where_pixels_say_nothing(tmp_path):
    """Planted truth: responses follow the embedding, and the pictures are noise."""
    evaluation, _, _ = run(tmp_path / "run", planted(images=True, noise=0.5))
    row = row_of(evaluation, "V1")
    assert row["share_improved"] == 1.0
    assert row["unique_variance"] > 0.5


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [{"layer_choice": "roi"}, {"layer_choice": "concatenated", "pca": "15"}, {"regression": "partial_least_squares"},
     {"layer_choice": "banded", "n_draws": "5"}, {"scaling": "per_session"}, {"roi": "V1"}],
)  # fmt: skip
def test_settings_all_find_the_planted_responses(tmp_path, settings):
    evaluation, folder, config = run(tmp_path / "run", planted(), **settings)
    assert row_of(evaluation, "V1")["r_nested"] > 0.3
    stimuli = planted().stimuli
    predicted = ridge_encoding.predict(folder, stimuli, config)["one"]
    stored = np.load(folder.path / "predictions" / "one.npz")
    np.testing.assert_allclose(predicted[stimuli.rows(list(stored["id"]))], stored["predicted"], atol=1e-5)


def test_alphas_that_are_too_small_for_the_features_are_said(tmp_path, capsys):
    """Features 1,000 times as large want alphas 1e6 times as large; then r is what it was."""
    experiment = planted(noise=3.0)
    embedding = experiment.stimuli.features["clip"]
    large = replaced_features(experiment, {"clip": 1000 * embedding})
    given, _, _ = run(tmp_path / "given", experiment, controls=False, feature="clip")
    assert "alphas end too low" not in capsys.readouterr().err
    few, _, _ = run(tmp_path / "few", large, controls=False, feature="clip", alphas="1e5,1e6,1e7")
    assert "alphas end too low, at 1e+07: held-out errors of many voxels" in capsys.readouterr().err
    enough, _, _ = run(tmp_path / "enough", large, controls=False, feature="clip", alphas="1e6,1e7,1e8,1e9")
    assert "alphas end too low" not in capsys.readouterr().err
    assert row_of(enough, "V1")["r_nested"] == pytest.approx(row_of(given, "V1")["r_nested"], abs=1e-4)
    assert row_of(few, "V1")["r_nested"] < row_of(enough, "V1")["r_nested"]


def replaced_features(experiment, features):
    return dataclasses.replace(experiment, stimuli=dataclasses.replace(experiment.stimuli, features=features))


def replaced(experiment, **changes):
    subject = dataclasses.replace(experiment.subjects["one"], **changes)
    return dataclasses.replace(experiment, subjects={"one": subject})


def test_voxels_without_variance_are_refused_or_left_out(tmp_path):
    values = planted().subjects["one"].values.copy()
    values[:, 7] = 2.0
    values[3, 9] = np.nan
    with pytest.raises(DegenerateError, match="1 voxels"):
        run(tmp_path / "run", replaced(planted(), values=values))
    evaluation, _, _ = run(tmp_path / "dropped", replaced(planted(), values=values), drop_bad_voxels="true")
    assert evaluation["rows"][0]["n_voxels"] == N_VOXELS - 2


def test_bad_input_is_named_before_anything_is_written(tmp_path, capsys):
    config = build(ridge_encoding.Config, QUICK | {"feature": "clip"}, name="ridge_encoding")
    experiment = planted()
    with pytest.raises(InputError, match="several features"):
        ridge_encoding.prepare(dataclasses.replace(config, feature=None), experiment)
    with pytest.raises(InputError, match="needs images"):
        ridge_encoding.prepare(dataclasses.replace(config, feature=None, network="alexnet"), experiment)
    with pytest.raises(NotFoundError, match="V2"):
        ridge_encoding.prepare(dataclasses.replace(config, roi=("V2",)), experiment)
    with pytest.raises(InputError, match="subjects: two"):
        ridge_encoding.prepare(dataclasses.replace(config, subjects=("two",)), experiment)
    with pytest.raises(InputError, match="folds: 90"):
        ridge_encoding.prepare(dataclasses.replace(config, folds=90), experiment)
    ridge_encoding.prepare(dataclasses.replace(config, roi=("small",)), experiment)
    assert "'small' of one has 5 voxels" in capsys.readouterr().err
    only_train = [name for name in experiment.subjects["one"].stimulus_ids if name in experiment.split.train]
    seen = replaced(
        experiment, stimulus_ids=only_train, values=experiment.subjects["one"].values[N_TEST:], sessions=(), runs=()
    )
    with pytest.raises(InputError, match="no trial"):
        ridge_encoding.prepare(config, seen)


def test_settings_that_do_not_go_together_are_listed():
    with pytest.raises(ConfigError) as error:
        build(
            ridge_encoding.Config,
            {"network": "alexnet", "feature": "clip", "folds": "1", "alphas": "0,1", "stages": "a", "n_stages": "2"},
            name="ridge_encoding",
        )
    assert all(word in str(error.value) for word in ("network and feature", "folds", "alphas", "n_stages"))


def test_outer_folds_make_every_image_a_test_image_once(tmp_path):
    """Planted truth as above; every image is scored, and the pooled r is that of correlations within folds."""
    evaluation, folder, config = run(tmp_path / "run", planted(), controls=False, outer_folds="4")
    assert row_of(evaluation, "all")["n_images"] == N_IMAGES
    assert row_of(evaluation, "V1")["r_nested"] > 0.35
    assert abs(row_of(evaluation, "other")["r_nested"]) < 0.1
    stored = np.load(folder.path / "predictions" / "one.npz")
    assert sorted(stored["id"]) == sorted(planted().stimuli.ids)
    predicted = ridge_encoding.predict(folder, planted().stimuli, config)["one"]
    assert predicted.shape == (N_IMAGES, N_VOXELS)


@pytest.mark.long
def test_shuffled_responses_score_as_chance_over_outer_folds(tmp_path):
    """Leak test with every image tested once, over three worlds: within 2 s.e. of 0."""
    scores = []
    for seed in range(3):
        evaluation, _, _ = run(
            tmp_path / str(seed), planted(shuffled=True, noise=0.3, seed=seed), controls=False, outer_folds="5"
        )
        scores.append(evaluation["rows"][0]["r_nested"])
    assert abs(np.mean(scores)) < 2 / np.sqrt(N_IMAGES * 3)


def test_the_maps_say_which_layer_and_roi(tmp_path):
    """The layer that drives V1 has the best inner held-out score there; masks are those of the ROIs."""
    _, folder, _ = run(tmp_path / "run", planted(), controls=False)
    maps = dict(np.load(folder.path / "artifacts" / "voxels-one.npz"))
    assert maps["layer_names"].tolist() == ["clip", "junk"]
    assert maps["layer_scores"].shape == (2, N_VOXELS)
    assert maps["layer_scores"][0, :40].mean() > 0.1 > maps["layer_scores"][1, :40].mean()
    assert maps["roi_names"].tolist() == ["lh.V1", "rh.V1", "other", "small"] or set(maps["roi_names"]) >= {"lh.V1", "other"}
    assert maps["roi_masks"][maps["roi_names"].tolist().index("other")].sum() == 40
