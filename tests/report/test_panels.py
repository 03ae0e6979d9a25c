"""Left is left, whatever the affine; outlines and agreement against slow loops."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pulvinar.data.geometry import Geometry
from pulvinar.decoding import roi_figure
from pulvinar.report import panels, run_folder

RED = np.array([1.0, 0, 0])


def painted(panel: panels.Panel, marked: np.ndarray) -> np.ndarray:
    """The panel as pixels (height, width, 3), with the marked voxels (voxel, bool) in red on white ones."""
    figure = Figure(figsize=(3, 3), dpi=80)
    axis = figure.add_axes((0, 0, 1, 1))
    panel.paint(axis, np.where(marked[:, None], RED, 1.0), marked.astype(float))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255.0


def centre_of_red(pixels: np.ndarray) -> tuple[float, float]:
    """Mean place of red pixels, right and up, each from -1 to 1."""
    up, right = np.nonzero((pixels[..., 0] > 0.5) & (pixels[..., 1] < 0.3))
    height, width = pixels.shape[:2]
    return 2 * right.mean() / width - 1, 1 - 2 * up.mean() / height


def one_corner(kind: str, flip: int = 1) -> tuple[Geometry, np.ndarray]:
    """A geometry, and the voxels that lie right (x > 10), at the back (y < -10) and low (z < -5)."""
    if kind == "volume":
        affine = np.diag([3.0 * flip, 3, 3, 1])
        affine[:3, 3] = [-22.5 * flip, -22.5, -22.5]
        geometry = Geometry.from_mask(np.ones((16, 16, 16), bool), affine)
    elif kind == "points":
        geometry = Geometry.from_points(np.random.default_rng(0).uniform(-25, 25, (600, 3)))
    else:
        angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(0.05, np.pi - 0.05, 20))
        points = 30 * np.stack([np.sin(height) * np.cos(angle), np.sin(height) * np.sin(angle), np.cos(height)], -1)
        at = np.arange(800).reshape(20, 40)
        a, b, c, d = at[:-1], np.roll(at, -1, 1)[:-1], at[1:], np.roll(at, -1, 1)[1:]
        faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
        geometry = Geometry.from_surface(np.arange(800), points.reshape(-1, 3), faces if flip == 1 else faces[:, ::-1])
    x, y, z = geometry.coordinates.T
    return geometry, (x > 10) & (y < -10) & (z < -5)


@pytest.mark.parametrize("flip", [1, -1])
def test_slices_have_right_on_the_right_and_the_back_below(flip: int) -> None:
    geometry, marked = one_corner("volume", flip)
    shown = panels.panels(geometry, marked, 4)
    side, slices = shown[0], shown[1:]
    assert len(slices) == 3
    for panel in slices:
        right, up = centre_of_red(painted(panel, marked))
        assert right > 0.3
        assert up < -0.3
        assert float(panel.title.split()[2].replace("−", "-")) < -5
    front, up = centre_of_red(painted(side, marked))  # from the right: the front is on the right
    assert front < -0.3
    assert up < -0.1


@pytest.mark.parametrize("kind", ["surface", "points"])
@pytest.mark.parametrize("flip", [1, -1])
def test_views_are_named_after_where_the_viewer_stands(kind: str, flip: int) -> None:
    geometry, marked = one_corner(kind, flip)
    shown = {panel.title.removesuffix("\n(projection)"): panel for panel in panels.panels(geometry, marked, 3)}
    assert all(("projection" in panel.title) == (kind == "points") for panel in shown.values())
    right, up = centre_of_red(painted(shown["from behind"], marked))
    assert right > 0.2
    assert up < -0.1
    front, _ = centre_of_red(painted(shown["from the right"], marked))
    assert front < -0.2
    if kind == "surface":
        left, front = centre_of_red(painted(shown["from below"], marked))  # from below, right is on the left
        assert left < -0.2
        assert front < -0.2


def test_the_far_side_of_a_surface_is_hidden() -> None:
    geometry, _ = one_corner("surface")
    front = geometry.coordinates[:, 1] > 15
    shown = {panel.title: panel for panel in panels.panels(geometry, geometry.coordinates[:, 1] < -15, 3)}
    pixels = painted(shown["from behind"], front)
    assert not ((pixels[..., 0] > 0.5) & (pixels[..., 1] < 0.3)).any()


def test_points_on_a_plane_or_a_line_are_drawn() -> None:
    generator = np.random.default_rng(1)
    for n_axes, n_views in ((2, 1), (1, 1)):
        geometry = Geometry.from_points(generator.normal(size=(30, n_axes)))
        shown = panels.panels(geometry, np.ones(30, bool), 3)
        assert len(shown) == n_views
        assert painted(shown[0], np.arange(30) < 5).min() < 0.3


def test_a_flat_mesh_seen_edge_on_is_drawn_without_a_warning() -> None:
    """A sheet in one plane: from some sides it is a line."""
    places = np.argwhere(np.ones((6, 5)))
    corner = np.array([x * 5 + y for x, y in places if x < 5 and y < 4])
    faces = np.concatenate(
        [np.stack(face, 1) for face in ([corner, corner + 1, corner + 5], [corner + 1, corner + 6, corner + 5])]
    )
    geometry = Geometry.from_surface(np.arange(30), np.column_stack([places, np.zeros(30)]).astype(float), faces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for view in panels.VIEWS:
            right, up, toward = np.array(panels.VIEWS[view], float)
            flat = geometry.mesh_coordinates @ np.stack([right, up, toward]).T
            rendering = panels._Rendering(flat=flat, faces=faces, slope=np.ones(len(faces)), vertex=np.arange(30))
            axis = Figure().subplots()
            rendering.paint(axis, np.zeros((30, 3)), np.arange(30.0))
            assert np.ptp(axis.get_xlim()) > 0
            assert np.ptp(axis.get_ylim()) > 0


def test_chosen_slices_are_filled_ones_and_no_more_than_asked() -> None:
    generator = np.random.default_rng(2)
    for _ in range(20):
        n_of_interest = generator.poisson(0.8, 30)
        chosen = panels.chosen_slices(n_of_interest, 6)
        assert len(chosen) == min(6, np.count_nonzero(n_of_interest)) == len(set(chosen))
        assert n_of_interest[chosen].all()
        assert n_of_interest.argmax() in chosen
    assert panels.chosen_slices(np.zeros(9, int), 6) == [4]


def test_outline_is_every_edge_between_in_and_out() -> None:
    mask = np.random.default_rng(3).random((7, 5)) < 0.5
    expected = set()
    for x, y in np.argwhere(mask):
        for (dx, dy), ends in (
            ((-1, 0), ((x, y), (x, y + 1))),
            ((1, 0), ((x + 1, y), (x + 1, y + 1))),
            ((0, -1), ((x, y), (x + 1, y))),
            ((0, 1), ((x, y + 1), (x + 1, y + 1))),
        ):
            other = (x + dx, y + dy)
            if not (0 <= other[0] < 7 and 0 <= other[1] < 5 and mask[other]):
                expected.add(ends)
    assert {tuple(map(tuple, segment.astype(int))) for segment in panels.outline(mask)} == expected


def test_agreement_and_legend_count_as_a_loop_does(finished_run: Path) -> None:
    maps = run_folder.read(finished_run).maps
    pairs = list(zip(maps.selected, maps.reference, strict=True))
    n_both, n_missed = sum(s and r for s, r in pairs), sum(r and not s for s, r in pairs)
    labels = [patch.get_label() for patch in roi_figure.legend(maps, "planted")]
    assert labels[:2] == [f"found {n_both}", f"missed {n_missed}"]
    assert labels[2] == f"false alarm {sum(s and not r for s, r in pairs)}"


def test_an_annotated_roi_is_not_called_the_truth(finished_run: Path) -> None:
    maps = run_folder.read(finished_run).maps
    said = " ".join(str(patch.get_label()) for patch in roi_figure.legend(maps, "annotated"))
    assert "annotated only" in said
    assert "missed" not in said
    assert "false" not in said


@pytest.mark.parametrize("view", list(panels.VIEWS))
def test_sides_are_where_the_view_has_them(view: str) -> None:
    """Oracle: the right of the picture in mm axes: x to the right ear, y to the nose."""
    x, y, _ = panels.VIEWS[view][0]
    assert panels.SIDES[view] == {(1, 0): ("L", "R"), (-1, 0): ("R", "L"), (0, 1): ("P", "A"), (0, -1): ("A", "P")}[x, y]


def test_a_marked_panel_has_its_sides_and_a_bar_of_its_length() -> None:
    geometry, marked = one_corner("volume")
    panel = panels.panels(geometry, marked, 3)[-1]
    axis = Figure().add_axes((0, 0, 1, 1))
    panel.paint(axis, np.ones((geometry.n_voxels, 3)), np.zeros(geometry.n_voxels))
    limits = axis.get_xlim(), axis.get_ylim()
    panel.mark(axis, scale_bar=True)
    assert [text.get_text() for text in axis.texts] == ["L", "R", "10 mm"]
    assert float(np.ptp(axis.lines[-1].get_xdata())) == pytest.approx(10)
    assert (axis.get_xlim(), axis.get_ylim()) == limits
    assert panels.panels(geometry, marked, 3)[0].sides == ("P", "A")  # from the right, the nose is at the right
