"""Which split of a data set is used: its owners', one without leaks, or another that it names.

    pulvinar data inspect "god:DIR?split=leakage_free"       # any data set, experiment folder or description
    pulvinar fit troi --data "nsd:DIR?split=leakage_free&n_clusters=40" ...

`leakage_free` takes images off a split that is there, and moves none to the other side:

1. Training images that are near a test image (cosine of `near` and more) are one group with it.
2. Groups are put into `n_clusters` clusters by k-means (scikit-learn) on the mean direction of each group.
3. Clusters are dealt out whole: a cluster of the test loses its training images, one of the training its test images. Taken
   for the test are those that hold most test images for the training images lost, as long as no more than `give_up` of the
   training images are lost in all.

Where the owners published no split and the data set draws one at random, no image has a side of its own: all images are put
into clusters, and whole clusters are drawn for the test. Nothing here looks at responses.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.config import build, parse_assignments, setting
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.experiment import Experiment
from pulvinar.data.nearness import COSINES_AT_ONCE, NEAR_FACT, NearOptions, compared_by, directions, kept
from pulvinar.data.responses import Responses
from pulvinar.data.splits import Split, check_split, split_by_source
from pulvinar.data.stimuli import Stimuli

OWNERS, LEAKAGE_FREE, RANDOM = "owners", "leakage_free", "random"
SPLIT_FACT, CAUTION_FACT = "split", "split_caution"
MOST_PAIRS = 2 * 10**7  # near pairs that are kept; more mean that nearly all images are near
LEAST_TEST_IMAGES = 2
FEWEST_A_CLUSTER = 4  # groups, on average


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits that a data set has.

    owners: what theirs is; empty: they published none, and a random one is the default. named: name -> what it is, of those
    that the reader takes as split=NAME. others: what else it takes as a name, such as a file. caution: what a score under the
    owners' split has to be read with.
    """

    owners: str = ""
    named: Mapping[str, str] | None = None
    others: str = ""
    caution: str = ""

    @property
    def known(self) -> dict[str, str]:
        """Name -> what it is, of every split."""
        usual = {OWNERS: self.owners} if self.owners else {RANDOM: "a share of the pictures, drawn at random"}
        return {**usual, LEAKAGE_FREE: "nothing near, no cluster on both sides", **(self.named or {})}


@dataclass(frozen=True, kw_only=True)
class SplitOptions(NearOptions):
    """Which split, and what counts as near; given after the folder as ?name=value&name=value, with any data set."""

    split: str = setting("", "owners (or random, where they published none), leakage_free, or one that the data set names")
    n_clusters: int = setting(40, "of leakage_free: clusters of images, fewer where images are few", at_least=2)
    give_up: float = setting(0.2, "of leakage_free: largest share of the training images that is lost", above=0, below=1)


OWN_FOLDER = Splits(owners="that of the folder, or of its description")
KEYS = tuple(field.name for field in fields(SplitOptions))


def split_off(place: str, splits: Splits, *, name: str) -> tuple[str, SplitOptions]:
    """What follows `?` without these options, and these; a name that the data set's reader takes is left to it.

    Raises `ConfigError` for options that do not fit, `InputError` for a split that there is not, which lists those there are.
    """
    folder, question, query = (place, "", "") if Path(place).exists() else place.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    own = [pair for pair in pairs if pair.partition("=")[0].strip() in KEYS]
    values = parse_assignments(own, refuse_repeated=True)
    options = build(SplitOptions, values, name=name, given=values)
    rest = [pair for pair in pairs if pair not in own]
    if "split" in values:
        left = _require_known(options.split, splits, name)
        rest += [f"split={options.split}"] if left else []
    if not rest:
        return folder, options
    return f"{folder}{question}{'&'.join(rest)}", options


def _require_known(split: str, splits: Splits, name: str) -> bool:
    """Whether the reader of the data set takes this name."""
    known = splits.known
    if split in (splits.named or {}) or (splits.others and split not in (OWNERS, RANDOM, LEAKAGE_FREE)):
        return True
    if split not in known:
        why = "; its owners published no split" if split == OWNERS else ""
        there = "; ".join(f"{one} ({what})" for one, what in known.items())
        raise InputError(f"split: {name} has no '{split}'{why}. There are {there}{splits.others and f'; or {splits.others}'}")
    return False


