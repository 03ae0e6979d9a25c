"""The bench. Oracles: the binomial expectation in closed form, the definitions by hand, networks that are the same function."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pulvinar.app import deploy_bench
from pulvinar.cli import main
from pulvinar.core.errors import InputError
from pulvinar.deploy import runtimes
from pulvinar.deploy.bench import BenchSettings, Timing, _rows, bench, promised_share
from pulvinar.deploy.compact import CompactNetwork, compact_to, dense_network
from pulvinar.deploy.files import save
from pulvinar.deploy.image_pool import image_pool
from pulvinar.deploy.runtimes import make_runner

FAST = ("torch eager", "torch packed")


def some_dropped(model, images, *, missing: int = 6) -> CompactNetwork:
    """Channels dropped that only the first images open."""
    opened = [logits >= 0 for logits in model(images, gated=True).logits]
    return compact_to(model, [part[missing:].any(0).nonzero()[:, 0] for part in opened])


@pytest.fixture
def made(make_network, make_images):
    model, images = make_network("resnet18", seed=0).float(), make_images(60).float()
    images[6:] = 0.9 * images[6] + 0.1 * images[6:]  # alike, so that the first six alone ask for some channels
    with torch.no_grad():
        return model, some_dropped(model, images), images


def timing(form: str, seconds: dict[int, list[float]], *, runtime: str = "torch eager", batch: int = 4) -> Timing:
    values = {k: np.array(value) for k, value in seconds.items()}
    return Timing(runtime=runtime, form=form, batch=batch, seconds=values, flips=0, max_relative_difference=0.0)


def test_time_at_a_miss_rate_is_the_binomial_expectation():
    linear = timing("compact", {0: [1.0, 2.0], 1: [1.5, 2.5], 4: [3.0, 4.0]})  # 1 + k / 2: the mean is at the mean of k
    assert linear.at(0.0).tolist() == [1.0, 2.0]
    np.testing.assert_allclose(linear.at(0.1), [1 + 0.5 * 0.4, 2 + 0.5 * 0.4])
    once = timing("compact", {0: [1.0], 1: [3.0], 4: [3.0]})  # any miss costs the same: 1 - (1 - r)^4 of batches
    np.testing.assert_allclose(once.at(0.1), [1 + 2 * (1 - 0.9**4)])


def test_rows_are_the_definitions():
    timings = [
        timing("dense", {0: [8.0, 10.0, 12.0]}),
        timing("compact", {0: [4.0, 5.0, 6.0], 1: [6.0, 7.0, 8.0], 4: [12.0, 13.0, 14.0]}),
        timing("dense", {0: [5.0, 5.0, 5.0]}, runtime="onnxruntime"),
        timing("dense", {0: [1.0, 1.0, 1.0]}, runtime="openvino bf16"),
    ]
    shares = {("dense", 4): (1.0, 1.0), ("compact", 4): (0.4, 0.6)}
    rows = _rows(timings, shares, 0.3, BenchSettings(miss_rates=(0.0, 0.1)))
    row = next(row for row in rows if row["form"] == "compact" and row["miss_rate"] == 0)
    assert (row["milliseconds"], row["lower_quartile"], row["upper_quartile"]) == (5000, 4500, 5500)
    assert row["runtime_efficiency"] == pytest.approx((10 / 5) * 0.4)
    assert row["realised_share"] == pytest.approx((1 - 0.5) / (1 - 0.3))
    assert row["realised_share_fastest"] == pytest.approx(0)  # the dense network of the fastest float32 runtime takes as long
    missing = next(row for row in rows if row["form"] == "compact" and row["miss_rate"] == 0.1)
    assert missing["milliseconds"] == pytest.approx(5000 + 2000 * 0.4)
    assert missing["mac_share"] == pytest.approx(0.42)
    assert [row["runtime_efficiency_fastest"] for row in rows if row["runtime"] == "openvino bf16"] == [1.0]


def test_promise_is_the_share_of_the_gated_pass(made):
    model, network, images = made
    assert promised_share(network, images) == pytest.approx(model(images, gated=True).hard_share.item(), rel=1e-5)


@pytest.mark.slow
def test_pool_keeps_those_that_miss_apart_and_makes_some_where_they_are_few(made):
    model, network, images = made
    pool = image_pool(network, images)
    missed = torch.stack(network.inspect(images).misses).any(0)
    assert torch.equal(pool.hits, images[~missed])
    assert 0 < int(missed.sum()) < 8
    assert pool.made_misses == len(pool.missed) - int(missed.sum()) > 0
    assert torch.stack(network.inspect(pool.missed).misses).any(0).all()
    for k in (0, 1, 3, 8):
        assert int(torch.stack(network.inspect(pool.batch(8, k, 5)).misses).any(0).sum()) == k
    everything = compact_to(model, [torch.arange(n) for n in model.shape.gate_channels])
    assert len(image_pool(everything, images).missed) == 0
    with pytest.raises(InputError, match="all 60 ask for dropped channels"):
        image_pool(compact_to(model, [torch.arange(0) for _ in model.shape.gate_channels]), images)


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["torch eager", "torch packed", "onnxruntime", "openvino f32"])
def test_runtimes_compute_the_network_misses_included(runtime, made):
    if runtime in ("onnxruntime", "openvino f32"):
        pytest.importorskip(runtimes.library(runtime))
    model, network, images = made
    expected = model(images[:8], gated=True)
    for form in (network, network.masked()):
        runner = make_runner(runtime, form, batch=8, threads=1)
        features, opened = runner.read(runner.run(runner.prepare(images[:8])))
        np.testing.assert_allclose(features, expected.features.detach().numpy(), rtol=1e-3, atol=1e-4)
        assert np.array_equal(opened, torch.cat(expected.gates, 1).bool().numpy())


COMPILED = """
import torch
from pulvinar.deploy.compact import compact_to
from pulvinar.deploy.runtimes import UnavailableError, make_runner
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

