"""`pulvinar predict`: what a finished run predicts for new images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.app import registry
from pulvinar.app.stored_runs import uses_run
from pulvinar.core import devices
from pulvinar.core.config import build
from pulvinar.core.errors import InputError
from pulvinar.core.storage import atomic_path, refuse_existing, write_arrays, write_text
from pulvinar.data.image_files import ImageFiles, find_images
from pulvinar.data.pictures import PictureOptions
from pulvinar.data.source_options import parse_source
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.table import csv_text


@uses_run
def predict(run: str, *, images: str, out: str) -> dict[str, Any]:
    """What a finished run predicts for a folder of images (file names sorted), as .npy or .npz; names of the rows as .csv."""
    order = Path(out).with_suffix(".csv")
    for path in (out, order):
        refuse_existing(path)
    if Path(out).suffix not in (".npy", ".npz"):
        raise InputError(f"--out {out}: a name that ends in .npy or .npz is needed")
    fitted, method = _predicting(run)
    folder, files = _pictures(images)
    arrays = _predicted(fitted, method, _of_files(images, list(files), list(files.values())))
    _write_prediction(Path(out), arrays, list(files))
    rows = [
        {"row": row, "file": path.relative_to(folder).as_posix(), "id": name} for row, (name, path) in enumerate(files.items())
    ]
    write_text(order, csv_text(rows))
    shapes = {name: list(values.shape) for name, values in arrays.items()}
    return {"run": run, "out": out, "order": str(order), "arrays": shapes}


@uses_run
def predicted(run: str, images: "str | Path | np.ndarray | Stimuli") -> dict[str, np.ndarray]:
    """The arrays that `predict` would write into an .npz, the names of their rows under 'id'.

    images: a folder of pictures, uint8 (image, height, width, 3), or stimuli with images.
    """
    fitted, method = _predicting(run)
    if isinstance(images, str | Path):
        files = _pictures(str(images))[1]
        stimuli = _of_files(str(images), list(files), list(files.values()))
    elif isinstance(images, Stimuli):
        stimuli = images
    else:
        pixels = np.asarray(images)
        names = [f"image-{row}" for row in range(len(pixels))]
        stimuli = Stimuli(ids=names, sources=names, read_image=lambda row: pixels[row])
    return {**_predicted(fitted, method, stimuli), "id": np.array(list(stimuli.ids))}


def _predicting(run: str) -> tuple[RunFolder, Method]:
    fitted = RunFolder.reopen(run)
    method = registry.method(fitted.method)
    if method.predict is None:
        raise InputError(f"{run}: a run of {fitted.method} predicts nothing for new images")
    return fitted.require(method=fitted.method), method


def _predicted(fitted: RunFolder, method: Method, stimuli: Stimuli) -> dict[str, np.ndarray]:
    if method.predict is None:
        raise InputError(f"{fitted.path}: a run of {method.name} predicts nothing for new images")
    config = build(method.config, fitted.settings(), name=fitted.method)
    with devices.using(config.device):
        return method.predict(fitted, stimuli, config)


def _pictures(images: str) -> tuple[Path, dict[str, Path]]:
    """A folder and its pictures by id, in the order of their names."""
    folder, _ = parse_source(images, PictureOptions, name="images")
    return folder, dict(sorted(find_images(folder).items(), key=lambda item: item[1].relative_to(folder).as_posix()))


def _of_files(images: str, names: Sequence[str], paths: Sequence[Path]) -> Stimuli:
    options = parse_source(images, PictureOptions, name="images")[1]
    return Stimuli(ids=names, sources=names, read_image=ImageFiles(list(paths), options))


def _write_prediction(out: Path, arrays: dict[str, np.ndarray], ids: Sequence[str]) -> None:
    """One array as .npy or .npz, several as .npz; an .npz names its rows (`id`)."""
    if out.suffix == ".npy" and len(arrays) > 1:
        raise InputError(
            f"--out {out}: there are {len(arrays)} arrays ({', '.join(arrays)}); a name that ends in .npz is needed"
        )
    if out.suffix == ".npz":
        write_arrays(out, **arrays, id=np.array(list(ids)))
        return
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.save(file, next(iter(arrays.values())), allow_pickle=False)
