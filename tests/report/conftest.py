"""A small made-up run folder, complete or with pieces left out, in the form that a finished run has."""

import contextlib
import copy
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pulvinar.core.errors import PulvinarError
from pulvinar.core.storage import SEAL, write_json, write_text
from pulvinar.data.geometry import Geometry
from pulvinar.report import page

AREAS = {  # centre and radii in mm, relative to the centre of the head (x right, y front, z up)
    "early": ((0, -26, -2), (11, 7, 9)),
    "lateral": ((21, -15, 0), (6, 8, 7)),
    "ventral": ((13, -8, -17), (7, 11, 5)),
    "parahippocampal": ((-12, 2, -14), (5, 7, 4)),
}
AFFINE = np.array([[-2.5, 0, 0, 33.0], [0, 2.5, 0, -60.0], [0, 0, 2.5, -25.0], [0, 0, 0, 1]])  # x runs right to left

MakeRun = Callable[..., Path]


def head(shape: tuple[int, int, int]) -> np.ndarray:
    """An ellipsoid that fills a box, flattened below."""
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    return (place**2).sum(0) ** 0.5 < 1.02 - 0.18 * (place[2] < -0.5)


def sphere(n_rings: int = 28, radius: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A closed mesh: rings of points and the triangles between them."""
    angle, height = np.linspace(0, 2 * np.pi, 2 * n_rings, endpoint=False), np.linspace(0.03, np.pi - 0.03, n_rings)
    around, down = np.meshgrid(angle, height)
    points = radius * np.stack([0.8 * np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), 0.75 * np.cos(down)], -1)
    here = np.arange(points[..., 0].size).reshape(points.shape[:2])
    a, b, c, d = here[:-1], np.roll(here, -1, 1)[:-1], here[1:], np.roll(here, -1, 1)[1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3), faces


def geometry(kind: str) -> Geometry:
    """About 8,000 voxels of a volume whose first axis runs right to left; a sphere; or scattered points."""
    if kind == "volume":
        return Geometry.from_mask(head((27, 32, 21)), AFFINE)
    if kind == "surface":
        points, faces = sphere()
        vertex = np.flatnonzero(points[:, 1] < 35)
        return Geometry.from_surface(vertex, points, faces)
    volume = Geometry.from_mask(head((27, 32, 21)), AFFINE)
    return Geometry.from_points(volume.coordinates[::6])


def area_of(places: Geometry, generator: np.random.Generator) -> np.ndarray:
    """Number of the planted area of each voxel, 0 for none; a few voxels are scattered."""
    points = places.coordinates - places.coordinates.mean(0)
    if places.kind == "surface":
        points = points / 1.6
    area = np.zeros(len(points), int)
    for number, (centre, radii) in enumerate(AREAS.values(), 1):
        for side in (1, -1):
            inside = (((points - np.array(centre) * [side, 1, 1]) / radii) ** 2).sum(1) < 1
            area[inside] = number
    area[generator.choice(len(points), 30, replace=False)] = 1
    return area


def learned(places: Geometry, planted: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A learned weight per voxel, larger in the planted ones, and its low-pass."""
    weight = np.where(planted, generator.gamma(4, 0.15, len(planted)), generator.gamma(0.6, 0.12, len(planted)))
    if places.kind != "volume":
        return weight, places.low_pass(1.0) @ weight
    volume, present = places.to_volume(weight), places.to_volume(np.ones(len(weight)))
    smooth = gaussian_filter(volume, 0.9) / np.maximum(gaussian_filter(present, 0.9), 1e-9)
    return weight, smooth[tuple(places.index.T)]


def images(n: int, generator: np.random.Generator, size: int = 48) -> np.ndarray:
    """Coloured shapes on coloured grounds (image, size, size, 3)."""
    y, x = np.mgrid[:size, :size] / size
    pictures = []
    for _ in range(n):
        ground, shape = generator.integers(120, 256, 3), generator.integers(0, 160, 3)
        centre, radius = generator.uniform(0.35, 0.65, 2), generator.uniform(0.15, 0.35)
        inside = np.hypot(x - centre[0], y - centre[1]) < radius
        pictures.append(np.where(inside[..., None], shape, ground * (0.7 + 0.3 * y[..., None])))
    return np.stack(pictures).astype(np.uint8)


def examples(n_trials: int, generator: np.random.Generator, pictures: np.ndarray | None) -> dict[str, np.ndarray]:
    """Test trials of which half are right; ranks up to 5 stand among the retrieved, others do not."""
    pictures = images(60, generator) if pictures is None else pictures
    rank = np.array([1, 1, 1, 1, 1, 1, 2, 3, 5, 8, 27, 140])[:n_trials]
    seen = generator.permutation(len(pictures))[:n_trials]
    retrieved = np.array([generator.permutation(np.setdiff1d(np.arange(len(pictures)), [s]))[:5] for s in seen])
    for trial, place in enumerate(rank):
        if place <= 5:
            retrieved[trial, place - 1] = seen[trial]
    stimulus = np.array([f"image-{s:03d}" for s in seen])
    return {"seen": pictures[seen], "retrieved": pictures[retrieved], "rank": rank, "stimulus": stimulus}


def records() -> list[dict]:
    """Seven rounds of five epochs, then a refit."""
    alive = np.geomspace(8000, 310, 35)
    lines = [
        {"phase": "select", "round": e // 5 + 1, "epoch": e % 5 + 1, "loss": 5.6 * 0.96**e + 0.1 * np.sin(3 * e) + 0.9}
        | {"n_alive": int(a), "density": a / 8000, "mask_mean": 1 - e / 60}
        for e, a in enumerate(alive)
    ]
    return lines + [{"phase": "refit", "epoch": e + 1, "loss": 4.2 * 0.93**e + 0.4} for e in range(40)]


def control(name: str, score: float, n_voxels: int, difference: tuple[float, float, float] | None, **more: object) -> dict:
    """A row of the evaluation around its top-1 score."""
    row: dict = {"name": name, "description": f"voxels of the control '{name}'", "n_voxels": n_voxels}
    for key, value in (("brain_to_image_top1", score), ("image_to_brain_top1", score - 0.03)):
        row |= {key: value, f"{key}_interval": [value - 0.06, value + 0.06]}
    row |= {"brain_to_image_top5": min(1, score + 0.2), "brain_to_image_median_rank": 1 if score > 0.5 else 3}
    if difference is not None:
        row |= {"difference_to_troi": difference[0], "difference_to_troi_interval": list(difference[1:])}
    return row | more


def missing(name: str, reason: str) -> dict:
    """A row without scores."""
    keys = ("n_voxels", "brain_to_image_top1", "brain_to_image_top1_interval", "image_to_brain_top1", "precision")
    return {"name": name, "description": f"voxels of the control '{name}'", **dict.fromkeys(keys), "unavailable": reason}


def evaluation(n_selected: int, overlap: dict | None) -> dict:
    """Scores with a win, a tie, a loss and a control that is not available."""
    found = overlap or {}
    rows = [
        control("troi", 0.61, n_selected, None, **found) | {"description": "voxels learned with the decoder"},
        control(
            "annotated", 0.58, 1100, (-0.03, -0.08, 0.02), **({"precision": 0.6, "recall": 0.9, "dice": 0.72} if found else {})
        ),
        control("all", 0.44, 8000, (-0.17, -0.22, -0.11)),
        control("random", 0.09, n_selected, (-0.52, -0.58, -0.46)),
        control("ceiling_oracle", 0.68, n_selected, (0.07, 0.02, 0.12)),
        missing("ceiling", "one repeat of each image: a noise ceiling needs two"),
        control("univariate", 0.47, n_selected, (-0.14, -0.2, -0.08)),
        control("univariate_smoothed", 0.57, n_selected, (-0.04, -0.09, 0.01)),
        control("anova", 0.5, n_selected, (-0.11, -0.17, -0.06)),
    ]
    return {
        "rows": rows,
        "gallery_size": 300,
        "chance": 1 / 300,
        "null": {"mean": 0.0034, "percentile_95": 0.01},
        "protocol": "every_candidate",
        "scaling": "train_stats",
        "n_test_trials_averaged": 3,
        "reference": "planted",
        "labels": {"mindeye2": {"Image": "image_to_brain_top1", "Brain": "brain_to_image_top1"}},
        "rules_broken": [],
    }


PUBLISHED = [
    {"table": "1", "setting": "NSD subj1, 1 hour", "method": method, "metric": metric, "value": value, "unit": unit}
    for method, values in {"MindEye2": (77.6, 94.0, 0.235), "TROI": (85.3, 93.6, 0.206)}.items()
    for metric, value, unit in zip(
        ("brain_to_image_top1", "image_to_brain_top1", "pixcorr"), values, ("percent", "percent", "unitless"), strict=True
    )
]
CONFIG = """# voxels to keep at most
budget = 300
# weight of the L1 term, summed over voxels
sparsity = 0.001
loss = "clip <soft>"
"""


def overlap_of(selected: np.ndarray, planted: np.ndarray) -> dict[str, float]:
    """Precision, recall and Dice from their definitions."""
    both = int(np.sum(selected & planted))
    return {
        "precision": both / selected.sum(),
        "recall": both / planted.sum(),
        "dice": 2 * both / (selected.sum() + planted.sum()),
    }


def maps_file(places: Geometry, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What artifacts/maps.npz holds."""
    held = {"coordinates": places.coordinates, **arrays}
    names = ("index", "shape", "affine", "vertex", "mesh_coordinates", "mesh_faces")
    return held | {name: np.asarray(getattr(places, name)) for name in names if getattr(places, name) is not None}


PAIR = re.compile(r"\[[+−-]?[\d.,]+\s*%?, [+−-]?[\d.,]+\s*%?\]")  # an interval in the one notation
OTHERWISE = re.compile(r"\d\s*%? to [+−-]?\d|±|\d \([+−-]?\d[\d.]* to ")  # in another


class _Blocks(HTMLParser):
    """Pieces of a page whose intervals must say their level: (what, text, what stands over it)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.heads: list[str] = []
        self.column, self.depth, self.text, self.tag = 0, 0, "", ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "table":
            self.heads = []
        if tag == "tr":
            self.column = 0
        if tag in ("td", "th", "p", "dd", "li", "h1", "figcaption", "dt"):
            self.tag, self.text = tag, ""

    def handle_endtag(self, tag: str) -> None:
        if tag != self.tag:
            return
        if tag in ("td", "th"):
            over = self.heads[self.column] if self.column < len(self.heads) else ""
            self.found.append((tag, self.text, over))
            self.column += 1
        else:
            self.found.append((tag, self.text, self.text))
        self.tag = ""

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script>'\"&<img src=x onerror=alert(2)>"


def _leaves(value: Any, key: str = "", *, in_list: bool = False) -> Iterator[tuple[Any, Any, str]]:
    """(container, place, name) of every value that is no container; in lists (rows, mostly of numbers) of texts alone."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, inner in list(items):
        name = place if isinstance(place, str) else key
        if isinstance(inner, dict | list):
            yield from _leaves(inner, name, in_list=in_list or isinstance(value, list) or isinstance(inner, list))
        elif isinstance(inner, str) or not in_list:
            yield value, place, name


@pytest.fixture
def refuse_markup(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], int]:
    """Builds the page of a run folder with markup in place of all values of a name, name after name; how many pages there were.

    Texts get it appended, whatever else is replaced by it: the page is refused, or has no element that its templates lack.
    """
    monkeypatch.setattr("pulvinar.report.figures.draw", lambda found, topic: {})

    def check(folder: Path) -> int:
        n_pages = 0
        files = [*folder.rglob("*.json"), *folder.rglob("config.toml")]
        for path in files:
            original = path.read_text(encoding="utf-8")
            value = {"config": tomllib.loads(original)} if path.suffix == ".toml" else json.loads(original)
            for name in sorted({name for _, _, name in _leaves(value)}):
                changed = copy.deepcopy(value)
                for container, place, own in list(_leaves(changed)):
                    if own == name:
                        inner = container[place]
                        container[place] = f"{inner} {HOSTILE}" if isinstance(inner, str) else HOSTILE
                changed.pop(SEAL, None) if isinstance(changed, dict) else None
                lines = (
                    [f"{key} = {json.dumps(text)}" for key, text in changed["config"].items()] if path.suffix == ".toml" else []
                )
                path.write_text("\n".join(lines) if lines else json.dumps(changed), encoding="utf-8")
                with contextlib.suppress(PulvinarError):
                    html = page.build(folder).read_text(encoding="utf-8")
                    assert "<script>alert" not in html, f"{path.name}: {name}"
                    assert "<img src=x" not in html, f"{path.name}: {name}"
                    n_pages += 1
            path.write_text(original, encoding="utf-8")
        return n_pages

    return check


@pytest.fixture(scope="session")
def check_intervals() -> Callable[[Path], int]:
    """check_intervals(folder): its report.html, CSV and text tables; every interval says 95 %. How many there were.

    Links of the page lead somewhere in it.
    """

    def says(text: str) -> bool:
        return "95 %" in text.replace("\u00a0", " ")

    def of_page(html: str) -> int:
        n_found, blocks = 0, _Blocks()
        for part in re.split(
            r"(?=<table)|(?<=</thead>)|(?<=</table>)", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
        ):
            before = len(blocks.found)
            blocks.feed(part)
            if part.endswith("</thead>"):
                blocks.heads = [text for tag, text, _ in blocks.found[before:] if tag == "th"]
        for tag, text, over in blocks.found:
            n_found += len(PAIR.findall(text))
            assert not PAIR.search(text) or says(over), f"<{tag}> {text!r} under {over!r}"
            assert tag not in ("td", "dd") or not OTHERWISE.search(text), f"<{tag}> {text!r}"
            assert "interval" not in text or says(text) or "no interval" in text, f"<{tag}> {text!r}"
        return n_found

    def check(folder: Path) -> int:
        html = (folder / "report.html").read_text(encoding="utf-8")
        n_found, places = of_page(html), re.findall(r' id="([^"]+)"', html)
        assert len(places) == len(set(places))
        assert set(re.findall(r'href="#([^"]+)"', html)) <= set(places)  # the head of a score leads to what it is
        for path in sorted((folder / "artifacts").glob("*.txt")):
            text = path.read_text(encoding="utf-8")
            assert not PAIR.search(text) or says(text), path.name
        for path in sorted((folder / "artifacts").glob("*.csv")):
            names = path.read_text(encoding="utf-8").splitlines()[0].split(",")
            assert not [name for name in names if name.endswith(("_low", "_high", "_interval"))], path.name
        return n_found

    return check


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """make_run(folder, kind='volume', with_truth=True, without=('published.json', ...), pictures=None) -> the folder."""

    def make(
        folder: Path,
        *,
        kind: str = "volume",
        with_truth: bool = True,
        without: tuple[str, ...] = (),
        pictures: np.ndarray | None = None,
    ) -> Path:
        generator = np.random.default_rng(4)
        places = geometry(kind)
        area = area_of(places, generator)
        mask, smoothed = learned(places, area > 0, generator)
        selected = np.zeros(places.n_voxels, bool)
        selected[np.argsort(-smoothed)[: min(300, places.n_voxels // 8)]] = True
        arrays = {"mask": mask, "mask_smoothed": smoothed, "selected": selected}
        scores = evaluation(int(selected.sum()), overlap_of(selected, area > 0) if with_truth else None)
        if with_truth:
            arrays |= {"reference": area > 0, "area": area}
            scores["coverage"] = [
                {"area": n, "name": name, "n_voxels": int(np.sum(area == n)), "n_selected": int(np.sum(selected[area == n]))}
                for n, name in enumerate(AREAS, 1)
            ]
        else:
            scores["reference"] = None
        data = {"name": "simulated cortex", "path": "cortex", "target": "subj04", "fingerprint": "0a1b2c3d"}
        selection = {"n_voxels": int(selected.sum()), "n_candidates": places.n_voxels, "path": "threshold", "rounds": 7}
        facts = {"method": "troi", "status": "finished", "seed": 0, "seconds": 123.4, "data": data, "selection": selection}
        environment = {"pulvinar": "0.1.0", "python": "3.11.2", "torch": "2.15.0", "platform": "Linux", "threads": 2}
        write_json(folder / "run.json", facts)
        write_json(folder / "environment.json", environment)
        write_text(folder / "config.toml", CONFIG)
        write_text(folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records()))
        write_json(folder / "evaluation.json", scores)
        write_json(folder / "published.json", PUBLISHED)
        (folder / "artifacts").mkdir()
        np.savez_compressed(folder / "artifacts" / "maps.npz", **maps_file(places, arrays))
        np.savez_compressed(folder / "artifacts" / "examples.npz", **examples(12, generator, pictures))
        for name in without:
            (folder / name).unlink()
        return folder

    return make


@pytest.fixture(scope="session")
def finished_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run over a volume; read it, do not change it."""
    return make_run(tmp_path_factory.mktemp("finished") / "run")
