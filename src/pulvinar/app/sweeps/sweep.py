"""`pulvinar sweep`: every cell of a grid fitted and scored on an engine; finished ones are skipped, one table over all."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from pulvinar.app.stability import stability_rows
from pulvinar.app.sweeps.engines.dask import Dask
from pulvinar.app.sweeps.engines.engine import Engine
from pulvinar.app.sweeps.engines.local import Here, Workers
from pulvinar.app.sweeps.engines.slurm import Config as SlurmConfig
from pulvinar.app.sweeps.engines.slurm import Slurm
from pulvinar.app.sweeps.grid import Cell
from pulvinar.app.sweeps.jobs import Job, Journal, last_lines
from pulvinar.app.sweeps.plan import Plan
from pulvinar.core.config import build
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.locks import holding
from pulvinar.core.places import remove_left_overs
from pulvinar.core.progress import bar, log
from pulvinar.core.storage import read_json, write_json, write_text
from pulvinar.scores.table import csv_text

SECONDS_BETWEEN_TABLES = 5.0
MOST_LISTED = 20


class UnfinishedError(PulvinarError):
    """Cells that failed or were cancelled; the others stand in the table."""


def engine_for(
    plan: Plan,
    *,
    on: str = "local",
    workers: int | None = None,
    threads: int | None = None,
    scheduler: str | None = None,
    slurm: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine that is asked for, ready; `ConfigError` for options that belong to another one.

    Locally, without workers and threads, cells run in this process, with all threads; else in worker processes, one and one
    thread each if not said otherwise. slurm: settings that win over the grid's table [slurm].
    """
    settings = build(SlurmConfig, {**plan.engine, **(slurm or {})}, name="slurm")
    given = {"workers": workers, "threads": threads, "scheduler": scheduler, **(slurm or {})}
    fits = {"local": ("workers", "threads"), "dask": ("threads", "scheduler"), "slurm": tuple(slurm or ())}[on]
    if wrong := [f"--{name}" for name, value in given.items() if value is not None and name not in fits]:
        raise ConfigError(f"--on {on}: these are for another engine: {', '.join(wrong)}")
    if any(number is not None and number < 1 for number in (workers, threads)):
        raise ConfigError(f"--workers and --threads: 1 or more is needed, {workers} and {threads} came")
    if on == "dask" and not scheduler:
        raise ConfigError("--on dask: the address of the scheduler is needed, --scheduler tcp://HOST:8786")
    here = workers in (None, 1) and threads is None
    engines: dict[str, Callable[[], Engine]] = {
        "local": lambda: Here() if here else Workers(workers or 1, threads or 1),
        "slurm": lambda: Slurm(plan.out, settings),
        "dask": lambda: Dask(plan.out, str(scheduler), threads or 1),
    }
    return engines[on]()


def sweep(grid_file: str, *, retry: bool = False, **engine_options: Any) -> dict[str, Any]:
    """Fit and evaluate every cell; table.csv and table.json hold the rows of those that are done. Options: `engine_for`.

    Cells that failed in an earlier sweep, with the settings they have now, are listed and left; retry: they are done again.
    `UnfinishedError`, after the table is written, names the cells that have no row.
    """
    plan = Plan.read(grid_file)
    plan.check()
    engine = engine_for(plan, **engine_options)
    plan.out.mkdir(parents=True, exist_ok=True)
    with holding(plan.out):
        remove_left_overs(plan.out)
        table = _Table(plan)
        _run(plan, engine, table, retry=retry)
        rows = table.write()
        stable = stability_rows([(cell.data, cell.target, cell.settings, plan.out / cell.name) for cell in plan.cells])
        if stable:
            write_text(plan.out / "stability.csv", csv_text(stable))
    if unfinished := _unfinished(plan, retry=retry):
        raise UnfinishedError(unfinished)
    return {"table": str(plan.out / "table.csv"), "rows": rows, "stability": stable}


