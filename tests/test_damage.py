"""One flipped bit in a file: refused, or read as it was. Oracle: what was written.

Positions are drawn evenly over all bytes of all files of a form. Refused means one of our errors, which names a file; anything
else that is raised is a defect too. (`.npy`, uncompressed `.nii`, raw binaries and JPEG carry no checksum: nothing to compare.)
"""

import functools
import gzip
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from pulvinar.core import checksums
from pulvinar.core.errors import ConfigError, FileError, PulvinarError
from pulvinar.core.storage import SEAL, checksum, fingerprint, read_arrays, read_json, write_arrays, write_json
from pulvinar.data import experiment as experiments
from pulvinar.data.array_files import read_array
from pulvinar.data.brain_files import read_series_header, read_surface, read_volume
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import open_table
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_files import read_image
from pulvinar.data.matlab_files import read_matlab
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.algonauts2023 import read_submission, write_submission
from pulvinar.datasets.nsd.files import mgh_shape, read_mgh
from pulvinar.encoding.feature_cache import cached_features
from pulvinar.learning import checkpoints
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.staged import StagedNetwork
from pulvinar.networks.weights import read_weights

GENERATOR = np.random.default_rng(0)
VALUES = GENERATOR.normal(0, 300, (6, 5, 4, 7)).round().astype(np.int16)
SMOOTH = np.add.outer(np.arange(60, dtype=np.uint8), np.arange(60, dtype=np.uint8))  # Pillow finds damage in noise by itself
PIXELS = GENERATOR.integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Form:
    """write: into a folder, what is to be damaged; read: of that folder, everything that comes out, as one fingerprint."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]


def experiment() -> Experiment:
    ids = [f"s{row}" for row in range(8)]
    mask = np.random.default_rng(0).random((3, 4, 2)) < 0.5
    n_voxels = int(mask.sum())
    values = np.random.default_rng(1).normal(size=(16, n_voxels)).astype(np.float32)
    responses = Responses(
        subject="sub-01",
        values=values,
        stimulus_ids=ids * 2,
        sessions=np.repeat([1, 2], 8),
        geometry=Geometry.from_mask(mask, np.diag([2.0, 2.0, 3.0, 1.0])),
        noise_ceiling=np.linspace(0, 1, n_voxels),
        rois=ROIs({"V1": np.arange(n_voxels) < 4}, n_voxels=n_voxels),
    )
    features = {"clip": np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)}
    return Experiment(
        name="study",
        stimuli=Stimuli(ids=ids, sources=ids, features=features, read_image=lambda row: PIXELS[row % 4] // (1 + row // 4)),
        subjects={"sub-01": responses},
        split=Split(train=tuple(ids[:5]), test=tuple(ids[5:])),
        target="sub-01",
        truth={"sub-01": {"responsive": np.arange(n_voxels) % 2 == 0}},
    )


def everything(folder: Path) -> str:
    read = experiments.load(folder / "study")
    responses, stimuli = read.subjects["sub-01"], read.stimuli
    arrays = [np.array(responses.values), responses.sessions, responses.runs, responses.noise_ceiling]
    arrays += [
        responses.geometry.coordinates,
        responses.rois["V1"],
        stimuli.features["clip"],
        read.truth["sub-01"]["responsive"],
    ]
    texts = (read.name, read.target, tuple(responses.stimulus_ids), tuple(stimuli.ids), tuple(stimuli.sources), read.split)
    return fingerprint(*arrays, *texts, responses.scale, dict(read.facts), *[stimuli.image(row) for row in range(8)])


def write_surface(folder: Path) -> None:
    arrays = (
        ("POINTSET", VALUES[..., 0].reshape(-1, 3)[:30].astype("f4")),
        ("TRIANGLE", np.arange(27, dtype="i4").reshape(9, 3)),
    )
    kinds = [nibabel.gifti.GiftiDataArray(values, f"NIFTI_INTENT_{name}") for name, values in arrays]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=kinds), folder / "lh.surf.gii")


def write_embedding(folder: Path) -> None:
    np.save(folder / "clip.npy", VALUES.reshape(8, -1).astype(np.float16))
    write_json(folder / "clip.json", {"sha256": checksum(folder / "clip.npy")})


def state(folder: Path) -> dict:
    del folder
    moments = [torch.arange(40.0), torch.arange(6).reshape(2, 3), torch.tensor(0.5, dtype=torch.bfloat16), torch.zeros(0, 2)]
    return {"epoch": 3, "loss": 0.1, "moments": moments, "records": [{"loss": 0.25, "epoch": 1}]}


@functools.cache
def network() -> StagedNetwork:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU())
    return StagedNetwork(network, name="small", stages=("1",), preprocessing=Preprocessing(image_size=16))


def cached(folder: Path) -> str:
    features = cached_features(network(), PIXELS, folder=folder)
    return fingerprint(*map(np.array, features.values()))


def scores(folder: Path) -> str:
    found = read_json(folder / "evaluation.json")
    return fingerprint(found["rows"], found["null"])


FORMS = {
    ".nii.gz": Form(
        lambda folder: nibabel.save(nibabel.Nifti1Image(VALUES, np.diag([2.0, 2, 2, 1])), folder / "bold.nii.gz"),
        lambda folder: fingerprint(read_volume(folder / "bold.nii.gz").stored, read_volume(folder / "bold.nii.gz").affine),
    ),
    "header of .nii.gz": Form(
        lambda folder: nibabel.save(nibabel.Nifti2Image(np.zeros((2, 2, 2, 3)), np.eye(4)), folder / "bold.nii.gz"),
        lambda folder: fingerprint(read_series_header(folder / "bold.nii.gz")),
    ),
    ".mgz": Form(
        lambda folder: nibabel.save(nibabel.MGHImage(VALUES.reshape(-1, 1, 1, 7).astype("f4"), np.eye(4)), folder / "lh.mgz"),
        lambda folder: fingerprint(read_mgh(folder / "lh.mgz"), mgh_shape(folder / "lh.mgz")),
    ),
    ".gii": Form(write_surface, lambda folder: fingerprint(*read_surface([folder / "lh.surf.gii"]))),
    ".npz": Form(
        lambda folder: write_arrays(folder / "a.npz", betas=VALUES, id=np.array(["a", "b"])),
        lambda folder: fingerprint(*[part for item in sorted(read_arrays(folder / "a.npz").items()) for part in item]),
    ),
    "compressed .npz": Form(
        lambda folder: np.savez_compressed(folder / "a.npz", betas=VALUES),
        lambda folder: fingerprint(read_array(folder / "a.npz")),
    ),
    ".mat": Form(
        lambda folder: scipy.io.savemat(folder / "a.mat", {"x": VALUES.reshape(8, -1)}, do_compression=True),
        lambda folder: fingerprint(read_matlab(folder / "a.mat")["x"]),
    ),
    ".png": Form(
        lambda folder: Image.fromarray(SMOOTH).save(folder / "a.png"),
        lambda folder: fingerprint(read_image(folder / "a.png")),
    ),
    "submission": Form(
        lambda folder: write_submission(folder / "a.zip", {"subj01/lh": VALUES.reshape(8, -1)}),
        lambda folder: fingerprint(*read_submission(folder / "a.zip").items()),
    ),
    "weights of torch.save": Form(
        lambda folder: torch.save({"weight": torch.arange(60.0)}, folder / "a.pt"),
        lambda folder: fingerprint(read_weights(folder / "a.pt")["weight"].numpy()),
    ),
    "embedding": Form(
        write_embedding,
        lambda folder: fingerprint(np.array(open_table(str(folder / "clip.npy"), ids=[f"image-{row}" for row in range(8)]))),
    ),
    "experiment": Form(lambda folder: experiments.save(experiment(), folder / "study"), everything),
    "checkpoint": Form(
        lambda folder: checkpoints.save(folder / "latest.safetensors", state(folder)),
        lambda folder: fingerprint(str(checkpoints.load(folder / "latest.safetensors"))),
    ),
    "feature cache": Form(cached, cached),
    "evaluation": Form(
        lambda folder: write_json(folder / "evaluation.json", {"rows": [{"score": 0.663}], "null": 0.01}, sealed=True), scores
    ),
}
ASKED = (".nii.gz", ".npz", "experiment", "checkpoint", "feature cache")  # of the slow test: a hundred flips each


def outcome(form: Form, folder: Path) -> str:
    """What is read; or the refusal, which must name a file there."""
    try:
        return str(form.read(folder))
    except PulvinarError as error:
        return "refused" if str(folder) in str(error) else f"refused without the file's name: {error}"


def flip(folder: Path, form: Form, n: int, *, seed: int = 0) -> dict[str, int]:
    """How many of `n` flipped bits were refused, and how many read as what was written; there must be no others."""
    form.write(folder)
    expected = form.read(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    ends = np.cumsum([path.stat().st_size for path in files])
    found = []
    for place in np.random.default_rng(seed).integers(0, 8 * ends[-1], n).tolist():
        number = int(np.searchsorted(ends, place // 8, side="right"))
        path, offset = files[number], place // 8 - int(ends[number - 1] if number else 0)
        good = path.read_bytes()
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 1 << place % 8]) + good[offset + 1 :])
        found.append(outcome(form, folder))
        path.write_bytes(good)
        assert found[-1] in {expected, "refused"}, f"{path.name}: bit {place % 8} of byte {offset}: {found[-1]}"
    return {"refused": found.count("refused"), "as it was": found.count(expected)}


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_a_flipped_bit_is_refused_or_changes_nothing(name: str, tmp_path: Path):
    flip(tmp_path, FORMS[name], 24)


@pytest.mark.slow
def test_five_hundred_flipped_bits(tmp_path: Path):
    for name in ASKED:
        (tmp_path / name).mkdir()
        print(name, flip(tmp_path / name, FORMS[name], 100, seed=1))  # noqa: T201 (the figures of docs/log.md)


def test_chunks_of_compressed_hdf5_are_compared(tmp_path: Path):
    """The values. (What says where they lie, the index of the chunks, carries no checksum.)"""
    path = tmp_path / "betas.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=VALUES.reshape(8, -1), compression="gzip", chunks=(8, 105))
        chunk = file["betas"].id.get_chunk_info(0)
    form = Form(lambda folder: None, lambda folder: fingerprint(read_array(folder / "betas.h5")))
    good, expected = path.read_bytes(), form.read(tmp_path)
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 41):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 4]) + good[offset + 1 :])
        assert outcome(form, tmp_path) in {expected, "refused"}


def test_a_repetition_time_of_a_damaged_header_is_refused(tmp_path: Path):
    """Only the header is read: nibabel alone would take the flipped seconds, as the stream here is stored uncompressed."""
    image = nibabel.Nifti1Image(np.zeros((9, 9, 9, 3), np.int16), np.eye(4))
    image.header.set_zooms((2, 2, 2, 1.5))
    content = bytearray(gzip.compress(image.to_bytes(), compresslevel=0))
    (tmp_path / "bold.nii.gz").write_bytes(content)
    assert read_series_header(tmp_path / "bold.nii.gz") == (3, 1.5)
    content[content.index(np.float32(1.5).tobytes()) + 2] ^= 64
    (tmp_path / "bold.nii.gz").write_bytes(content)
    assert nibabel.load(tmp_path / "bold.nii.gz").header.get_zooms()[3] == 1.0
    with pytest.raises(FileError, match=r"bold\.nii\.gz.*CRC"):
        read_series_header(tmp_path / "bold.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_what_is_cut_or_followed_by_something_else_is_refused(name: str, tmp_path: Path):
    read, kind = (read_volume, nibabel.Nifti1Image) if name == "a.nii.gz" else (read_mgh, nibabel.MGHImage)
    path = tmp_path / name
    nibabel.save(kind(VALUES[:, :1, :1].reshape(-1, 1, 1).astype("f4"), np.eye(4)), path)
    read(path)
    good = path.read_bytes()
    for content in (good[:-1], good[:-8], good[: len(good) // 2], good + b"rest", b""):
        path.write_bytes(content)
        with pytest.raises(FileError, match=name):
            read(path)


def test_folder_and_file_without_checksums_are_read(tmp_path: Path):
    """What the version before wrote, and what a person has changed on purpose."""
    experiments.save(experiment(), tmp_path / "study")
    with h5py.File(tmp_path / "study/responses/sub-01.h5", "r+") as file:
        file["values"][0, 0] = 99
    with pytest.raises(FileError, match=r"responses/sub-01\.h5 damaged, or changed.*remove the file's line"):
        experiments.load(tmp_path / "study")
    sums = read_json(tmp_path / "study/checksums.json")
    del sums["responses/sub-01.h5"]
    write_json(tmp_path / "study/checksums.json", sums)
    assert experiments.load(tmp_path / "study").subjects["sub-01"].values[0, 0] == 99
    (tmp_path / "study/checksums.json").unlink()
    assert experiments.load(tmp_path / "study").subjects["sub-01"].values[0, 0] == 99
    from safetensors.torch import save_file

    save_file({"0": torch.ones(2)}, tmp_path / "old.safetensors", metadata={"json": '{"w": {"@tensor": "0"}}'})
    assert checkpoints.load(tmp_path / "old.safetensors")["w"].tolist() == [1, 1]
    write_json(tmp_path / "old.json", {"rows": [1]})
    assert read_json(tmp_path / "old.json") == {"rows": [1]}


def test_a_sealed_file_is_given_without_its_seal_and_any_layout_of_the_same_is_taken(tmp_path: Path):
    value = {"a": 0.1 + 0.2, "b": [1, None, "ü"], "c": {"2": (3,)}}
    write_json(tmp_path / "a.json", value, sealed=True)
    assert read_json(tmp_path / "a.json") == {"a": 0.1 + 0.2, "b": [1, None, "ü"], "c": {"2": [3]}}
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert SEAL not in read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(content | {"a": 0.3}))
    with pytest.raises(FileError, match=r"a\.json: damaged, or changed"):
        read_json(tmp_path / "a.json")


# --- when files are compared ------------------------------------------------------------------------------------------


@pytest.fixture
def settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A file that counts as large and as written a while ago, and the kinds of the checks that are made of it."""
    monkeypatch.setattr(checksums, "REMEMBERED_FROM", 4)
    monkeypatch.setattr(checksums, "SETTLED", -1.0)
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large"
    path.write_bytes(b"large file")
    return path, []


