"""`pulvinar predict`: new images through a finished run, in the order of their file names."""

import numpy as np
import pytest
from PIL import Image

from pulvinar.app.fit import fit
from pulvinar.app.predict import predict
from pulvinar.core.errors import FileError, InputError

NAMES = ("b.jpg", "a-1.jpg", "a.jpg", "c.jpg")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A fit on 18 small pictures whose RDMs follow their mean colour."""
    folder = tmp_path_factory.mktemp("predict")
    generator = np.random.default_rng(0)
    images = (generator.integers(0, 255, (18, 1, 1, 3)) + generator.integers(-9, 9, (18, 64, 64, 3))).clip(0, 255)
    colours = images.mean((1, 2))
    rdms = np.linalg.norm(colours[:, None] - colours[None], axis=-1) * np.linspace(0.5, 1, 3)[:, None, None]
    np.savez(folder / "rdms.npz", images=images.astype(np.uint8), fmri_evc=rdms)
    settings = ["network=squeezenet1_0", "image_size=64", "epochs=4", "n_inner_folds=2"]
    fit("learning_to_aggregate", data=str(folder / "rdms.npz"), out=str(folder / "run"), assignments=settings)
    return str(folder / "run")


@pytest.fixture
def folder(tmp_path):
    """Four pictures of different sizes."""
    (tmp_path / "images").mkdir()
    generator = np.random.default_rng(1)
    for number, name in enumerate(NAMES):
        Image.fromarray(generator.integers(0, 255, (70 + number, 90, 3)).astype(np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


@pytest.mark.long
def test_rows_are_in_the_order_of_the_file_names(run, folder, tmp_path):
    """Oracle of the order: sorted(); of the rows: two of the pictures swapped swap their rows."""
    predict(run, images=str(folder), out=str(tmp_path / "rdm.npy"))
    rows = [line.split(",")[1] for line in (tmp_path / "rdm.csv").read_text().splitlines()[1:]]
    assert rows == sorted(NAMES)
    rdm = np.load(tmp_path / "rdm.npy", allow_pickle=False)
    assert rdm.shape == (4, 4)
    np.testing.assert_array_equal(rdm, rdm.T)
    first, last = rows.index("a-1.jpg"), rows.index("c.jpg")
    (folder / "a-1.jpg").rename(folder / "x")
    (folder / "c.jpg").rename(folder / "a-1.jpg")
    (folder / "x").rename(folder / "c.jpg")
    predict(run, images=str(folder), out=str(tmp_path / "swapped.npy"))
    order = np.arange(4)
    order[[first, last]] = last, first
    np.testing.assert_allclose(np.load(tmp_path / "swapped.npy"), rdm[np.ix_(order, order)], atol=1e-6)


def test_nothing_is_overwritten_and_names_must_fit(run, folder, tmp_path):
    (tmp_path / "rdm.csv").write_text("mine")
    with pytest.raises(FileError, match=r"rdm\.csv: exists already"):
        predict(run, images=str(folder), out=str(tmp_path / "rdm.npy"))
    with pytest.raises(InputError, match=r"ends in \.npy or \.npz"):
        predict(run, images=str(folder), out=str(tmp_path / "other.txt"))
    assert (tmp_path / "rdm.csv").read_text() == "mine"


def test_a_run_that_predicts_nothing_says_so(tmp_path, folder):
    from pulvinar.learning.runs import RunFolder

    RunFolder.create(tmp_path / "run", method="troi", config_toml="", seed=0, data={}).finish()
    with pytest.raises(InputError, match="predicts nothing for new images"):
        predict(str(tmp_path / "run"), images=str(folder), out=str(tmp_path / "out.npy"))
