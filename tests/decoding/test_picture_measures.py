"""Networks that compare pictures: values of an independent implementation on fixed inputs, and what is said without weights."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pulvinar.core.errors import FileError, NotFoundError
from pulvinar.decoding.pictures.picture_measures import CLIP_MEAN, CLIP_STD, PUBLISHED_MEASURES, measure_named, open_measure
from pulvinar.decoding.pictures.reconstruction import open_measures
from pulvinar.networks.fixed_networks import oriented_energy

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3)).astype(np.uint8)


def resized_by_torchvision(pictures, side, mean, std):
    from torchvision.transforms import InterpolationMode, v2

    maps = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    maps = v2.functional.resize(maps, [side, side], InterpolationMode.BILINEAR, antialias=True)
    return v2.functional.normalize(maps, mean, std)


def independent(network, layer, pictures, side):
    """As MindEye2's evaluation does it: torchvision's own resizing, normalisation and feature extractor."""
    from torchvision.models.feature_extraction import create_feature_extractor

    extractor = create_feature_extractor(network.eval(), return_nodes=[layer])
    with torch.no_grad():
        return extractor(resized_by_torchvision(pictures, side, *IMAGENET))[layer].flatten(1).numpy()


def save(network, path):
    from safetensors.torch import save_file

    save_file({name: values for name, values in network.state_dict().items() if "num_batches" not in name}, path)


def test_a_named_layer_is_torchvisions(pictures, tmp_path):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1()
    save(network, tmp_path / "squeezenet1_1-random.safetensors")
    look = open_measure(measure_named("squeezenet1_1:features.4"), tmp_path)
    np.testing.assert_allclose(look(pictures), independent(network, "features.4", pictures, 224), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [m for m in PUBLISHED_MEASURES if m.name != "clip"], ids=lambda measure: measure.name)
def test_published_networks_are_torchvisions(measure, pictures, tmp_path):
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": True, "transform_input": True} if measure.network == "inception_v3" else {}
    network = getattr(torchvision.models, measure.network)(**options).eval()
    if measure.name == "swav":  # as its authors' file: wrapped, a head of its own, no classes
        state = {f"module.{name}": values for name, values in network.state_dict().items() if not name.startswith("fc.")}
        torch.save({**state, "module.prototypes.weight": torch.zeros(2, 2)}, tmp_path / "swav_800ep_pretrain.pth.tar")
    else:
        save(network, tmp_path / f"{measure.stem}.safetensors")
    ours = open_measure(measure, tmp_path)(pictures)
    np.testing.assert_allclose(ours, independent(network, measure.layer, pictures, measure.side), rtol=1e-3, atol=1e-4)


def test_clip_is_open_clips_image_tower(pictures, tmp_path):
    """The published model is large; the same path with a tiny one of open_clip."""
    import open_clip

    tower = {"image_size": 224, "layers": 1, "width": 32, "patch_size": 112, "head_width": 16}
    words = {"context_length": 4, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1}
    (tmp_path / "tiny-clip.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": tower, "text_cfg": words}))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    torch.save(model.state_dict(), tmp_path / "ViT-L-14.pt")
    ours = open_measure(dataclasses.replace(measure_named("clip"), network="tiny-clip"), tmp_path)(pictures)
    with torch.no_grad():
        expected = model.encode_image(resized_by_torchvision(pictures, 224, CLIP_MEAN, CLIP_STD)).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_measures_without_weights(pictures):
    same_size = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    np.testing.assert_allclose(open_measure(measure_named("energy"))(same_size), oriented_energy(torch.from_numpy(same_size)))
    assert open_measure(measure_named("colour"))(pictures).shape == (3, 48)


def test_missing_weights_are_said_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    opened, skipped = open_measures((), None)
    assert set(opened) == {"energy", "colour"}
    assert set(skipped) == {measure.name for measure in PUBLISHED_MEASURES}
    assert f"curl -L --create-dirs -o {tmp_path}/hub/checkpoints/alexnet" in skipped["alexnet5"]
    assert "swav_800ep_pretrain.pth.tar" in skipped["swav"]
    assert "open_clip.create_model" in skipped["clip"]
    with pytest.raises(FileError, match="a file whose name begins with 'inception_v3'"):
        open_measures(("inception",), str(tmp_path))
    with pytest.raises(FileError, match="no such folder of weights"):
        open_measures(("alexnet2",), str(tmp_path / "none"))
    with pytest.raises(NotFoundError, match="alexnet2, alexnet5"):
        measure_named("alexnett")
