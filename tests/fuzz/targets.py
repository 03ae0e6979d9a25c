"""Every reader with the seeds that it is given: what commands call, and the commands themselves on run folders."""

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Kind = Literal["file", "folder", "command"]
TARGETS: dict[str, "Target"] = {}


@dataclass(frozen=True)
class Target:
    """read: called with the folder and the damaged file in it; files: which of a seed folder are damaged; kind: what a case takes."""

    seeds: str
    files: tuple[str, ...]
    read: Callable[[Path, Path], Any]
    kind: Kind = "file"


def target(name: str, seeds: str, *files: str, kind: Kind = "file") -> Callable[[Callable[[Path, Path], Any]], Any]:
    def keep(read: Callable[[Path, Path], Any]) -> Any:
        TARGETS[name] = Target(seeds, files, read, kind)
        return read

    return keep


def use(values: Any) -> None:
    """Look at every value, as whoever reads an array does."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        np.asarray(values).sum(dtype=np.float64)


IDS = [f"s{row}" for row in range(8)]


@target("arrays", "arrays", "a.*", "b.*", "c.*", "d.*", "e.*")
def _arrays(folder: Path, file: Path) -> None:
    from pulvinar.data.array_files import read_array, read_ids

    place = file if file.suffix != ".csv" else folder / "a.npy"
    use(read_array(place))
    read_ids(place)


@target("feature tables", "arrays", "*.*")
def _tables_of_features(folder: Path, file: Path) -> None:
    from pulvinar.data.feature_tables import open_table, read_rows

    place = {".csv": folder / "a.npy", ".json": folder / "f.safetensors"}.get(file.suffix, file)
    if file.suffix != ".json" and place.with_suffix(".json").is_file():
        place.with_suffix(".json").unlink()
    name = {"b": ":clip", "c": ":betasmd", "d": ":betasmd", "e": ":clip", "f": ":clip"}.get(place.stem, "")
    read_rows(f"{place}{name}", np.array([3, 1]), n_rows=8, ids=["s3", "s1"])
    use(open_table(f"{place}{name}", ids=IDS))


@target("MATLAB", "matlab", "*.mat")
def _matlab(_: Path, file: Path) -> None:
    from pulvinar.data.matlab_files import left_out_of_matlab, read_matlab, read_matlab_structs

    for values in read_matlab(file).values():
        use(values)
    left_out_of_matlab(file)
    read_matlab_structs(file, "s", ["v", "t"])


@target("tables", "tables", "*.csv", "*.tsv")
def _tables(_: Path, file: Path) -> None:
    from pulvinar.data.tables import read_table, read_trials
    from pulvinar.datasets.nsd.files import read_label_names

    if file.stem == "labels":
        read_label_names(file)
    elif file.suffix == ".csv":
        read_trials([file])
    else:
        read_table(file).full_column("onset")


@target("JSON and TOML", "texts", "*.json", "b.toml")
def _texts(_: Path, file: Path) -> None:
    from pulvinar.core.config import load, read_toml
    from pulvinar.core.storage import read_json
    from pulvinar.data.description import read_description_file
    from pulvinar.decoding.methods.troi import Config
    from pulvinar.networks.weights import read_sidecar

    if file.suffix == ".json":
        read_json(file)
        read_sidecar(file)
        return
    read_toml(file)
    with contextlib.suppress(ValueError):
        read_description_file(file)
    load(Config, name="troi", file=file)


@target("grids of sweep", "texts", "grid.toml")
def _grids(_: Path, file: Path) -> None:
    from pulvinar.app.sweeps.grid import cells
    from pulvinar.core.config import read_toml

    cells(read_toml(file))


@target("NIfTI", "volumes", "*.nii", "*.nii.gz")
def _volumes(folder: Path, file: Path) -> None:
    from pulvinar.core.errors import PulvinarError
    from pulvinar.data.brain_files import read_mask, read_series_header, read_volume

    with contextlib.suppress(PulvinarError):
        read_series_header(file)
    volume = read_volume(file)
    use(volume.scaled(volume.stored))
    read_mask(file)


@target("surfaces", "surfaces", "*")
def _surfaces(folder: Path, file: Path) -> None:
    from pulvinar.data.brain_files import read_surface
    from pulvinar.datasets.nsd.files import mgh_shape, read_mgh
    from pulvinar.datasets.nsd.spaces import _read_mesh

    if file.suffix == ".gii":
        read_surface([file])
    elif file.suffix == ".white":
        _read_mesh(folder)
    else:
        mgh_shape(file)
        use(read_mgh(file))


@target("CIFTI", "cifti", "*.nii")
def _cifti(_: Path, file: Path) -> None:
    from pulvinar.data.cifti_files import read_cortex

    use(read_cortex(file).values)


@target("responses in CIFTI", "cifti", "*.nii")
def _greyordinates(_: Path, file: Path) -> None:
    from pulvinar.data.cifti_files import read_greyordinates

    use(read_greyordinates(file).values)


@target("numbers per vertex", "vertices", "*")
def _vertices(_: Path, file: Path) -> None:
    from pulvinar.data.surface_files import read_vertex_map, read_vertex_series

    (read_vertex_map if file.name.startswith("map") else read_vertex_series)(file, n_vertices=30, side="left")


@target("tables of responses", "frames", "*")
def _frames(_: Path, file: Path) -> None:
    from pulvinar.data.table_responses import TableChoice, is_table_file, responses_of, trials_of

    if is_table_file(file):
        choice = TableChoice(voxels="v")
        use(responses_of([(file, None)], choice)[0])
        trials_of([(file, None)], choice)


@target("pictures", "pictures", "*")
def _pictures(_: Path, file: Path) -> None:
    from pulvinar.data.pictures import decode

    use(decode(file).pixels)


@target("image sets", "image_sets", "set.npz", "*/*")
def _image_sets(folder: Path, file: Path) -> None:
    from pulvinar.datasets import cifar10, image_files, stl10

    if file.suffix == ".npz":
        use(image_files.load(file).train)
    else:
        use((cifar10 if "cifar" in file.parent.name else stl10).load(folder).train)


@target("RDMs", "dissimilarities", "all.npz", "model.npy", "toolbox.h5")
def _rdms(_: Path, file: Path) -> None:
    from pulvinar.data.dissimilarity_files import read_npz
    from pulvinar.rsa.rdm_files import read_rdms

    read_rdms(str(file))
    if file.suffix == ".npz":
        data = read_npz(file)
        if data.stimuli.read_image is not None:
            data.stimuli.image(0)


@target("RDM submissions", "dissimilarities", "submit_*")
def _submissions(_: Path, file: Path) -> None:
    from pulvinar.datasets.algonauts2019.submission import read_submission

    read_submission(file)


@target("mappings (restricted pickle)", "mappings", "*.npy")
def _mappings(_: Path, file: Path) -> None:
    from pulvinar.data.restricted_unpickling import read_mapping

    read_mapping(file)


@target("Algonauts submissions", "algonauts", "*.zip")
def _algonauts(_: Path, file: Path) -> None:
    from pulvinar.datasets.algonauts2023.submission import read_submission

    for values in read_submission(file).values():
        use(values)


@target("MindEye2", "mindeye", "*")
def _mindeye(_: Path, file: Path) -> None:
    from pulvinar.data.hdf5_images import HDF5Images
    from pulvinar.datasets.mindeye2 import _read_tar

    if file.suffix == ".tar":
        _read_tar(file)
    else:
        use(HDF5Images(file, "images", [0, 3])(1))


@target("NSD", "nsd", "*")
def _nsd(folder: Path, file: Path) -> None:
    from pulvinar.datasets.nsd import files as nsd_files

    grid, _ = nsd_files.read_grid(folder / "nsdgeneral.nii.gz")
    voxels = np.argwhere(np.ones((3, 3, 3), bool))
    if file.suffix == ".mat":
        nsd_files.read_design(file)
    elif file.suffix == ".hdf5":
        nsd_files.read_hdf5_session(file, voxels, grid)
    elif file.suffix == ".ctab":
        nsd_files.read_label_names(file)
    else:
        nsd_files.read_map(folder / "nsdgeneral.nii.gz", grid)
        nsd_files.read_nifti_session(folder / "betas_session01.nii.gz", voxels, grid)


@target("weights and checkpoints", "weights", "*")
def _weights(folder: Path, file: Path) -> None:
    from pulvinar.learning import checkpoints
    from pulvinar.networks.weights import read_sidecar, read_weights

    if file.suffix == ".json":
        read_sidecar(folder / "b.npz")
    elif file.stem == "d":
        checkpoints.load(file)
    else:
        read_weights(file)


@target(
    "experiment folders", "experiment_folder", "study/*.json", "study/*.h5", "study/responses/*.h5", "study/images/image-00.png"
)
def _experiments(folder: Path, _: Path) -> None:
    from pulvinar.data.experiment import load
    from pulvinar.data.inspect import inspect

    found = load(folder / "study")
    for responses in found.subjects.values():
        use(responses.values[:2])
    if found.stimuli.read_image is not None:
        found.stimuli.image(0)
    inspect(found)


@target("NSD-synthetic and NSD-imagery", "nsd_beside", "**/*.mat", "**/*.tsv", "**/*.hdf5", "**/*.csv")
def _beside_nsd(folder: Path, file: Path) -> None:
    from pulvinar.datasets.nsd import beside
    from pulvinar.datasets.nsd import files as nsd_files

    if file.suffix == ".hdf5":
        grid, voxels = nsd_files.Grid(path=folder, shape=(2, 2, 2), affine=np.eye(4)), np.argwhere(np.ones((2, 2, 2), bool))
        n_betas = 744 if "synthetic" in file.name else 720
        use(nsd_files.read_hdf5_session(file, voxels, grid, n_trials=n_betas))
    elif file.suffix == ".mat":
        beside.open_beside(folder, "subj01", "synthetic", one_back="drop")
    else:
        found = beside.open_beside(folder, "subj01", "imagery", one_back="drop")
        beside.images_of(folder, "imagery", found.ids, size=None, gamma="stored")


@target("descriptions", "own_arrays", "*/*.mat", "*/*.npy", "*/*.csv", "*/*.npz", "*/*.toml")
def _descriptions(_: Path, file: Path) -> None:
    from pulvinar.datasets.arrays import read_description

    use_experiment(read_description(file.parent / "study.toml"))


class Answers:
    """Stands where the web is: gives a file, whatever is asked."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def get(self, url: str, most: int, *, what: str) -> bytes:
        return self.file.read_bytes()[:most]

    def json(self, url: str, most: int, *, missing_ok: bool = False) -> Any:
        from pulvinar.core.storage import read_json

        return read_json(self.file)


