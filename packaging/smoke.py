"""What packaging/smoke.sh does with the installed wheel: its commands, in one process. Arguments: the extras installed."""

import importlib
import io
import json
import pkgutil
import sys
from contextlib import redirect_stdout

import numpy as np

import pulvinar
from pulvinar.cli import main

SMALL_WORLD = "n_subjects=2 n_voxels=400 n_trials=60 n_pretraining_trials=60 n_test_images=20 image_size=16 n_test_repeats=1"
FEW_EPOCHS = "n_voxels=50 n_rounds=2 epochs_per_round=1 epochs=1 pretrained.epochs=1"


def run(command: str) -> str:
    """What a command writes to stdout; ends the test where it fails."""
    written = io.StringIO()
    try:
        with redirect_stdout(written):
            code = main(command.split())
    except SystemExit as left:  # --help and --version
        code = left.code
    if code:
        sys.exit(f"pulvinar {command}: exit code {code}")
    return written.getvalue()


def has(extras: set[str], name: str) -> bool:
    """Whether this extra, or all of them, were asked for."""
    return bool(extras & {name, "all"})


def check_imports(extras: set[str]) -> None:
    """Every module there is can be imported; without the extra deploy, but those that make ONNX files."""
    modules = [module.name for module in pkgutil.walk_packages(pulvinar.__path__, "pulvinar.")]
    for name in modules:
        if name.endswith("__main__"):  # runs when it is imported
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != "onnx" or has(extras, "deploy"):
                raise


def check_deploy() -> None:
    """A gated network, made small, in every runtime."""
    pixels = np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), dtype=np.uint8)
    images = {"x_train": pixels, "x_test": 255 - pixels[:64], "y_train": np.arange(160) % 3, "y_test": np.arange(64) % 3}
    np.savez("images.npz", **images)
    run("fit dual_gating --data images.npz --out gated --set epochs=1 batch_size=32 width=0.25")
    run("deploy compact gated --calibrate images.npz --out net")
    run("deploy export net --onnx net.onnx --torch-export net.pt2")
    timed = json.loads(run("--json deploy bench net --batch 1 --repeats 3 --runtimes onnxruntime openvino"))
    missing = {"onnxruntime", "openvino f32"} - {row["runtime"] for row in timed["rows"]}
    if missing:
        sys.exit(f"deploy bench timed no {sorted(missing)}: {timed['skipped']}")


def everything(extras: set[str]) -> None:
    """All of it."""
    for command in ("--version", "list", "completion bash", "fit troi --help", "macs resnet18"):
        run(command)
    found = {extra["name"]: extra["missing"] for extra in json.loads(run("--json doctor"))["extras"]}
    lacking = {name: missing for name, missing in found.items() if missing and has(extras, name)}
    if lacking:
        sys.exit(f"asked for and not installed: {lacking}")
    check_imports(extras)
    run(f"data simulate --out world --set {SMALL_WORLD}")
    run("data inspect world")
    run(f"fit troi --data world --out run --set {FEW_EPOCHS}")
    run("evaluate run")
    run("report run")
    print(repr(pulvinar.load("run")))
    if has(extras, "weights"):
        run("data embed world --out embedding.npy")
    if has(extras, "deploy"):
        check_deploy()


if __name__ == "__main__":
    everything(set(sys.argv[1:]))
