"""The child of `untrusted`: a line of JSON names a file, a line of JSON says what is wrong with it, empty if nothing is.

Run as a file by itself, so that nothing of pulvinar is loaded. Looking at a file that is too much for the limits of time and
memory ends the process, or raises MemoryError, and that is the answer.
"""

import contextlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py

SECONDS = 4.0  # of computing; small files take milliseconds
BYTES_PER_SECOND = 2e6
LIBRARIES = 2**30  # bytes of address space for the process itself
SMALL = 2**24  # bytes of a dataset up to which its values are read
MOST_OBJECTS = 2000  # looked into; links are checked all


def main() -> None:
    """Answer line after line until the parent has gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    answers.write('"ready"\n')
    answers.flush()
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(json.dumps(answer(question)) + "\n")
        answers.flush()


def answer(question: dict[str, Any]) -> str:
    """What is wrong with a file; empty if nothing is."""
    path = question["path"]
    limit(question["bytes"], Path(path).stat().st_size)
    try:
        if question["kind"] == "mat":
            import scipy.io

            scipy.io.loadmat(path)
            return ""
        if question["kind"] == "parquet":
            read_parquet(path)
            return ""
        return wrong_with_hdf5(path, Path(path).parent, question["bytes"])
    except MemoryError:
        return "it takes more memory than what it holds accounts for"
    except Exception as error:
        return str(error).strip() or type(error).__name__
    finally:
        with contextlib.suppress(AttributeError):
            signal.setitimer(signal.ITIMER_PROF, 0)


def read_parquet(path: str) -> None:
    """All of a table, in one thread, from memory that counts."""
    import pyarrow.parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    with pyarrow.parquet.ParquetFile(path) as file:
        file.read(use_threads=False)


def limit(n_bytes: int, size: int) -> None:
    """Seconds of computing and bytes of memory from here on; where the system has no such limits, the parent waits."""
    with contextlib.suppress(AttributeError):
        signal.setitimer(signal.ITIMER_PROF, SECONDS + size / BYTES_PER_SECOND)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (LIBRARIES + 2 * n_bytes, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def wrong_with_hdf5(path: str, folder: Path, n_bytes: int) -> str:
    """Links and values outside the file are refused before they are followed; the rest is looked at."""
    with h5py.File(path, "r") as file:
        links: list[tuple[bytes, int]] = []
        file.id.links.visit(lambda name, info: links.append((name, info.type)), info=True)
        for name, kind in links:
            if kind == h5py.h5l.TYPE_EXTERNAL:
                other, _ = file.id.links.get_val(name)
                return f"'{text(name)}' lies in another file, '{text(other)}'; copy it into this one"
        file.attrs.values()
        for name, kind in links[:MOST_OBJECTS]:
            if kind == h5py.h5l.TYPE_HARD and (wrong := wrong_with(file[name], folder, n_bytes)):
                return wrong
    return ""


def text(name: bytes) -> str:
    """A name of HDF5 for a message."""
    return name.decode(errors="replace")


def wrong_with(node: Any, folder: Path, n_bytes: int) -> str:
    """Of one object of a file."""
    if isinstance(node, h5py.Dataset):
        plan = node.id.get_create_plist()
        if plan.get_external_count():
            outside = text(plan.get_external(0)[0])
            return f"the values of '{node.name}' lie outside, in '{outside}'; copy them into this file"
        for source in node.virtual_sources() if node.is_virtual else ():
            place = Path(source.file_name) if source.file_name != "." else folder / "."
            if not (folder / place).resolve().is_relative_to(folder):
                return f"the values of '{node.name}' lie outside its folder, in {source.file_name!r}"
        try:
            look_at(node, n_bytes)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            return f"dataset '{node.name}': {error}"
    if hasattr(node, "attrs"):
        list(node.attrs.items())
    return ""


def look_at(node: h5py.Dataset, n_bytes: int) -> None:
    """Values that are small are read, of others the first."""
    if node.shape is None:
        return
    if node.nbytes <= SMALL:
        node[()]
    elif node.ndim and node.nbytes <= max(n_bytes, Path(node.file.filename).stat().st_size):
        node[(0,) * node.ndim]


if __name__ == "__main__":
    main()
