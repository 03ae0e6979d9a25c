"""ImageNet-100: any hundred (or other number of) classes of ImageNet that a list names, from a folder of class folders."""

import os
from dataclasses import dataclass
from pathlib import Path

from pulvinar.core.config import setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.dataset import Dataset, Facts
from pulvinar.data.image_folder import open_folder
from pulvinar.data.image_set import ImageSet
from pulvinar.data.pictures import PictureOptions
from pulvinar.data.source_options import parse_source

SHAPES = {
    "train": (126_689, None, None, 3),
    "validation": (5_000, None, None, 3),
    "classes": 100,
}  # of the list of Tian et al. 2019
SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Options(PictureOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    classes: str | None = setting(None, "text file with the name of a class folder first on each line; must be given")
    size: int = setting(SIDE, "pixels a side: shorter side to it, central square", at_least=1)
    skip_corrupt: bool = setting(False, "leave out files that cannot be read instead of refusing them")
    cache: str | None = setting(None, "folder for the decoded pixels, 19 GB at 224 pixels; none: they are held in memory")


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set of `ROOT?classes=LIST`, with ROOT/train/CLASS/* and ROOT/val/CLASS/*.

    LIST is a text file with the name of a class folder (a WordNet id such as n01558993) first on each line; there is no
    standard hundred, papers differ, so it must be named. Options: size (default 224: shorter side, central square),
    skip_corrupt, cache (a folder for the decoded pixels, 19 GB at 224 pixels; without it they are held in memory), and those of
    `PictureOptions`.
    """
    place, options = parse_source(str(path), Options, name="imagenet100")
    if options.classes is None:
        raise InputError(f"{place}: which classes? give a list: imagenet100:{place}?classes=LIST.txt, one class folder a line")
    return open_folder(
        place,
        name="imagenet100",
        size=options.size,
        skip_corrupt=options.skip_corrupt,
        classes=read_class_list(options.classes),
        cache=options.cache,
        drop_copies=True,
        options=options,
    )


@reads("a list of classes")
def read_class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The first word of each line, without empty lines and lines that start with #; each class once."""
    path = require_file(path, "list of classes")
    with reading(path, "text"):
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    names = [line.split()[0].rstrip(",") for line in lines if line.strip() and not line.startswith("#")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names:
        raise FileError(f"{path}: no class in the list")
    if twice:
        raise InputError(f"{path}: listed twice: {', '.join(twice[:5])}")
    return tuple(names)


DATASET = Dataset(
    name="imagenet100",
    facts=Facts(
        citation="Russakovsky O et al. ImageNet large scale visual recognition challenge. IJCV 115:211-252, 2015.",
        url="https://image-net.org/challenges/LSVRC/2012/",
        licence="non-commercial research and education, by registration at image-net.org",
        by_hand="register at image-net.org, download ILSVRC2012 and unpack it; the list of classes is yours",
    ),
    load=load,
)
