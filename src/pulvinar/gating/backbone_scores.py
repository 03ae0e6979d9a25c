"""What a self-supervised backbone is worth: neighbours and linear probes on its features, dense and gated, beside controls.

Every row has its MAC share, the 1-NN and linear accuracy on the test images with their 95 % bootstrap intervals over test
images, and the paired difference from the first row (gated where there are gates, else dense) with its interval. Intervals over
seeds need several runs: `report/` pools the per-image results that are stored for that purpose.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.progress import log
from pulvinar.core.sampling import evenly_spaced
from pulvinar.data.image_set import ImageSet
from pulvinar.gating.budget_controls import Control, FixedMask, fixed_mask, random_gates
from pulvinar.gating.channel_statistics import ChannelStatistics, channel_statistics
from pulvinar.gating.choice_statistics import ChoiceStatistics, choice_statistics, choices_of, in_words
from pulvinar.gating.settings import ScoreSettings
from pulvinar.learning.image_features import PIXELS, Forward, collect, crops_of_epoch, pixels
from pulvinar.learning.views import ViewSettings
from pulvinar.linear.linear_probe import linear_probe
from pulvinar.linear.neighbours import knn_accuracy
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.scores.resampling import LEVEL, bootstrap_shares, paired_difference, share_interval
from pulvinar.scores.table import Column, Row, Table

N_BOOTSTRAP = 2000
N_PLACED = 2000  # test images, evenly spread, whose features are kept for the report's map of them


@dataclass(frozen=True, kw_only=True, eq=False)
class BackboneScores:
    """An evaluation: plain values, which test images were right (for pooling over seeds), and test features to draw.

    correct: 'knn_BRANCH' (image,) and 'linear_BRANCH' (probe seed, image) bool. features: 'gated', 'dense' (image, feature)
    of at most N_PLACED test images, evenly spread, and their 'label'.
    """

    values: dict[str, Any]
    correct: dict[str, np.ndarray]
    features: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One row: scores, and which test images were right: (image,) bool for neighbours, (probe seed, image) for the probe."""

    name: str
    description: str
    mac_share: float | None
    knn: float
    linear: float
    knn_correct: np.ndarray
    linear_correct: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class GatedFeatures:
    """Of the gated pass at inference over some images: features, channel statistics and the mean MAC share.

    choices: of a network of levels or routes, how they are spread.
    """

    features: Tensor
    channels: ChannelStatistics
    mac_share: float
    choices: ChoiceStatistics | None = None


