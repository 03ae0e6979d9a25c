"""Betas of a run (or what else takes a pass over a series) kept on disk, found again by what made them, and read as memory
maps.

    FOLDER/betas/KEY.npy    float32 (trial, voxel)
    FOLDER/betas/KEY.json   settings, files, shape and SHA-256, sealed with its own checksum

The key holds every setting, the events, the voxels, nilearn's version, and of the files that were read path, size and times: a
file that was written to or replaced since is read again. What an interrupted command has finished, run by run, counts for the
next.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core import checksums
from pulvinar.core.errors import FileError
from pulvinar.core.progress import detail, warn
from pulvinar.core.storage import atomic_path, cache_folder, checksum, fingerprint, read_json, write_json

FORMAT = 1


def file_state(path: Path) -> tuple[str, int, int, int]:
    """What changes when a file is written to or replaced: place, size, and times of its content and of its entry."""
    found = path.stat()
    return (str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def cached_values(
    compute: Callable[[], np.ndarray],
    *,
    shape: tuple[int, int],
    files: Sequence[Path],
    settings: Mapping[str, Any],
    arrays: Sequence[np.ndarray],
    folder: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Values float32 `shape`, such as (trial, voxel), read-only: from the cache, or what `compute()` gives, which is then kept.

    files: those that the values are made of. settings: by name, as they are written beside. arrays: onsets, voxels and
    whatever else the values depend on. folder: see `storage.cache_folder`. A cache that cannot be written is said, and nothing
    else.
    """
    import nilearn

    made_from = {"format": FORMAT, "nilearn": nilearn.__version__, "settings": dict(settings)}
    states = [file_state(path) for path in files]
    key = fingerprint(repr(sorted(made_from["settings"].items())), FORMAT, nilearn.__version__, *map(repr, states), *arrays)
    place = cache_folder(folder) / "betas" / f"{key}.npy"
    found = _read(place, shape)
    if found is not None:
        return found
    values = np.ascontiguousarray(compute(), np.float32)
    if [file_state(path) for path in files] != states:
        raise FileError(f"{files[0]}: changed while it was read; run again")
    try:
        with atomic_path(place) as temporary, temporary.open("wb") as file:
            np.save(file, values, allow_pickle=False)
        facts = {"shape": values.shape, "sha256": checksum(place), "files": [str(path) for path in files], **made_from}
        write_json(place.with_suffix(".json"), facts, sealed=True)
        detail(f"kept in {place}")
    except FileError as error:
        warn(f"betas are not kept, and computed again next time: {error}", once=True)
        return values
    found = _read(place, shape)
    return values if found is None else found


def _read(place: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The memory map of an entry; None where there is none or it is damaged (with a warning)."""
    facts = place.with_suffix(".json")
    if not (facts.is_file() and place.is_file()):
        return None
    try:
        checksums.require(place, read_json(facts)["sha256"], written_in=facts.name)
        values = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"betas are computed again; what was kept is damaged: {error}")
        return None
    return values if values.shape == shape and values.dtype == np.float32 else None
