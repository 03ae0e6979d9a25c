"""The interactive view of a decoding run: its selection against the reference, its weights, its rivals' selections."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from pulvinar.decoding import roi_figure
from pulvinar.report import viewer
from pulvinar.report.run_folder import SCORE, Maps, Run, read_arrays
from pulvinar.report.tables import label
from pulvinar.report.viewer import Layer, Viewer

N_CONTROLS = 4  # those with the highest scores


def views(run: Run) -> dict[str, Viewer]:
    """The view of the run's voxels, under the name 'brain'; none without maps."""
    if run.maps is None:
        return {}
    data: Mapping[str, object] = run.facts.get("data") or {}
    return {"brain": viewer.make(run.maps.geometry, list(layers(run, run.maps)), space=str(data.get("space") or ""))}


def layers(run: Run, maps: Maps) -> Iterator[Layer]:
    """The run's selection, its weights, and other selections that were scored in its table."""
    reference = str((run.evaluation or {}).get("reference") or "")
    chosen_by_score = (run.facts.get("selection") or {}).get("chosen_by")
    yield _agreement(label(run.method), maps, reference)
    yield Layer(name="score of every voxel" if chosen_by_score else "learned weight", values=np.nan_to_num(maps.mask_smoothed))
    for name, selected in _rivals(run, maps):
        yield _agreement(label(name), replace(maps, selected=selected), reference)


def _agreement(name: str, maps: Maps, reference: str) -> Layer:
    words = roi_figure.words(maps, reference)
    codes, values = roi_figure.agreement(maps), np.zeros(len(maps.selected), int)
    for place, code in enumerate(words, start=1):
        values[codes == code] = place
    return Layer(name=name, values=values, kinds=tuple((word, roi_figure.colour(code)) for code, word in words.items()))


def _rivals(run: Run, maps: Maps) -> list[tuple[str, np.ndarray]]:
    """The best scored selections that are neither the run's, nor the reference, nor all voxels, each once."""
    known, found = [maps.selected, maps.reference], []
    for row in sorted((row for row in run.rows if row.get(SCORE) is not None), key=lambda row: -row[SCORE]):
        arrays = read_arrays(run.folder / "predictions" / f"{row['name']}.npz", ("selected",))
        selected = None if arrays is None else arrays["selected"].astype(bool)
        if selected is None or selected.shape != maps.selected.shape or selected.all():
            continue
        if not any(other is not None and np.array_equal(selected, other) for other in known):
            known.append(selected)
            found.append((str(row["name"]), selected))
    return found[:N_CONTROLS]
