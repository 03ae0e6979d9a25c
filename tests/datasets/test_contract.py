"""What every file in datasets/ keeps: facts, a way in, and a layout that is read as it was written, or refused by name.

A small folder of each is written once in exactly its layout. Oracle of what is read: what its writer was given. Then copies are
damaged in one way each (a file is not there, cut short, has a bit flipped where its form has a checksum, counts from another
number, names what is unknown, has rows or axes in another order): refused with the name of the file, or read as it was.
"""

import importlib.util
import io
import pickle
import shutil
import tarfile
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
from nilearn.glm.first_level import FirstLevelModel
from PIL import Image

from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.core.config import load as load_config
from pulvinar.core.errors import PulvinarError
from pulvinar.core.storage import fingerprint
from pulvinar.data.experiment import Experiment, save
from pulvinar.data.responses import Responses
from pulvinar.datasets.algonauts2019.layout import SetContent, as_jpeg, write_set
from pulvinar.datasets.simulated import Config, simulate

DATASETS = registry.names("datasets")
OURS = ("arrays", "image_files", "simulated")  # layouts of this project, not somebody's data


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_says_what_it_is_and_where_it_comes_from(name):
    dataset = registry.dataset(name)
    assert dataset.name == name
    facts = dataset.facts
    assert DATASETS[name].endswith(".")
    assert (dataset.generate is None) == (dataset.generated is None)
    if name not in OURS:
        assert dataset.load, "no function opens it"
        assert facts.citation
        assert facts.licence
        assert facts.url.startswith(("https://", "http://"))


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in OURS])
def test_nothing_there_and_an_empty_folder_are_refused_by_name(name, tmp_path):
    """Through the door of the command line: no traceback of another kind, no empty data."""
    kind = {"algonauts2019": "dissimilarities"}.get(name, "experiment" if _gives_experiment(name) else "images")
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(PulvinarError) as caught:
            open_data(kind, f"{name}:{place}")
        assert str(tmp_path) in str(caught.value) or name == "imagenet100"  # which asks for its list of classes first


def _gives_experiment(name: str) -> bool:
    return "Experiment" in typing.get_type_hints(registry.dataset(name).load)["return"].__name__


# --- layouts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What was planted. responses: subject -> (values (trial, voxel), ids of the trials); of RDMs: target -> (RDMs, ids).

    images: id -> pixels, of some of them.
    """

    responses: Mapping[str, tuple[np.ndarray, list[str]]]
    images: Mapping[str, np.ndarray]


Damage = tuple[str, Callable[[Path], None], str | None]  # file, what is done to it, pattern of the refusal (None: its name)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """write: into a folder, giving what was planted. source: for `open_data`, with {root}. damages: by what is wrong."""

    source: str
    write: Callable[[Path], Truth]
    kind: str = "experiment"
    damages: Mapping[str, Damage]


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    """The first half and seven bytes less: no format ends there."""
    put(path, path.read_bytes()[: path.stat().st_size // 2 - 7])


def flipped(path: Path) -> None:
    """One bit, past the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    put(path, bytes(content))


def put(path: Path, content: bytes | str) -> None:
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def edited(change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        put(path, change(path.read_text(encoding="utf-8")))

    return edit


def array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Another array in a .npy file."""

    def write(path: Path) -> None:
        values = change(np.load(path))
        path.unlink()
        np.save(path, values)

    return write


def volume(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """A NIfTI file of other values."""

    def write(path: Path) -> None:
        image = nibabel.load(path)
        values, affine = change(np.asanyarray(image.dataobj)), getattr(image, "affine", np.eye(4))
        path.unlink()
        nibabel.save(nibabel.Nifti1Image(values, affine), path)

    return write


def hdf5(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path) as file:
            values = change(file[name][...])
        path.unlink()
        with h5py.File(path, "w") as file:
            file[name] = values

    return write


def tables(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Other tables in a MATLAB file."""

    def write(path: Path) -> None:
        content = {name: values for name, values in scipy.io.loadmat(path).items() if not name.startswith("__")}
        path.unlink()
        scipy.io.savemat(path, content | {name: change(content[name]) for name, change in changes.items()})

    return write


def swapped_lines(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:1], lines[2], lines[1], *lines[3:]]) + "\n"


