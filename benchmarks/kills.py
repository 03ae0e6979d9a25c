"""Runs of every method killed at random moments and resumed: `python benchmarks/kills.py FOLDER [--kills 100] [--only …]`.

For each method a tiny fit with its evaluation runs once undisturbed. Then it runs again, is killed with SIGKILL after a random
part of the processor time that it takes, and goes on with `--resume`; every second one is killed once more before it ends. What
is compared, file by file: weights, tables, predictions and records are to be those of the undisturbed run, bit for bit; nothing
half-written may be left. One line of JSON for each kill in FOLDER/kills.jsonl, from which a stopped benchmark goes on.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import load_file
from tiny_methods import METHODS, QUICK, tiny_dissimilarities, tiny_experiment, tiny_images

from pulvinar.app import registry
from pulvinar.cli import main as pulvinar
from pulvinar.core.storage import SEAL
from pulvinar.data.experiment import save
from pulvinar.learning import runs

OF_THE_MOMENT = ("environment.json", "run.json", "config.toml")  # host, versions, times; settings name the folder
STARTS_FROM = {"picture_decoder": "troi", "distillation": "dual_gating"}  # a finished run, which is not killed
MORE = {"n_permutations": 20}
OF_ONE = {"picture_decoder": {"prior": "diffusion"}}  # so that the prior's training can be killed too


def write_data(folder: Path) -> dict[str, Path]:
    """The tiny data of each kind, as `--data` takes them."""
    places = {"experiment": folder / "experiment", "images": folder / "images.npz", "dissimilarities": folder / "rdms.npz"}
    if places["dissimilarities"].is_file():
        return places
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(places["experiment"], ignore_errors=True)
    save(tiny_experiment(), places["experiment"])
    made, rdms = tiny_images(), tiny_dissimilarities()
    np.savez(places["images"], x_train=made.train, y_train=made.train_labels, x_test=made.test, y_test=made.test_labels)
    pixels = np.stack([rdms.stimuli.image(row) for row in range(len(rdms.stimuli.ids))])
    np.savez(places["dissimilarities"], images=pixels, fmri_evc=rdms.targets["evc"].rdms)
    return places


def settings_of(name: str) -> list[str]:
    """Those of QUICK that the method has, and of the decoder that it pretrains."""
    method = registry.method(name)
    pretrains = method.pretrained is not None and name not in STARTS_FROM
    known = {field.name for field in dataclasses.fields(method.config)} - ({"hidden"} if pretrains else set())
    found = [f"{key}={value}" for key, value in (QUICK[method.data] | MORE | OF_ONE.get(name, {})).items() if key in known]
    return found + (["pretrained.epochs=3", "pretrained.hidden=16"] if pretrains else [])


def processor_seconds(process: int) -> float:
    """What a process and its ended children have used of the processor; infinite where it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return float("inf")


def child(arguments: list[str], kill_after: float | None = None) -> tuple[int, float]:
    """Run a command in a fork of this process, killed once it has used so much of the processor; its end and seconds."""
    process = os.fork()
    if process == 0:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(pulvinar(arguments))
    while kill_after is not None:
        if processor_seconds(process) >= kill_after:
            os.kill(process, signal.SIGKILL)
            break
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.002)
    _, status, used = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def content(run: Path) -> dict[str, object]:
    """What is compared of a run: tensors of checkpoints by their bytes, every other file as it is."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or path.name in OF_THE_MOMENT:
            continue
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            found |= {f"{name} {key}": tensors[key].numpy().tobytes() for key in sorted(tensors)}
        elif path.suffix == ".json":  # where the run lies is said in some, and its seal follows
            held = json.loads(path.read_text().replace(str(run), "RUN"))
            found[name] = {key: value for key, value in held.items() if key != SEAL} if isinstance(held, dict) else held
        else:
            found[name] = path.read_bytes()
    return found


def differences(run: Path, whole: Path) -> list[str]:
    ours, theirs = content(run), content(whole)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def fit_command(name: str, data: Path, run: Path) -> list[str]:
    scored = ["--evaluate", "--only-selection"] if registry.method(name).evaluate is not None else []
    start = ["--pretrained", str(run.parent / "start")] if name in STARTS_FROM else []
    return [
        "fit",
        name,
        "--data",
        str(data),
        "--out",
        str(run),
        "--resume",
        *scored,
        *start,
        "--quiet",
        "--set",
        *settings_of(name),
    ]


def undisturbed(name: str, data: Path, folder: Path) -> float:
    """Processor seconds of a run that nothing ends early; it is made twice, and what differs then is said."""
    whole, again, start, file = (folder / name / place for place in ("whole", "again", "start", "seconds.json"))
    if not file.is_file():
        if name in STARTS_FROM and child(fit_command(STARTS_FROM[name], data, start))[0]:
            raise SystemExit(f"{STARTS_FROM[name]} does not run: {' '.join(fit_command(STARTS_FROM[name], data, start))}")
        for run in (whole, again):
            shutil.rmtree(run, ignore_errors=True)
            code, seconds = child(fit_command(name, data, run))
            if code:
                pulvinar([word for word in fit_command(name, data, run) if word != "--quiet"])
                raise SystemExit(f"{name} does not run: {' '.join(fit_command(name, data, run))}")
        print(f"{name}: {seconds:.1f} s; differs without a kill: {differences(again, whole) or 'nothing'}", flush=True)
        file.write_text(json.dumps(seconds))
    return json.loads(file.read_text())


def killed(name: str, data: Path, folder: Path, seconds: float, number: int) -> dict[str, object]:
    """One run that is killed once or twice and then goes on to its end."""
    chance, run = random.Random(f"{name} {number}"), folder / name / f"run{number}"
    shutil.rmtree(run, ignore_errors=True)
    command, ends, moments = fit_command(name, data, run), [], []
    for _ in range(1 + number % 2):
        moments.append(chance.uniform(0.02, 1.0) * seconds)
        ends.append(child(command, moments[-1])[0])
    ends.append(child(command)[0])
    different = differences(run, folder / name / "whole")
    if not different:
        shutil.rmtree(run)
    return {"method": name, "number": number, "moments": moments, "ends": ends, "differences": different}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", nargs="*", default=list(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs.SECONDS_BETWEEN_CHECKPOINTS = -1.0  # after every epoch, so that every seam can be hit
    places, log = write_data(given.folder / "data"), given.folder / "kills.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    took = {name: undisturbed(name, places[registry.method(name).data], given.folder) for name in given.only}
    n_killed = sum(end == -signal.SIGKILL for one in done for end in one["ends"])
    number = len(done)
    while n_killed < given.kills:
        name = given.only[number % len(given.only)]
        one = killed(name, places[registry.method(name).data], given.folder, took[name], number)
        done.append(one)
        n_killed += sum(end == -signal.SIGKILL for end in one["ends"])
        with log.open("a") as file:
            file.write(json.dumps(one) + "\n")
        number += 1
    bad = [one for one in done if one["differences"] or one["ends"][-1]]
    n_methods = len({one["method"] for one in done})
    print(f"{n_killed} kills in {len(done)} runs of {n_methods} methods; {len(done) - len(bad)} ended equal")
    for one in bad:
        print(json.dumps(one))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
