"""What a network's frozen features say about the classes of pictures, and where its class probabilities place it.

Features of one layer -> standardised by the training images -> multinomial logistic regression (`evaluation.linear_probe`, its
exact recipe). Scores are on test images, with a bootstrap interval over them and the paired difference to the first source. The
class probabilities of the test images give the Bhattacharyya dissimilarity between sources, and from three sources on the
landscape (`metrics.landscape`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import track, warn
from pulvinar.data.image_set import ImageSet
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.layer_features import FeatureSource
from pulvinar.linear.linear_probe import L2_WEIGHTS, choose_l2, solve_logistic, standardised
from pulvinar.scores.landscape import bhattacharyya, intensive_components
from pulvinar.scores.resampling import LEVEL, bootstrap_shares, paired_difference, share_interval
from pulvinar.scores.table import Column, Table

N_BOOTSTRAP = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """One source: name of the layer that was used, correct (image,) bool, log_probabilities (image, class) of test images."""

    layer: str
    l2_weight: float
    correct: np.ndarray
    log_probabilities: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the test images that are named rightly."""
        return float(self.correct.mean())


def as_stimuli(images: ImageSet) -> tuple[Stimuli, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labelled images as stimuli: (stimuli, training rows, training labels, test rows, test labels).

    `InputError` for a class of the test images without a training image; a warning for one that is never tested.
    """
    train, labels = images.labelled()
    test, test_labels = images.tested()
    untaught = sorted(set(test_labels.tolist()) - set(labels.tolist()))
    if untaught:
        raise InputError(f"{images.name}: class {_name(images, untaught[0])} has test images but no training image")
    untested = sorted(set(labels.tolist()) - set(test_labels.tolist()))
    if untested:
        warn(f"{images.name}: {len(untested)} classes have no test image, among them {_name(images, untested[0])}")
    ids = [f"train-{row}" for row in range(len(train))] + [f"test-{row}" for row in range(len(test))]
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: train[row] if row < len(train) else test[row - len(train)])
    return stimuli, np.arange(len(train)), labels, np.arange(len(train), len(ids)), test_labels


def _name(images: ImageSet, label: int) -> str:
    return f"'{images.class_names[label]}'" if label < len(images.class_names) else str(label)


def classify(
    source: FeatureSource,
    images: ImageSet,
    *,
    layer: str | None = None,
    seed: int = 0,
    l2_weights: Sequence[float] = L2_WEIGHTS,
) -> Classified:
    """Logistic regression on frozen features of labelled images, scored on the test images.

    layer: which of the source's layers; none: the last. The weight of the L2 term is chosen on an inner fifth of the training
    images of each class. Raises `NotFoundError` for a layer that is not there.
    """
    stimuli, rows, labels, test_rows, test_labels = as_stimuli(images)
    layers = source.of(stimuli, np.arange(len(stimuli)))
    name = list(layers)[-1] if layer is None else layer
    if name not in layers:
        raise NotFoundError(f"layer: no '{name}' among {', '.join(layers)}")
    values = torch.from_numpy(np.asarray(layers[name], np.float32).reshape(len(stimuli), -1).copy())
    train, test = standardised(values[rows], values[test_rows])
    classes, taught = np.unique(labels, return_inverse=True)
    target = torch.from_numpy(taught.reshape(-1))
    weight = choose_l2(train, target, len(classes), l2_weights, torch.Generator().manual_seed(seed))
    solved, bias = solve_logistic(train, target, len(classes), weight)
    found = (test.double() @ solved.double().T + bias.double()).log_softmax(dim=1).numpy()
    return Classified(layer=name, l2_weight=weight, correct=classes[found.argmax(1)] == test_labels, log_probabilities=found)


def classification_table(
    sources: Mapping[str, FeatureSource], images: ImageSet, *, layer: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Accuracy of every source with interval, its difference to the first, and from three sources on the landscape.

    rows: name, layer, accuracy, accuracy_low, accuracy_high; but for the first difference, difference_low, difference_high,
    difference_p_value (signs of whole images flipped). landscape: names, dissimilarity, coordinates (model, component),
    eigenvalues, negative, share.
    """
    if not sources:
        raise InputError("classification: one source of features or more is needed, none came")
    found = {
        name: classify(source, images, layer=layer, seed=seed)
        for name, source in track(sources.items(), "classifying", len(sources))
    }
    first, rows = next(iter(found.values())), []
    for name, one in found.items():
        shares = bootstrap_shares(len(one.correct), N_BOOTSTRAP, np.random.default_rng([seed, 0xC1A]))
        low, high = share_interval(one.correct.astype(float), shares @ one.correct)
        row: dict[str, Any] = {"name": name, "layer": one.layer, "l2_weight": one.l2_weight, "accuracy": one.accuracy}
        row |= {"accuracy_low": low, "accuracy_high": high}
        if one is not first:
            paired = paired_difference(
                one.correct.astype(float),
                first.correct.astype(float),
                generator=np.random.default_rng([seed, 0xC1B]),
                of_shares=True,
            )
            row |= {
                "difference": paired.difference,
                "difference_low": paired.low,
                "difference_high": paired.high,
                "difference_p_value": paired.p_value_images,
            }
        rows.append(row)
    labels = images.tested()[1]
    result: dict[str, Any] = {
        "images": images.name,
        "n_train": len(images.labelled()[0]),
        "n_test": len(labels),
        "n_classes": first.log_probabilities.shape[1],
        "chance": float(np.bincount(labels).max() / len(labels)),
        "rows": rows,
        "interval_level": LEVEL,
        "landscape": None,
    }
    if len(found) >= 3:
        dissimilarity = bhattacharyya(np.stack([one.log_probabilities for one in found.values()]))
        map_ = intensive_components(dissimilarity)
        result["landscape"] = {
            "names": list(found),
            "dissimilarity": dissimilarity,
            "coordinates": map_.coordinates,
            "eigenvalues": map_.eigenvalues,
            "negative": map_.negative,
            "share": map_.share,
        }
    return result


SCORES = (
    Column(
        "accuracy", "accuracy", "%", ".1%", "Share of test images that a linear classifier on the model's features gets right."
    ),
    Column("difference", "minus first", "points", "+.1%", "Accuracy less that of the first model, paired image by image."),
)


def score_table(result: Mapping[str, Any]) -> Table:
    """Accuracy of every model, and its difference from the first one's."""
    columns = [
        Column("name", "features", note="layer", lead=True),
        *SCORES,
    ]
    return Table(columns, result["rows"])


def as_text(result: Mapping[str, Any]) -> str:
    """The table for a terminal; then the components of the landscape, negative ones marked."""
    lines = [
        f"{result['images']}: {result['n_train']} training and {result['n_test']} test images, {result['n_classes']} classes, "
        f"chance {100 * result['chance']:.1f} % (the most frequent class)",
        score_table(result).text(),
        "layers: " + ", ".join(f"{row['name']} {row['layer']}" for row in result["rows"]),
    ]
    found = result["landscape"]
    if found is None:
        return "\n".join([*lines, "no landscape: 3 models or more are needed"])
    lines.append("landscape (InPCA), coordinates of the first components; * along these, distance counts negatively")
    columns = [Column("name", "model", lead=True)]
    for number, share in enumerate(found["share"][:4]):
        columns.append(
            Column(str(number), f"{number + 1}{'*' * bool(found['negative'][number])}", f"{100 * share:.0f} %", ".4f")
        )
    places = zip(found["names"], found["coordinates"], strict=True)
    rows = [{"name": name, **{str(number): value for number, value in enumerate(place)}} for name, place in places]
    return "\n".join([*lines, Table(columns, rows).text()])