@target("listings, records of fetched files", "listings", "s3.xml", "*.json", "fetched/fetched.json")
def _listings(folder: Path, file: Path) -> None:
    from pulvinar.app.fetch import Record
    from pulvinar.data import downloads
    from pulvinar.data import published_files as published

    client: Any = Answers(file)
    if file.name == "s3.xml":
        list(published._of_s3("s3://bucket/set", "", client, None))
    elif file.name == "figshare.json":
        published._of_figshare("figshare:1", client, None)
    elif file.name == "mirror.json":
        published._mirrored("https://mirror.org/x", client)
    elif file.name == "s2.h5.part.json":
        downloads._Part(folder / "s2.h5", "https://x.org/s2.h5", 9, "", lambda n: None)
    else:
        record = Record(folder / "fetched", "x")
        for unpack in (False, True):
            record.has(published.RemoteFile(path="a.zip" if unpack else "s1.h5", url="https://x.org/s1.h5", unpack=unpack))


# --- whole data sets ----------------------------------------------------------------------------------------------------

TEXTS = ("json", "tsv", "csv", "txt", "toml", "ctab")
READ_FROM = (*TEXTS, "nii", "gz", "h5", "hdf5", "mat", "npy", "npz", "mgh", "mgz", "white", "tar", "gii")


