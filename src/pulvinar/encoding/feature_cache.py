"""Features of a network kept on disk, found again by what made them, read as memory maps.

An entry's key holds the values of the weights, the network's name, the preprocessing, the pooling, the pixels of all images,
and the code that makes features of them (`code_fingerprint`), so that what another version computed is not taken for what this
one would compute; one file per stage lies under it, so that another choice of stages computes only what is new:

    FOLDER/features/KEY/layer1.npy    float32 (image, channel, height, width)
    FOLDER/features/KEY/layer1.json   its shape and SHA-256, and what it was made from

Processes that want the same entry at once wait for the first (a lock on FOLDER/features/KEY/lock, freed when its holder dies);
where the system has no such locks both compute, and each file still appears whole. Damaged files are computed again.
"""

import hashlib
import inspect
import marshal
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from pulvinar import networks
from pulvinar.core import checksums
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.places import TEMPORARY
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import (
    CACHE_VARIABLE,
    atomic_path,
    cache_folder,
    checksum,
    fingerprint,
    read_json,
    write_json,
)
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.preprocessing import Images
from pulvinar.networks.staged import StagedNetwork, feature_batches, image_rows

FORMAT = 1


def pixels_fingerprint(images: Images | Stimuli) -> str:
    """SHA-256 over shape and pixels of every image in order; an array and a list of the same images give the same."""
    digest = hashlib.sha256()
    for row in range(len(images)):
        pixels = np.ascontiguousarray(image_rows(images, row, row + 1)[0])
        digest.update(f"{pixels.dtype.str}{pixels.shape}".encode())
        digest.update(pixels.data)
    return digest.hexdigest()


def code_fingerprint(network: torch.nn.Module) -> str:
    """Changes with the source of `pulvinar.networks` and of any class in the network, and with their libraries' versions.

    torch's own classes are known by its version; a class without a source file (typed into a session) by its compiled methods.
    """
    ours = [checksum(str(path)) for folder in networks.__path__ for path in sorted(Path(folder).rglob("*.py"))]
    kinds = {type(module) for module in network.modules()}
    foreign = {_code_of(kind) for kind in kinds if not kind.__module__.startswith(("torch.nn.", f"{networks.__name__}."))}
    return fingerprint(torch.__version__, ours, sorted(foreign))


def _code_of(kind: type) -> str:
    version = getattr(sys.modules.get(kind.__module__.partition(".")[0]), "__version__", "")
    try:
        return f"{version} {checksum(str(inspect.getsourcefile(kind)))}"
    except (TypeError, OSError):
        methods = [value.__code__ for _, value in sorted(vars(kind).items()) if inspect.isfunction(value)]
        return f"{version} {fingerprint(kind.__qualname__, [marshal.dumps(code) for code in methods])}"


def feature_key(network: StagedNetwork, images: Images | Stimuli, *, pool: int | None = None) -> tuple[str, dict[str, Any]]:
    """The key of an entry, and what it was made from."""
    made_from = {
        "format": FORMAT,
        "network": network.name,
        "weights": network.checksum(),
        "code": code_fingerprint(network.module),
        "preprocessing": network.preprocessing.settings(),
        "pool": pool,
        "n_images": len(images),
        "images": pixels_fingerprint(images),
    }
    return fingerprint(*(f"{name}={value}" for name, value in made_from.items())), made_from


