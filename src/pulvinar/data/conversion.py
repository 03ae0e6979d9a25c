"""Writes a large experiment as a folder, session by session; what an interrupted conversion has written is kept and checked.

Work goes on in `OUT.unfinished` beside OUT, which gets its name at the end. There, `progress.json` lists the SHA-256 of every
block of trials (one session of one subject) that has been written. A block that is listed and whose bytes still have that
checksum is not read from the source again. In memory is one session, or some trials of it where the source can be read so, and
what the source itself keeps.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core import memory
from pulvinar.core.errors import FileError
from pulvinar.core.hdf5 import map_hdf5_array
from pulvinar.core.progress import Bar, bar, log, track
from pulvinar.core.sampling import blocks_of
from pulvinar.core.storage import atomic_path, fingerprint, read_json, refuse_existing, write_json
from pulvinar.data.experiment import (
    Experiment,
    create_response_file,
    image_path,
    refuse_unwritable_names,
    write_tables,
)
from pulvinar.data.image_files import ImageFiles
from pulvinar.data.responses import Responses
from pulvinar.data.session_values import SessionValues
from pulvinar.data.stimuli import Stimuli

TRIALS_AT_ONCE = 16
Blocks = dict[str, dict[str, str]]


def convert(experiment: Experiment, out: str | os.PathLike[str]) -> Path:
    """Write an experiment as a folder (docs/folder.md), resuming `OUT.unfinished` if that is of the same experiment.

    Images are written as .png and their pixels compared: `LeakError` if one of the test is also in the training set.
    `FileError` if `out` exists, or `OUT.unfinished` is of another experiment.
    """
    out = Path(out)
    refuse_existing(out)
    refuse_unwritable_names(experiment)
    work = out.with_name(out.name + ".unfinished")
    blocks = _begin(experiment, work)
    n_blocks = sum(len(list(_ranges(responses))) for responses in experiment.subjects.values())
    with bar("converting sessions", n_blocks) as shown:
        for responses in experiment.subjects.values():
            _write_blocks(responses, work, blocks, shown)
    whole = dataclasses.replace(experiment, stimuli=_write_images(experiment, work))  # checks the split by the pixels
    progress = work / "progress.json"
    kept = read_json(progress)
    progress.unlink()
    try:
        write_tables(whole, work)
        refuse_existing(out)
        work.rename(out)
    except BaseException:
        write_json(progress, kept)
        raise
    return out


def _begin(experiment: Experiment, work: Path) -> Blocks:
    """The blocks that an earlier conversion of the same experiment has written."""
    key = _key(experiment)
    if not work.exists():
        work.mkdir(parents=True)
        write_json(work / "progress.json", {"experiment": key, "blocks": {}})
        return {}
    if not (work / "progress.json").is_file() or (found := read_json(work / "progress.json")).get("experiment") != key:
        raise FileError(f"{work}: an unfinished conversion of another experiment (or with other options); remove it first")
    log(f"continuing {work}")
    return found["blocks"]


def _key(experiment: Experiment) -> str:
    """Changes with the tables, sizes and places of voxels; reads no responses."""
    parts = [experiment.name, experiment.target, tuple(experiment.stimuli.ids), experiment.split, str(experiment.facts)]
    parts += [tuple(experiment.stimuli.features), experiment.stimuli.read_image is None]
    for name, responses in experiment.subjects.items():
        parts += [name, tuple(responses.stimulus_ids), responses.values.shape, str(responses.values.dtype)]
        parts += [responses.geometry.coordinates, tuple(responses.rois)]
    return fingerprint(*parts)


def _ranges(responses: Responses) -> Iterator[tuple[int, int]]:
    """First and past-the-last trial of each run of trials of one session."""
    ends = np.flatnonzero(np.diff(responses.sessions)) + 1
    yield from zip([0, *ends.tolist()], [*ends.tolist(), responses.n_trials], strict=True)


def _write_blocks(responses: Responses, work: Path, blocks: Blocks, shown: Bar) -> None:
    name = f"responses/{responses.subject}.h5"
    path = work / name
    if name not in blocks or not path.is_file():
        with atomic_path(path) as temporary:
            create_response_file(responses, temporary)
        blocks[name] = {}
    mapped = map_hdf5_array(path, "values")
    offset = getattr(mapped, "offset", 0)
    values: np.memmap = np.memmap(path, dtype=mapped.dtype, mode="r+", offset=offset, shape=mapped.shape)
    for start, end in _ranges(responses):
        block = f"{start}:{end}"
        if blocks[name].get(block) != _checksum(values, start, end):
            place = start
            for piece in _pieces(responses, start, end):
                values[place : place + len(piece)] = piece
                place += len(piece)
                memory.release(values)
            values.flush()
            blocks[name][block] = _checksum(values, start, end)
            write_json(work / "progress.json", {**read_json(work / "progress.json"), "blocks": blocks})
        shown.advance(note=f"{responses.subject}, trials {start} to {end - 1}")


def _pieces(responses: Responses, start: int, end: int) -> Iterator[np.ndarray]:
    """The stored values of these trials, in order, some at a time."""
    if isinstance(responses.values, SessionValues):
        yield from responses.values.pieces(start, end)
        return
    for block in blocks_of(end - start, TRIALS_AT_ONCE):
        yield responses.values[start + block.start : start + block.stop]
        memory.release(responses.values)


def _checksum(values: np.ndarray, start: int, end: int) -> str:
    """SHA-256 of the bytes of these trials."""
    found = hashlib.sha256()
    for block in blocks_of(end - start, TRIALS_AT_ONCE):
        found.update(np.ascontiguousarray(values[start + block.start : start + block.stop]).data)
        memory.release(values)
    return found.hexdigest()


def _write_images(experiment: Experiment, work: Path) -> Stimuli:
    """The stimuli with what their pixels are, after every image that is not there yet has been written."""
    stimuli = experiment.stimuli
    if stimuli.read_image is None:
        return dataclasses.replace(stimuli, pixel_keys=None)
    (work / "images").mkdir(exist_ok=True)
    paths = [image_path(work, name) for name in stimuli.ids]
    written, keys = ImageFiles(paths), []
    for row in track(range(len(stimuli)), "writing images", len(stimuli)):
        try:
            pixels = written(row)
        except FileError:  # not there yet, or cut short by what ended the earlier conversion
            Image.fromarray(stimuli.image(row)).save(paths[row], compress_level=1)
            pixels = written(row)
        keys.append(fingerprint(pixels))
    return dataclasses.replace(stimuli, pixel_keys=keys)
