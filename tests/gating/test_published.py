"""Published rows against the papers' own arithmetic, and against the design's table where it lies beside this checkout."""

import csv

import pytest

from pulvinar.core.errors import NotFoundError
from pulvinar.gating.published import TABLES, published


@pytest.mark.parametrize("table", list(TABLES))
def test_rows_are_accuracies_and_shares(table):
    rows = published(table)
    assert len(rows) >= 6
    for row in rows:
        for value in (row.dense, row.gated, row.mac_share):
            assert value is None or 0.02 < value < 1
        assert row.dense is not None or row.gated is not None


def test_values_that_the_texts_name():
    dense = {row.data: row.dense for row in published("dual 1") if row.method == "VICReg"}
    assert dense == {"CIFAR-10": 0.9111, "STL-10": 0.8615, "CIFAR-100": 0.6586, "ImageNet-100": 0.7774}
    (row,) = [r for r in published("dual 1") if (r.data, r.method, r.budget) == ("CIFAR-10", "VICReg dual", 0.1)]
    assert (row.dense, row.gated, row.gated_sd) == pytest.approx((0.8899, 0.8894, 0.0006))
    assert row.mac_share == pytest.approx(0.1851)
    with pytest.raises(NotFoundError, match="did you mean 'dual 1'"):
        published("duel 1")


def test_every_value_stands_in_the_table_of_the_design(shared_data):
    with (shared_data.parent / "design" / "published.csv").open() as file:
        given = [row for row in csv.DictReader(file) if row["paper"] in ("dcs", "vdg")]
    papers = {"dynamic": "dcs", "dual": "vdg"}
    for table in TABLES:
        paper, number = table.split()
        values = {float(row["value"]) for row in given if (row["paper"], row["table"]) == (papers[paper], number)}
        for row in published(table):
            for value in (row.dense, row.gated):
                assert value is None or round(100 * value, 2) in values
