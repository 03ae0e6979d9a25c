"""Oracles: the tower itself, image by image; an uninterrupted run, byte for byte."""

import json

import numpy as np
import pytest

from pulvinar.core.errors import FileError, InputError
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.embedding_files import write_embedding
from pulvinar.networks.vision_towers import VisionTower, load_tower

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> VisionTower:
    config = transformers.CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=6,
    )
    folder = tmp_path_factory.mktemp("towers") / "clip"
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return load_tower(f"transformers:{folder}")


def stimuli(n: int = 7) -> Stimuli:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3)).astype(np.uint8)
    names = [f"image-{row}" for row in range(n)]
    return Stimuli(ids=names, sources=names, read_image=lambda row: pixels[row])


@pytest.mark.parametrize("tokens", [False, True])
def test_every_row_is_the_towers_embedding_of_that_image(tower, tokens, tmp_path):
    facts = write_embedding(tower, stimuli(), tmp_path / "clip.npy", tokens=tokens, batch_size=3)
    written = np.load(tmp_path / "clip.npy", mmap_mode="r", allow_pickle=False)
    assert written.dtype == np.float16
    assert written.shape == tuple(facts["shape"]) == ((7, 4, 24) if tokens else (7, 6))
    for row in range(7):
        alone = tower.embed([stimuli().image(row)], tokens=tokens)[0]
        np.testing.assert_allclose(written[row], alone, rtol=2e-3, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.csv", "clip.json", "clip.npy"]
    assert json.loads((tmp_path / "clip.json").read_text()) == facts


def test_an_interrupted_file_is_continued_to_the_same_bytes(tower, tmp_path, monkeypatch):
    write_embedding(tower, stimuli(), tmp_path / "whole.npy", tokens=True, batch_size=2)
    embed, calls = VisionTower.embed, []

    def stops(self, images, *, tokens):
        calls.append(len(images))
        if len(calls) == 4:  # one image to learn the shape, then two batches, then
            raise KeyboardInterrupt
        return embed(self, images, tokens=tokens)

    with monkeypatch.context() as patched:
        patched.setattr(VisionTower, "embed", stops)
        with pytest.raises(KeyboardInterrupt):
            write_embedding(tower, stimuli(), tmp_path / "clip.npy", tokens=True, batch_size=2)
    work = tmp_path / "clip.npy.unfinished"
    assert not (tmp_path / "clip.npy").exists()
    work.write_bytes(work.read_bytes()[:-5])  # cut within a row, as a kill may
    calls.clear()
    monkeypatch.setattr(
        VisionTower, "embed", lambda self, images, *, tokens: calls.append(len(images)) or embed(self, images, tokens=tokens)
    )
    write_embedding(tower, stimuli(), tmp_path / "clip.npy", tokens=True, batch_size=2)
    assert calls == [1, 2, 2]  # three rows were whole: four are left
    assert (tmp_path / "clip.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_unfinished_work_of_other_images_is_refused(tower, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pulvinar.encoding.embedding_files._compute", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_embedding(tower, stimuli(7), tmp_path / "clip.npy", tokens=False)
    with pytest.raises(FileError, match="unfinished work of another network"):
        write_embedding(tower, stimuli(6), tmp_path / "clip.npy", tokens=False)


def test_what_does_not_fit_is_refused(tower, tmp_path, monkeypatch):
    (tmp_path / "there.npy").write_bytes(b"")
    with pytest.raises(FileError, match="exists already"):
        write_embedding(tower, stimuli(), tmp_path / "there.npy", tokens=False)
    with pytest.raises(InputError, match=r"ends in \.npy"):
        write_embedding(tower, stimuli(), tmp_path / "clip.h5", tokens=False)
    without = Stimuli(ids=["a"], sources=["a"])
    with pytest.raises(InputError, match="came without images"):
        write_embedding(tower, without, tmp_path / "clip.npy", tokens=False)
    monkeypatch.setattr(VisionTower, "embed", lambda self, images, *, tokens: np.full((len(images), 3), 1e6, np.float32))
    with pytest.raises(InputError, match="too large for float16"):
        write_embedding(tower, stimuli(), tmp_path / "clip.npy", tokens=False)
