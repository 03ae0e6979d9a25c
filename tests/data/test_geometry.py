"""Geometry. Oracles: the affine applied by hand, a dense loop over all pairs, shortest paths counted by hand."""

import dataclasses

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.data.geometry import Geometry

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 5], [0, 0, 0, 1]])
OBLIQUE = np.array([[-2.0, 0.5, 0, 10], [0, 3, 0.25, -20], [1, 0, 4, 5], [0, 0, 0, 1]])


def box(seed: int = 0) -> tuple[np.ndarray, Geometry]:
    mask = np.random.default_rng(seed).random((5, 4, 3)) < 0.6
    return mask, Geometry.from_mask(mask, AFFINE)


def grid_mesh(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of side x side vertices 2 mm apart, each square cut into two triangles."""
    x, y = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    points = np.stack([2.0 * x.ravel(), 2.0 * y.ravel(), np.zeros(side * side)], axis=1)
    corner = (x * side + y)[:-1, :-1].ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + side], 1), np.stack([corner + 1, corner + side + 1, corner + side], 1)]
    )
    return points, faces


def test_voxels_of_a_mask_are_listed_as_indexing_lists_them():
    mask, geometry = box()
    numbered = np.arange(mask.size).reshape(mask.shape)
    assert np.array_equal(numbered[tuple(geometry.index.T)], numbered[mask])
    i, j, k = geometry.index[7]
    assert np.allclose(geometry.coordinates[7], [10 - 2 * i, -20 + 3 * j, 5 + 4 * k])  # the affine by hand
    assert geometry.kind == "volume"
    oblique = Geometry.from_mask(mask, OBLIQUE)
    assert np.allclose(oblique.coordinates[7], [10 - 2 * i + 0.5 * j, -20 + 3 * j + 0.25 * k, 5 + i + 4 * k])


def test_values_return_to_their_places_in_their_type():
    mask, geometry = box()
    values = np.arange(1, mask.sum() + 1)
    for dtype, fill, wanted in [
        (np.float32, np.nan, np.float32),
        (np.int16, 0.0, np.int16),
        (np.int16, np.nan, np.float64),
        (bool, 0.0, bool),
        (bool, np.nan, np.float64),
    ]:
        volume = geometry.to_volume(values.astype(dtype), fill=fill)
        assert volume.dtype == wanted
        assert np.array_equal(volume[mask], values.astype(dtype))
        assert np.array_equal(volume[~mask], np.full((~mask).sum(), fill), equal_nan=True)
    with pytest.raises(InputError, match="one per voxel"):
        geometry.to_volume(values[:-1])
    with pytest.raises(InputError, match="a points has no grid"):
        Geometry.from_points(np.zeros((2, 3))).to_volume(np.zeros(2))


def test_low_pass_is_a_normalised_gaussian_cut_at_three_sigmas():
    _, geometry = box()
    sigma = 1.2
    width = sigma * geometry.spacing
    kernel = np.zeros((geometry.n_voxels, geometry.n_voxels))
    for i, a in enumerate(geometry.coordinates):  # slow loop over the equation
        for j, b in enumerate(geometry.coordinates):
            distance = np.sqrt(((a - b) ** 2).sum())
            kernel[i, j] = np.exp(-(distance**2) / (2 * width**2)) if distance <= 3 * width * (1 + 1e-9) else 0.0
    kernel /= kernel.sum(1, keepdims=True)
    np.testing.assert_allclose(geometry.low_pass(sigma).toarray(), kernel, atol=1e-12)
    assert np.array_equal(geometry.low_pass(0).toarray(), np.eye(geometry.n_voxels))
    with pytest.raises(InputError, match="sigma: 0 or more"):
        geometry.low_pass(-1.0)


def test_low_pass_of_a_constant_is_the_constant_even_at_the_edge():
    points, faces = grid_mesh(6)
    surface = Geometry.from_surface(np.arange(0, 36, 2), points, faces)
    for geometry in (box()[1], surface, Geometry.from_points(points[:, :2])):
        np.testing.assert_allclose(geometry.low_pass(1.5) @ np.full(geometry.n_voxels, 3.0), 3.0)


def test_surface_distance_runs_along_edges_not_through_space():
    # two parallel strips 1 mm apart that touch only at their far end: near in space, far along the mesh
    n = 6
    lower = np.stack([np.arange(n) * 2.0, np.zeros(n), np.zeros(n)], 1)
    upper = lower + np.array([0, 0, 1.0])
    side = np.concatenate([lower, upper]) + np.array([0, 1.0, 0])
    points = np.concatenate([lower, upper, side])  # lower 0..5, upper 6..11, their borders 12..17 and 18..23
    faces = []
    for strip, border in ((0, 12), (6, 18)):
        for k in range(n - 1):
            faces += [[strip + k, strip + k + 1, border + k], [strip + k + 1, border + k + 1, border + k]]
    faces.append([n - 1, 2 * n - 1, 12 + n - 1])  # the bridge at the far end
    geometry = Geometry.from_surface(np.array([0, 6, 1]), points, np.array(faces))
    kernel = geometry.low_pass(1.0).toarray()
    assert geometry.spacing == 1.0  # straight through space, to the other strip
    assert kernel[0, 1] == 0.0  # 10 + 1 + 10 mm along the mesh, beyond 3 sigma
    near = np.exp(-0.5 * 2.0**2)  # one edge of 2 mm, sigma 1 mm
    np.testing.assert_allclose(kernel[0, 2], near / (1 + near))


@pytest.mark.parametrize(
    "geometry",
    [
        box()[1],
        Geometry.from_surface(np.array([7, 0, 3]), *grid_mesh(3)),
        Geometry.from_points(np.eye(3)),
        Geometry.from_points(np.eye(3), template="fsaverage"),
    ],
    ids=["volume", "surface", "points", "template"],
)
def test_arrays_give_the_geometry_back_with_every_field(geometry):
    back = Geometry.from_arrays(geometry.arrays())
    for field in dataclasses.fields(Geometry):
        ours, theirs = getattr(back, field.name), getattr(geometry, field.name)
        assert (ours is None) == (theirs is None), field.name
        assert np.array_equal(ours, theirs), field.name


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (("shape",), r"has 'index' but not \['shape'\]"),
        (("index", "coordinates"), "index, vertex or coordinates is needed"),
    ],
)
def test_arrays_without_a_field_are_refused(missing, message):
    arrays = {name: values for name, values in box()[1].arrays().items() if name not in missing}
    with pytest.raises(InputError, match=message):
        Geometry.from_arrays(arrays)


def test_spacing_is_the_median_nearest_neighbour_distance():
    assert Geometry.from_points(np.array([[0.0], [1.0], [3.0], [6.0]])).spacing == 1.5  # nearest: 1, 1, 2, 3
    assert Geometry.from_points(np.zeros((1, 3))).spacing == 1.0
    full = Geometry.from_mask(np.ones((3, 3, 3), bool), AFFINE)
    assert full.spacing == 2.0


def test_take_keeps_grid_and_mesh():
    mask, geometry = box()
    kept = geometry.take(np.array([4, 1]))
    assert kept.shape == mask.shape
    assert np.array_equal(kept.index, geometry.index[[4, 1]])
    points, faces = grid_mesh(3)
    surface = Geometry.from_surface(np.arange(9), points, faces).take(np.arange(9) > 5)
    assert surface.vertex.tolist() == [6, 7, 8]
    assert surface.n_voxels == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Geometry.from_points(np.zeros((4, 5))), r"\(voxel, 3\) is needed, \(4, 5\)"),
        (lambda: Geometry.from_points(np.array([[0, 0, np.nan]])), r"not finite at voxels \[0\]"),
        (lambda: Geometry.from_points(np.array([["a", "b", "c"]])), "numbers are needed"),
        (lambda: Geometry.from_mask(np.ones((2, 2)), AFFINE), "3-D volume"),
        (lambda: Geometry.from_mask(np.ones((2, 2, 2)), np.zeros((4, 4))), "invertible"),
        (lambda: Geometry.from_index(np.array([[0, 0, 9]]), shape=(3, 3, 3), affine=AFFINE), "leaves the grid"),
        (lambda: Geometry.from_index(np.array([[0, 0, 1.5]]), shape=(3, 3, 3), affine=AFFINE), r"whole numbers .* \[1.5\]"),
        (lambda: Geometry.from_index(np.array([[0, 0, 1]]), shape=(3, 3), affine=AFFINE), "three sizes"),
        (
            lambda: Geometry.from_index(np.ones((2, 3)), shape=(3, 3, 3), affine=AFFINE),
            r"named twice, first by voxels \[0, 1\]",
        ),
        (lambda: Geometry.from_surface(np.array([0, 0]), *grid_mesh(2)), "named twice"),
        (lambda: Geometry.from_surface(np.array([4]), *grid_mesh(2)), "the mesh has 4 vertices"),
        (lambda: Geometry.from_surface(np.array([0]), grid_mesh(2)[0], np.array([[0, 1]])), r"\(face, 3\) is needed"),
        (lambda: Geometry.from_surface(np.array([0]), grid_mesh(2)[0], np.array([[0, 1, 7]])), "mesh_faces: 0 to 7"),
    ],
)
def test_impossible_places_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
