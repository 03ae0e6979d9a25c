"""`pulvinar deploy` from a run to files that plain runtimes read, and what it refuses."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from pulvinar.cli import main
from pulvinar.learning.backbone_runs import load_backbone, save_backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.resnet_shape import resnet_shape

SIZE = 16


def write_images(path, *, n_train=120, n_test=40, size=SIZE):
    generator = np.random.default_rng(0)
    arrays = {}
    for side, n in (("train", n_train), ("test", n_test)):
        coarse = generator.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        arrays[f"x_{side}"] = coarse.repeat(size // 4, 1).repeat(size // 4, 2)
        arrays[f"y_{side}"] = np.arange(n) % 2
    np.savez(path, **arrays, class_names=np.array(["a", "b"]))
    return str(path)


def write_run(path, *, method="dual_gating", passes=("dense", "gated"), **options):
    shape = resnet_shape("resnet18", size=SIZE, width=0.125, **options)
    network = GatedResNet(shape, size=SIZE, passes=passes, gate_bias=0.0)
    network.initialise(torch.Generator().manual_seed(2)).eval()
    run = RunFolder.create(path, method=method, config_toml="", seed=0, data={}, topic="self_supervised")
    save_backbone(run, network, ViewSettings(mean=(0.4, 0.5, 0.6), sd=(0.3, 0.2, 0.25)))
    run.finish()
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A gated run, its images, and what `deploy compact` made of them."""
    folder = tmp_path_factory.mktemp("deploy")
    images, run, net = write_images(folder / "images.npz"), write_run(folder / "run"), str(folder / "net")
    assert main(["deploy", "compact", run, "--calibrate", images, "--out", net, "--rare", "0.1", "--quiet"]) == 0
    return folder, run, images, net


