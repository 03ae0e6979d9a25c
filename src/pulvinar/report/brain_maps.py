"""Maps of voxels as files that brain viewers open: NIfTI for a volume; GIFTI, MGH or CIFTI for a surface, as it came."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.storage import write_bytes
from pulvinar.data.geometry import CORTEX, Geometry
from pulvinar.data.greyordinates import places_of
from pulvinar.data.surface_meshes import n_vertices_of
from pulvinar.report.run_folder import Maps, Run

SIMULATED = "SIMULATED"


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
    measured) and the mesh beside it. Responses that came in GIFTI or MGH have a file per hemisphere (`lh.NAME.func.gii`, or
    `lh.NAME.label.gii` of whole numbers; `lh.NAME.mgh`), those of CIFTI a `NAME.dscalar.nii` of the places that were measured.
    Raises `FileError` where they cannot be written.
    """
    if geometry.kind == "points" and not geometry.form:
        return []
    makers = {"gifti": _hemispheres, "mgh": _mgh, "cifti": _greyordinates}
    make = makers.get(geometry.form, _volumes if geometry.kind == "volume" else _surfaces)
    files = make(geometry, values, f"pulvinar, {SIMULATED}" if simulated else "pulvinar")
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
    if geometry.kind == "greyordinates":
        raise InputError(
            f"{name}: vertices and places of a volume are no single image; .voxels(subject) has the mask in the order of the "
            "voxels, and the page writes it as .dscalar.nii"
        )
    if geometry.kind == "points":
        of = f" (they count the vertices of {geometry.template})" if geometry.template else ""
        raise InputError(
            f"{name}: the voxels came as bare points{of}, without a grid or a mesh, so there is no image of them; "
            ".voxels(subject) has the mask in the order of the voxels"
        )
    from nilearn.surface import InMemoryMesh, SurfaceImage

    points, faces = np.asarray(geometry.mesh_coordinates, np.float32), np.asarray(geometry.mesh_faces)
    per_vertex = _per_vertex(geometry, values)
    half, middle = len(points) // 2 if geometry.n_left is None else geometry.n_left, float(points[:, 0].mean())
    first = (faces < half).all(1)
    if half in (0, len(points)) and geometry.n_left is not None:
        side = "right" if half == 0 else "left"
        return SurfaceImage(mesh={side: InMemoryMesh(points, faces)}, data={side: per_vertex})
    if (
        (geometry.n_left is None and len(points) % 2)
        or not first.any()
        or not (first | (faces >= half).all(1)).all()
        or first.all()
    ):
        side = "left" if middle < 0 else "right"
        return SurfaceImage(mesh={side: InMemoryMesh(points, faces)}, data={side: per_vertex})
    mesh = {"left": InMemoryMesh(points[:half], faces[first]), "right": InMemoryMesh(points[half:], faces[~first] - half)}
    return SurfaceImage(mesh=mesh, data={"left": per_vertex[:half], "right": per_vertex[half:]})


