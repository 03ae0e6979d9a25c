"""Damaged and hostile files through every reader: `uv run python tests/fuzz/run.py --cases 20000 --seed 1`.

Prints, for each reader, how many cases were read, refused with a message of ours, or ended in a raw traceback, a signal, a hang
over 10 s of the processor, or more than 1 GB; then where the last four happened, with `--case` to see one again. Exit code 1 if there are any.
"""

import argparse
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
SECONDS = {"file": 10.0, "folder": 10.0, "command": 60.0}  # of the processor; a command that trains takes some by itself
SHARES = {
    "file": 0.94,
    "folder": 0.055,
    "command": 0.005,
}  # of the cases: a file takes .01 s, a folder .1, a command one or more
WAITING = 12  # times that by the clock, where other processes have the processor
OUTCOMES = ("ok", "refused", "raw", "signal", "hang", "memory")


@dataclass
class Found:
    """Counts of a run, and the cases to look at."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of the processor, all cases of a reader

    def add(self, target: str, seed: str, answer: dict[str, Any]) -> None:
        self.counts.setdefault(target, Counter())[answer["outcome"]] += 1
        self.slowest[target] = max(self.slowest.get(target, 0.0), answer.get("seconds", 0.0))
        self.seconds[target] = self.seconds.get(target, 0.0) + answer.get("seconds", 0.0)
        if answer["outcome"] not in ("ok", "refused"):
            self.bad.append({"target": target, "seed": seed, **answer})
            sys.stderr.write(f"{answer['outcome']}: --case '{target}' {seed}: {answer['file']}: {answer['said'][:200]}\n")


def processor_seconds(process: int) -> float:
    """What a process has used of the processor, with the children that it has waited for; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A child that reads cases; ended and started again where one did not come back."""

    def __init__(self, seeds: Path) -> None:
        self.seeds = seeds
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PULVINAR_CHECKSUMS": "always"}
        command = [sys.executable, str(HERE / "worker.py"), str(self.seeds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._answer(self.process, 300)
        return self.process

    def _answer(self, process: "subprocess.Popen[bytes]", seconds: float) -> dict[str, Any]:
        if process.stdout is None:
            raise RuntimeError("the child has no output")
        began, used = time.monotonic(), processor_seconds(process.pid)
        while not select.select([process.stdout], [], [], 1)[0]:
            if processor_seconds(process.pid) - used > seconds or time.monotonic() - began > WAITING * seconds:
                self.close()
                return {"outcome": "hang", "said": f"over {seconds:.0f} s", "file": ""}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.process = None
            return {"outcome": "signal", "said": f"the process ended with {code}", "file": ""}
        return json.loads(line)

    def case(self, target: str, seed: str, seconds: float) -> dict[str, Any]:
        process = self.process or self._start()
        if process.stdin is None:
            raise RuntimeError("the child has no input")
        process.stdin.write(json.dumps({"target": target, "seed": seed}).encode() + b"\n")
        process.stdin.flush()
        return self._answer(process, seconds)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def fuzz(n_cases: int, seed: int, seeds: Path, only: str = "", seconds: float | None = None) -> Found:
    """Run cases drawn from a seed over the readers; only: part of a reader's name; seconds: stop after so many."""
    from targets import TARGETS

    chosen = {name: target for name, target in TARGETS.items() if only in name and (seeds / target.seeds).is_dir()}
    groups = {kind: [name for name in chosen if chosen[name].kind == kind] for kind in SHARES}
    groups = {kind: names for kind, names in groups.items() if names}
    chance, found, worker, began = random.Random(seed), Found(), Worker(seeds), time.monotonic()
    try:
        for number in range(n_cases):
            (kind,) = chance.choices(list(groups), [SHARES[kind] for kind in groups])
            name, own = chance.choice(groups[kind]), f"{seed}-{number}"
            found.add(name, own, worker.case(name, own, SECONDS[kind]))
            if seconds is not None and time.monotonic() - began > seconds:
                break
            if number % 500 == 499:
                sys.stderr.write(f"{number + 1} of {n_cases}, {len(found.bad)} to look at, {time.monotonic() - began:.0f} s\n")
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
    finally:
        worker.close()
    return found


def as_text(found: Found) -> str:
    """The table, and what is to be looked at: each place once."""
    width = max(map(len, found.counts), default=8)
    titles = ("ok", "refused", "raw traceback", "signal", "hang > 10 s", "> 1 GB")
    lines = [
        f"{'reader':{width}}  " + "  ".join(f"{title:>13}" for title in titles) + f"  {'slowest (s)':>11}  {'mean (s)':>8}"
    ]
    for name, counts in sorted(found.counts.items()):
        lines.append(
            f"{name:{width}}  "
            + "  ".join(f"{counts[kind]:13d}" for kind in OUTCOMES)
            + f"  {found.slowest[name]:11.1f}  {found.seconds[name] / sum(counts.values()):8.3f}"
        )
    total = sum(found.counts.values(), Counter())
    lines.append(f"{f'all {sum(total.values())}':{width}}  " + "  ".join(f"{total[kind]:13d}" for kind in OUTCOMES))
    places: dict[str, list[dict[str, Any]]] = {}
    for case in found.bad:
        places.setdefault(f"{case['outcome']}: {case['target']}: {case['said'].split(': ')[0]}", []).append(case)
    for place, cases in sorted(places.items(), key=lambda item: -len(item[1])):
        lines.append(
            f"{len(cases):5d} x {place}\n        {cases[0]['file']}: {cases[0]['said']}\n        --case '{cases[0]['target']}' {cases[0]['seed']}"
        )
    return "\n".join(lines)


def one_case(name: str, seed: str, seeds: Path) -> None:
    """Run a case in this process, with its traceback."""
    import shutil

    from mutations import mutate
    from targets import TARGETS

    target, chance = TARGETS[name], random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="pulvinar-case-")) / "case"
    shutil.copytree(seeds / target.seeds, folder)
    files = sorted({path for pattern in target.files for path in folder.glob(pattern) if path.is_file()})
    file, other = chance.choice(files), chance.choice(files)
    file.write_bytes(mutate(file, file.read_bytes(), other.read_bytes(), chance))
    print(file)
    target.read(folder, file)
    print("read")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="stop after so many seconds")
    parser.add_argument("--only", default="", help="part of a reader's name")
    parser.add_argument("--seeds", help="folder where the small files are made and kept (default: made anew)")
    parser.add_argument("--case", nargs=2, metavar=("READER", "CASE"), help="run one case here, with its traceback")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the table of what was tried, as after Ctrl-C
    with tempfile.TemporaryDirectory(prefix="pulvinar-seeds-") as place:
        folder = Path(arguments.seeds or place).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "complete").is_file():  # in a process of its own: this one loads no torch
            subprocess.run([sys.executable, str(HERE / "seeds.py"), str(folder)], check=True)
        if arguments.case:
            one_case(*arguments.case, folder)
            return 0
        found = fuzz(arguments.cases, arguments.seed, folder, arguments.only, arguments.seconds)
    print(as_text(found))
    return 1 if found.bad else 0


if __name__ == "__main__":
    sys.exit(main())