def use_experiment(found: Any) -> None:
    """The first and last trial of everyone, and a picture."""
    for responses in found.subjects.values():
        use(responses.read(np.array([0, responses.n_trials - 1])))
    if found.stimuli.read_image is not None:
        found.stimuli.image(0)


def whole(
    name: str, source: str, folder: str, *, kind: str = "experiment", seeds: str = "layouts", files: str = "**/*."
) -> None:
    """A data set in its layout, any of whose files that are no pictures is damaged."""

    @target(name, f"{seeds}/{folder}", *(f"{files}{suffix}" for suffix in READ_FROM), kind="folder")
    def _read(place: Path, _: Path) -> None:
        from pulvinar.app.data import open_data

        found = open_data(kind, source.format(root=place))
        if kind == "experiment":
            use_experiment(found)
        else:
            for target in found.targets.values():
                use(target.rdms)


SOURCES = {
    "nsd": "nsd:{root}?subjects=1",
    "mindeye2": "mindeye2:{root}?subjects=1",
    "algonauts2023": "algonauts2023:{root}",
    "nod": "nod:{root}",
    "arrays": "{root}/study.toml",
    "bids": "bids:{root}/set?estimate=lsa&confounds=motion,scrub",
    "bold5000": "bold5000:{root}/set",
    "god": "god:{root}/set",
    "deeprecon": "deeprecon:{root}/set",
    "laion_fmri": "laion_fmri:{root}/set",
    "mosaic": "mosaic:{root}/set",
    "things_fmri": "things_fmri:{root}/set",
    "simulated": "{root}/world",
}
for _name, _source in SOURCES.items():
    whole(f"data set {_name}", _source, _name)
