"""The page stands alone, says everything, and says what is missing."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_json, write_json
from pulvinar.report import page, run_folder, tables
from pulvinar.report.settings import facts_of_evaluation

VOID = {"meta", "img", "br"}


class Elements(HTMLParser):
    """Open elements, attributes of all of them, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.styles = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data


def parse(path: Path) -> Elements:
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    assert elements.open == []
    elements.text = re.sub(r"\s+", " ", elements.text)
    return elements


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def built(run: Path) -> Elements:
    assert page.build(run) == run / "report.html"
    return parse(run / "report.html")


@pytest.mark.long
def test_the_head_of_a_score_leads_to_what_it_is(built: Elements) -> None:
    links = [value for tag, name, value in built.attributes if (tag, name) == ("a", "href")]
    ids = [value for _, name, value in built.attributes if name == "id"]
    assert "#is-brain_to_image_top1" in links
    assert sorted(set(links)) == sorted(f"#{one}" for one in ids)  # two tables may lead to one definition
    assert "Share of trials whose embedding finds its image first." in built.text


@pytest.mark.long
def test_nothing_is_fetched(built: Elements) -> None:
    sources = [value for _, name, value in built.attributes if name in ("src", "href", "srcset", "action", "data")]
    sources = [source for source in sources if not source.startswith("#")]  # places in the page itself
    assert len(sources) == 4
    assert all(source.startswith("data:image/") for source in sources)
    assert {tag for tag, _, _ in built.attributes}.isdisjoint({"script", "link", "iframe", "object"})
    assert not any(name.startswith("on") for _, name, _ in built.attributes)
    assert "@import" not in built.styles
    assert "url(" not in built.styles


def test_every_image_says_what_it_shows(built: Elements) -> None:
    assert len([value for tag, name, value in built.attributes if tag == "img" and name == "alt" and len(value) > 20]) == 4


def test_every_row_and_the_reason_of_the_missing_one_are_there(built: Elements, run: Path) -> None:
    rows = read_json(run / "evaluation.json")["rows"]
    assert len(rows) == 9
    for row in rows:
        assert tables.label(row["name"]) in built.text
        assert row["description"] in built.text
    assert "not available: one repeat of each image: a noise ceiling needs two" in built.text


@pytest.mark.parametrize(
    "said",
    [
        "300 of 8,188 voxels kept; 61 % of 300 images identified",
        "TROI scores higher than 4 of 6: all voxels, random voxels, univariate, ANOVA.",
        "not counted: noise ceiling (oracle) (higher).",
        "every test image stands in one gallery",
        "mean 0.34 %, 95th percentile 1.00 %",
        "score less the null's mean 60.7 %",
        "outputs of 3 repeats",
        "statistics of the training trials in use",
        "weight of the L1 term, summed over voxels",
        'loss"clip <soft>"',
        "torch2.15.0",
        "“Image” is image → brain top-1",
        "The published numbers are of another data set",
        "The selection ended by threshold after 7 rounds.",
        "artifacts/roi_selected.nii.gz",
        "parahippocampal",
    ],
)
def test_the_page_says(built: Elements, said: str) -> None:
    assert said in built.text


def test_tables_and_maps_lie_beside_the_page(built: Elements, run: Path) -> None:
    for name in ("scores.csv", "scores.txt", "roi_selected.nii.gz", "mask.nii.gz", "figures/roi.svg", "figures/summary.png"):
        assert (run / "artifacts" / name).stat().st_size > 100
    assert not list(run.rglob(".partial-*"))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"method": "troi", "status": "interrupted"})
    text = parse(page.build(tmp_path)).text
    for said in (
        "No selection was recorded",
        "The run is not finished (status: interrupted)",
        "No maps are in this run",
        "The run was not evaluated",
        "No example trials",
        "No training record",
        "No settings are in this run",
        "environment.json is not in this run",
    ):
        assert said in text