def choose(experiment: Experiment, options: SplitOptions, splits: Splits) -> Experiment:
    """The experiment with the split that is asked for, and what a result has to say of it among its facts."""
    facts: dict[str, Any] = {NEAR_FACT: kept(options)}
    usual = options.split in ("", OWNERS, RANDOM)
    if options.split == LEAKAGE_FREE:
        split, said, shared = without_leaks(experiment, options, draw=not splits.owners)
        facts[NEAR_FACT]["clusters"] = shared
        out_of = f"; out of {experiment.facts[SPLIT_FACT]}" if experiment.facts.get(SPLIT_FACT) else ""
        return _with_split(experiment, split).with_facts({**facts, SPLIT_FACT: said + out_of})
    if usual:
        facts[SPLIT_FACT] = experiment.facts.get(SPLIT_FACT) or (f"{OWNERS}: {splits.owners}" if splits.owners else RANDOM)
    if usual and splits.caution and SPLIT_FACT not in experiment.facts and not experiment.simulated:
        facts[CAUTION_FACT] = splits.caution
    return experiment.with_facts(facts)


def _with_split(experiment: Experiment, split: Split) -> Experiment:
    """A copy of what was checked; what changed sides is checked again."""
    given = copy.copy(experiment)
    if not (set(split.train) <= set(experiment.split.train) and set(split.test) <= set(experiment.split.test)):
        check_split(split, experiment.stimuli)
    object.__setattr__(given, "split", split)
    if not any(own.trials_of(split.test).size for own in [experiment.subjects[experiment.target]]):
        raise InputError(f"split=leakage_free: {experiment.target} saw none of its {len(split.test)} test images")
    return given


def without_leaks(experiment: Experiment, options: SplitOptions, *, draw: bool = False) -> tuple[Split, str, dict[str, int]]:
    """A split in which no test image is near a training image and no cluster is on both sides; what it is, in words; and how
    many of its test images are in clusters with training images (none).

    draw: no image has a side of its own (module). Raises `InputError` or `NotFoundError` where there is nothing to compare by,
    nearly all images are near, or no cluster fits.
    """
    stimuli, split = experiment.stimuli, experiment.split
    by = compared_by(stimuli, options)
    if not by:
        raise NotFoundError(
            "split=leakage_free: the stimuli have no embedding to find near images and clusters by; make one with `pulvinar "
            "data embed` and put it into features/, name one with near_by=NAME, or compare small pictures with near_by=pixels"
        )
    ids = [*split.train, *split.test]
    is_test = np.arange(len(ids)) >= len(split.train)
    vectors = [directions(stimuli, ids, name) for name in by]
    sides = (np.arange(len(ids)), np.arange(len(ids))) if draw else (np.flatnonzero(is_test), np.flatnonzero(~is_test))
    group = _groups(stimuli, ids, near_pairs(vectors, *sides, options.near), together=draw)
    cluster = clusters_of(vectors[0], group, options.n_clusters)
    if draw:
        named = Stimuli(ids=ids, sources=[str(number) for number in cluster])
        found = split_by_source(named, test_share=float(is_test.mean()), seed=0)
    else:
        for_test = _deal(cluster, is_test, options.give_up)
        keep = np.isin(cluster, for_test) == is_test
        found = Split(
            train=tuple(name for name, used, test in zip(ids, keep, is_test, strict=True) if used and not test),
            test=tuple(name for name, used, test in zip(ids, keep, is_test, strict=True) if used and test),
        )
    said = (
        f"{LEAKAGE_FREE}: {len(found.train)} of {len(split.train)} training and {len(found.test)} of {len(split.test)} test "
        f"images; by {', '.join(by)}, no cosine of {options.near:g} or more and none of {len(np.unique(cluster))} clusters on "
        "both sides"
    )
    if draw:
        said = said.replace(f" of {len(split.train)}", "").replace(f" of {len(split.test)}", "")
    of_image = dict(zip(ids, cluster.tolist(), strict=True))
    return found, said, _shared([of_image[name] for name in found.train], [of_image[name] for name in found.test])


