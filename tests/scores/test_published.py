"""Published rows against what the papers' texts say, and against the design's table where it lies beside this checkout."""

import csv

import pytest

from pulvinar.scores.published import FILE, ROOT, published

WINGS = {
    "decoding": ("troi", "mindeye2", "rival"),
    "rsa": ("aggregate",),
    "encoding": ("contrastive",),
    "gating": ("dcs", "vdg"),
}


def _lines(wing: str) -> list[dict[str, str]]:
    with (ROOT / wing / FILE).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("wing", WINGS)
def test_lines_are_whole_and_stand_once(wing):
    lines = _lines(wing)
    assert all(row["table"].count("/") == 1 and row["method"] and row["metric"] and row["unit"] for row in lines)
    keys = [tuple(row[name] for name in ("table", "dataset", "setting", "budget", "method", "metric", "note")) for row in lines]
    assert len(set(keys)) == len(keys)
    for row in lines:
        assert 0 < float(row["value"]) <= (100 if row["unit"] == "percent" else 1)
        assert bool(row["protocol"]) == bool(row["gallery_size"]) == ("top1" in row["metric"])


def test_values_that_the_texts_name():
    rows = published("gating", ("dual-gating/table1",), methods=("VICReg",), metrics=("linear_dense",))
    assert [row["value"] for row in rows] == [91.11, 86.15, 65.86, 77.74]
    rows = published("gating", ("dual-gating/table1",), methods=("VICReg dual",), dataset="CIFAR-10")
    found = {row["metric"]: row["value"] for row in rows if row["budget"] == 0.1}
    assert found == {"linear_dense": 88.99, "linear_gated": 88.94, "mac_share": 18.51}
    assert rows[0]["setting"] == "CIFAR-10, 10 % asked; ResNet-18; linear evaluation; 5 runs"
    assert rows[0]["sd"] == 0.04
    (image, brain) = (
        row
        for row in published("decoding", ("troi/table1",), methods=("TROI",), dataset="NSD subj1")
        if "top1" in row["metric"]
    )
    assert (image["metric"], image["value"], image["gallery_size"]) == ("image_to_brain_top1", 93.6, 300)
    assert (brain["metric"], brain["value"], brain["note"][:18]) == ("brain_to_image_top1", 85.3, "printed as 'Brain'")
    assert {row["value"] for row in published("rsa", ("aggregation/text",))} == {20.21, 42.26}
    higher = published("encoding", ("encoding/pooled",), metrics=("r_optimistic",), methods=("contrastive-tuned",))
    assert [row["value"] for row in higher] == [0.4165, 0.3683, 0.3858]


@pytest.mark.parametrize("wing", WINGS)
def test_every_value_of_the_design_stands_there_once(wing, shared_data):
    with (shared_data.parent / "design" / "published.csv").open() as file:
        given = [row for row in csv.DictReader(file) if row["paper"] in WINGS[wing] and row["metric"] != "flops"]
    wanted = sorted(100 - float(row["value"]) if row["metric"] == "flops_reduction" else float(row["value"]) for row in given)
    assert sorted(float(row["value"]) for row in _lines(wing)) == pytest.approx(wanted)
