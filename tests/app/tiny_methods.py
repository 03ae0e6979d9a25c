"""Tiny data of each kind, and how any method is fitted to them; for tests and benchmarks that walk all methods."""

import dataclasses

import numpy as np

from pulvinar.app import registry
from pulvinar.core.config import build, to_toml
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_set import ImageSet
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.runs import RunFolder

FITTED = ("cross_fitted", "random")  # of the selectors, which are fitted alike
METHODS = registry.names("methods") | {name: line for name, line in registry.names("selectors").items() if name in FITTED}
QUICK = {  # settings that make a fit on the tiny data short; each method takes those it has
    "experiment": {
        "epochs": 3,
        "hidden": 16,
        "n_voxels": 12,
        "n_rounds": 2,
        "epochs_per_round": 2,
        "n_folds": 2,
        "picture_size": 16,
        "low_level_epochs": 2,
        "prior_epochs": 2,
        "voxels_per_block": 20,
    },
    "images": {"epochs": 2, "batch_size": 16, "width": 0.125, "projector_width": 32, "warmup_epochs": 1},
    "dissimilarities": {"epochs": 2, "roi": "evc", "network": "squeezenet1_0", "image_size": 64, "n_repeats": 1, "n_folds": 3},
}


def tiny_experiment() -> Experiment:
    """Two subjects to learn from and a new one: 60 voxels, the first 12 linear in the embedding."""
    generator = np.random.default_rng(0)
    ids = [f"image-{number}" for number in range(90)]
    embedding = generator.normal(size=(90, 8)).astype(np.float32)
    subjects = {}
    for name in ("one", "two", "new"):
        values = generator.normal(size=(90, 60)).astype(np.float32)
        values[:, :12] += embedding @ generator.normal(size=(8, 12)).astype(np.float32)
        subjects[name] = Responses(
            subject=name,
            values=values,
            stimulus_ids=ids,
            geometry=Geometry.from_points(np.argwhere(np.ones((5, 4, 3))).astype(float)),
            rois=ROIs({"annotated": np.arange(60) < 20}, n_voxels=60),
        )
    pixels = generator.integers(0, 255, (90, 24, 24, 3)).astype(np.uint8)
    stimuli = Stimuli(ids=ids, sources=ids, features={"clip": embedding}, read_image=pixels.__getitem__)
    split = Split(train=tuple(ids[:60]), test=tuple(ids[60:]))
    return Experiment(name="tiny", stimuli=stimuli, subjects=subjects, split=split, target="new")


def tiny_images() -> ImageSet:
    """40 training and 20 test images of 16 pixels: a bright corner says the class."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (60, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(60) % 2
    images[labels == 1, :8, :8] += 120
    return ImageSet(
        name="tiny",
        train=images[:40],
        test=images[40:],
        train_labels=labels[:40],
        test_labels=labels[40:],
        class_names=("plain", "corner"),
    )


def tiny_dissimilarities() -> Dissimilarities:
    """RDMs of four subjects over 18 images: the distance of their mean colours, with noise of each subject."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (18, 1, 1, 3)) + generator.integers(-20, 20, (18, 64, 64, 3))
    images = pixels.clip(0, 255).astype(np.uint8)
    colours = images.mean((1, 2)) / 255
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    noise = 0.1 * generator.random((4, 18, 18))
    rdms = distance + (noise + noise.transpose(0, 2, 1)) * (1 - np.eye(18))
    ids = [f"image-{number:02d}" for number in range(18)]
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: images[row])
    return Dissimilarities(name="tiny", stimuli=stimuli, targets={"evc": SubjectRDMs(name="evc", rdms=rdms)})


TINY = {"experiment": tiny_experiment, "images": tiny_images, "dissimilarities": tiny_dissimilarities}


def begin(path, method, data, settings=None) -> tuple[object, RunFolder]:
    """Config and new run folder of a short fit; settings: those of them that the method has."""
    known = {field.name for field in dataclasses.fields(method.config)}
    quick = {key: value for key, value in (QUICK[method.data] | (settings or {})).items() if key in known}
    config = build(method.config, quick, name=method.name)
    target = data.target if isinstance(data, Experiment) else None
    facts = {"name": data.name, "path": "", "target": target, "fingerprint": data.fingerprint()}
    return config, RunFolder.create(
        path,
        method=method.name,
        config_toml=to_toml(config),
        seed=0,
        data=facts,
        published=method.published,
        topic=method.topic,
    )


def pretrained_run(method, data, path, settings=None) -> RunFolder | None:
    """What the method reads beside the data."""
    if method.pretrained is None:
        return None
    pretrained = registry.method(method.pretrained)
    inner = pretrained_run(pretrained, data, path.with_name(f"{path.name}-of"), settings)
    config, run = begin(path, pretrained, data, settings)
    pretrained.train(config, data, run, inner)
    return RunFolder.reopen(path)
