"""Experiments from xarray objects. Oracle: the formula of `planted_study`; dims and coordinates are Brain-Score's."""

import numpy as np
import pytest

import planted_study as study
import pulvinar
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.datasets.arrays import from_xarray

xr = pytest.importorskip("xarray")
N_VOXELS = 25
REGIONS = np.where(np.arange(N_VOXELS) % 2, "V1", "IT")


def assembly(**changes):
    coords = {
        "stimulus_id": ("presentation", study.order()),
        "session": ("presentation", 1 + np.arange(study.N_TRIALS) // 12),
        "repetition": ("presentation", np.arange(study.N_TRIALS) // 12),
        "neuroid_id": ("neuroid", [f"n{number}" for number in range(N_VOXELS)]),
        "region": ("neuroid", REGIONS),
        **{axis: ("neuroid", np.arange(N_VOXELS) * (2.0 + place)) for place, axis in enumerate("xyz")},
    }
    kept = {name: value for name, value in (coords | changes).items() if value is not None}
    return xr.DataArray(study.values(N_VOXELS), coords=kept, dims=("presentation", "neuroid"))


EVERY = np.arange(N_VOXELS)


def probe(experiment, voxels=EVERY, name="subject"):
    inside = {region: REGIONS[voxels] == region for region in ("V1", "IT")}
    study.probe(experiment.subjects[name], voxels, inside)


@pytest.mark.parametrize("turn", ["as it is", "transposed", "time_bin", "multi-index"])
def test_an_assembly_of_brain_score(turn):
    data = assembly()
    if turn == "transposed":
        data = data.T
    if turn == "time_bin":
        data = data.expand_dims("time_bin", 1)
    if turn == "multi-index":
        data = data.set_index(
            presentation=["stimulus_id", "session", "repetition"], neuroid=["neuroid_id", "region", "x", "y", "z"]
        )
    found = pulvinar.open_data(data)
    probe(found)
    np.testing.assert_allclose(found.subjects["subject"].geometry.coordinates[7], [14, 21, 28])


def test_subjects_are_told_apart_by_voxels_or_by_trials():
    who = np.where(np.arange(N_VOXELS) < 10, "monkey A", "monkey B")
    found = pulvinar.open_data(assembly(subject=("neuroid", who)), target="monkey A")
    assert found.target == "monkey A"
    probe(found, np.arange(10), "monkey A")
    probe(found, np.arange(10, N_VOXELS), "monkey B")
    mixed = xr.concat([assembly(), assembly() * 0 + np.random.default_rng(0).normal(size=(24, 25))], dim="presentation")
    mixed = mixed.assign_coords(subject=("presentation", np.repeat(["S1", "S2"], 24)))
    shuffled = mixed.isel(presentation=np.argsort(np.r_[np.arange(24), np.arange(24) + 0.5]))
    probe(pulvinar.open_data(shuffled), name="S1")


def test_a_dataset_with_features():
    ids = list(reversed(study.IDS))
    clip = np.random.default_rng(0).normal(size=(12, 5))
    data = xr.Dataset({"betas": assembly(), "clip": (("stimulus", "dim"), clip)}, coords={"stimulus": ids})
    found = pulvinar.open_data(data)
    probe(found)
    row = list(found.stimuli.ids).index("img03")
    np.testing.assert_allclose(found.stimuli.features["clip"][row], clip[ids.index("img03")], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.rename(presentation="time"), "one dim of trials"),
        (lambda data: data.drop_vars("stimulus_id"), "what was shown"),
        (lambda data: data.drop_vars("x"), "where are the voxels"),
        (lambda data: xr.concat([data, data], dim="time_bin"), r"time_bin \(2\) came too"),
        (lambda data: data.astype(str), "numbers are needed"),
        (lambda data: data.assign_coords(subject=("presentation", ["S1", *[np.nan] * 23])), "empty in places|list of names"),
        (lambda data: data.where(data.neuroid_id != "n3"), "1 voxels are constant, NaN"),
        (lambda data: xr.Dataset({"one": data, "two": data}), "one variable of trials and voxels is needed, one, two came"),
    ],
)
def test_mistakes(change, match):
    with pytest.raises((InputError, NotFoundError), match=match):
        pulvinar.open_data(change(assembly()))


def test_a_geometry_beside_it():
    data = assembly(x=None, y=None, z=None, region=None)
    places = np.random.default_rng(0).normal(size=(N_VOXELS, 3))
    found = from_xarray(data, geometry=places, drop_bad_voxels=True)
    np.testing.assert_allclose(found.subjects["subject"].geometry.coordinates, places)
    with pytest.raises(InputError, match="images are needed, as"):
        pulvinar.open_data(data, kind="images")
