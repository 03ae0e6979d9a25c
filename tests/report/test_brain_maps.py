"""What is written is read back with nibabel: values, types, places in mm."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from pulvinar.report import brain_maps, run_folder


def test_volumes_have_values_types_and_places(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run"))
    written = {path.name: nibabel.load(path) for path in brain_maps.write(run)}
    assert set(written) == {"roi_selected.nii.gz", "roi_reference.nii.gz", "mask.nii.gz", "mask_smoothed.nii.gz"}
    selected = written["roi_selected.nii.gz"]
    assert selected.get_data_dtype() == np.uint8
    places = nibabel.affines.apply_affine(selected.affine, np.argwhere(np.asarray(selected.dataobj) == 1))
    np.testing.assert_allclose(places, run.maps.geometry.coordinates[run.maps.selected])  # both in C order of the grid
    mask = written["mask.nii.gz"]
    assert mask.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.asarray(mask.dataobj)[tuple(run.maps.geometry.index.T)], run.maps.mask, rtol=1e-6)
    assert np.count_nonzero(mask.get_fdata()) == np.count_nonzero(run.maps.mask)
    assert mask.header.get_xyzt_units()[0] == "mm"


def test_surfaces_have_one_value_per_vertex_and_the_mesh(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run", kind="surface"))
    written = {path.name: nibabel.load(path) for path in brain_maps.write(run)}
    geometry = run.maps.geometry
    selected = written["roi_selected.shape.gii"].agg_data()
    assert selected.dtype == np.uint8
    np.testing.assert_array_equal(np.flatnonzero(selected), np.sort(geometry.vertex[run.maps.selected]))
    np.testing.assert_allclose(written["mask.shape.gii"].agg_data()[geometry.vertex], run.maps.mask, rtol=1e-6)
    points, faces = written["mesh.surf.gii"].agg_data()
    np.testing.assert_allclose(points, geometry.mesh_coordinates, rtol=1e-6, atol=1e-5)
    np.testing.assert_array_equal(faces, geometry.mesh_faces)


@pytest.mark.parametrize("kind", ["points", "volume"])
def test_nothing_is_written_for_points_or_without_maps(make_run, tmp_path: Path, kind: str) -> None:
    without = ("artifacts/maps.npz",) if kind == "volume" else ()
    run = run_folder.read(make_run(tmp_path / "run", kind=kind, without=without))
    before = sorted((tmp_path / "run").rglob("*"))
    assert brain_maps.write(run) == []
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run"))
    first = {path: path.read_bytes() for path in brain_maps.write(run)}
    assert {path: path.read_bytes() for path in brain_maps.write(run)} == first
    assert {content[4:8] for content in first.values()} == {bytes(4)}  # no time stamp in the gzip header (RFC 1952)


def test_vertices_that_stand_for_a_mesh_are_drawn_on_fsaverage5() -> None:
    """Oracle: those among the first 10,242 of a hemisphere, on nilearn's mesh; left is left of it."""
    from matplotlib.figure import Figure

    from pulvinar.data.hemispheres import vertex_points
    from pulvinar.report.panels import on_fsaverage5, panels

    geometry = vertex_points(np.array([5, 20_000]), np.array([7]), template="fsaverage")
    surface, places = on_fsaverage5(geometry)
    assert (places.tolist(), surface.vertex.tolist()) == ([0, 2], [5, 10_242 + 7])
    assert surface.coordinates[0, 0] < 0 < surface.coordinates[1, 0]
    assert on_fsaverage5(vertex_points(np.array([5]), np.array([7]), template="fs_LR_59k")) is None
    colours = np.eye(3)
    for panel in panels(geometry, np.ones(3, bool), 2):
        axis = Figure().add_subplot()
        panel.paint(axis, colours, np.arange(3.0))
        assert axis.collections
