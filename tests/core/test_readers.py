"""Whatever a library raises on a damaged file becomes one of our errors, which names it: every reader stands behind one door.

Two walks over the source: functions that are readers by their name are guarded whole (`storage.reads`), and calls of libraries
that parse files stand in such a function or in a `with reading(...)`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reads

SOURCE = Path(__file__).parents[2] / "src" / "pulvinar"
PARSERS = {
    *(
        "h5py.File",
        "np.load",
        "numpy.load",
        "nibabel.load",
        "nib.load",
        "json.loads",
        "json.load",
        "tomllib.loads",
        "tomllib.load",
    ),
    *("Image.open", "scipy.io.loadmat", "tarfile.open", "zipfile.ZipFile", "ZipFile", "safe_open", "load_file", "torch.load"),
    *("pyarrow.parquet.ParquetFile", "read_geometry"),
    *("gzip.open", "np.fromfile", "np.genfromtxt", "np.loadtxt", "csv.reader", "csv.DictReader", "ElementTree.parse"),
}
DOORS = {"reading", "open_hdf5", "open_npz", "open_image"}
ELSEWHERE = {  # why a call needs no door of its own
    ("core/checksums.py", "_remembered"): "a cache: what is damaged counts as not there",
    ("core/config.py", "read_toml"): "its own message",
    ("core/hdf5.py", "create_hdf5"): "writes",
    ("core/locks.py", "holder"): "what cannot be read counts as nobody's",
    ("app/sweeps/engines/worker.py", "main"): "the question of our own process",
    ("app/sweeps/engines/worker.py", "perform"): "the answer of our own process",
    ("datasets/mosaic/writer.py", "_write_subject"): "writes",
    ("core/storage.py", "write_json"): "of what was just made",
    ("core/untrusted.py", "ask"): "the answer of our own process",
    ("core/untrusted_child.py", "answer"): "everything raised is the answer",
    ("core/untrusted_child.py", "read_parquet"): "everything raised is the answer",
    ("core/untrusted_child.py", "main"): "the question of our own process",
    ("core/untrusted_child.py", "wrong_with_hdf5"): "everything raised is the answer",
    ("datasets/algonauts2019/layout.py", "as_jpeg"): "of what was just made",
    ("data/pictures.py", "_opened"): "called by `decode`, which is guarded",
    ("data/image_folder.py", "read_pictures"): "of what was just made",
    ("datasets/algonauts2023/submission.py", "write_submission"): "writes",
    ("datasets/algonauts2019/submission.py", "_zipped"): "writes",
    ("scores/published.py", "_lines"): "a table of the package itself",
    ("data/archives.py", "_unpack_tar"): "called by `unpack`, behind its door",
    ("data/archives.py", "_unpack_zip"): "called by `unpack`, behind its door",
    ("data/beta_cache.py", "_read"): "a cache: what is damaged is computed again",
    ("data/cifti_sizes.py", "_extensions"): "called by `load_image`, behind its door",
    ("data/downloads.py", "json"): "its own message",
    ("encoding/feature_cache.py", "_read"): "a cache: what is damaged is computed again",
    ("report/run_folder.py", "_read_records"): "lines that are no JSON are counted",
}
READERS = ("read", "load", "decode")
PLACES = ("path", "place", "folder", "file")
BEHIND_DATA = ("datasets/",)  # `load` of a data set: all are opened by app/data.py, behind a door there


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_guarded(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("reads(") for decorator in function.decorator_list)


def unguarded(node: ast.AST, name: str = "") -> Iterator[tuple[str, str]]:
    """(function, call) of every parser outside a door."""
    if isinstance(node, ast.FunctionDef):
        if is_guarded(node):
            return
        name = node.name
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        if DOORS & {ast.unparse(call.func).rpartition(".")[2] for call in calls}:
            return
    if isinstance(node, ast.Call) and ast.unparse(node.func) in PARSERS:
        yield name, ast.unparse(node.func)
    for child in ast.iter_child_nodes(node):
        yield from unguarded(child, name)


@pytest.mark.long
def test_calls_of_parsers_stand_behind_the_door():
    found = set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        found |= {(place, function) for function, _ in unguarded(ast.parse(path.read_text(encoding="utf-8")))}
    assert found - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) - found == set(), "reasons for calls that are gone"


@pytest.mark.long
def test_readers_of_files_are_guarded_whole():
    missing = []
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith(READERS) or not function.args.args:
                continue
            is_load_of_data = place.startswith(BEHIND_DATA) and function.name == "load"
            inside = any(isinstance(node, ast.With) and "reading(" in ast.unparse(node.items[0]) for node in ast.walk(function))
            takes_a_place = function.args.args[0].arg in PLACES and place.partition("/")[0] != "core"
            if takes_a_place and not is_guarded(function) and not is_load_of_data and not inside:
                missing.append(f"{place}: {function.name}")
    assert not missing


def test_whatever_is_raised_names_the_file():
    @reads("a list")
    def read(path, error):
        """What it says."""
        raise error

    for error in (
        KeyError("x"),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
        MemoryError(),
        AttributeError("a"),
    ):
        with pytest.raises(FileError, match=r"some/file: cannot be read as a list"):
            read("some/file", error)
    with pytest.raises(InputError, match=r"^ours$"):
        read("some/file", InputError("ours"))
    assert (read.__name__, read.__doc__) == ("read", "What it says.")
