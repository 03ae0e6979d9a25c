"""Exports: what plain runtimes make of the files."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from jaxtyping import TypeCheckError
from onnx import helper

from pulvinar.core.errors import FileError, InputError
from pulvinar.deploy import onnx_files
from pulvinar.deploy.compact import compact, compact_to, dense_network, static_network
from pulvinar.deploy.dynamic import DynamicNetwork
from pulvinar.deploy.onnx_files import check_runs, export_int8, export_onnx, export_program, onnx_model, run_with
from pulvinar.networks.gates import Gate

KINDS = [("resnet18", "conv2"), ("resnet50", "conv1"), ("resnet50", "both")]


def pixels(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((n, 3, 2, 2), np.float32)
    return np.repeat(np.repeat(coarse, size // 2, 2), size // 2, 3)


def normalised(network, images: np.ndarray) -> torch.Tensor:
    mean, sd = (torch.tensor(values)[:, None, None] for values in (network.mean, network.sd))
    return (torch.from_numpy(images) - mean) / sd


def features(network, images: np.ndarray) -> np.ndarray:
    return network(normalised(network, images)).numpy()


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "gated_convs"), [KINDS[0], *[pytest.param(*kind, marks=pytest.mark.slow) for kind in KINDS[1:]]]
)
def test_files_with_the_fallback_equal_torch_at_any_batch(network, gated_convs, make_network):
    """Oracle: the torch form. Gates that keep nothing, drop nothing, and batches of which some images miss."""
    model = make_network(network, gated_convs=gated_convs).float()
    generator = torch.Generator().manual_seed(3)
    kept = [torch.randperm(n, generator=generator)[: n // 2] for n in model.shape.gate_channels]
    kept[0], kept[-1], kept[2] = kept[0][:0], torch.arange(model.shape.gate_channels[-1]), kept[2][:0]
    made = compact_to(model, kept)
    made.mean = (0.4, 0.5, 0.6)
    images = pixels(9)
    expected = features(made, images)
    for runtime, variant in (("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("onnxruntime", "openvino")):
        run = run_with(onnx_model(made, runtime=variant).SerializeToString(), runtime)
        for n in (9, 1, 4):
            np.testing.assert_allclose(run(images[:n])["features"], expected[:n], rtol=1e-5, atol=2e-6)
    assert run(images)["misses"][:, :-1].any()
    assert not run(images)["misses"][:, -1].any()


@pytest.mark.long
@pytest.mark.parametrize("n_fixed", [2, 8])
def test_files_of_fixed_gates_have_no_branch_and_say_the_same(n_fixed, make_network, make_images):
    """Oracle: the torch form, with the gates of the first blocks fixed, and of all."""
    model = make_network("resnet18").float()
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    for gate in gates[:n_fixed]:
        gate.fixed.copy_(torch.tensor([1.0, -1.0]).repeat(len(gate.fixed))[: len(gate.fixed)])
    made = compact(model, make_images(100).float(), rare=0.3)
    images = pixels(9)
    for runtime in ("onnxruntime", "openvino"):
        exported = onnx_model(made, runtime=runtime)
        kinds = [node.op_type for node in exported.graph.node]
        live = sum(bool(len(dropped)) for dropped in made.dropped[n_fixed:])
        assert kinds.count("If") == live
        found = run_with(exported.SerializeToString(), runtime)(images)
        np.testing.assert_allclose(found["features"], features(made, images), rtol=1e-5, atol=2e-6)
        inspected = made.inspect(normalised(made, images))
        assert np.array_equal(found["logits"] >= 0, torch.cat(inspected.logits, 1).numpy() >= 0)
        assert np.array_equal(found["misses"], torch.stack(inspected.misses, 1).numpy())
        assert live > 0 or n_fixed == 8


def test_a_pooled_stem_and_a_gate_that_keeps_nothing(make_network):
    """Oracle: the torch form. The constant maps of an empty gate need the side of the maps behind the pooling."""
    model = make_network("resnet18", stem="imagenet", size=32).float()
    made = compact_to(model, [torch.arange(0), *[torch.arange(0, n, 2) for n in model.shape.gate_channels[1:]]])
    for variant in ("onnxruntime", "openvino"):
        found = run_with(onnx_model(made, runtime=variant).SerializeToString(), variant)(pixels(5, 32))["features"]
        np.testing.assert_allclose(found, features(made, pixels(5, 32)), rtol=1e-5, atol=2e-6)


def test_the_file_is_found_by_names_and_by_order(tmp_path, make_network, make_images):
    """What a user without pulvinar does: plain onnxruntime, input `images`, first output `features`."""
    model = make_network("resnet18").float()
    made = compact(model, make_images(100).float(), rare=0.2)
    files = [export_onnx(made, tmp_path / "a.onnx"), export_onnx(made.masked(), tmp_path / "b.onnx")]
    images = pixels(8)
    compacted, masked = (onnxruntime.InferenceSession(file["file"]) for file in files)
    found, wanted = (session.run(["features"], {"images": images})[0] for session in (compacted, masked))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)
    assert [output.name for output in compacted.get_outputs()] == ["features", "logits", "misses"]
    assert compacted.get_inputs()[0].shape == ["batch", 3, 16, 16]
    misses = compacted.run(["misses"], {"images": images})[0]
    logits = compacted.run(["logits"], {"images": images})[0]
    asked = [
        (part[:, dropped.numpy()] >= 0).any(1)
        for part, dropped in zip(np.split(logits, np.cumsum(model.shape.gate_channels)[:-1], axis=1), made.dropped, strict=True)
    ]
    assert np.array_equal(misses, np.stack(asked, 1))
    assert misses.any()
    said = compacted.get_modelmeta().custom_metadata_map
    assert json.loads(said["calibration"])["n_images"] == 100
    assert "warning" not in said
    with pytest.raises(FileError, match="exists already"):
        export_onnx(made, tmp_path / "a.onnx")


def test_no_weight_is_twice_in_the_file(make_network):
    """The compact file holds as many convolution weights as the masked one; what `If` computes included."""
    model = make_network("resnet50", gated_convs="conv2").float()
    made = compact_to(model, [torch.arange(0, n, 3) for n in model.shape.gate_channels])

    def n_weights(graph: onnx.GraphProto) -> int:
        own = sum(
            int(np.prod(weight.dims)) for weight in graph.initializer if len(weight.dims) == 4 and max(weight.dims[:2]) > 3
        )
        return own + sum(n_weights(attribute.g) for node in graph.node for attribute in node.attribute if attribute.g.node)

    assert n_weights(onnx_model(made).graph) == n_weights(onnx_model(made.masked()).graph) > 10_000


def test_without_the_fallback_the_file_says_so(tmp_path, make_network, make_images):
    model = make_network("resnet18").float()
    made = compact(model, make_images(100).float(), rare=0.2).no_fallback()
    file = export_onnx(made, tmp_path / "a.onnx")
    assert file["fallback"] is False
    session = onnxruntime.InferenceSession(file["file"])
    warning = session.get_modelmeta().custom_metadata_map["warning"]
    assert f"about {100 * made.calibration['miss_rate']:.2f} % of images" in warning
    assert not any(node.op_type == "If" for node in onnx.load(file["file"]).graph.node)
    np.testing.assert_allclose(
        session.run(["features"], {"images": pixels(4)})[0], features(made, pixels(4)), rtol=1e-5, atol=2e-6
    )


def test_static_and_dense_forms_have_features_alone(make_network):
    model = make_network("resnet18").float()
    made = static_network(model, [torch.arange(n // 2) for n in model.shape.gate_channels])
    found = run_with(onnx_model(made).SerializeToString(), "onnxruntime")(pixels(3))
    assert list(found) == ["features"]
    np.testing.assert_allclose(found["features"], features(made, pixels(3)), rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_a_program_of_torch_export_computes_the_same_from_pixels(tmp_path, make_network):
    model = make_network("resnet18").float()
    made = compact_to(model, [torch.arange(0, n, 2) for n in model.shape.gate_channels])
    file = export_program(made, tmp_path / "net.pt2")
    program = torch.export.load(file["file"]).module()
    for n in (1, 5):
        found = program(torch.from_numpy(pixels(n))).numpy()
        np.testing.assert_allclose(found, features(made, pixels(n)), rtol=1e-5, atol=2e-6)
    with pytest.raises(FileError, match="exists already"):
        export_program(made, tmp_path / "net.pt2")
    with pytest.raises(InputError, match=r"\.pt2"):
        export_program(made, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


@pytest.mark.long
def test_int8_is_smaller_and_says_how_far_off_it_is(tmp_path, make_network, make_images):
    model = make_network("resnet18", width=0.5).float()
    made = compact(model, make_images(100).float())
    result = export_int8(made, tmp_path / "int8.onnx", pixels(32))
    assert result["bytes"] < 0.6 * len(onnx_model(made).SerializeToString())
    found = onnxruntime.InferenceSession(result["file"]).run(["features"], {"images": pixels(32)})[0]
    wanted = features(made, pixels(32))
    cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert result["mean_cosine"] == pytest.approx(cosines.mean(), abs=1e-4)
    assert cosines.mean() > 0.9
    assert 0 < result["mean_relative_difference"] < 0.5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_operator_that_a_runtime_lacks_is_refused_with_a_way_out(runtime):
    node = helper.make_node("Imagined", ["images"], ["features"], domain="nobody.has.it")
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 16, 16]) for name in ("images", "features")
    ]
    graph = helper.make_graph([node], "none", values[:1], values[1:])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("nobody.has.it", 1)]
    content = helper.make_model(graph, opset_imports=domains, ir_version=9).SerializeToString()
    with pytest.raises(InputError, match=rf"(?s){runtime} .* cannot run this graph.*Imagined.*--no-fallback"):
        check_runs(content, runtime, size=16)


def test_only_float32_is_exported(make_network):
    model = make_network("resnet18")
    made = compact_to(model, [torch.arange(n) for n in model.shape.gate_channels])
    with pytest.raises(InputError, match=r"float32 weights.*float64"):
        onnx_model(made)


WRONG = {
    "0 to 255": lambda images: images * 255,
    "a little too bright": lambda images: one_pixel(images, 1.01),
    "normalised": lambda images: (images - 0.5) / 0.25,
    "nan": lambda images: one_pixel(images, np.nan),
    "infinite": lambda images: one_pixel(images, np.inf),
}


def one_pixel(images: np.ndarray, value: float) -> np.ndarray:
    images = images.copy()
    images[:, 1, 3, 5] = value
    return images


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", pytest.param("torch.export", marks=pytest.mark.slow)])
def test_images_that_are_not_in_0_to_1_give_nan_and_no_other_row(runtime, make_network, tmp_path):
    """ONNX cannot refuse; a file that took 0 to 255 would give features of nothing. The right rows stay as they were."""
    network = compact_to(
        make_network("resnet18").float(), [torch.arange(n // 2) for n in make_network("resnet18").shape.gate_channels]
    )
    images = pixels(4) + np.float32(1e-3) * (pixels(4) - 0.5)  # rounding beyond the range is no error
    run = _plain(network, runtime, tmp_path)
    expected = run(images)
    assert all(np.isfinite(values).all() for values in expected.values())
    for name, spoil in WRONG.items():
        given = images.copy()
        given[[0, 2]] = spoil(images[[0, 2]]).astype(np.float32)
        for output, values in run(given).items():
            if values.dtype.kind == "f":
                assert np.isnan(values[[0, 2]]).all(), (name, output)
                np.testing.assert_allclose(values[[1, 3]], expected[output][[1, 3]], rtol=1e-5, atol=2e-6)


def _plain(network, runtime: str, folder):
    """The file in a runtime without our checks: images -> outputs."""
    if runtime == "torch.export":
        export_program(network, folder / "net.pt2")
        program = torch.export.load(folder / "net.pt2").module()
        return lambda images: {"features": program(torch.from_numpy(images)).numpy()}
    return onnx_files._loaded(onnx_model(network, runtime=runtime).SerializeToString(), runtime, 1)


def test_our_own_runner_refuses_them(make_network):
    run = run_with(onnx_model(dense_network(make_network("resnet18").float())).SerializeToString(), "onnxruntime")
    images = pixels(3)
    assert np.isfinite(run(images.astype(np.float64))["features"]).all()
    for spoil in WRONG.values():
        with pytest.raises(InputError, match=r"images: pixels in \[0, 1\] are needed"):
            run(spoil(images).astype(np.float32))
    with pytest.raises(InputError, match=r"uint8 \(3, 3, 16, 16\) came; divide by 255"):
        run((images * 255).astype(np.uint8))
    with pytest.raises(InputError, match=r"channels come second: x\.transpose\(0, 3, 1, 2\)"):
        run(images.transpose(0, 2, 3, 1))


def test_networks_for_use_refuse_what_no_normalisation_leaves(make_network):
    network = dense_network(make_network("resnet18").float())
    images = torch.from_numpy(pixels(2))
    for wrong in (images * 255, (images * 255).to(torch.uint8), images.permute(0, 2, 3, 1), images * torch.nan):
        for use in (network, network.inspect, DynamicNetwork(network)):
            with pytest.raises((InputError, TypeCheckError), match="images"):  # whole numbers: shapes are checked in tests
                use(wrong)


def _files(make_network, folder) -> dict[str, str]:
    """Every kind of file of a network: with the fallback for either runtime, without, masked, folded, of any size."""
    model = make_network("resnet18").float()
    kept = [torch.arange(n // 2) for n in model.shape.gate_channels]
    made = compact_to(model, kept)
    kinds = {
        "onnxruntime": onnx_model(made),
        "openvino": onnx_model(made, runtime="openvino"),
        "masked": onnx_model(made.masked()),
        "folded": onnx_model(dense_network(model)),
        "any size": onnx_model(made, any_size=True),
        "no fallback": onnx_model(compact_to(model, kept).no_fallback()),
    }
    for name, content in kinds.items():
        onnx.save(content, folder / f"{name}.onnx")
    return {name: str(folder / f"{name}.onnx") for name in kinds}


def _largest_difference(found: str, reference: str) -> float:
    """Of the features of nine images, over the largest of the reference's."""
    runs = [onnxruntime.InferenceSession(file).run(["features"], {"images": pixels(9)})[0] for file in (found, reference)]
    return float(np.abs(runs[0] - runs[1]).max() / np.abs(runs[1]).max())