def writer(module: str) -> ModuleType:
    """A test module beside this one, which writes the layout that it tests."""
    spec = importlib.util.spec_from_file_location(module, Path(__file__).with_name(f"{module}.py"))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def write_nsd(root: Path) -> Truth:
    written = writer("conftest").write_nsd(root)
    inside = np.zeros(written.labels["subj01"]["nsdgeneral"].shape, bool)
    inside[1:] = True  # the brain of the writer
    responses = {
        subject: (
            betas.reshape(1500, *inside.shape)[:, inside] / 300,
            [f"nsd{written.image(subject, trial):05d}" for trial in range(1500)],
        )
        for subject, betas in written.betas.items()
    }
    images = {name: np.full((425, 425, 3), shade, np.uint8) for shade, name in enumerate(responses["subj01"][1][:4], start=50)}
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "r+") as file:
        for name, pixels in images.items():
            pixels[:200, 300, 2] = 7  # above the middle, right, blue
            file["imgBrick"][int(name[3:])] = pixels
    lines = (f"{row},{row + 7}\n" for row in range(73_000))
    (root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").write_text("nsdId,cocoId\n" + "".join(lines))
    return Truth(responses={"subj01": responses["subj01"]}, images=images)


def write_mindeye2(root: Path) -> Truth:
    written = writer("test_mindeye2").write_files(root)
    own = written["subj01"]
    picture = np.stack([np.full((224, 224), level) for level in (0, 128, 255)], axis=2)
    picture[3, 7, 0] = 51
    responses = {"subj01": (own["betas"], [f"nsd{row:05d}" for row in own["shown"]])}
    return Truth(responses=responses, images={"nsd00100": picture})


def write_challenge(root: Path) -> Truth:
    written = writer("test_algonauts2023").write_challenge(root)
    numbers = sorted({number for _, shown in written.values() for number in shown})
    pixels = {number: np.random.default_rng(number).integers(0, 255, (12, 12, 3)).astype(np.uint8) for number in numbers}
    return Truth(
        responses={name: (values, [f"nsd-{number:05d}" for number in shown]) for name, (values, shown) in written.items()},
        images={f"nsd-{number:05d}": values for number, values in pixels.items()},
    )


def write_objects(root: Path) -> Truth:
    """Scored over all values of a run of five trials, which the values are compared after."""
    values, shown = writer("test_nod").write_folder(root)
    runs = values.reshape(-1, 5, values.shape[1])
    scored = (runs - runs.mean((1, 2), keepdims=True)) / runs.std((1, 2), keepdims=True)
    images = {path.stem: np.asarray(Image.open(path)) for path in (root / "stimuli").rglob("*.JPEG")}
    return Truth(responses={"sub-03": (scored.reshape(values.shape), shown)}, images=images)


def write_study(root: Path) -> Truth:
    """The user's own files: a TOML description of NIfTI betas, a mask, trials, images and features with names."""
    generator = np.random.default_rng(0)
    inside, betas = generator.random((4, 5, 3)) < 0.5, generator.normal(size=(4, 5, 3, 20)).astype(np.float32)
    ids = [f"im{row:02d}" for row in generator.permutation(10)]
    (root / "images").mkdir()
    images = {name: generator.integers(0, 256, (6, 7, 3), dtype=np.uint8) for name in ids}
    for name, pixels in images.items():
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    nibabel.save(nibabel.Nifti1Image(betas, np.diag([2.0, 2, 2, 1])), root / "betas.nii.gz")
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), np.diag([2.0, 2, 2, 1])), root / "mask.nii.gz")
    (root / "trials.csv").write_text(
        "stimulus,session\n" + "".join(f"{name},{1 + row // 10}\n" for row, name in enumerate(ids * 2))
    )
    (root / "stimuli.csv").write_text(
        "id,split\n" + "".join(f"{name},{'test' if name > 'im06' else 'train'}\n" for name in sorted(ids))
    )
    np.savez_compressed(root / "clip.npz", clip=generator.normal(size=(10, 40)).astype(np.float32), id=np.array(sorted(ids)))
    (root / "study.toml").write_text(
        '[stimuli]\ntable = "stimuli.csv"\nimages = "images/"\nfeatures.clip = { file = "clip.npz", array = "clip" }\n'
        '[[subject]]\nname = "sub-01"\nresponses = "betas.nii.gz"\nmask = "mask.nii.gz"\ntrials = "trials.csv"\n'
    )
    return Truth(responses={"sub-01": (betas[inside].T, ids * 2)}, images=images)


def write_planted(root: Path) -> Truth:
    """A planted world in pulvinar's own form; the truth is the world in memory."""
    world = simulate(Config(n_voxels=200, n_subjects=2, n_trials=24, n_pretraining_trials=20, n_test_images=8))
    save(world, root / "world")
    ids = world.stimuli.ids
    return Truth(
        responses={name: (own.read(np.arange(own.n_trials)), list(own.stimulus_ids)) for name, own in world.subjects.items()},
        images={name: world.stimuli.image(row) for row, name in enumerate(ids)},
    )