def look(path: Path, made: list[str], *, new_process: bool = False) -> int:
    if new_process:
        checksums._seen.clear()
    checksums.once(path, "sum", lambda: made.append("sum"))
    return len(made)


def test_a_file_is_compared_once_and_again_when_it_changed(settled: tuple[Path, list[str]]):
    path, made = settled
    assert [look(path, made), look(path, made), look(path, made, new_process=True)] == [1, 1, 1]
    stamp = path.stat()
    path.write_bytes(b"largE file")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time of writing
    assert [look(path, made), look(path, made, new_process=True)] == [2, 2]
    checksums.once(path, "another sum", lambda: made.append("other"))
    assert made[-1] == "other"


def test_what_was_remembered_is_forgotten_after_thirty_days_and_where_it_is_damaged(
    settled: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, made = settled
    look(path, made)
    memory = tmp_path / "cache" / "checked.json"
    kept = memory.read_text()
    memory.write_text("{")
    assert look(path, made, new_process=True) == 2
    memory.write_text(kept)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 31 * 86_400)
    assert look(path, made, new_process=True) == 3


def test_small_files_are_compared_by_every_process_and_fresh_ones_every_time(
    settled: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
):
    path, made = settled
    monkeypatch.setattr(checksums, "REMEMBERED_FROM", 2**26)
    assert [look(path, made), look(path, made), look(path, made, new_process=True)] == [1, 1, 2]
    monkeypatch.setattr(checksums, "SETTLED", 60.0)
    assert [look(path, made, new_process=True), look(path, made)] == [3, 4]


def test_a_check_that_fails_is_not_remembered(settled: tuple[Path, list[str]]):
    path, _ = settled
    for _ in range(2):
        with pytest.raises(FileError, match="large: damaged, or changed since it was written"):
            checksums.require(path, "0" * 64, written_in="checksums.json")


def test_modes(settled: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, made = settled
    with checksums.using("never"):
        assert look(path, made) == 0
    with checksums.using("always"):
        assert [look(path, made), look(path, made)] == [1, 2]
    assert checksums.mode() == "once"
    monkeypatch.setenv("PULVINAR_CHECKSUMS", "sometimes")
    with pytest.raises(ConfigError, match="one of once, always, never is needed, 'sometimes' came"):
        checksums.mode()
