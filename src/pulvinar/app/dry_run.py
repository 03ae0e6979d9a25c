"""`pulvinar fit … --dry-run`: what a fit would need, before it starts; nothing is trained or written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import fit as fitting
from pulvinar.app import method_settings, registry
from pulvinar.app.data import open_data
from pulvinar.core import devices, memory
from pulvinar.core.config import build
from pulvinar.core.errors import InputError
from pulvinar.decoding.data import embedding_shape
from pulvinar.decoding.decoder_checkpoint import stored_decoder
from pulvinar.decoding.decoder_size import as_dict, measure_speed
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
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
) -> dict[str, Any]:
    """Phases of the fit with parameters, bytes by kind and seconds; the largest phase is the peak."""
    found = registry.method(method)
    if found.phases is None:
        raise InputError(f"--dry-run: {method} gives no estimate of what it needs")
    config, pretrained_config = method_settings.configs(method, config_file, assignments)
    method_settings.refuse_useless_pretrained(found, config, pretrained, config_file, assignments)
    experiment = open_data(found.data, data, target=target)
    plan = fitting.pretrained_plan(found, config, pretrained_config, pretrained)
    with devices.using(config.device):
        needed, speed = _phases(found, config, experiment, plan), measure_speed()
    phases = [as_dict(phase, speed) for phase in needed]
    process = memory.resident()
    return {
        "method": method,
        "phases": phases,
        "process": process,
        "peak": process + max(phase["total"] for phase in phases),
        "peak_on_device": max(phase["on_device"] for phase in phases),
        "available": available_bytes(),
        "seconds": sum(phase["seconds"] for phase in phases),
    }


def _phases(method: Method, config: Any, experiment: Any, plan: dict[str, Any] | None) -> list[Any]:
    if method.phases is None or method.pretrained is None or plan is None:
        return [] if method.phases is None else method.phases(config, experiment)
    if "path" in plan:
        shape = stored_decoder(RunFolder.reopen(plan["path"]).require(method=method.pretrained)).shared.shape
        return method.phases(config, experiment, shape)
    inner = registry.method(method.pretrained)
    inner_config = build(inner.config, plan["settings"], name=inner.name)
    shape = inner_config.shape(**embedding_shape(experiment, inner_config.feature))
    return [*_phases(inner, inner_config, experiment, None), *method.phases(config, experiment, shape)]


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
    lines.append(f"time: about {_duration(result['seconds'])} of training at this machine's speed now; scoring comes on top")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def available_bytes() -> int | None:
    """Memory that is free on this machine; None where it does not say."""
    information = Path("/proc/meminfo")
    if not information.is_file():
        return None
    fields = dict(line.split(":", 1) for line in information.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
