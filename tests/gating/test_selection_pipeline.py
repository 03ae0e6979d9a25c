"""Controls and the evaluation around them, on a tiny planted world that was fitted in this process.

Oracles: exact budgets, test responses that must not matter, slow loops over saved predictions, and chance.
"""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from pulvinar.core.config import to_toml
from pulvinar.core.errors import InputError, LeakError
from pulvinar.core.storage import read_arrays
from pulvinar.data.responses import Responses
from pulvinar.datasets.simulated import Config, simulate
from pulvinar.decoding import evaluation as decoding
from pulvinar.decoding.controls import Control, control_selections, evidence_of, selectors_shown
from pulvinar.decoding.data import Trials, fit_embedding, held_out_data, training_data
from pulvinar.decoding.methods import cross_subject_decoder, troi
from pulvinar.decoding.plain_ridge import ALPHAS
from pulvinar.learning.checkpoints import load
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder
from pulvinar.scores.overlap import overlap
from pulvinar.scores.retrieval import near_duplicates, protocols_for, retrieval_scores
from pulvinar.selection import selectors
from pulvinar.selection.selector import Answers

BUDGET = 40
NAMES = ["annotated", "all", "random", "ceiling", "ceiling_oracle", "univariate", "univariate_smoothed", "anova"]
NAMES = USUAL = ["ridge", *NAMES, "true_voxels", "true_best"]
NAMES = USUAL + [one.name for one in selectors.every() if one.place is None]  # behind them, whatever else there is
WHOLE = {"annotated", "all", "true_voxels"}  # shown with all their voxels
ORACLES = {"ceiling_oracle", "true_voxels", "true_best"}
PRETRAINING = cross_subject_decoder.Config(hidden=64, epochs=25, n_blocks=1)
SETTINGS = troi.Config(
    n_voxels=BUDGET,
    n_folds=2,
    n_rounds=2,
    epochs_per_round=3,
    mask_learning_rate=3e-2,
    epochs=25,
    near_duplicate=1.0,
    beside="usual",
)
LONG = ("ard_backward",)  # which fits many times


@pytest.fixture(scope="module")
def world():
    return simulate(
        Config(
            n_voxels=400,
            n_subjects=2,
            n_trials=150,
            n_pretraining_trials=200,
            n_test_images=60,
            n_test_repeats=2,
            ceiling_median=0.85,
            repeated_share=0.2,
            embedding_dim=16,
            image_size=32,
        )
    )


def with_target(experiment, **changes):
    """The experiment with other values or ids in the new subject's responses."""
    given = copy.copy(experiment)
    target = dataclasses.replace(experiment.subjects[experiment.target], **changes)
    object.__setattr__(given, "subjects", {**experiment.subjects, experiment.target: target})
    return given


def create(path, method: str, config) -> RunFolder:
    return RunFolder.create(path, method=method, config_toml=to_toml(config), seed=config.seed, data={})


def fitted(experiment, folder) -> RunFolder:
    backbone, run = create(folder / "b", "cross_subject_decoder", PRETRAINING), create(folder / "t", "troi", SETTINGS)
    cross_subject_decoder.METHOD.train(PRETRAINING, experiment.without_truth(), backbone)
    troi.METHOD.train(SETTINGS, experiment.without_truth(), run, backbone)
    return run


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    return fitted(world, tmp_path_factory.mktemp("fitted"))


@pytest.fixture(scope="module")
def evaluation(run, world):
    return troi.evaluate(run, world, SETTINGS)


# --- controls -------------------------------------------------------------------------------------------------------------


def controls(
    experiment, *, only=None, n_candidates: int = 400, trials=None, budget: int = BUDGET, roi: str = "annotated", truth=None
):
    """Name -> control; only: of these names, since some take seconds."""
    responses: Responses = experiment.subjects[experiment.target]
    candidates = np.arange(400 - n_candidates, 400)
    voxels = np.isin(np.arange(400), candidates)
    if trials is None:
        embedding = fit_embedding(experiment, None)
        trials = training_data(experiment, experiment.target, embedding, scaling="train_stats", voxels=voxels)
    learnt, truth = np.arange(400) >= 400 - budget, experiment.truth[experiment.target] if truth is None else truth
    evidence = evidence_of(responses, candidates, trials, dataclasses.replace(SETTINGS, roi=roi), n_voxels=int(budget))
    answers = Answers(responses=responses, candidates=candidates, truth=truth)
    shown = [one for one in selectors_shown(truth, without="") if only is None or one.name in only]
    found = control_selections(evidence, answers, shown, learnt=learnt)
    return {control.name: control for control in found}


