"""Oracles: `extract` without a cache; the passes through the network are counted; two real processes."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding import feature_cache
from pulvinar.encoding.feature_cache import cache_folder, cached_features, feature_key, pixels_fingerprint
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.staged import StagedNetwork, extract, load_network

SOURCES = Path(feature_cache.__file__).parents[2]


def pictures(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> StagedNetwork:
    return load_network("squeezenet1_0", image_size=64)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The stages of every pass of images through the network."""
    seen: list[tuple[str, ...]] = []
    inner = feature_cache.feature_batches

    def counted(network, images, **settings):
        seen.append(tuple(settings["stages"]))
        return inner(network, images, **settings)

    monkeypatch.setattr(feature_cache, "feature_batches", counted)
    return seen


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "features").iterdir())


def test_values_are_those_of_extract_and_are_found_again(network: StagedNetwork, tmp_path: Path, passes: list):
    images = pictures()
    for pool in (None, 2):
        expected = extract(network, images, pool=pool, batch_size=2)
        for _ in range(2):
            found = cached_features(network, images, pool=pool, batch_size=2, folder=tmp_path)
            assert list(found) == list(network.stages)
            for stage, values in found.items():
                assert isinstance(values, np.memmap)
                assert not values.flags.writeable
                np.testing.assert_array_equal(values, expected[stage])
    assert len(passes) == 2


def test_only_missing_stages_are_computed(network: StagedNetwork, tmp_path: Path, passes: list):
    first, second, third, last = network.stages
    cached_features(network, pictures(), stages=[first, third], folder=tmp_path)
    cached_features(network, pictures(), folder=tmp_path)
    assert list(cached_features(network, pictures(), stages=[last, first], folder=tmp_path)) == [last, first]
    assert passes == [(first, third), (second, last)]
    assert len(entries(tmp_path)) == 1


@pytest.mark.long
def test_everything_that_changes_the_values_changes_the_key(network: StagedNetwork):
    images = pictures()
    changed = images.copy()
    changed[4, 39, 39, 2] ^= 1
    keys = {feature_key(network, images)[0]}
    others = [
        feature_key(network, changed),
        feature_key(network, images[::-1]),
        feature_key(network, images[:4]),
        feature_key(network, images, pool=1),
        feature_key(load_network("squeezenet1_0", image_size=64, seed=1), images),
        feature_key(load_network("squeezenet1_1", image_size=64), images),
        feature_key(load_network("squeezenet1_0", image_size=65), images),
        feature_key(load_network("squeezenet1_0", image_size=64, mean=(0.5, 0.5, 0.5)), images),
        feature_key(load_network("squeezenet1_0", image_size=64, std=(0.5, 0.5, 0.5)), images),
        feature_key(load_network("squeezenet1_0", image_size=64, resize="crop"), images),
    ]
    tuned = load_network("squeezenet1_0", image_size=64)
    assert feature_key(tuned, images)[0] in keys
    with torch.no_grad():
        tuned.module.features[0].bias[3] += 1e-6
    keys |= {key for key, _ in [*others, feature_key(tuned, images)]}
    assert len(keys) == 12


