"""Oracles: numpy z-scores in loops, ids that must not meet, arrays made for the purpose."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pulvinar.core import memory
from pulvinar.core.errors import DegenerateError, InputError, LeakError, NotFoundError
from pulvinar.core.storage import fingerprint
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import choose_feature
from pulvinar.data.splits import Split
from pulvinar.datasets.arrays import from_arrays
from pulvinar.decoding import data as decoding_data
from pulvinar.decoding.data import (
    Embedding,
    embedding_shape,
    first_sessions,
    fit_embedding,
    half_of,
    held_out_data,
    refuse_copied_responses,
    training_data,
)
from pulvinar.decoding.decoder_training import on_voxels, rows_of

N_STIMULI, N_VOXELS, N_TRIALS = 40, 6, 90
IDS = [f"s{number:02d}" for number in range(N_STIMULI)]
TRAIN, TEST = tuple(IDS[:30]), tuple(IDS[30:38])  # the last two stimuli are in neither


def shown() -> list[str]:
    """Three sessions of 30 trials, all kinds of stimuli in each."""
    rng = np.random.default_rng(0)
    parts = [rng.permutation([*IDS[:20], *IDS[30:40]]), rng.permutation([*IDS[10:30], *IDS[30:40]]), rng.choice(IDS, 30)]
    return np.concatenate(parts).tolist()


def make(features=None, split=None, **changes) -> Experiment:
    rng = np.random.default_rng(1)
    responses = (rng.standard_normal((N_TRIALS, N_VOXELS)) * 3 + np.repeat([0, 5, -4], 30)[:, None]).astype(np.float32)
    given = {
        "responses": {"ann": responses},
        "stimulus_ids": {"ann": shown()},
        "geometry": {"ann": rng.standard_normal((N_VOXELS, 3))},
        "sessions": {"ann": np.repeat([1, 2, 5], 30)},
        "stimuli": IDS,
        "features": {"clip": rng.standard_normal((N_STIMULI, 2, 3)) * 4 + 7} if features is None else features,
        "split": split or Split(train=TRAIN, test=TEST),
    }
    return from_arrays(**(given | changes))


def test_the_embedding_is_standardised_by_training_stimuli_alone():
    experiment = make()
    values = experiment.stimuli.features["clip"].reshape(N_STIMULI, -1).astype(float)
    mean = values[:30].mean(0)
    spread = np.sqrt(((values[:30] - mean) ** 2).mean())
    embedding = fit_embedding(experiment, None)
    assert embedding.name == "clip"
    np.testing.assert_allclose(embedding.of(experiment, ["s35", "s02"]).numpy(), (values[[35, 2]] - mean) / spread, rtol=1e-4)
    other = {"clip": np.where(np.arange(N_STIMULI)[:, None, None] >= 30, 100, experiment.stimuli.features["clip"])}
    other["clip"][30:] += np.arange(10)[:, None, None]  # test stimuli apart from each other
    again = fit_embedding(make(features=other), None)
    assert again.spread == embedding.spread
    assert np.array_equal(again.mean, embedding.mean)


def test_features_are_chosen_by_name_or_because_there_is_one():
    two = make(features={name: np.random.default_rng(n).random((N_STIMULI, 2)) for n, name in enumerate(("clip", "dino"))})
    assert choose_feature(two.stimuli, "dino") == "dino"
    with pytest.raises(InputError, match="clip, dino"):
        choose_feature(two.stimuli, None)
    with pytest.raises(NotFoundError, match="did you mean 'dino'"):
        choose_feature(two.stimuli, "dinos")
    with pytest.raises(NotFoundError, match="no feature"):
        choose_feature(make(features={}).stimuli, None)


def test_a_feature_that_never_changes_is_refused():
    values = np.zeros((N_STIMULI, 3))
    values[30:] = np.arange(10)[:, None] + 1
    with pytest.raises(InputError, match="the same for every training stimulus"):
        fit_embedding(make(features={"clip": values}), None)


def test_an_embedding_of_another_size_is_refused():
    with pytest.raises(InputError, match="6 numbers a stimulus, the decoder has 5"):
        Embedding("clip", np.zeros(5, np.float32), 1.0).of(make(), ["s01"])


def test_first_sessions_are_the_smallest_numbers():
    responses = make().subjects["ann"]
    assert first_sessions(responses, None) is None
    assert first_sessions(responses, 1) == [1]
    assert first_sessions(responses, 2) == [1, 2]
    assert first_sessions(responses, 3) == [1, 2, 5]
    for n in (0, 4):
        with pytest.raises(InputError, match="n_sessions: 1 to 3 for ann"):
            first_sessions(responses, n)


@pytest.mark.parametrize("n_sessions", [None, 1, 2])
@pytest.mark.parametrize("scaling", ["train_stats", "per_session"])
def test_scaling_is_the_slow_loop_and_sides_never_mix(n_sessions, scaling):
    experiment = make()
    embedding, responses = fit_embedding(experiment, None), experiment.subjects["ann"]
    train = training_data(experiment, "ann", embedding, scaling=scaling, n_sessions=n_sessions)
    held_out = held_out_data(experiment, "ann", embedding, scaling=scaling, n_sessions=n_sessions)
    ids, sessions = np.array(responses.stimulus_ids), responses.sessions
    in_use = np.isin(sessions, [1, 2, 5][: n_sessions or 3])
    train_trials, test_trials = np.flatnonzero(np.isin(ids, TRAIN) & in_use), np.flatnonzero(np.isin(ids, TEST))
    for trials, data in ((train_trials, train), (test_trials, held_out)):
        assert data.stimulus_ids == tuple(ids[trials])
        for row, trial in enumerate(trials):
            fit = (
                train_trials
                if scaling == "train_stats"
                else np.flatnonzero((sessions == sessions[trial]) & ~np.isin(ids, TEST))
            )
            values = responses.values.astype(float)
            expected = (values[trial] - values[fit].mean(0)) / values[fit].std(0)
            np.testing.assert_allclose(data.responses[row].numpy(), expected, atol=1e-4)
            np.testing.assert_array_equal(data.target[row].numpy(), embedding.of(experiment, [ids[trial]])[0].numpy())
    assert not set(train.stimulus_ids) & set(TEST)
    assert set(held_out.stimulus_ids) <= set(TEST)


@pytest.mark.parametrize("scaling", ["train_stats", "per_session"])
def test_test_responses_change_nothing_in_training(scaling):
    experiment = make()
    changed = np.array(experiment.subjects["ann"].values)
    changed[np.isin(shown(), TEST)] *= 100
    embedding = fit_embedding(experiment, None)
    first = training_data(experiment, "ann", embedding, scaling=scaling)
    again = training_data(make(responses={"ann": changed}), "ann", embedding, scaling=scaling)
    assert (first.responses == again.responses).all()


def test_voxels_are_taken_in_their_order():
    experiment = make()
    embedding, voxels = fit_embedding(experiment, None), np.array([0, 1, 0, 0, 1, 1], bool)
    some = training_data(experiment, "ann", embedding, scaling="train_stats", voxels=voxels)
    every = training_data(experiment, "ann", embedding, scaling="train_stats")
    assert (some.responses == every.responses[:, [1, 4, 5]]).all()


def test_bad_voxels_are_named_unless_they_are_left_out():
    values = np.array(make().subjects["ann"].values)
    values[np.isin(shown(), TRAIN), 2] = 4.0
    experiment = make(responses={"ann": values})
    embedding, without = fit_embedding(experiment, None), np.arange(N_VOXELS) != 2
    with pytest.raises(DegenerateError, match=r"1 voxels are constant.*\[2\]"):
        training_data(experiment, "ann", embedding, scaling="train_stats")
    assert training_data(experiment, "ann", embedding, scaling="train_stats", voxels=without).responses.shape[1] == 5


@pytest.mark.parametrize("limit", [None, "64GB"])
@pytest.mark.parametrize("scaling", ["train_stats", "per_session"])
@pytest.mark.parametrize("some", [False, True])
def test_trials_in_scratch_files_are_those_in_memory_to_the_bit(scaling, some, limit, monkeypatch, tmp_path):
    """With bad voxels, whole numbers with a scale, an ROI; with a limit, and without one on a machine that is full."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    values = np.random.default_rng(2).integers(-900, 900, (N_TRIALS, 200)).astype(np.int16)
    values[:, 7] = [3 + (name in TEST) for name in shown()]
    experiment = make(
        responses={"ann": values},
        scale=1 / 300,
        geometry={"ann": np.random.default_rng(3).random((200, 3))},
    )
    voxels = np.arange(200) % 3 > 0 if some else None
    given = {"scaling": scaling, "voxels": voxels, "drop_bad_voxels": True, "finite_in_test": True}
    plain = decoding_data.scaled_trials(experiment, "ann", **given)
    assert 7 not in plain.voxels
    monkeypatch.setattr(memory, "SHARE" if limit else "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda: 0)
    with memory.using(limit):
        before = len(memory._SCRATCH)
        scratch = decoding_data.scaled_trials(experiment, "ann", **given)
        assert len(memory._SCRATCH) > before
        assert torch.equal(scratch.responses, plain.responses)
        assert np.array_equal(scratch.voxels, plain.voxels)
        rows = torch.tensor([5, 0, 40, 5])
        assert torch.equal(rows_of(scratch.responses, rows), plain.responses[rows])
        kept = torch.arange(plain.responses.shape[1]) % 2 == 0
        assert torch.equal(on_voxels(scratch.responses, kept), plain.responses[:, kept])
    del scratch
    assert len(memory._SCRATCH) == before
    assert not list(tmp_path.iterdir())


def test_a_subject_without_test_trials_has_nothing_to_hold_out():
    experiment = make(stimulus_ids={"ann": [IDS[number % 30] for number in range(N_TRIALS)]})
    with pytest.raises(InputError, match="no trial shows a test stimulus"):
        held_out_data(experiment, "ann", fit_embedding(experiment, None), scaling="train_stats")


def test_an_image_on_both_sides_is_refused():
    with pytest.raises(LeakError, match="s03"):
        make(split=Split(train=TRAIN, test=(*TEST, "s03")))
    pixels = [np.full((4, 4, 3), number, np.uint8) for number in range(N_STIMULI)]
    make(images=pixels)
    pixels[31] = pixels[5]
    with pytest.raises(LeakError, match=r"'s05'.*'s31'"):
        make(images=pixels)


# --- tokens, files, other networks ----------------------------------------------------------------------------------------


def test_tokens_are_kept_apart_and_targets_read_when_asked_for_are_the_same(monkeypatch):
    experiment = make()
    embedding = fit_embedding(experiment, None)
    assert (embedding.n_tokens, embedding.dim) == (2, 3)
    assert embedding_shape(experiment, None) == {"n_tokens": 2, "dim": 3}
    trials = training_data(experiment, "ann", embedding, scaling="train_stats")
    assert isinstance(trials.target, torch.Tensor)
    monkeypatch.setattr(decoding_data, "LARGEST_IN_MEMORY", 0)
    lazy = training_data(experiment, "ann", embedding, scaling="train_stats")
    assert not isinstance(lazy.target, torch.Tensor)
    rows = torch.tensor([5, 0, 17, 5])
    assert torch.equal(lazy.target[rows], trials.target[rows])
    assert len(lazy.target) == len(trials.target)
    by_hand = trials.target.numpy().reshape(-1, 2, 3).mean(1)
    for each in (trials, lazy):
        np.testing.assert_allclose(each.pooled_target(), by_hand, rtol=1e-6)


def test_an_embedding_may_lie_in_a_file(tmp_path):
    values = np.random.default_rng(5).standard_normal((N_STIMULI, 4)).astype(np.float16)
    np.save(tmp_path / "clip.npy", values)
    experiment, place = make(), str(tmp_path / "clip.npy")
    embedding = fit_embedding(experiment, place)
    mean = values[:30].astype(float).mean(0)
    spread = np.sqrt(((values[:30] - mean) ** 2).mean())
    np.testing.assert_allclose(embedding.of(experiment, ["s35"]).numpy(), (values[[35]] - mean) / spread, rtol=1e-4, atol=1e-5)
    (tmp_path / "clip.json").write_text(json.dumps({"stimuli": fingerprint(*IDS)}))
    assert choose_feature(experiment.stimuli, place) == place
    (tmp_path / "clip.json").write_text(json.dumps({"stimuli": fingerprint(*reversed(IDS))}))
    with pytest.raises(InputError, match="embeddings of other images, or in another order"):
        choose_feature(experiment.stimuli, place)
    np.save(tmp_path / "nan.npy", np.where(np.arange(N_STIMULI)[:, None] == 33, np.nan, values))  # a test stimulus
    with_nan = dataclasses.replace(embedding, name=str(tmp_path / "nan.npy"))
    with pytest.raises(InputError, match="not finite for stimulus s33"):
        with_nan.of(experiment, ["s32", "s33"])


def test_without_centring_only_the_spread_is_divided_out():
    experiment = make()
    embedding = fit_embedding(experiment, None, centre=False)
    values = experiment.stimuli.features["clip"].reshape(N_STIMULI, -1)
    assert not embedding.mean.any()
    np.testing.assert_allclose(embedding.of(experiment, IDS).numpy() * embedding.spread, values, rtol=1e-5)


def test_embeddings_of_another_network_are_refused_even_with_the_same_name_and_size():
    experiment = make()
    embedding = fit_embedding(experiment, None)
    values = experiment.stimuli.features["clip"]
    embedding.require_same_network(
        make(features={"clip": values + 0.1 * np.random.default_rng(2).standard_normal(values.shape)})
    )
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))[0]
    other = (values.reshape(N_STIMULI, 6) @ rotation).reshape(values.shape)
    with pytest.raises(InputError, match="embeddings of another network than the decoder was trained on"):
        embedding.require_same_network(make(features={"clip": other}))


def test_halves_share_no_image_and_leave_none_out():
    experiment = make()
    a, b = (set(half_of(experiment, half).split.train) for half in ("a", "b"))
    shown_to_ann = set(experiment.subjects["ann"].stimulus_ids) & set(TRAIN)
    assert not a & b
    assert a | b == shown_to_ann
    assert abs(len(a) - len(b)) <= 1
    assert half_of(experiment, "both") is experiment
    assert half_of(experiment, "a").split.test == TEST


def test_responses_of_another_subject_under_this_name_are_refused():
    experiment = make()
    own = experiment.subjects["ann"]
    two = dataclasses.replace(experiment, subjects={"ann": own, "ben": dataclasses.replace(own, subject="ben")})
    with pytest.raises(LeakError, match="responses of ann are those of ben"):
        refuse_copied_responses(two, ["ben"])
    changed = dataclasses.replace(own, subject="ben", values=np.asarray(own.values) + 1)
    refuse_copied_responses(dataclasses.replace(two, subjects={"ann": own, "ben": changed}), ["ben"])
