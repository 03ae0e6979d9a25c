"""When the volumes of a run were acquired: from the sidecar's VolumeTiming, or start and repetition time.

    t_i = StartTime + VolumeTiming_i        (a run with a pause, or sparse sampling)
    t_i = StartTime + i * RepetitionTime    (s; StartTime 0 where it is not stated)

The repetition time comes from the sidecar or the header, which must agree. Many tools lose the header's: they leave 1.0 or 0,
which counts only where a sidecar or a person says so. Milliseconds are recognised: no volume takes 100 s or more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log, warn
from pulvinar.data.bids import Stated, sidecar_values
from pulvinar.data.brain_files import read_series_header

KEYS = ("RepetitionTime", "VolumeTiming", "StartTime", "SliceTimingCorrected")
SHORTEST_S, LONGEST_S = 0.05, 30.0  # of a volume
MILLISECONDS_FROM = 100.0
LOST_S = 1.0  # what tools write that do not know the repetition time
AGREE_S = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeTimes:
    """times: s after the run's beginning, increasing (volume,). step: s from one volume to the next (the median)."""

    times: np.ndarray
    step: float

    @property
    def end(self) -> float:
        """When the last volume is over, in s."""
        return float(self.times[-1]) + self.step


def volume_times(bold: Path, *, raw: Path, repetition_time: float | None = None) -> VolumeTimes:
    """Times of the volumes of one series, from its sidecars, those of the raw data, its header, and what is given.

    raw: the folder of the subject's raw data (where its events lie). repetition_time: given by a person, in s (or ms); it
    stands above sidecar and header.

    Raises `InputError` naming file and value where times cannot be, contradict each other, or are not known.
    """
    n_volumes, header = read_series_header(bold)
    given = None if repetition_time is None else as_seconds(repetition_time, "repetition_time", "the description")
    stated = _stated(bold, raw, contradict=given is not None)
    start = _start(stated)
    if "VolumeTiming" in stated:
        times = _volume_timing(stated["VolumeTiming"], n_volumes)
        _refuse_other_step(times, stated, given)
        return VolumeTimes(times=start + times, step=float(np.median(np.diff(times))) if len(times) > 1 else 0.0)
    step = given if given is not None else _repetition_time(bold, stated, header, n_volumes)
    return VolumeTimes(times=start + step * np.arange(n_volumes), step=step)


def as_seconds(value: Any, what: str, where: object) -> float:
    """A repetition time in s, also from ms; `InputError` if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if SHORTEST_S <= value <= LONGEST_S:
            return float(value)
        if MILLISECONDS_FROM <= value <= 1000 * LONGEST_S:
            log(f"{where}: {what} {value:g} is taken for milliseconds")
            return value / 1000
    raise InputError(
        f"{where}: {what} {value!r} cannot be; a repetition time lies between {SHORTEST_S:g} and {LONGEST_S:g} s. "
        "Say it with repetition_time = (s)"
    )


def _stated(bold: Path, raw: Path, *, contradict: bool) -> dict[str, Stated]:
    """What sidecars say, those beside the series before those of the raw data; `contradict`: whether they may disagree."""
    own = sidecar_values(bold.name, bold.parent, KEYS)
    of_raw = {key: stated for key, stated in sidecar_values(bold.name, raw, KEYS[:2]).items() if stated.path not in _paths(own)}
    key = KEYS[0]
    if key in own and key in of_raw and not contradict:
        here, there = (as_seconds(one[key].value, key, one[key].path) for one in (own, of_raw))
        if abs(here - there) > AGREE_S:
            raise InputError(
                f"{own[key].path} says {key} {here:g} s, {of_raw[key].path} says {there:g} s; which is right? "
                "Say it with repetition_time = (s)"
            )
    return {**of_raw, **own}


def _paths(stated: Mapping[str, Stated]) -> set[Path]:
    return {one.path for one in stated.values()}


def _repetition_time(bold: Path, stated: Mapping[str, Stated], header: float | None, n_volumes: int) -> float:
    if "RepetitionTime" not in stated:
        if header is None or abs(header - LOST_S) < 1e-6:
            raise InputError(
                f"{bold}: the repetition time is not known: the header says {header or 0:g} s, as files do whose repetition "
                "time was lost, and no sidecar has RepetitionTime. Say it with repetition_time = (s)"
            )
        return as_seconds(header, "the header's repetition time", bold)
    place = stated["RepetitionTime"]
    step = as_seconds(place.value, "RepetitionTime", place.path)
    if header is None:
        return step
    other = header / 1000 if header >= MILLISECONDS_FROM else header
    if abs(other - step) > AGREE_S or abs(other - step) * n_volumes > step / 2:
        raise InputError(
            f"{bold}: the header says {other:g} s per volume, {place.path.name} says {step:g}; which is right? "
            f"Say it with repetition_time = {step:g} or {other:g}"
        )
    return step


def _start(stated: Mapping[str, Stated]) -> float:
    """StartTime in s, 0 without one; read in the unit of the repetition time beside it."""
    if "StartTime" not in stated:
        if "SliceTimingCorrected" in stated and stated["SliceTimingCorrected"].value is True:
            warn(
                f"{stated['SliceTimingCorrected'].path}: says SliceTimingCorrected, but no StartTime: to which moment of "
                "each volume is not known; its beginning is taken (fMRIPrep's usual one is the middle, half a repetition time)"
            )
        return 0.0
    place = stated["StartTime"]
    value, step = place.value, stated["RepetitionTime"].value if "RepetitionTime" in stated else 0.0
    if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
        if value == 0 or (abs(value) <= LONGEST_S and not _is_milliseconds(step)):
            return float(value)
        if _is_milliseconds(value) and _is_milliseconds(step) and abs(value) <= abs(step):
            return float(value) / 1000
    raise InputError(f"{place.path}: StartTime {value!r} cannot be, or its unit cannot be told; it is a time in seconds")


def _is_milliseconds(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) >= MILLISECONDS_FROM


def _volume_timing(place: Stated, n_volumes: int) -> np.ndarray:
    """VolumeTiming in s (volume,): one increasing number for each volume."""
    value = place.value
    numbers = isinstance(value, list) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
    if not numbers or len(value) != n_volumes:
        came = repr(value)
        if isinstance(value, list):
            came = f"{len(value)} entries" if numbers else f"{len(value)} entries, the first {value[:1]},"
        raise InputError(f"{place.path}: VolumeTiming is a list of {n_volumes} times, one for each volume; {came} came")
    times = np.array(value, float)
    steps = np.diff(times)
    if not np.isfinite(times).all() or (steps <= 0).any() or times.min() < 0:
        raise InputError(f"{place.path}: VolumeTiming must be increasing times in seconds, from 0 on")
    if len(steps) and np.median(steps) >= MILLISECONDS_FROM:
        log(f"{place.path}: VolumeTiming is taken for milliseconds")
        return times / 1000
    return times


def _refuse_other_step(times: np.ndarray, stated: Mapping[str, Stated], given: float | None) -> None:
    """VolumeTiming and a repetition time exclude each other, unless they say the same."""
    place = stated["VolumeTiming"]
    steps = {"repetition_time": given}
    if "RepetitionTime" in stated:
        own = stated["RepetitionTime"]
        steps["RepetitionTime"] = as_seconds(own.value, "RepetitionTime", own.path)
    for name, step in steps.items():
        if step is not None and np.abs(np.diff(times) - step).max(initial=0.0) > AGREE_S:
            raise InputError(
                f"{place.path}: VolumeTiming is not one volume every {step:g} s, as {name} says; leave one of the two out "
                "(BIDS: they exclude each other)"
            )