def test_other_code_changes_the_key(network: StagedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a network's own class, wherever it is written; of pulvinar's networks; and the version of torch."""
    images, keys = pictures(), []
    for factor in (1, 2):
        (tmp_path / "own.py").write_text(
            f"import torch\nclass Own(torch.nn.Conv2d):\n    def forward(self, x): return {factor} * super().forward(x)\n"
        )
        importlib.invalidate_caches()
        spec = importlib.util.spec_from_file_location(f"own{factor}", tmp_path / "own.py")
        module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode, written = True, sys.dont_write_bytecode
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = written
        monkeypatch.setitem(sys.modules, f"own{factor}", module)
        plain = torch.nn.Sequential(module.Own(3, 2, 1))
        with torch.no_grad():
            [parameter.fill_(0.5) for parameter in plain.parameters()]
        own = StagedNetwork(plain, name="own", stages=("0",), preprocessing=Preprocessing(image_size=16))
        keys.append(feature_key(own, images)[0])
    keys.append(feature_key(network, images)[0])
    inner = feature_cache.checksum
    monkeypatch.setattr(feature_cache, "checksum", lambda path: "0" if path.endswith("preprocessing.py") else inner(path))
    keys.append(feature_key(network, images)[0])
    monkeypatch.setattr(torch, "__version__", "0.1")
    keys.append(feature_key(network, images)[0])
    assert len(set(keys)) == 5


def test_an_array_a_list_a_tensor_and_stimuli_of_the_same_images_are_one_entry():
    images = pictures()
    stimuli = Stimuli(ids=list("abcde"), sources=list("abcde"), read_image=lambda row: images[row])
    forms = (images, list(images), torch.from_numpy(images), stimuli)
    assert len({pixels_fingerprint(form) for form in forms}) == 1
    assert pixels_fingerprint([images[0][:20], images[0][20:]]) != pixels_fingerprint([images[0][:10], images[0][10:]])


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-5] ^= 16
    elif how == "cut":
        del content[-8:]
    elif how == "empty":
        content = bytearray()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("which", "how"), [("npy", "flipped"), ("npy", "cut"), ("npy", "empty"), ("json", "cut"), ("json", "empty")]
)
def test_damage_is_found_and_computed_again(
    network: StagedNetwork, tmp_path: Path, passes: list, capfd: pytest.CaptureFixture, which: str, how: str
):
    stage = network.stages[-1]
    expected = np.array(cached_features(network, pictures(), stages=[stage], folder=tmp_path)[stage])
    damage(entries(tmp_path)[0] / f"{stage}.{which}", how)
    capfd.readouterr()
    for _ in range(2):
        np.testing.assert_array_equal(cached_features(network, pictures(), stages=[stage], folder=tmp_path)[stage], expected)
    assert len(passes) == 2
    assert capfd.readouterr().err.count("warning: feature cache: computing again what is damaged") == 1


def test_files_without_their_facts_or_lost_do_not_count(network: StagedNetwork, tmp_path: Path, passes: list):
    stage = network.stages[-1]
    for suffix in (".json", ".npy"):
        cached_features(network, pictures(), stages=[stage], folder=tmp_path)
        (entries(tmp_path)[0] / f"{stage}{suffix}").unlink()
    cached_features(network, pictures(), stages=[stage], folder=tmp_path)
    assert len(passes) == 3


def test_a_pass_that_breaks_leaves_nothing_and_leftovers_are_removed(
    network: StagedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = pictures()

    def read(row: int) -> np.ndarray:
        if row == 4 and broken:
            raise FileError("image 4: gone")
        return images[row]

    broken = False
    stimuli = Stimuli(ids=list("abcde"), sources=list("abcde"), read_image=read)
    key, _ = feature_key(network, stimuli)
    monkeypatch.setattr(feature_cache, "feature_key", lambda *_, **__: (key, {"n_images": 5}))
    broken = True
    with pytest.raises(FileError, match="image 4: gone"):
        cached_features(network, stimuli, batch_size=2, folder=tmp_path)
    entry = tmp_path / "features" / key
    assert [path.name for path in entry.iterdir()] == ["lock"]
    (entry / ".partial-old").write_bytes(b"half")
    broken = False
    cached_features(network, stimuli, batch_size=2, folder=tmp_path)
    assert not list(entry.glob(".partial-*"))


def test_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("PULVINAR_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "user/pulvinar"
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared"
    assert cache_folder("here") == Path("here")


def test_a_folder_that_cannot_be_written_and_bad_requests(network: StagedNetwork, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileError, match=r"file.*cannot be written.*PULVINAR_CACHE"):
        cached_features(network, pictures(1), folder=tmp_path / "file")
    with pytest.raises(InputError, match="images: one or more"):
        cached_features(network, [], folder=tmp_path)
    with pytest.raises(NotFoundError, match="does not tap"):
        cached_features(network, pictures(1), stages=["fc"], folder=tmp_path)
    assert not (tmp_path / "features").exists()


SCRIPT = """
import json, sys, time
import numpy as np
import torch
from torch import nn
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks.staged import StagedNetwork
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.encoding import feature_cache

network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3))
with torch.no_grad():
    for number, parameter in enumerate(network.parameters()):
        parameter.copy_(torch.linspace(-1, 1 + number, parameter.numel()).reshape(parameter.shape))
network = StagedNetwork(network, name="small", stages=("0", "2"), preprocessing=Preprocessing(image_size=16))
pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
passes, inner = [], feature_cache.feature_batches

def slowly(row):
    time.sleep(0.1 if passes else 0)
    return pixels[row]

def counted(*arguments, **settings):
    passes.append(1)
    return inner(*arguments, **settings)

feature_cache.feature_batches = counted
if sys.argv[2] == "without locks":
    sys.modules["fcntl"] = None
names = [str(row) for row in range(10)]
print("ready", flush=True)
sys.stdin.readline()
images = Stimuli(ids=names, sources=names, read_image=slowly)
features = feature_cache.cached_features(network, images, batch_size=2, folder=sys.argv[1])
print(json.dumps([len(passes), {stage: float(values.astype(np.float64).sum()) for stage, values in features.items()}]))
"""


def start(folder: Path, locks: str = "with locks") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", SCRIPT, str(folder), locks]
    return subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def go(process: subprocess.Popen[str]) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.slow
@pytest.mark.parametrize(("locks", "expected"), [("with locks", 1), pytest.param("without locks", 2, marks=pytest.mark.slow)])
def test_two_processes_at_once_agree_and_compute_once_where_there_are_locks(tmp_path: Path, locks: str, expected: int):
    processes = [start(tmp_path, locks) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        go(process)
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    answers = [json.loads(output) for output, _ in results]
    assert answers[0][1] == answers[1][1]
    assert sum(passes for passes, _ in answers) == expected
    (entry,) = entries(tmp_path)
    assert not list(entry.glob(".partial-*"))


@pytest.mark.slow
def test_a_killed_process_frees_the_lock_and_its_leftovers_go(tmp_path: Path):
    first, second = start(tmp_path), start(tmp_path)
    assert [process.stdout.readline() for process in (first, second)] == ["ready\n"] * 2
    go(first)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("features/*/.partial-*")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.communicate()
    (entry,) = entries(tmp_path)
    assert list(entry.glob(".partial-*"))
    go(second)
    output, _ = second.communicate(timeout=120)
    assert json.loads(output)[0] == 1
    assert sorted(path.name for path in entry.iterdir()) == ["0.json", "0.npy", "2.json", "2.npy", "lock"]


@pytest.mark.parametrize("has_locks", [True, False])
def test_systems_without_locks_still_write_whole_files(
    network: StagedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool
):
    if not has_locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    images = pictures()
    cached_features(network, images, folder=tmp_path)
    other = cached_features(network, images, folder=tmp_path, verify=False)
    np.testing.assert_array_equal(other["features.1"], extract(network, images)["features.1"])
