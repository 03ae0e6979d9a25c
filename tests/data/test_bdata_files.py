"""BData files: the same table from HDF5 and from MATLAB. Oracle: the arrays that were written, by h5py and by scipy."""

import h5py
import numpy as np
import pytest
import scipy.io

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.bdata_files import open_bdata

TABLE = np.random.default_rng(0).normal(size=(6, 4))
ROWS = {
    "VoxelData": [1, np.nan, 1, np.nan],
    "ROI_V1": [0, np.nan, 1, np.nan],
    "Run": [np.nan, 1, np.nan, np.nan],
    "stimulus_id": [np.nan, np.nan, np.nan, 1],
}


def write_hdf5(path, rows=ROWS):
    with h5py.File(path, "w") as file:
        file["dataset"] = TABLE
        file["metadata/key"] = np.array(list(rows), "S")
        file["metadata/value"] = np.array(list(rows.values()), float)
    return path


def write_matlab(path, rows=ROWS):
    keys = np.empty((1, len(rows)), object)
    keys[0] = list(rows)
    scipy.io.savemat(path, {"dataSet": TABLE, "metaData": {"key": keys, "value": np.array(list(rows.values()), float)}})
    return path


@pytest.mark.parametrize(("write", "name"), [(write_hdf5, "s.h5"), (write_matlab, "s.mat")])
def test_columns_labels_and_values_are_those_that_were_written(write, name, tmp_path):
    data = open_bdata(write(tmp_path / name))
    assert (data.n_samples, data.n_columns) == TABLE.shape
    assert data.columns("VoxelData").tolist() == [0, 2]
    assert data.columns("ROI_V1").tolist() == [2]  # NaN and 0 are not 1
    np.testing.assert_array_equal(data.label("stimulus_id", "Label"), TABLE[:, 3])
    np.testing.assert_array_equal(data.read(np.array([1, 4]), np.array([0, 2])), TABLE[np.ix_([1, 4], [0, 2])])
    with pytest.raises(NotFoundError, match=r"ROI_V2.*ROI_V1"):
        data.columns("ROI_V2")


@pytest.mark.parametrize(("write", "name"), [(write_hdf5, "s.h5"), (write_matlab, "s.mat")])
def test_a_label_of_two_columns_and_metadata_of_other_columns_are_refused(write, name, tmp_path):
    with pytest.raises(InputError, match=r"one column; 2 came"):
        open_bdata(write(tmp_path / name, {**ROWS, "Run": [np.nan, 1, 1, np.nan]})).label("Run")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"4 columns"):
        open_bdata(write(tmp_path / "other" / name, {key: row[:3] for key, row in ROWS.items()}))