@pytest.mark.long
def test_every_control_meets_the_budget_within_the_candidates(world):
    names = [name for name in NAMES if name not in LONG]
    found = controls(world, only=names, n_candidates=300, budget=20)
    assert list(found) == names
    for name, control in found.items():
        assert control.unavailable is None
        assert control.selected.shape == (400,)
        assert not control.selected[:100].any()
        if name not in WHOLE:
            assert control.selected.sum() == 20
    assert found["all"].selected.sum() == 300
    assert {name for name, control in found.items() if control.oracle} == ORACLES
    annotated = world.subjects[world.target].rois["annotated"]
    assert np.array_equal(found["annotated"].selected[100:], annotated[100:])


@pytest.mark.long
def test_rows_of_the_truth_are_the_responsive_voxels_and_the_best_of_them(world):
    """Oracle: the truth, sorted by hand; only candidates count, and nothing is invented where the truth says less."""
    truth, true = world.truth[world.target], {"true_voxels", "true_best"}
    found = controls(world, only=true, n_candidates=300)
    inside = [voxel for voxel in range(100, 400) if truth["responsive"][voxel]]
    assert np.flatnonzero(found["true_voxels"].selected).tolist() == inside
    best = sorted(inside, key=lambda voxel: -truth["noise_ceiling"][voxel])[:20]
    assert np.flatnonzero(controls(world, only=true, n_candidates=300, budget=20)["true_best"].selected).tolist() == sorted(
        best
    )
    assert truth["noise_ceiling"][truth["irrelevant"]].max() > truth["noise_ceiling"][best].min()  # reliable is not enough

    missing = controls(world, only=true, budget=truth["responsive"].sum() + 1)["true_best"]
    assert missing.selected is None
    assert f"{truth['responsive'].sum()} voxels respond, fewer than the budget" in missing.unavailable
    less = controls(world, only=true, truth={"responsive": truth["responsive"]})
    assert less["true_voxels"].selected.sum() == truth["responsive"].sum()
    assert "not how well" in less["true_best"].unavailable
    none = controls(world, only=true, truth={"responsive": np.zeros(400, bool)})
    assert none["true_voxels"].unavailable == none["true_best"].unavailable == "no candidate voxel is responsive"
    assert not true & set(controls(world, only={*true, "random"}, truth={}))


def test_controls_with_evidence_find_planted_voxels(world):
    truth = world.truth[world.target]
    reliable = truth["responsive"] | truth["irrelevant"]
    found = controls(world, only={"random", "ceiling", "ceiling_oracle", "univariate"})
    share = {name: (control.selected & reliable).sum() / BUDGET for name, control in found.items() if name != "ridge"}
    assert share["random"] < 0.35  # chance .13
    assert min(share[name] for name in ("ceiling", "ceiling_oracle", "univariate")) > 0.7


@pytest.mark.long
def test_only_the_oracle_sees_test_trials(world):
    responses = world.subjects[world.target]
    values = responses.values.copy()
    test = responses.trials_of(world.split.test)
    values[test] = np.random.default_rng(0).permuted(values[test], axis=1)
    names = set(NAMES) - set(LONG)
    before, after = controls(world, only=names), controls(with_target(world, values=values), only=names)
    differ = {name for name in before if not np.array_equal(before[name].selected, after[name].selected)}
    assert differ == {"ceiling_oracle"}
    assert "has seen the test trials" in before["ceiling_oracle"].description


def test_without_repeats_the_ceiling_is_unavailable_and_says_why(world):
    responses, seen, once = world.subjects[world.target], set(), []
    for trial, name in enumerate(responses.stimulus_ids):
        if name in world.split.test or name not in seen:
            once.append(trial)
            seen.add(name)
    once = np.array(once)
    changes = {
        "values": responses.values[once],
        "stimulus_ids": [responses.stimulus_ids[trial] for trial in once],
        "sessions": responses.sessions[once],
        "runs": responses.runs[once],
    }
    found = controls(with_target(world, **changes), only={"ceiling", "ceiling_oracle"})
    assert found["ceiling"].selected is None
    assert found["ceiling"].unavailable == "0 stimuli have repeats, 20 or more are needed"
    assert found["ceiling_oracle"].selected.sum() == BUDGET


