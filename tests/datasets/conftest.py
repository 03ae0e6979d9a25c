"""Writers of official layouts, from their pages: NSD (h5py, nibabel and scipy alone), CIFAR, STL-10, class folders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

SIDES = (5, 7, 6)  # x, y, z
AFFINE = np.array([[1.8, 0, 0, -4], [0, 1.8, 0, -9], [0, 0, 1.8, 2], [0, 0, 0, 1.0]])
N_VERTICES = {"lh": 6, "rh": 5}
BETAS = "betas_fithrf_GLMdenoise_RR"
N_SESSIONS = 2


@dataclass
class Written:
    """By subject, betas int16 (session, trial, x, y, z), surface float32 (session, vertex, trial), labels (x, y, z), ncsnr."""

    root: Path
    betas: dict[str, np.ndarray]
    surface: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]
    surface_labels: np.ndarray
    ncsnr: dict[str, np.ndarray]
    order: np.ndarray  # 1-based, as in the file
    images: np.ndarray  # 1-based

    def betas_folder(self, subject: str, space: str = "func1pt8mm") -> Path:
        return self.root / "nsddata_betas" / "ppdata" / subject / space / BETAS

    def image(self, subject: str, trial: int) -> int:
        return int(self.images[int(subject[4:]) - 1, self.order[trial] - 1]) - 1


def save_nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def save_mgh(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shaped = values.reshape(len(values), 1, 1, *values.shape[1:])
    nibabel.save(nibabel.freesurfer.MGHImage(shaped, np.eye(4)), path)


def write_hdf5(path: Path, betas: np.ndarray) -> None:
    """(trial, x, y, z) as MATLAB wrote it: seen by h5py as (trial, z, y, x)."""
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=betas.transpose(0, 3, 2, 1), chunks=(len(betas), 1, 1, 1))


def write_subject(written: Written, subject: str, generator: np.random.Generator) -> None:
    betas = generator.integers(-3000, 3000, (N_SESSIONS, 750, *SIDES)).astype(np.int16)
    brain = np.ones(SIDES, np.uint8)
    brain[0] = 0
    betas[:, :, brain == 0] = 0
    general = np.where(brain == 1, generator.integers(-1, 2, SIDES), -1).astype(np.int16)
    visual = np.where(general == 1, generator.integers(1, 4, SIDES), general).astype(np.int16)
    ncsnr = generator.random(SIDES).astype(np.float32)
    ppdata, place = written.root / "nsddata" / "ppdata" / subject / "func1pt8mm", written.betas_folder(subject)
    save_nifti(ppdata / "brainmask.nii.gz", brain)
    save_nifti(ppdata / "roi" / "nsdgeneral.nii.gz", general)
    save_nifti(ppdata / "roi" / "prf-visualrois.nii.gz", visual)
    save_nifti(place / "ncsnr.nii.gz", ncsnr)
    tables = written.root / "nsddata" / "freesurfer" / subject / "label"
    tables.mkdir(parents=True)
    (tables / "prf-visualrois.mgz.ctab").write_text("0 Unknown\n1 V1v\n2 V1d\n3 V2v\n")
    vertices = generator.normal(size=(N_SESSIONS, sum(N_VERTICES.values()), 750)).astype(np.float32)
    for session in range(N_SESSIONS):
        name = f"betas_session{session + 1:02d}"
        write_hdf5(place / f"{name}.hdf5", betas[session])
        save_nifti(place / f"{name}.nii.gz", betas[session].transpose(1, 2, 3, 0))
        left = N_VERTICES["lh"]
        save_mgh(written.betas_folder(subject, "fsaverage") / f"lh.{name}.mgh", vertices[session, :left])
        save_mgh(written.betas_folder(subject, "fsaverage") / f"rh.{name}.mgh", vertices[session, left:])
    written.betas[subject], written.surface[subject], written.ncsnr[subject] = betas, vertices, ncsnr
    written.labels[subject] = {"nsdgeneral": general, "prf-visualrois": visual}


def write_design(written: Written) -> None:
    place = written.root / "nsddata" / "experiments" / "nsd"
    place.mkdir(parents=True)
    tables = {"masterordering": written.order[None], "subjectim": written.images, "sharedix": written.images[:1, :1000]}
    scipy.io.savemat(place / "nsd_expdesign.mat", tables)


def write_fsaverage(written: Written) -> None:
    place = written.root / "nsddata" / "freesurfer" / "fsaverage"
    (place / "surf").mkdir(parents=True)
    start = 0
    for side, n in N_VERTICES.items():
        points = np.stack([np.arange(n), np.arange(n) % 2, np.zeros(n)], axis=1).astype(float)
        faces = np.stack([np.arange(n - 2), np.arange(1, n - 1), np.arange(2, n)], axis=1)
        nibabel.freesurfer.write_geometry(str(place / "surf" / f"{side}.white"), points, faces)
        save_mgh(place / "label" / f"{side}.nsdgeneral.mgz", written.surface_labels[start : start + n])
        start += n


def write_stimuli(root: Path, n_images: int = 73_000) -> Path:
    """All rows black and without room on disk but the first 40 and the last."""
    place = root / "nsddata_stimuli" / "stimuli" / "nsd"
    place.mkdir(parents=True, exist_ok=True)
    with h5py.File(place / "nsd_stimuli.hdf5", "w") as file:
        images = file.create_dataset("imgBrick", (n_images, 425, 425, 3), np.uint8, chunks=(1, 425, 425, 3), compression="lzf")
        for row in [*range(40), n_images - 1]:
            images[row] = np.full((425, 425, 3), row % 251, np.uint8)
    return place / "nsd_stimuli.hdf5"


def write_nsd(root: Path, *, seed: int = 0) -> Written:
    generator = np.random.default_rng(seed)
    order = generator.permutation(np.repeat(np.arange(1, 10_001), 3))
    order[:40] = np.arange(1, 41)  # shared images among the first trials
    order[750:790] = np.arange(1, 41)
    rows = generator.permutation(np.arange(1, 73_001))
    shared = np.sort(rows[:1000])
    images = np.concatenate([np.tile(shared, (8, 1)), rows[1000:].reshape(8, 9000)], axis=1)
    written = Written(root, {}, {}, {}, np.array([1, -1, 0, 2, 1, 0, 0, -1, 1, 1, 0], np.int32), {}, order, images)
    write_design(written)
    write_fsaverage(written)
    write_stimuli(root)
    for subject in ("subj01", "subj03"):
        write_subject(written, subject, generator)
    (root / "features").mkdir()
    table = np.lib.format.open_memmap(root / "features" / "clip.npy", mode="w+", dtype=np.float32, shape=(73_000, 3))
    table[:] = np.arange(73_000, dtype=np.float32)[:, None] + np.array([0, 0.25, 0.5], np.float32)
    table.flush()
    return written


@pytest.fixture(scope="session")
def nsd(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Two subjects, two sessions each, in all three forms of betas. Not to be changed."""
    return write_nsd(tmp_path_factory.mktemp("official") / "NSD")