@pytest.mark.long
def test_data_without_truth_say_so(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", kind="points", with_truth=False, without=("metrics.jsonl", "artifacts/examples.npz"))
    text = parse(page.build(folder)).text
    assert "No truth and no annotated ROI came with these data" in text
    assert "none came with these data" in text
    assert "Bare points have no volume and no mesh" in text


def test_the_page_goes_where_it_is_told(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without=("artifacts/maps.npz", "artifacts/examples.npz", "metrics.jsonl"))
    assert page.build(folder, tmp_path / "elsewhere" / "page.html") == tmp_path / "elsewhere" / "page.html"
    assert (tmp_path / "elsewhere" / "page.html").is_file()
    assert not (folder / "report.html").exists()


@pytest.mark.long
def test_published_rows_stand_beside_the_number_of_their_protocol_or_apart(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without=("artifacts/maps.npz", "artifacts/examples.npz", "metrics.jsonl"))
    rows = [row | {"protocol": "draws", "gallery_size": 300} for row in read_json(folder / "published.json")]
    write_json(folder / "published.json", rows)

    def beside() -> str:
        page.build(folder)
        html = (folder / "report.html").read_text(encoding="utf-8")
        return html[html.index(">Published beside ours</h2>") : html.index(">How the numbers were made</h2>")]

    assert "gallery of 300" in beside()
    assert "61.0" not in beside()  # the headline's protocol is another one
    assert "they stand apart" in beside()

    evaluation = read_json(folder / "evaluation.json")
    evaluation["rows"][0] |= {"draws_brain_to_image_top1": 0.434, "draws_brain_to_image_top1_interval": [0.4, 0.5]}
    evaluation["protocols"] = {"every_candidate": {"gallery_size": 1000}, "draws": {"gallery_size": 300, "chance": 1 / 300}}
    write_json(folder / "evaluation.json", evaluation)
    assert "43.4" in beside()
    assert "61.0" not in beside()
    assert "apart" not in beside()
    facts = dict(facts_of_evaluation(run_folder.read(folder)))
    assert facts["Also scored"].startswith("30 draws of 300 test images, mean over draws: gallery of 300, chance 0.33")
    assert "top-1, %, 30 draws of 300" in (folder / "report.html").read_text(encoding="utf-8")

    write_json(folder / "published.json", [row | {"gallery_size": 50} for row in rows])
    assert "43.4" not in beside()


@pytest.mark.long
def test_rows_show_scores_intervals_and_signs_and_a_missing_one_its_reason(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without=("artifacts/maps.npz", "artifacts/examples.npz", "metrics.jsonl"))
    evaluation = read_json(folder / "evaluation.json")
    evaluation["rows"][0] |= {"brain_to_image_top1": 0.614, "brain_to_image_top1_interval": [0.5512, 0.67], "n_voxels": 1300}
    evaluation["rows"][1] |= {"brain_to_image_top1": 0.1, "difference_to_troi": -0.514}
    evaluation["rows"][1] |= {"difference_to_troi_interval": [-0.56, -0.47]}
    evaluation["rows"][2] = {"name": "ceiling", "unavailable": "n < 2 & no repeats"}
    write_json(folder / "evaluation.json", evaluation)
    html = page.build(folder).read_text(encoding="utf-8")
    for text in (
        *("61.4", "[55.1, 67.0]", "1,300", "−51.4", "[−56.0, −47.0]", '<span class="verdict lower">lower</span>'),
        *("not available: n &lt; 2 &amp; no repeats", "Noise ceiling"),
    ):
        assert text in html


@pytest.mark.long
def test_words_of_the_run_cannot_become_markup(make_run, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", without=("artifacts/maps.npz", "artifacts/examples.npz", "metrics.jsonl"))
    bad = "<script>alert(1)</script>"
    facts = read_json(folder / "run.json")
    write_json(folder / "run.json", facts | {"data": {"name": bad, "target": bad, "path": bad}, "status": bad})
    write_json(folder / "environment.json", {bad: bad})
    evaluation = read_json(folder / "evaluation.json")
    evaluation["rows"][3] |= {"name": bad, "description": bad}
    write_json(folder / "evaluation.json", evaluation | {"protocol": bad, "labels": {bad: {bad: bad}}, "rules_broken": [bad]})
    html = page.build(folder).read_text(encoding="utf-8")
    assert html.count("<script") == 1  # ours, which sorts tables
    assert "alert(1)" not in html.replace("&lt;script&gt;alert(1)&lt;/script&gt;", "")


@pytest.mark.long
def test_no_value_of_a_decoding_run_becomes_markup(make_run, tmp_path: Path, refuse_markup) -> None:
    assert refuse_markup(make_run(tmp_path / "run", without=("artifacts/examples.npz",))) > 15


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"run\.json is missing"):
        page.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_importing_the_page_is_light_and_knows_no_method() -> None:
    code = "import sys, pulvinar.report.page; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "matplotlib", "nilearn", "sklearn", "nibabel", "pulvinar.methods"}
    assert heavy.isdisjoint(loaded)