def cached_features(
    network: StagedNetwork,
    images: Images | Stimuli,
    *,
    stages: Sequence[str] | None = None,
    pool: int | None = None,
    batch_size: int = 32,
    folder: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> dict[str, np.ndarray]:
    """Stage -> read-only memory map, float32 (image, channel, height, width): from the cache, computed where it is not there.

    The values are those of `networks.staged.extract` (up to rounding that depends on the batch size). Images pass a batch at
    a time, so neither they nor the features need to fit into memory. verify: compare the checksum of a file before it is used
    (`checksums`: one read of the file, where it has changed); without it only its size. folder: see `storage.cache_folder`.
    Raises `FileError` if it cannot be written.
    """
    wanted = network.known_stages(stages)
    if not len(images):
        raise InputError("images: one or more are needed, none came")
    key, made_from = feature_key(network, images, pool=pool)
    entry = cache_folder(folder) / "features" / key
    found = {stage: _read(entry, stage, verify) for stage in wanted}
    if any(values is None for values in found.values()):
        with _locked(entry):
            missing = [stage for stage in wanted if _read(entry, stage, verify, quiet=True) is None]
            if missing:
                batches = feature_batches(network, images, batch_size=batch_size, pool=pool, stages=missing)
                _write(entry, missing, batches, made_from)
        found = {stage: _read(entry, stage, verify=False) for stage in wanted}
    if lost := [stage for stage, values in found.items() if values is None]:
        raise FileError(f"{entry}: stage '{lost[0]}' was removed or damaged while it was read; run again")
    return {stage: values for stage, values in found.items() if values is not None}


def _files(entry: Path, stage: str) -> tuple[Path, Path]:
    return entry / f"{stage}.npy", entry / f"{stage}.json"


def _read(entry: Path, stage: str, verify: bool, *, quiet: bool = False) -> np.ndarray | None:
    """The memory map of a stage; None where there is none or it is damaged (with a warning)."""
    array_file, facts_file = _files(entry, stage)
    if not facts_file.is_file():
        return None
    try:
        facts = read_json(facts_file)
        if array_file.stat().st_size != facts["bytes"]:
            raise FileError(f"{array_file}: not the file that was written")
        if verify:
            checksums.require(array_file, facts["sha256"], written_in=facts_file.name)
        values = np.load(array_file, mmap_mode="r", allow_pickle=False)
        if list(values.shape) != facts["shape"] or values.dtype != np.float32:
            raise FileError(f"{array_file}: {values.dtype} {values.shape}, written was {facts['shape']}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not quiet:
            warn(f"feature cache: computing again what is damaged: {error}")
        return None
    return values


class _Writer:
    """A .npy file filled block by block; writing in order (not through a memory map) so that a full disk is an error."""

    def __init__(self, file: BinaryIO, n_images: int) -> None:
        self.file, self.n_images, self.digest, self.shape = file, n_images, hashlib.sha256(), tuple[int, ...]()

    def write(self, content: bytes | memoryview) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def append(self, values: np.ndarray) -> None:
        if not self.shape:
            self.shape = (self.n_images, *values.shape[1:])
            header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(self, header)
        self.write(np.ascontiguousarray(values, dtype="<f4").data.cast("B"))

    def facts(self) -> dict[str, Any]:
        return {"shape": self.shape, "bytes": self.file.tell(), "sha256": self.digest.hexdigest()}


def _write(entry: Path, stages: Sequence[str], batches: Iterator[dict[str, np.ndarray]], made_from: dict[str, Any]) -> None:
    """All stages of one pass over the images; the facts come last, and a file that is not as they say does not count."""
    facts = {}
    with ExitStack() as open_files:
        writers = {}
        for stage in stages:
            temporary = open_files.enter_context(atomic_path(_files(entry, stage)[0]))
            writers[stage] = _Writer(open_files.enter_context(temporary.open("wb")), made_from["n_images"])
        for batch in batches:
            for stage, values in batch.items():
                writers[stage].append(values)
        for stage, writer in writers.items():
            facts[stage] = writer.facts()
    for stage in stages:
        write_json(_files(entry, stage)[1], {"stage": stage, **facts[stage], **made_from}, sealed=True)
    size = sum(stage["bytes"] for stage in facts.values()) / 2**20
    log(f"features of {made_from['n_images']} images kept in {entry} ({size:.0f} MB)")


@contextmanager
def _locked(entry: Path) -> Iterator[None]:
    """One process at a time; leftovers of one that was killed are removed."""
    try:
        entry.mkdir(parents=True, exist_ok=True)
        file = (entry / "lock").open("wb")
    except OSError as error:
        raise FileError(
            f"{entry}: the feature cache cannot be written: {error.strerror}; name another folder, or set {CACHE_VARIABLE}"
        ) from error
    with file:
        if _take(file, entry):
            for leftover in entry.glob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)
        yield


def _take(file: BinaryIO, entry: Path, *, wait: bool = True) -> bool:
    """Hold the lock until the file is closed; False where the system or the file system has no such locks.

    wait: for another process that holds it; without it False then too.
    """
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        began = time.monotonic()
        log(f"another process computes the same features; waiting for it ({entry})")
        fcntl.flock(file, fcntl.LOCK_EX)
        log(f"waited {time.monotonic() - began:.0f} s")
    except OSError:
        return False
    return True


def clear(folder: str | os.PathLike[str] | None = None) -> int:
    """Remove all entries but those that a process is writing; how many these are. Maps that are open stay readable."""
    n_in_use = 0
    for entry in (cache_folder(folder) / "features").glob("*"):
        with (entry / "lock").open("wb") as file:
            if _take(file, entry, wait=False):
                shutil.rmtree(entry, ignore_errors=True)
            else:
                n_in_use += 1
    return n_in_use
