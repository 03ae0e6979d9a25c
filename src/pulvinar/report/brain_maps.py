"""Maps of voxels as files that brain viewers open: NIfTI for a volume, GIFTI for a surface."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError
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


def image_of(geometry: Geometry, values: np.ndarray, *, name: str) -> Any:
    """Values (voxel,) as an image: nibabel's of a volume, nilearn's `SurfaceImage` of a mesh; 0 where nothing was measured.

    A mesh whose second half no face joins to the first is taken as the left and the right hemisphere, in this order; any other
    is one hemisphere, on the side where its middle lies. `InputError` for bare points.
    """
    if geometry.kind == "volume":
        return _volume(geometry, values, f"pulvinar: {name}")
    if geometry.kind == "points":
        of = f" (they count the vertices of {geometry.template})" if geometry.template else ""
        raise InputError(
            f"{name}: the voxels came as bare points{of}, without a grid or a mesh, so there is no image of them; "
            ".voxels(subject) has the mask in the order of the voxels"
        )
    from nilearn.surface import InMemoryMesh, SurfaceImage

    points, faces = np.asarray(geometry.mesh_coordinates, np.float32), np.asarray(geometry.mesh_faces)
    per_vertex = _per_vertex(geometry, values)
    half, middle = len(points) // 2, float(points[:, 0].mean())
    first = (faces < half).all(1)
    if len(points) % 2 or not first.any() or not (first | (faces >= half).all(1)).all() or first.all():
        side = "left" if middle < 0 else "right"
        return SurfaceImage(mesh={side: InMemoryMesh(points, faces)}, data={side: per_vertex})
    mesh = {"left": InMemoryMesh(points[:half], faces[first]), "right": InMemoryMesh(points[half:], faces[~first] - half)}
    return SurfaceImage(mesh=mesh, data={"left": per_vertex[:half], "right": per_vertex[half:]})


def _volume(geometry: Geometry, values: np.ndarray, said: str) -> Any:
    import nibabel

    volume = geometry.to_volume(values, fill=values.dtype.type(0))
    image = nibabel.nifti1.Nifti1Image(volume.astype(values.dtype), geometry.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = said.encode()[:79]
    return image


def _per_vertex(geometry: Geometry, values: np.ndarray) -> np.ndarray:
    made = np.zeros(len(np.asarray(geometry.mesh_coordinates)), values.dtype)
    made[np.asarray(geometry.vertex)] = values
    return made


def _volumes(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    images = {name: _volume(geometry, values, f"{maker}: {name}") for name, values in given.items()}
    return {f"{name}.nii.gz": gzip.compress(image.to_bytes(), mtime=0) for name, image in images.items()}


def _surfaces(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

    points = np.asarray(geometry.mesh_coordinates, np.float32)
    faces = np.asarray(geometry.mesh_faces, np.int32)
    files = {}
    for name, values in given.items():
        said = GiftiMetaData({"Description": f"{maker}: {name}"})
        array = GiftiDataArray(_per_vertex(geometry, values), intent="NIFTI_INTENT_SHAPE")
        files[f"{name}.shape.gii"] = GiftiImage(meta=said, darrays=[array]).to_xml()
    mesh = [
        GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    files["mesh.surf.gii"] = GiftiImage(darrays=mesh).to_xml()
    return files