def _run(plan: Plan, engine: Engine, table: "_Table", *, retry: bool) -> None:
    todo = _to_do(plan.jobs(), retry=retry)
    live = engine.live()
    if changed := [job.name for job in todo if job.name in live and not job.is_as_written()]:
        raise ConfigError(f"these jobs live with other settings than the grid has now: {', '.join(changed)}; cancel them first")
    for fresh in todo:
        if fresh.name not in live:
            fresh.write()
    n_cells = len(plan.cells)
    began, n_before = time.monotonic(), sum(plan.is_done(cell) for cell in plan.cells)
    try:
        with bar("cells", n_cells) as shown, closing(engine.run(todo)) as ended:
            shown.advance(n_before)
            for job in ended:
                shown.advance(int(job is not None and job.is_cell))
                table.add(job)
    except KeyboardInterrupt as stop:
        raise type(stop)(_left(plan, engine)) from None
    if todo:
        log(f"{n_cells} cells, {len(todo)} jobs in {time.monotonic() - began:.1f} s")


def _to_do(jobs: list[Job], *, retry: bool) -> list[Job]:
    """The jobs without those that failed as they are, and without what waits for one of these."""
    failed = {job.name for job in jobs if not retry and _has_failed(job)}
    return [job for job in jobs if job.name not in failed and not failed & set(job.after)]


def _has_failed(job: Job) -> bool:
    return Journal.read(job.journal).state == "failed" and job.is_as_written()


def _left(plan: Plan, engine: Engine) -> str:
    """What an interrupted sweep leaves, and how to go on."""
    done = f"{sum(plan.is_done(cell) for cell in plan.cells)} of {len(plan.cells)} cells are finished."
    return f"{done} {engine.left()} Continue with the same command; --status shows how far it is."


def _unfinished(plan: Plan, *, retry: bool) -> str:
    """Every cell without a row, and every pretrained run without weights, with its last lines; empty where there is none."""
    left = plan.jobs()
    if not left:
        return ""
    n_cells = sum(job.is_cell for job in left)
    lines = [f"{n_cells} of {len(plan.cells)} cells are not finished; the others stand in {plan.out / 'table.csv'}"]
    for job in left[:MOST_LISTED]:
        state = Journal.read(job.journal).state
        lines.append(f"{job.name}: {'was cancelled or never began' if state == 'waiting' else state}")
        lines += [f"    {line}" for line in (last_lines(job) if state == "failed" else "").splitlines()]
    lines += [f"and {len(left) - MOST_LISTED} more"] if len(left) > MOST_LISTED else []
    again = "; with --retry, with what failed" if not retry and any(map(_has_failed, left)) else ""
    return "\n".join([*lines, f"The same command goes on with what was interrupted or cancelled{again}."])


class _Table:
    """The rows of all cells that are done, in the order of the grid; written now and then."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._written = plan, time.monotonic()
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._cells = {cell.name: cell for cell in plan.cells}
        for cell in plan.cells:
            self._read(cell)

    def add(self, job: Job | None) -> None:
        """Take the rows of a job that has ended, if it is a cell and done."""
        if job is not None and job.name in self._cells:
            self._read(self._cells[job.name])
            if time.monotonic() - self._written > SECONDS_BETWEEN_TABLES:
                self.write()

    def write(self) -> list[dict[str, Any]]:
        """Write the table; its rows."""
        for cell in self._plan.cells:
            if cell.name not in self._rows:
                self._read(cell)
        rows = [row for cell in self._plan.cells for row in self._rows.get(cell.name, ())]
        write_text(self._plan.out / "table.csv", csv_text(rows))
        write_json(self._plan.out / "table.json", rows)
        self._written = time.monotonic()
        return rows

    def _read(self, cell: Cell) -> None:
        if self._plan.is_done(cell):
            subject = {"target": cell.target} if cell.target else {}
            head = {"cell": cell.name, "method": cell.method, "data": cell.data, **subject, **cell.settings}
            scored = read_json(self._plan.out / cell.name / "evaluation.json")["rows"]
            self._rows[cell.name] = [{**head, **row} for row in scored]


def cancel(grid_file: str, **engine_options: Any) -> dict[str, Any]:
    """Take the jobs of a sweep off the cluster."""
    plan = Plan.read(grid_file)
    return {"cancelled": engine_for(plan, **engine_options).cancel([job.name for job in plan.jobs()])}