def test_a_missing_roi_is_unavailable_with_those_there_are(world):
    control = controls(world, only={"annotated"}, roi="nsdgeneral")["annotated"]
    assert control.selected is None
    assert "no ROI 'nsdgeneral' (there are: annotated)" in control.unavailable


def test_a_released_ceiling_is_the_oracle(world):
    ceiling = np.linspace(0, 1, 400).astype(np.float32)
    control = controls(with_target(world, noise_ceiling=ceiling), only={"ceiling_oracle"})["ceiling_oracle"]
    assert control.description.endswith("(released)")
    assert np.array_equal(np.flatnonzero(control.selected), np.arange(360, 400))


# --- evaluation -------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_rows_of_the_table(evaluation, world, run):
    rows = {row["name"]: row for row in evaluation["rows"]}
    assert list(rows) == ["troi", *USUAL]
    assert {name for name, row in rows.items() if row["n_voxels"] != BUDGET} <= WHOLE
    responsive, selected = world.truth[world.target]["responsive"], read_arrays(run.path / "artifacts" / "maps.npz")["selected"]
    assert selected.sum() == BUDGET
    assert rows["troi"]["precision"] == pytest.approx(overlap(selected, responsive).precision)
    assert evaluation["reference"] == "planted"
    assert evaluation["n_images"] == 60
    assert evaluation["chance"] == pytest.approx(1 / 60)
    assert evaluation["n_test_trials_averaged"] == 2
    assert evaluation["rules_broken"] == []
    assert sum(area["n_selected"] for area in evaluation["coverage"]) == (selected & responsive).sum()
    assert json.loads((run.path / "evaluation.json").read_text())["rows"][0]["name"] == "troi"


@pytest.mark.long
def test_scores_follow_from_the_saved_predictions(evaluation, run, world):
    embedding = fit_embedding(world, None)
    for row in evaluation["rows"]:
        stored = read_arrays(run.path / "predictions" / f"{row['name']}.npz")
        true = embedding.of(world, stored["stimulus"].tolist()).double().numpy()
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (stored["predicted"].astype(float), true)]
        correct = (unit[0] @ unit[1].T).argmax(1) == np.arange(60)
        assert row["brain_to_image_top1"] == pytest.approx(correct.mean())
        for direction, key in (
            ("brain_to_image", "difference_to_troi"),
            ("image_to_brain", "image_to_brain_difference_to_troi"),
        ):
            if row["name"] != "troi":
                less = row[f"{direction}_top1"] - evaluation["rows"][0][f"{direction}_top1"]
                assert row[key] == pytest.approx(less)
                assert row[f"{key}_interval"][0] <= row[key] <= row[f"{key}_interval"][1]


def mean_log_rank(predicted, true):
    """Of both directions, by evaluation's ranks; near-duplicates are not in each other's gallery."""
    of = {"generator": np.random.default_rng(0), "excluded": near_duplicates(true, 0.95), "n_permutations": 1}
    found = retrieval_scores(predicted, true, **of).per_image.values()
    return np.mean([np.log(direction.rank) for direction in found])


