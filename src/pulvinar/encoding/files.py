"""Files of an encoding run: fitted encoders, maps of voxels, predictions; written by methods, read by analyses and report.

checkpoints/encoder-SUBJECT[-fold-K].safetensors    parts, layers, penalties of one fitted model
artifacts/voxels-SUBJECT.npz    per encoded voxel: scores, layer, penalty, place; roi_masks (roi, voxel) and roi_names;
                                layer_scores (layer, voxel) and layer_names
predictions/SUBJECT.npz         id, predicted and measured (image, voxel) of the outer test images; of a tuned
                                    network untuned too, and tuned where the untuned one encodes
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pulvinar.core.errors import FileError, NotFoundError
from pulvinar.core.storage import read_arrays, write_arrays
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.fit import load_encoder
from pulvinar.encoding.scores import Predictions
from pulvinar.learning.checkpoints import State
from pulvinar.learning.runs import RunFolder


def fold_names(n_folds: int | None) -> list[str]:
    """Beginnings of the names of a subject's checkpoints: one, or one per outer fold."""
    return [f"encoder-fold-{number + 1}" for number in range(n_folds)] if n_folds else ["encoder"]


def encoders_of(run: RunFolder, subject: str, *, name: str = "encoder") -> list[State]:
    """All fitted models of a subject: one, or one per outer fold. name: of a run that keeps encoders of several networks."""
    names = fold_names(run.facts.get("n_outer_folds")) if name == "encoder" else [name]
    return [load_encoder(run, subject, name=one) for one in names]


def write_voxel_maps(
    run: RunFolder, given: EncodedSubject, by_voxel: Mapping[str, np.ndarray], encoders: Sequence[State]
) -> None:
    """artifacts/voxels-SUBJECT.npz (see the module). Of several folds: the layer that most of them chose, mean penalty."""
    voxels = given.voxels
    arrays = {key: values.astype(np.float32) for key, values in by_voxel.items()}
    chosen = np.stack([encoder["layers"].numpy() for encoder in encoders])
    counts = np.stack([(chosen == number).sum(0) for number in range(len(encoders[0]["names"]))])
    arrays |= {
        "layer": counts.argmax(0),
        "penalty": np.exp(np.mean([np.log(encoder["penalties"].numpy()) for encoder in encoders], axis=0)),
        "layer_names": np.array(list(encoders[0]["names"])),
    }
    if all("layer_scores" in encoder for encoder in encoders):
        arrays["layer_scores"] = np.mean([encoder["layer_scores"].numpy() for encoder in encoders], axis=0)
    rois = {name: mask[voxels] for name, mask in given.responses.rois.items() if mask[voxels].any()}
    arrays["roi_names"] = np.array(list(rois), dtype=str)
    arrays["roi_masks"] = np.stack(list(rois.values())) if rois else np.zeros((0, len(voxels)), bool)
    write_arrays(
        run.path / "artifacts" / f"voxels-{given.name}.npz",
        voxel=voxels,
        **given.responses.geometry.take(voxels).arrays(),
        **arrays,
    )


def write_predictions(run: RunFolder, subject: str, ids: Sequence[str], found: Predictions) -> None:
    """predictions/SUBJECT.npz (see the module)."""
    others = {name: getattr(found, name) for name in ("untuned", "tuned") if getattr(found, name) is not None}
    path = run.path / "predictions" / f"{subject}.npz"
    write_arrays(path, id=np.array(list(ids)), predicted=found.predicted, measured=found.measured, **others)


def read_predictions(run: RunFolder, subject: str) -> dict[str, np.ndarray]:
    """id (image,), predicted and measured (image, voxel) of an evaluated run; `FileError` where it was not evaluated."""
    return _read(run, f"predictions/{subject}.npz", ("id", "predicted", "measured"))


def read_voxel_maps(run: RunFolder, subject: str) -> dict[str, np.ndarray]:
    """The arrays of artifacts/voxels-SUBJECT.npz; `FileError` where the run was not evaluated."""
    return _read(run, f"artifacts/voxels-{subject}.npz", ("voxel", "r"))


def _read(run: RunFolder, name: str, needed: Sequence[str]) -> dict[str, np.ndarray]:
    path = run.path / name
    if not path.is_file():
        raise FileError(f"{path}: is not there; run `pulvinar evaluate {run.path}` first")
    arrays = read_arrays(path)
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise FileError(f"{path}: no array '{missing[0]}'; there are: {', '.join(arrays)}")
    return arrays


def region_masks(maps: Mapping[str, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """(ROI, hemisphere) -> which encoded voxels are in it (bool), ('all', 'both') first; by the names in the maps."""
    n_voxels = len(maps["voxel"])
    found = {("all", "both"): np.ones(n_voxels, bool)}
    for name, inside in zip(maps.get("roi_names", ()), maps.get("roi_masks", ()), strict=True):
        side = str(name)[:2] if str(name)[:3] in ("lh.", "rh.") else "both"
        plain = str(name)[3:] if side != "both" else str(name)
        found[plain, side] = inside
        if side != "both":
            found[plain, "both"] = found.get((plain, "both"), np.zeros(n_voxels, bool)) | inside
    return found


def hemisphere_places(maps: Mapping[str, np.ndarray], side: str, roi: str | None = None) -> np.ndarray:
    """Places (among the encoded voxels) of a hemisphere ('lh' or 'rh'), in an ROI or in all: by the ROI's name, else by x."""
    regions = region_masks(maps)
    if roi is not None and (roi, side) in regions:
        return np.flatnonzero(regions[roi, side])
    x = maps["coordinates"][:, 0]
    inside = (x < 0) if side == "lh" else (x > 0)
    if roi is None:
        return np.flatnonzero(inside)
    if (roi, "both") not in regions:
        known = sorted({name for name, _ in regions})
        raise NotFoundError(f"roi: no encoded voxel is in an ROI '{roi}'; there are: {', '.join(known)}")
    return np.flatnonzero(regions[roi, "both"] & inside)
