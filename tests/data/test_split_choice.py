"""Splits that do not flatter. Oracles: planted copies, cosines by a loop, set arithmetic, a world of copies."""

import json

import numpy as np
import pytest

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import open_data
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, InputError, NotFoundError
from pulvinar.data.experiment import Experiment, save
from pulvinar.data.nearness import NearOptions, nearest_in_training
from pulvinar.data.split_choice import OWN_FOLDER, SplitOptions, Splits, choose, split_off, without_leaks
from pulvinar.data.splits import Split
from pulvinar.datasets.arrays import from_arrays

N_TRAIN, N_TEST, N_COPIES, DIM = 120, 40, 15, 256


def world(*, features: bool = True, images: bool = False, seed: int = 0) -> Experiment:
    """120 training and 40 test images whose responses are drawn anew for each image; 15 test images are near copies.

    A copy has the embedding of a training image but for a little noise, and its response: nothing else can be predicted.
    """
    generator = np.random.default_rng(seed)
    embedding = generator.normal(size=(N_TRAIN + N_TEST, DIM))
    pictures = generator.integers(0, 256, (N_TRAIN + N_TEST, 32, 32, 3)).astype(np.uint8)
    signal = generator.normal(size=(N_TRAIN + N_TEST, 60))
    for place in range(N_COPIES):
        copy = N_TRAIN + place
        embedding[copy] = embedding[place] + 0.1 * generator.normal(size=DIM)
        signal[copy] = signal[place]
        pictures[copy] = np.where(pictures[place] < 250, pictures[place] + 1, pictures[place])
    ids = [f"image{row:03d}" for row in range(N_TRAIN + N_TEST)]
    shown = ids[:N_TRAIN] + ids[N_TRAIN:] * 2
    values = np.concatenate([signal, signal[N_TRAIN:]])
    return from_arrays(
        responses={"sub-01": values + 0.3 * generator.normal(size=values.shape)},
        stimulus_ids={"sub-01": shown},
        geometry={"sub-01": generator.normal(size=(60, 3))},
        stimuli=ids,
        features={"clip": embedding} if features else None,
        images=pictures if images else None,
        split=Split(train=tuple(ids[:N_TRAIN]), test=tuple(ids[N_TRAIN:])),
    )


def largest_cosine(experiment: Experiment, split: Split) -> float:
    """By a loop over all pairs, of embeddings less the mean of all."""
    values = np.asarray(experiment.stimuli.features["clip"], np.float64)
    values = values - values.mean(0)
    rows = {name: values[row] / np.linalg.norm(values[row]) for row, name in enumerate(experiment.stimuli.ids)}
    return max(float(rows[one] @ rows[other]) for one in split.train for other in split.test)


def test_planted_copies_are_found_and_no_others():
    experiment = world()
    found = nearest_in_training(experiment.stimuli, experiment.split, NearOptions())
    assert [name for name, near in zip(found.test, found.is_near, strict=True) if near] == [
        f"image{row:03d}" for row in range(N_TRAIN, N_TRAIN + N_COPIES)
    ]
    assert list(found.neighbour[:N_COPIES]) == [f"image{row:03d}" for row in range(N_COPIES)]
    assert found.cosine.max() == pytest.approx(largest_cosine(experiment, experiment.split), abs=1e-5)
    assert set(found.apart) == set(experiment.split.test[N_COPIES:])


def test_small_pictures_find_them_too():
    experiment = world(features=False, images=True)
    found = nearest_in_training(experiment.stimuli, experiment.split, NearOptions(near_by=("pixels",), near=0.95))
    assert found.is_near.tolist() == [True] * N_COPIES + [False] * (N_TEST - N_COPIES)
    assert nearest_in_training(experiment.stimuli, experiment.split, NearOptions()) is None


def test_a_split_without_leaks_has_no_near_pair_and_shares_no_cluster():
    experiment = world()
    assert largest_cosine(experiment, experiment.split) > 0.9
    split, said, shared = without_leaks(experiment, SplitOptions())
    assert largest_cosine(experiment, split) < 0.82
    assert set(split.train) <= set(experiment.split.train)
    assert set(split.test) <= set(experiment.split.test)
    assert len(split.train) >= 0.8 * N_TRAIN
    assert len(split.test) >= 5
    assert said.startswith(f"leakage_free: {len(split.train)} of 120 training and {len(split.test)} of 40 test images")
    assert shared["n_test_images_in_clusters_with_training"] == 0
    assert without_leaks(experiment, SplitOptions())[0] == split  # the same each time


