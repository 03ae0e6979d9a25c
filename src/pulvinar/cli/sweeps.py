"""`pulvinar sweep`: a grid of settings, on an engine."""

import argparse

from pulvinar.cli.common import Commands, Result, say

SLURM = {  # options of `sweep --on slurm`; all others stand in the grid
    "partition": "partition of the cluster",
    "time": "time of a cell, such as 90 (minutes) or 2:00:00",
    "memory": "memory of a cell, such as 8GB",
    "gpus": "GPUs of a cell",
    "constraint": "what a node must have",
}


def _sweep(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.sweeps import status
    from pulvinar.app.sweeps.sweep import cancel, sweep

    if arguments.status:
        result = status.status(arguments.grid)
        say(arguments, status.as_text(result))
        return result
    asked = {name: getattr(arguments, name) for name in SLURM}
    options = {
        "on": arguments.on,
        "workers": arguments.workers,
        "threads": arguments.threads,
        "scheduler": arguments.scheduler,
        "slurm": {name: value for name, value in asked.items() if value is not None},
    }
    if arguments.cancel:
        result = cancel(arguments.grid, **options)
        say(arguments, f"cancelled {len(result['cancelled'])} jobs")
        return result
    result = sweep(arguments.grid, retry=arguments.retry, **options)
    say(arguments, result["table"])
    return result


def declare(commands: Commands) -> None:
    """The command line of this file."""
    sweep = commands.add(
        "sweep",
        _sweep,
        "a grid of settings; finished cells are skipped; one table over all",
        example="pulvinar sweep grid.toml --workers 4",
    )
    sweep.add_argument("grid", help="TOML file: method, data, out, [set], [grid], [[cell]], [slurm] (docs/sweeps.md)")
    sweep.add_argument("--on", choices=("local", "slurm", "dask"), default="local", help="where cells run (default: here)")
    sweep.add_argument("--workers", type=int, metavar="N", help="--on local: processes (default: this one)")
    sweep.add_argument("--threads", type=int, metavar="N", help="of each worker process (default 1)")
    sweep.add_argument("--scheduler", metavar="ADDRESS", help="--on dask: the scheduler, such as tcp://HOST:8786")
    for name, text in SLURM.items():
        sweep.add_argument(f"--{name}", metavar=name.upper(), help=f"--on slurm: {text}; as in the grid's table [slurm]")
    sweep.add_argument("--retry", action="store_true", help="do cells that failed again, too")
    sweep.add_argument("--status", action="store_true", help="only say how far it is: counts, nodes, time left")
    sweep.add_argument("--cancel", action="store_true", help="take the jobs of this sweep off the cluster")
