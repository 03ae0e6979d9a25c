"""Maps of voxels as files that brain viewers open: NIfTI for a volume, GIFTI for a surface."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pulvinar.core.storage import write_bytes
from pulvinar.data.geometry import Geometry
from pulvinar.report.run_folder import Maps, Run


def write(run: Run) -> list[Path]:
    """Write the selection's maps of a run under its `artifacts/`; the files written, none for a run without maps.

    `roi_selected` (uint8, 1 is kept), `mask` and `mask_smoothed` (float32, learned weight, no unit), `roi_reference`
    (uint8) where there is one. See `write_values`.
    """
    if run.maps is None:
        return []
    return write_values(run.folder / "artifacts", run.maps.geometry, _values(run.maps), simulated=run.simulated)


def write_values(folder: Path, geometry: Geometry, values: Mapping[str, np.ndarray], *, simulated: bool) -> list[Path]:
    """One file per name in the type of its values (voxel,), none for bare points. Of simulated data the header says so.

    A volume has the affine (voxel index -> mm) of the data; a surface has one value per vertex (0 where no voxel was
    measured) and the mesh beside it. Raises `FileError` where they cannot be written.
    """
    if geometry.kind == "points":
        return []
    make = _volumes if geometry.kind == "volume" else _surfaces
    files = make(geometry, values, "pulvinar, SIMULATED" if simulated else "pulvinar")
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def _values(maps: Maps) -> dict[str, np.ndarray]:
    """Name of the file -> value of each voxel, in the type to be stored."""
    values: dict[str, np.ndarray] = {
        "roi_selected": maps.selected.astype(np.uint8),
        "mask": maps.mask.astype(np.float32),
        "mask_smoothed": maps.mask_smoothed.astype(np.float32),
    }
    if maps.reference is not None:
        values["roi_reference"] = maps.reference.astype(np.uint8)
    return values


def _volumes(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    import nibabel

    files = {}
    for name, values in given.items():
        volume = geometry.to_volume(values, fill=values.dtype.type(0))
        image = nibabel.nifti1.Nifti1Image(volume.astype(values.dtype), geometry.affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = f"{maker}: {name}".encode()[:79]
        files[f"{name}.nii.gz"] = gzip.compress(image.to_bytes(), mtime=0)
    return files


def _surfaces(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

    vertex, points = np.asarray(geometry.vertex), np.asarray(geometry.mesh_coordinates, np.float32)
    faces = np.asarray(geometry.mesh_faces, np.int32)
    files = {}
    for name, values in given.items():
        per_vertex = np.zeros(len(points), values.dtype)
        per_vertex[vertex] = values
        said = GiftiMetaData({"Description": f"{maker}: {name}"})
        array = GiftiDataArray(per_vertex, intent="NIFTI_INTENT_SHAPE")
        files[f"{name}.shape.gii"] = GiftiImage(meta=said, darrays=[array]).to_xml()
    mesh = [
        GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    files["mesh.surf.gii"] = GiftiImage(darrays=mesh).to_xml()
    return files
