"""Killed and resumed runs end with the weights of an uninterrupted one. The processes are real, and so is SIGKILL."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pulvinar
from pulvinar.cli import main

# Imports once, then forks: a child fits with a checkpoint after every epoch and is killed at the n-th file that it would put
# in place (before or after it is there, in turn); the last child is not killed.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
import torch
from pulvinar.cli import main
from pulvinar.decoding.methods import cross_subject_decoder, troi
from pulvinar.learning import runs

runs.SECONDS_BETWEEN_CHECKPOINTS = -1.0
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.ones(1)
torch.optim.AdamW([weight], fused=True).step()  # what an optimizer imports at its first step, once for all children
arguments, kills = json.loads(sys.argv[1]), json.loads(sys.argv[2])

def die_at(number, before):
    count = 0
    def wrap(original):
        def put(self, target):
            nonlocal count
            count += 1
            if count == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(self, target)
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return put
    Path.replace, Path.rename = wrap(Path.replace), wrap(Path.rename)

ends = []
for place, number in enumerate([*kills, None]):
    child = os.fork()
    if child == 0:
        if number is not None:
            die_at(number, before=place % 2 == 0)
        os._exit(main(arguments))
    _, status = os.waitpid(child, 0)
    ends.append(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
print(json.dumps(ends))
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(pulvinar.__file__).parents[1])}


def drive(arguments: list[str], kills: list[int]) -> list[int]:
    """Exit codes of the children, negative where a signal ended one."""
    command = [sys.executable, "-c", DRIVER, json.dumps(arguments), json.dumps(kills)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


def require_same_run(killed: Path, whole: Path) -> None:
    """Weights bit for bit, metrics byte for byte, the same voxels, nothing left over."""
    for name in ("checkpoints/decoder.safetensors", "pretrained/checkpoints/decoder.safetensors"):
        if not (whole / name).exists():
            continue
        ours, theirs = load_file(killed / name), load_file(whole / name)
        assert set(ours) == set(theirs)
        different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
        assert not different, (name, different)
        metrics = Path(name).parents[1] / "metrics.jsonl"
        assert (killed / metrics).read_bytes() == (whole / metrics).read_bytes()
    facts, wanted = (json.loads((run / "run.json").read_text()) for run in (killed, whole))
    assert facts["status"] == "finished"
    assert facts["selection"] == wanted["selection"]
    assert not list(killed.rglob(".partial-*"))


def fit_command(world: Path, run: Path, settings: tuple[str, ...]) -> list[str]:
    return ["fit", "troi", "--data", str(world), "--out", str(run), "--resume", "--quiet", "--set", *settings]


# A new run puts 5 files in place, its pretrained run 4 more, each checkpoint 3; the kills walk through creation, pretraining,
# rounds and cuts of stage 1, the seam between the stages, and stage 2.
@pytest.mark.parametrize(
    ("changes", "kills"),
    [
        pytest.param((), [3, 5, 5, 6, 7, 4, 5, 4, 8, 3], id="pretrained", marks=pytest.mark.slow),
        pytest.param(
            ("pretrain=false", "shrink=false"),
            [7, 8, 5, 4],
            id="without pretraining, columns kept",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_run_killed_again_and_again_is_bit_identical(changes, kills, world, quick, tmp_path):
    settings = tuple(pair for pair in quick if not (changes and pair.startswith("pretrained."))) + changes
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert drive(fit_command(world, whole, settings), []) == [0]
    ends = drive(fit_command(world, killed, settings), kills)
    assert ends[-1] == 0
    assert ends[:4] == [-signal.SIGKILL] * 4
    require_same_run(killed, whole)


def test_resume_needs_no_settings_even_before_pretraining_began(world, finished, quick, tmp_path):
    """Killed when only the run folder was there: the pretrained run's settings are in it."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for part in ("pretrained", "checkpoints", "artifacts", "metrics.jsonl"):
        path = run / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    facts = json.loads((run / "run.json").read_text())
    facts["status"] = "running"
    facts.pop("selection")
    (run / "run.json").write_text(json.dumps(facts))
    (run / ".partial-pretrained-1-abc").mkdir()
    (run / ".partial-pretrained-1-abc" / "config.toml").write_text("half")
    assert main(["fit", "troi", "--data", str(world), "--out", str(run), "--resume", "--quiet"]) == 0
    assert "hidden = 16\n" in (run / "pretrained" / "config.toml").read_text()  # as in `quick`, not the default
    require_same_run(run, finished)


def test_resume_refuses_other_settings_and_leaves_a_finished_run_alone(world, finished, quick, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(["fit", "troi", "--data", str(world), "--out", str(finished), "--resume"]) == 0
    assert main([*fit_command(world, finished, quick), "epochs=9", "pretrained.epochs=8"]) == 2
    assert "these differ: epochs, pretrained.epochs" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_keeps_the_last_piece_and_says_how_to_go_on(number, code, world, quick, tmp_path, capsys):
    run = tmp_path / "run"
    ours = fit_command(world, run, (*quick, "pretrained.epochs=100000"))
    command = [sys.executable, "-m", "pulvinar.cli", *(word for word in ours if word != "--quiet")]
    # a shell that runs the tests in the background has Ctrl-C switched off for them, and would for the command
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    line = ""
    while "/100000 in " not in line:  # epochs have ended, of which none is due for a checkpoint
        line = process.stderr.readline()
        assert line, "ended early"
    assert main(ours) == 2
    assert f"{run}: in use by process {process.pid} on " in capsys.readouterr().err
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == ""
    kept = run / "pretrained" / "checkpoints" / "latest.safetensors"
    assert kept.is_file()  # though it was not due
    assert kept.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert f"({kept}). Continue with the same command and --resume." in err
    assert "Traceback" not in err
    assert not list(run.rglob(".lock.json"))


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
