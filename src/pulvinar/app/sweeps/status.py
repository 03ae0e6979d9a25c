"""`pulvinar sweep --status`: how far a sweep is, from its folder and the queue of the cluster."""

import time
from typing import Any

from pulvinar.app.sweeps.engines.slurm import InQueue, queue
from pulvinar.app.sweeps.jobs import FOLDER, Job, Journal, last_lines
from pulvinar.app.sweeps.plan import Plan
from pulvinar.core.storage import read_json

N_SHOWN = 12
WIDTH = 80


def status(grid_file: str) -> dict[str, Any]:
    """Counts of cells by state; what runs, where and for how long; what failed; seconds left at the pace so far.

    States: finished, running, queued (in a cluster's queue), waiting, interrupted, failed. Nothing is written.
    """
    plan = Plan.read(grid_file)
    jobs = plan.jobs()
    queued = _queued(plan)
    journals = {job.name: Journal.read(job.journal) for job in jobs}
    states = {job.name: _state(journals[job.name], queued.get(job.name)) for job in jobs}
    running = [_running(job, journals[job.name], queued.get(job.name)) for job in jobs if states[job.name] == "running"]
    own = [job.name for job in jobs if job.is_cell]
    counts = {"finished": len(plan.cells) - len(own)}
    for name in own:
        counts[states[name]] = counts.get(states[name], 0) + 1
    return {
        "sweep": str(plan.out),
        "n_cells": len(plan.cells),
        "counts": counts,
        "running": running,
        "failed": [{"name": job.name, "said": last_lines(job)} for job in jobs if states[job.name] == "failed"],
        "seconds_left": _seconds_left(plan, counts, len(running)),
    }


def _queued(plan: Plan) -> dict[str, InQueue]:
    ids = plan.out / FOLDER / "slurm.json"
    queued = (queue() or {}) if ids.is_file() else {}
    return {name: queued[number] for name, number in (read_json(ids) if queued else {}).items() if number in queued}


def _state(journal: Journal, queued: InQueue | None) -> str:
    if queued is not None:
        return "running" if queued.state == "RUNNING" else "queued"
    return journal.state


def _running(job: Job, journal: Journal, queued: InQueue | None) -> dict[str, Any]:
    lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines() if job.log.is_file() else []
    return {
        "name": job.name,
        "node": journal.host or (queued.node if queued else ""),
        "seconds": time.time() - journal.began if journal.began else 0.0,
        "says": lines[-1] if lines else "",
    }


def _seconds_left(plan: Plan, counts: dict[str, int], n_running: int) -> float | None:
    """Mean seconds of the cells that are done, times those to come, over those that run at once; None where nothing tells."""
    done = [journal.seconds for journal in map(Journal.read, plan.journals()) if journal.state == "finished"]
    n_left = sum(count for state, count in counts.items() if state not in ("finished", "failed"))
    if not done or not n_left or not n_running:
        return None if n_left else 0.0
    return sum(done) / len(done) * n_left / n_running


def as_text(result: dict[str, Any]) -> str:
    """What `--status` prints, in 80 columns."""
    counts = ", ".join(f"{count} {state}" for state, count in result["counts"].items())
    lines = [f"{result['n_cells']} cells: {counts}"]
    if result["seconds_left"]:
        lines.append(f"about {_duration(result['seconds_left'])} left at this pace")
    for title, entries, text in (
        ("running", result["running"], lambda entry: f"{entry['node']}, {_duration(entry['seconds'])}  {entry['says']}"),
        ("failed", result["failed"], lambda entry: entry["said"].splitlines()[-1] if entry["said"] else ""),
    ):
        lines += [f"{title}:"] if entries else []
        for entry in entries[:N_SHOWN]:
            lines += [_cut(f"  {entry['name']}"), _cut(f"      {text(entry)}")]
        lines += [f"  and {len(entries) - N_SHOWN} more"] if len(entries) > N_SHOWN else []
    return "\n".join(lines)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 3.5 h."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
