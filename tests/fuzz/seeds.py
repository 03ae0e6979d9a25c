"""Small files of every kind that pulvinar reads, as its own writers and the libraries of the field write them."""

import contextlib
import hashlib
import json
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import scipy.io
import torch
from PIL import Image

from pulvinar.app import fit as fitting
from pulvinar.cli import main
from pulvinar.core.storage import write_arrays, write_json
from pulvinar.data import experiment as experiments
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.matlab_files import write_matlab_7_3
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.algonauts2019.submission import write_submission
from pulvinar.learning import checkpoints
from pulvinar.rsa.rsatoolbox_files import from_matrices, write_rdm_file

for _folder in ("", "datasets"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _folder))

WRITERS: dict[str, Callable[[Path], None]] = {}
GRID, AFFINE = (6, 5, 4), np.diag([2.0, 2.0, 2.0, 1.0])


def write(folder: Path) -> None:
    """All seeds, a folder of each kind; those that are there already are kept."""
    for name, writer in WRITERS.items():
        if not (folder / name).is_dir():
            shutil.rmtree(folder / f".{name}", ignore_errors=True)
            (folder / f".{name}").mkdir(parents=True)
            writer(folder / f".{name}")
            (folder / f".{name}").rename(folder / name)
    (folder / "complete").touch()


def kind(writer: Callable[[Path], None]) -> Callable[[Path], None]:
    WRITERS[writer.__name__] = writer
    return writer


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def rdms(n_subjects: int = 3, n_images: int = 8) -> np.ndarray:
    patterns = generator().normal(size=(n_images, 9)) + generator().normal(size=(n_subjects, n_images, 9)) * 0.7
    made = np.stack([1 - np.corrcoef(rows) for rows in patterns])
    made[:, np.arange(n_images), np.arange(n_images)] = 0
    return made


# --- arrays, tables, texts ----------------------------------------------------------------------------------------------


@kind
def arrays(folder: Path) -> None:
    values = generator().normal(size=(8, 6)).astype(np.float32)
    ids = [f"s{row}" for row in range(8)]
    np.save(folder / "a.npy", values)
    (folder / "a.csv").write_text("row,id\n" + "".join(f"{row},{name}\n" for row, name in enumerate(ids)))
    np.savez(folder / "b.npz", clip=values, id=ids)
    np.savez_compressed(folder / "c.npz", betasmd=values, id=ids)
    with h5py.File(folder / "d.h5", "w") as file:
        file["betasmd"] = values
        file.create_dataset("id", data=ids, dtype=h5py.string_dtype())
    with h5py.File(folder / "e.hdf5", "w") as file:
        file.create_dataset("clip", data=values, chunks=(4, 3), compression="gzip", shuffle=True, fletcher32=True)
    checkpoints.write_tensors(folder / "f.safetensors", {"clip": torch.from_numpy(values)}, {"about": "a table"})
    write_json(folder / "f.json", {"stimuli": "x", "sha256": "0"})


@kind
def matlab(folder: Path) -> None:
    content = {
        "x": generator().normal(size=(3, 4)),
        "n": np.arange(5),
        "text": "abc",
        "s": np.array([(1.0, "a")], [("v", "O"), ("t", "O")]),
    }
    scipy.io.savemat(folder / "v5.mat", content)
    scipy.io.savemat(folder / "v5z.mat", content, do_compression=True)
    structs = {"s": [{"v": np.ones((2, 2)), "t": "one"}, {"v": np.zeros((2, 2)), "t": "two"}]}
    write_matlab_7_3(folder / "v_73.mat", {"x": content["x"], "n": content["n"][None]}, structs)


@kind
def tables(folder: Path) -> None:
    rows = "".join(f"s{row},{row // 4},{row % 2},a,{'train' if row % 2 else 'test'}\n" for row in range(8))
    (folder / "t.csv").write_text("stimulus,session,run,label,split\n" + rows)
    (folder / "t.tsv").write_text(
        "onset\tduration\ttrial_type\tstim_file\n" + "".join(f"{row * 3}\t1\tseen\ta{row}.png\n" for row in range(8))
    )
    (folder / "labels.csv").write_text("0 Unknown 0 0 0 0\n1 V1v 10 20 30 0\n")


