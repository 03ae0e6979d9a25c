"""Networks for use as folders."""

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from pulvinar.core.errors import FileError, InputError
from pulvinar.decoding.data import Embedding
from pulvinar.decoding.decoder_checkpoint import CHECKPOINT, decoder_state
from pulvinar.deploy.compact import compact, compact_to, static_network
from pulvinar.deploy.decoder_files import export_decoder
from pulvinar.deploy.files import load, load_config, load_decoder, save
from pulvinar.deploy.voxel_decoder import VoxelDecoder, voxel_decoder
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer


@pytest.mark.long
def test_a_network_comes_back_bit_for_bit(tmp_path, make_network, make_images):
    model = make_network("resnet50", gated_convs="both").float()
    batch = make_images(5).float()
    made = compact(model, make_images(100).float())
    made.mean = (0.1, 0.2, 0.3)
    save(tmp_path / "net", made, facts={"run": "somewhere"})
    back = load(tmp_path / "net")
    assert torch.equal(back(batch), made(batch))
    assert back.mean == made.mean
    assert back.calibration == made.calibration
    assert back.macs == made.macs
    assert load_config(tmp_path / "net")["facts"] == {"run": "somewhere"}
    narrow = static_network(model, [torch.arange(n // 2) for n in model.shape.gate_channels])
    save(tmp_path / "narrow", narrow.no_fallback())
    back = load(tmp_path / "narrow")
    assert (back.form, back.kept, back.fallback) == ("static", None, False)
    assert torch.equal(back(batch), narrow(batch))


def test_what_is_there_is_not_overwritten(tmp_path, make_network):
    model = make_network("resnet18")
    (tmp_path / "net").mkdir()
    with pytest.raises(FileError, match="exists already"):
        save(tmp_path / "net", compact_to(model, [torch.arange(n) for n in model.shape.gate_channels]))
    assert not list((tmp_path / "net").iterdir())


def test_damaged_folders_are_named(tmp_path, make_network):
    model = make_network("resnet18")
    net = tmp_path / "net"
    save(net, compact_to(model, [torch.arange(n // 2) for n in model.shape.gate_channels]))
    with pytest.raises(FileError, match=r"nothing: no such folder.*deploy compact"):
        load(tmp_path / "nothing")
    with pytest.raises(FileError, match="voxel decoder is needed, this is a compact network"):
        load_decoder(net)
    weights = load_file(net / "network.safetensors")
    del weights["blocks.0.leave.0.weight"]
    save_file(weights, net / "network.safetensors")
    with pytest.raises(FileError, match=r"(?s)do not fit each other.*blocks\.0\.leave\.0\.weight"):
        load(net)
    (net / "network.safetensors").write_bytes(b"\x08")
    with pytest.raises(FileError, match="cannot be read as safetensors"):
        load(net)
    config = json.loads((net / "config.json").read_text())
    (net / "config.json").write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(FileError, match="format 99"):
        load(net)
    (net / "config.json").unlink()
    (net / "run.json").write_text("{}")
    with pytest.raises(FileError, match="is a run"):
        load(net)


@pytest.fixture(params=[1, 3], ids=["pooled", "tokens"])
def decoder_run(tmp_path, request):
    """A run of troi as its fit leaves it, with 6 of 40 voxels kept."""
    generator = torch.Generator().manual_seed(0)
    shape = DecoderShape(hidden=8, dim=5, n_blocks=1, dropout=0.1, n_tokens=request.param)
    shared, layer = SharedDecoder(shape), input_layer(6, 8, generator, scale=1.0)
    for parameter in shared.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    selected = torch.zeros(40, dtype=torch.bool)
    selected[[1, 5, 6, 20, 33, 39]] = True
    run = RunFolder.create(tmp_path / "run", method="troi", config_toml="", seed=0, data={})
    embedding = Embedding("clip", np.zeros(5 * request.param, np.float32), 1.0, request.param)
    added = {"selected": selected, "layer": dict(layer.state_dict())}
    run.save({**decoder_state(shared, embedding), **added}, name=CHECKPOINT)
    run.finish()
    return run, layer, shared, selected


def test_the_decoder_of_kept_voxels_is_the_masked_decoder(decoder_run, tmp_path):
    """Oracles: the run's own layer and shared part on the selected voxels, and a whole layer with a mask on its input."""
    run, layer, shared, selected = decoder_run
    decoder = voxel_decoder(run)
    responses = torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    own = shared(layer(responses[:, selected]))
    whole, kept = decoder(responses), decoder(responses[:, selected])
    masked = shared(decoder.masked_layer()(responses * selected))
    for name in ("output", "projected", "regressed"):
        assert torch.equal(getattr(whole, name), getattr(own, name))
        assert torch.equal(getattr(kept, name), getattr(own, name))
        torch.testing.assert_close(getattr(masked, name), getattr(own, name))
    nonsense = torch.where(selected, responses, 1e6)  # voxels outside the mask must not matter at all
    assert torch.equal(decoder(nonsense).projected, own.projected)
    assert decoder.macs == {"kept": 48, "all": 320}
    save(tmp_path / "net", decoder)
    assert torch.equal(load_decoder(tmp_path / "net")(responses).regressed, own.regressed)
    with pytest.raises(InputError, match=r"6 voxels .* or 40 .*, 7 came"):
        decoder(torch.zeros(2, 7))


def test_only_a_finished_run_of_troi_is_a_decoder(tmp_path):
    run = RunFolder.create(tmp_path / "run", method="dual_gating", config_toml="", seed=0, data={})
    with pytest.raises(InputError, match="finished run of troi is needed"):
        voxel_decoder(run)
    assert VoxelDecoder(torch.ones(3, dtype=torch.bool), DecoderShape(hidden=2, dim=2, n_blocks=0, dropout=0.0)).n_voxels == 3


@pytest.mark.long
def test_the_onnx_files_of_a_decoder_take_the_whole_box(decoder_run, tmp_path):
    """Oracle: the decoder in torch; both files take the same input, one trial or many."""
    import onnxruntime

    decoder = voxel_decoder(decoder_run[0])
    responses = torch.randn(5, 40, generator=torch.Generator().manual_seed(2))
    for masked in (False, True):
        path = tmp_path / f"{masked}.onnx"
        written = export_decoder(decoder, path, masked=masked)
        session = onnxruntime.InferenceSession(str(path))
        described = onnx.load(path)
        said = {entry.key: entry.value for entry in described.metadata_props}
        assert (said["n_voxels"], json.loads(said["macs"])) == ("40", decoder.macs)
        assert described.producer_name == "pulvinar"
        assert "image embeddings out" in described.doc_string
        assert b".py" not in path.read_bytes()  # where in which source file a node came from
        for n in (5, 1):
            found = dict(
                zip(written["outputs"], session.run(written["outputs"], {"responses": responses[:n].numpy()}), strict=True)
            )
            for name, values in found.items():
                torch.testing.assert_close(
                    torch.from_numpy(values), getattr(decoder(responses[:n]), name), rtol=1e-5, atol=1e-6
                )
    assert not list(tmp_path.glob("*.data"))