whole("data set algonauts2019", "algonauts2019:{root}/set", "algonauts2019", kind="dissimilarities")
whole("betas of GLMsingle, HDF5", "bids:{root}/set?estimate=glmsingle", "", seeds="glmsingle", files="set/**/glmsingle/**/*.")
whole(
    "betas of GLMsingle, MATLAB",
    "bids:{root}/of_matlab?estimate=glmsingle",
    "",
    seeds="glmsingle",
    files="of_matlab/**/glmsingle/**/*.",
)


# --- commands -----------------------------------------------------------------------------------------------------------


def command(*arguments: object) -> None:
    """Run a command; `RefusedError` where it says what is wrong, whatever it raises otherwise."""
    from pulvinar.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main([*map(str, arguments), "--quiet"])
    if code == 2:
        raise RefusedError(said.getvalue())
    if code:
        raise RuntimeError(f"exit code {code}: {said.getvalue()}")


class RefusedError(Exception):
    """A command ended with exit code 2."""


RUN = (
    "run/*.json",
    "run/*.toml",
    "run/*.jsonl",
    "run/checkpoints/*",
    "run/predictions/*",
    "run/artifacts/*.npz",
    "run/artifacts/*.csv",
)


@target(
    "evaluate RUN, troi",
    "troi_run",
    *RUN,
    "run/pretrained/*.json",
    "run/pretrained/*.toml",
    "run/pretrained/checkpoints/*",
    kind="command",
)
def _evaluate(folder: Path, _: Path) -> None:
    command("evaluate", folder / "run", "--only-selection")


@target("report RUN, troi", "troi_run", *RUN, kind="command")
def _report(folder: Path, _: Path) -> None:
    command("report", folder / "run", "--out", folder / "page.html")


@target("evaluate RUN, encoding", "encoding_run", *RUN, kind="command")
def _evaluate_encoding(folder: Path, _: Path) -> None:
    command("evaluate", folder / "run", "--only-selection")


@target("report RUN, encoding", "encoding_run", *RUN, kind="command")
def _report_encoding(folder: Path, _: Path) -> None:
    command("report", folder / "run", "--out", folder / "page.html")


@target("encoding information RUN", "encoding_run", *RUN, kind="command")
def _information(folder: Path, _: Path) -> None:
    command("encoding", "information", folder / "run", "--permutations", "5")


@target("encoding transfer RUN", "encoding_run", *RUN, kind="command")
def _transfer(folder: Path, _: Path) -> None:
    command("encoding", "transfer", folder / "run", "--untuned", folder / "run")


@target("evaluate RUN, aggregation", "aggregation_run", *RUN, kind="command")
def _evaluate_aggregation(folder: Path, _: Path) -> None:
    command("evaluate", folder / "run", "--only-selection")


@target("predict RUN", "aggregation_run", *RUN, "images/*.png", kind="command")
def _predict(folder: Path, _: Path) -> None:
    command("predict", folder / "run", "--images", folder / "images", "--out", folder / "out.npy")


@target("report RUN, rsa", "aggregation_run", *RUN, kind="command")
def _report_rsa(folder: Path, _: Path) -> None:
    command("report", folder / "run", "--out", folder / "page.html")


@target("rsa compare", "dissimilarities", "all.npz", "model.npy", "toolbox.h5", "measured.npz", kind="command")
def _compare(folder: Path, file: Path) -> None:
    model = folder / "model.npy" if file.name == "measured.npz" else file
    command("rsa", "compare", model, folder / "measured.npz", "--permutations", "20", "--bootstrap", "20")


@target("evaluate RUN, self-supervised", "self_supervised_run", *RUN, kind="command")
def _evaluate_self_supervised(folder: Path, _: Path) -> None:
    command("evaluate", folder / "run", "--only-selection")


@target("report RUN, self-supervised", "self_supervised_run", *RUN, kind="command")
def _report_self_supervised(folder: Path, _: Path) -> None:
    command("report", folder / "run", "--out", folder / "page.html")


@target("networks for use", "self_supervised_run", "net/*", kind="command")
def _network(folder: Path, _: Path) -> None:
    from pulvinar.deploy.files import load, load_config

    load_config(folder / "net")
    load(folder / "net")


os.environ.setdefault("OMP_NUM_THREADS", "1")