generator = torch.Generator().manual_seed(0)
model = GatedResNet(resnet_shape("resnet18", size=16, width=0.125), size=16).initialise(generator).eval()
images = torch.randn(8, 3, 16, 16, generator=generator)
expected = model(images, gated=True)
network = compact_to(model, [(gate[2:] > 0).any(0).nonzero()[:, 0] for gate in expected.gates])
assert 0 < int(torch.stack(network.inspect(images).misses).any(0).sum()) < 8
try:
    for form in (network, network.dense()):
        runner = make_runner("torch compile", form, batch=8, threads=1)
        features, _ = runner.read(runner.run(runner.prepare(images)))
        wanted = expected.features if form is network else form(images)
        torch.testing.assert_close(torch.from_numpy(features), wanted.detach(), rtol=1e-4, atol=1e-5)
except UnavailableError as error:
    print("unavailable:", error)
"""


@pytest.mark.slow
def test_compiled_graphs_compute_the_network_misses_included():
    """In a process of its own: what tests wrap around functions to check shapes cannot be traced."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("unavailable"):
        pytest.skip(done.stdout)


@pytest.mark.long
def test_bench_has_a_row_for_every_form_and_miss_rate(made):
    _, network, images = made
    before = torch.get_num_threads()
    found = bench(network, images, BenchSettings(batches=(4,), runtimes=FAST, repeats=3))
    kinds = [(row["runtime"], row["form"], row["batch"], row["miss_rate"]) for row in found.rows]
    assert len(set(kinds)) == len(kinds) == 2 * (2 + 3) + 3
    assert {row["max_relative_difference"] < 1e-4 for row in found.rows} == {True}
    assert all(row["lower_quartile"] <= row["milliseconds"] <= row["upper_quartile"] for row in found.rows)
    compact = next(row for row in found.rows if row["form"] == "compact")
    assert compact["mac_share"] == pytest.approx(network.macs.share)
    assert compact["promised_mac_share"] == found.facts["promised_mac_share"]
    assert torch.get_num_threads() == before
    json.dumps(found.as_dict())