def write_rdms(root: Path) -> Truth:
    """RDMs of 8 images and 3 people, MEG at 4 times: distances of random points."""
    generator, ids = np.random.default_rng(0), [f"image_{number:02d}" for number in range(1, 9)]

    def rdms(*shape: int) -> np.ndarray:
        points = generator.normal(size=(*shape, 8, 5))
        return np.linalg.norm(points[..., :, None, :] - points[..., None, :, :], axis=-1)

    targets = {"evc": rdms(3), "it": rdms(3), "meg_early": rdms(3, 4), "meg_late": rdms(3, 4)}
    stored = [as_jpeg(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in ids]
    images = np.stack([pixels for _, pixels in stored])
    (root / "set").mkdir()
    write_set(
        root / "set", SetContent(ids=ids, jpegs=[jpeg for jpeg, _ in stored], images=images, targets=targets, features={})
    )
    return Truth(responses={name: (rdm, ids) for name, rdm in targets.items()}, images=dict(zip(ids, images, strict=True)))


def as_planted(responses: Responses, area: np.ndarray) -> np.ndarray:
    """Voxels in the order of the world."""
    return np.arange(responses.n_voxels)


def by_vertex(responses: Responses, area: np.ndarray) -> np.ndarray:
    """Voxels as vertices: left before right, planted areas first."""
    right = responses.geometry.coordinates[:, 0] > 0
    return np.lexsort((np.arange(len(right)), np.where(area > 0, area, 99), right))


def write_layout(name: str, *settings: str, order: Callable[..., np.ndarray] = as_planted) -> Callable[[Path], Truth]:
    """A planted world in the layout of a set, in the folder `set`; the truth is the world in memory, under the names written.

    Names of pictures stand in sources.csv, a line for each of the world's stimuli, in their order. order: of the voxels.
    """

    def write(root: Path) -> Truth:
        found, worlds = registry.dataset(name), []

        def plant(shown, **given) -> Experiment:
            worlds.append(simulate(Config(**given), shown=shown))
            return worlds[0]

        found.generate(str(root / "set"), load_config(found.generated, name=name, assignments=settings), plant)
        lines = (root / "set/sources.csv").read_text().splitlines()[1:]
        name_of = dict(zip(worlds[0].stimuli.ids, [line.rpartition(",")[0] for line in lines], strict=True))
        responses = {
            subject: (
                own.read(np.arange(own.n_trials))[:, order(own, worlds[0].truth[own.subject]["area"])],
                [name_of[stimulus] for stimulus in own.stimulus_ids],
            )
            for subject, own in zip(found.facts.subjects, worlds[0].subjects.values(), strict=False)
        }
        return Truth(responses=responses, images=pictures_of(root / "set"))

    return write


def write_deeprecon(root: Path) -> Truth:
    """The world's trials but those of artificial pictures, and the one-back samples, which show the same as the one before."""
    truth = write_layout(
        *("deeprecon", "n_subjects=1", "n_voxels=200", "n_train=60", "n_test=20", "n_test_repeats=2", "n_artificial=4"),
        "image_size=16",
    )(root)
    values, ids = truth.responses["sub-01"]
    kept = [row for row, one in enumerate(ids) if one.startswith("n0") and (not row or ids[row - 1] != one)]
    return Truth(responses={"sub-01": (values[kept], [ids[row] for row in kept])}, images=truth.images)


def other_places(rows: np.ndarray) -> np.ndarray:
    """Metadata of voxels that lie elsewhere (the last row is voxel_z)."""
    return np.concatenate([rows[:-1], rows[-1:] + 1])


def write_bids(root: Path) -> Truth:
    """A planted world in BIDS, in the folder `set`; the truth is what nilearn's FirstLevelModel makes of its files."""
    settings = ("n_subjects=1", "n_voxels=200", "n_runs=2", "n_trials=10", "n_images=20", "image_size=16")
    found = registry.dataset("bids")
    config = load_config(found.generated, name="bids", assignments=settings)
    found.generate(str(root / "set"), config, lambda shown, **given: simulate(Config(**given), shown=shown))
    betas, ids = [], []
    for run in (1, 2):
        events = pd.read_csv(root / f"set/sub-01/func/sub-01_task-images_run-{run}_events.tsv", sep="\t")
        events = events[events.trial_type == "image"].reset_index(drop=True)
        stem = root / f"set/derivatives/fmriprep/sub-01/func/sub-01_task-images_run-{run}_space-T1w_desc"
        named = events[["onset", "duration"]].assign(trial_type=[f"trial{row:02d}" for row in range(10)])
        model = FirstLevelModel(t_r=2.0, noise_model="ols", mask_img=f"{stem}-brain_mask.nii.gz")
        model.fit(f"{stem}-preproc_bold.nii.gz", events=named)
        inside = nibabel.load(f"{stem}-brain_mask.nii.gz").get_fdata() > 0
        own = [model.compute_contrast(name, output_type="effect_size").get_fdata()[inside] for name in named.trial_type]
        betas += own
        ids += [name.removesuffix(".png") for name in events.stim_file]
    files = (root / "set/stimuli").glob("*.png")
    return Truth(
        responses={"sub-01": (np.array(betas), ids)}, images={path.stem: np.asarray(Image.open(path)) for path in files}
    )


def pictures_of(root: Path) -> dict[str, np.ndarray]:
    """Name -> pixels of every picture file, or of LAION-fMRI's packed ones."""
    if (root / "stimuli").is_dir():
        names = [line.partition(",")[0] for line in (root / "stimuli/task-images_metadata.csv").read_text().splitlines()[1:]]
        with h5py.File(root / "stimuli/task-images_stimuli.h5") as file:
            packed = [content.tobytes() for content in file["images"][:]]
        return {name: np.asarray(Image.open(io.BytesIO(content))) for name, content in zip(names, packed, strict=True)}
    files = [path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    keep = (root / "splits/train_naturalistic.json").is_file()  # MOSAIC's names have their suffix
    return {path.name if keep else path.stem: np.asarray(Image.open(path)) for path in files}


def stored(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Another array under one name of an HDF5 file, whatever else is in it."""

    def write(path: Path) -> None:
        content = path.read_bytes()
        put(path, content)  # no link
        with h5py.File(path, "r+") as file:
            values = change(file[name][...])
            del file[name]
            file[name] = values

    return write


def without_line(number: int) -> Callable[[Path], None]:
    return edited(lambda text: "\n".join([line for row, line in enumerate(text.splitlines()) if row != number]) + "\n")


def other_labels(path: Path) -> None:
    """The columns of a frame under the names 1, 2, ... instead of 0, 1, ..."""
    put(path, path.read_bytes())
    with h5py.File(path, "r+") as file:
        n_trials = file["ResponseData/block0_values"].shape[1]
        labels = pickle.dumps(np.arange(1, n_trials + 1).astype(object), protocol=4)
        file["ResponseData/block0_items"][0] = np.frombuffer(labels, np.uint8)


def column(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Other numbers in a column of a table."""

    def write(path: Path) -> None:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
        table[name] = change(table[name])
        path.unlink()
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")

    return write


def fewer_vertices(path: Path) -> None:
    """An atlas without its last vertex."""
    image = nibabel.load(path)
    rows, places = (image.header.get_axis(number) for number in range(2))
    values = image.get_fdata()[:, :-1].astype(np.float32)
    path.unlink()
    nibabel.save(nibabel.Cifti2Image(values, nibabel.Cifti2Header.from_axes((rows, places[:-1]))), path)


def a_trial(change: Callable[[h5py.Group, str], object]) -> Callable[[Path], None]:
    """Something done to the first test trial of a file of MOSAIC."""

    def write(path: Path) -> None:
        put(path, path.read_bytes())
        with h5py.File(path, "r+") as file:
            change(file["betas"], next(key for key in file["betas"] if "_phase-test_" in key))

    return write


def shorter(betas: h5py.Group, key: str) -> None:
    """A trial with a greyordinate less."""
    values, attributes = betas[key][1:], dict(betas[key].attrs)
    del betas[key]
    betas.create_dataset(key, data=values).attrs.update(attributes)


def a_label(key: str, value: float) -> Callable[[Path], None]:
    """Another value of the first sample in the column of a BData label."""

    def write(path: Path) -> None:
        put(path, path.read_bytes())
        with h5py.File(path, "r+") as file:
            keys = [name.decode() for name in file["metaData/key"][:]]
            place = int(np.flatnonzero(file["metaData/value"][keys.index(key)] == 1)[0])
            file["dataSet"][0, place] = value

    return write


def whole_numbers(add: int) -> Callable[[Path], None]:
    """Numbers of a table that count from another one."""
    return array(lambda values: values + add)


NSD_DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
NSD_PHOTOGRAPHS = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
NSD_BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/"
NSD_MASKS = "nsddata/ppdata/subj01/func1pt8mm/"
NOD_RUN = "derivatives/ciftify/sub-03/results/ses-imagenet01_task-imagenet_run-02/ses-imagenet01_task-imagenet_run-02"
FMRI = "subj01/training_split/training_fmri/lh_training_fmri.npy"
MASKS = "subj01/roi_masks/"
TAR = "wds/subj01/train/0.tar"
B5 = "set/CSI1_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_ses-01.nii.gz"
DEEPRECON = "set/sub-01_perceptionNaturalImageTraining_original_VC.h5"
B5_STIMULI = "set/BOLD5000_Stimuli/Scene_Stimuli/"
THINGS = "set/betas_csv/sub-01_"
MOSAIC = "set/fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2/NaturalScenesDataset/sub-01_NSD.hdf5"
LAION = "set/derivatives/glmsingle-tedana/sub-01/"
LAION_SESSION = LAION + "ses-01/func/sub-01_ses-01_task-images_"
LAION_BETAS = LAION_SESSION + "space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
LAION_TRIALS = LAION_SESSION + "desc-SingletrialBetas_trials.tsv"


def retarred(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """The tar of a session with other images and rows (sample, 2) in its behav.npy."""

    def write(path: Path) -> None:
        from pulvinar.datasets.mindeye2 import _read_tar

        found = change(_read_tar(path))
        path.unlink()
        writer("test_mindeye2").write_tar(path, found[:, 0], found[:, 1])

    return write


def bad_header(path: Path) -> None:
    """A bit of the header of a sample in the middle of a tar: Python's reader takes it for the end."""
    content = bytearray(path.read_bytes())
    content[content.index(b"sample000000300.behav.npy") + 3] ^= 4
    put(path, bytes(content))


def renamed_sample(path: Path) -> None:
    """A sample whose table has another name, header and all: the sample has no behav.npy."""
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    path.unlink()
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            if member.name == "sample000000300.behav.npy":
                member.name = "sample000000300.behaviour.npy"
            archive.addfile(member, io.BytesIO(content))


BIDS_SERIES = "set/derivatives/fmriprep/sub-01/func/sub-01_task-images_run-1_space-T1w_"
BIDS_EVENTS = "set/sub-01/func/sub-01_task-images_run-1_events.tsv"
LAYOUTS = {
    "nsd": Layout(
        source="nsd:{root}?subjects=1",
        write=write_nsd,
        damages={
            "a session is not there": (NSD_BETAS + "betas_session01.hdf5", gone, "betas_session01"),
            "the design is not there": (NSD_DESIGN, gone, None),
            "betas cut short": (NSD_BETAS + "betas_session02.hdf5", cut, None),
            "stimuli cut short": ("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", cut, None),
            "a bit of the mask": (NSD_MASKS + "brainmask.nii.gz", flipped, None),
            "a bit of a region": (NSD_MASKS + "roi/nsdgeneral.nii.gz", flipped, None),
            "trials from 0": (NSD_DESIGN, tables(masterordering=lambda order: order - 1), None),
            "images from 0": (NSD_DESIGN, tables(subjectim=lambda rows: rows - 1, sharedix=lambda rows: rows - 1), None),
            "an image that is not known": (
                NSD_DESIGN,
                tables(subjectim=lambda rows: np.where(rows == rows[0, 9000], 73_001, rows)),
                None,
            ),
            "one image for another": (
                NSD_DESIGN,
                tables(subjectim=lambda rows: np.where(rows == rows[0, 9000], rows[0, 9001], rows)),
                None,
            ),
            "axes of the table": (NSD_DESIGN, tables(subjectim=lambda rows: rows.T), None),
            "axes of the betas": (
                NSD_BETAS + "betas_session01.hdf5",
                hdf5("betas", lambda betas: betas.transpose(0, 3, 2, 1)),
                None,
            ),
            "axes of a region": (NSD_MASKS + "roi/nsdgeneral.nii.gz", volume(lambda values: values.transpose(2, 1, 0)), None),
            "trials left out": (NSD_BETAS + "betas_session01.hdf5", hdf5("betas", lambda betas: betas[:-1]), None),
            "photographs from 1": (
                NSD_PHOTOGRAPHS,
                edited(lambda text: "nsdId,cocoId\n" + "".join(f"{row + 1},{row + 7}\n" for row in range(73_000))),
                None,
            ),
            "photographs by another name": (NSD_PHOTOGRAPHS, edited(lambda text: text.replace("nsdId", "id")), None),
            "photographs in another order": (
                NSD_PHOTOGRAPHS,
                edited(lambda text: "nsdId,cocoId\n" + "\n".join(text.splitlines()[:0:-1]) + "\n"),
                "as it was",
            ),
            "photographs cut short": (NSD_PHOTOGRAPHS, cut, None),
        },
    ),
    "mindeye2": Layout(
        source="mindeye2:{root}?subjects=1",
        write=write_mindeye2,
        damages={
            "a tar is not there": (TAR, gone, None),
            "a tar cut short": (TAR, cut, None),
            "a bit of a header": (TAR, bad_header, None),
            "a sample without its table": (TAR, renamed_sample, None),
            "betas cut short": ("betas_all_subj01_fp32_renorm.hdf5", cut, None),
            "an image that is not known": (TAR, retarred(lambda table: np.add(table, [72_000, 0])), None),
            "rows from 1": (
                TAR,
                retarred(lambda table: np.add(table, [0, 1])),
                "wds/subj01: .* rows of the betas stand in two samples",
            ),
            "samples in another order": (TAR, retarred(lambda table: table[::-1]), "as it was"),
            "axes of the betas": (
                "betas_all_subj01_fp32_renorm.hdf5",
                hdf5("betas", lambda betas: np.ascontiguousarray(betas.T)),
                None,
            ),
            "betas of fewer trials": (
                "betas_all_subj01_fp32_renorm.hdf5",
                hdf5("betas", lambda betas: betas[:1400]),
                None,
            ),
        },
    ),
    "algonauts2023": Layout(
        source="algonauts2023:{root}",
        write=write_challenge,
        damages={
            "a picture is not there": (
                "subj01/training_split/training_images/train-0004_nsd-00003.png",
                gone,
                "training_images: picture number 4 is missing",
            ),
            "pictures from 0": (
                "subj01/training_split/training_images/train-0001_nsd-00000.png",
                lambda path: path.rename(path.with_name("train-0000_nsd-00000.png")),
                "training_images",
            ),
            "a picture that is not known": (
                "subj01/training_split/training_images/train-0004_nsd-00003.png",
                lambda path: path.rename(path.with_name("train-0004_nsd-73000.png")),
                "nsd-73000",
            ),
            "responses are not there": (FMRI, gone, None),
            "responses cut short": (FMRI, cut, None),
            "axes of the responses": (FMRI, array(np.transpose), None),
            "an image less": (FMRI, array(lambda values: values[1:]), None),
            "a bit of a picture": ("subj01/training_split/training_images/train-0004_nsd-00003.png", flipped, None),
            "regions from 0": (MASKS + "lh.prf-visualrois_challenge_space.npy", whole_numbers(-1), None),
            "a region that is not known": (MASKS + "lh.floc-words_challenge_space.npy", whole_numbers(1), None),
            "regions of all of fsaverage": (
                MASKS + "lh.streams_challenge_space.npy",
                array(lambda values: np.zeros(163_842, int)),
                None,
            ),
            "other vertices": (MASKS + "lh.all-vertices_fsaverage_space.npy", array(lambda values: 1 - values), None),
            "names of regions from 0": (
                MASKS + "mapping_floc-places.npy",
                lambda path: (path.unlink(), np.save(path, {0: "OPA", 1: "PPA", 2: "RSC"}, allow_pickle=True)),
                None,
            ),
        },
    ),
    "nod": Layout(
        source="nod:{root}",
        write=write_objects,
        damages={
            "betas are not there": (NOD_RUN + "_beta.dscalar.nii", gone, "run-02: one .*beta"),
            "labels are not there": (NOD_RUN + "_label.txt", gone, "run-02: one .*label"),
            "betas cut short": (NOD_RUN + "_beta.dscalar.nii", cut, None),
            "a run is not there": (NOD_RUN + "_beta.dscalar.nii", lambda path: shutil.rmtree(path.parent), "run 2"),
            "a picture less": (NOD_RUN + "_label.txt", edited(lambda text: text.partition("\n")[2]), None),
            "a picture that is not known": (
                NOD_RUN + "_label.txt",
                edited(lambda text: text.replace("_0005", "_7005")),
                "n01441764_7005",
            ),
            "pictures in another order": (NOD_RUN + "_label.txt", edited(swapped_lines), None),
            "a volume for CIFTI": (NOD_RUN + "_beta.dscalar.nii", volume(lambda values: values[..., None]), None),
            "a picture cut short": ("stimuli/imagenet/n01441764/n01441764_0005.JPEG", cut, None),
        },
    ),
    "arrays": Layout(
        source="{root}/study.toml",
        write=write_study,
        damages={
            "responses are not there": ("betas.nii.gz", gone, None),
            "a bit of the responses": ("betas.nii.gz", flipped, None),
            "responses cut short": ("betas.nii.gz", cut, None),
            "axes of the responses": ("betas.nii.gz", volume(lambda values: values.transpose(2, 1, 0, 3)), None),
            "trials first": ("betas.nii.gz", volume(lambda values: values.transpose(3, 0, 1, 2)), None),
            "a bit of the features": ("clip.npz", flipped, None),
            "a bit of a picture": ("images/im03.png", flipped, None),
            "a picture is not there": ("images/im03.png", gone, "images"),
            "an image that is not known": ("trials.csv", edited(lambda text: text.replace("im03", "im33")), "im33"),
            "a trial less": ("trials.csv", edited(lambda text: text.rpartition("im")[0]), "sub-01"),
            "names of the features shifted": ("stimuli.csv", edited(lambda text: text.replace("im00", "im99")), "im99"),
            "stimuli in another order": ("stimuli.csv", edited(swapped_lines), "as it was"),
        },
    ),
    "bids": Layout(
        source="bids:{root}/set?estimate=lsa",
        write=write_bids,
        damages={
            "a series cut short": (BIDS_SERIES + "desc-preproc_bold.nii.gz", cut, None),
            "a bit of a series": (BIDS_SERIES + "desc-preproc_bold.nii.gz", flipped, None),
            "axes of a series": (
                BIDS_SERIES + "desc-preproc_bold.nii.gz",
                volume(lambda values: values.transpose(2, 1, 0, 3)),
                None,
            ),
            "a mask is not there": (BIDS_SERIES + "desc-brain_mask.nii.gz", gone, None),
            "a mask of another grid": (BIDS_SERIES + "desc-brain_mask.nii.gz", volume(lambda values: values[1:]), None),
            "no events": (BIDS_EVENTS, gone, None),
            "onsets in milliseconds": (BIDS_EVENTS, column("onset", lambda onsets: onsets * 1000), None),
            "a picture is not there": ("set/stimuli/image-003.png", gone, "image-003"),
            "a picture that is not known": (
                BIDS_EVENTS,
                edited(lambda text: text.replace("image-003", "image-333")),
                "image-333",
            ),
        },
    ),
    "bold5000": Layout(
        source="bold5000:{root}/set",
        write=write_layout("bold5000", "n_subjects=1", "n_voxels=200", "n_sessions=2", "n_repeated=20", "image_size=16"),
        damages={
            "betas cut short": (B5, cut, None),
            "a bit of the betas": (B5, flipped, None),
            "a session is not there": (B5, gone, None),
            "a volume less": (B5, volume(lambda values: values[..., 1:]), "369 trials"),
            "axes of the betas": (B5, volume(lambda values: values.transpose(1, 0, 2, 3)), None),
            "another session under this name": (B5, lambda path: path.rename(str(path).replace("ses-01", "ses-16")), "1 to 15"),
            "a picture less": ("set/CSI1_imgnames.txt", without_line(7), "imgnames.*739 pictures"),
            "no list of pictures": ("set/CSI1_imgnames.txt", gone, None),
            "a picture that is not known": (
                "set/CSI1_imgnames.txt",
                edited(lambda text: text.replace("cave", "grave")),
                "grave",
            ),
            "a mask of another grid": (
                "set/derivatives/spm/sub-CSI1/sub-CSI1_mask-LHPPA.nii.gz",
                volume(lambda values: values[1:]),
                None,
            ),
            "a region that is not known": (
                "set/derivatives/spm/sub-CSI1/sub-CSI1_mask-LHPPA.nii.gz",
                lambda path: path.rename(str(path).replace("LHPPA", "LHPPB")),
                "LHPPB",
            ),
            "no list of the repeated pictures": (B5_STIMULI + "repeated_stimuli_113_list.txt", gone, None),
            "a picture is not there": (B5_STIMULI + "Presented_Stimuli/Scene/cave2.jpeg", gone, "cave2"),
            "names with the mark of the first release": (
                "set/CSI1_imgnames.txt",
                edited(lambda text: "".join(f"rep_{line}\n" for line in text.splitlines())),
                "as it was",
            ),
        },
    ),
    "god": Layout(
        source="god:{root}/set",
        write=write_layout("god", "n_subjects=1", "n_voxels=200", "n_train=60", "n_test=20", "n_repeats=2", "image_size=16"),
        damages={
            "cut short": ("set/Subject1.h5", cut, None),
            "single precision": ("set/Subject1.h5", stored("dataSet", lambda values: values.astype(np.float32)), None),
            "axes of the table": ("set/Subject1.h5", stored("dataSet", np.transpose), None),
            "metadata of a column less": ("set/Subject1.h5", stored("metaData/value", lambda rows: rows[:, 1:]), None),
            "a key twice": ("set/Subject1.h5", stored("metaData/key", lambda keys: keys[[0, 0, *range(2, len(keys))]]), None),
            "no such kind of sample": ("set/Subject1.h5", a_label("DataType", 4), None),
            "a picture without its number": ("set/Subject1.h5", a_label("stimulus_id", 1440764), None),
            "a picture that is not known": ("set/Subject1.h5", a_label("stimulus_id", 1440999.5), "n01440999_500000"),
            "a file under another name": (
                "set/Subject1.h5",
                lambda path: path.rename(path.with_name("Subject7.h5")),
                "no Subject1.h5 to",
            ),
        },
    ),
    "deeprecon": Layout(
        source="deeprecon:{root}/set",
        write=write_deeprecon,
        damages={
            "cut short": (DEEPRECON, cut, None),
            "the test is not there": (DEEPRECON.replace("Training", "Test"), gone, None),
            "single precision": (DEEPRECON, stored("dataset", lambda values: values.astype(np.float32)), None),
            "axes of the table": (DEEPRECON, stored("dataset", np.transpose), None),
            "metadata of a column less": (DEEPRECON, stored("metadata/value", lambda rows: rows[:, 1:]), None),
            "other voxels than in the test": (DEEPRECON, stored("metadata/value", other_places), "other voxels"),
            "both forms": (
                DEEPRECON,
                lambda path: shutil.copy(path, path.with_name("sub-01_ImageNetTraining_fmriprep_volume_native.h5")),
                "name one, form=original",
            ),
        },
    ),
    "laion_fmri": Layout(
        source="laion_fmri:{root}/set",
        write=write_layout(
            *(
                "laion_fmri",
                "n_subjects=1",
                "n_voxels=200",
                "n_sessions=2",
                "n_trials=12",
                "n_ood=8",
                "n_shared=3",
                "image_size=16",
            )
        ),
        damages={
            "betas cut short": (LAION_BETAS, cut, None),
            "a bit of the betas": (LAION_BETAS, flipped, None),
            "a session is not there": (LAION_BETAS, gone, None),
            "a volume less": (LAION_BETAS, volume(lambda values: values[..., 1:]), None),
            "axes of the betas": (LAION_BETAS, volume(lambda values: values.transpose(1, 0, 2, 3)), None),
            "trials are not there": (LAION_TRIALS, gone, None),
            "a trial less": (LAION_TRIALS, without_line(5), None),
            "trials from 1": (LAION_TRIALS, column("beta_index", lambda numbers: numbers + 1), None),
            "trials in another order": (LAION_TRIALS, edited(swapped_lines), None),
            "trials of another session": (LAION_TRIALS, edited(lambda text: text.replace("ses-01", "ses-02")), None),
            "a label without its suffix": (
                LAION_TRIALS,
                edited(lambda text: text.replace(".jpg", "")),
                "images that were shown",
            ),
            "an image twice in the metadata": (
                "set/stimuli/task-images_metadata.csv",
                edited(lambda text: text + text.splitlines()[1] + "\n"),
                None,
            ),
            "an image less in the metadata": ("set/stimuli/task-images_metadata.csv", without_line(3), None),
            "ceilings that are shares": (
                LAION + "sub-01_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz",
                volume(lambda values: values / 100),
                "share",
            ),
            "a mask of another grid": (
                "set/derivatives/rois/sub-01/place/sub-01_space-T1w_res-1pt8_label-PPA_mask.nii.gz",
                volume(lambda values: values[1:]),
                None,
            ),
        },
    ),
    "mosaic": Layout(
        source="mosaic:{root}/set",
        write=write_layout(
            *("mosaic", "n_subjects=1", "n_voxels=200", "n_train=40", "n_test=20", "image_size=16"), order=by_vertex
        ),
        damages={
            "cut short": (MOSAIC, cut, None),
            "a trial under another name": (MOSAIC, a_trial(lambda betas, key: betas.move(key, key + "0x")), None),
            "a trial of somebody else": (MOSAIC, a_trial(lambda betas, key: betas.move(key, "x" + key)), None),
            "a trial that shows another picture": (
                MOSAIC,
                a_trial(lambda betas, key: betas[key].attrs.update(presented_stimulus_filename="000000000999.jpg")),
                None,
            ),
            "a trial of other vertices": (MOSAIC, a_trial(shorter), None),
            "a trial less": (MOSAIC, a_trial(lambda betas, key: betas.pop(key)), "is not in the file of sub-01_NSD"),
            "NaN beyond the last vertex": (MOSAIC, stored("nan_indices_all", lambda numbers: numbers + 1), None),
            "the same file twice": (
                MOSAIC,
                lambda path: shutil.copy(path, path.parents[1] / "sub-01_NSD_crc32-0123ABCD.hdf5"),
                "both of sub-01_NSD",
            ),
            "no split": ("set/splits/test_naturalistic.json", gone, None),
            "a split of other pictures": (
                "set/splits/test_naturalistic.json",
                edited(lambda text: text.replace(".jpg", ".png")),
                "not among",
            ),
            "an atlas of other vertices": ("set/atlas.dlabel.nii", fewer_vertices, None),
            "an atlas cut short": ("set/atlas.dlabel.nii", cut, None),
        },
    ),
    "things_fmri": Layout(
        source="things_fmri:{root}/set",
        write=write_layout(
            *("things_fmri", "n_subjects=1", "n_voxels=200", "n_sessions=2", "n_test=20", "n_train=50", "image_size=16")
        ),
        damages={
            "responses are not there": (THINGS + "ResponseData.h5", gone, "no sub-0X_ResponseData.h5 there"),
            "responses cut short": (THINGS + "ResponseData.h5", cut, None),
            "trials as rows": (THINGS + "ResponseData.h5", stored("ResponseData/block0_values", np.transpose), None),
            "a trial less": (THINGS + "ResponseData.h5", stored("ResponseData/block0_values", lambda v: v[:, 1:]), None),
            "trials from 1": (THINGS + "ResponseData.h5", other_labels, None),
            "voxels in another order": (
                THINGS + "ResponseData.h5",
                stored("ResponseData/block1_values", lambda numbers: numbers[::-1]),
                None,
            ),
            "a trial less in the table": (THINGS + "StimulusMetadata.csv", without_line(4), None),
            "a trial twice": (THINGS + "StimulusMetadata.csv", column("trial_id", lambda ids: ids.replace(5, 6)), None),
            "trials in another order": (THINGS + "StimulusMetadata.csv", edited(swapped_lines), "as it was"),
            "a picture for both sides": (
                THINGS + "StimulusMetadata.csv",
                column("trial_type", lambda kinds: kinds.where(kinds.index > 9, "train")),
                "train and as test",
            ),
            "a picture that is not known": (
                THINGS + "StimulusMetadata.csv",
                edited(lambda t: t.replace("thing07", "thang07")),
                "thang07",
            ),
            "no column of ceilings": (
                THINGS + "VoxelMetadata.csv",
                edited(lambda text: text.replace("nc_testset", "nc")),
                None,
            ),
            "a voxel less": (THINGS + "VoxelMetadata.csv", without_line(4), None),
            "ceilings that are shares": (THINGS + "VoxelMetadata.csv", column("nc_testset", lambda share: share / 100), None),
            "a mask of other voxels": (
                "set/brainmasks/sub-01_space-T1w_brainmask.nii.gz",
                volume(lambda values: values[:, ::-1]),
                None,
            ),
        },
    ),
    "simulated": Layout(
        source="{root}/world",
        write=write_planted,
        damages={
            "responses are not there": ("world/responses/subj01.h5", gone, None),
            "a bit of the responses": ("world/responses/subj01.h5", flipped, None),
            "responses cut short": ("world/responses/subj01.h5", cut, None),
            "a bit of the stimuli": ("world/stimuli.h5", flipped, None),
            "rows swapped": ("world/split.json", edited(lambda text: text.replace("image00", "image01")), None),
            "no split": ("world/split.json", gone, None),
        },
    ),
    "algonauts2019": Layout(
        source="algonauts2019:{root}/set",
        kind="dissimilarities",
        write=write_rdms,
        damages={
            "targets cut short": ("set/target_meg.mat", cut, None),
            "names cut short": ("set/8images.mat", cut, None),
            "a picture is not there": ("set/8images/image_03.jpg", gone, "8images"),
            "a picture that is not known": (
                "set/8images/image_03.jpg",
                lambda path: path.rename(path.with_name("image_33.jpg")),
                "image_03",
            ),
            "axes of the RDMs": ("set/target_fmri.mat", hdf5("EVC_RDMs", np.transpose), None),
            "images from 0": (
                "set/8images/image_01.jpg",
                lambda path: [
                    place.rename(place.with_name(f"image_{row:02d}.jpg"))
                    for row, place in enumerate(sorted(path.parent.iterdir()))
                ],
                "image_08",
            ),
            "an image less": ("set/target_fmri.mat", hdf5("EVC_RDMs", lambda rdms: rdms[1:, 1:]), "set"),
            "a picture cut short": ("set/8images/image_03.jpg", cut, None),
        },
    ),
}


def test_every_dataset_is_walked_here():
    assert set(LAYOUTS) | set(IMAGES) == set(DATASETS)


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Callable[[str], tuple[Path, Truth]]:
    """Folder and truth of a layout, written when it is first asked for. Not to be changed."""
    made: dict[str, tuple[Path, Truth]] = {}

    def get(name: str) -> tuple[Path, Truth]:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            made[name] = root, LAYOUTS[name].write(root)
        return made[name]

    return get


def linked(root: Path, copy: Path) -> Path:
    """The same folder to be changed: every file a link that may be replaced."""
    for path in root.rglob("*"):
        place = copy / path.relative_to(root)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return copy


def measured(opened: Any) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Values and names of their rows, by subject or target."""
    if not isinstance(opened, Experiment):
        return {name: (np.asarray(target.rdms), list(opened.stimuli.ids)) for name, target in opened.targets.items()}
    return {name: (own.read(np.arange(own.n_trials)), list(own.stimulus_ids)) for name, own in opened.subjects.items()}


def everything(opened: Any, images: Mapping[str, np.ndarray]) -> str:
    """All that is read, as one fingerprint; of the images those whose pixels were planted."""
    stimuli, parts = opened.stimuli, []
    for name, (values, ids) in measured(opened).items():
        parts += [name, np.asarray(values), *ids]
    for name, source in sorted(zip(stimuli.ids, stimuli.sources, strict=True)):
        parts += [name, source]
    for feature, values in stimuli.features.items():
        parts += [feature, values[np.argsort(stimuli.ids)]]
    if isinstance(opened, Experiment):
        parts += [*sorted(opened.split.train), "/", *sorted(opened.split.test)]
        parts += [mask for own in opened.subjects.values() for mask in own.rois.values()]
    known = sorted(set(images) & set(stimuli.ids))
    return fingerprint(*parts, *[stimuli.image(row) for row in stimuli.rows(known)])


@pytest.mark.long
@pytest.mark.parametrize("name", LAYOUTS)
def test_values_trials_and_images_are_those_that_were_written(name, written):
    """Shapes and names whole, single values at random places, and every image whose pixels were planted."""
    root, truth = written(name)
    opened = open_data(LAYOUTS[name].kind, LAYOUTS[name].source.format(root=root))
    found = measured(opened)
    assert set(found) == set(truth.responses)
    generator = np.random.default_rng(0)
    for subject, (values, ids) in truth.responses.items():
        assert found[subject][1] == ids
        assert found[subject][0].shape == values.shape
        for place in generator.integers(0, values.shape, (40, values.ndim)):
            assert found[subject][0][tuple(place)] == pytest.approx(values[tuple(place)], rel=1e-5, abs=1e-5)
    shown = [stimulus for stimulus in truth.images if stimulus in opened.stimuli.ids]
    assert shown
    for stimulus, row in zip(shown, opened.stimuli.rows(shown), strict=True):
        np.testing.assert_array_equal(opened.stimuli.image(int(row)), truth.images[stimulus])


@pytest.mark.long
@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, layout in LAYOUTS.items() for damage in layout.damages])
def test_a_damage_is_refused_by_name_or_changes_nothing(name, damage, written, tmp_path):
    root, truth = written(name)
    layout = LAYOUTS[name]
    file, change, pattern = layout.damages[damage]
    copy = linked(root, tmp_path / "copy")
    change(copy / file)

    def read() -> str:
        return everything(open_data(layout.kind, layout.source.format(root=copy)), truth.images)

    if pattern == "as it was":
        assert read() == everything(open_data(layout.kind, layout.source.format(root=root)), truth.images)
        return
    with pytest.raises(PulvinarError, match=pattern or (copy / file).name.replace(".", r"\.")):
        read()


# --- sets of images ---------------------------------------------------------------------------------------------------


def _cifar10(request) -> tuple[str, np.ndarray, np.ndarray]:
    folder, images, labels = request.getfixturevalue("cifar10_folder")
    return f"cifar10:{folder}", images, labels


def _cifar100(request) -> tuple[str, np.ndarray, np.ndarray]:
    folder, images, labels = request.getfixturevalue("cifar100_folder")
    return f"cifar100:{folder}", images, labels


def _stl10(request) -> tuple[str, np.ndarray, np.ndarray]:
    """Labels of its labelled images, which count from 1 in the files."""
    folder, images = request.getfixturevalue("stl10_folder")
    return f"stl10:{folder}", images, np.array([0, 9, 2, 1, 1])


def _class_folder(request) -> tuple[str, np.ndarray, np.ndarray]:
    folder, images = request.getfixturevalue("class_folder")
    return f"image_files:{folder}", images, np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1])


def _imagenet100(request) -> tuple[str, np.ndarray, np.ndarray]:
    """Class folders of 10 x 8 pixels and a list that names dog first; the middle 8 x 8 is taken."""
    folder, images = request.getfixturevalue("class_folder")
    (folder / "test").rename(folder / "val")
    (folder / "list.txt").write_text("dog hund\ncat\n")
    order = [3, 4, 5, 0, 1, 2, 8, 9, 6, 7]
    return (
        f"imagenet100:{folder}?classes={folder}/list.txt&size=8",
        images[order, 1:9],
        np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 1]),
    )


IMAGES = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
    "image_files": _class_folder,
    "imagenet100": _imagenet100,
}


def label(record: int, number: int, length: int = 3073, byte: int = 0) -> Callable[[Path], None]:
    """Another label of a record of a binary file."""

    def write(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[record * length + byte] = number
        put(path, bytes(content))

    return write


IMAGE_DAMAGES: dict[str, dict[str, Damage]] = {
    "cifar10": {
        "cut short": ("data_batch_3.bin", cut, None),
        "a batch is not there": ("data_batch_3.bin", gone, None),
        "a class that is not known": ("data_batch_3.bin", label(1, 10), "label 10"),
        "names of fewer classes": ("batches.meta.txt", edited(lambda text: text.partition("\n")[2]), None),
    },
    "cifar100": {
        "cut short": ("test.bin", cut, None),
        "no test": ("test.bin", gone, None),
        "a class that is not known": ("test.bin", label(1, 100, 3074, 1), "label 100"),
        "names of fewer classes": ("fine_label_names.txt", edited(lambda text: text.partition("\n")[2]), None),
    },
    "stl10": {
        "cut short": ("train_X.bin", cut, None),
        "no labels": ("train_y.bin", gone, None),
        "a label less": ("train_y.bin", lambda path: put(path, path.read_bytes()[1:]), None),
        "labels from 0": ("train_y.bin", lambda path: put(path, bytes([0, 9, 2])), None),
        "a class that is not known": ("test_y.bin", lambda path: put(path, bytes([11, 1])), None),
    },
    "image_files": {
        "cut short": ("train/cat/1.png", cut, None),
        "a bit of a picture": ("train/cat/1.png", flipped, None),
        "a class without pictures": ("test/dog/0.png", lambda path: [place.unlink() for place in path.parent.iterdir()], "dog"),
        "a class that is not known": (
            "test/dog/0.png",
            lambda path: path.parent.rename(path.parent.with_name("owl")),
            "owl|dog",
        ),
        "another size": ("train/cat/1.png", lambda path: Image.new("RGB", (9, 9)).save(path), None),
    },
    "imagenet100": {
        "cut short": ("train/cat/1.png", cut, None),
        "a bit of a picture": ("train/cat/1.png", flipped, None),
        "no list": ("list.txt", gone, None),
        "a class that is not known": ("list.txt", edited(lambda text: text + "owl\n"), "owl"),
        "a class twice": ("list.txt", edited(lambda text: text + "cat\n"), None),
        "a class without pictures": ("val/dog/0.png", lambda path: [place.unlink() for place in path.parent.iterdir()], "dog"),
    },
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels_and_labels_are_those_that_were_written(name, request):
    """Oracle: what the writers of the layouts (spelled out byte by byte in conftest) were given; probes of single values."""
    source, images, labels = IMAGES[name](request)
    data = open_data("images", source)
    pixels = np.concatenate([np.asarray(part) for part in (data.train, data.test)])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, images)
    for row, y, x, colour in np.random.default_rng(0).integers(0, [len(images), 8, 8, 3], (20, 4)):
        assert pixels[row, y, x, colour] == images[row, y, x, colour]
    known = [np.asarray(part) for part in (data.train_labels, data.test_labels) if part is not None]
    found = np.concatenate(known)
    np.testing.assert_array_equal(found[found >= 0], labels)  # -1: an image without one
    assert max(labels) < len(data.class_names)


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, found in IMAGE_DAMAGES.items() for damage in found])
def test_a_damaged_set_of_images_is_refused_by_name(name, damage, request):
    source = IMAGES[name](request)[0]
    path = Path(source.partition(":")[2].partition("?")[0])
    file, change, pattern = IMAGE_DAMAGES[name][damage]
    change(path / file)
    with pytest.raises(PulvinarError, match=pattern or (path / file).name.replace(".", r"\.")):
        open_data("images", source)


def test_an_axis_turned_round_would_be_seen(request):
    """The probes can fail: rows for columns, and blue for red, give other values at most of their places."""
    folder, images = request.getfixturevalue("class_folder")
    for turned in (images[:, :8, :8].transpose(0, 2, 1, 3), images[:, :8, :8, ::-1]):
        assert (turned != images[:, :8, :8]).mean() > 0.6
    assert Image.open(folder / "train/cat/0.png").size == (8, 10)  # width first
