"""What inspect says. Oracle: counts made by hand from a small experiment."""

import json

import numpy as np

from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.inspect import inspect
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli


def experiment(**more) -> Experiment:
    mask = np.zeros((2, 2, 2), bool)
    mask[0, :, 0] = mask[1, 1, 1] = True
    volume = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    volume[:, 1] = 4.0
    subjects = {
        "one": Responses(
            subject="one",
            values=volume,
            stimulus_ids=list("aabbbcd"),
            sessions=np.array([0, 0, 0, 1, 1, 1, 1]),
            runs=np.array([0, 1, 1, 0, 0, 0, 2]),
            geometry=Geometry.from_mask(mask, np.diag([2.0, 3.0, 4.0, 1.0])),
            rois=ROIs({"V1": np.array([1, 1, 0])}, n_voxels=3),
            noise_ceiling=np.array([0.1, 0.3, 0.9], np.float32),
        ),
        "two": Responses(
            subject="two",
            values=volume[:4, :1],
            stimulus_ids=list("abcd"),
            geometry=Geometry.from_points(np.zeros((1, 3))),
        ),
    }
    stimuli = Stimuli(
        ids=list("abcd"), sources=list("ppqr"), labels=list("xxyy"), features={"clip": np.arange(24.0).reshape(4, 3, 2)}
    )
    split = Split(train=("a", "b"), test=("c",))
    return Experiment(name="n", stimuli=stimuli, subjects=subjects, split=split, target="two", facts={"licence": "CC0"}, **more)


def test_every_number():
    summary = inspect(experiment())
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    one = summary["subjects"].pop("one")
    ceiling = one.pop("noise_ceiling_median")
    np.testing.assert_allclose(ceiling, 0.3, rtol=1e-6)
    assert one == {
        "trials": 7,
        "voxels": 3,
        "sessions": 2,
        "runs": 4,  # (0, 0), (0, 1), (1, 0), (1, 2)
        "stimuli": 4,
        "repeats": {"1": 2, "2": 1, "3": 1},
        "rois": {"V1": 2},
        "geometry": "volume",
        "grid": [2, 2, 2],
        "spacing_mm": 3.0,
        "bad_voxels": 1,
    }
    two = summary["subjects"].pop("two")
    assert (two["geometry"], two["grid"], two["noise_ceiling_median"], two["rois"]) == ("points", None, None, {})
    nearest = summary["split"].pop("nearest")
    assert (nearest["n_test_images"], nearest["by"], nearest["near_from_cosine"]) == (1, ["clip"], 0.82)
    assert summary == {
        "name": "n",
        "target": "two",
        "subjects": {},
        "stimuli": {"count": 4, "sources": 3, "labels": 2, "features": {"clip": [4, 3, 2]}, "images": False, "image_notes": []},
        "split": {
            "name": None,
            "train": 2,
            "test": 1,
            "trials": {"one": {"train": 5, "test": 1}, "two": {"train": 2, "test": 1}},
        },
        "facts": {"licence": "CC0"},
        "truth": False,
    }


def test_truth_is_mentioned_not_shown():
    summary = inspect(experiment(truth={"two": {"responsive": np.array([True])}}))
    assert summary["truth"] is True