def test_the_plain_ridge_is_scikit_learns_on_the_same_voxels(evaluation, run, world):
    """Oracle: Ridge on the mean trial of each training image, the penalty by explicit refits without one image."""
    stored, learnt = (read_arrays(run.path / "predictions" / f"{name}.npz") for name in ("ridge", "troi"))
    assert np.array_equal(stored["selected"], learnt["selected"])
    embedding, selected = fit_embedding(world, None), stored["selected"]
    train = training_data(world, world.target, embedding, scaling="train_stats")
    test = held_out_data(world, world.target, embedding, scaling="train_stats")
    names = np.array(train.stimulus_ids)
    images, counts = np.unique(names, return_counts=True)
    assert counts.max() > 1
    x = np.stack([train.responses.numpy()[names == image][:, selected].mean(0) for image in images]).astype(float)
    y = np.stack([train.target[torch.from_numpy(np.flatnonzero(names == image)[:1])].numpy()[0] for image in images])
    weighted = np.sqrt(counts)[:, None] * (x - np.average(x, axis=0, weights=counts))
    alphas = np.array(ALPHAS) * np.square(np.linalg.norm(weighted)) / min(weighted.shape)
    predicted = {alpha: np.zeros_like(y, dtype=float) for alpha in alphas}
    for image in range(len(x)):
        left = np.arange(len(x)) != image
        centre, aim = (np.average(rows[left], axis=0, weights=counts[left]) for rows in (x, y))
        values, vectors = np.linalg.eigh((x[left] - centre).T @ (counts[left, None] * (x[left] - centre)))
        cross = vectors.T @ (x[left] - centre).T @ (counts[left, None] * (y[left] - aim))
        for alpha in alphas:
            predicted[alpha][image] = aim + (x[image] - centre) @ vectors @ (cross / (values + alpha)[:, None])
    log_ranks = {alpha: mean_log_rank(rows, y) for alpha, rows in predicted.items()}
    best = min(log_ranks, key=log_ranks.get)
    assert min(log_ranks) < best < max(log_ranks)
    output = Ridge(alpha=best).fit(x, y, sample_weight=counts).predict(test.responses.numpy()[:, selected])
    output /= np.linalg.norm(output, axis=1, keepdims=True)
    for name, predicted in zip(stored["stimulus"], stored["predicted"], strict=True):
        np.testing.assert_allclose(predicted, output[np.array(test.stimulus_ids) == name].mean(0), atol=1e-4)


def test_what_the_truth_gains_over_the_simplest_score_says_whether_the_world_can_tell(evaluation, run, world):
    rows, found = {row["name"]: row for row in evaluation["rows"]}, evaluation["headroom"]
    assert found["simplest"] == "univariate"
    for name, gain in found["gains"].items():
        less = rows[name]["brain_to_image_top1"] - rows["univariate"]["brain_to_image_top1"]
        assert gain["difference"] == pytest.approx(less)
        assert gain["interval"][0] <= less <= gain["interval"][1]
    assert set(found["gains"]) == {"true_voxels", "true_best"}
    assert found["tells"] == any(gain["interval"][0] > 0 for gain in found["gains"].values())
    assert [row["name"] for row in evaluation["rows"] if row["oracle"]] == ["ceiling_oracle", "true_voxels", "true_best"]


def test_predictions_are_the_mean_of_unit_outputs_over_repeats(evaluation, run, world):
    result, stored = run.read("decoder"), read_arrays(run.path / "predictions" / "troi.npz")
    shared = SharedDecoder(DecoderShape(**result["architecture"]))
    shared.load_state_dict(result["shared"])
    test = held_out_data(world, world.target, fit_embedding(world, None), scaling="train_stats")
    x = test.responses[:, result["selected"]]
    with torch.no_grad():
        output = shared(x @ result["layer"]["weight"].T + result["layer"]["bias"]).projected.numpy()
    output /= np.linalg.norm(output, axis=1, keepdims=True)
    for name, predicted in zip(stored["stimulus"], stored["predicted"], strict=True):
        own = [row for row, shown in enumerate(test.stimulus_ids) if shown == name]
        np.testing.assert_allclose(predicted, output[own].mean(0), atol=1e-5)


@pytest.mark.long
def test_evaluating_twice_gives_the_same_numbers(evaluation, run, world):
    (run.path / "predictions" / "random.npz").unlink()  # computed again; the others are read
    assert troi.evaluate(run, world, SETTINGS) == evaluation


