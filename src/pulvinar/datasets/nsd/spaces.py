"""One subject of the Natural Scenes Dataset in a volume or on fsaverage: which voxels, their labels, and their betas.

Both spaces offer `geometry`, `labels` (file name -> label number per voxel), `label_names`, `ncsnr`, `dtype`, `scale`,
`sessions` (number -> files) and `read(session)`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import warn
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.geometry import Geometry
from pulvinar.data.rois import ROIs
from pulvinar.data.volume_box import box_slices
from pulvinar.datasets.nsd import files as nsd_files
from pulvinar.datasets.nsd.files import HEMISPHERES, Grid

FORMATS = {"hdf5": r"betas_session(\d+)\.hdf5", "nifti": r"betas_session(\d+)\.nii(?:\.gz)?"}
WHOLE = "brain"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files of a subject lie: root of the dataset, subject ('subj01'), space, and the folder name of its betas."""

    root: Path
    subject: str
    space: str
    betas: str

    @property
    def betas_folder(self) -> Path:
        """`nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR`."""
        return self.root / "nsddata_betas" / "ppdata" / self.subject / self.space / self.betas

    @property
    def ppdata(self) -> Path:
        """`nsddata/ppdata/subj01/func1pt8mm`."""
        return self.root / "nsddata" / "ppdata" / self.subject / self.space

    def label_table(self, name: str) -> Path:
        """The colour table of a ROI file."""
        owner = "fsaverage" if self.space == "fsaverage" else self.subject
        return self.root / "nsddata" / "freesurfer" / owner / "label" / f"{name}.mgz.ctab"


class VolumeSpace:
    """Voxels of a subject's functional volume, in C order of the grid (x, y, z)."""

    scale = 1 / nsd_files.STEPS_PER_PERCENT
    dtype = np.int16

    def __init__(
        self, place: Place, *, voxels: str, box: str | None, file_format: str | None, check_affine: bool = True
    ) -> None:
        self.place = place
        self.sessions, self.format = _volume_sessions(place, file_format)
        self.grid = dataclasses.replace(_find_grid(place, self.sessions), check_affine=check_affine)
        self._label_volumes = self._read_label_volumes()
        self.brain = self._read_brain()
        chosen = self._region(voxels)
        if box is not None:
            inside_box = np.zeros(self.grid.shape, bool)
            inside_box[box_slices(box, self.brain, self.grid.affine, self._region)] = True
            chosen = chosen & inside_box
        if not chosen.any():
            raise InputError(f"{place.subject}: no voxel is left with voxels={voxels} and box={box}")
        self.index = np.argwhere(chosen)
        self.geometry = Geometry.from_index(self.index, shape=self.grid.shape, affine=self.grid.affine)
        self.labels = {name: labels[chosen] for name, labels in self._label_volumes.items()}
        self.label_names = {name: nsd_files.read_label_names(place.label_table(name)) for name in self.labels}
        self.ncsnr = self._read_ncsnr(chosen)

    def read(self, session: int) -> np.ndarray:
        """int16 (750, voxel) of a session, percent signal change x 300."""
        reader = nsd_files.read_hdf5_session if self.format == "hdf5" else nsd_files.read_nifti_session
        return reader(self.sessions[session][0], self.index, self.grid)

    def where(self, voxel: int) -> dict[str, Any]:
        """The voxel's place, [x, y, z] in NIfTI axes."""
        return {"voxel": self.index[voxel].tolist()}

    def _read_label_volumes(self) -> dict[str, np.ndarray]:
        found = {}
        for path in sorted((self.place.ppdata / "roi").glob("*.nii.gz")):
            found[path.name.removesuffix(".nii.gz")] = nsd_files.as_labels(path, nsd_files.read_map(path, self.grid))
        return found

    def _read_brain(self) -> np.ndarray:
        """The brain mask; where the file is missing, the voxels whose betas are not all zero in the first session."""
        path = self.place.ppdata / "brainmask.nii.gz"
        if path.is_file():
            return nsd_files.read_map(path, self.grid) > 0
        everywhere = np.argwhere(np.ones(self.grid.shape, bool))
        reader = nsd_files.read_hdf5_session if self.format == "hdf5" else nsd_files.read_nifti_session
        values = reader(self.sessions[min(self.sessions)][0], everywhere, self.grid)
        return (values != 0).any(0).reshape(self.grid.shape)

    def _region(self, name: str) -> np.ndarray:
        if name == WHOLE:
            return self.brain
        if name not in self._label_volumes:
            hint = suggest(name, [WHOLE, *self._label_volumes])
            raise NotFoundError(f"{self.place.ppdata / 'roi'}: no file '{name}.nii.gz'{hint}")
        return nsd_files.inside(self._label_volumes[name])

    def _read_ncsnr(self, chosen: np.ndarray) -> np.ndarray | None:
        path = self.place.betas_folder / "ncsnr.nii.gz"
        return nsd_files.read_map(path, self.grid)[chosen] if path.is_file() else None


