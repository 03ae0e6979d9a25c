"""Your own images: an .npz of arrays, or a folder of pictures with or without classes.

FILE.npz          x_train (image, height, width, 3) uint8, uint16 or floating in [0, 1]; optional y_train, x_test, y_test (whole
                  numbers, (image,), (image, 1) or one-hot), class_names (text)
FOLDER/train/CLASS/*.png, FOLDER/test/CLASS/*.png   (or val/ for test/)
FOLDER/train/*.png                                  without labels, for training alone
FOLDER/*.png                                        likewise

`pulvinar data simulate --layout image_files` writes such a folder with classes: crops of photographs that need no download, the
class being the photograph; test images are cut from another part of it than training images.

After the path, options: `FOLDER?size=96&background=black&skip_corrupt=true&cache=DIR` (data/image_folder.py and
data/pictures.py say what they do); of an .npz `FILE.npz?white=4095`, the value of white where it holds uint16.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.errors import ConfigError, FileError, NotFoundError
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, read_arrays, reads
from pulvinar.data.array_files import as_names
from pulvinar.data.dataset import Dataset
from pulvinar.data.image_folder import open_folder
from pulvinar.data.image_set import ImageSet
from pulvinar.data.photographs import BUNDLED, TRAINING_CROPS, bundled_path, crops, read_picture
from pulvinar.data.pictures import PictureOptions, say_left_out
from pulvinar.data.pixels import as_pixels, kind
from pulvinar.data.source_options import parse_source

TRAINED_SHARE = 0.7  # of a planted set's photograph, from the left, that training images are cut from
N_BUNDLED = sum(len(names) for names in BUNDLED.values())
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions):
    """How a folder is read; given after it as ?name=value&name=value."""

    size: int | None = setting(
        None, "pixels a side: shorter side to it, central square; none: images must have one size", at_least=1
    )
    skip_corrupt: bool = setting(False, "leave out files that cannot be read instead of refusing them")
    cache: str | None = setting(None, "folder for the decoded pixels; none: they are held in memory")


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set at a path, an .npz or a folder, with options after a question mark (module docstring)."""
    place, options = parse_source(str(path), Options, name="image_files")
    if place.is_dir():
        return open_folder(place, size=options.size, skip_corrupt=options.skip_corrupt, cache=options.cache, options=options)
    if options != Options(white=options.white):
        raise ConfigError(f"{place}: options but white are for folders of images; leave them out")
    if not place.exists():
        raise FileError(f"{place}: no such file or folder")
    return read_npz(place, white=options.white)


@reads("an .npz of images")
def read_npz(path: str | os.PathLike[str], *, white: int | None = None) -> ImageSet:
    """An image set from named arrays; `NotFoundError` lists what is there when x_train is not. white: of uint16 images."""
    if Path(path).suffix.lower() == ".npy":
        raise FileError(
            f"{path}: holds one array without a name; images are read from an .npz: "
            f"numpy.savez('{Path(path).stem}.npz', x_train=numpy.load('{Path(path).name}'))"
        )
    arrays = read_arrays(path)
    if "x_train" not in arrays:
        raise NotFoundError(
            f"{path}: no array 'x_train'; there are: {', '.join(arrays) or 'none'}; read are {', '.join(ARRAYS)}"
        )
    unused = [name for name in arrays if name not in ARRAYS or (name == "y_test" and "x_test" not in arrays)]
    notes = [f"left out of {path}: {', '.join(unused)}; read are {', '.join(ARRAYS)}"] if unused else []
    say_left_out(notes)
    images = {}
    for name in ("x_train", "x_test"):
        if name in arrays:
            images[name] = as_pixels(arrays[name], f"{path}: {name}", white=white)
            if (came := arrays[name].dtype) != np.uint8:
                notes.append(f"{name}: {came} scaled to 8 bits")
    kinds = sorted({kind(arrays[name]) for name in images})
    if white is not None and "uint16" not in kinds:
        raise ConfigError(f"{path}: white counts for images of uint16, {' and '.join(kinds)} came")
    train = images["x_train"]
    return ImageSet(
        name=Path(path).stem,
        train=train,
        test=images.get("x_test", np.zeros((0, *train.shape[1:]), np.uint8)),
        train_labels=arrays.get("y_train"),
        test_labels=arrays.get("y_test") if "x_test" in arrays else None,
        class_names=_class_names(arrays, path),
        notes=notes,
    )


def _class_names(arrays: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> tuple[str, ...]:
    return tuple(as_names(arrays["class_names"], f"{path}: 'class_names'")) if "class_names" in arrays else ()


@dataclass(frozen=True, kw_only=True)
class Config:
    """What images `generate` writes."""

    seed: int = setting(0, "changes the crops", at_least=0, below=LARGEST_SEED)
    n_classes: int = setting(10, "photographs, a class each", at_least=2, at_most=N_BUNDLED)
    n_train: int = setting(1000, "training images, spread evenly over the classes", at_least=2)
    n_test: int = setting(200, "test images, spread evenly over the classes", at_least=2)
    image_size: int = setting(32, "pixels along an edge", at_least=8)

    def problems(self) -> list[str]:
        """What does not go together."""
        few = [name for name in ("n_train", "n_test") if getattr(self, name) < self.n_classes]
        return [f"{name} is n_classes or more, not {getattr(self, name)}" for name in few]


def generate(out: str, config: Config, plant: object = None) -> dict[str, Any]:
    """Write FOLDER/train/CLASS/*.png and FOLDER/test/CLASS/*.png: crops of bundled photographs, labelled by photograph.

    Training images come from the left `TRAINED_SHARE` of a photograph and test images from the rest, so no pixel is in both.
    """
    rng = np.random.default_rng([config.seed, 0x1F1])
    every = [name for kind_of in BUNDLED.values() for name in kind_of]
    chosen = sorted(every[place] for place in rng.permutation(len(every))[: config.n_classes])
    with atomic_folder(out) as temporary:
        for place, name in enumerate(track(chosen, "cutting photographs", len(chosen))):
            picture = read_picture(bundled_path(name))
            edge = round(TRAINED_SHARE * picture.shape[1])
            for side, part, n in (("train", picture[:, :edge], config.n_train), ("test", picture[:, edge:], config.n_test)):
                count = n // len(chosen) + (place < n % len(chosen))
                folder = temporary / side / Path(name).stem
                folder.mkdir(parents=True)
                for number, crop in enumerate(crops(part, count, config.image_size, rng, **TRAINING_CROPS)):
                    Image.fromarray(crop).save(folder / f"{number:05d}.png")
    return {"folder": out, "name": f"crops of {len(chosen)} photographs (seed {config.seed})", "classes": chosen}


DATASET = Dataset(name="image_files", load=load, generated=Config, generate=generate)
