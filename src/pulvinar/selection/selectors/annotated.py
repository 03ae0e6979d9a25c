"""The annotated ROI, all its voxels, whatever the budget."""

from pulvinar.selection.selector import Evidence, Selector


def missing(evidence: Evidence) -> str | None:
    """Why there is no such ROI."""
    if evidence.roi in evidence.rois:
        return (
            None if evidence.rois[evidence.roi].any() else f"roi: '{evidence.roi}' of {evidence.subject} has no candidate voxel"
        )
    existing = ", ".join(evidence.rois) or "none"
    message = f"{evidence.subject} has no ROI '{evidence.roi}' (there are: {existing})"
    return f"{message}; choose one with --set roi=NAME" if evidence.rois else message


SELECTOR = Selector(
    name="annotated",
    label="Annotated ROI",
    description=lambda evidence: (
        "the annotated ROI" + (f" '{evidence.roi}', all its voxels" if evidence.roi in evidence.rois else "")
    ),
    score=lambda evidence: evidence.rois[evidence.roi].copy(),
    missing=missing,
    without_budget=True,
    place=1,
)
