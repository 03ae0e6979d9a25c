"""Memory and time of an encoding fit of many images and voxels from disk, killed on the way and resumed.

    python benchmarks/encoding_size.py WORK --weights squeezenet1_0_imagenet.npz [--images 10000] [--voxels 40000]

A planted subject is written into WORK once (single trials of crops of photographs, and 300 test images). Then
`pulvinar fit ridge_encoding` on the layers of SqueezeNet runs in a process of its own, is killed after `--kill-after`
seconds, and goes on with --resume. Printed: seconds and peak resident set of both, and of the scores.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = ["network=squeezenet1_0", "image_size=64", "pool=6"]


def watched(name: str, arguments: list[str], *, kill_after: float | None = None) -> None:
    """Run a command of pulvinar, perhaps kill it after so many seconds; print what it took."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pulvinar.cli", *arguments])
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process.pid, signal.SIGKILL)  # not by Popen, which would collect what wait4 asks for if it has ended
    _, status, usage = os.wait4(process.pid, 0)
    took, cpu, peak = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9
    ended = "" if status == 0 else ", killed" if status == signal.SIGKILL else f", failed ({status})"
    print(f"{name}: {took:.0f} s, {cpu:.0f} s of processor time, peak {peak:.2f} GB{ended}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--weights", type=Path, required=True)
    arguments.add_argument("--images", type=int, default=10_000)
    arguments.add_argument("--voxels", type=int, default=40_000)
    arguments.add_argument("--kill-after", type=float, default=300.0)
    given = arguments.parse_args()
    world, run = given.work / "world", given.work / "run"
    if not world.is_dir():
        sizes = [f"n_trials={given.images}", "repeated_share=0"]
        simulated = ["data", "simulate", "--out", str(world), "--n-subjects", "1", "--n-voxels", str(given.voxels)]
        watched("planting", [*simulated, "--set", *sizes])
    fit = ["fit", "ridge_encoding", "--data", str(world), "--out", str(run)]
    fit += ["--set", *SETTINGS, f"weights={given.weights.resolve()}"]
    if not run.is_dir():
        watched("fit", fit, kill_after=given.kill_after)
    watched("resumed", [*fit, "--resume"])
    watched("scores", ["evaluate", str(run)])


if __name__ == "__main__":
    main()