@pytest.mark.long
def test_from_300_images_on_both_protocols_are_in_every_row():
    """Oracle: `retrieval_scores` itself, and the rows' own numbers; near-duplicates stay in draws alone."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(320, 12)).astype(np.float32)
    true[1] = true[0] + 1e-3
    duplicates = near_duplicates(true, 0.95)
    assert duplicates.sum() == 2
    ids = tuple(map(str, range(320)))
    trials = Trials(responses=torch.empty(320, 0), target=torch.from_numpy(true), stimulus_ids=ids)
    test = decoding._Test(trials=trials, images=list(ids), true=true, duplicates=duplicates)
    protocols = protocols_for(320)
    assert (protocols, protocols_for(299)) == (("every_candidate", "draws"), ("every_candidate",))
    ours, other = (
        {name: decoding.score(true + noise * rng.normal(size=true.shape), test, 0, name) for name in protocols}
        for noise in (1.0, 2.0)
    )
    control = Control(name="random", description="", selected=np.ones(3, bool))
    for headline, second in (protocols, protocols[::-1]):
        row = decoding.row_of(control, other, None, ours, "troi", 0, headline)
        summary = decoding._summary([row], ours, test, troi.Config(protocol=headline), None)
        for direction in ("brain_to_image", "image_to_brain"):
            key = f"{direction}_top1"
            assert row[key] == other[headline].scores[key] != other[second].scores[key]
            assert row[f"{second}_{key}"] == other[second].scores[key]
            low, high = row[f"{second}_{key}_interval"]
            assert low < row[f"{second}_{key}"] < high
        less = other[headline].scores["brain_to_image_top1"] - ours[headline].scores["brain_to_image_top1"]
        assert row["difference_to_troi"] == pytest.approx(less, abs=1e-12)
        assert (summary["protocol"], set(summary["protocols"])) == (headline, set(protocols))
        assert summary["protocols"][headline]["gallery_size"] == summary["gallery_size"]
        assert any("near-duplicates" in rule for rule in summary["rules_broken"]) == (headline == "draws")
    assert summary["protocols"]["draws"]["gallery_size"] == 300
    assert summary["protocols"]["every_candidate"]["gallery_size"] == 320


def test_draws_of_300_are_refused_before_the_fit_where_there_are_fewer_images(world):
    with pytest.raises(InputError, match="protocol=draws: 300 test images are needed, 60 came; use every_candidate"):
        troi.prepare(dataclasses.replace(SETTINGS, protocol="draws"), world)


def test_a_run_that_has_not_finished_is_not_scored(tmp_path, world):
    with pytest.raises(InputError, match="a finished run of troi is needed"):
        troi.evaluate(create(tmp_path / "t", "troi", SETTINGS), world, SETTINGS)


def test_a_decoder_that_saw_test_images_or_the_subject_is_refused(run, world):
    decoder = load(run.path.parent / "b" / "checkpoints" / "decoder.safetensors")
    backbone = RunFolder.reopen(run.path.parent / "b")
    for changes, match in (
        ({"trained_on": [*decoder["trained_on"], world.split.test[3]]}, f"1 of the test images.*{world.split.test[3]}"),
        ({"subjects": [world.target]}, "was trained on subj02, the new subject"),
    ):
        backbone.read = lambda name, given={**decoder, **changes}: given
        with pytest.raises(LeakError, match=match):
            troi.METHOD.ready(SETTINGS, world, backbone)


# --- leaks ------------------------------------------------------------------------------------------------------------------


def shuffled(experiment, seed: int):
    """The new subject's trials with the images of other trials, training and test apart."""
    responses, rng = experiment.subjects[experiment.target], np.random.default_rng(seed)
    ids, first = np.array(responses.stimulus_ids), responses.sessions == 1
    ids[first] = rng.permutation(ids[first])
    ids[~first] = rng.permutation(ids[~first])
    return with_target(experiment, stimulus_ids=ids.tolist())


@pytest.mark.long
def test_responses_shuffled_over_images_score_at_chance(world, run, evaluation, tmp_path):
    """Standard error of the share of 60 images at chance 1/60: .0165. Unshuffled, the same pipeline is far above it."""
    top1 = evaluation["rows"][0]["brain_to_image_top1"]
    assert top1 > 1 / 60 + 3 * 0.0165
    mixed = shuffled(world, 0)
    again = RunFolder.reopen(fitted(mixed, tmp_path).path)
    row = troi.evaluate(again, mixed, SETTINGS, controls=False)["rows"][0]
    for direction in ("brain_to_image", "image_to_brain"):
        assert abs(row[f"{direction}_top1"] - 1 / 60) <= 2 * 0.0165
    assert row["precision"] < 0.35  # the mask finds no more than reliable voxels by chance: .1
    assert run.finished
