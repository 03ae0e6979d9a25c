"""Stimuli with labels and nothing else: one number for each label is decoded, and identified is the label.

Oracles: planted voxels that answer to their label; counting by hand which stimuli stand in a gallery.
"""

import json

import numpy as np
import pytest

import pulvinar
from pulvinar.core.errors import InputError
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import choose_feature, feature_values, one_hot_labels
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.arrays import from_arrays
from pulvinar.decoding.data import fit_embedding
from pulvinar.scores.retrieval import one_of_each_label, retrieval_scores

LABELS = ("face", "house", "shoe", "cat")
N_VOXELS, N_ANSWERING, N_BLOCKS = 60, 16, 12


def experiment(*, noise: float = 0.6, labels: list[str] | None = None) -> Experiment:
    """Blocks of four labels; the first 16 voxels answer to one label each."""
    generator = np.random.default_rng(0)
    shown = labels or [label for _ in range(N_BLOCKS) for label in LABELS]
    ids = [f"block-{number:02d}" for number in range(len(shown))]
    tuning = np.eye(len(LABELS))[[LABELS.index(label) for label in shown]]
    values = generator.normal(size=(len(ids), N_VOXELS)) * noise
    values[:, :N_ANSWERING] += np.tile(tuning, N_ANSWERING // len(LABELS))
    return from_arrays(
        responses={"sub-1": values},
        stimulus_ids={"sub-1": ids},
        geometry={"sub-1": np.stack([np.arange(N_VOXELS), np.zeros(N_VOXELS), np.zeros(N_VOXELS)], 1)},
        stimuli=ids,
        labels=shown,
        split=Split(train=tuple(ids[: 8 * len(LABELS)]), test=tuple(ids[8 * len(LABELS) :])),
    )


def test_one_number_for_each_label_by_the_alphabet():
    stimuli = Stimuli(ids=["a", "b", "c"], sources=["a", "b", "c"], labels=["shoe", "cat", "shoe"])
    np.testing.assert_array_equal(one_hot_labels(stimuli), [[0, 1], [1, 0], [0, 1]])
    np.testing.assert_array_equal(feature_values(stimuli, "label"), one_hot_labels(stimuli))


def test_labels_are_taken_where_there_is_nothing_else_and_said(capsys):
    stimuli = Stimuli(ids=["a", "b"], sources=["a", "b"], labels=["shoe", "cat"])
    assert choose_feature(stimuli, None) == "label"
    with_feature = Stimuli(ids=["a", "b"], sources=["a", "b"], labels=["shoe", "cat"], features={"clip": np.eye(2)})
    assert choose_feature(with_feature, None) == "clip"
    assert choose_feature(with_feature, "label") == "label"


@pytest.mark.parametrize(
    ("labels", "said"), [(["shoe", ""], "1 of 2 stimuli have no label, e.g. b"), (["shoe", "shoe"], "all stimuli have 'shoe'")]
)
def test_labels_that_tell_nothing_apart_are_refused(labels, said):
    with pytest.raises(InputError, match=said):
        one_hot_labels(Stimuli(ids=["a", "b"], sources=["a", "b"], labels=labels))


def test_a_label_that_was_never_trained_is_refused():
    with pytest.raises(InputError, match="no training stimulus has the label of test stimuli: cat"):
        fit_embedding(experiment(labels=[*[LABELS[n % 3] for n in range(32)], *LABELS * 2]), None)


def test_a_gallery_has_one_of_each_label():
    labels = ["a", "b", "a", "c", "b", "a"]
    gallery = ~one_of_each_label(labels)
    for row, label in enumerate(labels):
        there = [labels[other] for other in np.flatnonzero(gallery[row])]
        assert sorted(there) == ["a", "b", "c"]
        assert gallery[row, row]
        assert [other for other in np.flatnonzero(gallery[row]) if labels[other] == label] == [row]


def test_identification_of_labels_is_classification_with_its_chance():
    """Oracle: the label of the largest output, compared with the true one."""
    generator = np.random.default_rng(1)
    labels = np.tile(np.arange(5), 40)
    true = np.eye(5)[labels] - 0.2
    predicted = true + generator.normal(size=true.shape) * 0.8
    found = retrieval_scores(predicted, true, generator=generator, excluded=one_of_each_label([str(n) for n in labels]))
    classified = np.mean((predicted @ (np.eye(5) - 0.2).T).argmax(1) == labels)
    assert found.scores["brain_to_image_top1"] == pytest.approx(classified)
    assert found.scores["chance"] == pytest.approx(0.2)
    assert found.scores["brain_to_image_top1_null_mean"] == pytest.approx(0.2, abs=0.02)


@pytest.mark.slow
def test_fit_and_evaluate_from_labels_alone(tmp_path):
    data = experiment()
    run = pulvinar.fit(
        "anova",
        data,
        out=tmp_path / "run",
        pretrain=False,
        n_voxels=N_ANSWERING,
        epochs=15,
        hidden=32,
        batch_size=16,
        beside="usual",
    )
    evaluation = run.evaluate(data=data).result
    assert evaluation["identified"] == "the label, among 4: one image of each in a gallery"
    assert evaluation["chance"] == pytest.approx(0.25)
    assert evaluation["gallery_size"] == 4
    ours = next(row for row in evaluation["rows"] if row["name"] == "anova")
    assert ours["brain_to_image_top1"] > 0.8
    assert run.masks.voxels("sub-1")[:N_ANSWERING].mean() > 0.8
    assert "one number for each" in json.dumps(json.loads((tmp_path / "run/run.json").read_text()))
    assert "Identified" in run.report().read_text()
