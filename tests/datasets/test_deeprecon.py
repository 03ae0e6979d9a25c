"""Deeprecon's second form and its artificial pictures. Oracles: the files in plain h5py, the planted names.

What both forms share is probed in test_probes.py and damaged in test_contract.py.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.app.data import open_data
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, InputError, NotFoundError
from pulvinar.data.bdata_files import BData, open_bdata

SMALL = ("n_voxels=200", "n_train=40", "n_test=10", "n_test_repeats=2", "n_artificial=4", "image_size=16", "form=fmriprep")
TRAINING = "sub-01_ImageNetTraining_fmriprep_volume_native.h5"
OOD = "split=ood&artificial={subject}_planted_artificial.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("deeprecon") / "set"
    pairs = [part for pair in SMALL for part in ("--set", pair)]
    assert main(["data", "simulate", "--layout", "deeprecon", "--out", str(place), *pairs, "--quiet"]) == 0
    return place


def names_of(path: Path) -> list[str]:
    with h5py.File(path) as file:
        keys = [key.decode() for key in file["metadata/key"][:]]
        row = file["metadata/value"][keys.index("stimulus_name")]
        return [file["vmap/stimulus_name"][str(number)][()].decode() for number in file["dataset"][:, list(row).index(1)]]


def test_names_are_those_of_each_files_own_numbers(folder):
    experiment = open_data("experiment", f"deeprecon:{folder}?subjects=1")
    own = experiment.subjects["sub-01"]
    files = [folder / TRAINING, folder / TRAINING.replace("Training", "Test")]
    shown = [one for path in files for one in names_of(path)]
    kept = [one for row, one in enumerate(shown) if row == 0 or one != shown[row - 1]]
    assert list(own.stimulus_ids) == kept
    assert len(shown) > len(kept)  # one-backs
    first, second = (open_bdata(path).vmap["stimulus_name"] for path in files)
    assert set(first) & set(second)
    assert set(first.values()).isdisjoint(second.values())


def test_a_region_of_the_other_form_is_refused(folder):
    assert "hV4" not in open_data("experiment", f"deeprecon:{folder}?voxels=LVC").subjects["sub-01"].rois  # none planted
    with pytest.raises(NotFoundError, match="no ROI_V4; did you mean 'hV4'"):
        open_data("experiment", f"deeprecon:{folder}?voxels=V4")
    with pytest.raises(InputError, match="ROI_hV4 is 1 in no column"):
        open_data("experiment", f"deeprecon:{folder}?voxels=hV4")


def test_out_of_distribution_is_the_file_that_is_named(folder):
    experiment = open_data("experiment", f"deeprecon:{folder}?{OOD}")
    assert len(experiment.split.test) == 4
    assert all(name.startswith("colorExpStim") for name in experiment.split.test)
    assert experiment.stimuli.image(experiment.stimuli.row_of[experiment.split.test[0]]).shape == (16, 16, 3)
    with pytest.raises(ConfigError, match="artificial names the file of split=ood"):
        open_data("experiment", f"deeprecon:{folder}?split=ood")


def test_numbers_that_the_file_does_not_explain_are_refused(folder):
    opened = open_bdata(folder / TRAINING)
    without = BData(**{**vars(opened), "vmap": {}})
    with pytest.raises(NotFoundError, match="no vmap/stimulus_name"):
        without.names("stimulus_name")
    known = dict(list(opened.vmap["stimulus_name"].items())[1:])
    with pytest.raises(InputError, match="is not among the 39 numbers"):
        BData(**{**vars(opened), "vmap": {"stimulus_name": known}}).names("stimulus_name")


def test_values_are_those_of_the_file(folder):
    own = open_data("experiment", f"deeprecon:{folder}?subjects=2").subjects["sub-02"]
    with h5py.File(folder / TRAINING.replace("01", "02", 1)) as file:
        table = file["dataset"][:]
    np.testing.assert_allclose(own.read(np.arange(5)), table[:5, 3:], rtol=1e-6)
