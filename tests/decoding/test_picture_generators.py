"""Pretrained generators, with tiny random weights in the folders that users have."""

import importlib.util
from pathlib import Path

import pytest
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.decoding.pictures.picture_generators import open_generator, parse

_spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)
WRITERS = {"unclip": tiny.write_unclip, "sdxl_ip_adapter": tiny.write_sdxl, "kandinsky": tiny.write_kandinsky}


@pytest.mark.long
@pytest.mark.parametrize("kind", WRITERS)
def test_a_picture_follows_its_embedding_and_seed(kind, tmp_path):
    """Oracles: the same embedding and seed give the same picture, another embedding another one."""
    folder = WRITERS[kind](tmp_path / kind)
    generator = open_generator(kind, str(folder), n_steps=2, side=64 if kind == "kandinsky" else None)
    assert generator.dim == tiny.DIM
    one, other = torch.randn(2, tiny.DIM, generator=torch.Generator().manual_seed(0))
    picture = generator(one, 3)
    assert picture.ndim == 3
    assert picture.shape[0] == 3
    assert 0 <= picture.min() < picture.max() <= 1
    torch.testing.assert_close(generator(one, 3), picture, rtol=0, atol=0)
    assert (generator(other, 3) - picture).abs().max() > 1e-3
    with pytest.raises(InputError, match="32 numbers, 8 came"):
        generator(one[:8], 3)


def test_missing_weights_come_with_the_command_that_fetches_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileError, match="hf download stabilityai/stable-diffusion-2-1-unclip"):
        open_generator("unclip", "stabilityai/stable-diffusion-2-1-unclip")
    with pytest.raises(FileError, match=r"no such folder; to get the weights: hf download .* --local-dir"):
        open_generator("kandinsky", str(tmp_path / "none"))
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "model_index.json").write_text('{"_class_name": "KandinskyV22Pipeline", "unet": ["diffusers", "X"]}')
    with pytest.raises(FileError, match="cannot be read as KandinskyV22Pipeline"):
        open_generator("kandinsky", str(tmp_path / "half"))
    folder = tiny.write_sdxl(tmp_path / "xl", adapter=False)
    with pytest.raises(FileError, match=r"no adapter in .* hf download h94/IP-Adapter"):
        open_generator("sdxl_ip_adapter", str(folder))


def test_names_of_generators():
    assert parse("embedded") == ("embedded", None)
    assert parse("unclip:/weights/unclip") == ("unclip", "/weights/unclip")
    assert parse("kandinsky")[1] == "kandinsky-community/kandinsky-2-2-decoder"
    with pytest.raises(InputError, match="did you mean 'unclip'"):
        parse("unklip:there")
    with pytest.raises(InputError, match="embedded takes no folder"):
        parse("embedded:there")
