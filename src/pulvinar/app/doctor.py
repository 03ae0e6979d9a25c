"""`pulvinar doctor`: what is here to work with, and what is missing for which command. Imports no torch unless asked to."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pulvinar.core import memory, terminal
from pulvinar.core.places import is_left_over
from pulvinar.core.storage import cache_folder

WIDTH = 80
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "h5py", "nibabel", "nilearn")
EXTRAS = {  # what each is for
    "vision": "image networks with named stages: fit … network=NAME, macs NAME",
    "encoding": "tuned encoding models, banded ridge, low-rank adapters, attributions",
    "rsa": "Mahalanobis RDMs",
    "ssl": "the map of test images in reports of self-supervised runs",
    "deploy": "deploy export, deploy bench: ONNX and its runtimes, int8, OpenVINO",
    "pictures": "reconstruct --generator …, diffusion priors, vision towers: data embed",
    "weights": "trained weights of an image network without a hub: data embed, weights=packaged",
    "surfaces": "the mesh of fs_LR 32k (HCP) by name: surface = 'fs_LR_32k', CIFTI responses",
    "tables": "responses in Parquet",
    "loggers": "fit --log tensorboard, wandb or mlflow",
    "viewer": "surfaces to turn in reports",
    "cluster": "sweep --on slurm, sweep --on dask",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def doctor(*, devices: bool = False) -> dict[str, Any]:
    """Versions, devices, threads, memory, disks, cache and extras. devices: import torch, which takes seconds, and ask it."""
    return {
        "versions": {"pulvinar": version("pulvinar"), "python": platform.python_version(), "platform": platform.platform()}
        | {name: _version(name) for name in LIBRARIES},
        "devices": _devices_of_torch() if devices else _devices(),
        "threads": _threads(),
        "memory": _memory(),
        "disks": [_disk(name, path) for name, path in _places().items()],
        "cache": _cache(),
        "extras": [_extra(name) for name in EXTRAS],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    """What can be known without torch: the driver's list of GPUs, and what this build of torch was made for."""
    return {"asked": "system", "gpus": _driver_gpus(), "torch_built_for": _torch_build(), "mps": _has_mps()}


def _has_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _driver_gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in output.splitlines() if line.strip()]


def _torch_build() -> str:
    """'CUDA 12.8', 'ROCm 6.3' or 'CPU', from the file that torch writes at its build."""
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    for name, kind in (("cuda", "CUDA"), ("hip", "ROCm")):
        if found := re.search(rf"^{name}\b[^=]*= *['\"]([^'\"]+)", text, re.MULTILINE):
            return f"{kind} {found[1]}"
    return "CPU" if text else "unknown"


def _devices_of_torch() -> dict[str, Any]:
    import torch

    numbers = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    properties = [torch.cuda.get_device_properties(number) for number in numbers]
    return {
        "asked": "torch",
        "gpus": [f"{found.name}, {found.total_memory / 2**30:.0f} GB" for found in properties],
        "torch_built_for": _torch_build(),
        "mps": torch.backends.mps.is_available(),
    }


def _threads() -> dict[str, Any]:
    """Processors of the machine and those that this process may use; variables that bound threads of libraries."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processors": os.cpu_count(),
        "usable": usable,
        "variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def _memory() -> dict[str, int | None]:
    """Bytes of the machine, those that are free for programs, and a limit of this container or job, if there is one."""
    facts: dict[str, int | None] = {"total": None, "available": None, "limit": memory.job_limit()}
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        facts["total"], facts["available"] = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):  # another system
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:
            facts["total"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return facts


def _places() -> dict[str, Path]:
    return {"here": Path.cwd(), "cache": cache_folder(), "temporary": Path(tempfile.gettempdir())}


def _disk(name: str, path: Path) -> dict[str, Any]:
    """Free bytes where a place is, or would be made; how many unfinished files of dead processes lie in it."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    usage = shutil.disk_usage(existing)
    left = sum(map(is_left_over, path.glob(".partial-*"))) if path.is_dir() else 0
    writable = os.access(existing, os.W_OK)
    return {"name": name, "path": str(path), "free": usage.free, "total": usage.total, "writable": writable, "left_overs": left}