def _volume_sessions(place: Place, file_format: str | None) -> tuple[dict[int, tuple[Path, ...]], str]:
    """Session -> file, in the format asked for, else HDF5 if there is any, else NIfTI."""
    for name in [file_format] if file_format else list(FORMATS):
        found = nsd_files.session_files(place.betas_folder, FORMATS[name])
        if found:
            return {number: (path,) for number, path in found.items()}, name
    wanted = {"hdf5": "betas_session01.hdf5", "nifti": "betas_session01.nii.gz"}
    names = wanted[file_format] if file_format else " or ".join(wanted.values())
    raise FileError(f"{place.betas_folder}: no sessions of betas there ({names} and so on)")


def _find_grid(place: Place, sessions: Mapping[int, tuple[Path, ...]]) -> Grid:
    """The subject's grid, from the first of its volumes that is there."""
    rois = sorted((place.ppdata / "roi").glob("*.nii.gz"))
    for path in [place.ppdata / "brainmask.nii.gz", *rois, place.betas_folder / "ncsnr.nii.gz"]:
        if path.is_file():
            return nsd_files.read_grid(path)[0]
    raise FileError(
        f"{place.ppdata}: brainmask.nii.gz, or a file in roi/, is needed to know where the {len(sessions)} sessions' voxels are"
    )


class SurfaceSpace:
    """Vertices of fsaverage, left hemisphere first; right vertices are counted on from the left ones."""

    scale = 1.0
    dtype = np.float32

    def __init__(self, place: Place, *, voxels: str) -> None:
        self.place = place
        self.sessions = _surface_sessions(place)
        self.n_vertices = self._count_vertices()
        labels = self._read_labels()
        chosen = np.arange(sum(self.n_vertices))
        if voxels != WHOLE:
            if voxels not in labels:
                raise NotFoundError(f"{self._label_folder}: no labels '{voxels}'{suggest(voxels, [WHOLE, *labels])}")
            chosen = np.flatnonzero(nsd_files.inside(labels[voxels]))
        self.vertices = chosen
        self.geometry = self._read_geometry()
        self.labels = {name: values[chosen] for name, values in labels.items()}
        self.label_names = {name: nsd_files.read_label_names(place.label_table(name)) for name in self.labels}
        self.ncsnr = self._read_ncsnr()

    @property
    def _label_folder(self) -> Path:
        return self.place.root / "nsddata" / "freesurfer" / "fsaverage" / "label"

    def read(self, session: int) -> np.ndarray:
        """float32 (750, vertex) of a session, percent signal change."""
        return nsd_files.read_mgh_session(self.sessions[session], self.vertices, self.n_vertices)

    def where(self, voxel: int) -> dict[str, Any]:
        """The hemisphere and the vertex in it, also as the place [vertex, 0, 0] in the file."""
        vertex = int(self.vertices[voxel])
        right = int(vertex >= self.n_vertices[0])
        vertex -= right * self.n_vertices[0]
        return {"hemisphere": HEMISPHERES[right], "vertex": vertex, "voxel": [vertex, 0, 0]}

    def _count_vertices(self) -> tuple[int, int]:
        left, right = (nsd_files.mgh_shape(path)[0] for path in self.sessions[min(self.sessions)])
        return left, right

    def _read_geometry(self) -> Geometry:
        """The white surfaces; where their files are missing, a row of points that have no meaning."""
        folder = self.place.root / "nsddata" / "freesurfer" / "fsaverage" / "surf"
        if not any((folder / f"{side}.white").is_file() for side in HEMISPHERES):
            warn(f"{folder}: without lh.white and rh.white nothing says where the vertices are; set low_pass=none")
            return Geometry.from_points(self.vertices[:, None])
        points, faces, n_vertices = _read_mesh(folder)
        if n_vertices != self.n_vertices:
            raise InputError(f"{folder}: {n_vertices} vertices, but {self.place.betas_folder} has {self.n_vertices}")
        return Geometry.from_surface(self.vertices, points, faces)

    def _read_labels(self) -> dict[str, np.ndarray]:
        """Labels of both hemispheres; files of one alone, and maps of other numbers (probabilities), are left aside."""
        found = {}
        for left in sorted(self._label_folder.glob("lh.*.mgz")):
            name = left.name.removeprefix("lh.").removesuffix(".mgz")
            right = self._label_folder / f"rh.{name}.mgz"
            if not right.is_file():
                continue
            values = self._both([left, right])
            if (values == np.floor(values)).all():
                found[name] = nsd_files.as_labels(left, values)
        return found

    def _read_ncsnr(self) -> np.ndarray | None:
        paths = [self.place.betas_folder / f"{side}.ncsnr.mgh" for side in HEMISPHERES]
        return self._both(paths)[self.vertices].astype(np.float32) if paths[0].is_file() else None

    def _both(self, paths: Sequence[Path]) -> np.ndarray:
        parts = []
        for path, expected in zip(paths, self.n_vertices, strict=True):
            values = nsd_files.read_mgh(path)
            if values.shape != (expected,):
                raise InputError(f"{path}: one number for each of {expected} vertices is needed, {values.shape} came")
            parts.append(values.astype(np.float64))
        return np.concatenate(parts)