def test_a_random_split_is_drawn_anew_by_whole_clusters():
    experiment = world()
    split, _, _ = without_leaks(experiment, SplitOptions(), draw=True)
    assert largest_cosine(experiment, split) < 0.82
    assert {*split.train, *split.test} == set(experiment.stimuli.ids)
    moved = set(split.test) & set(experiment.split.train)
    assert moved
    assert choose(experiment, SplitOptions(split="leakage_free"), Splits()).split == split


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"near": 0.001}, InputError, "near images join .* into one group"),
        ({"n_clusters": 2, "give_up": 0.05}, InputError, r"0 test images are in clusters that cost up to 5% .*n_clusters"),
        ({"near_by": ("dino",)}, NotFoundError, "no feature 'dino'"),
        ({"near_by": ("pixels",)}, NotFoundError, "came without images"),
    ],
)
def test_what_cannot_be_split_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        without_leaks(world(), SplitOptions(**options))


def test_without_an_embedding_it_says_what_to_do():
    with pytest.raises(NotFoundError, match=r"data embed.*near_by=pixels"):
        without_leaks(world(features=False), SplitOptions())


def test_a_split_that_there_is_not_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"god has no 'ood'\. There are owners \(DataType.*leakage_free"):
        open_data("experiment", f"god:{tmp_path}/set?split=ood")
    with pytest.raises(InputError, match=r"nod has no 'owners'; its owners published no split\. There are random"):
        open_data("experiment", f"nod:{tmp_path}/set?split=owners")
    with pytest.raises(ConfigError, match="near"):
        split_off("set?near=2", OWN_FOLDER, name="set")


def test_names_of_the_owners_are_left_to_the_reader():
    splits = Splits(owners="ood", named={"ood": "x"}, others="a file")
    assert split_off("set?split=tau&voxels=V1&near=0.9", splits, name="laion_fmri")[0] == "set?voxels=V1&split=tau"
    assert split_off("set?split=leakage_free", splits, name="laion_fmri")[0] == "set"
    place, options = split_off("set?near=0.7&near_by=clip,pixels&give_up=0.1", splits, name="laion_fmri")
    assert (place, options) == ("set", SplitOptions(near=0.7, near_by=("clip", "pixels"), give_up=0.1))


def test_a_caution_of_the_owners_split_is_kept_where_it_is_used():
    splits = Splits(owners="the usual one", caution="flatters")
    assert choose(world(), SplitOptions(), splits).facts["split_caution"] == "flatters"
    assert "split_caution" not in choose(world(), SplitOptions(split="leakage_free"), splits).facts


def test_inspect_counts_images_trials_and_what_is_near(tmp_path, capsys):
    save(world(), tmp_path / "study")
    said = {}
    for name in ("owners", "leakage_free"):
        assert main(["data", "inspect", f"{tmp_path}/study?split={name}", "--json"]) == 0
        said[name] = json.loads(capsys.readouterr().out)["split"]
    assert said["owners"]["train"] == N_TRAIN
    assert said["owners"]["trials"] == {"sub-01": {"train": N_TRAIN, "test": 2 * N_TEST}}
    assert said["owners"]["nearest"]["n_near"] == N_COPIES
    assert said["leakage_free"]["nearest"]["n_near"] == 0
    assert said["leakage_free"]["trials"]["sub-01"]["test"] == 2 * said["leakage_free"]["test"]


@pytest.mark.long
def test_the_owners_split_flatters_and_both_numbers_are_printed(tmp_path):
    """Nothing but the copies can be predicted, so r of the others is that of chance; r over all is not."""
    save(world(), tmp_path / "study")
    scores = {}
    for name in ("owners", "leakage_free"):
        run = str(tmp_path / name)
        fitting.fit("ridge_encoding", data=f"{tmp_path}/study?split={name}", out=run)
        scores[name] = evaluating.evaluate(run, controls=False)["rows"][0]
    usual = scores["owners"]
    assert usual["n_images_near"] == N_COPIES
    assert usual["r_nested"] > 0.25
    assert abs(usual["r_apart"]) < 0.12
    assert abs(scores["leakage_free"]["r_nested"]) < 0.2
    assert scores["leakage_free"]["n_images_near"] == 0
    said = evaluating.evaluation_text(evaluating.evaluate(str(tmp_path / "owners"), controls=False))
    assert "15 of 40 test images have a near training image" in said
    assert f"{usual['r_nested']:.3f} of all, {usual['r_apart']:.3f}" in said