def _volume(geometry: Geometry, values: np.ndarray, description: str) -> Any:
    import nibabel

    volume = geometry.to_volume(values, fill=values.dtype.type(0))
    image = nibabel.nifti1.Nifti1Image(volume.astype(values.dtype), geometry.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    return image


def _per_vertex(geometry: Geometry, values: np.ndarray) -> np.ndarray:
    made = np.zeros(len(np.asarray(geometry.mesh_coordinates)), values.dtype)
    made[np.asarray(geometry.vertex)] = values
    return made


def _volumes(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    images = {name: _volume(geometry, values, f"{maker}: {name}") for name, values in given.items()}
    return {f"{name}.nii.gz": gzip.compress(image.to_bytes(), mtime=0) for name, image in images.items()}


def _by_side(geometry: Geometry, values: np.ndarray) -> dict[str, np.ndarray]:
    """'lh' and 'rh', where they were measured -> a value for every vertex of the hemisphere, 0 where there is none."""
    sides, numbers = geometry.side, geometry.own_vertex
    if sides is None or numbers is None:
        raise InputError(f"maps of a {geometry.kind} that does not say left from right")
    found = {}
    for side, name in (("lh", "left"), ("rh", "right")):
        here = sides == side
        if here.any():
            found[side] = np.zeros(n_vertices_of(geometry, name), values.dtype)
            found[side][numbers[here]] = values[here]
    return found


def _hemispheres(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    """A .func.gii of numbers, or a .label.gii of whole ones, of each hemisphere."""
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

    files = {}
    for name, values in given.items():
        is_label = values.dtype.kind in "iu"
        table = GiftiLabelTable()
        for key in np.unique(values).tolist() if is_label else ():
            label: Any = GiftiLabel(key, 0.9, 0.2, 0.1, float(key > 0))
            label.label = f"{name} {key}" if key else "???"
            table.labels.append(label)
        for side, whole in _by_side(geometry, values).items():
            structure = {"lh": "CortexLeft", "rh": "CortexRight"}[side]
            description = GiftiMetaData({"Description": f"{maker}: {name}", "AnatomicalStructurePrimary": structure})
            kind = "NIFTI_INTENT_LABEL" if is_label else "NIFTI_INTENT_SHAPE"
            stored = whole.astype(np.int32) if is_label else whole.astype(np.float32)
            array = GiftiDataArray(stored, intent=kind, datatype="NIFTI_TYPE_INT32" if is_label else "NIFTI_TYPE_FLOAT32")
            made = GiftiImage(meta=description, darrays=[array], labeltable=table)
            files[f"{side}.{name}.{'label' if is_label else 'func'}.gii"] = made.to_xml()
    return files


def _mgh(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    """FreeSurfer's overlay (vertex, 1, 1) of each hemisphere; its header has no text, so the name says SIMULATED."""
    mark = ".SIMULATED" if SIMULATED in maker else ""
    from nibabel.freesurfer import MGHImage

    return {
        f"{side}.{name}{mark}.mgh": MGHImage(whole.astype(np.float32).reshape(-1, 1, 1), np.eye(4)).to_bytes()
        for name, values in given.items()
        for side, whole in _by_side(geometry, values).items()
    }


def _greyordinates(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    """A dense scalar file of the places that were measured, structure by structure."""
    from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, ScalarAxis

    structure, vertex, index = places_of(geometry)
    first = {name: place for place, name in enumerate(dict.fromkeys(structure.tolist()))}
    order = np.argsort([first[name] for name in structure.tolist()], kind="stable")  # a structure's places follow each other
    counts = {
        name: n_vertices_of(geometry, side)
        for name, side in zip(CORTEX, ("left", "right"), strict=True)
        if (structure == name).any()
    }
    places = BrainModelAxis(
        name=structure[order],
        voxel=index[order],
        vertex=vertex[order],
        affine=geometry.affine if (vertex < 0).any() else None,
        volume_shape=geometry.shape if (vertex < 0).any() else None,
        nvertices=counts,
    )
    files = {}
    for name, values in given.items():
        rows = ScalarAxis([f"{maker}: {name}"])
        header = Cifti2Header.from_axes((rows, places))
        made = Cifti2Image(values[order].astype(np.float32)[None], header)
        made.nifti_header.set_intent("ConnDenseScalar", name="ConnDenseScalar")
        made.update_headers()
        files[f"{name}.dscalar.nii"] = made.to_bytes()
    return files


def _surfaces(geometry: Geometry, given: Mapping[str, np.ndarray], maker: str) -> dict[str, bytes]:
    from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

    points = np.asarray(geometry.mesh_coordinates, np.float32)
    faces = np.asarray(geometry.mesh_faces, np.int32)
    files = {}
    for name, values in given.items():
        description = GiftiMetaData({"Description": f"{maker}: {name}"})
        array = GiftiDataArray(_per_vertex(geometry, values), intent="NIFTI_INTENT_SHAPE")
        files[f"{name}.shape.gii"] = GiftiImage(meta=description, darrays=[array]).to_xml()
    mesh = [
        GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE"),
    ]
    files["mesh.surf.gii"] = GiftiImage(darrays=mesh).to_xml()
    return files
