"""Which folders of a BIDS tree are read: the raw data with the events, and those that hold the series."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import read_json
from pulvinar.data.set_folder import choose_subjects
from pulvinar.datasets.bids.settings import Options

RAW = "raw"
SERIES = ("_bold.nii.gz", "_bold.nii")
SURFACES = ("_bold.func.gii", "_bold.dtseries.nii")


@dataclass(frozen=True, kw_only=True)
class Folders:
    """raw: where events lie. series: where series lie; `raw` itself for raw ones. pipeline: its name, or 'raw'."""

    raw: Path
    series: Path
    pipeline: str

    @property
    def is_raw(self) -> bool:
        """Whether the series are raw."""
        return self.pipeline == RAW

    @property
    def derivatives(self) -> Path:
        """The folder of derivatives of the raw data."""
        return self.raw / "derivatives"


def subject_name(text: str) -> str:
    """'sub-01' for '01' or 'sub-01'."""
    return text if text.startswith("sub-") else f"sub-{text}"


def find_folders(root: Path, options: Options) -> Folders:
    """The folders of raw data and series; `FileError` or `InputError` says what is there instead, and which option chooses."""
    if not root.is_dir():
        raise FileError(f"{root}: no such folder of BIDS data")
    if not subjects_in(root) and not (root / "derivatives").is_dir():
        raise FileError(f"{root}: holds no sub-XX, as a BIDS folder does (is it one above, or below?)")
    if _is_derivative(root):
        if options.derivatives is not None:
            raise InputError(f"{root}: is itself a folder of derivatives, so derivatives={options.derivatives} says nothing")
        return Folders(raw=_raw_of(root, options.raw), series=root, pipeline=root.resolve().name)
    if options.raw is not None:
        raise InputError(f"{root}: holds raw data; raw={options.raw} is for a folder of derivatives alone")
    there = pipelines(root / "derivatives")
    if options.derivatives == RAW or (options.derivatives is None and not there):
        return Folders(raw=root, series=root, pipeline=RAW)
    if options.derivatives is not None:
        if options.derivatives not in there:
            raise NotFoundError(
                f"{root}: no series in derivatives/{options.derivatives}{suggest(options.derivatives, [*there, RAW])}"
            )
        return Folders(raw=root, series=there[options.derivatives], pipeline=options.derivatives)
    if len(there) > 1:
        raise InputError(
            f"{root}: several folders of derivatives hold series: {', '.join(there)}; choose one with derivatives=..., or {RAW}"
        )
    name, place = next(iter(there.items()))
    return Folders(raw=root, series=place, pipeline=name)


def pipelines(folder: Path) -> dict[str, Path]:
    """Name -> folder of the derivatives that hold preprocessed series (their names have `desc`)."""
    places = sorted(place for place in folder.glob("*") if place.is_dir() and not place.name.startswith("."))
    return {place.name: place for place in places if _series_in(place, "*_desc-*")}


def subjects_in(folder: Path) -> list[str]:
    """The sub-XX of a folder, sorted."""
    return sorted(place.name for place in folder.glob("sub-*") if place.is_dir())


def subjects_of(folders: Folders, options: Options) -> list[str]:
    """The subjects to read: those asked for, or all that have series."""
    there = [name for name in subjects_in(folders.series) if _series_in(folders.series, "*", name)]
    if not there and any(list(folders.series.glob(f"sub-*/**/*{suffix}")) for suffix in SURFACES):
        raise FileError(
            f"{folders.series}: only series on surfaces are there ({', '.join(SURFACES)}), which are not read from BIDS; name "
            f"their "
            "betas in a description (docs/data.md), or have a volume written (fMRIPrep: --output-spaces)"
        )
    what = "series (sub-XX/[ses-YY/]func/*_bold.nii.gz)" + ("" if folders.is_raw else f" in {folders.series.name}")
    return choose_subjects(folders.series, there, [subject_name(name) for name in options.subjects], what=what)


def _series_in(folder: Path, pattern: str, subject: str = "sub-*") -> bool:
    places = [f"{subject}/{session}func/{pattern}{suffix}" for session in ("", "ses-*/") for suffix in SERIES]
    return any(next(iter(folder.glob(place)), None) for place in places)


def _is_derivative(root: Path) -> bool:
    described = root / "dataset_description.json"
    if described.is_file():
        content = read_json(described)
        if isinstance(content, dict) and content.get("DatasetType") in ("raw", "derivative"):
            return content["DatasetType"] == "derivative"
    return _series_in(root, "*_desc-*")


def _raw_of(root: Path, given: str | None) -> Path:
    """The raw data that a folder of derivatives was made of."""
    if given is not None:
        place = Path(given)
        if not subjects_in(place):
            raise FileError(f"{place}: raw: holds no sub-XX with events")
        return place
    above = root.resolve().parent
    places: Sequence[Path] = [above.parent] if above.name == "derivatives" else []
    for place in (*places, root):
        if next(iter(place.glob("sub-*/**/*_events.tsv")), None) or next(iter(place.glob("*_events.tsv")), None):
            return place
    raise FileError(f"{root}: is a folder of derivatives without events; say with raw=DIR where the raw data lie")