def _cache() -> dict[str, Any]:
    folder = cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    entries = len(list((folder / "features").glob("*"))) if folder.is_dir() else 0
    return {"path": str(folder), "bytes": sum(path.stat().st_size for path in files), "features": entries}


def _extra(name: str) -> dict[str, Any]:
    """What an extra is for, which of its packages are missing, and how to get them."""
    lines = [line for line in requires("pulvinar") or [] if re.search(rf"extra *== *['\"]{name}['\"]", line)]
    packages = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    missing = [package for package in packages if _version(package) is None]
    return {
        "name": name,
        "for": EXTRAS[name],
        "missing": missing,
        "get": f"pip install 'pulvinar[{name}]'" if missing else None,
    }


def clear_cache() -> dict[str, Any]:
    """Remove the cached features that no process is writing, and what is remembered of checksums."""
    from pulvinar.encoding.feature_cache import clear

    before = _cache()["bytes"]
    in_use = clear()
    (cache_folder() / "checked.json").unlink(missing_ok=True)
    return {"path": str(cache_folder()), "freed": before - _cache()["bytes"], "in_use": in_use}


def as_text(result: dict[str, Any]) -> str:
    """What `pulvinar doctor` prints, in 80 columns or fewer."""
    versions, threads, devices, cache = (result[name] for name in ("versions", "threads", "devices", "cache"))
    own = ", ".join(
        f"{name} {number or 'MISSING'}" for name, number in versions.items() if name not in ("pulvinar", "platform")
    )
    bounds = "".join(f", {name}={value}" for name, value in threads["variables"].items())
    gpus = "; ".join(devices["gpus"]) or ("Apple GPU (mps)" if devices["mps"] else "none found")
    how = "" if devices["asked"] == "torch" else " (torch was not asked: --devices)"
    rows = [
        ("pulvinar", versions["pulvinar"]),
        ("libraries", own),
        ("platform", versions["platform"]),
        ("GPUs", f"{gpus}; torch is built for {devices['torch_built_for']}{how}"),
        ("threads", f"{threads['usable']} of {threads['processors']} processors{bounds}"),
        ("memory", _memory_text(result["memory"])),
        *((f"disk: {disk['name']}", _disk_text(disk)) for disk in result["disks"]),
        ("cache", f"{_size(cache['bytes'])} ({cache['features']} sets of features); empty it with --clear-cache"),
    ]
    lines = [_row(name, text) for name, text in rows]
    missing = [extra for extra in result["extras"] if extra["missing"]]
    lines.append("extras: all are installed" if not missing else "extras that are not installed:")
    for extra in missing:
        lines.append(_row(f"  {extra['name']}", f"{extra['for']} (needs {', '.join(extra['missing'])})"))
        lines.append(_row("", extra["get"]))
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return textwrap.fill(f"{name:<17}{text}", min(WIDTH, terminal.width()), subsequent_indent=" " * 17, break_on_hyphens=False)


def _memory_text(facts: dict[str, int | None]) -> str:
    free = f", {_size(facts['available'])} free" if facts["available"] is not None else ""
    limit = f"; this process may have {_size(facts['limit'])}" if facts["limit"] else ""
    return f"{_size(facts['total'])}{free}{limit}"


def _disk_text(disk: dict[str, Any]) -> str:
    left = f"; {disk['left_overs']} unfinished files of killed processes" if disk["left_overs"] else ""
    state = "free" if disk["writable"] else "free, NOT WRITABLE"
    return f"{_size(disk['free'])} of {_size(disk['total'])} {state}: {disk['path']}{left}"


def _size(size: int | None) -> str:
    """Bytes as B, kB, MB, GB, of 1024 each."""
    if size is None:
        return "unknown"
    for unit, step in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if size >= step:
            return f"{size / step:.{0 if size >= 100 * step else 1}f} {unit}"
    return f"{size} B"