def result_of(capsys, *arguments):
    assert main(["deploy", *arguments, "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["deploy", *arguments, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.long
def test_the_files_equal_the_run_on_pixels(made, tmp_path, capsys):
    """Oracle: the gated pass of the run itself. What comes out of plain onnxruntime from pixels in [0, 1] is its features."""
    folder, run, images, net = made
    files = {name: str(tmp_path / f"{name}.onnx") for name in ("compact", "masked", "int8")}
    outputs = ("--onnx", files["compact"], "--masked", files["masked"], "--int8", files["int8"])
    result = result_of(capsys, "export", net, *outputs)
    assert set(result["files"]) == {"onnx", "masked", "int8"}
    assert result["files"]["int8"]["mean_cosine"] > 0.9
    backbone = load_backbone(RunFolder.reopen(run))
    tested = np.load(images)["x_test"]
    wanted = backbone.network(plain_view(torch.from_numpy(tested), backbone.views), gated=True).features.detach().numpy()
    pixels = (tested.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    for name in ("compact", "masked"):
        found = onnxruntime.InferenceSession(files[name]).run(["features"], {"images": pixels})[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    misses = onnxruntime.InferenceSession(files["compact"]).run(["misses"], {"images": pixels})[0]
    assert misses.any()
    held_out = json.loads((folder / "net" / "config.json").read_text())["facts"]["held_out"]
    assert held_out["misses"] == misses.sum(0).tolist()
    assert held_out["missed_images"] == misses.any(1).sum()


@pytest.mark.long
def test_what_is_kept_and_missed_is_told(made, tmp_path, capsys):
    _, run, images, _ = made
    result = result_of(capsys, "compact", run, "--calibrate", images, "--out", str(tmp_path / "net"), "--multiple", "2")
    assert len(result["kept"]) == 8
    assert all(kept % 2 == 0 and kept <= n for kept, n in zip(result["kept"], result["channels"], strict=True))
    assert 0 < result["promised_mac_share"] < result["mac_share"] < 1.1
    assert result["calibration"]["n_images"] == 120
    assert result["held_out"]["n_images"] == 40
    assert main(["deploy", "compact", run, "--calibrate", images, "--out", str(tmp_path / "other"), "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "120 calibration images: about" in text
    assert "held-out images:" in text
    assert ("fix_gates" in text) == (result["mac_share"] > result["promised_mac_share"] + 0.05)


def test_static_masks_and_networks_without_gates(made, tmp_path, capsys):
    """Oracles: the run's own passes; the static mask has the share that was asked for, from below."""
    _, run, images, _ = made
    static = result_of(
        capsys, "compact", run, "--calibrate", images, "--out", str(tmp_path / "a"), "--form", "static", "--share", "0.5"
    )
    assert static["form"] == "static"
    assert 0.45 < static["mac_share"] <= 0.5
    dense = write_run(tmp_path / "dense", method="dense_ssl", passes=("dense",))
    folded = result_of(capsys, "compact", dense, "--out", str(tmp_path / "b"), "--form", "folded")
    assert (folded["form"], folded["kept"], folded["mac_share"]) == ("dense", None, 1.0)
    file = str(tmp_path / "b.onnx")
    result_of(capsys, "export", str(tmp_path / "b"), "--onnx", file)
    backbone = load_backbone(RunFolder.reopen(dense))
    tested = np.load(images)["x_test"]
    wanted = backbone.network(plain_view(torch.from_numpy(tested), backbone.views)).features.detach().numpy()
    pixels = (tested.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    found = onnxruntime.InferenceSession(file).run(None, {"images": pixels})[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_compact_refuses_what_does_not_fit_before_anything_is_written(made, tmp_path, capsys):
    _, run, images, net = made
    out = ("--out", str(tmp_path / "new"))
    dense = write_run(tmp_path / "dense", method="dense_ssl", passes=("dense",))
    assert "run of dense_ssl, which has no gates" in refused(capsys, "compact", dense, "--calibrate", images, *out)
    assert "--form folded" in refused(capsys, "compact", dense, "--calibrate", images, *out)
    other = write_images(tmp_path / "other.npz", size=24)
    assert "24 pixels" in refused(capsys, "compact", run, "--calibrate", other, *out)
    few = write_images(tmp_path / "few.npz", n_train=30)
    error = refused(capsys, "compact", run, "--calibrate", few, *out)
    assert "30 images came, 100 or more" in error
    assert "(10% with 30)" in error
    assert "--calibrate: images to calibrate on are needed" in refused(capsys, "compact", run, *out)
    assert "exists already" in refused(capsys, "compact", run, "--calibrate", images, "--out", net)
    assert "rare" in refused(capsys, "compact", run, "--calibrate", images, "--rare", "1.5", *out)
    assert "--share" in refused(capsys, "compact", run, "--calibrate", images, "--form", "static", "--share", "2", *out)
    assert "multiple" in refused(capsys, "compact", run, "--calibrate", images, "--multiple", "0", *out)
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".partial-*"))


def test_export_refuses_what_does_not_fit_before_anything_is_written(made, tmp_path, capsys):
    _, run, images, net = made
    there = tmp_path / "there.onnx"
    there.write_text("mine")
    new = str(tmp_path / "new.onnx")
    assert "nothing is asked for" in refused(capsys, "export", net)
    assert "exists already" in refused(capsys, "export", net, "--onnx", new, "--masked", str(there))
    assert there.read_text() == "mine"
    assert "two files of one name" in refused(capsys, "export", net, "--onnx", new, "--masked", new)
    assert "is a run" in refused(capsys, "export", run, "--onnx", new)
    other = write_images(tmp_path / "other.npz", size=24)
    assert "24 pixels" in refused(capsys, "export", net, "--int8", new, "--calibrate", other)
    static = str(tmp_path / "static")
    assert main(["deploy", "compact", run, "--calibrate", images, "--out", static, "--form", "static", "--quiet"]) == 0
    capsys.readouterr()
    assert "no masked or compact form" in refused(capsys, "export", static, "--onnx", new, "--masked", str(tmp_path / "m.onnx"))
    assert not (tmp_path / "new.onnx").exists()


@pytest.mark.long
@pytest.mark.parametrize("options", [{"levels": (0.0, 0.25, 0.5, 1.0)}, {"routes": 3}], ids=["levels", "routes"])
def test_levels_and_routes_from_a_run_to_files(options, made, tmp_path, capsys):
    """Oracle: the gated pass of the run itself, on the test images; shares of the options counted there."""
    images = made[2]
    run, form = write_run(tmp_path / "run", **options), "routes" if "routes" in options else "levels"
    result = result_of(capsys, "compact", run, "--calibrate", images, "--out", str(tmp_path / "net"))
    assert result["form"] == form
    backbone = load_backbone(RunFolder.reopen(run))
    tested = np.load(images)["x_test"]
    with torch.no_grad():
        wanted = backbone.network(plain_view(torch.from_numpy(tested), backbone.views), gated=True)
    assert result["mac_share"] == pytest.approx(float(wanted.hard_share), abs=1e-6)
    assert [sum(shares) for shares in result["choices"]["shares"]] == pytest.approx([1.0] * (1 if form == "routes" else 8))
    for name, flags in (("any", ()), ("one", ("--one-image",))):
        file = str(tmp_path / f"{name}.onnx")
        result_of(capsys, "export", str(tmp_path / "net"), "--onnx", file, *flags)
        pixels = (tested[:3].transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
        session = onnxruntime.InferenceSession(file)
        parts = pixels[:, None] if name == "one" else [pixels]
        found = np.concatenate([session.run(["features"], {"images": part})[0] for part in parts])
        np.testing.assert_allclose(found, wanted.features[:3], rtol=1e-4, atol=1e-5)
    assert main(["deploy", "compact", run, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert f"{form}, {len(result['kept'][0])} pieces of 8 blocks" in capsys.readouterr().out


def test_what_levels_and_routes_cannot_be_is_refused(made, tmp_path, capsys):
    run, net = write_run(tmp_path / "run", routes=2), str(tmp_path / "net")
    assert "the gates of this run choose for --form routes; gated came" in refused(
        capsys, "compact", run, "--form", "gated", "--calibrate", made[2], "--out", net
    )
    assert "choose for --form gated; levels came" in refused(capsys, "compact", made[1], "--form", "levels", "--out", net)
    assert main(["deploy", "compact", run, "--out", net, "--quiet"]) == 0
    flags = ("--onnx", str(tmp_path / "a.onnx"), "--no-fallback", "--any-size")
    assert "holds a network in pieces, for which there are --onnx and --masked, not --no-fallback, --any-size" in refused(
        capsys, "export", net, *flags
    )
    assert "not --int8" in refused(capsys, "export", net, "--int8", str(tmp_path / "a.onnx"))
    assert "--one-image is for levels and routes" in refused(capsys, "export", made[3], "--onnx", "b.onnx", "--one-image")


@pytest.mark.slow
def test_a_network_in_pieces_is_timed(made, tmp_path, capsys):
    run, net = write_run(tmp_path / "run", levels=(0.25, 1.0)), str(tmp_path / "net")
    assert main(["deploy", "compact", run, "--calibrate", made[2], "--out", net, "--quiet"]) == 0
    flags = ("--batch", "1", "4", "--repeats", "3", "--runtimes", "torch eager", "onnxruntime")
    capsys.readouterr()
    result = result_of(capsys, "bench", net, *flags)
    rows = {(row["runtime"], row["form"], row["batch"]): row for row in result["rows"]}
    assert set(rows) == {
        (r, f, b) for r in ("torch eager", "onnxruntime") for f in ("dense", "masked", "levels") for b in (1, 4)
    }
    assert all(row["milliseconds"] > 0 and row["max_relative_difference"] < 1e-5 for row in rows.values())
    row, dense = rows["onnxruntime", "levels", 1], rows["onnxruntime", "dense", 1]
    assert row["speed_up"] == pytest.approx(dense["milliseconds"] / row["milliseconds"])
    share = result["promised_mac_share"]
    assert row["realised_share"] == pytest.approx((1 - 1 / row["speed_up"]) / (1 - share))
    assert row["mac_share"] == share < 1


@pytest.mark.slow
def test_accuracy_against_time_of_several_runs(made, tmp_path, capsys):
    """Oracles: neighbours of the run's own features in torch; every ratio against the first dense network."""
    routes, dense = write_run(tmp_path / "routes", routes=2), write_run(tmp_path / "dense", passes=("dense",))
    out = str(tmp_path / "out")
    flags = ("--data", made[2], "--out", out, "--repeats", "3")
    result = result_of(capsys, "pareto", routes, dense, *flags)
    forms = [(row["run"], row["form"]) for row in result["rows"]]
    own = [("routes", form) for form in ("routes", "dense", "dense int8", "static", "static int8")]
    assert forms == [*own, ("dense", "dense"), ("dense", "dense int8")]
    rows = dict(zip(forms, result["rows"], strict=True))
    assert rows["routes", "dense"]["ratio"] == 1
    assert rows["routes", "static"]["macs"] <= rows["routes", "routes"]["macs"] < rows["routes", "dense"]["macs"]
    images, backbone = np.load(made[2]), load_backbone(RunFolder.reopen(routes))
    for form, gated in (("dense", False), ("routes", True)):
        with torch.no_grad():
            bank, queries = (
                backbone.network(plain_view(torch.from_numpy(images[f"x_{side}"]), backbone.views), gated=gated).features
                for side in ("train", "test")
            )
        right = images["y_train"][torch.cdist(queries, bank).argmin(1)] == images["y_test"]
        assert rows["routes", form]["knn"] == pytest.approx(right.mean(), abs=1 / 40)
    front = [row for row in result["rows"] if row["on_front"]]
    assert max(row["linear"] for row in result["rows"]) in [row["linear"] for row in front]
    assert min(row["ratio"] for row in result["rows"]) in [row["ratio"] for row in front]
    assert set(rows["routes", "routes"]["linear_minus_static"]) >= {"difference", "low", "high"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"pareto.csv", "pareto.json", "pareto.png"}
    assert "exists" in refused(capsys, "pareto", dense, *flags)