@pytest.mark.long
def test_files_are_quantised_by_onnxruntime_itself(make_network, tmp_path):
    """Its shape inference, then its dynamic quantiser, as its documentation has it: every kind of file passes both and runs.

    Its symbolic inference does not know branches whose height is free, so files of any size go without.
    """
    quantization = pytest.importorskip("onnxruntime.quantization", reason="this onnxruntime has no quantiser")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    for name, file in _files(make_network, tmp_path).items():
        inferred, small = str(tmp_path / "inferred.onnx"), str(tmp_path / f"{name}-int8.onnx")
        quant_pre_process(file, inferred, skip_symbolic_shape=name == "any size")
        quantization.quantize_dynamic(inferred, small)
        assert any("Integer" in node.op_type for node in onnx.load(small).graph.node)
        assert _largest_difference(small, file) < 0.5


@pytest.mark.long
@pytest.mark.parametrize("tool", ["onnxruntime.transformers.float16", "onnxconverter_common.float16"])
@pytest.mark.parametrize("keep_io_types", [True, False])
def test_files_become_float16(tool, keep_io_types, make_network, tmp_path):
    """Features of every kind of file are those of float32 to the rounding of float16; an image outside of [0, 1] stays NaN."""
    float16 = pytest.importorskip(tool, reason=f"{tool.partition('.')[0]} is not installed")
    images = pixels(9)
    for name, file in _files(make_network, tmp_path).items():
        made = float16.convert_float_to_float16(onnx.load(file), keep_io_types=keep_io_types)
        session = onnxruntime.InferenceSession(made.SerializeToString())
        given = np.concatenate([images, 200 * images[:1]]).astype(np.float32 if keep_io_types else np.float16)
        found = session.run(["features"], {"images": given})[0].astype(np.float32)
        wanted = onnxruntime.InferenceSession(file).run(["features"], {"images": images})[0]
        assert np.abs(found[:9] - wanted).max() / np.abs(wanted).max() < 0.01, name
        assert np.isnan(found[9]).all(), name