@kind
def texts(folder: Path) -> None:
    write_json(folder / "a.json", {"a": [1, 2, {"b": "c"}], "d": None}, sealed=True)
    (folder / "b.toml").write_text('epochs = 3\nlow_pass = "none"\nn_voxels = 20\nlearning_rate = 0.001\n')
    (folder / "grid.toml").write_text(
        'method = "troi"\ndata = ["x", "y"]\nout = "out"\ncontrols = false\ntarget = ["a", "b"]\n[set]\nepochs = 2\n[set.pretrained]\n'
        'epochs = 2\n[grid]\nn_voxels = [10, 20]\n[[cell]]\nname = "whole"\n[[cell]]\nname = "b"\npretrain = false\n'
    )


# --- brains -------------------------------------------------------------------------------------------------------------


@kind
def volumes(folder: Path) -> None:
    values = generator().normal(0, 300, (*GRID, 7)).round().astype(np.int16)
    image = nibabel.Nifti1Image(values, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    nibabel.save(image, folder / "series.nii")
    nibabel.save(image, folder / "series.nii.gz")
    nibabel.save(nibabel.Nifti1Image((values[..., 0] > 0).astype(np.uint8), AFFINE), folder / "mask.nii.gz")
    nibabel.save(nibabel.Nifti2Image(values[..., 0].astype(np.float32), AFFINE), folder / "two.nii")
    scaled = nibabel.Nifti1Image(values[..., 0].astype(np.float64), AFFINE)
    scaled.set_data_dtype(np.int16)
    nibabel.save(scaled, folder / "scaled.nii.gz")


@kind
def surfaces(folder: Path) -> None:
    points, faces = generator().normal(size=(30, 3)).astype("f4"), np.arange(27, dtype="i4").reshape(9, 3)
    gifti = nibabel.gifti
    for name, encoding in (("lh", "GIFTI_ENCODING_B64GZ"), ("rh", "GIFTI_ENCODING_ASCII"), ("both", "GIFTI_ENCODING_B64BIN")):
        parts = [
            gifti.GiftiDataArray(values, f"NIFTI_INTENT_{kind}", encoding=encoding)
            for values, kind in ((points, "POINTSET"), (faces, "TRIANGLE"))
        ]
        nibabel.save(gifti.GiftiImage(darrays=parts), folder / f"{name}.surf.gii")
    nibabel.freesurfer.write_geometry(str(folder / "lh.white"), points, faces)
    nibabel.freesurfer.write_geometry(str(folder / "rh.white"), points, faces)
    values = generator().normal(size=(20, 1, 1, 5)).astype("f4")
    nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), folder / "a.mgh")
    nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), folder / "b.mgz")


@kind
def vertices(folder: Path) -> None:
    gifti, values = nibabel.gifti, generator().normal(size=(5, 30)).astype("f4")
    for name, encoding in (("a", "GIFTI_ENCODING_B64GZ"), ("b", "GIFTI_ENCODING_ASCII")):
        parts = [gifti.GiftiDataArray(row, "NIFTI_INTENT_NONE", encoding=encoding) for row in values]
        nibabel.save(gifti.GiftiImage(darrays=parts), folder / f"{name}.func.gii")
    keys = gifti.GiftiDataArray(np.arange(30, dtype="i4"), "NIFTI_INTENT_LABEL")
    nibabel.save(gifti.GiftiImage(darrays=[keys]), folder / "map.label.gii")
    for name in ("a.mgh", "b.mgz"):
        nibabel.save(nibabel.freesurfer.MGHImage(values.T[:, None, None].copy(), np.eye(4)), folder / name)


@kind
def frames(folder: Path) -> None:
    shown, values = [f"s{row}" for row in range(8)], generator().normal(size=(8, 4))
    columns = ["stimulus", *(f"v{number}" for number in range(4))]
    rows = [",".join([name, *map(str, row)]) for name, row in zip(shown, values, strict=True)]
    (folder / "a.csv").write_text("\n".join([",".join(columns), *rows, ""]))
    with contextlib.suppress(ImportError):
        import pyarrow.parquet

        table = pyarrow.table({"stimulus": shown, **{name: values[:, row] for row, name in enumerate(columns[1:])}})
        pyarrow.parquet.write_table(table, folder / "b.parquet")
        pyarrow.parquet.write_table(table, folder / "c.parquet", compression="none", use_dictionary=False)
    with h5py.File(folder / "d.h5", "w") as file:
        group = file.create_group("data")
        group.attrs["pandas_type"], group.attrs["nblocks"] = np.bytes_("frame"), 1
        group["axis0"] = group["block0_items"] = np.array(columns[1:], "S")
        group["axis1"], group["block0_values"] = np.array(shown, "S"), values
        group["axis1"].attrs["name"] = np.bytes_("stimulus")
        group["block0_values"].attrs["transposed"] = True


