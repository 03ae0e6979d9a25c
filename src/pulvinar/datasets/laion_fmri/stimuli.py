"""The images of LAION-fMRI, their embeddings, and the splits that its package names."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array
from pulvinar.core.progress import log
from pulvinar.core.storage import checksum, read_json, reading
from pulvinar.data.feature_tables import read_rows
from pulvinar.data.splits import Split
from pulvinar.data.tables import read_table
from pulvinar.datasets.laion_fmri.facts import EMBEDDINGS, IMAGES, METADATA, OOD, SPLITS


class PackedImages:
    """Pictures as bytes of .jpg or .png files in rows of an HDF5 dataset: row of the stimuli -> uint8 (height, width, 3)."""

    def __init__(self, path: Path, rows: Sequence[int]) -> None:
        self.path, self.rows = path, list(rows)
        with open_hdf5(path) as file:
            images = file.get("images")
            if not isinstance(images, h5py.Dataset) or h5py.check_vlen_dtype(images.dtype) != np.dtype(np.uint8):
                raise InputError(f"{path}: 'images' holds the bytes of a picture in each row; something else came")
            if self.rows and max(self.rows) >= len(images):
                raise InputError(f"{path}: {len(images)} pictures, but row {max(self.rows)} (from 0) was shown")

    def __call__(self, row: int) -> np.ndarray:
        """Pixels of a picture, decoded by what its bytes are, whatever its name ends in."""
        from PIL import Image

        with open_hdf5(self.path) as file, reading(self.path, f"HDF5, image {self.rows[row]} (from 0)"):
            content = file["images"][self.rows[row]].tobytes()
            with Image.open(io.BytesIO(content)) as picture:
                return np.asarray(picture.convert("RGB"))


def open_images(root: Path, ids: Sequence[str]) -> PackedImages | None:
    """The pictures of these ids, by the rows of the metadata beside them; None, said, where they are not there."""
    if not (root / IMAGES).is_file():
        log(f"{root / IMAGES} is not there (images are by agreement); going on without images")
        return None
    names = read_table(root / METADATA).column("image_name")
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) < len(names):
        raise InputError(f"{root / METADATA}: {len(names) - len(row_of)} image_name stand there twice")
    missing = [name for name in ids if name not in row_of]
    if missing:
        raise NotFoundError(f"{root / METADATA}: {len(missing)} images that were shown are not in it, e.g. {missing[0]}")
    with open_hdf5(root / IMAGES) as file:
        n_images = len(file["images"]) if "images" in file else 0
    if n_images != len(names):
        raise InputError(f"{root / IMAGES}: {n_images} images, but {METADATA.name} has {len(names)} rows")
    return PackedImages(root / IMAGES, [row_of[name] for name in ids])


def embeddings(root: Path, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """CLIP, DINOv2, ... as far as their files are there: float32 (image, dim); one that is not valid is refused."""
    found = {}
    for path in sorted(root.glob(EMBEDDINGS.format(name="*"))):
        name = path.name.partition("_desc-")[2].removesuffix("_embeddings.h5")
        with open_hdf5(path) as file:
            known = [str(one) for one in read_hdf5_array(file, "image_ids")]
            valid = read_hdf5_array(file, "valid").astype(bool) if "valid" in file else np.ones(len(known), bool)
        bad = set(np.array(known)[~valid].tolist()) & set(ids)
        if bad:
            raise InputError(f"{path}: the embedding of {len(bad)} images is not valid, e.g. {sorted(bad)[0]}")
        found[name] = read_rows(f"{path}:embedding", np.zeros(len(ids), np.int64), n_rows=len(known), ids=ids)[1]
    return found


@dataclass(frozen=True, kw_only=True)
class NamedSplit:
    """A split, and what a result has to say of it."""

    split: Split
    facts: dict[str, str]


def choose_split(root: Path, name: str, pool: str, variant: str | None, ids: Sequence[str]) -> NamedSplit:
    """`ood`, by the names of the images, or a split of the owners' package by its name or file, over the images shown.

    A file has `variants`, each with `train_ids` and `test_ids`. Raises `FileError` that says where such files come from.
    """
    if name == "ood":
        test = tuple(one for one in ids if one.startswith(OOD))
        train = tuple(one for one in ids if not one.startswith(OOD))
        return NamedSplit(split=Split(train=train, test=test), facts={"split": f"ood: names that begin with {OOD}"})
    path = Path(name) if name.endswith(".json") else root / SPLITS / pool / f"{name}.json"
    if not path.is_file():
        raise FileError(
            f"{path}: no such file; the splits are in the package laion-fmri (laion_fmri/splits/data/POOL/NAME.json): copy "
            f"that folder to {root / SPLITS}, or name a file, split=FILE.json"
        )
    content = read_json(path)
    with reading(path, "a split of LAION-fMRI"):
        variants = {str(one["variant_id"]): one for one in content["variants"]}
        chosen = str(next(iter(variants)) if variant is None and len(variants) == 1 else variant)
    if chosen not in variants:
        raise NotFoundError(f"{path}: name one of its variants, variant=NAME: {', '.join(variants)}")
    with reading(path, "a split of LAION-fMRI"):
        sides = {side: set(map(str, variants[chosen][f"{side}_ids"])) for side in ("train", "test")}
    known = set(ids)
    if not sides["test"] & known:
        raise InputError(f"{path}: none of its {len(sides['test'])} test images was shown; is it of another pool ({pool})?")
    split = Split(**{side: tuple(one for one in ids if one in found) for side, found in sides.items()})
    facts = {
        "split": f"{content.get('pool', pool)}/{content.get('name', path.stem)}, variant {chosen}",
        "split_sha256": checksum(path),
    }
    return NamedSplit(split=split, facts=facts)