def gated_features(network: GatedResNet, images: np.ndarray, *, views: ViewSettings, batch_size: int = 256) -> GatedFeatures:
    """One gated pass, without noise, over every image. The network must be in evaluation mode."""
    gates: list[list[Tensor]] = []
    shares: list[Tensor] = []
    choices: list[Tensor] = []

    def forward(pixels: Tensor) -> Tensor:
        output = network(pixels, gated=True)
        if (found := choices_of(network, output)) is not None:
            choices.append(found.cpu())
        gates.append([gate.cpu() > 0.5 for gate in output.gates])
        shares.append(output.hard_share.cpu() * len(pixels))
        return output.features

    device = next(network.parameters()).device
    features = collect(forward, images, views=views, batch_size=batch_size, device=device, description="gated features")
    return GatedFeatures(
        features=features,
        channels=channel_statistics(gates),
        mac_share=float(sum(shares, torch.zeros(()))) / len(images),
        choices=choice_statistics(network, torch.cat(choices)) if choices else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scorer:
    """Labelled training images and test images, and how features of them are scored."""

    images: np.ndarray
    tested: np.ndarray
    labels: tuple[np.ndarray, np.ndarray]
    views: ViewSettings
    settings: ScoreSettings
    seed: int
    device: torch.device

    def collect(self, forward: Forward, name: str, views: ViewSettings) -> tuple[Tensor, Tensor]:
        """Features of the training and the test images."""
        options: dict[str, Any] = {"views": views, "batch_size": self.settings.batch_size, "device": self.device}
        train, test = (collect(forward, part, description=name, **options) for part in (self.images, self.tested))
        return train, test

    def row(
        self,
        name: str,
        description: str,
        mac_share: float | None,
        forward: Forward,
        *,
        features: tuple[Tensor, Tensor] | None = None,
        views: ViewSettings | None = None,
        is_control: bool = False,
    ) -> Scored:
        """Neighbours and linear probe. features: of the training and test images, where they are there already."""
        settings, views = self.settings, views or self.views
        train, test = (part.to(self.device) for part in features or self.collect(forward, name, views))
        neighbours = knn_accuracy(
            train,
            self.labels[0],
            test,
            self.labels[1],
            k=settings.k,
            metric=settings.metric,
            normalised=settings.normalised,
            weighting=settings.weighting,
            temperature=settings.temperature,
        )
        crops = None
        if settings.crops:
            options: dict[str, Any] = {"views": views, "batch_size": settings.batch_size, "device": self.device}
            crops = crops_of_epoch(forward, self.images, seed=self.seed, **options)
        probe = linear_probe(
            train,
            self.labels[0],
            test,
            self.labels[1],
            recipe=settings.linear,
            n_seeds=1 if is_control and settings.linear == "exact" else settings.probe_seeds,
            seed=self.seed,
            features_of_epoch=crops,
        )
        log(f"{name}: {settings.k}-NN {100 * neighbours.accuracy:.1f} %, linear {100 * probe.accuracy:.1f} %")
        return Scored(
            name=name,
            description=description,
            mac_share=mac_share,
            knn=neighbours.accuracy,
            linear=probe.accuracy,
            knn_correct=neighbours.correct,
            linear_correct=probe.correct,
        )


def score_backbone(
    network: GatedResNet,
    data: ImageSet,
    *,
    views: ViewSettings | None = None,
    settings: ScoreSettings | None = None,
    seed: int = 0,
    controls: bool = True,
    name: str | None = None,
) -> BackboneScores:
    """The evaluation of a finished network on labelled images of `data`.

    The bank and the probe's training set are all labelled training images; the test images were in nobody's training. Keys:
    mac_share, knn_dense, knn_gated, linear_dense, linear_gated, linear_pixels, linear_random_gates, channels (always_on,
    always_off, dependent: shares of all channels, and the counts per gate), choices (of levels and routes,
    `ChoiceStatistics`), rows, chance, n_train, n_test. What a network does not have (gates) or was not asked for (controls) is
    None. name: what to call the first row (a method's name); its `branch` stays gated or dense, as the per-image results are
    called.
    """
    settings = settings or ScoreSettings()
    network.eval()
    images, train_labels = data.labelled()
    tested, test_labels = data.tested()
    scorer = _Scorer(
        images=images,
        tested=tested,
        labels=(train_labels, test_labels),
        views=views or ViewSettings(),
        settings=settings,
        seed=seed,
        device=next(network.parameters()).device,
    )
    rows: list[Scored] = []
    features: dict[str, Tensor] = {}
    channels: ChannelStatistics | None = None
    choices: ChoiceStatistics | None = None
    gated_share: float | None = None
    if "gated" in network.passes:
        train, test = (
            gated_features(network, part, views=scorer.views, batch_size=settings.batch_size) for part in (images, tested)
        )
        channels, gated_share, features["gated"] = test.channels, test.mac_share, test.features
        choices = test.choices
        rows.append(
            scorer.row(
                "gated",
                "the network with its gates",
                gated_share,
                lambda pixels: network(pixels, gated=True).features,
                features=(train.features, test.features),
            )
        )
    if "dense" in network.passes:

        def dense(pixels: Tensor) -> Tensor:
            return network(pixels).features

        found = scorer.collect(dense, "dense", scorer.views)
        features["dense"] = found[1]
        rows.append(scorer.row("dense", "every channel, no gates", 1.0, dense, features=found))
    if controls:
        rows.append(scorer.row("pixels", "raw pixels, no network", None, pixels, views=PIXELS, is_control=True))
        if channels is not None and gated_share is not None:
            for control in _controls(network, gated_share, train, data, scorer.views, seed):
                shown = "random_gates" if control.name == "random" else control.name
                rows.append(scorer.row(shown, control.description, control.mac_share, control.forward, is_control=True))
    values = _values(rows, channels, gated_share, scorer) | {"choices": None if choices is None else choices.as_dict()}
    if name is not None:
        values["rows"][0]["name"] = name
    correct = {f"{kind}_{row.name}": getattr(row, f"{kind}_correct") for row in rows for kind in ("knn", "linear")}
    placed = evenly_spaced(len(tested), N_PLACED)
    kept = {branch: found[placed].numpy() for branch, found in features.items()}
    return BackboneScores(values=values, correct=correct, features={**kept, "label": test_labels[placed]})


def _controls(
    network: GatedResNet, share: float, trained: GatedFeatures, data: ImageSet, views: ViewSettings, seed: int
) -> Iterator[Control]:
    densities = [gate.density for gate in trained.channels.gates]
    choices = None if trained.choices is None else trained.choices.shares
    yield random_gates(network, densities, torch.Generator().manual_seed(seed), choices=choices)
    kinds: tuple[FixedMask, ...] = ("static", "static_random", "pruned")
    for kind in kinds:
        if kind == "pruned" and "dense" not in network.passes:
            continue
        yield fixed_mask(
            kind,
            network,
            share,
            policies=trained.channels.policies,
            images=data.train,
            views=views,
            generator=np.random.default_rng([seed, 0x57A7]),
        )


def _values(
    rows: list[Scored], channels: ChannelStatistics | None, gated_share: float | None, scorer: _Scorer
) -> dict[str, Any]:
    by_name = {row.name: row for row in rows}

    def value(name: str, score: str) -> float | None:
        return getattr(by_name[name], score) if name in by_name else None

    names = ("dense", "gated", "pixels", "random_gates")
    scores = {f"{score}_{name}": value(name, score) for score in ("knn", "linear") for name in names}
    train_labels, test_labels = scorer.labels
    counts = np.bincount(train_labels)
    return {
        "mac_share": 1.0 if gated_share is None else gated_share,
        **scores,
        "channels": None if channels is None else channels.as_dict(),
        "rows": compared(rows, seed=scorer.seed),
        "interval_level": LEVEL,
        "chance": float(np.mean(test_labels == counts.argmax())),
        "n_train": len(train_labels),
        "n_test": len(test_labels),
        "settings": asdict(scorer.settings),
    }


def compared(rows: list[Scored], *, seed: int) -> list[dict[str, Any]]:
    """Each row with the intervals of its scores, and its paired difference from the first row (row minus first)."""
    generator = np.random.default_rng([seed, 0xB007])
    made = []
    for row in rows:
        entry: dict[str, Any] = {"name": row.name, "branch": row.name, "description": row.description}
        entry["mac_share"] = row.mac_share
        for kind in ("knn", "linear"):
            correct = per_image(getattr(row, f"{kind}_correct"))
            entry[kind] = float(correct.mean())
            entry[f"{kind}_interval"] = interval(correct, generator)
            if row is not rows[0]:
                reference = per_image(getattr(rows[0], f"{kind}_correct"))
                entry[f"{kind}_difference"] = asdict(paired_difference(correct, reference, generator=generator, of_shares=True))
        made.append(entry)
    return made


def per_image(correct: np.ndarray) -> np.ndarray:
    """Share of probe seeds that were right on each image: (image,)."""
    return np.atleast_2d(correct).mean(0).astype(np.float64)


def interval(correct: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """95 % interval over images of a share (image,): bootstrap, Wilson's where all or none are right."""
    return share_interval(correct, bootstrap_shares(len(correct), N_BOOTSTRAP, generator) @ correct)


SCORES = (
    Column("mac_share", "MACs", "%", ".1%", "Multiply-adds on the test images, of those of the dense network."),
    Column("knn", "k-NN", "%", ".1%", "Accuracy on the test images of nearest neighbours among the training images; k stands "
        "in the head."),
    Column("linear", "linear probe", "%", ".1%", "Accuracy on the test images of a linear classifier."),
    Column("linear_minus_first", "linear, minus the first", "points", "+.1%", "Accuracy of the linear classifier less that of "
        "the first row, paired image by image; percentage points."),
)  # fmt: skip


PUBLISHED = (  # of papers, of both passes
    SCORES[0],
    *(
        Column(f"{key}_{branch}", f"{name}, {branch}", definition=f"Accuracy on the test images of {what}, {branch} pass.")
        for branch in ("dense", "gated")
        for key, name, what in (
            ("knn", "1-NN", "the nearest training image"),
            ("linear", "linear", "a linear classifier"),
        )
    ),
    Column("knn1_normalised", "1-NN, unit length", definition="Accuracy on the test images of the nearest training image, by "
        "features of unit length."),
)  # fmt: skip


def n_neighbours(evaluation: Row) -> int:
    """How many training images vote in `knn`; papers print 1."""
    return int(evaluation.get("settings", {}).get("k", 1))


def score_table(evaluation: Row, *, words: Callable[[str], str] = str) -> Table:
    """MAC share, 1-NN and linear accuracy with intervals, difference from the first row; `words` writes the rows' names."""
    k = n_neighbours(evaluation)
    columns = [
        Column("name", "network", words=words, note="description", lead=True),
        *(replace(column, label=f"{k}-NN") if column.key == "knn" else column for column in SCORES),
    ]
    rows = []
    for row in evaluation["rows"]:
        found = row.get("linear_difference")
        minus = (found["difference"], (found["low"], found["high"])) if found else (None, None)
        rows.append({**row, "linear_minus_first": minus[0], "linear_minus_first_interval": minus[1]})
    return Table(columns, rows, ours=(0,))


def as_text(evaluation: dict[str, Any]) -> str:
    """The rows as a table for a terminal, what the channels do, chance."""
    lines = [score_table(evaluation).text(), ""]
    channels = evaluation["channels"]
    if channels:
        shares = ", ".join(f"{100 * channels[kind]:.0f} % {text}" for kind, text in KINDS.items())
        lines.append(f"channels: {shares}")
    if evaluation.get("choices"):
        lines.append(in_words(evaluation["choices"]))
    lines.append(f"{evaluation['n_test']} test images, chance {100 * evaluation['chance']:.1f} %")
    return "\n".join(lines)


KINDS = {"always_on": "always open", "always_off": "always shut", "dependent": "decided by image"}