@kind
def cifti(folder: Path) -> None:
    axes = nibabel.cifti2
    brain = axes.BrainModelAxis.from_mask(np.ones(12, bool), name="CortexLeft")
    brain = brain + axes.BrainModelAxis.from_mask(np.ones(12, bool), name="CortexRight")
    values = generator().normal(size=(2, 24)).astype("f4")
    nibabel.save(
        axes.Cifti2Image(values, axes.Cifti2Header.from_axes((axes.ScalarAxis(["a", "b"]), brain))), folder / "m.dscalar.nii"
    )
    labels = axes.LabelAxis(["roi"], {0: ("none", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1))})
    nibabel.save(
        axes.Cifti2Image(np.ones((1, 24), "f4"), axes.Cifti2Header.from_axes((labels, brain))), folder / "l.dlabel.nii"
    )


# --- pictures -----------------------------------------------------------------------------------------------------------


@kind
def pictures(folder: Path) -> None:
    pixels = generator().integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp", "a.webp", "a.gif", "a.ppm"):
        image.save(folder / name)
    image.convert("RGBA").save(folder / "alpha.png")
    image.convert("P").save(folder / "palette.png", transparency=3)
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "grey16.png")
    Image.fromarray(pixels[..., 0].astype(np.float32) / 255).save(folder / "float.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)


@kind
def image_sets(folder: Path) -> None:
    images = generator().integers(0, 255, (10, 8, 8, 3), dtype=np.uint8)
    write_arrays(
        folder / "set.npz",
        x_train=images[:6],
        y_train=np.arange(6) % 2,
        x_test=images[6:],
        y_test=np.arange(4) % 2,
        class_names=np.array(["a", "b"]),
    )
    cifar = folder / "cifar-10-batches-bin"
    cifar.mkdir()
    records = np.concatenate([generator().integers(0, 10, (4, 1)), generator().integers(0, 255, (4, 3072))], 1).astype(np.uint8)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        (cifar / name).write_bytes(np.roll(records, hash(name) % 3, axis=1).clip(0, 9).tobytes())
    (cifar / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    stl = folder / "stl10_binary"
    stl.mkdir()
    for side in ("unlabeled", "train", "test"):
        (stl / f"{side}_X.bin").write_bytes(generator().integers(0, 255, (2, 27648), dtype=np.uint8).tobytes())
        (stl / f"{side}_y.bin").write_bytes(bytes([1, 10]))
    (stl / "class_names.txt").write_text("\n".join("abcdefghij"))


# --- RDMs, submissions, mappings ----------------------------------------------------------------------------------------


@kind
def dissimilarities(folder: Path) -> None:
    made, names = rdms(), [f"i{row}" for row in range(8)]
    images = generator().integers(0, 255, (8, 8, 8, 3), dtype=np.uint8)
    write_arrays(
        folder / "all.npz",
        fmri_evc=made,
        fmri_it=made[::-1],
        mine=made[0],
        ids=np.array(names),
        images=images,
        category=np.array(list("aabbccdd")),
    )
    write_arrays(folder / "measured.npz", fmri_evc=made, fmri_it=made[::-1], ids=np.array(names))
    np.save(folder / "model.npy", made[0])
    write_rdm_file(folder / "toolbox.h5", from_matrices(made, measure="correlation", pattern_descriptors={"conds": names}))
    write_submission(folder / "mat", {"evc": made[0], "it": made[1]}, file_format="mat")
    for path in (folder / "mat").iterdir():
        shutil.move(path, folder / f"submit_{path.name.removeprefix('submit_')}")
    (folder / "mat").rmdir()
    write_arrays(folder / "submit_x.npz", EVC_RDMs=made[0], IT_RDMs=made[1])
    buffer = folder / "submit_zip.zip"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(folder / "submit_x.npz", "submit_fmri.npz")


@kind
def mappings(folder: Path) -> None:
    names = {0: "Unknown", 1: "V1v", 2: "V1d", 300: "é"}
    np.save(folder / "a_mapping.npy", np.array(names, dtype=object), allow_pickle=True)
    for protocol in (2, 3, 4, 5):
        with (folder / f"p{protocol}_mapping.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(np.array(names, dtype=object), file, protocol=protocol)


@kind
def algonauts(folder: Path) -> None:
    with zipfile.ZipFile(folder / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for side in ("lh", "rh"):
            with archive.open(f"subj01/{side}_pred_test.npy", "w") as file:
                np.lib.format.write_array(file, generator().normal(size=(5, 7)).astype(np.float32))


@kind
def mindeye(folder: Path) -> None:
    rows = np.zeros((1, 17), np.float64)
    np.save(folder / "x.behav.npy", rows)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for number in range(5):
            archive.add(folder / "x.behav.npy", f"sample{number:03d}.behav.npy")
    (folder / "x.behav.npy").unlink()
    with h5py.File(folder / "images.hdf5", "w") as file:
        file.create_dataset(
            "images", data=generator().random((4, 3, 8, 8)).astype(np.float16), chunks=(1, 3, 8, 8), compression="gzip"
        )


@kind
def nsd(folder: Path) -> None:
    content = {
        "masterordering": np.arange(1, 31)[None],
        "subjectim": np.tile(np.arange(1, 1051), (8, 1)),
        "sharedix": np.arange(1, 1001)[None],
    }
    scipy.io.savemat(folder / "nsd_expdesign.mat", content)
    betas = generator().integers(-300, 300, (750, 3, 3, 3)).astype(np.int16)
    with h5py.File(folder / "betas_session01.hdf5", "w") as file:
        file.create_dataset("betas", data=betas, chunks=(750, 1, 1, 1))
    nibabel.save(nibabel.Nifti1Image(betas.transpose(3, 2, 1, 0), AFFINE), folder / "betas_session01.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((3, 3, 3), np.int16), AFFINE), folder / "nsdgeneral.nii.gz")
    (folder / "prf.mgz.ctab").write_text("0 Unknown\n1 V1v 10 20 30 0\n")


@kind
def nsd_beside(folder: Path) -> None:
    """Tables and designs of NSD-synthetic and NSD-imagery, with one small file of betas of each."""
    from pulvinar.datasets.nsd import beside_writer

    rng = generator()
    orders = {"synthetic": beside_writer.synthetic_order(rng), "imagery": beside_writer.imagery_order(rng)}
    beside_writer.write_tables(folder, ("synthetic", "imagery"), [orders, orders], 0)
    for path in folder.rglob("nsdimagery_subj02_*"):
        path.unlink()
    place = folder / "nsddata/experiments/nsdimagery/rawtargetimages"
    place.mkdir(parents=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(place / "a.png")
    shown = [beside_writer.condition(letter, target) for letter in "AB" for target in range(6)]
    (place / "stimuli_info.csv").write_text("condition,file_name\n" + "".join(f"{one},a.png\n" for one in shown))
    for name, n_betas in (("synthetic", 744), ("imagery", 720)):
        betas = rng.integers(-300, 300, (n_betas, 2, 2, 2)).astype(np.int16)
        with h5py.File(folder / f"betas_nsd{name}.hdf5", "w") as file:
            file.create_dataset("betas", data=betas, chunks=(n_betas, 1, 1, 1))


# --- whole data sets ----------------------------------------------------------------------------------------------------


@kind
def layouts(folder: Path) -> None:
    """Every data set in its layout, as the contract of data sets has it."""
    from test_contract import LAYOUTS

    for name, layout in LAYOUTS.items():
        (folder / name).mkdir()
        layout.write(folder / name)


@kind
def glmsingle(folder: Path) -> None:
    """BIDS with the betas of GLMsingle in both of its forms, for the mask and the events of the first run."""
    from test_contract import LAYOUTS

    LAYOUTS["bids"].write(folder)
    grid = nibabel.load(next((folder / "set").rglob("*_mask.nii.gz"))).shape
    n_trials = sum(path.read_text().count("\timage\t") for path in (folder / "set").rglob("*_events.tsv"))
    values = generator().normal(size=(*grid[:3], n_trials)).astype(np.float32)
    place = folder / "set/derivatives/glmsingle/sub-01"
    place.mkdir(parents=True)
    with h5py.File(place / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file.create_dataset("betasmd", data=values, compression="gzip")
    other = folder / "of_matlab/derivatives/glmsingle/sub-01"
    shutil.copytree(folder / "set", folder / "of_matlab", ignore=shutil.ignore_patterns("TYPED*"))
    write_matlab_7_3(other / "TYPED_FITHRF_GLMDENOISE_RR.mat", {"modelmd": values})


@kind
def own_arrays(folder: Path) -> None:
    """Descriptions of responses in MATLAB files with a named order of axes, in .npy, and in a table; masks and ceilings."""
    import planted_study as study

    n_voxels = 15
    roi = (np.arange(n_voxels) % 3 == 0).astype(float)[:, None]
    values = study.values(n_voxels)
    for name in ("five", "seven", "numpy", "table"):
        place = folder / name
        place.mkdir()
        np.save(place / "xyz.npy", generator().normal(size=(n_voxels, 3)) * 20)
        if name == "five":
            scipy.io.savemat(place / "betas.mat", {"betas": values.T, "V1": roi, "nc": roi / 2})
        elif name == "seven":
            write_matlab_7_3(place / "betas.mat", {"betas": values.T, "V1": roi, "nc": roi / 2})
        elif name == "numpy":
            np.save(place / "betas.npy", values)
        else:
            rows = [",".join([shown, *map(str, row)]) for shown, row in zip(study.order(), values, strict=True)]
            columns = ",".join(["stimulus", *(f"v{number}" for number in range(n_voxels))])
            (place / "betas.csv").write_text("\n".join([columns, *rows, ""]))
        said = {
            "numpy": 'responses = "betas.npy"',
            "table": 'responses = "betas.csv"\nvoxel_columns = "v"',
        }.get(
            name,
            'responses = { file = "betas.mat", array = "betas" }\naxes = "voxel,trial"\n'
            'rois.V1 = { file = "betas.mat", array = "V1" }\nnoise_ceiling = { file = "betas.mat", array = "nc" }',
        )
        study.write(place, f'{said}\ncoordinates = "xyz.npy"', trials=name != "table")


@kind
def listings(folder: Path) -> None:
    """What S3, figshare and a mirror say of their files, and the record of a fetched folder."""
    entries = "".join(
        f'<Contents><Key>set/s{row}.h5</Key><ETag>"{row:032x}"</ETag><Size>{row}</Size></Contents>' for row in range(4)
    )
    (folder / "s3.xml").write_text(
        f'<?xml version="1.0"?><ListBucketResult xmlns="x"><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>'
    )
    files = [
        {"name": f"s{row}.h5", "download_url": f"https://x.org/{row}", "size": row, "computed_md5": "0" * 32}
        for row in range(4)
    ]
    (folder / "figshare.json").write_text(json.dumps(files))
    record = {f"s{row}.h5": {"bytes": 1, "sha256": "0" * 64, "source": "x", "compared_with": "size"} for row in range(4)}
    write_json(folder / "mirror.json", {"dataset": "x", "files": record, "archives": {"a.zip": ["s1.h5"]}})
    (folder / "fetched").mkdir()
    (folder / "fetched/s1.h5").write_bytes(b"a")
    record["s1.h5"]["sha256"] = hashlib.sha256(b"a").hexdigest()
    (folder / "s2.h5.part").write_bytes(b"a")
    write_json(folder / "s2.h5.part.json", {"url": "https://x.org/s2.h5", "bytes": 9, "tag": "x"})
    write_json(
        folder / "fetched/fetched.json", {"dataset": "x", "files": record, "archives": {"a.zip": ["s1.h5"]}}, sealed=True
    )


# --- networks -----------------------------------------------------------------------------------------------------------


@kind
def weights(folder: Path) -> None:
    state = {"layer.weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "layer.bias": torch.zeros(3)}
    torch.save(state, folder / "a.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    np.savez(folder / "b.npz", **{name: value.numpy() for name, value in state.items()})
    checkpoints.write_tensors(folder / "c.safetensors", state, {})
    checkpoints.save(
        folder / "d.safetensors", {"a": {"b": state["layer.weight"]}, "c": [1, "x", None], "records": [{"loss": 1.0}]}
    )
    write_json(folder / "b.json", {"mean": [0.5, 0.5, 0.5], "sd": [0.5, 0.5, 0.5]})


# --- experiments and runs -----------------------------------------------------------------------------------------------


def experiment() -> Experiment:
    rng = generator()
    ids = [f"image-{row:02d}" for row in range(60)]
    embedding = rng.normal(size=(60, 8)).astype(np.float32)
    pixels = np.kron(rng.integers(0, 255, (60, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    subjects = {}
    for name in ("one", "two", "new"):
        values = rng.normal(size=(60, 60)).astype(np.float32)
        values[:, :12] += embedding @ rng.normal(size=(8, 12)).astype(np.float32)
        subjects[name] = Responses(
            subject=name,
            values=values,
            stimulus_ids=ids,
            sessions=np.repeat([1, 2], 30),
            geometry=Geometry.from_index(np.argwhere(np.ones((5, 4, 3), bool)), shape=(5, 4, 3), affine=AFFINE),
            noise_ceiling=np.linspace(0, 1, 60),
            rois=ROIs({"annotated": np.arange(60) < 24, "lh.V1": np.arange(60) < 6}, n_voxels=60),
        )
    return Experiment(
        name="study",
        stimuli=Stimuli(ids=ids, sources=ids, features={"clip": embedding}, read_image=pixels.__getitem__),
        subjects=subjects,
        split=Split(train=tuple(ids[:45]), test=tuple(ids[45:])),
        target="new",
        truth={"new": {"responsive": np.arange(60) < 12}},
    )


@kind
def experiment_folder(folder: Path) -> None:
    experiments.save(experiment(), folder / "study")
    (folder / "study" / "checksums.json").unlink()
    shutil.rmtree(folder / "study" / "images" / "none", ignore_errors=True)


def _command(*arguments: object) -> None:
    if main([*map(str, arguments), "--quiet"]):
        raise RuntimeError(f"the seed could not be made: {arguments}")


QUICK = (
    "n_voxels=12",
    "epochs=3",
    "n_rounds=2",
    "epochs_per_round=2",
    "n_folds=2",
    "pretrained.epochs=2",
    "pretrained.hidden=16",
)


@kind
def troi_run(folder: Path) -> None:
    fitting.fit("troi", data=str(_beside(folder)), out=str(folder / "run"), assignments=QUICK)
    _command("evaluate", folder / "run")


@kind
def encoding_run(folder: Path) -> None:
    chosen = ("alphas=10,1000", "n_permutations=20", "folds=2", "baseline=none", "subjects=one,two", "network=squeezenet1_1",
              "image_size=32", "n_stages=2", "pool=4")  # fmt: skip
    fitting.fit("ridge_encoding", data=str(_beside(folder)), out=str(folder / "run"), assignments=chosen)
    _command("evaluate", folder / "run")


@kind
def aggregation_run(folder: Path) -> None:
    rng = generator()
    images = (rng.integers(0, 255, (18, 1, 1, 3)) + rng.integers(-9, 9, (18, 64, 64, 3))).clip(0, 255)
    colours = images.mean((1, 2))
    made = np.linalg.norm(colours[:, None] - colours[None], axis=-1) * np.linspace(0.5, 1, 3)[:, None, None]
    data = folder.parent / "rdms_of_runs.npz"
    np.savez(data, images=images.astype(np.uint8), fmri_evc=made)
    chosen = ("network=squeezenet1_0", "image_size=64", "epochs=2", "n_inner_folds=2")
    fitting.fit("learning_to_aggregate", data=str(data), out=str(folder / "run"), assignments=chosen)
    _command("evaluate", folder / "run")
    (folder / "images").mkdir()
    for row in range(3):
        Image.fromarray(images[row].astype(np.uint8)).save(folder / "images" / f"{row}.png")


@kind
def self_supervised_run(folder: Path) -> None:
    coarse = generator().integers(0, 256, (160, 4, 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    data = folder.parent / "images_of_runs.npz"
    np.savez(data, x_train=coarse[:120], y_train=np.arange(120) % 2, x_test=coarse[120:], y_test=np.arange(40) % 2)
    chosen = ("epochs=1", "batch_size=16", "width=0.125", "projector_width=32")
    fitting.fit("dual_gating", data=str(data), out=str(folder / "run"), assignments=chosen)
    _command("evaluate", folder / "run")
    _command("deploy", "compact", folder / "run", "--calibrate", data, "--out", folder / "net", "--rare", "0.1")


def _beside(folder: Path) -> Path:
    """The experiment that a run was made of: in a folder beside, which is not damaged."""
    place = folder.parent / "data_of_runs"
    if not place.is_dir():
        experiments.save(experiment(), place)
    return place


if __name__ == "__main__":
    write(Path(sys.argv[1]))