def near_pairs(vectors: Sequence[np.ndarray], rows: np.ndarray, others: np.ndarray, near: float) -> np.ndarray:
    """(pair, 2): a row and another whose cosine is `near` or more by any of the (image, dim) unit vectors."""
    found = []
    for start in range(0, len(rows), max(1, COSINES_AT_ONCE // max(1, len(others)))):
        block = rows[start : start + max(1, COSINES_AT_ONCE // max(1, len(others)))]
        close = np.any([own[block] @ own[others].T >= near for own in vectors], axis=0)
        one, other = np.nonzero(close)
        pairs = np.stack([block[one], others[other]], axis=1)
        found.append(pairs[pairs[:, 0] != pairs[:, 1]])
        if sum(map(len, found)) > MOST_PAIRS:
            raise InputError(f"near={near:g}: more than {MOST_PAIRS:,} pairs of images are near; a larger cosine tells apart")
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _groups(stimuli: Stimuli, ids: Sequence[str], pairs: np.ndarray, *, together: bool) -> np.ndarray:
    """(image,): number of its group, images that are joined by near pairs; together: and those of one source or pixels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if together:
        rows = stimuli.rows(ids)
        for keys in (stimuli.sources, stimuli.pixel_keys):
            if keys is not None:
                first: dict[str, int] = {}
                same = [(first.setdefault(keys[row], place), place) for place, row in enumerate(rows)]
                pairs = np.concatenate([pairs, np.array(same, np.int64)])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    n_groups, group = connected_components(graph, directed=False)
    largest = int(np.bincount(group).max())
    if n_groups < LEAST_TEST_IMAGES or largest > len(ids) / 2:
        raise InputError(
            f"split=leakage_free: near images join {largest} of {len(ids)} images into one group; a larger cosine than near "
            "tells them apart, or another embedding (near_by)"
        )
    return np.asarray(group)


def clusters_of(vectors: np.ndarray, group: np.ndarray, n_clusters: int) -> np.ndarray:
    """(image,): number of its cluster, by k-means on the mean direction of each group, weighted with its size; seed 0.

    Clusters are fewer where there are fewer than four groups to each.
    """
    from sklearn.cluster import KMeans

    size = np.bincount(group)
    means = np.zeros((len(size), vectors.shape[1]), np.float32)
    np.add.at(means, group, vectors)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    count = max(2, min(n_clusters, len(size) // FEWEST_A_CLUSTER))
    found = KMeans(n_clusters=count, n_init=3, random_state=0).fit(means, sample_weight=size)
    return np.asarray(found.labels_)[group]


def _deal(cluster: np.ndarray, is_test: np.ndarray, give_up: float) -> np.ndarray:
    """Numbers of the clusters that go to the test: most test images for the training images lost, up to a share of these."""
    n_test, n_train = (np.bincount(cluster[side], minlength=cluster.max() + 1) for side in (is_test, ~is_test))
    cost = n_train / np.maximum(n_test, 1e-9)
    chosen, lost, room = [], 0, give_up * n_train.sum()
    for number in np.argsort(cost, kind="stable"):
        if n_test[number] and lost + n_train[number] <= room:
            chosen.append(number)
            lost += int(n_train[number])
    kept_tests = int(n_test[chosen].sum())
    if kept_tests < LEAST_TEST_IMAGES or lost == n_train.sum():
        cheapest = int(np.argmin(np.where(n_test > 0, cost, np.inf)))
        raise InputError(
            f"split=leakage_free: {kept_tests} test images are in clusters that cost up to {give_up:.0%} of the training "
            f"images; the cheapest cluster holds {n_test[cheapest]} test images and {n_train[cheapest] / n_train.sum():.0%} of "
            "the training images. More clusters (n_clusters) are smaller; give_up is the share"
        )
    return np.array(chosen)


def shared_clusters(
    experiment: Experiment, options: NearOptions, *, n_clusters: int = SplitOptions.n_clusters
) -> dict[str, int] | None:
    """How many test images are in a cluster with training images, and how many clusters there are; None without embedding.

    Of `leakage_free` by the clusters that the split was made of.
    """
    if stated := (experiment.facts.get(NEAR_FACT) or {}).get("clusters"):
        return dict(stated)
    by = compared_by(experiment.stimuli, options)
    if not by:
        return None
    train, test = experiment.split.train, experiment.split.test
    vectors = directions(experiment.stimuli, [*train, *test], by[0])
    cluster = clusters_of(vectors, np.arange(len(vectors)), n_clusters)
    return _shared(cluster[: len(train)], cluster[len(train) :])


def _shared(train: Sequence[int] | np.ndarray, test: Sequence[int] | np.ndarray) -> dict[str, int]:
    shared = int(np.isin(test, train).sum())
    return {"n_clusters": len(np.union1d(train, test)), "n_test_images_in_clusters_with_training": shared}


def trials_per_side(responses: Responses, split: Split) -> dict[str, int]:
    """Trials of training and of test stimuli of a subject."""
    return {side: len(responses.trials_of(ids)) for side, ids in (("train", split.train), ("test", split.test))}
