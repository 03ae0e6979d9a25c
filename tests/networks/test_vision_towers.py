"""Oracles: open_clip's and transformers' own networks and preprocessing, tiny and random; nothing is downloaded."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.networks.vision_towers import load_tower

open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}
VISION = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No hub's cache but an empty one, and no way to the net."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def tiny(tmp_path):
    """A small model that open_clip knows by name."""
    (tmp_path / "tiny-tower.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-tower.json")
    return "tiny-tower"


def pictures(n: int = 3, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3)).astype(np.uint8)


def test_open_clip_pooled_and_tokens_are_its_own(tiny, tmp_path):
    torch.manual_seed(3)
    model, _, transform = open_clip.create_model_and_transforms(tiny)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    tower = load_tower(f"open_clip:{tiny}", weights=str(tmp_path / "weights.pt"))
    images = pictures()
    pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
    model.eval()
    with torch.no_grad():
        pooled = model.encode_image(pixels)
        inner = model.visual
        hidden = inner.transformer(inner._embeds(pixels))
        patches = inner.ln_post(hidden)[:, 1:]  # normalised, without the class token
    np.testing.assert_allclose(tower.embed(images, tokens=False), pooled.numpy(), rtol=1e-4, atol=1e-5)
    tokens = tower.embed(images, tokens=True)
    assert tokens.shape == (3, 16, 24)
    np.testing.assert_allclose(tokens, patches.numpy(), rtol=1e-4, atol=1e-5)


def test_open_clips_preprocessing_is_its_own_up_to_pillows_rounding(tiny):
    _, _, transform = open_clip.create_model_and_transforms(tiny)
    image = np.random.default_rng(1).integers(0, 256, (90, 60, 3)).astype(np.uint8)
    tower = load_tower(f"open_clip:{tiny}")
    ours, theirs = tower.preprocessing([image])[0], transform(Image.fromarray(image))
    assert (ours - theirs).abs().max() < 0.035  # a grey level is 1 / 255 / .26 = .015; Pillow rounds twice


def test_random_weights_depend_on_the_seed_alone(tiny):
    images = pictures()
    first, again, other = (load_tower(f"open_clip:{tiny}", seed=seed).embed(images, tokens=False) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_transformers_clip_pooled_and_tokens(tmp_path):
    config = transformers.CLIPVisionConfig(**VISION, patch_size=8, projection_dim=10)
    torch.manual_seed(1)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path / "clip")
    tower = load_tower(f"transformers:{tmp_path / 'clip'}")
    images = pictures()
    pixels = tower.preprocessing(images)
    with torch.no_grad():
        output = model(pixel_values=pixels)
        hidden = model.vision_model.post_layernorm(output.last_hidden_state)
    np.testing.assert_allclose(tower.embed(images, tokens=False), output.image_embeds.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tower.embed(images, tokens=True), hidden[:, 1:].numpy(), rtol=1e-5, atol=1e-6)
    # the pooled embedding is the class token: had it stayed among the tokens, it would be their first
    classes = model.visual_projection(hidden[:, 0]).detach().numpy()
    np.testing.assert_allclose(tower.embed(images, tokens=False), classes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip", "dinov2", "vit"])
def test_other_towers_give_the_patches_of_the_image(kind, tmp_path):
    torch.manual_seed(1)
    if kind == "siglip":
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION, patch_size=8))
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**VISION, patch_size=8, mlp_ratio=1))
    else:
        model = transformers.ViTModel(transformers.ViTConfig(**VISION, patch_size=8))
    model.eval().save_pretrained(tmp_path / kind)
    tower, images = load_tower(f"transformers:{tmp_path / kind}"), pictures()
    with torch.no_grad():
        output = model(pixel_values=tower.preprocessing(images))
    expected = output.last_hidden_state if kind == "siglip" else output.last_hidden_state[:, 1:]
    tokens = tower.embed(images, tokens=True)
    assert tokens.shape == (3, 16, 24)
    np.testing.assert_allclose(tokens, expected.numpy(), rtol=1e-4, atol=1e-5)
    pooled = output.pooler_output if kind == "siglip" else output.last_hidden_state[:, 0]
    np.testing.assert_allclose(tower.embed(images, tokens=False), pooled.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_a_processors_configuration_is_followed(tmp_path):
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION, patch_size=8))
    model.save_pretrained(tmp_path / "clip")
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "crop_size": {"height": 32, "width": 32}}
    settings |= {"size": {"shortest_edge": 40}, "resample": 2, "do_center_crop": True}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(settings))
    own = load_tower(f"transformers:{tmp_path / 'clip'}").preprocessing
    assert (own.mean, own.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (own.image_size, own.crop_share, own.interpolation, own.resize) == (32, 0.8, "bilinear", "crop")


def test_what_cannot_be_had_names_the_command(tiny, tmp_path):
    with pytest.raises(FileError, match="hf download laion/CLIP-ViT-bigG-14-laion2B-39B-b160k --include 'open_clip_\\*'"):
        load_tower("open_clip:ViT-bigG-14", weights="laion2b_s39b_b160k")
    with pytest.raises(FileError, match="run: hf download nobody/no-such-tower"):
        load_tower("transformers:nobody/no-such-tower")
    with pytest.raises(NotFoundError, match="laion2b_s39b_b160k"):
        load_tower("open_clip:ViT-bigG-14", weights="laion5b")
    with pytest.raises(NotFoundError, match="did you mean 'ViT-B-32'"):
        load_tower("open_clip:ViT-B-33")
    with pytest.raises(NotFoundError, match="open_clip:MODEL or transformers:"):
        load_tower("clip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="cannot be read as a transformers network"):
        load_tower(f"transformers:{tmp_path / 'empty'}")
    torch.save({"visual.proj": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="do not fit open_clip:tiny-tower"):
        load_tower(f"open_clip:{tiny}", weights=str(tmp_path / "other.pt"))
