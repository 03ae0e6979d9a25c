"""Every Python block of every page runs: here, with stand-ins for what a reader brings, or in the test that is named."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nilearn.maskers import NiftiMasker

from pulvinar.deploy.compact import compact
from pulvinar.deploy.files import save
from pulvinar.deploy.onnx_files import export_onnx
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

ROOT = Path(__file__).resolve().parents[1]
SIZE = 16  # pixels of the images of networks for use
ELSEWHERE = {  # page -> the test that runs it
    "CONTRIBUTING.md": "tests/test_contributing.py",
    "docs/data.md": "tests/datasets/test_arrays.py",
    "docs/folder.md": "tests/data/test_experiment.py",
    "docs/networks.md": "tests/app/test_backbones.py",
    "docs/python.md": "tests/app/test_python.py",
} | {str(page.relative_to(ROOT)): "tests/test_tutorials.py" for page in (ROOT / "docs/tutorials").glob("*.md")}
CANNOT = {  # page -> why its block does not run here, which the page says too
    "docs/algonauts2023.md": "needs the challenge's data",
    "docs/encoding_analyses.md": "needs an experiment and networks tuned on it",
    "docs/reference/plot.md": "needs a finished run",
    "docs/reference/pulvinar.md": "needs data, and minutes",
    "docs/scores.md": "needs a finished run",
    "docs/style.md": "have their shapes in the signature",
}


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pages() -> list[str]:
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in found if blocks(str(page.relative_to(ROOT))))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def voxels() -> dict[str, Any]:
    return {"X": normal(40, 250), "y": normal(40, 3), "xyz": 3 * normal(250, 3)}


def encoder() -> dict[str, Any]:
    return {"features": normal(40, 6), "responses": normal(40, 4), "new_features": normal(9, 6), "new_responses": normal(9, 4)}


def with_masker() -> dict[str, Any]:
    mask = nibabel.Nifti1Image(np.ones((7, 6, 6), np.uint8), np.diag([3.0, 3, 3, 1]))
    labels, runs = np.tile(np.arange(4), 10), np.repeat(np.arange(5), 8)
    return {"masker": NiftiMasker(mask).fit(), "responses": normal(40, 252), "labels": labels, "runs": runs}


def rdms() -> dict[str, Any]:
    """Planted ones under the name of the 92 images' file."""
    points = normal(4, 92, 6)
    square = np.sqrt(np.square(points[:, :, None] - points[:, None]).sum(-1))
    np.savez("rdm92_algonauts2019.npz", fmri_it=square, fmri_evc=square[::-1].copy())
    pairs = torch.from_numpy(square[:, *np.triu_indices(92, 1)])
    return {
        "features": torch.from_numpy(points[0]), "other": pairs[1], "unseen_rows": [1, 5, 8, 9, 30, 31], "measured_evc": pairs,
    }  # fmt: skip


def network() -> dict[str, Any]:
    """A small untrained gated network, and the files that the page's commands would have written."""
    shape = resnet_shape("resnet18", size=SIZE, width=0.125)
    gated = GatedResNet(shape, size=SIZE, passes=("dense", "gated")).initialise(torch.Generator().manual_seed(0)).eval()
    images = torch.from_numpy(normal(100, 3, SIZE, SIZE)).float().clamp(-1.5, 1.5)
    made = compact(gated, images)
    save("net30", made)
    export_onnx(made, "net30.onnx")
    pixels = np.random.default_rng(0).random((2, 3, SIZE, SIZE)).astype(np.float32)
    return {"gated_resnet": gated, "calibration_images": images, "images": images, "pixels": pixels}


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {  # page -> what its blocks begin with
    "README.md": voxels,
    "docs/index.md": voxels,
    "docs/reference/estimators.md": voxels,
    "docs/methods/ridge_encoding.md": encoder,
    "docs/methods/voxel_selector.md": with_masker,
    "docs/reference/metrics.md": dict,
    "docs/reference/rsa.md": dict,
    "docs/reference/selectors.md": dict,
    "docs/algonauts2019.md": dict,
    "docs/rsa.md": rdms,
    "docs/deploy.md": network,
    "docs/deploy_speed.md": network,
}
LONG, SLOW = ("docs/algonauts2019.md", "docs/deploy.md"), ("docs/rsa.md", "docs/deploy_speed.md")


def test_every_page_with_code_is_run_or_says_why_not():
    assert sorted({*ELSEWHERE, *CANNOT, *GIVEN}) == pages()
    assert not [page for page in GIVEN if page in ELSEWHERE or page in CANNOT]
    for page, test in ELSEWHERE.items():
        name = "tutorials" if "tutorials" in page else Path(page).name
        assert name in (ROOT / test).read_text(encoding="utf-8"), page
    for page, reason in CANNOT.items():
        assert reason in (ROOT / page).read_text(encoding="utf-8"), page


def _marked(page: str) -> Any:
    return pytest.param(page, marks=pytest.mark.slow if page in SLOW else pytest.mark.long if page in LONG else ())


@pytest.mark.parametrize("page", [_marked(page) for page in GIVEN])
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page", **GIVEN[page]()}
    for block in blocks(page):
        if page == "README.md" and "mystudy" in block:
            continue  # tests/app/test_python.py
        exec(compile(block, page, "exec"), names)
