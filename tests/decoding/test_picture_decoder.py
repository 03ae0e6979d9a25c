"""The small image decoder, its linear start, the components, and autoencoders from a folder."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from pulvinar.core.errors import FileError, InputError
from pulvinar.decoding.pictures.image_autoencoder import PixelComponents, open_autoencoder
from pulvinar.decoding.pictures.picture_decoder import LowLevelBranch, PictureDecoder


def pictures(n: int = 40, side: int = 8, seed: int = 0) -> torch.Tensor:
    """Pictures of a few degrees of freedom: (image, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    factors, patterns = torch.randn(n, 5, generator=generator), torch.randn(5, 3 * side * side, generator=generator)
    return (0.5 + 0.05 * factors @ patterns).reshape(n, 3, side, side)


def test_components_are_scikit_learns():
    seen = pictures()
    ours = PixelComponents.fit(seen, n_components=5, side=8, seed=0)
    theirs = PCA(5).fit(seen.flatten(1).numpy())
    scores = theirs.transform(seen.flatten(1).numpy())
    latents = ours.encode(seen)
    cosines = (latents.T @ torch.from_numpy(scores)).abs() / latents.norm(dim=0)[:, None] / np.linalg.norm(scores, axis=0)
    torch.testing.assert_close(cosines, torch.eye(5), rtol=0, atol=2e-3)
    torch.testing.assert_close(ours.decode(latents), seen, rtol=0, atol=1e-4)  # five factors, five components
    assert latents.square().mean() == pytest.approx(1, rel=1e-3)


def test_components_are_no_more_than_the_pictures_give():
    assert PixelComponents.fit(pictures(4), n_components=50, side=8, seed=0).n_components == 3
    with pytest.raises(InputError, match="two or more"):
        PixelComponents.fit(pictures(1), n_components=5, side=8, seed=0)


def test_the_decoder_starts_as_ridge_regression():
    """Oracle: scikit-learn's Ridge from embedding to latents; the convolutional part adds nothing yet."""
    generator = torch.Generator().manual_seed(1)
    seen, embedding = pictures(side=16), torch.randn(40, 3, generator=generator)
    components = PixelComponents.fit(seen, n_components=4, side=8, seed=0)
    latents = components.encode(seen)
    decoder = PictureDecoder(components, dim=3, side=16, width=4)
    decoder.initialise(embedding, latents, generator, ridge=0.1)
    expected = Ridge(alpha=0.1 * 40).fit(embedding.double().numpy(), latents.double().numpy()).predict(embedding.numpy())
    rough = components.decode(torch.from_numpy(expected).float())
    made = decoder(embedding)
    assert made.shape == (40, 3, 16, 16)
    enlarged = torch.nn.functional.interpolate(rough, (16, 16), mode="bilinear")
    torch.testing.assert_close(made, enlarged, rtol=1e-4, atol=1e-4)
    torch.nn.init.normal_(decoder.last.weight)
    assert (decoder(embedding) - made).abs().max() > 0.01


def test_the_low_level_branch_starts_linear_and_small():
    branch = LowLevelBranch(10, hidden=8, shape=(4, 2, 2), dropout=0.5)
    branch.initialise(torch.Generator().manual_seed(0), scale=0.3)
    x = torch.randn(6, 10)
    assert branch(x).shape == (6, 4, 2, 2)
    torch.testing.assert_close(branch(2 * x), 2 * branch(x))
    dropped = branch(x, torch.Generator().manual_seed(1))
    assert (dropped - branch(x)).abs().max() > 1e-3


def test_autoencoders_of_diffusers_are_read_from_a_folder(tmp_path):
    """Oracle: diffusers' own calls."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    seen = torch.rand(2, 3, 16, 16)
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 4}
    blocks |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    full = AutoencoderKL(**blocks, scaling_factor=0.5).eval()
    full.save_pretrained(tmp_path / "pipeline" / "vae")
    ours = open_autoencoder(str(tmp_path / "pipeline"), side=16)
    latents = full.encode(2 * seen - 1).latent_dist.mode() * 0.5
    torch.testing.assert_close(ours.encode(seen), latents.detach())
    torch.testing.assert_close(ours.decode(latents), (full.decode(latents / 0.5).sample.detach() + 1) / 2)
    assert ours.latent_shape == (4, 8, 8)
    options = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    tiny = AutoencoderTiny(**options, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).eval()
    tiny.save_pretrained(tmp_path / "taesd")
    ours = open_autoencoder(str(tmp_path / "taesd"), side=16)
    torch.testing.assert_close(ours.encode(seen), tiny.encode(2 * seen - 1).latents.detach())


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(FileError, match="hf download madebyollin/taesd"):
        open_autoencoder(str(tmp_path), side=16)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(InputError, match="holds a UNet2DConditionModel"):
        open_autoencoder(str(tmp_path), side=16)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(FileError, match="cannot be read as weights of AutoencoderTiny"):
        open_autoencoder(str(tmp_path), side=16)
