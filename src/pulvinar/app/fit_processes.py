"""`pulvinar fit … --devices N`: one fit on N processes that train one network together, a GPU each or the cores of the machine.

Each process is `pulvinar fit` with what torchrun would set in its environment (learning/processes.py). The first one writes the
run folder and shows progress. Where one fails, or Ctrl-C or SIGTERM comes, all end: no process is left waiting for another.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import method_settings, registry
from pulvinar.core import devices
from pulvinar.core.config import Given, values_of
from pulvinar.core.errors import ConfigError, PulvinarError, SaidError
from pulvinar.core.progress import Terminated
from pulvinar.learning.runs import RunFolder

SECONDS_TO_END = 15.0  # for the others, once one has ended
INTERRUPTED = (130, 143)  # exit codes of Ctrl-C and SIGTERM
REFUSED = 2  # exit code
SECONDS_TO_REFUSE = 10.0  # for the first process, once another has refused
SAID_LINES = 6


def fit(n_processes: int, method: str, *, out: str, assignments: Given = (), **options: Any) -> dict[str, Any]:
    """`fitting.fit` on so many processes, with its result and its other arguments (data: a source).

    memory: such as "4GB", which each of them stays below.
    """
    config, _ = method_settings.configs(method, options.get("config_file"), assignments)
    _require_room(n_processes, method, config.device)
    command = [sys.executable, "-m", "pulvinar.cli", "fit", method, "--out", out, *_arguments(assignments, options)]
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(n_processes)]
        started = _start(command, logs)
        try:
            failed = _first_that_failed(started)
        except KeyboardInterrupt as stop:
            started[0].send_signal(signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
            failed = _first_that_failed(started)
        finally:
            _end(started)
        if started[0].returncode == REFUSED:
            raise SaidError(_refusal(started, logs))
        if failed is not None:
            _raise(failed, started[failed].returncode, logs[failed])
    return {"run": out, **RunFolder.reopen(out).facts}


def _require_room(n_processes: int, method: str, device: str) -> None:
    """`ConfigError` where the method is not trained on several devices, or there are too few."""
    if n_processes < 1:
        raise ConfigError(f"--devices: 1 or more, {n_processes} came")
    if not registry.method(method).on_several_devices:
        able = [name for name in registry.names("methods") if registry.method(name).on_several_devices]
        raise ConfigError(f"--devices: {method} is trained on one device; on several are: {', '.join(able)}")
    if ":" in device:
        raise ConfigError(f"device={device}: is one; with --devices {n_processes} say cuda (the first {n_processes}) or cpu")
    n_gpus = sum(name.startswith("cuda") for name in devices.available())
    if devices.find(device).type == "cuda" and n_gpus < n_processes:
        raise ConfigError(f"--devices {n_processes}: {n_gpus} GPUs are here; give {n_gpus} or device=cpu")


def _arguments(assignments: Given, options: Mapping[str, Any]) -> list[str]:
    given = [f"{name}={value}" for name, value in values_of(assignments).items()]
    flags = {
        "--data": "data",
        "--config": "config_file",
        "--pretrained": "pretrained",
        "--target": "target",
        "--memory": "memory",
    }
    made = [part for flag, name in flags.items() if options.get(name) for part in (flag, str(options[name]))]
    logs = ["--log", *options["log_to"]] if options.get("log_to") else []  # the first process sends them
    return made + (["--set", *given] if given else []) + logs + (["--resume"] if options.get("resume") else [])


def _start(command: Sequence[str], logs: Sequence[Path]) -> list["subprocess.Popen[bytes]"]:
    """The processes, in sessions of their own, so that a terminal's Ctrl-C reaches them through this process alone."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // len(logs))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(logs))}
    started = []
    for rank, path in enumerate(logs):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        with path.open("wb") as log:
            started.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **shared, **own},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=None if rank == 0 else log,
                    start_new_session=True,
                )
            )
    return started


def _first_that_failed(started: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """The rank of a process that ended with an error, as soon as one does; None once all have ended well."""
    while True:
        codes = [process.poll() for process in started]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            time.sleep(0.2)  # a process that lost its partner fails too; the first rank has the better message
            if started[failed[0]].returncode == REFUSED:  # as every process does; the first one says it
                for process, seconds in zip(started, (SECONDS_TO_REFUSE, *[2.0] * len(started)), strict=False):
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(seconds)
            return next((rank for rank, process in enumerate(started) if process.poll() in INTERRUPTED), failed[0])
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.1)


def _refusal(started: Sequence["subprocess.Popen[bytes]"], logs: Sequence[Path]) -> str:
    """What the first process refused, which it said above: as another one has it in its log."""
    for process, log in zip(started, logs, strict=True):
        lines = log.read_text(errors="replace").splitlines() if process.returncode == REFUSED else []
        places = [place for place, line in enumerate(lines) if line.startswith("error: ")]
        if places:
            return "\n".join(lines[places[-1] :]).removeprefix("error: ")
    return "the fit was refused; why stands above"


def _end(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End what still runs: they wait for a partner that is gone, and would for minutes."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    until = time.monotonic() + SECONDS_TO_END
    for process in started:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _raise(rank: int, code: int, log_file: Path) -> None:
    if code == 143:
        raise Terminated("The processes have ended.")
    if code == 130:
        raise KeyboardInterrupt("The processes have ended.")
    lines = log_file.read_text(errors="replace").splitlines()[-SAID_LINES:] if log_file.is_file() else []
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    text = "\n".join(f"  {line}" for line in lines) or "  (what it said stands above)"
    raise PulvinarError(f"process {rank} of the fit ended with {how}; the others were ended too. It said last:\n{text}")