def test_files_of_any_size_equal_torch_at_every_size(make_network, tmp_path):
    """Oracle: the torch form, at three sizes in both runtimes."""
    made = compact_to(make_network("resnet18").float(), [torch.arange(n // 2) for n in _widths(make_network)])
    for runtime in ("onnxruntime", "openvino"):
        run = run_with(onnx_model(made, runtime=runtime, any_size=True).SerializeToString(), runtime)
        for height, width in ((16, 16), (24, 20), (8, 32)):
            images = np.random.default_rng(height).random((5, 3, height, width), np.float32)
            np.testing.assert_allclose(run(images)["features"], features(made, images), rtol=1e-4, atol=1e-5)


def _widths(make_network) -> tuple[int, ...]:
    return make_network("resnet18").shape.gate_channels


@pytest.mark.long
def test_constant_maps_have_one_size(make_network):
    """Of a Bottleneck whose first gate keeps nothing the second convolution has no inputs: its maps are constants."""
    model = make_network("resnet50", gated_convs="both").float()
    kept = [torch.arange(n // 2) for n in model.shape.gate_channels]
    assert onnx_model(compact_to(model, kept), any_size=True)
    kept[0] = kept[0][:0]
    assert onnx_model(compact_to(model, kept))
    with pytest.raises(InputError, match="any size"):
        onnx_model(compact_to(model, kept), any_size=True)


def test_files_say_what_they_are_and_name_no_place(make_network, tmp_path):
    facts = {"run": "/data/secret/runs/dual30", "calibrated_on": "cifar10:/data/secret/cifar", "data": "cifar10"}
    model = onnx_model(compact(make_network("resnet18").float(), _calibration(make_network)), facts=facts)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["facts"]) == {"run": "dual30", "calibrated_on": "cifar10:cifar", "data": "cifar10"}
    assert model.producer_name == "pulvinar"
    assert model.producer_version
    assert "resnet18: images in [0, 1] in, pooled features out" in model.doc_string
    assert b"secret" not in model.SerializeToString()


def _calibration(make_network) -> torch.Tensor:
    every = [torch.arange(n) for n in _widths(make_network)]
    return normalised(compact_to(make_network("resnet18").float(), every), pixels(100))
