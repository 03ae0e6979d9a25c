"""Confounds of fMRIPrep by the names of their strategies, as nilearn's `load_confounds` takes them.

A table belongs to a series by its entities: `*_desc-confounds_timeseries.tsv` (before fMRIPrep 20.2 `_regressors.tsv`) in its
folder, without `space` and the like. The first row of derivatives and of framewise displacement is n/a, for which nilearn
takes the second row; n/a anywhere else is refused. Volumes before the steady state are left out always, those that moved with
`scrub`.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.core.storage import reads
from pulvinar.data.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("motion", "high_pass", "wm_csf", "global_signal", "compcor", "ica_aroma", "scrub")
PRESETS = ("simple", "scrubbing", "compcor", "ica_aroma")  # of nilearn's load_confounds_strategy
WITH_COSINES = ("high_pass", *PRESETS)  # bring fMRIPrep's own cosines
Model = Literal["basic", "derivatives", "power2", "full"]
CompCor = Literal["anat_combined", "anat_separated", "temporal", "temporal_anat_combined", "temporal_anat_separated"]


@dataclass(frozen=True, kw_only=True)
class ConfoundSettings:
    """Which confounds; names and values are nilearn's. names: parts of a strategy, or one preset; none: no confounds."""

    names: tuple[str, ...] = ()
    motion: Model = "full"
    wm_csf: Model = "basic"
    global_signal: Model = "basic"
    compcor: CompCor = "anat_combined"
    n_compcor: int | None = None
    scrub: int = 5
    fd_threshold_mm: float = 0.5
    std_dvars_threshold: float = 1.5

    @property
    def preset(self) -> str | None:
        """The one preset that is asked for. A single compcor or ica_aroma is nilearn's preset of that name."""
        return self.names[0] if len(self.names) == 1 and self.names[0] in PRESETS else None

    @property
    def has_cosines(self) -> bool:
        """Whether fMRIPrep's cosines are among them."""
        return self.preset is not None or "high_pass" in self.names


def require_names(names: tuple[str, ...]) -> list[str]:
    """What is wrong with a list of names: lines for the mistakes of settings."""
    if len(names) == 1 and names[0] in PRESETS:
        return []
    unknown = [name for name in names if name not in PARTS]
    if unknown and unknown[0] in PRESETS:
        return [f"confounds: {unknown[0]} is a preset and stands alone; parts are {', '.join(PARTS)}"]
    if unknown:
        return [f"confounds: {', '.join(unknown)} came; presets are {', '.join(PRESETS)}, parts {', '.join(PARTS)}"]
    if "compcor" in names and "high_pass" not in names:
        return ["confounds: compcor components were made of series without their cosines; take high_pass with them"]
    return []


@dataclass(frozen=True, kw_only=True, eq=False)
class Confounds:
    """table: a row for each volume, or None for no confounds. kept: volumes (indices) that are used."""

    table: "pd.DataFrame | None"
    kept: np.ndarray


@reads("confounds of fMRIPrep")
def read_confounds(bold: Path, settings: ConfoundSettings, n_volumes: int) -> Confounds:
    """The confounds of one series, by nilearn.

    Raises `InputError` naming the series where its table is missing, doubled, of another length, from before fMRIPrep 1.2,
    without a column that is asked for, or has n/a below its first row.
    """
    if not settings.names:
        return Confounds(table=None, kept=np.arange(n_volumes))
    from nilearn.interfaces.fmriprep import load_confounds, load_confounds_strategy

    _refuse_ragged(bold)
    told = {
        "motion": settings.motion,
        "wm_csf": settings.wm_csf,
        "global_signal": settings.global_signal,
        "compcor": settings.compcor,
        "n_compcor": "all" if settings.n_compcor is None else settings.n_compcor,
        "scrub": settings.scrub,
        "fd_threshold": settings.fd_threshold_mm,
        "std_dvars_threshold": settings.std_dvars_threshold,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parameters that a preset does not take
            if settings.preset is not None:
                own = {name: told[name] for name in PRESET_TAKES[settings.preset]}
                table, kept = load_confounds_strategy(str(bold), denoise_strategy=settings.preset, **own)
            else:
                aroma = {"ica_aroma": "basic"} if "ica_aroma" in settings.names else {}
                table, kept = load_confounds(str(bold), strategy=settings.names, **told, **aroma)
    except Exception as error:  # nilearn's own kinds among them, and pandas'
        raise InputError(f"{bold}: its confounds: {_said(error)}") from error
    return _checked(bold, table, kept, n_volumes)


PRESET_TAKES = {
    "simple": ("motion", "wm_csf"),
    "scrubbing": ("motion", "scrub", "fd_threshold", "std_dvars_threshold"),
    "compcor": ("motion", "compcor", "n_compcor"),
    "ica_aroma": ("wm_csf",),
}


def _said(error: Exception) -> str:
    """An error of nilearn's in one line; that of missing columns says which."""
    missing = [*getattr(error, "params", ()), *getattr(error, "keywords", ())]
    if missing or isinstance(error, KeyError):
        return f"not in the table: {', '.join(map(str, missing)) or error.args[0]}"
    return " ".join(str(error).split()) or type(error).__name__


def _refuse_ragged(bold: Path) -> None:
    """Rows of other lengths are taken for an index by pandas; a cell that is neither a number nor n/a makes text of a
    column."""
    stem = bold.name.split("_space-")[0].split("_desc-")[0]
    for path in sorted(bold.parent.glob(f"{stem}*desc-confounds_*.tsv")):
        read_table(path)


def _checked(bold: Path, table: Any, kept: np.ndarray | None, n_volumes: int) -> Confounds:
    if table is not None and len(table) != n_volumes:
        raise InputError(f"{bold}: {n_volumes} volumes, but its confounds have {len(table)} rows")
    if table is not None and table.shape[1]:
        try:
            values = table.to_numpy(float)
        except (TypeError, ValueError) as error:
            raise InputError(f"{bold}: its confounds hold what is no number: {_said(error)}") from error
        wrong = [str(name) for name, bad in zip(table.columns, ~np.isfinite(values).all(0), strict=True) if bad]
        if wrong:
            raise InputError(f"{bold}: its confounds {', '.join(wrong[:4])} have n/a below the first row")
    rows = np.arange(n_volumes) if kept is None else np.asarray(kept, int)
    if len(rows) < n_volumes:
        log(f"{bold.name}: {n_volumes - len(rows)} of {n_volumes} volumes are left out (not yet steady, or scrubbed)")
    return Confounds(table=table if table is None or table.shape[1] else None, kept=rows)