@pytest.mark.slow
def test_a_missing_runtime_is_skipped_with_the_reason(made, monkeypatch):
    _, network, images = made
    found = runtimes.find_spec
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "openvino" else found(name))
    made_rows = bench(network, images, BenchSettings(batches=(2,), runtimes=("torch eager", "openvino f32"), repeats=3))
    assert {row["runtime"] for row in made_rows.rows} == {"torch eager"}
    assert [(note["runtime"], note["form"]) for note in made_rows.skipped] == [
        ("openvino f32", form) for form in ("dense", "masked", "compact")
    ]
    assert "pip install 'pulvinar[deploy]'" in made_rows.skipped[0]["reason"]


def test_what_cannot_be_timed_is_refused(made, make_network):
    _, network, images = made
    with pytest.raises(InputError, match="dense form has no gates"):
        bench(dense_network(make_network("resnet18").float()), images)
    with pytest.raises(InputError, match=r"threads: 1 or more, not 0; .*repeats: 3 or more.*'tensorrt' is none of"):
        bench(network, images, BenchSettings(threads=0, repeats=1, runtimes=("tensorrt",)))


@pytest.mark.slow
def test_command_times_a_folder_and_writes_table_and_figure(made, tmp_path, capsys):
    _, network, images = made
    save(tmp_path / "net", network)
    pixels = (images - images.amin()) / (images.amax() - images.amin())
    np.savez(
        tmp_path / "images.npz",
        **{
            side: (255 * part).byte().permute(0, 2, 3, 1).numpy()
            for side, part in zip(("x_train", "x_test"), pixels.split(30), strict=True)
        },
    )
    given = ["deploy", "bench", str(tmp_path / "net"), "--data", str(tmp_path / "images.npz"), "--batch", "2", "--repeats", "3"]
    assert main([*given, "--runtimes", "torch eager", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    needed = {"runtime", "form", "batch", "threads", "milliseconds", "mac_share", "runtime_efficiency", "realised_share"}
    needed |= {"miss_rate", "flips", "max_relative_difference", "lower_quartile", "realised_share_fastest"}
    assert all(needed <= set(row) for row in result["rows"])
    folder = tmp_path / "net" / "bench"
    with (folder / "bench.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(result["rows"])
    assert json.loads((folder / "bench.json").read_text())["images"].startswith("test images of")
    with Image.open(folder / "bench.png") as picture:
        assert picture.width > 1000
    assert main([*given, "--quiet"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*given, "--out", str(tmp_path / "b"), "--runtimes", "tensorrt"]) == 2
    assert "'tensorrt' is none of" in capsys.readouterr().err


@pytest.mark.slow
def test_without_images_it_times_on_noise_and_says_so(made, tmp_path, capsys):
    _, network, _ = made
    every = network.with_kept([torch.arange(n) for n in network.shape.gate_channels], "compact")
    save(tmp_path / "net", every)
    given = ["deploy", "bench", str(tmp_path / "net"), "--batch", "2", "--repeats", "3", "--runtimes", "torch eager"]
    assert main([*given, "--size", "24"]) == 0
    shown = capsys.readouterr()
    assert "timed on noise" in shown.err
    assert "24 pixels, noise" in shown.out


def test_every_block_of_a_narrow_table_tells_its_rows_apart(monkeypatch):
    """By runtime, form, batch and misses; oracle: rows that differ in misses alone."""
    monkeypatch.setenv("COLUMNS", "60")
    row = {"runtime": "torch eager", "form": "compact", "batch": 1, "milliseconds": 1.0, "mac_share": 0.73, "flips": 0}
    row |= dict.fromkeys(("lower_quartile", "upper_quartile", "runtime_efficiency", "realised_share"), 1.0)
    row |= dict.fromkeys(("realised_share_fastest", "max_relative_difference"), 0.5)
    result = {"rows": [{**row, "miss_rate": share} for share in (0.0, 0.01)], "skipped": [], "threads": 1, "size": 16}
    result |= {"settings": {"clock": "wall"}, "images": "noise", "promised_mac_share": 0.3, "folder": "net/bench"}
    blocks = deploy_bench.as_text(result).split("\n\n")[:-1]
    assert len(blocks) > 1
    for block in blocks:
        rows = [line.split()[:5] for line in block.splitlines() if line.startswith("torch")]
        assert rows == [["torch", "eager", "compact", "1", misses] for misses in ("0", "1")]
