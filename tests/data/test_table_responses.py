"""Responses in tables. Oracle: the formula of `planted_study`; files written with pandas, pyarrow, and as pandas writes HDF."""

import importlib.util

import h5py
import numpy as np
import pandas as pd
import pytest

import planted_study as study
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.datasets.arrays import read_description

N_VOXELS = 21
NAMES = [f"v{number}" for number in range(N_VOXELS)]
has_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow (extra tables) is not installed")


def frame(**more) -> pd.DataFrame:
    about = {"stimulus": study.order(), "session": [1 + trial // 12 for trial in range(study.N_TRIALS)]}
    return pd.DataFrame({**about, **more, **dict(zip(NAMES, study.values(N_VOXELS).T, strict=True))})


def write(path, table: pd.DataFrame):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".h5":
        fixed(path, table)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")


def fixed(path, table: pd.DataFrame, *, pickled=("stimulus",), transposed=True):
    """As pandas' fixed format lies in HDF5 (PyTables 3.10, pandas 2 and 3): text columns are pickled into variable length."""
    with h5py.File(path, "w") as file:
        group = file.create_group("data")
        group.attrs["pandas_type"], group.attrs["nblocks"] = np.bytes_("frame"), 2
        group["axis0"] = np.array(list(table.columns), "S")
        group["axis1"] = np.arange(len(table))
        numbers = [name for name in table.columns if name not in pickled]
        values = table[numbers].to_numpy(np.float64)
        group["block0_items"] = np.array(numbers, "S")
        group["block0_values"] = values if transposed else values.T
        group["block0_values"].attrs["transposed"] = transposed
        group["block1_items"] = np.array([name for name in table.columns if name in pickled], "S")
        odd = group.create_dataset("block1_values", (1,), dtype=h5py.vlen_dtype(np.uint8))
        odd[0] = np.frombuffer(b"\x80\x04]\x94.", np.uint8)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "xyz.npy", np.random.default_rng(0).normal(size=(N_VOXELS, 3)) * 20)
    return tmp_path


def opened(folder, lines, **options):
    place = study.write(folder, lines + '\ncoordinates = "xyz.npy"', **options)
    return read_description(place).subjects["sub-01"]


def refused(folder, lines, match, error=(InputError, ConfigError, NotFoundError, FileError), **options):
    with pytest.raises(error, match=match):
        opened(folder, lines, **({"trials": False} | options))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", pytest.param(".parquet", marks=has_pyarrow)])
def test_a_table_says_its_trials_itself(folder, suffix):
    write(folder / f"b{suffix}", frame())
    study.probe(opened(folder, f'responses = "b{suffix}"', trials=False), np.arange(N_VOXELS))
    study.probe(opened(folder, f'responses = "b{suffix}"'), np.arange(N_VOXELS))  # with a table of trials that agrees


@pytest.mark.parametrize("transposed", [True, False])
def test_pandas_hdf_is_read_without_pandas(folder, transposed):
    fixed(folder / "b.h5", frame(), transposed=transposed)
    study.probe(opened(folder, 'responses = "b.h5"\nvoxel_columns = "v"'), np.arange(N_VOXELS))
    refused(folder, 'responses = "b.h5"\nvoxel_columns = "v"', "column 'stimulus' is pickled in pandas' fixed format")
    table = frame().set_index("stimulus")  # names of rows are kept as text
    fixed(folder / "b.h5", table, pickled=())
    with h5py.File(folder / "b.h5", "a") as file:
        file["data"].attrs["nblocks"] = 1
        del file["data/axis1"]
        file["data/axis1"] = np.array(list(table.index), "S")
        file["data/axis1"].attrs["name"] = np.bytes_("stimulus")
    study.probe(opened(folder, 'responses = "b.h5"', trials=False), np.arange(N_VOXELS))


def test_pandas_hdf_in_the_table_format(folder):
    table = frame()
    kinds = [("index", "<i8"), ("stimulus", "S5"), ("session", "<i8"), *((name, "<f4") for name in NAMES)]
    rows = np.zeros(len(table), kinds)
    for name in table.columns:
        rows[name] = table[name]
    with h5py.File(folder / "b.h5", "w") as file:
        group = file.create_group("data")
        group.attrs["pandas_type"] = np.bytes_("frame_table")
        group["table"] = rows
    study.probe(opened(folder, 'responses = "b.h5"', trials=False), np.arange(N_VOXELS))
    with h5py.File(folder / "b.h5", "w") as file:
        group = file.create_group("data")
        group.attrs["pandas_type"] = np.bytes_("frame_table")
        group["table"] = np.zeros(24, [("index", "<i8"), ("values_block_0", "<f4", (21,))])
    refused(folder, 'responses = "b.h5"', "data_columns=True")


def test_runs_are_joined_by_the_names_of_their_columns(folder):
    whole = frame()
    write(folder / "one.csv", whole.iloc[:10])
    write(folder / "two.csv", whole.iloc[10:])
    lines = 'responses = ["one.csv", "two.csv"]\nvoxel_columns = "v"'
    study.probe(opened(folder, lines, trials=False), np.arange(N_VOXELS))
    named = dict(zip(NAMES, ["a", "q", "c", *[f"n{chr(97 + row)}" for row in range(18)]], strict=True))
    write(folder / "one.csv", whole.iloc[:10].rename(columns=named))
    write(folder / "two.csv", whole.iloc[10:].rename(columns=named)[[*whole.columns[:2], *reversed(named.values())]])
    study.probe(opened(folder, 'responses = ["one.csv", "two.csv"]', trials=False), np.arange(N_VOXELS))
    write(folder / "two.csv", whole.iloc[10:].rename(columns={"v3": "v99"}))
    refused(folder, 'responses = ["one.csv", "two.csv"]', "differ in their columns")


def test_rows_of_other_subjects_are_left_out(folder):
    whole = frame(subject="S1")
    other = whole.assign(subject="S2", **dict.fromkeys(NAMES, 7.0))
    mixed = pd.concat([whole, other]).iloc[np.argsort(np.r_[np.arange(24), np.arange(24) + 0.5])]
    write(folder / "b.csv", mixed)
    study.probe(opened(folder, 'responses = "b.csv"\ntable_subject = "S1"', trials=False), np.arange(N_VOXELS))
    refused(folder, 'responses = "b.csv"', "no row of 'sub-01'.*table_subject")


def test_subjects_named_in_another_column_are_not_taken_together(folder):
    """Without this both subjects' rows would be this one's trials."""
    whole = frame(participant="sub-01")
    write(folder / "b.csv", pd.concat([whole, whole.assign(participant="sub-02", **dict.fromkeys(NAMES, 7.0))]))
    lines = 'responses = "b.csv"\nvoxel_columns = "v"'
    refused(folder, lines, "no column 'subject', but 'participant' names 'sub-01' and others; subject_column = 'participant'")
    study.probe(opened(folder, lines + '\nsubject_column = "participant"', trials=False), np.arange(N_VOXELS))
    refused(folder, lines + '\nsubject_column = "person"', "no column 'person'; ")


def test_voxels_by_name_and_places_in_the_description(folder):
    write(folder / "b.csv", frame())
    listed = f'responses = "b.csv"\nvoxel_columns = {[*NAMES[:2]]}\n'
    place = study.write(folder, listed + "coordinates = [[1, 2, 3], [4, 5, 6.5]]", trials=False)
    found = read_description(place).subjects["sub-01"]
    assert found.geometry.coordinates.tolist() == [[1, 2, 3], [4, 5, 6.5]]
    whole = opened(folder, 'responses = "b.csv"', trials=False)
    np.testing.assert_array_equal(found.values, whole.values[:, :2])
    refused(folder, listed.replace("'v", "'w"), "no column 'w")
    for wrong in ("[1, 2, 3]", "[[1, 2], [3, 4]]", '[["a", "b", "c"]]', "[[1, 2, 3], [4, 5]]", "[[1, 2, nan], [4, 5, 6]]"):
        place = study.write(folder, listed + f"coordinates = {wrong}", trials=False)
        with pytest.raises(ConfigError, match=r"coordinates is a file, or a list of \[x, y, z\] in mm"):
            read_description(place)
    place = study.write(folder, listed, trials=False)
    with pytest.raises(ConfigError, match=r"none came; coordinates = \[\[x, y, z\], ...\] gives a column"):
        read_description(place)
    place = study.write(folder, listed + "coordinates = [[1, 2, 3]]", trials=False)
    with pytest.raises(InputError, match="coordinates do not match: 2 voxels in the responses, 1 places"):
        read_description(place)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda table: table.assign(hemisphere="left"), "is 'hemisphere' a voxel"),
        (lambda table: table.assign(row=range(24)), "is 'row' a voxel"),
        (lambda table: table[sorted(table.columns)], "'v10' comes after 'v1'|'v2' comes after 'v19'"),
        (lambda table: table.drop(columns="v20"), "20 voxels in the responses, 21 places"),
        (lambda table: table.assign(v3=[f"{value}".replace(".", ",") for value in table["v3"]]), "decimal point"),
        (lambda table: table.assign(v3=np.nan), "1 voxels are constant, NaN"),
        (lambda table: table.rename(columns={"stimulus": "picture"}), "no column 'stimulus'"),
        (lambda table: table.assign(stimulus=[None, *table["stimulus"][1:]]), "column 'stimulus' is empty in 1 rows"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", pytest.param(".parquet", marks=has_pyarrow)])
def test_mistakes(folder, change, match, suffix):
    write(folder / f"b{suffix}", change(frame()))
    prefix = '\nvoxel_columns = "v"' if "decimal" in match or "comes after" in match else ""
    match = match.replace("decimal point", "decimal point|holds|no number")
    refused(folder, f'responses = "b{suffix}"{prefix}', match)


def test_trials_that_contradict_the_table_are_refused(folder):
    whole = frame()
    shown = [*whole["stimulus"][1:], whole["stimulus"][0]]
    write(folder / "b.csv", whole.assign(stimulus=shown))
    refused(folder, 'responses = "b.csv"', "row 0 is .*leave trials away", trials=True)


@has_pyarrow
def test_types_of_parquet(folder):
    whole = frame()
    types = {"v0": "float64", "v1": "float16"}
    whole = whole.astype(types).assign(stimulus=whole["stimulus"].astype("category"))
    whole["v2"] = pd.array([None, *np.round(whole["v2"][1:])], dtype="Int32")
    write(folder / "b.parquet", whole)
    refused(folder, 'responses = "b.parquet"', "1 voxels are constant, NaN or infinite")
    found = opened(folder, 'responses = "b.parquet"\ndrop_bad_voxels = true', trials=False)
    study.probe(found, np.delete(np.arange(N_VOXELS), 2))
    write(folder / "b.parquet", frame().assign(v4=pd.Timestamp("2020-01-01")))
    refused(folder, 'responses = "b.parquet"\nvoxel_columns = "v"', "column 'v4' holds timestamp")
    (folder / "b.parquet").write_bytes((folder / "b.parquet").read_bytes()[:-20])
    refused(folder, 'responses = "b.parquet"', r"b\.parquet", FileError)
