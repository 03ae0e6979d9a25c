"""`pulvinar fit … --dry-run`: what a fit would need, before it starts; nothing is trained or written."""

import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

from pulvinar.app import fit as fitting
from pulvinar.app import method_settings, registry
from pulvinar.app.data import open_data
from pulvinar.app.memory_limit import require_kept
from pulvinar.app.training_room import training_of
from pulvinar.core import devices, memory
from pulvinar.core.errors import InputError
from pulvinar.decoding.decoder_size import as_dict, measure_speed
from pulvinar.scores.table import Column, Table

GIGABYTE = 1e9
MEMORY = {  # key -> heading
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "AdamW",
    "other": "other",
    "data": "data",
    "total": "in all",
}


def dry_run(
    method: str,
    *,
    data: str,
    config_file: str | None = None,
    assignments: Sequence[str] = (),
    pretrained: str | None = None,
    target: str | None = None,
    limit: str | None = None,
) -> dict[str, Any]:
    """Phases of the fit with parameters, bytes by kind and seconds; the largest phase is the peak.

    limit: `--memory` of the fit; `ConfigError` where training does not fit. scratch: bytes of responses in files on the disk.
    """
    found = registry.method(method)
    if found.phases is None:
        raise InputError(f"--dry-run: {method} gives no estimate of what it needs")
    config, pretrained_config = method_settings.configs(method, config_file, assignments)
    method_settings.refuse_useless_pretrained(found, config, pretrained, config_file, assignments)
    experiment = open_data(found.data, data, target=target)
    plan = fitting.pretrained_plan(found, config, pretrained_config, pretrained)
    if limit is not None:
        require_kept(limit, method, ("fit",))
    with devices.using(config.device), memory.using(limit, say_peak=False):
        training, speed = training_of(found, config, experiment, plan), measure_speed()
        with training.reserved():
            process, scratch = memory.resident(), memory.placed(training.responses)[1]
        phases = [as_dict(phase, speed) for own in training.phases for phase in own]
    for phase in phases:
        on_disk = min(scratch, sum(phase["responses"]))
        phase.update(scratch=on_disk, data=phase["data"] - on_disk, total=phase["total"] - on_disk)
    return {
        "method": method,
        "phases": phases,
        "process": process,
        "peak": process + max(phase["total"] for phase in phases),
        "peak_on_device": max(phase["on_device"] for phase in phases),
        "available": memory.available(),
        "responses": sum(training.responses),
        "scratch": scratch,
        "scratch_folder": tempfile.gettempdir(),
        "scratch_free": shutil.disk_usage(tempfile.gettempdir()).free,
        "seconds": sum(phase["seconds"] for phase in phases),
    }


def as_text(result: dict[str, Any]) -> str:
    """The table that the command prints."""
    columns = [
        Column("name", "phase", lead=True),
        Column("n_parameters", "parameters", form=",d"),
        Column("n_trained", "trained", form=",d"),
        *(Column(name, label, "GB", ".2f") for name, label in MEMORY.items()),
        Column("n_steps", "steps", form=",d"),
        Column("time", "time"),
    ]
    rows = []
    for phase in result["phases"]:
        parts = {**phase, "other": phase["activations"] + phase["batch"]}
        rows.append({**phase, **{name: parts[name] / GIGABYTE for name in MEMORY}, "time": _duration(phase["seconds"])})
    lines = [Table(columns, rows).text()]
    free = f", {result['available'] / GIGABYTE:.1f} GB are free" if result["available"] else ""
    lines.append(
        f"peak: {result['peak'] / GIGABYTE:.2f} GB in this machine's memory, {result['process'] / GIGABYTE:.2f} of it the "
        f"process itself{free}; with a GPU {result['peak_on_device'] / GIGABYTE:.2f} GB there"
    )
    if result["scratch"]:
        sizes = [result[name] / GIGABYTE for name in ("scratch", "responses", "scratch_free")]
        lines.append(
            "disk: {:.2f} of {:.2f} GB of responses in scratch files in {folder}, where {:.1f} GB are free (TMPDIR names "
            "another folder)".format(*sizes, folder=result["scratch_folder"])
        )
    lines.append(f"time: about {_duration(result['seconds'])} of training at this machine's speed now; scoring comes on top")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
