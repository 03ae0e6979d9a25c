"""Shapes in signatures are checked in tests (jaxtyping + beartype); data of ../shared is used when it is there.

No test reads or writes what the user has: from here on, in every test, doctest and process that a test starts, caches and the
libraries' own folders of weights and data are empty ones, and the environment sets nothing of pulvinar's.
"""

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

from pulvinar.core.progress import REPORTER
from pulvinar.report import viewer

# Compiled modules are kept, as for any user: a test that starts a process would otherwise compile torch each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

USER = tempfile.TemporaryDirectory(prefix="pulvinar-tests-")
atexit.register(USER.cleanup)
for name in [name for name in os.environ if name.startswith("PULVINAR_")] + ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]:
    os.environ.pop(name, None)
for name in ("PULVINAR_CACHE", "TORCH_HOME", "HF_HOME", "NILEARN_DATA", "SCIKIT_LEARN_DATA", "MATPLOTLIBRC"):
    os.environ[name] = str(Path(USER.name) / name.lower())
Path(os.environ["MATPLOTLIBRC"]).touch()  # nothing in it: matplotlib's own defaults

TYPED = [f"pulvinar.{name}" for name in ("scores", "selection", "networks", "linear", "learning.contrastive")]
TYPED += [f"pulvinar.rsa.{name}" for name in ("inference", "rdm_files", "rsatoolbox_files", "stage_mask")]
TYPED += [f"pulvinar.gating.{name}" for name in ("objectives", "distillation_objective")]
TYPED += [f"pulvinar.decoding.pictures.{name}" for name in ("image_autoencoder", "picture_decoder")]
TYPED += ["pulvinar.decoding.pictures.picture_generators", "pulvinar.decoding.pictures.picture_measures"]
TYPED += ["pulvinar.encoding.response_heads"]
TYPED += [
    f"pulvinar.deploy.{name}" for name in ("calibration", "compact", "equality", "folding", "probes")
]  # not what is traced

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "app")]  # what tests of several folders share

REPORTER.to_stderr = True  # as on the command line; what Python sees is tested in tests/test_python.py and tests/core

MAKE_VIEWER = viewer.make

hook = install_import_hook(TYPED, "beartype.beartype")
hook.__enter__()

# Processes share the cores: without this each would start a thread per core.
N_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // N_PROCESSES))


@pytest.fixture(scope="session", autouse=True)
def _static_pages() -> Iterator[None]:
    """Pages without the interactive views, which take seconds each; `interactive` is for tests that want them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer, "make", lambda *_given, **_settings: viewer.Viewer())
        yield


@pytest.fixture(scope="module")
def interactive() -> Iterator[None]:
    """Pages with their interactive views."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewer, "make", MAKE_VIEWER)
        yield


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data for development tests; tests that need it are skipped where it is not."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real data for tests is not beside this checkout (../shared/data)")
    return SHARED / "data"
