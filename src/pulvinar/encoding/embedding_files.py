"""Embeddings of a stimulus set computed once and kept in a file: float16 .npy, read as a memory map.

    clip.npy    float16 (image, dim) or (image, token, dim), row i is stimulus i
    clip.json   network, SHA-256 of the weights, preprocessing, which stimuli; SHA-256 of clip.npy, compared when it is read
    clip.csv    row and id of each stimulus, by which the rows are found again

Work goes on in clip.npy.unfinished, batch by batch; an interrupted one is continued if it is of the same network and images.
"""

import csv
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pulvinar.core import devices
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import bar, log
from pulvinar.core.storage import checksum, fingerprint, read_json, refuse_existing, to_jsonable, write_json, write_text
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.staged import image_rows
from pulvinar.networks.vision_towers import VisionTower

LARGEST = float(np.finfo(np.float16).max)


def write_embedding(
    tower: VisionTower, stimuli: Stimuli, out: str | os.PathLike[str], *, tokens: bool, batch_size: int = 32
) -> dict[str, Any]:
    """Write the file, its .json and .csv; what the .json says. `FileError` if `out` exists or unfinished work does not fit."""
    out = Path(out)
    if out.suffix != ".npy":
        raise InputError(f"--out {out}: a name that ends in .npy is needed")
    if batch_size < 1:
        raise InputError(f"batch_size: 1 or more are needed, {batch_size} came")
    refuse_existing(out)
    refuse_existing(out.with_suffix(".csv"))
    if stimuli.read_image is None:
        raise InputError("these stimuli came without images; there is nothing to embed")
    tower.to(devices.current())
    first = tower.embed(image_rows(stimuli, 0, 1), tokens=tokens)[0]
    facts = to_jsonable(
        {
            "format": 1,
            **tower.made_from(),
            "tokens": tokens,
            "stimuli": fingerprint(*stimuli.ids),
            "shape": [len(stimuli), *first.shape],
        }
    )
    work, notes = out.with_name(out.name + ".unfinished"), out.with_name(out.name + ".unfinished.json")
    try:
        with _begun(work, notes, facts).open("r+b") as file:
            _compute(tower, stimuli, file, facts, tokens=tokens, batch_size=batch_size)
        facts["sha256"] = checksum(work)
        write_json(out.with_suffix(".json"), facts)
        write_text(out.with_suffix(".csv"), _ids_text(stimuli))
        work.replace(out)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{work}: cannot be written: {error.strerror or error}; run again to continue") from error
    notes.unlink(missing_ok=True)
    return facts


def _ids_text(stimuli: Stimuli) -> str:
    """row,id of every stimulus, as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("row", "id"), *enumerate(stimuli.ids)])
    return text.getvalue()


def _begun(work: Path, notes: Path, facts: dict[str, Any]) -> Path:
    """The file to go on with; a new one holds its header."""
    if work.is_file() and notes.is_file():
        if read_json(notes) != facts:
            raise FileError(f"{work}: unfinished work of another network, other weights or other images; remove it first")
        return work
    work.parent.mkdir(parents=True, exist_ok=True)
    write_json(notes, facts)
    with work.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": tuple(facts["shape"])}
        np.lib.format.write_array_header_1_0(file, header)
    return work


def _compute(
    tower: VisionTower, stimuli: Stimuli, file: BinaryIO, facts: dict[str, Any], *, tokens: bool, batch_size: int
) -> None:  # fmt: skip
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    start, row_bytes = file.tell(), 2 * int(np.prod(facts["shape"][1:]))
    done = (os.fstat(file.fileno()).st_size - start) // row_bytes
    file.truncate(start + done * row_bytes)
    file.seek(0, os.SEEK_END)
    if done:
        log(f"continuing after {done} of {len(stimuli)} images")
    with bar(f"embeddings of {tower.name}", len(stimuli)) as shown:
        shown.advance(done)
        for row in range(done, len(stimuli), batch_size):
            values = tower.embed(image_rows(stimuli, row, row + batch_size), tokens=tokens)
            if not (np.abs(values) <= LARGEST).all():
                raise InputError(f"{tower.name}: embeddings that are not finite, or too large for float16 ({LARGEST:.0f})")
            file.write(np.ascontiguousarray(values, "<f2").tobytes())
            shown.advance(len(values))
    file.flush()
    os.fsync(file.fileno())