@pytest.fixture
def spoilt_nsd(nsd: Written, tmp_path: Path) -> Written:
    """The same folder to be changed: every file a link that may be replaced."""
    for path in nsd.root.rglob("*"):
        copy = tmp_path / "NSD" / path.relative_to(nsd.root)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path)
    return Written(**{**vars(nsd), "root": tmp_path / "NSD"})


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Random pictures (image, height, width, 3): no two alike."""

    def make(n_images: int, side: int, seed: int = 0, width: int | None = None) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (n_images, side, width or side, 3), dtype=np.uint8)

    return make


def write_records(path: Path, images: np.ndarray, *labels: np.ndarray) -> None:
    """CIFAR's binary version: label bytes, then 1024 red, green and blue bytes, row by row."""
    with path.open("wb") as file:
        for row, image in enumerate(images):
            file.write(bytes(int(label[row]) for label in labels))
            for colour in range(3):
                for line in image[:, :, colour]:
                    file.write(bytes(line.tolist()))


def write_columns(path: Path, images: np.ndarray) -> None:
    """STL-10's binary version: red, green and blue, each column by column."""
    with path.open("wb") as file:
        for image in images:
            for colour in range(3):
                for column in range(image.shape[1]):
                    file.write(bytes(image[:, column, colour].tolist()))


@pytest.fixture
def cifar10_folder(tmp_path, pictures) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder in CIFAR-10's layout with 3 images a batch, its images (18, 32, 32, 3) and labels (18,)."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = pictures(18, 32), np.arange(18) % 10
    for number in range(5):
        part = slice(3 * number, 3 * number + 3)
        write_records(folder / f"data_batch_{number + 1}.bin", images[part], labels[part])
    write_records(folder / "test_batch.bin", images[15:], labels[15:])
    (folder / "batches.meta.txt").write_text("\n".join(f"kind {n}" for n in range(10)) + "\n\n")
    return folder, images, labels


@pytest.fixture
def cifar100_folder(tmp_path, pictures) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder in CIFAR-100's layout: 6 training and 4 test images, fine labels (10,)."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    images, fine = pictures(10, 32), np.arange(90, 100)
    for name, part in (("train", slice(0, 6)), ("test", slice(6, 10))):
        write_records(folder / f"{name}.bin", images[part], fine[part] // 5, fine[part])
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine {n}" for n in range(100)))
    return folder, images, fine


@pytest.fixture
def stl10_folder(tmp_path, pictures) -> tuple[Path, np.ndarray]:
    """A folder in STL-10's layout: 4 unlabelled, 3 training, 2 test images."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = pictures(9, 96)
    for name, part in (("unlabeled", slice(0, 4)), ("train", slice(4, 7)), ("test", slice(7, 9))):
        write_columns(folder / f"{name}_X.bin", images[part])
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 3]))
    (folder / "test_y.bin").write_bytes(bytes([2, 2]))
    return folder, images


@pytest.fixture
def class_folder(tmp_path, pictures) -> tuple[Path, np.ndarray]:
    """FOLDER/train and FOLDER/test with classes cat and dog, 3 + 2 images each of 10 x 8 pixels."""
    images = pictures(10, 10, width=8)
    row = 0
    for side, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / side / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(images[row]).save(folder / f"{number}.png")
                row += 1
    return tmp_path / "pets", images