def _surface_sessions(place: Place) -> dict[int, tuple[Path, ...]]:
    left, right = (nsd_files.session_files(place.betas_folder, rf"{side}\.betas_session(\d+)\.mgh") for side in HEMISPHERES)
    if not left and not right:
        raise FileError(f"{place.betas_folder}: no sessions of betas there (lh.betas_session01.mgh and so on)")
    for side, own, other in (("lh", left, right), ("rh", right, left)):
        for number in other:
            if number not in own:
                raise FileError(f"{place.betas_folder / f'{side}.betas_session{number:02d}.mgh'}: no such session of betas")
    return {number: (left[number], right[number]) for number in left}


@reads("a FreeSurfer surface")
def _read_mesh(folder: Path) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Both white surfaces: vertices in mm, faces, and the number of vertices of each."""
    import nibabel

    points: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    for side in HEMISPHERES:
        path = require_file(folder / f"{side}.white", "surface mesh")
        with reading(path, "a FreeSurfer surface"):
            own_points, own_faces = nibabel.freesurfer.read_geometry(str(path))
        faces.append(own_faces.astype(np.int64) + sum(len(part) for part in points))
        points.append(own_points.astype(float))
    return np.concatenate(points), np.concatenate(faces), (len(points[0]), len(points[1]))


Space = VolumeSpace | SurfaceSpace


def masks_of(space: Space) -> ROIs:
    """ROIs of the voxels: each label file ('nsdgeneral': every label), and each of its labels ('prf-visualrois.V1v').

    Names of labels come from the label table, else they are numbers; files of one hemisphere (lh., rh.) have no labels of their
    own here. 'annotated' is 'nsdgeneral' again: the name that the methods take for granted. Empty ones are left out.
    """
    masks = {}
    for name, labels in space.labels.items():
        masks[name] = nsd_files.inside(labels)
        numbers = np.unique(labels[labels > 0]).tolist()
        known = space.label_names.get(name, {})
        names = [str(known.get(number, number)) for number in numbers]
        if (len(numbers) > 1 or known) and names != [name] and not name.startswith(("lh.", "rh.")):
            own = zip(names, numbers, strict=True)
            masks.update({f"{name}.{label}".replace("/", "_"): labels == number for label, number in own})
    if "nsdgeneral" in masks:
        masks["annotated"] = masks["nsdgeneral"]
    return ROIs({name: mask for name, mask in masks.items() if mask.any()}, n_voxels=space.geometry.n_voxels)
