"""Classes from frozen features: planted classes, shuffled labels, scikit-learn, Caltech-101, and the landscape of sources."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.image_set import ImageSet
from pulvinar.encoding import figures
from pulvinar.encoding.image_classification import as_text, classification_table, classify
from pulvinar.encoding.layer_features import LayerSource

N_CLASSES, N_TRAIN, N_TEST = 4, 30, 15


def image_set(*, shuffled=False, seed=0, drop=None) -> ImageSet:
    """Pictures of noise whose class is only in the features below."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_CLASSES), N_TRAIN), np.repeat(np.arange(N_CLASSES), N_TEST)
    images = [rng.integers(0, 255, (len(part), 8, 8, 3)).astype(np.uint8) for part in labels]
    given = rng.permutation(labels[0]) if shuffled else labels[0]
    keep = np.ones(len(given), bool) if drop is None else given != drop
    return ImageSet(
        name="planted",
        train=images[0][keep],
        test=images[1],
        train_labels=given[keep],
        test_labels=labels[1],
        class_names=("cat", "cup", "car", "sky"),
    )


class Features:
    """Class means plus noise; `spread` of the noise."""

    def __init__(self, spread, seed=1):
        rng = np.random.default_rng(seed)
        labels = np.concatenate([np.repeat(np.arange(N_CLASSES), n) for n in (N_TRAIN, N_TEST)])
        means = np.random.default_rng(7).standard_normal((N_CLASSES, 6))
        self.values = (means[labels] + spread * rng.standard_normal((len(labels), 6))).astype(np.float32)

    def of(self, stimuli, rows):
        return {"early": self.values[rows][:, :1], "late": self.values[rows]}


def test_planted_classes_are_found_and_the_better_source_is_better():
    result = classification_table({"good": Features(0.5), "worse": Features(3.0)}, image_set())
    good, worse = result["rows"]
    assert good["accuracy"] > 0.9
    assert good["accuracy_low"] <= good["accuracy"] <= good["accuracy_high"]
    assert worse["difference"] == pytest.approx(worse["accuracy"] - good["accuracy"])
    assert worse["difference_high"] < 0
    assert worse["difference_p_value"] < 0.01
    assert (good["layer"], result["chance"], result["n_classes"]) == ("late", 0.25, 4)
    assert result["landscape"] is None
    assert "no landscape" in as_text(result)


def test_shuffled_labels_give_chance():
    """Null: mean accuracy over 5 shuffles of the training labels, 60 test images each: 1/4 within 3 s.e."""
    scores = [classify(Features(0.5, seed), image_set(shuffled=True, seed=seed)).accuracy for seed in range(5)]
    assert abs(np.mean(scores) - 0.25) < 3 * np.sqrt(0.25 * 0.75 / (60 * 5)) + 0.05


def test_probabilities_are_those_of_scikit_learn():
    """Oracle: LogisticRegression on standardised features, C = 1 / (weight x images)."""
    source, images = Features(1.0), image_set()
    found = classify(source, images, l2_weights=(0.01,))
    train, test = source.values[: len(images.train)], source.values[len(images.train) :]
    mean, sd = train.mean(0), train.std(0, ddof=1)
    model = LogisticRegression(C=1 / (0.01 * len(train)), tol=1e-8, max_iter=2000).fit((train - mean) / sd, images.train_labels)
    np.testing.assert_allclose(np.exp(found.log_probabilities), model.predict_proba((test - mean) / sd), atol=1e-3)


def test_landscape_places_like_models_near_each_other():
    """Planted truth: two sources are the same features with a little noise, the third is other noise."""
    near = Features(1.0)
    also = Features(1.0)
    also.values = also.values + 0.05 * np.random.default_rng(3).standard_normal(also.values.shape).astype(np.float32)
    result = classification_table({"a": near, "b": also, "c": Features(3.0, 9)}, image_set())
    distance = result["landscape"]["dissimilarity"]
    assert distance[0, 1] < 0.2 * min(distance[0, 2], distance[1, 2])
    first = result["landscape"]["coordinates"][:, 0]
    assert abs(first[0] - first[1]) < 0.3 * abs(first[0] - first[2])
    assert "landscape (InPCA)" in as_text(result)


def test_a_class_without_training_images_is_named():
    with pytest.raises(InputError, match="class 'car' has test images but no training image"):
        classify(Features(1.0), image_set(drop=2))
    with pytest.raises(NotFoundError, match="no 'middle' among early, late"):
        classify(Features(1.0), image_set(), layer="middle")


@pytest.mark.slow
def test_caltech_101_with_mobilenet(shared_data, monkeypatch, tmp_path):
    """Published number of the data's page: logistic regression on pooled features of these weights, accuracy 0.945."""
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path))
    sides = {"train": ([], []), "test": ([], [])}
    table = (shared_data / "caltech101/caltech101_dev.csv").read_text().splitlines()[1:]
    classes = sorted({line.split(",")[1] for line in table})
    with tarfile.open(shared_data / "caltech101/caltech101_dev.tar") as archive:
        for line in table:
            path, name, side = line.split(",")[:3]
            picture = Image.open(io.BytesIO(archive.extractfile(path).read())).convert("RGB").resize((224, 224))
            sides[side][0].append(np.asarray(picture))
            sides[side][1].append(classes.index(name))
    images = ImageSet(
        name="Caltech-101",
        train=np.stack(sides["train"][0]),
        test=np.stack(sides["test"][0]),
        train_labels=np.array(sides["train"][1]),
        test_labels=np.array(sides["test"][1]),
        class_names=tuple(classes),
    )
    source = LayerSource(
        network="mobilenet_v2",
        weights=str(shared_data / "weights/mobilenet_v2_imagenet.npz"),
        stages=("features.18",),
        image_size=224,
        pool=1,
    )
    assert classify(source, images).accuracy == pytest.approx(0.945, abs=0.02)


def test_models_at_one_place_of_the_landscape_share_a_label():
    """The same untuned network of three runs is one point, and its labels must not lie on each other."""
    place = np.array([[0.1, 0.2], [0.5, -0.3], [0.1 + 1e-12, 0.2], [0.1, 0.2]])
    found = figures._labels_of_places(["a/untuned", "a/subj01", "b/untuned", "c/untuned"], place)
    assert [text for text, _ in found] == ["a/untuned and 2 more", "a/subj01"]
    assert [list(where) for _, where in found] == [[0.1, 0.2], [0.5, -0.3]]
